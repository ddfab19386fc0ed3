"""The history checker sees each broken promise, and nothing where all were kept."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from on_loop import Gate as LoopGate
from on_loop import begin, on_loop, turns
from support import PATIENCE, Gate, eventually
from workpool import (
    BatchIncomplete,
    Dead,
    Delivery,
    EventWorkerPool,
    HandlerError,
    ParkKey,
    PoolFull,
    Retry,
    Skip,
    SkipEvent,
    Stats,
)
from workpool.asyncio import EventWorkerPool as LoopPool
from workpool.testing import BrokenPromise, History, history


class Scripted:
    """A pool that does just what the script tells it, on a clock that the script moves."""

    def __init__(self, workers: int = 2, patience: float = 1.0) -> None:
        self.now = 0.0
        self.workers = workers
        self.left: list[tuple[Any, Any]] = []
        self.keys = 0
        self.full = False
        self.buried: list[Dead] = []
        self.forgotten = 0
        self.merged = 0
        self.accepted: dict[Any, Any] = {}
        self.history = History(clock=lambda: self.now, patience=patience)
        self.handler = self.history.handler(lambda event: event())

    def add(self, key: Any, event: Any, *, timeout: float | None = None) -> None:
        if self.full:
            raise PoolFull
        self.accepted[event.event] = event

    add_nowait = add

    def stats(self) -> Stats:
        return Stats(0, 0, 0, 0, 0, 0, keys=self.keys, dead_forgotten=self.forgotten, merged=self.merged)

    def dead(self) -> list[Dead]:
        return self.buried

    def replay(self, dead: Dead) -> None:
        if self.full:
            raise PoolFull
        self.buried.remove(dead)
        self.accepted[dead.event.event] = dead.event

    def park(self, key: Any) -> None: ...

    def resume(self, key: Any) -> None: ...

    def skip_head(self, key: Any) -> Dead:
        return self.bury(next(name for name in self.accepted if name[0] == key))

    def bury(self, name: str) -> Dead:
        self.buried.append(Dead(name[0], self.accepted[name], 0, "", None, 0.0))
        return self.buried[-1]

    def accept(self, name: str) -> None:
        self.history.add(self, name[0], name)

    def handle(self, name: str, during: Any = lambda: None, key: str = "") -> None:
        envelope = self.accepted[name]
        envelope.event = during
        try:
            self.handler(envelope, Delivery(key or name[0], 1))
        finally:
            envelope.event = name

    def fail(self, name: str) -> None:
        with pytest.raises(ZeroDivisionError):
            self.handle(name, lambda: 1 // 0)

    def broken(self) -> list[str]:
        self.accepted.clear()
        return self.history.violations(self)


def test_nothing_is_broken_where_each_event_is_handled_in_order() -> None:
    pool = Scripted()
    for name in ("a1", "a2", "b1"):
        pool.accept(name)
    for name in ("a1", "b1", "a2"):
        pool.handle(name)
    assert pool.broken() == []
    pool.history.check(pool)


def test_p1_an_event_that_is_lost() -> None:
    pool = Scripted()
    pool.accept("a1")
    assert pool.broken() == [
        "P1 exactly once: event 0 was accepted, handled 0 times, returned 0 times and dead 0 times"
    ]
    with pytest.raises(BrokenPromise, match="P1 exactly once"):
        pool.history.check(pool)


def test_p1_an_event_that_is_handled_twice_or_handled_and_returned() -> None:
    pool = Scripted()
    pool.accept("a1")
    pool.accept("b1")
    pool.handle("a1")
    pool.handle("a1")
    pool.handle("b1")
    pool.left.append(("b", pool.accepted["b1"]))
    assert [line.split(", ", 1)[1] for line in pool.broken()] == [
        "handled 2 times, returned 0 times and dead 0 times",
        "handled 1 times, returned 1 times and dead 0 times",
    ]


def test_p1_an_event_that_is_refused_and_handled_all_the_same() -> None:
    pool = Scripted()
    pool.accept("a1")
    envelope = pool.accepted["a1"]
    pool.full = True
    with pytest.raises(PoolFull):
        pool.accept("a2")
    envelope.number = 1
    pool.handle("a1")
    del envelope
    assert pool.broken() == [
        "P1 exactly once: event 0 was accepted, handled 0 times, returned 0 times and dead 0 times",
        "P1 exactly once: event 1 was refused, handled 1 times, returned 0 times and dead 0 times",
    ]


def test_p1_a_returned_event_is_in_its_place_and_may_have_failed_before() -> None:
    pool = Scripted()
    pool.accept("a1")
    pool.fail("a1")
    pool.left.append(("a", pool.accepted["a1"]))
    assert pool.broken() == []


def test_p1_a_dead_event_is_in_its_place_and_so_is_one_that_is_not_kept() -> None:
    pool = Scripted()
    for name in ("a1", "a2", "a3"):
        pool.accept(name)
    pool.fail("a1")
    pool.fail("a2")
    pool.bury("a2")
    pool.handle("a3")
    pool.forgotten = 1
    assert pool.broken() == []


def test_p1_a_lost_event_is_not_taken_for_a_dead_one_that_is_not_kept() -> None:
    """It has never failed, and nobody skipped it."""
    pool = Scripted()
    for name in ("a1", "b1"):
        pool.accept(name)
    pool.fail("b1")
    pool.bury("b1")
    pool.forgotten = 1
    assert pool.broken() == [
        "P1 exactly once: event 0 was accepted, handled 0 times, returned 0 times and dead 0 times",
        "P1 exactly once: 1 events are said to be dead and not kept, and 0 are in no other place",
    ]


def test_p1_an_event_that_comes_under_the_key_of_another() -> None:
    pool = Scripted()
    for name in ("a1", "a2"):
        pool.accept(name)
    pool.handle("a1", key="b")
    pool.left.append(("b", pool.accepted["a2"]))
    assert pool.broken() == [
        "P1 exactly once: event 0 of key 'a' was delivered under key 'b'",
        "P1 exactly once: event 1 of key 'a' is returned under key 'b'",
    ]


def test_p1_an_event_that_is_handled_and_dead() -> None:
    pool = Scripted()
    pool.accept("a1")
    pool.handle("a1")
    pool.bury("a1")
    assert pool.broken() == [
        "P1 exactly once: event 0 was accepted, handled 1 times, returned 0 times and dead 1 times"
    ]
    pool.buried.clear()
    pool.forgotten = 1
    assert pool.broken() == ["P1 exactly once: 1 events are said to be dead and not kept, and 0 are in no other place"]


def test_p1_a_replayed_event_is_a_new_one() -> None:
    pool = Scripted()
    pool.accept("a1")
    pool.fail("a1")
    dead = pool.bury("a1")
    pool.full = True
    with pytest.raises(PoolFull):
        pool.history.replay(pool, dead)
    pool.full = False
    pool.history.replay(pool, dead)
    del dead
    pool.accept("a2")
    assert pool.broken()[0].endswith("event 0 was accepted, handled 0 times, returned 0 times and dead 1 times")


def test_a_replay_that_is_cut_was_made_or_not(monkeypatch: pytest.MonkeyPatch) -> None:
    def cut(dead: Dead) -> None:
        raise KeyboardInterrupt

    for forgotten in (0, 1):
        pool = Scripted()
        pool.accept("a1")
        pool.fail("a1")
        dead = pool.bury("a1")
        monkeypatch.setattr(pool, "replay", cut)
        with pytest.raises(KeyboardInterrupt):
            pool.history.replay(pool, dead)
        del dead
        if forgotten:
            pool.buried.clear()
        pool.forgotten = forgotten
        assert pool.broken() == []


def test_a_replay_that_is_refused_leaves_what_happens_meanwhile_to_the_one_before(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pool = Scripted()
    pool.accept("a1")
    pool.fail("a1")
    dead = pool.bury("a1")
    pool.history.replay(pool, dead)
    pool.accept("a2")

    def handle_and_refuse(dead: Dead) -> None:
        pool.handle("a1")
        raise PoolFull

    monkeypatch.setattr(pool, "replay", handle_and_refuse)
    with pytest.raises(PoolFull):
        pool.history.replay(pool, dead)
    del dead
    pool.handle("a2")
    assert pool.broken() == []
    assert pool.history.handled("a") == 2


def test_p1_and_p2_hold_for_each_life_of_a_replayed_event() -> None:
    pool = Scripted()
    for name in ("a1", "a2"):
        pool.accept(name)
    pool.fail("a1")
    pool.history.replay(pool, pool.bury("a1"))
    pool.handle("a2")
    pool.handle("a1")
    assert pool.broken() == []


def test_p2_an_event_that_starts_before_the_last_delivery_of_an_earlier_one() -> None:
    pool = Scripted()
    for name in ("a1", "a2"):
        pool.accept(name)
    pool.fail("a1")
    pool.handle("a2")
    pool.handle("a1")
    assert pool.broken() == ["P2 order: event 1 of key 'a' started before the earlier event 0 had ended"]


def test_p2_an_event_that_passed_one_whose_next_delivery_goes_on() -> None:
    pool = Scripted()
    for name in ("a1", "a2"):
        pool.accept(name)
    pool.fail("a1")
    pool.handle("a2")
    told: list[str] = []
    pool.handle("a1", lambda: told.extend(pool.history.violations(pool)))
    assert "P2 order: event 1 of key 'a' started before the earlier event 0 had ended" in told


def test_p2_an_event_that_passes_a_dead_one_has_not_passed_it() -> None:
    pool = Scripted()
    for name in ("a1", "a2", "a3"):
        pool.accept(name)
    pool.fail("a1")
    pool.bury("a1")
    pool.bury("a2")
    pool.handle("a3")
    assert pool.broken() == []


def test_p2_what_is_returned_out_of_order() -> None:
    pool = Scripted()
    for name in ("a1", "a2", "b1"):
        pool.accept(name)
    pool.left.extend((name[0], pool.accepted[name]) for name in ("a2", "b1", "a1"))
    assert pool.broken() == ["P2 order: event 1 of key 'a' is returned before the earlier event 0"]


def test_p2_an_event_that_starts_before_an_earlier_one() -> None:
    pool = Scripted()
    for name in ("a1", "a2", "a3"):
        pool.accept(name)
    for name in ("a2", "a1", "a3"):
        pool.handle(name)
    assert pool.broken() == ["P2 order: event 1 of key 'a' started before the earlier event 0 had ended"]


def test_p2_an_event_that_is_handled_while_an_earlier_one_is_returned() -> None:
    pool = Scripted()
    pool.accept("a1")
    pool.accept("a2")
    pool.handle("a2")
    pool.left.append(("a", pool.accepted["a1"]))
    assert pool.broken() == ["P2 order: event 1 of key 'a' started before the earlier event 0 had ended"]


def test_p2_two_events_of_one_key_that_overlap() -> None:
    pool = Scripted()
    pool.accept("a1")
    pool.accept("a2")
    pool.handle("a1", lambda: pool.handle("a2"))
    assert pool.broken() == [
        "P2 order: events 0 and 1 of key 'a' overlap",
        "P2 order: event 1 of key 'a' started before the earlier event 0 had ended",
    ]


def test_p2_an_event_that_overlaps_one_that_another_has_overlapped_already() -> None:
    pool = Scripted()
    for name in ("a1", "a2", "a3"):
        pool.accept(name)

    def others() -> None:
        pool.handle("a2")
        pool.handle("a3")

    pool.handle("a1", others)
    assert [line for line in pool.broken() if "overlap" in line] == [
        "P2 order: events 0 and 1 of key 'a' overlap",
        "P2 order: events 0 and 2 of key 'a' overlap",
    ]


def test_p3_a_key_that_waits_for_another_beside_an_idle_worker() -> None:
    pool = Scripted(workers=2)
    pool.accept("a1")
    pool.accept("b1")

    def slow() -> None:
        pool.now = 5

    pool.handle("a1", slow)
    pool.handle("b1")
    assert pool.broken() == ["P3 isolation: an event of key 'b' waited 5.000 s while 1 of 2 workers had nothing to do"]


def test_p3_is_kept_where_all_workers_are_busy_or_the_key_itself_is() -> None:
    for workers in (1, 2):
        pool = Scripted(workers=workers)
        for name in ("a1", "a2") if workers == 2 else ("a1", "b1"):
            pool.accept(name)

        def slow(pool: Scripted = pool) -> None:
            pool.now = 5

        pool.handle("a1", slow)
        pool.handle("a2" if workers == 2 else "b1")
        assert pool.broken() == []


def test_p3_a_key_that_failed_or_was_parked_waits_for_no_worker() -> None:
    pool = Scripted()
    for name in ("a1", "a2"):
        pool.accept(name)
    pool.fail("a1")
    pool.history.park(pool, "b")
    pool.accept("b1")
    pool.now = 5
    pool.handle("a1")
    pool.history.resume(pool, "b")
    pool.handle("b1")
    pool.handle("a2")
    assert pool.broken() == []


@pytest.mark.parametrize("call", ["resume", "skip_head"])
def test_p5_a_key_that_was_let_go_waits_for_one(call: str) -> None:
    pool = Scripted()
    for name in ("a1", "a2"):
        pool.accept(name)
    pool.fail("a1")
    getattr(pool.history, call)(pool, "a")
    pool.now = 5
    if call == "resume":
        pool.handle("a1")
    pool.handle("a2")
    assert pool.broken() == [
        "P5 no lost wake-up: an event of key 'a' waited 5.000 s while 2 of 2 workers had nothing to do"
    ]


def test_p5_a_key_that_failed_again_before_its_resume_returned_waits_for_no_worker(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pool = Scripted()
    for name in ("a1", "a2"):
        pool.accept(name)
    pool.fail("a1")
    monkeypatch.setattr(pool, "resume", lambda key: pool.fail("a1"))
    pool.history.resume(pool, "a")
    pool.now = 5
    pool.handle("a1")
    pool.handle("a2")
    assert pool.broken() == []


def test_p5_an_add_that_was_cut_hides_none_that_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    pool = Scripted()
    add = pool.add

    def add_and_cut(key: Any, event: Any, **options: Any) -> None:
        add(key, event)
        raise KeyboardInterrupt

    monkeypatch.setattr(pool, "add", add_and_cut)
    with pytest.raises(KeyboardInterrupt):
        pool.accept("a1")
    monkeypatch.setattr(pool, "add", add)
    pool.handle("a1")
    pool.accept("a2")
    pool.now = 5
    pool.handle("a2")
    assert pool.broken() == [
        "P5 no lost wake-up: an event of key 'a' waited 5.000 s while 2 of 2 workers had nothing to do"
    ]


def test_p3_a_worker_that_is_busy_with_what_is_returned_later_is_busy() -> None:
    pool = Scripted(workers=1)
    for name in ("a1", "b1"):
        pool.accept(name)

    def slow() -> None:
        pool.now = 5
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        pool.handle("a1", slow)
    pool.handle("b1")
    pool.left.append(("a", pool.accepted["a1"]))
    assert pool.broken() == []


def test_p3_what_is_skipped_before_its_first_delivery_has_waited_for_nobody() -> None:
    pool = Scripted()
    pool.accept("b1")
    pool.handle("b1")
    pool.accept("a1")
    pool.bury("a1")
    pool.now = 5
    pool.accept("b2")
    pool.handle("b2")
    assert pool.broken() == []


def test_p4_a_key_or_an_event_that_stays_in_the_pool() -> None:
    pool = Scripted()
    pool.accept("a1")
    pool.handle("a1")
    kept = pool.accepted["a1"]
    pool.keys = 1
    first, second = pool.broken()
    assert first == "P4 no residue: 1 keys are left in a pool that has ended"
    assert second.startswith("P4 no residue: <event 0 of key 'a'")
    assert second.endswith("has ended and is still referred to")
    del kept
    pool.keys = 0
    assert pool.broken() == []


def test_p4_a_delivery_that_goes_on_when_the_pool_has_ended() -> None:
    pool = Scripted()
    pool.accept("a1")
    pool.accept("b1")
    told: list[str] = []
    pool.handle("a1", lambda: told.extend(pool.history.violations(pool)))
    assert "P4 no residue: event 0 of key 'a' is in flight in a pool that has ended" in told
    pool.handle("b1")
    assert pool.broken() == []


def test_p4_garbage_that_has_not_been_collected_is_no_residue() -> None:
    pool = Scripted()
    pool.accept("a1")
    pool.handle("a1")
    circle: list[Any] = [pool.accepted["a1"]]
    circle.append(circle)
    del circle
    assert pool.broken() == []


def test_p5_an_event_that_nobody_takes_while_all_are_idle() -> None:
    pool = Scripted()
    pool.accept("b1")
    pool.handle("b1")
    pool.accept("a1")
    pool.now = 3
    pool.handle("a1")
    assert pool.broken() == [
        "P5 no lost wake-up: an event of key 'a' waited 3.000 s while 2 of 2 workers had nothing to do"
    ]


def test_p5_counts_from_the_first_start_and_not_for_what_an_ending_returned() -> None:
    pool = Scripted()
    pool.accept("a1")
    pool.now = 5
    pool.handle("a1")
    pool.accept("b1")
    pool.accept("c1")
    pool.now = 9
    pool.left.append(("b", pool.accepted["b1"]))
    pool.left.append(("c", pool.accepted["c1"]))
    pool.accept("a2")
    pool.handle("a2")
    assert pool.broken() == []


def test_many_cases_are_cut_short() -> None:
    pool = Scripted()
    for number in range(30):
        pool.accept(f"a{number}")
    pool.accepted.clear()
    with pytest.raises(BrokenPromise, match=r"and 10 more$"):
        pool.history.check(pool)


def test_a_real_pool_and_a_handler_of_ones_own() -> None:
    seen: list[Any] = []
    history = History(patience=PATIENCE)

    def handle(event: int, delivery: Delivery) -> None:
        seen.append((delivery.key, event))

    with EventWorkerPool[str, Any](history.handler(handle), workers=2) as pool:
        history.add(pool, "a", 1)
        history.add_nowait(pool, "a", 2)
    history.check(pool)
    assert seen == [("a", 1), ("a", 2)]
    assert history.handled("a") == 2


def test_a_real_pool_that_fails_keeps_its_promises() -> None:
    history = History(patience=PATIENCE)
    gate = Gate()

    def handle(event: int) -> None:
        gate(event)
        raise ValueError(event)

    pool = EventWorkerPool[str, Any](history.handler(handle), workers=1).start()
    history.add(pool, "a", 1)
    history.add(pool, "a", 2)
    gate.open.set()
    with pytest.raises(HandlerError) as caught:
        pool.drain(PATIENCE)
    caught.value.__cause__.__traceback__ = None  # type: ignore[union-attr]
    history.check(pool)


def test_a_real_pool_with_policies_keeps_its_promises() -> None:
    history = History(patience=PATIENCE)

    errors: dict[str, list[Exception]] = {
        "retry": [ValueError()], "skip": [SkipEvent()], "park": [ParkKey(), SkipEvent()],
    }  # fmt: skip

    def handle(event: str) -> None:
        if errors.get(event):
            raise errors[event].pop(0)

    policy = Retry(base=0, then=Skip())
    pool = EventWorkerPool[str, Any](history.handler(handle), workers=2, on_failure=policy, max_dead=1).start()
    history.park(pool, "c")
    for key, event in (("a", "retry"), ("a", "skip"), ("b", "park"), ("b", "last"), ("c", "by hand"), ("c", "last")):
        history.add(pool, key, event)
    eventually(lambda: pool.stats().parked == 2 and pool.stats().dead == 1)
    history.resume(pool, "b")
    eventually(lambda: pool.stats().dead == 2)
    history.replay(pool, pool.dead()[0])
    history.skip_head(pool, "c")
    pool.drain(PATIENCE)
    history.check(pool)
    assert (pool.stats().dead_forgotten, pool.stats().replayed) == (1, 1)


def test_what_cannot_be_called_is_no_handler() -> None:
    nothing: Any = None
    with pytest.raises(TypeError, match="the handler must be callable, and None is not"):
        History().handler(nothing)


class Handler:
    """A handler that is an object."""

    def __init__(self, seen: list[Any]) -> None:
        self.seen = seen

    async def __call__(self, event: Any) -> None:
        await asyncio.sleep(0)
        self.seen.append(event)


@pytest.mark.parametrize("kind", ["function", "with the delivery", "partial", "object"])
@on_loop
async def test_a_pool_on_a_loop_and_a_coroutine_handler_of_ones_own(kind: str) -> None:
    seen: list[Any] = []
    history = History(patience=PATIENCE)

    async def handle(event: Any) -> None:
        await asyncio.sleep(0)
        seen.append(event)

    async def handle_delivery(event: Any, delivery: Delivery) -> None:
        assert (delivery.key, delivery.attempt) == ("a", 1)
        await handle(event)

    handlers: dict[str, Callable[..., Any]] = {
        "function": handle, "with the delivery": handle_delivery, "partial": partial(handle), "object": Handler(seen),
    }  # fmt: skip
    async with LoopPool[str, Any](history.handler(handlers[kind]), workers=2) as pool:
        await history.add(pool, "a", 1)
        history.add_nowait(pool, "a", 2)
        await asyncio.to_thread(history.add_from_thread, pool, "a", 3)
    history.check(pool)
    assert seen == [1, 2, 3]
    assert history.handled("a") == 3


@on_loop
async def test_on_a_loop_what_is_wrong_is_seen_and_a_cut_add_may_be_either() -> None:
    history = History(patience=PATIENCE)
    gate = LoopGate()

    async def handle(event: Any) -> None:
        await gate(event)
        if event == 2:
            raise ValueError

    pool = LoopPool[str, Any](
        history.handler(handle), workers=1, max_backlog=1, on_failure=Skip(), max_dead=0
    ).start()  # fmt: skip
    await history.add(pool, "a", 1)
    await gate.inside()
    await history.add(pool, "a", 2)
    with pytest.raises(PoolFull):
        history.add_nowait(pool, "a", 3)
    with pytest.raises(TimeoutError):
        await history.add(pool, "a", 4, timeout=0)
    adding = begin(history.add(pool, "a", 5))
    await turns()
    adding.cancel()
    await asyncio.wait([adding])
    assert adding.cancelled()
    del adding
    gate.open.set()
    await pool.drain()
    await turns()
    history.check(pool)
    assert (gate.held, pool.stats().dead_forgotten) == ([1, 2], 1)
    history._records.append(("end", 0, "a", 0.0))
    with pytest.raises(BrokenPromise, match="event 0 was accepted, handled 2 times"):
        history.check(pool)


def handled_and_garbage() -> Scripted:
    """A pool of the script whose one event was handled, and waits to be collected, among what is old."""
    pool = Scripted()
    pool.accept("a1")
    pool.handle("a1")
    garbage: list[Any] = [pool.accepted.pop("a1")]
    garbage.append(garbage)
    gc.collect()
    return pool


def test_a_check_is_not_content_with_a_collection_of_what_is_young(monkeypatch: pytest.MonkeyPatch) -> None:
    """One may come by itself just then."""
    pool, collect = handled_and_garbage(), gc.collect

    def collect_young() -> int:
        monkeypatch.setattr(gc, "collect", collect)
        return collect(0)

    monkeypatch.setattr(gc, "collect", collect_young)
    assert pool.history.violations(pool) == []


def test_a_check_does_not_wait_for_ever_for_a_collection_of_another_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """A finaliser may be stuck in it. What was not collected is told then."""
    pool = handled_and_garbage()
    monkeypatch.setattr(history, "_COLLECTING", 0.0)
    monkeypatch.setattr(gc, "collect", int)
    [broken] = pool.history.violations(pool)
    assert "has ended and is still referred to" in broken


def test_a_check_waits_for_a_collection_that_another_thread_makes(monkeypatch: pytest.MonkeyPatch) -> None:
    """`gc.collect` does nothing meanwhile, and an event that was only waiting to be collected was called a residue."""
    pool = handled_and_garbage()
    gate, collect = Gate(), gc.collect

    def hold(phase: str, _: object) -> None:
        if phase == "start" and threading.current_thread().name == "collects":
            gate(None)

    def collect_once() -> int:
        monkeypatch.setattr(gc, "collect", collect)
        found = collect()
        gate.open.set()
        return found

    gc.callbacks.append(hold)
    thread = threading.Thread(target=gc.collect, name="collects", args=(0,))
    try:
        thread.start()
        gate.wait_inside()
        monkeypatch.setattr(gc, "collect", collect_once)
        assert pool.history.violations(pool) == []
    finally:
        gate.open.set()
        thread.join(PATIENCE)
        gc.callbacks.remove(hold)


@pytest.mark.parametrize(
    ("handled", "merged", "told"),
    [
        ("a2 b1", 1, []),
        ("a2 b1", 0, ["event 0 was accepted, handled 0 times, returned 0 times and dead 0 times"]),
        ("a2", 1, ["event 2 was accepted, handled 0 times, returned 0 times and dead 0 times"]),
        ("a1 b1", 1, [
            "event 1 was accepted, handled 0 times, returned 0 times and dead 0 times",
            "1 events are said to be merged, and 0 are in no other place and had a newer one",
        ]),
        ("a2 b1", 2, ["2 events are said to be merged, and 1 are in no other place and had a newer one"]),
        ("a1 a2 b1", 1, ["1 events are said to be merged, and 0 are in no other place and had a newer one"]),
    ],
)  # fmt: skip
def test_p1_a_merged_event_had_a_newer_one(handled: str, merged: int, told: list[str]) -> None:
    pool = Scripted()
    for name in ("a1", "a2", "b1"):
        pool.accept(name)
    for name in handled.split():
        pool.handle(name)
    pool.merged = merged
    assert pool.broken() == [f"P1 exactly once: {each}" for each in told]


@pytest.mark.parametrize("failing", [False, True])
def test_a_real_pool_that_coalesces_keeps_its_promises(failing: bool) -> None:
    history = History()
    gate = Gate()

    def handle(event: int, delivery: Delivery) -> None:
        gate(event)
        if failing and delivery.attempt == 1 and event % 3 == 0:
            raise ValueError

    pool = EventWorkerPool[Any, Any](
        history.handler(handle), workers=2, coalesce="latest", on_failure=Retry(base=0.0001, then=Skip())
    ).start()
    for event in range(40):
        history.add(pool, event % 4, event)
    gate.open.set()
    for event in range(40, 200):
        history.add(pool, event % 4, event)
    pool.drain(PATIENCE)
    assert pool.stats().merged > 30
    history.check(pool)


def test_a_real_pool_with_batches_keeps_its_promises() -> None:
    history = History()
    sizes: list[int] = []

    def handle(events: list[int]) -> int | None:
        sizes.append(len(events))
        if len(sizes) % 5 == 0:
            raise BatchIncomplete(len(events) // 2)
        if len(sizes) % 7 == 0:
            raise ValueError
        return max(1, len(events) - 1) if len(sizes) % 3 == 0 else None

    pool = EventWorkerPool[Any, Any](
        history.handler(handle), workers=2, batch=4, on_failure=Retry(attempts=100, base=0.0001)
    )
    for event in range(200):
        history.add(pool, event % 4, event)
    pool.start().drain(PATIENCE)
    assert max(sizes) == 4
    assert pool.stats().handled == 200
    history.check(pool)


@on_loop
async def test_a_batch_on_a_loop_keeps_its_promises() -> None:
    history = History()

    async def handle(events: list[int]) -> None:
        assert events

    async with LoopPool[Any, Any](history.handler(handle), workers=2, batch=4) as pool:
        for event in range(50):
            await history.add(pool, event % 4, event)
    history.check(pool)
