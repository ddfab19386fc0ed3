"""A pool on a loop, seen and fed from other threads."""

from __future__ import annotations

import asyncio
import signal
import threading
from functools import partial
from typing import Any

import pytest

from on_loop import Gate, begin, on_loop, run, turns, until
from support import PATIENCE, in_thread
from workpool import HandlerError, PoolClosed
from workpool.asyncio import EventWorkerPool

pytestmark = pytest.mark.usefixtures("each_loop")


async def full(gate: Gate) -> EventWorkerPool[str, int]:
    """One worker that holds event 0, with 1 and 2 behind it, and no room."""
    pool: EventWorkerPool[str, int] = EventWorkerPool(gate, workers=1, max_backlog=2).start()
    for event in range(3):
        await pool.add("a", event)
        await gate.inside()
    return pool


def waits(pool: EventWorkerPool[Any, Any], adders: int = 1) -> bool:
    return len(pool._core.adders) == adders


@on_loop
async def test_events_from_threads_are_handled_in_the_order_of_each_thread() -> None:
    handled: list[tuple[int, int]] = []

    async def handle(event: tuple[int, int]) -> None:
        await asyncio.sleep(0)
        handled.append(event)

    def produce(number: int) -> None:
        for event in range(300):
            pool.add_from_thread(number, (number, event))

    async with EventWorkerPool[int, tuple[int, int]](handle, workers=3, max_backlog=5) as pool:
        await asyncio.gather(*(asyncio.to_thread(produce, number) for number in range(4)))
    for number in range(4):
        assert [event for thread, event in handled if thread == number] == list(range(300))


@on_loop
async def test_an_event_from_a_thread_wakes_a_loop_that_sleeps() -> None:
    """Nothing else happens on it: it waits in its selector, without end. In debug mode it refuses other threads."""
    asyncio.get_running_loop().set_debug(True)
    handled = asyncio.Event()

    async def handle(event: int) -> None:
        handled.set()

    pool: EventWorkerPool[str, int] = EventWorkerPool(handle, workers=1, warn_after=None).start()
    await turns()
    threading.Thread(target=pool.add_from_thread, args=("a", 1)).start()
    await handled.wait()
    await pool.drain()


@on_loop
async def test_an_add_from_a_thread_waits_for_room_in_line_with_those_on_the_loop() -> None:
    gate = Gate()
    pool = await full(gate)
    first = begin(pool.add("a", 3))
    await until(lambda: waits(pool))
    second = begin(asyncio.to_thread(pool.add_from_thread, "a", 4))
    await until(lambda: waits(pool, 2))
    third = begin(pool.add("a", 5))
    await until(lambda: waits(pool, 3))
    gate.open.set()
    await asyncio.gather(first, second, third)
    await pool.drain()
    assert gate.held == [0, 1, 2, 3, 4, 5]


@on_loop
async def test_an_add_from_a_thread_gives_up_when_its_time_is_over() -> None:
    gate = Gate()
    pool = await full(gate)
    with pytest.raises(TimeoutError, match="given up after 0 s"):
        await asyncio.to_thread(partial(pool.add_from_thread, "a", 3, timeout=0))
    assert waits(pool, 0)
    gate.open.set()
    await pool.drain()
    assert gate.held == [0, 1, 2]


@pytest.mark.parametrize("ending", ["drain", "stop"])
@on_loop
async def test_an_add_from_a_thread_is_refused_by_an_ending(ending: str) -> None:
    gate = Gate()
    pool = await full(gate)
    adding = begin(asyncio.to_thread(pool.add_from_thread, "a", 3))
    await until(lambda: waits(pool))
    ended = begin(getattr(pool, ending)())
    with pytest.raises(PoolClosed):
        await adding
    with pytest.raises(PoolClosed):
        await asyncio.to_thread(pool.add_from_thread, "a", 4)
    gate.open.set()
    await ended
    assert pool.stats().added == 3


@on_loop
async def test_an_add_from_a_thread_to_a_pool_that_failed_says_why() -> None:
    async def handle(event: int) -> None:
        raise ValueError("boom")

    pool: EventWorkerPool[str, int] = EventWorkerPool(handle, workers=1).start()
    await asyncio.to_thread(pool.add_from_thread, "a", 1)
    with pytest.raises(HandlerError):
        await pool.drain()
    with pytest.raises(HandlerError, match="boom"):
        await asyncio.to_thread(pool.add_from_thread, "a", 2)


@on_loop
async def test_the_loops_own_thread_has_to_await_instead() -> None:
    async with EventWorkerPool[str, int](Gate(), workers=1) as pool:
        with pytest.raises(RuntimeError, match="this is the loop's own thread"):
            pool.add_from_thread("a", 1)


def test_where_its_loop_does_not_run_an_add_from_a_thread_raises() -> None:
    pool: EventWorkerPool[str, int] = EventWorkerPool(Gate(), workers=1)
    with pytest.raises(RuntimeError, match="no loop that runs: start it first"):
        pool.add_from_thread("a", 1)

    async def main() -> None:
        async with pool:
            pass

    run(main)
    with pytest.raises(RuntimeError, match="no loop that runs"):
        pool.add_from_thread("a", 1)


@on_loop
async def test_an_add_from_a_thread_with_a_key_that_cannot_be_hashed_says_so() -> None:
    async with EventWorkerPool[Any, int](Gate(), workers=1) as pool:
        with pytest.raises(TypeError, match="a key must be hashable"):
            await asyncio.to_thread(pool.add_from_thread, [], 1)
        with pytest.raises(ValueError, match="timeout must be at least 0"):
            await asyncio.to_thread(partial(pool.add_from_thread, "a", 1, timeout=-1))
    assert pool.stats().added == 0


def test_an_add_from_a_thread_that_is_interrupted_adds_nothing() -> None:
    """The main thread waits, and Ctrl-C comes; the loop runs on another."""
    gates: list[Gate] = []
    pools: list[EventWorkerPool[str, int]] = []
    waiting = threading.Event()
    interrupted = threading.Event()

    async def main() -> None:
        gates.append(Gate())
        pools.append(await full(gates[0]))
        waiting.set()
        await until(lambda: waits(pools[0]))
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
        await until(interrupted.is_set)
        assert waits(pools[0], 0)
        gates[0].open.set()
        await pools[0].drain()

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        done = in_thread(lambda: run(main))
        assert waiting.wait(PATIENCE)
        with pytest.raises(KeyboardInterrupt):
            pools[0].add_from_thread("a", 3)
    finally:
        signal.signal(signal.SIGINT, before)
    interrupted.set()
    done()
    assert gates[0].held == [0, 1, 2]


def test_a_loop_that_ends_lets_no_thread_hang() -> None:
    """Threads add without end, and wait for room, while the loop goes: each add is in `left`, or is refused."""
    accepted: list[int] = []
    refusals: list[str] = []

    def produce(pool: EventWorkerPool[str, int], number: int) -> None:
        try:
            for event in range(number, 1_000_000, 4):
                pool.add_from_thread("a", event)
                accepted.append(event)
        except (PoolClosed, RuntimeError) as error:
            refusals.append(str(error))

    async def main() -> EventWorkerPool[str, int]:
        pool: EventWorkerPool[str, int] = EventWorkerPool(Gate(), workers=1, max_backlog=20).start()
        producers.extend(in_thread(partial(produce, pool, number)) for number in range(4))
        await until(lambda: waits(pool, 4))
        return pool

    for _ in range(5):
        accepted.clear()
        refusals.clear()
        producers: list[Any] = []
        pool = run(main)
        for producer in producers:
            producer()
        assert sorted(event for _, event in pool.left) == sorted(accepted)
        assert len(refusals) == 4


@on_loop
async def test_the_counts_are_exact_from_another_thread_while_the_loop_works() -> None:
    done = threading.Event()

    def look() -> int:
        looks = 0
        while not done.is_set():
            stats = pool.stats()
            assert stats.added == stats.handled + stats.dead + stats.returned + stats.in_flight + stats.waiting
            assert stats.waiting == stats.queued + stats.retrying + stats.parked
            assert 0 <= stats.in_flight <= 3
            assert not pool.left
            assert pool.explain(1).waiting >= 0
            looks += 1
        return looks

    async def handle(event: int) -> None:
        await asyncio.sleep(0)

    async with EventWorkerPool[int, int](handle, workers=3, max_backlog=50) as pool:
        looking = in_thread(look)
        for event in range(3000):
            await pool.add(event % 5, event)
        done.set()
        assert await asyncio.to_thread(looking) > 0
    assert pool.stats().handled == 3000
