"""The dispatch against the obvious model: a list of events for each key, and a list of who waits."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from workpool.dispatch import Dispatch, State
from workpool.errors import HandlerError, PoolClosed, PoolFull

KEYS = st.sampled_from("abcd")
LONG = 12
"""Events that come before an ending may, so that most runs have something to end."""


class DispatchMachine(RuleBasedStateMachine):
    """Random calls of a driver with several workers; after each, the state is the model's."""

    @initialize(bound=st.one_of(st.none(), st.integers(1, 6)), workers=st.integers(1, 4))
    def start(self, bound: int | None, workers: int) -> None:
        self.core: Dispatch[str, int] = Dispatch(bound)
        self.core.start(workers)
        self.bound = bound
        self.number = 0
        self.lanes: dict[str, list[int]] = {}  # All that waits, by key.
        self.held: dict[int, tuple[str, int]] = {}  # What each busy worker holds.
        self.gone: set[int] = set()  # Workers that have left.
        self.adders: list[tuple[str, int]] = []
        self.handled: dict[str, list[int]] = {}
        self.failed = False
        self.closed = False
        self.drained = False

    def model_waiting(self) -> int:
        return sum(map(len, self.lanes.values()))

    def model_accept(self, key: str, event: int) -> None:
        self.lanes.setdefault(key, []).append(event)

    def admit(self) -> None:
        """What the driver does after each choice."""
        if self.core.adders and self.core.has_room():
            self.core.admit()
            self.core.admitted.clear()
        if self.bound is None or self.closed:
            return
        if self.adders and (self.model_waiting() <= (self.bound + 1) // 2 or self.sleeping()):
            while self.adders and self.model_waiting() < self.bound:
                self.model_accept(*self.adders.pop(0))

    def sleeping(self) -> bool:
        return len(self.idle_workers()) > 0

    def idle_workers(self) -> list[int]:
        return [w for w in range(len(self.core.holds)) if w not in self.held and w not in self.gone]

    @rule(key=KEYS, waits=st.booleans(), inside=st.booleans())
    def add(self, key: str, waits: bool, inside: bool) -> None:
        self.number += 1
        event = self.number
        inside = inside and bool(self.held)
        full = self.bound is not None and (self.model_waiting() >= self.bound or bool(self.adders))
        accepted: bool | None
        try:
            wake = self.core.submit(key, event)
            if wake is None:
                wake = self.core.offer(key, event, event if waits else None, inside)
            accepted = wake is not None
        except (PoolClosed, HandlerError):
            assert self.closed
            assert not (inside and self.drained)
            return
        except PoolFull:
            assert full
            assert not waits
            return
        assert not self.closed or (inside and self.drained)
        if self.closed or not full or inside:
            assert accepted
            self.model_accept(key, event)
        else:
            assert not accepted
            self.adders.append((key, event))

    @precondition(lambda self: self.adders)
    @rule(data=st.data())
    def give_up(self, data: st.DataObject) -> None:
        at = data.draw(st.integers(0, len(self.adders) - 1))
        _, event = self.adders.pop(at)
        assert self.core.withdraw(event) is True

    @precondition(lambda self: self.idle_workers())
    @rule(data=st.data())
    def take(self, data: st.DataObject) -> None:
        worker = data.draw(st.sampled_from(self.idle_workers()))
        item = self.core.take(worker)
        self.core.wake()
        self.check_choice(worker, item)

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def next(self, data: st.DataObject) -> None:
        worker = data.draw(st.sampled_from(sorted(self.held)))
        key, event = self.held.pop(worker)
        self.handled.setdefault(key, []).append(event)
        self.check_choice(worker, self.core.next(worker, key))

    @precondition(lambda self: self.held and self.number > LONG)
    @rule(data=st.data())
    def fail(self, data: st.DataObject) -> None:
        worker = data.draw(st.sampled_from(sorted(self.held)))
        key, event = self.held.pop(worker)
        self.core.fail(worker, (key, event), ValueError("no"))
        self.lanes.setdefault(key, []).insert(0, event)
        self.failed = self.failed or not self.closed or self.drained
        self.closed, self.drained = True, False
        self.refuse_adders()
        self.leave(worker)

    def check_choice(self, worker: int, item: tuple[str, int] | None) -> None:
        busy = {key for key, _ in self.held.values()}
        startable = {key for key, events in self.lanes.items() if events and key not in busy}
        if self.closed and not self.drained:
            assert item is None
        elif item is None:
            assert not startable, "an event could start, and the worker got none"
        else:
            key, event = item
            assert key in startable, "a key that may not start was chosen"
            assert event == self.lanes[key].pop(0), "an event passed another of its key"
            self.held[worker] = item
        self.admit()

    @precondition(lambda self: self.number > LONG)
    @rule()
    def drain(self) -> None:
        self.core.drain()
        if not self.closed:
            self.closed = self.drained = True
        self.refuse_adders()

    @precondition(lambda self: self.number > LONG)
    @rule()
    def stop(self) -> None:
        self.core.stop()
        self.closed, self.drained = True, False
        self.refuse_adders()

    def refuse_adders(self) -> None:
        for _, event in self.adders:
            assert self.core.withdraw(event) is True
        self.adders.clear()

    @precondition(lambda self: self.core.finished and self.idle_workers())
    @rule(data=st.data())
    def worker_leaves(self, data: st.DataObject) -> None:
        self.leave(data.draw(st.sampled_from(self.idle_workers())))

    def leave(self, worker: int) -> None:
        self.gone.add(worker)
        last = self.core.leave(worker)
        assert last == (len(self.gone) == len(self.core.holds))
        if last:
            self.core.end()
            assert self.core.state is State.ENDED
            assert sorted(self.core.left, key=lambda item: item[0]) == [
                (key, event) for key, events in sorted(self.lanes.items()) for event in events
            ]
            self.lanes.clear()

    @invariant()
    def the_state_is_the_models(self) -> None:
        self.core.check_invariants()
        stats = self.core.stats()
        assert stats.waiting == self.model_waiting()
        assert stats.in_flight == len(self.held)
        assert stats.handled == sum(map(len, self.handled.values()))
        assert stats.keys == len(
            {key for key, events in self.lanes.items() if events} | {k for k, _ in self.held.values()}
        )
        assert stats.added == stats.handled + stats.returned + stats.in_flight + stats.waiting
        assert (self.core.failure is not None) == self.failed
        assert [event for _, event in self.core.adders.values()] == [event for _, event in self.adders]


DispatchMachine.TestCase.settings = settings(max_examples=200, stateful_step_count=60, deadline=None, print_blob=True)
TestDispatchModel = DispatchMachine.TestCase
