"""P7 on a loop: who waits for room, who never does, and what a cancel leaves of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from on_loop import Gate, begin, on_loop, tasks, turns, until
from support import Heard
from workpool import HandlerError, PoolClosed, PoolFull
from workpool.asyncio import EventWorkerPool

pytestmark = pytest.mark.usefixtures("each_loop")


async def full(gate: Gate, bound: int = 2, **options: Any) -> EventWorkerPool[Any, Any]:
    """One worker that stands still with event -1, and as many events behind it as may wait."""
    pool: EventWorkerPool[Any, Any] = EventWorkerPool(gate, workers=1, max_backlog=bound, **options).start()
    await pool.add("a", -1)
    await gate.inside()
    for event in range(bound):
        await pool.add("a", event)
    return pool


def waits(pool: EventWorkerPool[Any, Any], adders: int) -> Callable[[], bool]:
    """Whether so many adders wait."""
    return lambda: len(pool._core.adders) == adders


@on_loop
async def test_cancelling_an_add_that_waits_adds_nothing() -> None:
    gate, heard = Gate(), Heard()
    pool = await full(gate, hooks=heard)
    adds = [begin(pool.add("a", event)) for event in range(10, 13)]
    await until(waits(pool, 3))
    adds[1].cancel()
    await turns()
    assert adds[1].cancelled()
    assert waits(pool, 2)()
    gate.open.set()
    await asyncio.gather(adds[0], adds[2])
    await pool.drain()
    assert gate.held == [-1, 0, 1, 10, 12]
    assert heard.names().count("added") == 5


@on_loop
async def test_cancelling_the_only_add_that_waits_lets_the_next_in_as_if_it_had_never_been() -> None:
    gate = Gate()
    pool = await full(gate)
    add = begin(pool.add("a", 10))
    await until(waits(pool, 1))
    add.cancel()
    await turns()
    with pytest.raises(PoolFull):
        pool.add_nowait("a", 11)
    gate.open.set()
    await until(lambda: pool.stats().handled == 3)
    pool.add_nowait("a", 12)
    await pool.drain()
    assert gate.held == [-1, 0, 1, 12]


@pytest.mark.parametrize("after", range(8))
@on_loop
async def test_an_add_that_is_cancelled_while_it_is_let_in_is_accepted_or_not(after: int) -> None:
    """The cancel comes so many turns of the loop after the gate was opened: before, as, and after room is made."""
    gate = Gate()
    pool = await full(gate)
    add = begin(pool.add("a", 10))
    await until(waits(pool, 1))
    gate.open.set()
    await turns(after)
    was_waiting = waits(pool, 1)()
    add.cancel()
    await turns()
    assert add.done()
    accepted = pool.stats().added == 4
    assert accepted == (not was_waiting), "it was cancelled while it waited, or it was accepted before"
    pool.add_nowait("a", 11)
    await pool.drain()
    assert gate.held == [-1, 0, 1, *[10] * accepted, 11]


@on_loop
async def test_an_add_that_was_let_in_and_is_cancelled_before_it_hears_of_it_is_accepted_once() -> None:
    gate, heard = Gate(), Heard()
    pool = await full(gate, hooks=heard)
    add = begin(pool.add("a", 10))
    await until(waits(pool, 1))
    gate.open.set()
    await until(waits(pool, 0))
    assert not add.done()
    add.cancel()
    with pytest.raises(asyncio.CancelledError):
        await add
    await pool.drain()
    assert gate.held == [-1, 0, 1, 10]
    assert pool.stats().added == heard.names().count("added") == 4


@pytest.mark.parametrize("timeout", [0, 0.001])
@on_loop
async def test_an_add_gives_up_when_its_time_is_over(timeout: float) -> None:
    gate = Gate()
    pool = await full(gate)
    with pytest.raises(TimeoutError, match=f"2 events wait.*are of key 'a', which is in flight.*after {timeout} s"):
        await pool.add("a", 10, timeout=timeout)
    assert not pool._core.adders
    gate.open.set()
    await pool.add("a", 11, timeout=timeout or 30)
    await pool.drain()
    assert gate.held == [-1, 0, 1, 11]


@on_loop
async def test_a_time_out_around_an_add_is_the_callers() -> None:
    gate = Gate()
    pool = await full(gate)
    with pytest.raises(TimeoutError) as caught:
        async with asyncio.timeout(0.001):
            await pool.add("a", 10, timeout=30)
    assert "given up" not in str(caught.value)
    gate.open.set()
    await pool.drain()
    assert gate.held == [-1, 0, 1]


@on_loop
async def test_adds_that_wait_are_let_in_first_come_first_served() -> None:
    gate = Gate()
    pool = await full(gate)
    adds = []
    for event in range(10, 20):
        adds.append(begin(pool.add("a", event)))
        await until(waits(pool, len(adds)))
    gate.open.set()
    await asyncio.gather(*adds)
    await pool.drain()
    assert gate.held == [-1, 0, 1, *range(10, 20)]


@pytest.mark.parametrize("ending", ["drain", "stop"])
@on_loop
async def test_an_add_that_waits_when_the_ending_comes_is_refused(ending: str) -> None:
    gate = Gate()
    pool = await full(gate)
    add = begin(pool.add("a", 10))
    await until(waits(pool, 1))
    ended = begin(getattr(pool, ending)())
    with pytest.raises(PoolClosed):
        await add
    gate.open.set()
    await ended
    assert 10 not in gate.held + [event for _, event in pool.left]


@on_loop
async def test_an_add_that_waits_when_the_pool_fails_says_so() -> None:
    gate = Gate()

    async def handle(event: int) -> None:
        await gate(event)
        raise ValueError("boom")

    pool: EventWorkerPool[str, int] = EventWorkerPool(handle, workers=1, max_backlog=1).start()
    await pool.add("a", 1)
    await gate.inside()
    await pool.add("a", 2)
    add = begin(pool.add("a", 3))
    await until(waits(pool, 1))
    gate.open.set()
    with pytest.raises(HandlerError, match="boom"):
        await add
    with pytest.raises(HandlerError):
        await pool.stop()
    assert pool.left == [("a", 1), ("a", 2)]


@on_loop
async def test_an_add_for_a_full_lane_waits_for_that_lane_only_and_a_cancel_takes_it_out_of_the_line() -> None:
    gate = Gate()
    pool: EventWorkerPool[str, int] = EventWorkerPool(gate, workers=1, max_lane=1).start()
    await pool.add("a", 1)
    await gate.inside()
    await pool.add("a", 2)
    adds = [begin(pool.add("a", event)) for event in (3, 4)]
    await turns()
    await pool.add("b", 5)
    adds[0].cancel()
    with pytest.raises(TimeoutError, match="max_lane=1"):
        await pool.add("a", 6, timeout=0)
    gate.open.set()
    await adds[1]
    await pool.drain()
    assert sorted(gate.held) == [1, 2, 4, 5]


@on_loop
async def test_an_add_from_a_handler_never_waits() -> None:
    handled: list[int] = []

    async def handle(event: int) -> None:
        handled.append(event)
        for _ in range(3 if event == 0 else 0):
            await pool.add("a", 1)
            async with asyncio.timeout(30):
                await pool.add("b", 2, timeout=30)

    pool: EventWorkerPool[str, int] = EventWorkerPool(handle, workers=1, max_backlog=1).start()
    await pool.add("a", 0)
    await pool.drain()
    assert sorted(handled) == [0, 1, 1, 1, 2, 2, 2]


@on_loop
async def test_a_task_that_a_handler_started_is_not_inside() -> None:
    """It waits for room in a full pool, and its drain waits for the end."""
    gate = Gate()
    order: list[object] = []
    started: list[asyncio.Task[None]] = []

    async def add_and_drain() -> None:
        await pool.add("b", 2)
        order.append("added")
        await pool.drain()
        order.append("drained")

    async def handle(event: int) -> None:
        if event == 0:
            await pool.add("a", 1)
            started.append(asyncio.create_task(add_and_drain()))
        await gate(event)
        order.append(event)

    pool: EventWorkerPool[str, int] = EventWorkerPool(handle, workers=1, max_backlog=1).start()
    await pool.add("a", 0)
    await until(waits(pool, 1))
    assert pool.stats().added == 2
    gate.open.set()
    await started[0]
    assert order.index(0) < order.index("added")
    assert order.index(2) < order.index("drained")


@on_loop
async def test_an_add_from_the_handler_of_another_pool_waits() -> None:
    gate = Gate()
    second = await full(gate)

    async def pass_on(event: int) -> None:
        await second.add("a", event)

    first: EventWorkerPool[str, int] = EventWorkerPool(pass_on, workers=1).start()
    await first.add("a", 10)
    await until(waits(second, 1))
    gate.open.set()
    await first.drain()
    await second.drain()
    assert gate.held == [-1, 0, 1, 10]


@on_loop
async def test_a_cancelled_add_leaves_no_task_and_no_event_behind() -> None:
    gate = Gate()
    pool = await full(gate)
    before = tasks()
    adds = [begin(pool.add(event, event)) for event in range(100)]
    await until(waits(pool, 100))
    for add in adds:
        add.cancel()
    await turns()
    assert tasks() == before
    assert (pool.stats().keys, len(pool._core.refused)) == (1, 0)
    gate.open.set()
    await pool.drain()
