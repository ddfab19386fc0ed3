"""P5: a runnable event and an idle worker never stay side by side."""

from __future__ import annotations

import threading
from functools import partial

import pytest

from support import PATIENCE, Driver, eventually, has_handled, in_thread


@pytest.mark.parametrize("workers", [1, 2, 3, 8])
def test_each_of_as_many_events_as_workers_finds_one(driver: Driver, workers: int) -> None:
    """All have to be inside at once to get through: one worker that is not woken stops them all."""
    together = threading.Barrier(workers)
    with driver.pool(lambda event: together.wait(PATIENCE), workers=workers) as pool:
        for _ in range(20):
            for key in range(workers):
                pool.add(key, None)
            eventually(lambda: pool.stats().waiting == 0)


def test_events_that_come_one_by_one_to_an_idle_pool_are_all_handled(driver: Driver) -> None:
    handled = threading.Semaphore(0)
    pool = driver.pool(lambda event: handled.release(), workers=3).start()
    for event in range(1000):
        pool.add(event % 2, event)
        assert handled.acquire(timeout=PATIENCE), f"event {event} was never handled"
    pool.drain(PATIENCE)


def test_a_handler_that_adds_for_others_wakes_them(driver: Driver) -> None:
    """Each event adds two, which must run beside each other to end."""
    pairs: dict[int, threading.Barrier] = {n: threading.Barrier(2) for n in range(100)}

    def handle(event: tuple[str, int]) -> None:
        kind, number = event
        if kind == "pair":
            pairs[number].wait(PATIENCE)
        else:
            pool.add(("left", number), ("pair", number))
            pool.add(("right", number), ("pair", number))

    pool = driver.pool(handle, workers=2).start()
    for number in range(100):
        pool.add("root", ("root", number))
        eventually(partial(has_handled, pool, 3 * (number + 1)))
    pool.drain(PATIENCE)


def test_events_from_many_threads_at_once_are_all_handled(driver: Driver) -> None:
    handled: list[int] = []
    pool = driver.pool(handled.append, workers=8).start()
    for _ in range(50):
        together = threading.Barrier(8)

        def produce(number: int, together: threading.Barrier = together) -> None:
            together.wait(PATIENCE)
            pool.add(number, number)

        producers = [in_thread(partial(produce, number)) for number in range(8)]
        for done in producers:
            done()
        eventually(lambda: pool.stats().keys == 0)
    assert len(handled) == 400
    pool.drain(PATIENCE)
