"""P7: the backlog is bounded, and who adds to a full pool waits, in turn."""

from __future__ import annotations

import threading
from functools import partial
from typing import Any

import pytest

from support import PATIENCE, Driver, Gate, eventually, has_adders, has_handled, in_thread
from workpool import EventWorkerPool, PoolFull


def full_pool(driver: Driver, gate: Gate, bound: int = 2) -> EventWorkerPool[Any, Any]:
    """One worker that stands still, and as many events behind it as may wait."""
    pool: EventWorkerPool[Any, Any] = driver.pool(gate, workers=1, max_backlog=bound).start()
    pool.add("held", -1)
    gate.wait_inside()
    for event in range(bound):
        pool.add("held", event)
    return pool


def test_the_bound_has_a_default_and_can_be_lifted(driver: Driver) -> None:
    pool = driver.pool(print)
    for event in range(10_000):
        pool.add_nowait("a", event)
    with pytest.raises(PoolFull, match="max_backlog=10000"):
        pool.add_nowait("a", 0)
    assert len(pool.stop()) == 10_000
    pool = driver.pool(print, max_backlog=None)
    for event in range(10_001):
        pool.add_nowait("a", event)
    assert len(pool.stop()) == 10_001


def test_add_nowait_on_a_full_pool_has_not_accepted(driver: Driver) -> None:
    gate = Gate()
    pool = full_pool(driver, gate)
    with pytest.raises(PoolFull):
        pool.add_nowait("other", 9)
    assert pool.stats().added == 3
    gate.open.set()
    pool.drain(PATIENCE)


@pytest.mark.parametrize("timeout", [0, 0.01])
def test_add_with_a_time_out_gives_up_and_has_not_accepted(driver: Driver, timeout: float) -> None:
    gate = Gate()
    pool = full_pool(driver, gate)
    with pytest.raises(TimeoutError, match=f"2 of those that wait are of key 'held'.*given up after {timeout} s"):
        pool.add("other", 9, timeout=timeout)
    assert pool.stats().added == 3
    gate.open.set()
    pool.drain(PATIENCE)
    assert pool.stats().handled == 3


def test_add_waits_for_acceptance_and_not_for_a_worker(driver: Driver) -> None:
    """The original returned half of its adds only after their own event was handled."""
    gate = Gate()
    pool = driver.pool(gate, workers=1, max_backlog=100).start()
    for event in range(50):
        pool.add("a", event)
    assert pool.stats().handled == 0
    gate.open.set()
    pool.drain(PATIENCE)


def test_waiting_adds_are_let_in_first_come_first_served(driver: Driver) -> None:
    gate = Gate()
    handled: list[object] = []

    def handle(event: object) -> None:
        gate(event)
        handled.append(event)

    pool = driver.pool(handle, workers=1, max_backlog=2).start()
    pool.add("held", -1)
    gate.wait_inside()
    pool.add("held", 0)
    pool.add("held", 1)
    waiting = []
    for event in range(2, 8):
        waiting.append(in_thread(partial(pool.add, "held", event)))
        eventually(partial(has_adders, pool, event - 1))
    gate.open.set()
    for done in waiting:
        done()
    pool.drain(PATIENCE)
    assert handled == list(range(-1, 8))


def test_waiting_adds_go_on_at_half_of_the_bound(driver: Driver) -> None:
    steps = threading.Semaphore(0)
    pool = driver.pool(lambda event: steps.acquire(timeout=PATIENCE), workers=1, max_backlog=8).start()
    pool.add("a", 0)
    eventually(lambda: pool.stats().in_flight == 1)
    for event in range(8):
        pool.add("a", event)
    waiting = in_thread(lambda: pool.add("a", 8))
    eventually(partial(has_adders, pool))
    for handled in (1, 2, 3):
        steps.release()
        eventually(partial(has_handled, pool, handled))
        assert pool.stats().added == 9, "there is room, and it is kept until half is free"
    steps.release()
    waiting()
    assert pool.stats().added == 10
    for _ in range(20):
        steps.release()
    pool.drain(PATIENCE)


@pytest.mark.parametrize("workers", [1, 2, 8])
def test_a_handler_that_adds_never_waits(driver: Driver, workers: int) -> None:
    """The original deadlocked in 200 of 200 runs."""
    handled: list[int] = []

    def handle(event: int) -> None:
        handled.append(event)
        if event < 40:
            pool.add(event % 3, event + 20)
            pool.add("all", event + 100)

    pool = driver.pool(handle, workers=workers, max_backlog=1).start()
    for event in range(20):
        pool.add(event % 3, event)
    pool.drain(PATIENCE)
    assert len(handled) == 20 + 2 * 40


def test_a_handler_of_another_pool_is_outside_and_waits(driver: Driver) -> None:
    gate = Gate()
    first = full_pool(driver, gate)
    second = driver.pool(lambda event: first.add("from outside", event), workers=1).start()
    second.add("a", 9)
    eventually(partial(has_adders, first))
    gate.open.set()
    second.drain(PATIENCE)
    first.drain(PATIENCE)
    assert first.stats().handled == 4


def test_a_producer_much_faster_than_the_pool_is_held_to_the_bound(driver: Driver) -> None:
    most = 0

    def handle(event: int) -> None:
        nonlocal most
        most = max(most, pool.stats().waiting)

    pool = driver.pool(handle, workers=2, max_backlog=10).start()
    for event in range(1000):
        pool.add(event % 5, event)
    pool.drain(PATIENCE)
    assert most <= 10


def test_who_adds_a_key_that_cannot_be_hashed_to_a_full_pool_hears_of_it_at_once(driver: Driver) -> None:
    gate = Gate()
    pool = full_pool(driver, gate)
    for add in (pool.add, pool.add_nowait):
        with pytest.raises(TypeError, match=r"a key must be hashable, and \[\] is not"):
            add([], 9)
    assert has_adders(pool, 0)
    gate.open.set()
    pool.drain(PATIENCE)
    assert pool.stats().added == pool.stats().handled == 3


@pytest.mark.parametrize("error", [OSError("broken"), TypeError("broken")])
def test_a_key_that_raises_when_it_is_let_in_is_its_adders_alone(driver: Driver, error: Exception) -> None:
    """The worker that compares it goes on, and so do those who wait behind it."""

    class Key:
        def __hash__(self) -> int:
            return hash("held")

        def __eq__(self, other: object) -> bool:
            raise error

    gate = Gate()
    pool = full_pool(driver, gate, 4)
    adders = []
    for key in ("before", Key(), "after"):
        adders.append(in_thread(partial(pool.add, key, 9)))
        eventually(partial(has_adders, pool, len(adders)))
    gate.open.set()
    before, broken, after = adders
    before()
    with pytest.raises(type(error), match="broken"):
        broken()
    after()
    pool.drain(PATIENCE)
    assert pool.stats().added == pool.stats().handled == 7
