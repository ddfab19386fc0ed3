"""P8 on a loop: drain, stop and the end of a block; and whose loop a pool is (P12)."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from on_loop import Gate, begin, on_loop, run, tasks, turns, until, workers
from support import in_thread
from workpool import DrainIncomplete, HandlerError, ParkKey, PoolClosed, StopTimeout
from workpool.asyncio import EventWorkerPool

pytestmark = pytest.mark.usefixtures("each_loop")


async def held(gate: Gate) -> EventWorkerPool[str, int]:
    """One worker that holds event 0, with 1 and 2 behind it."""
    pool: EventWorkerPool[str, int] = EventWorkerPool(gate, workers=1).start()
    for event in range(3):
        await pool.add("a", event)
    await gate.inside()
    return pool


@on_loop
async def test_a_block_starts_the_pool_and_drains_it() -> None:
    gate = Gate()
    gate.open.set()
    async with EventWorkerPool[str, int](gate, workers=3) as pool:
        for event in range(100):
            await pool.add("abc"[event % 3], event)
    assert sorted(gate.held) == list(range(100))
    assert "ended" in repr(pool)
    with pytest.raises(PoolClosed):
        async with pool:
            pass


@pytest.mark.parametrize("kind", [ValueError, asyncio.CancelledError])
@on_loop
async def test_an_exception_that_leaves_a_block_stops_the_pool_and_says_what_is_left(
    kind: type[BaseException],
) -> None:
    gate = Gate()

    async def block() -> None:
        async with pool:
            for event in range(3):
                await pool.add("a", event)
            await gate.inside()
            raise kind("mine")

    pool: EventWorkerPool[str, int] = EventWorkerPool(gate, workers=1, name="orders")
    leaving = begin(block())
    await until(lambda: "stopping" in repr(pool))
    await turns()
    assert not leaving.done(), "it waits for what is in flight"
    gate.open.set()
    with pytest.raises(kind, match="mine") as caught:
        await leaving
    assert caught.value.__notes__ == ["pool 'orders' was stopped with 2 events left"]
    assert pool.left == [("a", 1), ("a", 2)]


@on_loop
async def test_a_cancel_inside_a_block_stops_the_pool() -> None:
    gate = Gate()

    async def block() -> None:
        async with pool:
            await pool.add("a", 1)
            await pool.add("a", 2)
            await asyncio.Event().wait()

    pool: EventWorkerPool[str, int] = EventWorkerPool(gate, workers=1)
    leaving = begin(block())
    await gate.inside()
    leaving.cancel()
    await until(lambda: "stopping" in repr(pool))
    gate.open.set()
    with pytest.raises(asyncio.CancelledError):
        await leaving
    assert pool.left == [("a", 2)]


@on_loop
async def test_a_cancel_while_the_end_of_a_block_drains_stops_the_pool() -> None:
    gate = Gate()

    async def block() -> None:
        async with pool:
            await pool.add("a", 1)
            await pool.add("a", 2)

    pool: EventWorkerPool[str, int] = EventWorkerPool(gate, workers=1)
    leaving = begin(block())
    await gate.inside()
    await until(lambda: "draining" in repr(pool))
    leaving.cancel()
    await turns()
    assert leaving.cancelled()
    assert "stopping" in repr(pool)
    gate.open.set()
    assert await pool.stop() == [("a", 2)]


@on_loop
async def test_a_block_whose_pool_was_stopped_inside_ends_quietly_and_one_with_parked_keys_does_not() -> None:
    async def handle(event: int) -> None:
        raise ParkKey

    async with EventWorkerPool[str, int](handle, workers=1) as pool:
        await pool.add("a", 1)
        await pool.stop()
    with pytest.raises(DrainIncomplete):
        async with EventWorkerPool[str, int](handle, workers=1) as pool:
            await pool.add("a", 1)


@pytest.mark.parametrize("ending", ["drain", "stop"])
@on_loop
async def test_cancelling_an_ending_cancels_the_waiting_only(ending: str) -> None:
    gate = Gate()
    pool = await held(gate)
    endings = [begin(getattr(pool, ending)()) for _ in range(3)]
    await turns()
    endings[1].cancel()
    await turns()
    assert [each.done() for each in endings] == [False, True, False]
    gate.open.set()
    await endings[0]
    await endings[2]
    assert gate.held == ([0, 1, 2] if ending == "drain" else [0])


@on_loop
async def test_an_ending_that_gives_up_goes_on() -> None:
    gate = Gate()
    pool = await held(gate)
    with pytest.raises(TimeoutError, match=r"has not drained in 0\.001 s: 2 events wait, 1 are in flight"):
        await pool.drain(0.001)
    assert "draining" in repr(pool)
    with pytest.raises(StopTimeout) as caught:
        await pool.stop(0)
    assert (caught.value.left, caught.value.in_flight) == ([("a", 1), ("a", 2)], ["a"])
    gate.open.set()
    assert await pool.stop(30) == [("a", 1), ("a", 2)]
    with pytest.raises(DrainIncomplete):
        await pool.drain(0)


@on_loop
async def test_asking_for_the_end_again_and_again_piles_up_nothing() -> None:
    gate = Gate()
    pool = await held(gate)
    for _ in range(100):
        with pytest.raises(TimeoutError):
            await pool.drain(0)
        with pytest.raises(StopTimeout):
            await pool.stop(0)
    assert pool._wakeups <= 1
    gate.open.set()
    await pool.stop()
    for _ in range(100):
        await pool.stop()
    assert pool._wakeups <= 4
    assert not pool._sleepers


@pytest.mark.parametrize("ending", ["drain", "stop"])
@on_loop
async def test_an_ending_from_a_handler_asks_and_returns_at_once(ending: str) -> None:
    returned: list[object] = []

    async def handle(event: int) -> None:
        returned.append(await getattr(pool, ending)())
        returned.append(await getattr(pool, ending)(0))

    pool: EventWorkerPool[str, int] = EventWorkerPool(handle, workers=2)
    for event in range(2):
        pool.add_nowait("a", event)
    pool.start()
    await until(lambda: "ended" in repr(pool))
    expected: list[object] = [None] * 4 if ending == "drain" else [[], []]
    assert returned == expected
    assert await pool.stop() == ([] if ending == "drain" else [("a", 1)])


@on_loop
async def test_a_stop_ends_a_drain_that_waits_and_the_drain_says_so() -> None:
    gate = Gate()
    pool = await held(gate)
    drained = begin(pool.drain())
    await turns()
    stopped = begin(pool.stop())
    await turns()
    gate.open.set()
    with pytest.raises(DrainIncomplete) as caught:
        await drained
    assert await stopped == pool.left == caught.value.left == [("a", 1), ("a", 2)]


@pytest.mark.parametrize("ending", ["drain", "stop"])
@on_loop
async def test_an_ending_leaves_no_task(ending: str) -> None:
    gate = Gate()
    gate.open.set()
    before = tasks()
    pool: EventWorkerPool[str, int] = EventWorkerPool(gate, workers=50).start()
    for event in range(200):
        await pool.add(str(event % 7), event)
    await turns(2)
    assert len(tasks() - before) == 50
    await getattr(pool, ending)()
    assert tasks() == before
    await turns()
    assert not pool._tasks


@on_loop
async def test_a_pool_that_never_started_gives_its_events_back() -> None:
    pool: EventWorkerPool[str, int] = EventWorkerPool(Gate())
    await pool.add("a", 1)
    with pytest.raises(RuntimeError, match="never started"):
        await pool.drain()
    assert await pool.stop() == [("a", 1)]
    assert await pool.stop() == [("a", 1)]
    with pytest.raises(PoolClosed):
        pool.start()


@on_loop
async def test_tasks_are_named_after_their_pool() -> None:
    async with EventWorkerPool[str, int](Gate(), workers=2, name="orders"):
        assert [task.get_name() for task in workers()] == ["workpool-orders-0", "workpool-orders-1"]


@on_loop
async def test_where_a_task_cannot_be_made_those_that_were_are_ended() -> None:
    loop = asyncio.get_running_loop()
    made: list[asyncio.Task[Any]] = []

    def make(loop: asyncio.AbstractEventLoop, coroutine: Any, **options: Any) -> asyncio.Task[Any]:
        if len(made) == 3:
            coroutine.close()
            raise MemoryError
        made.append(asyncio.Task(coroutine, loop=loop, **options))
        return made[-1]

    pool: EventWorkerPool[str, int] = EventWorkerPool(Gate(), workers=5)
    pool.add_nowait("a", 1)
    loop.set_task_factory(make)
    with pytest.raises(MemoryError):
        pool.start()
    loop.set_task_factory(None)
    assert await pool.stop() == [("a", 1)]
    await turns()
    assert all(task.done() for task in made)


@pytest.mark.skipif(not hasattr(asyncio, "eager_task_factory"), reason="tasks are not eager on this Python")
@on_loop
async def test_a_worker_whose_task_is_eager_is_inside_from_its_first_event() -> None:
    handled: list[int] = []

    async def handle(event: int) -> None:
        handled.append(event)
        if event < 3:
            await pool.add("b", event + 10)
            await pool.add("c", event + 20)
        if event == 0:
            await pool.drain()

    loop = asyncio.get_running_loop()
    if type(loop).__module__ == "uvloop":
        pytest.skip("eager tasks fail on some uvloops")
    loop.set_task_factory(asyncio.eager_task_factory)  # type: ignore[attr-defined, unused-ignore]
    pool: EventWorkerPool[str, int] = EventWorkerPool(handle, workers=2, max_backlog=3)
    for event in range(3):
        pool.add_nowait("a", event)
    pool.start()
    await pool.drain()
    assert sorted(handled) == [0, 1, 2, 10, 11, 12, 20, 21, 22]
    await turns()
    assert not pool._tasks


def test_a_pool_that_has_ended_is_free_to_go() -> None:
    async def main() -> weakref.ref[Any]:
        gate = Gate()
        gate.open.set()
        async with EventWorkerPool[str, int](gate, workers=2) as pool:
            await pool.add("a", 1)
        return weakref.ref(pool)

    pool = run(main)
    gc.collect()
    assert pool() is None


# Whose loop it is.


CALLS: dict[str, Callable[[EventWorkerPool[Any, Any]], Awaitable[object] | object]] = {
    "start": lambda pool: pool.start(),
    "add": lambda pool: pool.add("b", 2),
    "add_nowait": lambda pool: pool.add_nowait("b", 2),
    "drain": lambda pool: pool.drain(),
    "stop": lambda pool: pool.stop(),
    "park": lambda pool: pool.park("a"),
    "resume": lambda pool: pool.resume("a"),
    "skip_head": lambda pool: pool.skip_head("a"),
    "a block": lambda pool: pool.__aenter__(),
    "the end of a block": lambda pool: pool.__aexit__(None, None, None),
    "an exception in a block": lambda pool: pool.__aexit__(ValueError, ValueError(), None),
}


async def refused(call: str, pool: EventWorkerPool[Any, Any]) -> None:
    with pytest.raises(RuntimeError, match="belongs to another event loop"):  # noqa: PT012
        result = CALLS[call](pool)
        if isinstance(result, Awaitable):
            await result


@pytest.mark.parametrize("call", CALLS)
def test_a_call_on_another_loop_raises_before_the_start(call: str) -> None:
    pool: EventWorkerPool[str, int] = EventWorkerPool(Gate())
    run(lambda: pool.add("a", 1))
    run(lambda: refused(call, pool))
    assert pool.stats().added == 1
    assert "open" in repr(pool)
    pool._unstarted.detach()


@pytest.mark.parametrize("call", CALLS)
@on_loop
async def test_a_call_on_another_loop_raises_after_the_start(call: str) -> None:
    gate = Gate()
    pool = await held(gate)
    in_thread(lambda: asyncio.run(refused(call, pool)))()
    assert pool.stats().added == 3
    gate.open.set()
    await pool.drain()
    assert gate.held == [0, 1, 2]


def test_a_call_where_no_loop_runs_raises() -> None:
    pool: EventWorkerPool[str, int] = EventWorkerPool(Gate())
    for call in (pool.start, lambda: pool.add_nowait("a", 1), lambda: pool.park("a")):
        with pytest.raises(RuntimeError, match="no running event loop"):
            call()


def test_what_is_left_and_the_counts_can_be_read_when_the_loop_is_gone() -> None:
    async def main() -> EventWorkerPool[str, int]:
        gate = Gate()
        pool = await held(gate)
        stopped = begin(pool.stop())
        await turns()
        gate.open.set()
        await stopped
        return pool

    pool = run(main)
    assert pool.left == in_thread(lambda: pool.left)() == [("a", 1), ("a", 2)]
    stats = pool.stats()
    assert stats == in_thread(pool.stats)()
    assert (stats.added, stats.handled, stats.returned) == (3, 1, 2)


def test_a_loop_that_is_closed_under_an_open_pool_leaves_its_counts(caplog: pytest.LogCaptureFixture) -> None:
    """Nobody cancelled its workers: the event loop itself says so, of each task, when they are dropped."""
    loop = asyncio.new_event_loop()
    pool = loop.run_until_complete(held(Gate()))
    loop.close()
    stats = pool.stats()
    assert (stats.added, stats.in_flight, stats.waiting) == (3, 1, 2)
    del pool
    gc.collect()
    assert "Task was destroyed but it is pending" in caplog.text
    assert all(record.name == "asyncio" for record in caplog.records)


@on_loop
async def test_a_failed_pool_ends_and_says_why_each_time() -> None:
    async def handle(event: int) -> None:
        raise ValueError("boom")

    pool: EventWorkerPool[str, int] = EventWorkerPool(handle, workers=3).start()
    await pool.add("a", 1)
    for call in (pool.drain, pool.stop, lambda: pool.add("a", 2)):
        with pytest.raises(HandlerError, match="boom"):
            await call()
    assert pool.left == [("a", 1)]


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, GeneratorExit])
@on_loop
async def test_what_is_no_exception_fails_the_pool_and_the_loop_goes_on(error: type[BaseException]) -> None:
    async def handle(event: int) -> None:
        await asyncio.sleep(0)
        raise error

    pool: EventWorkerPool[str, int] = EventWorkerPool(handle, workers=2).start()
    await pool.add("a", 1)
    with pytest.raises(HandlerError) as caught:
        await pool.drain()
    assert isinstance(caught.value.__cause__, error)
    assert pool.left == [("a", 1)]
