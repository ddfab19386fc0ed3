"""The thirteen faults found in the original, and for each a test that holds the opposite."""

from __future__ import annotations

import threading
import weakref
from functools import partial
from typing import Any

import pytest

from support import (
    PATIENCE,
    Driver,
    Gate,
    eventually,
    has_adders,
    has_handled,
    in_thread,
    reference_only,
    threads_of_pools,
)
from workpool import HandlerError, PoolClosed, PoolFull


def test_the_calls_of_the_original_work_as_they_stood(driver: Driver) -> None:
    work_on = Gate()
    pool = driver.pool(work_on)
    pool.start(8)
    pool.add("ws-1", "pod added")
    work_on.wait_inside()
    work_on.open.set()
    pool.stop()
    assert pool.stats().handled == 1


def test_fault_01_stop_waits_for_workers_that_have_only_just_started(driver: Driver) -> None:
    started: list[threading.Thread] = []
    for _ in range(100):
        before = threads_of_pools()
        pool = driver.pool(print).start(8)
        started = [thread for thread in threads_of_pools() if thread not in before]
        pool.stop()
        assert not any(thread.is_alive() for thread in started)


def test_fault_02_an_add_around_a_stop_is_accepted_or_refused(driver: Driver) -> None:
    handled: list[int] = []
    pool = driver.pool(handled.append).start(4)

    def add_until_refused() -> int:
        for number in range(10**9):
            try:
                pool.add(number % 5, number)
            except PoolClosed:
                return number
        raise AssertionError

    adders = [in_thread(add_until_refused) for _ in range(4)]
    eventually(lambda: len(handled) > 100)
    left = pool.stop(PATIENCE)
    accepted = sum(done() for done in adders)
    assert accepted == len(handled) + len(left)


def test_fault_03_a_stop_can_give_up_discard_and_answer(driver: Driver) -> None:
    gate = Gate()
    pool = driver.pool(gate).start(1)
    pool.add("a", 1)
    pool.add("a", 2)
    gate.wait_inside()
    with pytest.raises(TimeoutError):
        pool.stop(timeout=0.01)
    gate.open.set()
    assert pool.stop() == [("a", 2)]


def test_fault_04_add_returns_on_acceptance_not_on_an_idle_worker(driver: Driver) -> None:
    gate = Gate()
    pool = driver.pool(gate).start(1)
    for event in range(100):
        pool.add(event, event)
    assert pool.stats().handled == 0
    gate.open.set()
    pool.drain(PATIENCE)


@pytest.mark.parametrize("workers", [2, 4, 8, 32])
def test_fault_05_add_inside_the_handler_does_not_deadlock(driver: Driver, workers: int) -> None:
    def handle(event: int) -> None:
        if event:
            pool.add("ws-1", event - 1)

    pool = driver.pool(handle, max_backlog=1).start(workers)
    for _ in range(workers):
        pool.add("ws-2", 50)
    pool.drain(PATIENCE)
    assert pool.stats().handled == workers * 51


def test_fault_06_stop_inside_the_handler_and_stop_twice(driver: Driver) -> None:
    def handle(event: int) -> None:
        pool.stop()

    pool = driver.pool(handle).start(2)
    pool.add("a", 1)
    eventually(partial(has_handled, pool, 1))
    assert pool.stop(PATIENCE) is pool.stop(PATIENCE)


@pytest.mark.parametrize("error", [RuntimeError("panic"), SystemExit()])
def test_fault_07_a_handler_that_raises_or_ends_its_thread_keeps_no_lane(driver: Driver, error: BaseException) -> None:
    def handle(event: int) -> None:
        raise error

    pool = driver.pool(handle).start(2)
    pool.add("a", 1)
    with pytest.raises(HandlerError):
        pool.drain(PATIENCE)
    assert pool.left == [("a", 1)]
    assert pool.stats().keys == 0


@reference_only
def test_fault_08_choosing_an_event_examines_none_that_is_blocked(driver: Driver) -> None:
    """Counted, not timed: test_p03_isolation counts the looks at keys, this one those at the backlog."""
    from collections import deque

    scans: list[str] = []

    class Ring(deque[Any]):
        def __getitem__(self, at: Any) -> Any:
            scans.append("item of a deque")
            return super().__getitem__(at)

        def __iter__(self) -> Any:
            scans.append("deque")
            return super().__iter__()

    class Lanes(dict[Any, Any]):
        def __iter__(self) -> Any:
            scans.append("dict")
            return super().__iter__()

        def keys(self) -> Any:
            scans.append("keys")
            return super().keys()

        def values(self) -> Any:
            scans.append("values")
            return super().values()

        def items(self) -> Any:
            scans.append("items")
            return super().items()

    gate = Gate()
    pool = driver.pool(lambda event: gate(event) if event is None else None, max_backlog=None).start(2)
    pool.add("stuck", None)
    gate.wait_inside()
    pool._core.ready = Ring()
    pool._core.lanes = Lanes(stuck=Ring())
    for _ in range(1_000):
        pool.add("stuck", 0)
    for event in range(100):
        pool.add(event, event)
    eventually(partial(has_handled, pool, 100))
    assert scans == []
    gate.open.set()
    pool.drain(PATIENCE)


def test_fault_09_a_handled_payload_is_not_reachable(driver: Driver) -> None:
    class Payload(bytearray):
        pass

    payloads: list[weakref.ref[Payload]] = []
    pool = driver.pool(lambda payload: None).start(4)
    for number in range(100):
        payload = Payload(64 * 1024)
        payloads.append(weakref.ref(payload))
        pool.add(number % 10, payload)
        del payload
    eventually(partial(has_handled, pool, 100))
    eventually(lambda: not any(ref() for ref in payloads))
    pool.drain(PATIENCE)


def test_fault_10_the_backlog_is_bounded(driver: Driver) -> None:
    """By 10,000 where nothing else is said: test_p07_backpressure fills it."""
    gate = Gate()
    pool = driver.pool(gate, max_backlog=100).start(1)
    pool.add("stuck", 0)
    gate.wait_inside()
    for event in range(100):
        pool.add("stuck", event)
    with pytest.raises(PoolFull):
        pool.add_nowait("stuck", 0)
    waiting = in_thread(lambda: pool.add("stuck", 0))
    eventually(partial(has_adders, pool))
    gate.open.set()
    waiting()
    pool.drain(PATIENCE)


def test_fault_11_no_start_blocks_adds_to_no_workers_or_half_works(driver: Driver) -> None:
    handled: list[int] = []
    pool = driver.pool(handled.append)
    with pytest.raises(ValueError, match="workers must be at least 1"):
        pool.start(0)
    pool.add("a", 1)
    pool.start(1)
    with pytest.raises(RuntimeError, match="started before"):
        pool.start(1)
    pool.drain(PATIENCE)
    assert handled == [1]
    with pytest.raises(PoolClosed, match="pool 'default' cannot be started: it is ended"):
        pool.start(1)


def test_fault_12_a_missing_handler_is_found_at_once(driver: Driver) -> None:
    with pytest.raises(TypeError, match="the handler must be callable, and None is not"):
        driver.pool(None)


def test_fault_13_the_order_test_can_fail() -> None:
    """The checker says so where order is broken; test_planted breaks the code and sees the suite fail."""
    from workpool.testing.checker import Kind, Record, order, read

    kinds: list[tuple[Kind, int]] = [
        ("add", 1), ("accepted", 1), ("add", 2), ("accepted", 2), ("start", 2), ("end", 2), ("start", 1), ("end", 1),
    ]  # fmt: skip
    records: list[Record] = [(kind, number, "a", 0) for kind, number in kinds]
    assert order(read(records)) == ["P2 order: event 2 of key 'a' started before the earlier event 1 had ended"]
    assert order(read(sorted(records, key=lambda record: record[1]))) == []
