"""P11 for the turns of a worker: an exception at any line of them loses nothing, and runs no event twice."""

from __future__ import annotations

import gc
from collections.abc import Callable
from contextlib import suppress
from contextvars import Context, ContextVar
from functools import partial
from queue import SimpleQueue
from typing import Any

import pytest

from support import PATIENCE, Gate, Heard, adds_up, eventually, has_adders, in_thread, reference_only
from tracer import Cut, Tracer, cut_calls, run_cut, start_traced
from workpool import EventWorkerPool, HandlerError, Retry, Skip
from workpool.flush import Flush
from workpool.lanes import NOTHING
from workpool.testing import FakeClock

FEATURES: list[dict[str, Any]] = [
    {"hooks": Heard()},
    {"max_burst": 3},
    {"timing": True, "contextvars": True, "coalesce": "latest"},
    {"batch": 2},
    {"batch": 3, "max_burst": 2},
]


def flat(events: Any) -> list[int]:
    return events if isinstance(events, list) else [events]


@reference_only
@pytest.mark.parametrize("features", FEATURES, ids="+".join)
def test_a_worker_that_is_cut_at_any_line_of_its_turn_loses_nothing(features: dict[str, Any]) -> None:
    """Nor does it handle an event twice, but of a batch: what that has done is recorded after its return."""
    keys = range(6) if "coalesce" in features else [0] * 6
    for at in range(1, 1000):
        handled: list[int] = []
        tracer = Tracer(at)

        def handle(events: Any) -> None:
            tracer.armed = not handled  # noqa: B023
            handled.extend(flat(events))  # noqa: B023
            if 5 in handled:  # noqa: B023
                tracer.armed = False  # noqa: B023

        pool: EventWorkerPool[int, int] = EventWorkerPool(handle, workers=1, **features)
        for event, key in enumerate(keys):
            pool.add(key, event)
        failure = run_cut(pool, tracer)
        assert isinstance(failure, Cut) == bool(tracer.where)
        stats, left = pool.stats(), [event for _, event in pool.left]
        assert adds_up(stats), tracer.where
        assert (stats.in_flight, stats.waiting, stats.keys) == (0, 0, 0), tracer.where
        assert set(handled + left) == set(range(6)), tracer.where
        assert left == sorted(left), tracer.where
        if "batch" not in features:
            assert len(handled) == stats.handled == 6 - len(left), tracer.where
        if not tracer.where:
            assert at > 30, "the tracer has seen no lines"
            return
    raise AssertionError("there is no end of lines")


@pytest.mark.parametrize("policy", [Retry(base=10), Retry(base=0), Skip()], ids=repr)
@pytest.mark.parametrize("features", FEATURES[1:], ids="+".join)
def test_a_worker_that_is_cut_while_its_turn_fails_loses_nothing(features: dict[str, Any], policy: Any) -> None:
    for at in range(1, 1000):
        handled: list[int] = []
        tracer = Tracer(at)

        def handle(events: Any) -> None:
            if 1 in flat(events) and not tracer.lines:  # noqa: B023
                tracer.armed = True  # noqa: B023
                raise ValueError
            handled.extend(flat(events))  # noqa: B023
            if 9 in flat(events):
                tracer.armed = False  # noqa: B023

        pool: EventWorkerPool[str, int] = EventWorkerPool(
            handle, workers=1, clock=FakeClock(), on_failure=policy, **features
        )
        for event in range(4):
            pool.add("a", event)
        pool.add("b", 9)
        if "coalesce" in features:
            pool.add("a", 1)
        start: Any = partial(run_cut, pool, tracer)
        if policy == Retry(base=10):
            pool.add("b", 9)
            start = partial(stop_cut, pool, tracer)
        start()
        stats, left = pool.stats(), [event for _, event in pool.left]
        dead = [each.event for each in pool.dead()]
        assert adds_up(stats), tracer.where
        assert (stats.in_flight, stats.waiting, stats.keys) == (0, 0, 0), tracer.where
        expected = {1, 9} if "coalesce" in features else {*range(4), 9}
        assert set(handled + left + dead) == expected, tracer.where
        assert stats.dead == len(dead) == len(set(dead)), tracer.where
        assert not set(dead) & set(left), tracer.where
        if not tracer.where:
            assert at > 20, "the tracer has seen no lines"
            return
    raise AssertionError("there is no end of lines")


def stop_cut(pool: Any, tracer: Tracer) -> None:
    """Start a pool whose threads the tracer watches, and stop it once all that can be handled was."""
    start_traced(pool, tracer)
    eventually(lambda: bool(tracer.where) or not (pool._core.ready or pool._core.in_flight))
    with suppress(HandlerError):
        pool.stop(PATIENCE)


@pytest.mark.parametrize("state", ["ready", "in flight", "behind", "retrying", "delayed", "parked"])
@pytest.mark.parametrize("delay", [None, 5])
def test_an_add_that_is_cut_while_it_takes_a_place_is_accepted_or_not(state: str, delay: float | None) -> None:
    """And one run starts after the last that was accepted."""
    for at in range(1, 1000):
        gate, clock = Gate(), FakeClock()
        handled: list[Any] = []

        def handle(event: Any, delivery: Any) -> None:
            if event == "gate":
                gate(event)  # noqa: B023
            if event == "old" and state == "retrying" and delivery.attempt == 1:
                raise ValueError
            handled.append(event)  # noqa: B023

        pool: EventWorkerPool[str, str] = EventWorkerPool(
            handle, workers=1, coalesce="latest", clock=clock, on_failure=Retry(base=5, jitter="none")
        ).start()
        key = "gate" if state in ("in flight", "behind") else "key"
        if state == "parked":
            pool.park("key")
        if state in ("retrying", "delayed", "parked"):
            pool.add("key", "old", delay=5 if state == "delayed" else None)
            eventually(lambda: pool.explain("key").state == state)  # noqa: B023
        pool.add("gate", "gate")
        gate.wait_inside()
        if state in ("ready", "behind"):
            pool.add(key, "old")
        before = pool.stats().added
        was_cut, where = cut_calls(partial(pool.add, key, "new", delay=delay), at)
        accepted = pool.stats().added - before
        assert accepted in (0, 1), where
        gate.open.set()
        if state == "parked":
            pool.resume("key")
        for _ in range(4):
            pool._step(pool._core.check_invariants)
            clock.advance(5)
        pool.drain(PATIENCE)
        assert handled.count("new") == accepted, where
        if accepted:
            assert handled[-1] == "new", where
        assert adds_up(pool.stats()), where
        if not was_cut:
            assert at > 20, "the tracer has seen no lines"
            return
    raise AssertionError("there is no end of lines")


@pytest.mark.parametrize("key", ["a", NOTHING], ids=["a key", "all"])
def test_a_flush_that_is_cut_leaves_nothing_behind(key: Any) -> None:
    gate = Gate()
    pool: EventWorkerPool[str, int] = EventWorkerPool(gate, workers=1).start()
    pool.add("a", 0)
    gate.wait_inside()
    pool.add("b", 1)

    def flush() -> None:
        with Flush(pool, key, SimpleQueue(), None) as flushing:
            assert not flushing.is_over()

    core, was_cut, at = pool._core, True, 0
    while was_cut:
        at += 1
        was_cut, where = cut_calls(flush, at)
        assert not any([core.notes, core.audience, core.lookouts, core.admitted]), where
    assert at > 20, "the tracer has seen no lines"
    gate.open.set()
    pool.drain(PATIENCE)


class Value:
    """What is in a context: it looks at the pool as it goes."""

    def __init__(self, look: Callable[[], object]) -> None:
        self.look = look

    def __del__(self) -> None:
        self.look()


VALUE: ContextVar[Value | None] = ContextVar("VALUE", default=None)


@pytest.mark.parametrize(
    "how", ["merged", "merged when let in", "handled", "skipped by hand", "stopped", "never started"]
)
def test_a_context_is_released_outside_the_pool(how: str) -> None:
    released: list[object] = []
    raised: list[BaseException] = []

    def look() -> None:
        try:
            released.append(pool.stats())
        except BaseException as error:
            raised.append(error)

    def add(event: str) -> None:
        def set_and_add() -> None:
            VALUE.set(Value(look))
            pool.add("key", event)

        Context().run(set_and_add)

    gate = Gate()

    def handle(event: str) -> None:
        if event == "gate":
            gate(event)

    pool: EventWorkerPool[str, str] = EventWorkerPool(
        handle, workers=1, contextvars=True, coalesce="latest", max_backlog=1
    )
    if how == "skipped by hand":
        pool.park("key")
    if how != "never started":
        pool.start()
    if how in ("merged when let in", "stopped"):
        pool.add("gate", "gate")
        gate.wait_inside()
    if how == "merged when let in":
        pool.add("gate", "another")
        adding = [in_thread(partial(add, str(number))) for number in range(2)]
        eventually(partial(has_adders, pool, 2))
        gate.open.set()
        for done in adding:
            done()
    else:
        add("old")
    if how == "merged":
        add("new")
    if how == "skipped by hand":
        eventually(lambda: pool.stats().parked == 1)
        pool.skip_head("key")
        assert len(released) == 1
    gate.open.set()
    pool.stop(PATIENCE)
    gc.collect()
    assert not raised
    assert released
