"""The turns of a worker on a loop: batches, bursts and contexts beside cancels and other tasks."""

from __future__ import annotations

import asyncio
import gc
import logging
import weakref
from contextvars import Context, ContextVar
from itertools import pairwise
from typing import Any

import pytest

from on_loop import on_loop
from support import PATIENCE, Heard
from workpool import Skip
from workpool.asyncio import EventWorkerPool
from workpool.testing import FakeClock

WHOSE: ContextVar[str] = ContextVar("WHOSE")


class Event:
    pass


@on_loop
async def test_a_cancel_that_nobody_asked_for_fails_the_whole_batch() -> None:
    calls: list[list[int]] = []

    async def handle(events: list[int]) -> None:
        calls.append(events)
        raise asyncio.CancelledError

    heard = Heard()
    pool = EventWorkerPool[str, int](handle, workers=1, batch=3, on_failure=Skip(), hooks=heard)
    for event in range(3):
        await pool.add("a", event)
    await pool.start().drain(PATIENCE)
    assert calls == [[0, 1, 2]]
    assert [name for name, *_ in heard.of("a")] == ["started", "failed", "dead", "dead", "dead"]
    assert [dead.event for dead in pool.dead()] == [0, 1, 2]


@on_loop
async def test_a_coroutine_that_was_cancelled_in_a_context_is_released(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL, "workpool")  # A record that is kept holds the error of a handler.
    WHOSE.set("the adder's")
    refs: list[weakref.ref[Event]] = []

    async def handle(event: Event) -> None:
        refs.append(weakref.ref(event))
        future = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().call_soon(future.cancel)
        await future

    pool = EventWorkerPool[str, Event](handle, workers=1, contextvars=True, on_failure=Skip(), max_dead=0)
    gc.disable()
    try:
        await pool.add("a", Event())
        await pool.start().drain(PATIENCE)
        assert [ref() for ref in refs] == [None]
    finally:
        gc.enable()


@on_loop
async def test_an_event_of_a_burst_is_released_as_it_ends() -> None:
    refs: list[weakref.ref[Event]] = []
    alive: list[int] = []

    async def handle(event: Event) -> None:
        alive.append(sum(ref() is not None for ref in refs))
        refs.append(weakref.ref(event))
        await asyncio.sleep(0)

    pool = EventWorkerPool[str, Event](handle, workers=1, max_burst=3)
    for _ in range(3):
        await pool.add("a", Event())
    await pool.start().drain(PATIENCE)
    assert alive == [0, 0, 0]


@pytest.mark.parametrize("max_burst", [2, 63, 1000])
@on_loop
async def test_a_burst_lets_others_of_the_loop_have_their_turn(max_burst: int) -> None:
    turns: list[int] = []
    handled: list[int] = []

    async def handle(event: int) -> None:
        handled.append(event)

    async def watch() -> None:
        while len(handled) < 1000:
            turns.append(len(handled))
            await asyncio.sleep(0)

    pool = EventWorkerPool[str, int](handle, workers=1, max_burst=max_burst)
    for event in range(1000):
        await pool.add("a", event)
    watching = asyncio.create_task(watch())
    await pool.start().drain(PATIENCE)
    await watching
    assert max(later - earlier for earlier, later in pairwise(turns)) <= 128


@on_loop
async def test_a_cancel_ends_a_burst_whatever_the_handler_makes_of_it() -> None:
    inside = asyncio.Event()
    handled: list[int] = []

    async def handle(event: int) -> None:
        inside.set()
        try:
            if not handled:
                await asyncio.sleep(1000)
        except asyncio.CancelledError:
            pass
        handled.append(event)

    pool = EventWorkerPool[str, int](handle, workers=1, max_burst=3)
    for event in range(3):
        await pool.add("a", event)
    pool.start()
    await inside.wait()
    [task] = pool._tasks
    task.cancel()
    await asyncio.wait([task], timeout=PATIENCE)
    assert await pool.stop(PATIENCE) == [("a", 1), ("a", 2)]
    assert handled == [0]
    assert pool.stats().handled == 1


@on_loop
async def test_a_time_out_is_of_each_event_of_a_burst_and_of_a_context() -> None:
    seen: list[tuple[int, str]] = []

    async def handle(event: int) -> None:
        seen.append((event, WHOSE.get()))
        if event == 1:
            await asyncio.sleep(1000)

    WHOSE.set("the adder's")
    pool = EventWorkerPool[str, int](handle, workers=1, max_burst=3, contextvars=True, timeout=0.05, on_failure=Skip())
    for event in range(3):
        await pool.add("a", event)
    await pool.start().drain(PATIENCE)
    assert seen == [(event, "the adder's") for event in range(3)]
    assert [(dead.event, dead.error) for dead in pool.dead()] == [(1, "TimeoutError: ")]


@on_loop
async def test_what_a_handler_starts_and_awaits_runs_in_its_context() -> None:
    seen: list[str] = []

    async def look() -> None:
        seen.append(WHOSE.get())

    async def handle(event: int) -> None:
        await asyncio.sleep(0)
        await look()
        await asyncio.create_task(look())
        async with asyncio.timeout(PATIENCE):
            await asyncio.gather(look(), asyncio.sleep(0.001))

    WHOSE.set("the adder's")
    async with EventWorkerPool[str, int](handle, workers=1, contextvars=True) as pool:
        await pool.add("a", 1)
        WHOSE.set("another's")
    assert seen == ["the adder's"] * 3


@on_loop
async def test_the_stack_of_a_handler_in_a_context_is_told(caplog: pytest.LogCaptureFixture) -> None:
    clock, go, inside = FakeClock(), asyncio.Event(), asyncio.Event()

    async def wait_inside() -> None:
        inside.set()
        await go.wait()

    async def handle(event: int) -> None:
        await wait_inside()

    caplog.set_level(logging.WARNING, "workpool")
    pool: EventWorkerPool[str, Any] = EventWorkerPool(handle, workers=1, contextvars=True, clock=clock, warn_after=10)
    pool.start()
    await pool.add("a", 1)
    await inside.wait()
    for _ in range(4):
        clock.advance(5)
        for _ in range(5):
            await asyncio.sleep(0)
    go.set()
    await pool.drain(PATIENCE)
    [record] = caplog.records
    assert "in handle" in record.getMessage()
    assert "in wait_inside" in record.getMessage()


class Value:
    """What is in a context: it looks at the pool as it goes."""

    def __init__(self, look: Any) -> None:
        self.look = look

    def __del__(self) -> None:
        self.look()


VALUE: ContextVar[Value] = ContextVar("VALUE")


@on_loop
async def test_a_context_is_released_outside_the_pool_where_an_adder_is_let_in() -> None:
    raised: list[BaseException] = []
    released: list[object] = []
    go = asyncio.Event()

    def look() -> None:
        try:
            released.append(pool.stats())
        except BaseException as error:
            raised.append(error)

    async def handle(event: int) -> None:
        await go.wait()

    def begin_to_add(event: int) -> Any:
        """In a context that nobody else has: that of a task would be kept by the task."""
        VALUE.set(Value(look))
        adding = pool.add("key", event)
        adding.send(None)
        return adding

    pool = EventWorkerPool[str, int](handle, workers=1, contextvars=True, coalesce="latest", max_backlog=1)
    pool.start()
    for key in ("gate", "another"):
        await pool.add(key, 0)
        await asyncio.sleep(0)
    adding = [Context().run(begin_to_add, event) for event in range(2)]
    assert len(pool._core.adders) == 2
    go.set()
    while not pool.stats().merged:
        await asyncio.sleep(0)
    await pool.drain(PATIENCE)
    for each in adding:
        with pytest.raises(StopIteration):
            each.send(None)
    assert not raised
    assert len(released) == 2
    assert pool.stats().merged == 1
