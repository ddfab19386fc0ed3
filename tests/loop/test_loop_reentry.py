"""P11 on a loop: an exception or a call that comes in between leaves the pool whole."""

from __future__ import annotations

import asyncio
import gc
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest

from on_loop import Gate, begin, on_loop, run, turns, until, workers
from support import Ear
from tracer import Cut, Tracer
from workpool import Delivery, HandlerError, PoolClosed, Retry, RetryAfter, SkipEvent
from workpool.asyncio import EventWorkerPool
from workpool.testing import FakeClock
from workpool.twin import COMPILED

INSIDE = "this thread is inside the pool already"


def is_worker() -> bool:
    """Whether a worker of a pool runs."""
    task = asyncio.current_task()
    return task is not None and task.get_name().startswith("workpool")


def mine() -> Callable[[], bool]:
    """Whether the task that calls now runs."""
    me = asyncio.current_task()
    return lambda: asyncio.current_task() is me


@asynccontextmanager
async def cut(at: int) -> AsyncIterator[Tracer]:
    """Cut what this task does, at one line."""
    tracer = Tracer(at, mine())
    before = sys.gettrace()
    sys.settrace(tracer)
    tracer.armed = True
    try:
        with suppress(Cut):
            yield tracer
    finally:
        tracer.armed = False
        sys.settrace(before)


async def each_line(attempt: Callable[[int], Awaitable[Tracer]], least: int) -> None:
    """Cut at one line after the other."""
    for at in range(1, 1000):
        tracer = await attempt(at)
        if not tracer.where:
            assert at > least, "the tracer has seen no lines"
            return
    raise AssertionError("there is no end of lines")


@pytest.mark.parametrize("before", [0, 1, 2])
@pytest.mark.parametrize("nowait", [False, True])
@on_loop
async def test_an_add_that_is_cut_at_any_line_is_accepted_or_not(before: int, nowait: bool) -> None:
    async def attempt(at: int) -> Tracer:
        gate = Gate()
        pool: EventWorkerPool[str, int] = EventWorkerPool(gate, workers=2).start()
        await turns()
        for event in range(before):
            await pool.add("a", event)
        await gate.inside(min(1, before))
        async with cut(at) as tracer:
            if nowait:
                pool.add_nowait("a", 99)
            else:
                await pool.add("a", 99)
        pool._step(pool._core.check_invariants)
        accepted = pool.stats().added - before
        assert accepted in (0, 1), tracer.where
        gate.open.set()
        await pool.add("b", 100)
        await until(lambda: 100 in gate.held)
        await pool.drain()
        assert sorted(gate.held) == [*range(before), *[99] * accepted, 100], tracer.where
        return tracer

    await each_line(attempt, 8 if nowait or not COMPILED else 2)  # In the twin, most of it is one line.


@on_loop
async def test_an_add_that_is_cut_wherever_it_waits_is_accepted_or_not() -> None:
    async def attempt(at: int) -> Tracer:
        gate = Gate()
        pool: EventWorkerPool[str, int] = EventWorkerPool(gate, workers=1, max_backlog=1).start()
        await pool.add("a", 0)
        await gate.inside()
        await pool.add("a", 1)
        asyncio.get_running_loop().call_soon(asyncio.get_running_loop().call_soon, gate.open.set)
        async with cut(at) as tracer:
            await pool.add("a", 2)
        await turns()
        pool._step(pool._core.check_invariants)
        gate.open.set()
        await pool.add("a", 3)
        await pool.drain()
        assert gate.held in ([0, 1, 3], [0, 1, 2, 3]), tracer.where
        assert pool.stats().handled == pool.stats().added == len(gate.held), tracer.where
        return tracer

    await each_line(attempt, 30)


@pytest.mark.parametrize("retries", [False, True])
def test_a_worker_that_is_cut_at_any_line_of_its_step_loses_nothing(retries: bool) -> None:
    """The step runs from one handler call to the next: the tracer is armed by the first event."""

    async def attempt(at: int) -> Tracer:
        handled: list[int] = []
        failed: list[int] = []
        tracer = Tracer(at, is_worker)

        async def handle(event: int) -> None:
            if retries and event == 1 and not failed:
                failed.append(event)
                tracer.armed = True
                raise ValueError
            handled.append(event)
            await asyncio.sleep(0)
            if event in (1, 5):
                tracer.armed = event == 1 and not tracer.where

        policy = Retry(base=0)
        pool: EventWorkerPool[str, int] = EventWorkerPool(handle, workers=1, on_failure=policy, clock=FakeClock())
        for event in range(6):
            await pool.add("ab"[event % 2], event)
        before = sys.gettrace()
        sys.settrace(tracer)
        try:
            pool.start()
            await until(lambda: "ended" in repr(pool) or len(handled) == 6)
        finally:
            tracer.armed = False
            sys.settrace(before)
        failure = None
        try:
            await pool.drain()
        except HandlerError as error:
            failure = error.__cause__
        assert isinstance(failure, Cut) == bool(tracer.where), tracer.where
        stats = pool.stats()
        assert stats.handled == len(handled), tracer.where
        assert stats.added == 6 == stats.handled + stats.returned, tracer.where
        assert (stats.in_flight, stats.waiting, stats.keys) == (0, 0, 0), tracer.where
        for key in "ab":
            events = [event for event in handled if "ab"[event % 2] == key] + [e for k, e in pool.left if k == key]
            assert events == sorted(events), tracer.where
        return tracer

    run(lambda: each_line(attempt, 30), quiet=True)


@pytest.mark.parametrize("verdict", [None, RetryAfter(0), SkipEvent()], ids=repr)
def test_a_worker_that_is_cut_at_any_line_loses_no_mark_and_tells_none_early(verdict: Exception | None) -> None:
    """It waits for two events, of which the first fails once. Where the pool fails first, its audience is told."""

    async def attempt(at: int) -> Tracer:
        started: list[int] = []
        tracer = Tracer(at, is_worker)
        ear, audience = Ear(lambda: pool._core.handled + pool._core.dead), Ear()

        async def handle(event: int, delivery: Delivery) -> None:
            started.append(event)
            tracer.armed = event < 2 and not tracer.where
            if event == 0 and delivery.attempt == 1 and verdict:
                raise verdict

        pool: EventWorkerPool[str, int] = EventWorkerPool(handle, workers=1, clock=FakeClock())
        for event in range(2):
            pool.add_nowait("a", event)
        assert pool._mark("a", ear)
        pool.add_nowait("a", 2)
        pool._core.audience.append(audience)
        before = sys.gettrace()
        sys.settrace(tracer)
        try:
            pool.start()
            await until(lambda: 2 in started or "ended" in repr(pool))
        finally:
            tracer.armed = False
            sys.settrace(before)
        with suppress(HandlerError):
            await pool.drain()
        assert all(ended >= 2 for ended in ear.heard), tracer.where
        assert ear.heard or 2 not in started, tracer.where
        assert audience.heard, tracer.where
        assert pool._core.notes == {}, tracer.where
        assert tracer.where or len(ear.heard) == 1
        return tracer

    run(lambda: each_line(attempt, 20), quiet=True)


def test_a_worker_that_is_cut_while_it_lets_adders_in_loses_nothing() -> None:
    async def attempt(at: int) -> Tracer:
        gate = Gate()
        tracer = Tracer(at, is_worker)

        async def handle(event: int) -> None:
            if event == 2:
                tracer.armed = False
            await gate(event)
            tracer.armed = event == 0

        pool: EventWorkerPool[str, int] = EventWorkerPool(handle, workers=1, max_backlog=1)
        pool.add_nowait("a", 0)
        sys.settrace(tracer)
        try:
            pool.start()
            await gate.inside()
            await pool.add("a", 1)
            adders = [begin(pool.add("b", event)) for event in (2, 3)]
            await until(lambda: len(pool._core.adders) == 2)
            gate.open.set()
            outcomes = await asyncio.gather(*adders, return_exceptions=True)
        finally:
            tracer.armed = False
            sys.settrace(None)
        with suppress(HandlerError):
            await pool.drain()
        accepted = sum(outcome is None for outcome in outcomes)
        stats = pool.stats()
        assert stats.added == stats.handled + stats.returned, tracer.where
        assert 2 + accepted <= stats.added <= 4, tracer.where
        assert len(set(gate.held) | {event for _, event in pool.left}) == stats.added, tracer.where
        return tracer

    run(lambda: each_line(attempt, 30), quiet=True)


@pytest.mark.parametrize("number", [1, 2])
def test_a_worker_that_is_cut_at_any_line_of_its_leaving_leaves(number: int) -> None:
    async def attempt(at: int) -> Tracer:
        tracer = Tracer(at, is_worker)
        gate = Gate()

        async def handle(event: int) -> None:
            await gate(event)
            tracer.armed = True

        pool: EventWorkerPool[str, int] = EventWorkerPool(handle, workers=number)
        sys.settrace(tracer)
        try:
            pool.start()
            await pool.add("a", 0)
            await gate.inside()
            drained = begin(pool.drain())
            await turns()
            gate.open.set()
            with suppress(HandlerError):
                await drained
            await turns()
        finally:
            tracer.armed = False
            sys.settrace(None)
        stats = pool.stats()
        assert (stats.handled, stats.in_flight, stats.waiting) == (1, 0, 0), tracer.where
        assert (pool.left, len(pool._tasks)) == ([], 0), tracer.where
        return tracer

    run(lambda: each_line(attempt, 10), quiet=True)


def test_a_timekeeper_that_is_cut_at_any_line_fails_the_pool_and_loses_nothing() -> None:
    async def attempt(at: int) -> Tracer:
        clock = FakeClock()
        tracer = Tracer(at, lambda: asyncio.current_task() is None)

        async def handle(event: int) -> None:
            if not tracer.armed and not tracer.where:
                raise ValueError

        policy = Retry(base=10, jitter="none", attempts=2)
        pool: EventWorkerPool[str, int] = EventWorkerPool(handle, workers=1, on_failure=policy, clock=clock).start()
        await pool.add("a", 1)
        await until(lambda: pool.stats().retrying == 1)
        await turns()
        sys.settrace(tracer)
        tracer.armed = True
        try:
            clock.advance(10)
            await turns()
        finally:
            tracer.armed = False
            sys.settrace(None)
        outcome = await asyncio.gather(pool.drain(), return_exceptions=True)
        assert isinstance(outcome[0], HandlerError) == bool(tracer.where), tracer.where
        stats = pool.stats()
        assert stats.added == 1 == stats.handled + stats.returned, tracer.where
        return tracer

    run(lambda: each_line(attempt, 10), quiet=True)


CALLS: dict[str, Callable[[EventWorkerPool[Any, Any]], Awaitable[object] | object]] = {
    "start": lambda pool: pool.start(),
    "drain": lambda pool: pool.drain(),
    "stop": lambda pool: pool.stop(),
    "the end of a block": lambda pool: pool.__aexit__(None, None, None),
    "an exception in a block": lambda pool: pool.__aexit__(LookupError, LookupError(), None),
}


@pytest.mark.parametrize(
    ("call", "started"),
    [("start", False), ("stop", False), *((call, True) for call in CALLS if call != "start")],
)
def test_a_call_that_is_cut_at_any_line_leaves_a_pool_that_can_be_ended(call: str, started: bool) -> None:
    async def attempt(at: int) -> Tracer:
        handled: list[int] = []

        async def handle(event: int) -> None:
            handled.append(event)

        pool: EventWorkerPool[str, int] = EventWorkerPool(handle, workers=2)
        for event in range(4):
            await pool.add("ab"[event % 2], event)
        if started:
            pool.start()
        async with cut(at) as tracer:
            result = CALLS[call](pool)
            if isinstance(result, Awaitable):
                await result
        if "open" not in repr(pool):
            with pytest.raises(PoolClosed if pool._core.failure is None else HandlerError):
                pool.add_nowait("a", 9)
        with suppress(HandlerError):
            await pool.stop()
        stats = pool.stats()
        assert stats.added == stats.handled + stats.returned, tracer.where
        assert sorted(handled + [event for _, event in pool.left]) == list(range(stats.added)), tracer.where
        assert (stats.handled, stats.in_flight, stats.waiting, stats.keys) == (len(handled), 0, 0, 0), tracer.where
        await turns()
        assert not workers(), tracer.where
        return tracer

    run(lambda: each_line(attempt, 10), quiet=True)


@pytest.mark.parametrize("method", ["__hash__", "__eq__"])
@pytest.mark.parametrize("call", ["add_nowait", "stats", "left", "start", "park"])
@on_loop
async def test_a_key_that_calls_its_pool_is_refused(method: str, call: str) -> None:
    caught: list[str] = []

    class Key:
        armed = True

        def intrude(self) -> None:
            if Key.armed:
                try:
                    attribute = getattr(pool, call)
                    arguments = {"add_nowait": ("x", 1), "park": ("x",)}.get(call, ())
                    attribute(*arguments)
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

    pool: EventWorkerPool[Any, Any] = EventWorkerPool(Gate())
    await pool.add(Key(), 1)
    await pool.add(Key(), 2)
    Key.armed = False
    assert caught
    assert all(INSIDE in message for message in caught)
    assert len(await pool.stop()) == 2


@on_loop
async def test_a_signal_handler_that_adds_while_its_thread_is_inside_the_pool_raises() -> None:
    class Key:
        def __hash__(self) -> int:
            signal.raise_signal(signal.SIGUSR1)
            return 1

        def __eq__(self, other: object) -> bool:
            return self is other

    gate = Gate()
    gate.open.set()
    pool: EventWorkerPool[Any, int] = EventWorkerPool(gate, workers=1).start()
    before = signal.signal(signal.SIGUSR1, lambda *_: pool.add_nowait("signal", 1))
    try:
        with pytest.raises(RuntimeError, match=INSIDE):
            pool.add_nowait(Key(), 2)
    finally:
        signal.signal(signal.SIGUSR1, before)
    await pool.drain()
    assert gate.held == []


@pytest.mark.usefixtures("each_loop")
@on_loop
async def test_what_a_signal_handler_adds_while_the_loop_sleeps_is_handled() -> None:
    """The loop waits in its selector for nothing else, and a signal does not end that."""
    handled = asyncio.Event()

    async def handle(event: int) -> None:
        handled.set()

    pool: EventWorkerPool[str, int] = EventWorkerPool(handle, workers=1, warn_after=None).start()
    await turns()
    before = signal.signal(signal.SIGALRM, lambda *_: pool.add_nowait("signal", 1))
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.01)
        await handled.wait()
    finally:
        signal.signal(signal.SIGALRM, before)
    await pool.drain()


@on_loop
async def test_an_add_between_a_workers_last_look_and_its_sleep_wakes_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """A finaliser, or a signal handler, that runs where the worker makes what it sleeps on."""
    gate = Gate()
    gate.open.set()
    loop = asyncio.get_running_loop()
    pool: EventWorkerPool[str, int] = EventWorkerPool(gate, workers=1)
    make_future = loop.create_future
    adds = [1]

    def add_and_make() -> asyncio.Future[Any]:
        if adds and "open" in repr(pool) and pool._core.asleep:
            pool.add_nowait("a", adds.pop())
        return make_future()

    monkeypatch.setattr(loop, "create_future", add_and_make)
    pool.start()
    await until(lambda: gate.held)
    monkeypatch.undo()
    await pool.drain()


@on_loop
async def test_an_event_whose_finalizer_adds_is_released_outside_the_pool() -> None:
    class Event:
        def __del__(self) -> None:
            pool.add_nowait("finalizer", None)

    async def handle(event: Event | None) -> None: ...

    pool: EventWorkerPool[str, Event | None] = EventWorkerPool(handle, workers=1).start()
    await pool.add("a", Event())
    await until(lambda: gc.collect() >= 0 and pool.stats().handled == 2)
    await pool.drain()


@on_loop
async def test_a_handler_that_was_interrupted_fails_the_pool_and_its_event_heads_what_is_left() -> None:
    async def handle(event: int) -> None:
        if event == 2:
            signal.raise_signal(signal.SIGINT)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        pool: EventWorkerPool[str, int] = EventWorkerPool(handle, workers=1)
        for event in range(1, 4):
            await pool.add("a", event)
        pool.start()
        with pytest.raises(HandlerError) as caught:
            await pool.drain()
    finally:
        signal.signal(signal.SIGINT, before)
    assert isinstance(caught.value.__cause__, KeyboardInterrupt)
    assert pool.left == [("a", 2), ("a", 3)]
