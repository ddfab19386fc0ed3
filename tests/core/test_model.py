"""The dispatch against the obvious model: a list of events for each key, and lists of who waits."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from workpool.dispatch import Dispatch
from workpool.errors import HandlerError, PoolClosed, PoolFull
from workpool.policy import Park, Skip
from workpool.records import State

KEYS = st.sampled_from("abcd")
LONG = 12
"""Events that come before an ending may, so that most runs have something to end."""
MAX_DEAD = 3
DECISIONS: list[Any] = [0.0, 1.0, 4.0, Skip(), Park()]


class DispatchMachine(RuleBasedStateMachine):
    """Random calls of a driver with several workers; after each, the state is the model's."""

    @initialize(
        bound=st.one_of(st.none(), st.integers(1, 6)),
        max_lane=st.one_of(st.none(), st.integers(1, 3)),
        workers=st.integers(1, 4),
    )
    def start(self, bound: int | None, max_lane: int | None, workers: int) -> None:
        self.core: Dispatch[str, int] = Dispatch(bound, max_lane=max_lane, max_dead=MAX_DEAD)
        self.core.start(workers)
        self.bound, self.max_lane = bound, max_lane
        self.number = 0
        self.now = 0.0
        self.lanes: dict[str, list[int]] = {}  # All that waits, by key.
        self.held: dict[int, tuple[str, int]] = {}  # What each busy worker holds.
        self.gone: set[int] = set()  # Workers that have left.
        self.adders: list[tuple[str, int]] = []  # Who waits for room in the pool,
        self.lines: dict[str, list[int]] = {key: [] for key in "abcd"}  # and in each lane.
        self.retrying: dict[str, float] = {}  # When each key is due.
        self.parked: set[str] = set()
        self.to_park: set[str] = set()
        self.failures: dict[str, int] = dict.fromkeys("abcd", 0)  # Of the first event of each key.
        self.dead: list[tuple[str, int]] = []
        self.counts = {"handled": 0, "dead": 0, "replayed": 0, "cancelled": 0}
        self.marked = 0
        self.marks: dict[str, tuple[str, set[int]]] = {}  # The key of each mark, and what it still waits for.
        self.reached: set[str] = set()  # Marks that are to be told by the end of the step.
        self.failed = False
        self.closed = False
        self.drained = False

    # The model.

    def waiting(self) -> int:
        return sum(map(len, self.lanes.values()))

    def busy(self) -> set[str]:
        return {key for key, _ in self.held.values()}

    def is_lane_full(self, key: str) -> bool:
        events = self.lanes.get(key, [])
        behind = len(events) - bool(events and key not in self.busy())
        return self.max_lane is not None and behind >= self.max_lane

    def is_full(self) -> bool:
        return self.bound is not None and (self.waiting() >= self.bound or bool(self.adders))

    def accept(self, key: str, event: int) -> None:
        self.lanes.setdefault(key, []).append(event)

    def over(self, key: str, event: int) -> None:
        """An event has ended for good: a mark is reached with the last of those that were there when it was made."""
        for gate, (marked, events) in [*self.marks.items()]:
            if marked == key:
                events.discard(event)
            if not events:
                self.reached.add(gate)
                del self.marks[gate]

    def put_back(self, key: str, event: int) -> None:
        self.lanes.setdefault(key, []).insert(0, event)

    def move_up(self, key: str) -> None:
        """The first event of a key has ended: what is known of it is over, and its line may come in."""
        self.failures[key] = 0
        self.let_in(key)

    def let_in(self, key: str) -> None:
        while self.lines[key] and not self.closed and not self.is_lane_full(key):
            self.accept(key, self.lines[key].pop(0))

    def bury(self, key: str, event: int) -> None:
        self.dead = [*self.dead, (key, event)][-MAX_DEAD:]
        self.counts["dead"] += 1
        self.over(key, event)
        self.move_up(key)

    def idle_workers(self) -> list[int]:
        return [w for w in range(len(self.core.holds)) if w not in self.held and w not in self.gone]

    def follow_up(self) -> None:
        """What the driver does after each step, and the model after it."""
        told = {gate for gate in self.core.admitted if isinstance(gate, str)}
        assert told == self.reached, "a mark is told too early, or too late"
        self.reached.clear()
        tells = bool(self.core.admitted)
        if tells or (self.core.adders and self.core.has_room()):
            self.core.admit()
            self.core.admitted.clear()
        self.core.wake()
        if self.bound is None or self.closed:
            return
        if self.adders and (tells or self.waiting() <= (self.bound + 1) // 2 or self.idle_workers()):
            while self.adders and self.waiting() < self.bound:
                key, event = self.adders.pop(0)
                if self.is_lane_full(key):
                    self.lines[key].append(event)
                else:
                    self.accept(key, event)

    # What callers do.

    @rule(key=KEYS, waits=st.booleans(), inside=st.booleans())
    def add(self, key: str, waits: bool, inside: bool) -> None:
        self.number += 1
        event = self.number
        inside = inside and bool(self.held)
        lane_full, full = self.is_lane_full(key), self.is_full()
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
            assert lane_full or full
            assert not waits
            return
        assert not self.closed or (inside and self.drained)
        if self.closed or inside or not (lane_full or full):
            assert accepted
            self.accept(key, event)
        elif lane_full:
            assert not accepted
            self.lines[key].append(event)
        else:
            assert not accepted
            self.adders.append((key, event))

    @precondition(lambda self: self.adders or any(self.lines.values()))
    @rule(data=st.data())
    def give_up(self, data: st.DataObject) -> None:
        in_lines = [(key, event) for key, line in self.lines.items() for event in line]
        key, event = data.draw(st.sampled_from([*self.adders, *in_lines]))
        assert self.core.is_in_line(event, key) == ((key, event) in in_lines)
        if (key, event) in in_lines:
            self.lines[key].remove(event)
        else:
            self.adders.remove((key, event))
        assert self.core.withdraw(event, key) is True
        assert self.core.withdraw(event, key) is False

    @precondition(lambda self: self.core.serving)
    @rule(key=KEYS)
    def park(self, key: str) -> None:
        self.core.park(key, self.now)
        if self.retrying.pop(key, None) is not None:
            self.parked.add(key)
        elif key not in self.parked:
            self.to_park.add(key)
        self.follow_up()

    @precondition(lambda self: self.core.serving)
    @rule(key=KEYS)
    def resume(self, key: str) -> None:
        known = key in self.parked | self.to_park | self.retrying.keys()
        assert self.core.resume(key) is known
        self.retrying.pop(key, None)
        self.parked.discard(key)
        self.to_park.discard(key)
        self.follow_up()

    @precondition(lambda self: self.core.serving and (self.parked or self.retrying))
    @rule(data=st.data())
    def skip_head(self, data: st.DataObject) -> None:
        key = data.draw(st.sampled_from(sorted(self.parked | self.retrying.keys())))
        dead = self.core.skip_head(key, self.now)
        assert dead is not None
        assert (dead.event, dead.attempts) == (self.lanes[key].pop(0), self.failures[key])
        self.parked.discard(key)
        self.retrying.pop(key, None)
        self.bury(key, dead.event)
        self.follow_up()

    @precondition(lambda self: self.dead)
    @rule(data=st.data())
    def replay(self, data: st.DataObject) -> None:
        at = data.draw(st.integers(0, len(self.dead) - 1))
        key, event = self.dead[at]
        refused = self.closed or self.is_lane_full(key) or self.is_full()
        with suppress(PoolFull, PoolClosed, HandlerError):
            assert self.core.replay(list(self.core.buried)[at]) is True
            assert not refused
            self.accept(key, event)
            del self.dead[at]
            self.counts["replayed"] += 1
            refused = True
        assert refused
        self.follow_up()

    @precondition(lambda self: self.core.serving)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        held = self.parked | self.retrying.keys()
        places = [(key, event) for key, events in self.lanes.items() for event in events[key in held :]]
        if not places:
            return
        key, event = data.draw(st.sampled_from(places))
        was_head = key not in self.busy() | held and event == self.lanes[key][0]
        assert self.core.cancel(key, event) is True
        self.core.rubbish.clear()
        self.lanes[key].remove(event)
        self.counts["cancelled"] += 1
        self.over(key, event)
        self.move_up(key) if was_head else self.let_in(key)
        self.follow_up()

    @rule(key=KEYS)
    def mark(self, key: str) -> None:
        self.marked += 1
        gate = f"mark {self.marked}"
        events = {*self.lanes.get(key, []), *(event for name, event in self.held.values() if name == key)}
        assert self.core.mark(key, gate) == bool(events)
        if events:
            self.marks[gate] = (key, events)

    @precondition(lambda self: self.marks)
    @rule(data=st.data())
    def unmark(self, data: st.DataObject) -> None:
        gate = data.draw(st.sampled_from(sorted(self.marks)))
        key, _ = self.marks.pop(gate)
        assert self.core.unmark(key, gate) is True
        assert self.core.unmark(key, gate) is False

    # What workers do, and time.

    @precondition(lambda self: self.idle_workers())
    @rule(data=st.data())
    def take(self, data: st.DataObject) -> None:
        worker = data.draw(st.sampled_from(self.idle_workers()))
        self.check_choice(worker, self.core.take(worker))

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def next(self, data: st.DataObject) -> None:
        worker = data.draw(st.sampled_from(sorted(self.held)))
        key, event = self.held.pop(worker)
        self.counts["handled"] += 1
        self.over(key, event)
        item = self.core.next(worker, key)
        self.core.heed(key)
        self.check_choice(worker, item, ended=key)

    @precondition(lambda self: self.held)
    @rule(data=st.data(), decision=st.sampled_from(DECISIONS))
    def fail(self, data: st.DataObject, decision: Any) -> None:
        worker = data.draw(st.sampled_from(sorted(self.held)))
        key, event = self.held.pop(worker)
        serving = self.core.serving
        self.core.failed(worker, (key, event), decision, "no", self.now)
        self.failures[key] += 1
        if serving and decision == Skip():
            self.bury(key, event)
        else:
            self.put_back(key, event)
            if serving and (decision == Park() or key in self.to_park):
                self.parked.add(key)
                self.to_park.discard(key)
            elif serving and decision > 0:
                self.retrying[key] = self.now + decision
        self.follow_up()

    @precondition(lambda self: self.held and self.number > LONG)
    @rule(data=st.data())
    def fail_the_pool(self, data: st.DataObject) -> None:
        worker = data.draw(st.sampled_from(sorted(self.held)))
        key, event = self.held.pop(worker)
        self.close(self.core.fail(worker, (key, event), ValueError("no")))
        self.put_back(key, event)
        self.failed = self.failed or not self.closed or self.drained
        self.closed, self.drained = True, False
        self.leave(worker)

    @rule(seconds=st.sampled_from([0.5, 1.0, 5.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds
        self.core.release(self.now)
        self.retrying = {key: due for key, due in self.retrying.items() if due > self.now}

    def check_choice(self, worker: int, item: tuple[str, int] | None, ended: str | None = None) -> None:
        startable = {key for key, events in self.lanes.items() if events}
        startable -= self.busy() | self.parked | self.retrying.keys()
        if not self.core.serving:
            assert item is None
        elif item is None:
            assert not startable, "an event could start, and the worker got none"
        else:
            key, event = item
            assert key in startable, "a key that may not start was chosen"
            assert event == self.lanes[key][0], "an event passed another of its key"
            assert self.core.is_to_park(key) == (key in self.to_park)
            self.lanes[key].pop(0)
            self.held[worker] = item
        if ended is not None:
            self.move_up(ended)
        if item is not None and item[0] in self.to_park:
            self.core.park_head(worker, item, self.now)
            self.put_back(*self.held.pop(worker))
            self.parked.add(item[0])
            self.to_park.remove(item[0])
        self.follow_up()

    # Endings.

    @precondition(lambda self: self.number > LONG)
    @rule()
    def drain(self) -> None:
        self.close(self.core.drain())
        if not self.closed:
            self.closed = self.drained = True

    @precondition(lambda self: self.number > LONG)
    @rule()
    def stop(self) -> None:
        self.close(self.core.stop())
        self.closed, self.drained = True, False

    def close(self, told: list[object]) -> None:
        waiting = [*self.adders, *((key, event) for key, line in self.lines.items() for event in line)]
        assert sorted(map(str, told)) == sorted(str(event) for _, event in waiting)
        for key, event in waiting:
            assert self.core.withdraw(event, key) is True
        self.adders.clear()
        self.lines = {key: [] for key in self.lines}

    @precondition(lambda self: self.idle_workers() and self.core.settle())
    @rule(data=st.data())
    def worker_leaves(self, data: st.DataObject) -> None:
        if self.drained:
            assert not self.held
            assert {key for key, events in self.lanes.items() if events} == self.parked
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
            for place in (self.lanes, self.retrying, self.parked, self.to_park, self.marks):
                place.clear()
            self.failures = dict.fromkeys(self.failures, 0)

    @invariant()
    def the_state_is_the_models(self) -> None:
        self.core.check_invariants()
        stats = self.core.stats()
        active = {key for key, events in self.lanes.items() if events} | self.busy()
        assert (stats.waiting, stats.in_flight, stats.keys) == (self.waiting(), len(self.held), len(active))
        assert (stats.retrying, stats.parked) == (len(self.retrying), len(self.parked))
        assert {name: getattr(stats, name) for name in self.counts} == self.counts
        ended = stats.handled + stats.dead + stats.returned + stats.cancelled
        assert stats.added == ended + stats.in_flight + stats.waiting
        assert stats.waiting == stats.queued + stats.retrying + stats.parked
        assert [(dead.key, dead.event) for dead in self.core.buried] == self.dead
        assert (self.core.failure is not None) == self.failed
        assert [event for _, event, _ in self.core.adders.values()] == [event for _, event in self.adders]
        assert sorted(self.core.parked_keys()) == sorted(self.parked | self.to_park)
        for key in "abcd":
            self.check_key(key, active)

    def check_key(self, key: str, active: set[str]) -> None:
        note = self.core.noted(key)
        marks = {gate: len(events) for gate, (marked, events) in self.marks.items() if marked == key}
        assert ((note.marks if note else None) or {}) == marks
        known = self.core.explain(key)
        assert known.waiting == len(self.lanes.get(key, []))
        assert known.attempt == self.failures[key] + 1
        assert known.due == self.retrying.get(key)
        if key in self.busy():
            assert known.state == "in flight"
        elif key in self.retrying:
            assert known.state == "retrying"
        elif key in self.parked:
            assert known.state == "parked"
        elif key in active:
            assert known.state == "ready"
        else:
            assert known.state == ("parked" if key in self.to_park else "idle")


DispatchMachine.TestCase.settings = settings(max_examples=200, stateful_step_count=60, deadline=None, print_blob=True)
TestDispatchModel = DispatchMachine.TestCase
