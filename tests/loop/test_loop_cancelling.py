"""P1, P6 and P8 on a loop: what a cancel does that was asked for, and what one does that was not."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

import pytest

from on_loop import Gate, on_loop, run, turns, until, workers
from workpool import Fail, HandlerError, Park, Policy, PoolClosed, Retry, Skip
from workpool.asyncio import EventWorkerPool
from workpool.errors import HandlerCancelled
from workpool.testing import FakeClock

pytestmark = pytest.mark.usefixtures("each_loop")


async def busy(handle: Callable[[int], Any], **options: Any) -> EventWorkerPool[str, int]:
    """Two workers that hold events 0 and 1 of keys a and b, with 2 to 5 behind them."""
    pool: EventWorkerPool[str, int] = EventWorkerPool(handle, workers=2, **options).start()
    for event in range(6):
        await pool.add("ab"[event % 2], event)
    return pool


def by_key(left: list[tuple[str, int]], key: str) -> list[int]:
    return [event for each, event in left if each == key]


@on_loop
async def test_a_cancel_of_a_worker_puts_its_event_back_at_the_head_and_stops_the_pool() -> None:
    gate = Gate()
    pool = await busy(gate)
    await gate.inside(2)
    task = workers()[0]
    task.cancel()
    await turns()
    assert task.cancelled()
    assert "stopping" in repr(pool)
    with pytest.raises(PoolClosed):
        pool.add_nowait("a", 9)
    gate.open.set()
    left = await pool.stop()
    assert left == pool.left
    assert gate.held == [0, 1], "the other worker finished what it held, and took nothing more"
    assert (by_key(left, "a"), by_key(left, "b")) == ([0, 2, 4], [3, 5])
    stats = pool.stats()
    assert (stats.added, stats.handled, stats.returned, stats.in_flight) == (6, 1, 5, 0)


@on_loop
async def test_a_cancel_of_every_worker_leaves_everything_in_order(caplog: pytest.LogCaptureFixture) -> None:
    gate = Gate()
    pool = await busy(gate)
    await gate.inside(2)
    for task in workers():
        task.cancel()
    await turns()
    assert "ended" in repr(pool)
    assert (by_key(pool.left, "a"), by_key(pool.left, "b")) == ([0, 2, 4], [1, 3, 5])
    [record] = [each for each in caplog.records if each.name == "workpool"]
    assert "its workers were cancelled, and the pool stops with 6 events not handled" in record.getMessage()
    assert await pool.stop() == pool.left


@on_loop
async def test_a_handler_that_swallows_its_cancel_has_handled_its_event_and_the_pool_stops() -> None:
    handled: list[int] = []

    async def handle(event: int) -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            handled.append(event)

    pool = await busy(handle)
    await until(lambda: pool.stats().in_flight == 2)
    for task in workers():
        task.cancel()
    await turns()
    assert not workers(), "a worker whose cancel was swallowed went on"
    assert sorted(handled) == [0, 1]
    assert (by_key(pool.left, "a"), by_key(pool.left, "b")) == ([2, 4], [3, 5])


@on_loop
async def test_a_handler_that_takes_its_cancel_back_goes_on() -> None:
    handled: list[int] = []

    async def handle(event: int) -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            task = asyncio.current_task()
            assert task is not None
            task.uncancel()
            handled.append(event)

    pool = await busy(handle)
    for number in range(2, 8, 2):
        await until(lambda: pool.stats().in_flight == 2)
        for task in workers():
            task.cancel()
        while len(handled) < number:
            await turns()
    await pool.drain()
    assert sorted(handled) == [0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize(
    ("policy", "left", "dead"),
    [(Skip(), [2, 4], [0]), (Park(), [0, 2, 4], []), (Retry(base=60), [0, 2, 4], []), (Fail(), [0, 2, 4], [])],
    ids=repr,
)
@on_loop
async def test_a_handler_that_makes_another_error_of_its_cancel_does_not_keep_its_worker(
    policy: Policy, left: list[int], dead: list[int], caplog: pytest.LogCaptureFixture
) -> None:
    """Its clean-up fails, or it wraps whatever it is given: the event failed, and the cancel counts all the same."""

    async def handle(event: int) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            raise ValueError("cleaning up")

    pool: EventWorkerPool[str, int] = EventWorkerPool(handle, workers=1, on_failure=policy, clock=FakeClock()).start()
    for event in range(0, 6, 2):
        await pool.add("a", event)
    await until(lambda: pool.stats().in_flight == 1)
    workers()[0].cancel()
    await turns()
    assert not workers(), "the cancel was forgotten"
    assert "ended" in repr(pool)
    assert by_key(pool.left, "a") == left
    assert [each.event for each in pool.dead()] == dead
    assert "cleaning up" in caplog.text


@on_loop
async def test_a_cancel_of_an_idle_worker_stops_the_pool_and_the_busy_one_finishes() -> None:
    gate = Gate()
    pool: EventWorkerPool[str, int] = EventWorkerPool(gate, workers=2).start()
    await pool.add("a", 1)
    await gate.inside()
    await pool.add("a", 2)
    [idle] = [task for task, worker in pool._tasks.items() if pool._core.key_at(worker) != "a"]
    idle.cancel()
    await turns()
    assert "stopping" in repr(pool)
    gate.open.set()
    assert await pool.stop() == [("a", 2)]


@on_loop
async def test_an_idle_worker_that_is_cancelled_with_its_wake_up_under_way_loses_no_event() -> None:
    gate = Gate()
    pool: EventWorkerPool[str, int] = EventWorkerPool(gate, workers=1).start()
    await turns()
    pool.add_nowait("a", 1)
    workers()[0].cancel()
    await turns()
    assert (pool.left, gate.held) == ([("a", 1)], [])


@on_loop
async def test_a_worker_that_is_cancelled_before_it_began_ends_the_pool_too() -> None:
    pool: EventWorkerPool[str, int] = EventWorkerPool(Gate(), workers=3)
    pool.add_nowait("a", 1)
    pool.start()
    for task in workers():
        task.cancel()
    assert await pool.stop() == [("a", 1)]


@on_loop
async def test_a_handler_that_cancels_its_own_task_is_cancelled() -> None:
    async def handle(event: int) -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        await asyncio.sleep(0)

    pool: EventWorkerPool[str, int] = EventWorkerPool(handle, workers=1).start()
    await pool.add("a", 1)
    await turns()
    assert pool.left == [("a", 1)]


# A CancelledError that nobody asked for.


async def cancelled_elsewhere(event: int) -> None:
    """Wait for something that somebody else cancels."""
    other = asyncio.get_running_loop().create_future()
    other.cancel()
    await other


@on_loop
async def test_a_cancelled_error_that_nobody_asked_for_fails_the_pool_and_says_what_it_was() -> None:
    pool: EventWorkerPool[str, int] = EventWorkerPool(cancelled_elsewhere, workers=1).start()
    await pool.add("a", 1)
    with pytest.raises(HandlerError, match=r"key 'a' raised HandlerCancelled: .*nobody had cancelled it") as caught:
        await pool.drain()
    cause = caught.value.__cause__
    assert isinstance(cause, HandlerCancelled)
    assert isinstance(cause.__cause__, asyncio.CancelledError)
    assert pool.left == [("a", 1)]


@on_loop
async def test_a_cancelled_error_that_nobody_asked_for_is_a_failed_attempt_and_its_worker_lives() -> None:
    attempts: list[int] = []

    async def handle(event: int) -> None:
        attempts.append(event)
        if len(attempts) < 3:
            await cancelled_elsewhere(event)

    policy = Retry(attempts=3, base=0, retry_on=(HandlerCancelled,))
    async with EventWorkerPool[str, int](handle, workers=1, on_failure=policy) as pool:
        await pool.add("a", 1)
        await pool.add("a", 2)
    assert attempts == [1, 1, 1, 2]


@on_loop
async def test_a_cancelled_error_that_nobody_asked_for_is_kept_as_text() -> None:
    pool: EventWorkerPool[str, int] = EventWorkerPool(cancelled_elsewhere, workers=1, on_failure=Skip()).start()
    await pool.add("a", 1)
    await pool.drain()
    [dead] = pool.dead()
    assert dead.error == "HandlerCancelled: the handler raised CancelledError, and nobody had cancelled it"


# The loop ends.


def test_a_loop_that_ends_with_an_open_pool_stops_it_and_says_so_once(caplog: pytest.LogCaptureFixture) -> None:
    gates: list[Gate] = []

    async def main() -> EventWorkerPool[str, int]:
        gates.append(Gate())
        pool = await busy(gates[0], name="orders")
        await gates[0].inside(2)
        return pool

    pool = run(main)
    assert (by_key(pool.left, "a"), by_key(pool.left, "b")) == ([0, 2, 4], [1, 3, 5])
    [record] = [each for each in caplog.records if each.name == "workpool"]
    assert record.levelno == logging.ERROR
    assert record.getMessage() == (
        "pool 'orders': its workers were cancelled, and the pool stops with 6 events not handled: "
        "drain() or stop() it before its loop ends"
    )
    stats = pool.stats()
    assert (stats.added, stats.returned, stats.in_flight, stats.waiting) == (6, 6, 0, 0)


def test_it_says_so_too_where_most_workers_are_idle(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> EventWorkerPool[str, int]:
        gate = Gate()
        pool: EventWorkerPool[str, int] = EventWorkerPool(gate, workers=50).start()
        await pool.add("a", 1)
        await gate.inside()
        return pool

    assert run(main).left == [("a", 1)]
    assert "with 1 events not handled" in caplog.text


@pytest.mark.parametrize("kind", [ValueError, KeyboardInterrupt])
def test_so_it_is_where_the_loop_ends_by_an_exception(kind: type[BaseException]) -> None:
    pools: list[EventWorkerPool[str, int]] = []

    async def main() -> None:
        gate = Gate()
        pools.append(await busy(gate))
        await gate.inside(2)
        raise kind

    with pytest.raises(kind):
        run(main)
    assert len(pools[0].left) == 6


def test_a_loop_that_ends_with_an_idle_open_pool_says_nothing(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> EventWorkerPool[str, int]:
        pool: EventWorkerPool[str, int] = EventWorkerPool(Gate(), workers=5).start()
        await turns()
        return pool

    pool = run(main)
    assert "ended" in repr(pool)
    assert not caplog.records


def test_a_loop_that_ends_with_keys_held_returns_their_events(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> EventWorkerPool[str, int]:
        async def handle(event: int) -> None:
            raise ValueError

        pool = await busy(handle, on_failure=Retry(base=60, jitter="none"), clock=FakeClock())
        await until(lambda: pool.stats().retrying == 2)
        return pool

    pool = run(main)
    assert (by_key(pool.left, "a"), by_key(pool.left, "b")) == ([0, 2, 4], [1, 3, 5])
    assert "with 6 events not handled" in caplog.text


def test_a_loop_that_ends_refuses_the_adds_that_wait() -> None:
    outcomes: list[BaseException] = []

    async def add(pool: EventWorkerPool[str, int]) -> None:
        try:
            await pool.add("a", 9)
        except BaseException as error:
            outcomes.append(error)
            raise

    async def main() -> tuple[EventWorkerPool[str, int], asyncio.Task[None]]:
        pool = await busy(Gate(), max_backlog=4)
        await until(lambda: pool.stats().in_flight == 2)
        adding = asyncio.create_task(add(pool))
        await until(lambda: pool._core.adders)
        return pool, adding

    pool, _ = run(main)
    assert len(outcomes) == 1
    assert 9 not in [event for _, event in pool.left]
    assert pool.stats().added == 6
