"""P11: an exception or a call that comes in between leaves the pool whole."""

from __future__ import annotations

import gc
import signal
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from queue import SimpleQueue
from types import FrameType
from typing import Any

import pytest

from support import (
    PATIENCE,
    Ear,
    Gate,
    adds_up,
    begin,
    eventually,
    has_adders,
    has_line,
    in_thread,
    reference_only,
    run_python,
)
from tracer import Cut, Tracer, cut_calls, run_cut, start_traced
from workpool import (
    Delivery,
    EventWorkerPool,
    HandlerError,
    Park,
    ParkKey,
    Policy,
    PoolClosed,
    Retry,
    RetryAfter,
    Skip,
    SkipEvent,
)
from workpool.testing import FakeClock
from workpool.twin import COMPILED

INSIDE = "this thread is inside the pool already"


@pytest.mark.parametrize("lane", ["idle key", "second event", "third event"])
@pytest.mark.parametrize("add", ["add", "add_nowait"])
def test_an_add_that_is_cut_at_any_line_is_accepted_or_not(lane: str, add: str) -> None:
    handled: list[int] = []
    for at in range(1, 1000):
        handled.clear()
        gate = Gate()
        pool = EventWorkerPool[str, int](
            lambda event: gate(event) if event < 0 else handled.append(event),  # noqa: B023
            workers=2,
        ).start()
        pool.add("gate", -1)
        gate.wait_inside()
        before = ["second event", "third event"].index(lane) + 1 if lane != "idle key" else 0
        key = "gate" if before else "key"
        for event in range(before):
            pool.add(key, event)
        was_cut, where = cut_calls(partial(getattr(pool, add), key, 99), at)
        pool._step(pool._core.check_invariants)
        accepted = pool.stats().added == 2 + before
        assert accepted or pool.stats().added == 1 + before, where
        pool.add("other", 100)
        eventually(lambda: 100 in handled)  # By the idle worker, which nobody else wakes.
        gate.open.set()
        pool.drain(PATIENCE)
        assert sorted(handled) == [*range(before), *[99] * accepted, 100], where
        if not was_cut:
            assert at > (10 if add == "add_nowait" or not COMPILED else 0), "the tracer has seen no lines"
            return
    raise AssertionError("there is no end of lines")


def open_when_full(pool: EventWorkerPool[Any, Any], gate: Gate, done: threading.Event) -> None:
    """Open the gate once somebody waits for room, or nobody will."""
    eventually(lambda: done.is_set() or has_adders(pool))
    gate.open.set()


def test_an_add_that_is_cut_wherever_it_waits_is_accepted_or_not() -> None:
    for at in range(1, 1000):
        gate = Gate()
        pool = EventWorkerPool[str, int](gate, workers=1, max_backlog=2).start()
        pool.add("a", 0)
        gate.wait_inside()
        pool.add("a", 1)
        pool.add("a", 2)
        done = threading.Event()
        opener = in_thread(partial(open_when_full, pool, gate, done))
        was_cut, where = cut_calls(partial(pool.add, "a", 3), at)
        done.set()
        opener()
        pool._step(pool._core.check_invariants)
        pool.add("a", 4, timeout=PATIENCE)
        pool.drain(PATIENCE)
        stats = pool.stats()
        assert stats.added == stats.handled, where
        assert stats.added in (4, 5), where
        if not was_cut:
            assert at > 20
            return
    raise AssertionError("there is no end of lines")


@reference_only
@pytest.mark.parametrize("takes_delivery", [False, True])
def test_a_worker_that_is_cut_at_any_line_of_its_step_loses_nothing(takes_delivery: bool) -> None:
    """The step runs from one handler call to the next: the tracer is armed by the first event."""
    cuts = 0
    for at in range(1, 1000):
        handled: list[int] = []
        tracer = Tracer(at)

        def handle(event: int) -> None:
            handled.append(event)  # noqa: B023
            if event in (1, 5):
                tracer.armed = event == 1  # noqa: B023

        def handle_delivery(event: int, delivery: object) -> None:
            handle(event)

        pool: EventWorkerPool[str, int] = EventWorkerPool(handle_delivery if takes_delivery else handle, workers=1)
        for event in range(6):
            pool.add("ab"[event % 2], event)
        failure = run_cut(pool, tracer)
        cuts += failure is not None
        assert isinstance(failure, Cut) == bool(tracer.where)
        stats = pool.stats()
        assert stats.handled == len(handled), tracer.where
        assert stats.added == 6 == stats.handled + stats.returned, tracer.where
        assert (stats.in_flight, stats.waiting, stats.keys) == (0, 0, 0), tracer.where
        assert sorted(handled + [event for _, event in pool.left]) == list(range(6)), tracer.where
        for key in "ab":
            events = [event for event in handled if "ab"[event % 2] == key] + [e for k, e in pool.left if k == key]
            assert events == sorted(events), tracer.where
        if not tracer.where:
            assert cuts > 10
            return
    raise AssertionError("there is no end of lines")


def test_a_worker_that_is_cut_while_it_lets_adders_in_loses_nothing() -> None:
    for at in range(1, 1000):
        handled: list[int] = []
        tracer = Tracer(at)
        gate = Gate()

        def handle(event: int) -> None:
            if event == 0:
                gate(event)  # noqa: B023
                tracer.armed = True  # noqa: B023
            elif event == 2:
                tracer.armed = False  # noqa: B023
            handled.append(event)  # noqa: B023

        pool: EventWorkerPool[str, int] = EventWorkerPool(handle, workers=1, max_backlog=1)
        pool.add("a", 0)
        start_traced(pool, tracer)
        gate.wait_inside()
        pool.add("a", 1)
        outcome = []
        adders = [in_thread(partial(pool.add, "b", event)) for event in (2, 3)]
        eventually(partial(has_adders, pool, 2))
        gate.open.set()
        for done in adders:
            try:
                done()
                outcome.append(True)
            except HandlerError:
                outcome.append(False)
        with suppress(HandlerError):
            pool.drain(PATIENCE)
        stats = pool.stats()
        assert stats.added == 2 + sum(outcome) == stats.handled + stats.returned, tracer.where
        assert len(handled) == stats.handled, tracer.where
        assert len(set(handled) | {event for _, event in pool.left}) == stats.added, tracer.where
        if not tracer.where:
            return
    raise AssertionError("there is no end of lines")


@pytest.mark.parametrize("verdict", [None, SkipEvent(), RetryAfter(5), ParkKey()], ids=repr)
def test_a_worker_that_is_cut_at_any_line_loses_no_mark_and_tells_none_early(verdict: Exception | None) -> None:
    """It waits for three events, one of which fails once. Where the pool fails first, its audience is told."""
    for at in range(1, 1000):
        started: list[int] = []
        tracer = Tracer(at)
        gate = Gate()
        ear, audience = Ear(lambda: pool._core.handled + pool._core.dead), Ear()  # noqa: B023

        def handle(event: int, delivery: Delivery) -> None:
            started.append(event)  # noqa: B023
            if event == 0:
                gate(event)  # noqa: B023
            tracer.armed = event < 3 and not tracer.where  # noqa: B023
            if event == 1 and delivery.attempt == 1 and verdict:
                raise verdict

        pool: EventWorkerPool[str, int] = EventWorkerPool(handle, workers=1, clock=FakeClock())
        for event in range(3):
            pool.add("a", event)
        start_traced(pool, tracer)
        gate.wait_inside()
        pool._mark("a", ear)
        pool._step(pool._core.audience.append, audience)
        pool.add("a", 3)
        gate.open.set()
        eventually(lambda: bool(tracer.where) or 3 in started or pool.stats().in_flight == 0)  # noqa: B023
        with suppress(HandlerError, ValueError):
            pool.resume("a")
        with suppress(HandlerError):
            pool.drain(PATIENCE)
        assert all(ended >= 3 for ended in ear.heard), tracer.where
        assert ear.heard or 3 not in started, tracer.where
        assert audience.heard, tracer.where
        assert pool._core.notes == {}, tracer.where
        if not tracer.where:
            assert len(ear.heard) == 1
            assert at > 20, "the tracer has seen no lines"
            return
    raise AssertionError("there is no end of lines")


MARK_CALLS: dict[str, Callable[[EventWorkerPool[Any, Any], Any], object]] = {
    "mark": lambda pool, ear: pool._mark("a", ear),
    "unmark": lambda pool, ear: pool._step(pool._core.unmark, "a", ear),
    "resume": lambda pool, _: pool.resume("a"),
    "skip_head": lambda pool, _: pool.skip_head("a"),
    "cancel": lambda pool, _: pool._by_hand(pool._core.cancel, "a", "a1"),
}


@pytest.mark.parametrize("call", MARK_CALLS)
def test_a_call_by_hand_that_is_cut_at_any_line_loses_no_mark_and_tells_none_early(call: str) -> None:
    """The mark waits for two events of a parked key, one of which may be skipped or cancelled."""
    for at in range(1, 1000):
        handled: list[str] = []

        def handle(event: str, delivery: Delivery) -> None:
            if event == "a0" and delivery.attempt == 1:
                raise ParkKey
            handled.append(event)  # noqa: B023

        pool: EventWorkerPool[str, str] = EventWorkerPool(handle, workers=1).start()
        ear = Ear(lambda: pool._core.handled + pool._core.dead + pool._core.cancelled)  # noqa: B023
        pool.add("a", "a0")
        eventually(lambda: pool.stats().parked == 1)  # noqa: B023
        pool.add("a", "a1")
        if call != "mark":
            assert pool._mark("a", ear)
        was_cut, where = cut_calls(partial(MARK_CALLS[call], pool, ear), at)
        pool._step(pool._core.check_invariants)
        note = pool._step(pool._core.noted, "a")
        is_made = call not in ("mark", "unmark") or bool(note and note.marks)
        assert was_cut or is_made == (call != "unmark"), where
        pool.add("a", "a2")
        with suppress(ValueError):
            pool.resume("a")
        pool.drain(PATIENCE)
        assert bool(ear.heard) == is_made, where
        assert all(ended >= 2 for ended in ear.heard), where
        assert pool._core.notes == {}, where
        assert adds_up(pool.stats()), where
        if not was_cut:
            assert at > 5
            assert len(ear.heard) == is_made
            return
    raise AssertionError("there is no end of lines")


CALLS: dict[str, Callable[[EventWorkerPool[Any, Any]], object]] = {
    "start": lambda pool: pool.start(),
    "drain": lambda pool: pool.drain(),
    "stop": lambda pool: pool.stop(),
    "the end of a block": lambda pool: pool.__exit__(None, None, None),
    "an exception in a block": lambda pool: pool.__exit__(LookupError, LookupError(), None),
}


@pytest.mark.parametrize(
    ("call", "started"),
    [("start", False), ("stop", False), *((call, True) for call in CALLS if call != "start")],
)
def test_a_call_that_is_cut_at_any_line_leaves_a_pool_that_can_be_ended(call: str, started: bool) -> None:
    for at in range(1, 1000):
        handled: list[int] = []
        pool = EventWorkerPool[str, int](handled.append, workers=2)
        for event in range(4):
            pool.add("ab"[event % 2], event)
        if started:
            pool.start()
        was_cut, where = cut_calls(partial(CALLS[call], pool), at)
        pool._step(pool._core.check_invariants)
        if "open" not in repr(pool):
            with pytest.raises(PoolClosed):
                pool.add_nowait("a", 9)
        left = in_thread(pool.stop)()
        stats = pool.stats()
        assert stats.added == stats.handled + stats.returned, where
        assert sorted(handled + [event for _, event in left]) == list(range(stats.added)), where
        assert (stats.handled, stats.in_flight, stats.waiting, stats.keys) == (len(handled), 0, 0, 0), where
        if not was_cut:
            assert at > 10, "the tracer has seen no lines"
            return
    raise AssertionError("there is no end of lines")


@pytest.mark.parametrize("workers", [1, 2])
def test_a_worker_that_is_cut_at_any_line_of_its_leaving_leaves(workers: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The last handler arms the tracer: what follows is its step, and the leaving of each worker."""
    monkeypatch.setattr(threading, "excepthook", lambda arguments: None)
    for at in range(1, 1000):
        tracer = Tracer(at)
        gate = Gate()

        def handle(event: int) -> None:
            gate(event)  # noqa: B023
            tracer.armed = True  # noqa: B023

        pool = EventWorkerPool[str, int](handle, workers=workers)
        start_traced(pool, tracer)
        pool.add("a", 0)
        gate.wait_inside()
        drained = begin(pool, "drain")
        gate.open.set()
        with suppress(HandlerError):
            drained()
        stats = pool.stats()
        assert (stats.handled, stats.in_flight, stats.waiting) == (1, 0, 0), tracer.where
        assert (pool.left, pool._inside) == ([], set()), tracer.where
        if not tracer.where:
            return
    raise AssertionError("there is no end of lines")


@pytest.mark.parametrize("policy", [Retry(base=10), Retry(base=0), Skip(), Park()], ids=repr)
def test_a_worker_that_is_cut_while_its_handler_fails_loses_nothing(policy: Policy) -> None:
    """Two adders wait for room in the lane of the event that fails: what becomes of it is theirs to know too."""
    for at in range(1, 1000):
        handled: list[int] = []
        tracer = Tracer(at)
        gate = Gate()

        def handle(event: int, delivery: Delivery) -> None:
            if event == 0 and delivery.attempt == 1:
                gate(event)  # noqa: B023
                tracer.armed = True  # noqa: B023
                raise ValueError
            tracer.armed = False  # noqa: B023
            handled.append(event)  # noqa: B023

        pool: EventWorkerPool[str, int] = EventWorkerPool(
            handle, workers=1, max_lane=1, on_failure=policy, clock=FakeClock()
        )
        for key, event in (("a", 0), ("a", 1), ("b", 2)):
            pool.add(key, event)
        start_traced(pool, tracer)
        gate.wait_inside()
        adders = []
        for event in (3, 4):
            adders.append(in_thread(partial(pool.add, "a", event)))
            eventually(partial(has_line, pool, event - 2))
        gate.open.set()
        eventually(lambda: bool(tracer.where) or 2 in handled)  # noqa: B023
        with suppress(HandlerError):
            pool.stop(PATIENCE)
        accepted = [0, 1, 2]
        for event, done in enumerate(adders, 3):
            with suppress(HandlerError, PoolClosed):
                done()
                accepted.append(event)
        found = handled + [event for _, event in pool.left] + [dead.event for dead in pool.dead()]
        assert sorted(found) == accepted, tracer.where
        stats = pool.stats()
        assert adds_up(stats), tracer.where
        assert stats.added == len(accepted), tracer.where
        assert (stats.in_flight, stats.waiting, stats.keys) == (0, 0, 0), tracer.where
        in_lane = [event for event in handled if event != 2] + [event for key, event in pool.left if key == "a"]
        assert in_lane == sorted(in_lane), tracer.where
        if not tracer.where:
            assert at > 30, "the tracer has seen no lines"
            return
    raise AssertionError("there is no end of lines")


class TimekeeperTracer(Tracer):
    """Cuts the timekeeper only, and not in the clock of the test."""

    def __call__(self, frame: FrameType, event: str, argument: Any) -> Any:
        if not threading.current_thread().name.endswith("timekeeper") or "testing" in frame.f_code.co_filename:
            return None
        return super().__call__(frame, event, argument)


class ArmingNudges(SimpleQueue[None]):
    """Where the timekeeper sleeps: when it wakes, the tracer is armed, from the time on when that is asked for."""

    def __init__(self, tracer: Tracer) -> None:
        self.tracer, self.arms = tracer, False

    def get(self, block: bool = True, timeout: float | None = None) -> None:
        self.tracer.armed = False
        super().get(block, timeout)
        self.tracer.armed = self.arms and not self.tracer.where


@pytest.mark.parametrize("when", ["while it looks", "while it leaves"])
def test_a_timekeeper_that_is_cut_at_any_line_leaves_a_failed_pool_with_nothing_lost(
    when: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(threading, "excepthook", lambda arguments: None)  # What cuts it as it leaves, leaves it.
    for at in range(1, 1000):
        tracer = TimekeeperTracer(at)
        clock = FakeClock()
        nudges = ArmingNudges(tracer)
        gate = Gate()
        handled: list[str] = []

        def handle(event: str, delivery: Delivery) -> None:
            if event[0] == "g":
                gate(event)  # noqa: B023
            elif delivery.attempt == 1 and event in ("a0", "b0"):
                raise ParkKey if event == "b0" else RetryAfter(5)
            handled.append(event)  # noqa: B023

        pool: EventWorkerPool[str, str] = EventWorkerPool(handle, workers=2, max_lane=1, warn_after=10, clock=clock)
        pool._nudges = nudges
        start_traced(pool, tracer)
        events = ["g0", "a0", "b0", "a1", "b1", "c0"]
        for event in events:
            pool.add(event[0], event)
        gate.wait_inside()
        eventually(lambda: pool.stats().retrying + pool.stats().parked + len(handled) == 3)  # noqa: B023
        adder = in_thread(partial(pool.add, "a", "a2"))
        eventually(partial(has_line, pool))
        if when == "while it looks":
            nudges.arms = True
            for seconds in (3, 11):  # It finds a handler that runs; then a key that is due, and that handler late.
                clock.advance(seconds)
                eventually(lambda: bool(tracer.where) or (not tracer.armed and pool._nudges.empty()))  # noqa: B023
            nudges.arms = tracer.armed = False
        else:
            clock.advance(14)
            eventually(lambda: "a2" in handled)  # noqa: B023
            nudges.arms = True
        stopped = in_thread(partial(pool.stop, PATIENCE))
        eventually(lambda: "stopping" in repr(pool))  # noqa: B023
        gate.open.set()
        with suppress(HandlerError):
            stopped()
        with suppress(HandlerError, PoolClosed):
            adder()
            events.append("a2")
        stats = pool.stats()
        assert adds_up(stats), tracer.where
        assert (stats.in_flight, stats.waiting, stats.keys) == (0, 0, 0), tracer.where
        assert sorted(handled + [event for _, event in pool.left]) == sorted(events), tracer.where
        if not tracer.where:
            assert at > 10, "the tracer has seen no lines"
            return
    raise AssertionError("there is no end of lines")


@pytest.mark.parametrize("key", ["parked", "retrying", "idle", "in flight"])
@pytest.mark.parametrize("call", ["park", "resume", "skip_head", "replay"])
def test_a_call_by_hand_that_is_cut_at_any_line_is_made_or_not(call: str, key: str) -> None:
    for at in range(1, 1000):
        gate = Gate()
        handled: list[str] = []

        def handle(event: str, delivery: Delivery) -> None:
            if event == "in flight 0":
                gate(event)  # noqa: B023
            elif delivery.attempt == 1 and event in ("parked 0", "retrying 0", "dead"):
                raise {"p": ParkKey(), "r": RetryAfter(5), "d": SkipEvent()}[event[0]]
            handled.append(event)  # noqa: B023

        pool: EventWorkerPool[str, str] = EventWorkerPool(handle, workers=2, max_lane=1, clock=FakeClock()).start()
        events = [f"{key} {n}" for key in ("parked", "retrying", "in flight") for n in (0, 1)]
        for event in ["dead", *events]:
            pool.add(event.rsplit(" ", 1)[0], event)
        gate.wait_inside()
        eventually(lambda: (pool.stats().parked, pool.stats().retrying, pool.stats().dead) == (1, 1, 1))  # noqa: B023
        adders = []
        for number, name in enumerate(("parked", "retrying"), 1):
            adders.append(in_thread(partial(pool.add, name, f"{name} 2")))
            eventually(partial(has_line, pool, number))
        [dead] = pool.dead()

        def by_hand() -> None:
            with suppress(ValueError):
                getattr(pool, call)(dead if call == "replay" else key)  # noqa: B023

        was_cut, where = cut_calls(by_hand, at)
        pool._step(pool._core.check_invariants)
        gate.open.set()
        eventually(lambda: pool.stats().in_flight == 0)  # noqa: B023
        for each in {*pool.parked(), "retrying"}:
            with suppress(ValueError):
                pool.resume(each)
        for done in adders:
            done()
        pool.drain(PATIENCE)
        found = sorted(handled + [each.event for each in pool.dead()])
        assert [event for event in found if event != "dead"] == sorted([*events, "parked 2", "retrying 2"]), where
        assert len(found) - len(events) - 2 == 1, where
        assert adds_up(pool.stats()), where
        if not was_cut:
            assert at > 5
            return
    raise AssertionError("there is no end of lines")


def test_an_add_from_a_finalizer_under_the_collector_raises_and_never_deadlocks() -> None:
    """The collector runs wherever memory is asked for, inside the pool too; here it is made to run at a known point."""
    refused: list[str] = []
    accepted: list[int] = []

    class Finalized:
        def __init__(self) -> None:
            self.me = self  # A cycle: only the collector finds it.

        def __del__(self) -> None:
            try:
                pool.add("finalizer", 1)
                accepted.append(1)
            except RuntimeError as error:
                refused.append(str(error))

    class Key:
        def __hash__(self) -> int:
            gc.collect()
            return 1

        def __eq__(self, other: object) -> bool:
            return self is other

    pool: EventWorkerPool[Any, Any] = EventWorkerPool(lambda event: None, workers=1).start()
    Finalized()
    gc.collect()
    assert (accepted, refused) == ([1], []), "outside the pool it is an add like any other"
    gc.disable()
    try:
        Finalized()
        pool.add(Key(), 2)
    finally:
        gc.enable()
    pool.drain(PATIENCE)
    assert len(refused) >= 1
    assert all(INSIDE in message for message in refused)
    assert pool.stats().handled == 1 + len(accepted)


def test_an_event_whose_finalizer_adds_is_released_outside_the_pool() -> None:
    """No user code runs under a lock: the last reference to an event goes when the mutex is free."""
    accepted = threading.Event()

    class Event:
        def __del__(self) -> None:
            pool.add("finalizer", None)
            accepted.set()

    pool: EventWorkerPool[Any, Any] = EventWorkerPool(lambda event: event, workers=1).start()
    pool.add("a", Event())
    assert accepted.wait(PATIENCE)
    pool.drain(PATIENCE)
    assert pool.stats().handled == 2


@pytest.mark.parametrize("method", ["__hash__", "__eq__"])
@pytest.mark.parametrize("call", ["add", "add_nowait", "stats", "drain", "stop", "start", "left"])
def test_a_key_that_calls_its_pool_is_refused(method: str, call: str) -> None:
    caught: list[str] = []

    class Key:
        armed = True

        def intrude(self) -> None:
            if Key.armed:
                try:
                    attribute = getattr(pool, call)
                    attribute("x", 1) if call.startswith("add") else attribute()
                except RuntimeError as error:
                    caught.append(str(error))

        def __hash__(self) -> int:
            if method == "__hash__":
                self.intrude()
            return 1

        def __eq__(self, other: object) -> bool:
            if method == "__eq__":
                self.intrude()
            return self is other

    pool: EventWorkerPool[Any, Any] = EventWorkerPool(print)
    pool.add(Key(), 1)
    pool.add(Key(), 2)
    Key.armed = False
    assert caught
    assert all(INSIDE in message for message in caught)
    assert len(pool.stop()) == 2


def test_a_signal_handler_that_adds_outside_the_pool_is_like_anyone() -> None:
    pool: EventWorkerPool[str, int] = EventWorkerPool(lambda event: None, workers=1).start()
    before = signal.signal(signal.SIGUSR1, lambda *_: pool.add("signal", 1))
    try:
        signal.raise_signal(signal.SIGUSR1)
    finally:
        signal.signal(signal.SIGUSR1, before)
    pool.drain(PATIENCE)
    assert pool.stats().handled == 1


def test_interrupts_without_end_leave_every_add_accepted_or_not() -> None:
    """Real signals, as fast as a timer sends them, into a loop that adds: each add is whole."""
    result = run_python(
        """
        import signal, sys
        from workpool import EventWorkerPool

        class Interrupt(BaseException):
            pass

        def interrupt(*_):
            raise Interrupt

        handled = []
        pool = EventWorkerPool(handled.append, workers=2, max_backlog=50).start()
        signal.signal(signal.SIGALRM, interrupt)
        interrupted = 0
        event = 0
        while interrupted < 300 and event < 400_000:
            event += 1
            try:
                signal.setitimer(signal.ITIMER_REAL, 0.00002 + (event % 97) * 1e-6)
                for _ in range(20):
                    pool.add(event % 7, event)
                signal.setitimer(signal.ITIMER_REAL, 0)
            except Interrupt:
                interrupted += 1
        signal.setitimer(signal.ITIMER_REAL, 0)
        pool._step(pool._core.check_invariants)
        pool.drain(20)
        stats = pool.stats()
        assert stats.added == stats.handled == len(handled), stats
        for key in range(7):
            events = [e for e in handled if e % 7 == key]
            assert events == sorted(events)
        print("interrupted", interrupted)
        """,
        timeout=2 * PATIENCE,
    )
    assert result.returncode == 0, result.stderr
    assert int(result.stdout.split()[1]) > 20, result.stdout
