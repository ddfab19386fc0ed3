"""Marks on a loop: a gate is a future of that loop, or whatever can be put to."""

from __future__ import annotations

import asyncio
from queue import SimpleQueue
from typing import Any

import pytest

from on_loop import Gate, on_loop
from support import Ear
from workpool.asyncio import EventWorkerPool

pytestmark = pytest.mark.usefixtures("each_loop")


async def pool_with_a_mark(gate: Gate, *ears: Any) -> EventWorkerPool[Any, Any]:
    """A pool whose worker stands still at an event, which has some marks."""
    pool: EventWorkerPool[Any, Any] = EventWorkerPool(gate, workers=1).start()
    await pool.add("a", 0)
    await gate.inside()
    for ear in ears:
        assert pool._mark("a", ear)
    return pool


@on_loop
async def test_a_future_is_resolved() -> None:
    gate = Gate()
    future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    pool = await pool_with_a_mark(gate, future)
    assert not future.done()
    gate.open.set()
    await future
    await pool.drain()


@on_loop
async def test_a_future_that_was_given_up_and_one_that_is_told_twice_are_left_as_they_are() -> None:
    gate = Gate()
    loop = asyncio.get_running_loop()
    cancelled, other = loop.create_future(), loop.create_future()
    pool = await pool_with_a_mark(gate, cancelled, other)
    await pool.add("a", 1)
    assert pool._mark("a", cancelled)
    await pool.add("b", 2)
    assert pool._mark("b", other)
    pool._core.audience.append(other)
    cancelled.cancel()
    gate.open.set()
    await pool.drain()
    assert cancelled.cancelled()
    await other


@on_loop
async def test_whatever_else_can_be_put_to_is() -> None:
    gate = Gate()
    lines, ear = SimpleQueue[None](), Ear()
    pool = await pool_with_a_mark(gate, lines, ear)
    pool._core.audience.append(ear)
    gate.open.set()
    await pool.drain()
    assert lines.get_nowait() is None
    assert len(ear.heard) == 2
