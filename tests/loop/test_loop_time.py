"""P3, P6 and P9 on a loop: time-outs, retries, the watchdog, and the turns that others get."""

from __future__ import annotations

import asyncio

import pytest

from on_loop import Gate, begin, on_loop, tasks, turns, until, workers
from workpool import Delivery, HandlerError, Park, Policy, Retry, RetryAfter, Skip
from workpool.asyncio import EventWorkerPool
from workpool.testing import FakeClock

pytestmark = pytest.mark.usefixtures("each_loop")


@on_loop
async def test_a_handler_that_takes_too_long_has_failed() -> None:
    pool: EventWorkerPool[str, int] = EventWorkerPool(Gate(), workers=1, timeout=0.001).start()
    await pool.add("a", 1)
    with pytest.raises(HandlerError, match="key 'a' raised TimeoutError") as caught:
        await pool.drain()
    assert isinstance(caught.value.__cause__, TimeoutError)
    assert pool.left == [("a", 1)]


@on_loop
async def test_it_is_cancelled_and_retried_by_the_same_worker_and_its_lane_is_freed_once() -> None:
    attempts: list[tuple[int, int]] = []
    cancelled: list[int] = []
    running = 0

    async def handle(event: int, delivery: Delivery) -> None:
        nonlocal running
        attempts.append((event, delivery.attempt))
        running += 1
        assert running == 1, "two deliveries of one key at once"
        try:
            if event == 1 and delivery.attempt < 3:
                await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.append(event)
            raise
        finally:
            running -= 1

    pool: EventWorkerPool[str, int] = EventWorkerPool(
        handle, workers=2, timeout=0.001, on_failure=Retry(base=0, retry_on=(TimeoutError,))
    ).start()
    before = workers()
    for event in range(1, 4):
        await pool.add("a", event)
    await until(lambda: pool.stats().handled == 3)
    assert workers() == before
    assert attempts == [(1, 1), (1, 2), (1, 3), (2, 1), (3, 1)]
    assert cancelled == [1, 1]
    await pool.drain()


@on_loop
async def test_one_that_returns_although_its_time_was_over_has_handled_its_event() -> None:
    handled: list[int] = []

    async def handle(event: int) -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            handled.append(event)

    async with EventWorkerPool[str, int](handle, workers=1, timeout=0.001) as pool:
        await pool.add("a", 1)
        await pool.add("a", 2)
    assert handled == [1, 2]


@on_loop
async def test_a_cancel_that_comes_with_a_time_out_is_a_cancel() -> None:
    """The handler takes its time over the one, and the other comes."""
    reached = asyncio.Event()
    released = asyncio.Event()

    async def handle(event: int) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            reached.set()
            await released.wait()

    pool: EventWorkerPool[str, int] = EventWorkerPool(handle, workers=1, timeout=0.001, on_failure=Skip()).start()
    await pool.add("a", 1)
    await reached.wait()
    workers()[0].cancel()
    await turns()
    assert (pool.left, pool.stats().dead) == ([("a", 1)], 0)


@on_loop
async def test_a_time_out_of_the_handlers_own_is_left_alone() -> None:
    handled: list[str] = []

    async def handle(event: int) -> None:
        try:
            async with asyncio.timeout(0.001):
                await asyncio.Event().wait()
        except TimeoutError:
            handled.append("in time")

    async with EventWorkerPool[str, int](handle, workers=1, timeout=30) as pool:
        await pool.add("a", 1)
        await pool.add("a", 2)
    assert handled == ["in time"] * 2


@on_loop
async def test_a_pool_without_a_time_out_of_its_own_sets_no_timer_for_a_delivery(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    gate = Gate()
    async with EventWorkerPool[str, int](gate, workers=1) as pool:
        monkeypatch.setattr("workpool.asyncio.asyncio.timeout", None)
        await pool.add("a", 1)
        await gate.inside()
        monkeypatch.undo()
        gate.open.set()
    assert gate.held == [1]


# Retries.


@pytest.mark.parametrize("fake", [True, False])
@on_loop
async def test_ten_thousand_keys_that_wait_for_a_retry_hold_no_task_and_one_timer(
    fake: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each is due before those that failed earlier, so that each sets the timer forward."""
    monkeypatch.setattr("workpool.driver._log.disabled", True)
    clock = FakeClock()
    failed: set[int] = set()

    async def handle(event: int) -> None:
        if event not in failed:
            failed.add(event)
            raise RetryAfter(3600 - event / 10)

    pool: EventWorkerPool[int, int] = EventWorkerPool(
        handle, workers=3, max_backlog=None, warn_after=None, clock=clock if fake else None
    )
    for event in range(10_000):
        pool.add_nowait(event, event)
    pool.start()
    await until(lambda: pool.stats().retrying == 10_000)
    await turns()
    assert len(tasks()) == 3
    scheduled = getattr(asyncio.get_running_loop(), "_scheduled", [])  # uvloop does not tell.
    timers = [timer for timer in scheduled if "_keep_time" in repr(timer) and not timer.cancelled()]
    assert len(timers) <= 1
    if fake:
        clock.advance(3600)
        await pool.drain()
        assert pool.stats().handled == 10_000
    else:
        assert len(await pool.stop()) == 10_000


@on_loop
async def test_a_retry_that_is_due_before_the_others_sets_the_timer_forward() -> None:
    """By the loop's own time: the first retry is an hour away, the second a moment."""
    attempts: list[int] = []

    async def handle(event: int) -> None:
        attempts.append(event)
        if attempts.count(event) == 1:
            raise RetryAfter(3600 if event == 1 else 0.001)

    pool: EventWorkerPool[str, int] = EventWorkerPool(handle, workers=1, warn_after=None).start()
    await pool.add("a", 1)
    await until(lambda: pool.stats().retrying == 1)
    await turns()
    await pool.add("b", 2)
    await until(lambda: pool.stats().handled == 1)
    assert attempts == [1, 2, 2]
    assert await pool.stop() == [("a", 1)]


@on_loop
async def test_a_retry_is_delivered_when_the_clock_says_so() -> None:
    clock = FakeClock()
    attempts: list[int] = []

    async def handle(event: int, delivery: Delivery) -> None:
        attempts.append(delivery.attempt)
        if delivery.attempt < 3:
            raise ValueError

    policy = Retry(base=10, jitter="none")
    pool: EventWorkerPool[str, int] = EventWorkerPool(handle, workers=1, on_failure=policy, clock=clock).start()
    await pool.add("a", 1)
    drained = begin(pool.drain())
    for attempt in (1, 2):
        await until(lambda: pool.stats().retrying)
        clock.advance(10 * attempt - 1)
        await turns()
        assert len(attempts) == attempt
        clock.advance(1)
        await turns()
    await drained
    assert attempts == [1, 2, 3]


@on_loop
async def test_a_clock_that_raises_fails_the_pool() -> None:
    class Broken(FakeClock):
        def pause(self, *arguments: object) -> float | None:
            raise OSError("no time")

    pool: EventWorkerPool[str, int] = EventWorkerPool(Gate(), workers=1, clock=Broken())
    pool.add_nowait("a", 1)
    pool.start()
    with pytest.raises(HandlerError, match="no time"):
        await pool.drain()
    assert pool.left == [("a", 1)]


# Turns.


@pytest.mark.parametrize("ends", ["returns", "is retried", "is skipped", "is parked"])
@on_loop
async def test_a_handler_that_never_awaits_does_not_starve_the_loop(ends: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever its deliveries end with, others get their turn after 64 of them."""
    deliveries = 0
    most = seen = 0
    policies: dict[str, Policy] = {"is skipped": Skip(), "is parked": Park()}
    policy = policies.get(ends, Retry(base=0, attempts=10**6))

    async def handle(event: int) -> None:
        nonlocal deliveries
        deliveries += 1
        assert deliveries < 100_000, "nobody else gets a turn"
        if ends != "returns":
            raise ValueError

    def look() -> None:
        nonlocal most, seen
        most, seen = max(most, deliveries - seen), deliveries

    monkeypatch.setattr("workpool.driver._log.disabled", True)
    pool: EventWorkerPool[int, int] = EventWorkerPool(handle, workers=1, on_failure=policy)
    for event in range(1000):
        pool.add_nowait(event, event)
    pool.start()
    while deliveries < 1000:
        await asyncio.sleep(0)
        look()
    for key in pool.parked():
        pool.resume(key)
    for _ in range(10):
        await asyncio.sleep(0)
        look()
    assert most <= 64
    await pool.stop()


@on_loop
async def test_a_worker_in_a_drain_that_finds_nothing_sleeps() -> None:
    """Another one is busy, and a key waits for its retry: it wakes nobody, not even itself, again and again."""
    gate = Gate()
    clock = FakeClock()
    failed: list[int] = []

    async def handle(event: int) -> None:
        if event == 0 and not failed:
            failed.append(event)
            raise ValueError
        await gate(event)

    policy = Retry(base=60, jitter="none")
    pool: EventWorkerPool[str, int] = EventWorkerPool(handle, workers=3, on_failure=policy, clock=clock).start()
    await pool.add("a", 0)
    await until(lambda: pool.stats().retrying)
    await pool.add("b", 1)
    await pool.add("b", 2)
    await gate.inside()
    drained = begin(pool.drain())
    clock.advance(60)
    await gate.inside(2)
    await turns()
    assert (len(pool._sleepers), pool._wakeups) == (1, 0)
    gate.open.set()
    await drained


# The watchdog.


@on_loop
async def test_a_handler_that_runs_for_long_is_logged_once_with_the_stack_of_its_coroutine(
    caplog: pytest.LogCaptureFixture,
) -> None:
    clock = FakeClock()
    gate = Gate()

    async def reserve_the_stock(event: int) -> None:
        await gate(event)

    async def handle(event: int) -> None:
        await reserve_the_stock(event)

    pool: EventWorkerPool[str, int] = EventWorkerPool(handle, workers=2, name="orders", warn_after=60, clock=clock)
    pool.start()
    await pool.add("a", 1)
    await gate.inside()
    for _ in range(10):
        clock.advance(30)
        await turns()
    [record] = [each for each in caplog.records if each.name == "workpool"]
    message = record.getMessage()
    assert message.startswith("pool 'orders': the handler of key 'a' has run for ")
    assert "in task workpool-orders-" in message
    lines = ["in handle", "in reserve_the_stock", "in __call__", "await self.open.wait()"]
    positions = [message.index(line) for line in lines]
    assert positions == sorted(positions)
    gate.open.set()
    await pool.drain()


@on_loop
async def test_so_it_is_with_a_time_out(caplog: pytest.LogCaptureFixture) -> None:
    clock = FakeClock()
    gate = Gate()
    pool: EventWorkerPool[str, int] = EventWorkerPool(gate, workers=1, timeout=30, warn_after=60, clock=clock).start()
    await pool.add("a", 1)
    await gate.inside()
    for _ in range(5):
        clock.advance(30)
        await turns()
    assert caplog.text.count("has run for") == 1
    assert "await self.open.wait()" in caplog.text
    gate.open.set()
    await pool.drain()


@on_loop
async def test_a_handler_that_returns_in_time_is_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    clock = FakeClock()
    gate = Gate()
    async with EventWorkerPool[str, int](gate, workers=1, warn_after=60, clock=clock) as pool:
        for event in range(5):
            gate.open.clear()
            await pool.add("a", event)
            await gate.inside(event + 1)
            clock.advance(30)
            await turns()
            gate.open.set()
            await until(lambda event=event: pool.stats().handled == event + 1)  # type: ignore[misc]
    assert not caplog.records
