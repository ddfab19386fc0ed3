"""P1: an accepted event ends exactly once, in exactly one way."""

from __future__ import annotations

import random
import threading
from functools import partial
from typing import Any

import pytest

from support import PATIENCE, Driver, Gate, begin, in_thread
from workpool import EventWorkerPool, PoolClosed
from workpool.testing import History


def test_each_event_is_handled_once(driver: Driver) -> None:
    handled: list[int] = []
    with driver.pool(handled.append, workers=4) as pool:
        for event in range(1000):
            pool.add(event % 7, event)
    assert sorted(handled) == list(range(1000))


def test_the_same_object_added_twice_is_two_events(driver: Driver) -> None:
    handled: list[object] = []
    event = object()
    with driver.pool(handled.append) as pool:
        pool.add("a", event)
        pool.add("a", event)
        pool.add("b", event)
    assert handled == [event] * 3


def test_adds_before_the_start_wait_and_are_handled_then(driver: Driver) -> None:
    handled: list[int] = []
    pool = driver.pool(handled.append, workers=2)
    for event in range(10):
        pool.add("a", event)
    assert pool.stats().waiting == 10
    pool.start()
    pool.drain(PATIENCE)
    assert handled == list(range(10))


def test_a_stop_splits_what_was_accepted_into_handled_and_returned(driver: Driver) -> None:
    gate = Gate()
    handled: list[int] = []

    def handle(event: int) -> None:
        gate(event)
        handled.append(event)

    pool = driver.pool(handle, workers=2).start()
    for event in range(20):
        pool.add(event % 5, event)
    gate.wait_inside(2)
    stopped = begin(pool, "stop")
    gate.open.set()
    left = [event for _, event in stopped()]
    assert sorted(handled + left) == list(range(20))
    assert len(handled) == 2


def produce(pool: EventWorkerPool[Any, Any], history: History, number: int, together: threading.Barrier) -> int:
    """Add from one thread until the pool refuses; how many it accepted."""
    together.wait(PATIENCE)
    accepted = 0
    try:
        for event in range(200):
            history.add(pool, (number, event % 3), event)
            accepted += 1
    except PoolClosed:
        pass
    return accepted


@pytest.mark.parametrize("ending", ["drain", "stop"])
def test_adds_around_an_ending_are_accepted_or_refused_and_never_lost(driver: Driver, ending: str) -> None:
    """The original hung or lost events here: 2,758 of 70,622 adds."""
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    rng = random.Random(seed)
    for _ in range(30):
        history = History(patience=PATIENCE)
        pool = driver.pool(history.handler(lambda event: None), workers=4, max_backlog=rng.choice([1, 5, None])).start()
        together = threading.Barrier(5)

        producers = [in_thread(partial(produce, pool, history, number, together)) for number in range(4)]
        together.wait(PATIENCE)
        left = pool.stop(PATIENCE) if ending == "stop" else pool.drain(PATIENCE)
        accepted = sum(done() for done in producers)
        stats = pool.stats()
        assert stats.added == accepted == stats.handled + len(left or ())
        history.check(pool)
