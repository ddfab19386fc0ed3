"""`await pool.run(...)` and `await pool.flush()`: a cancel ends them, and the loop goes on meanwhile."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from on_loop import Gate, begin, on_loop, until
from support import PATIENCE
from workpool.asyncio import EventWorkerPool

pytestmark = pytest.mark.usefixtures("each_loop")


class Waiting:
    """Brings events, and then waits until it is stopped."""

    def __init__(self, events: int) -> None:
        self.events = events
        self.is_stopped = threading.Event()
        self.has_ended = threading.Event()

    def feed(self, intake: Any) -> None:
        for number in range(self.events):
            if not intake.add("a", number):
                break
        assert self.is_stopped.wait(PATIENCE)
        self.has_ended.set()

    def stop(self) -> None:
        self.is_stopped.set()


@on_loop
async def test_a_cancel_stops_the_sources_first() -> None:
    handled: list[int] = []
    last = asyncio.Event()

    async def handle(number: int) -> None:
        handled.append(number)
        if number == 99:
            last.set()

    source = Waiting(100)
    async with EventWorkerPool[str, int](handle, max_backlog=5) as pool:
        running = asyncio.ensure_future(pool.run(source))
        await last.wait()
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        assert source.has_ended.is_set()
        assert pool._core.audience == []
    assert handled == list(range(100))


@on_loop
async def test_a_handler_that_stops_the_source_ends_the_run() -> None:
    source = Waiting(1)

    async def handle(_: int) -> None:
        source.stop()

    async with EventWorkerPool[str, int](handle) as pool:
        await pool.run(source)


@on_loop
async def test_a_cancel_takes_the_marks_of_a_flush_back() -> None:
    gate = Gate()
    async with EventWorkerPool[str, int](gate, workers=1) as pool:
        await pool.add("a", 1)
        await gate.inside()
        flushing = begin(pool.flush())
        await until(lambda: pool._core.audience)
        assert pool._core.notes
        flushing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await flushing
        assert [pool._core.notes, pool._core.audience, pool._core.lookouts] == [{}, [], []]
        gate.open.set()


@on_loop
async def test_a_flush_of_another_loop_is_refused() -> None:
    async with EventWorkerPool[str, int](Gate(), workers=1) as pool:
        told = await asyncio.to_thread(lambda: asyncio.run(refused(pool)))
        assert "another event loop" in told


async def refused(pool: EventWorkerPool[str, int]) -> str:
    with pytest.raises(RuntimeError) as raised:
        await pool.flush()
    return str(raised.value)
