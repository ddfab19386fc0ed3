"""P2: within one key an event starts after the one before has ended."""

from __future__ import annotations

import random
import sys
import threading
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest

from support import PATIENCE, Driver, in_thread
from workpool.testing import History


@pytest.fixture
def switching_often() -> Iterator[None]:
    """Let threads be switched wherever they can be."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def test_events_of_one_key_start_in_the_order_of_their_adds(driver: Driver) -> None:
    handled: dict[str, list[int]] = {"a": [], "b": [], "c": []}
    with driver.pool(lambda event: handled[event[0]].append(event[1]), workers=8) as pool:
        for number in range(900):
            pool.add("abc"[number % 3], ("abc"[number % 3], number))
    for at, key in enumerate("abc"):
        assert handled[key] == list(range(at, 900, 3))


def test_two_deliveries_of_one_key_never_overlap(driver: Driver) -> None:
    busy: dict[str, threading.Lock] = {key: threading.Lock() for key in "abcd"}
    overlaps: list[Any] = []

    def handle(key: str) -> None:
        if not busy[key].acquire(blocking=False):
            overlaps.append(key)
            return
        for _ in range(50):
            pass
        busy[key].release()

    with driver.pool(handle, workers=8) as pool:
        for number in range(2000):
            pool.add("abcd"[number % 4], "abcd"[number % 4])
    assert overlaps == []


def test_equal_keys_are_one_key_whatever_object_they_are(driver: Driver) -> None:
    handled: list[int] = []
    with driver.pool(handled.append, workers=4) as pool:
        for number in range(100):
            pool.add(("pod", float(number % 2)) if number % 3 else ("pod", number % 2), number)
    assert [n for n in handled if n % 2] == list(range(1, 100, 2))
    assert [n for n in handled if not n % 2] == list(range(0, 100, 2))


@pytest.mark.usefixtures("switching_often")
def test_order_holds_for_many_producers_and_adds_from_handlers(driver: Driver) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    history = History(patience=PATIENCE)

    def handle(event: tuple[int, int]) -> None:
        producer, number = event
        if number % 10 == 0:
            history.add(pool, ("from handler", producer), (producer, number + 1))

    pool = driver.pool(history.handler(handle), workers=6, max_backlog=50).start()

    def produce(producer: int) -> None:
        rng = random.Random(seed + producer)
        for number in range(500):
            history.add(pool, rng.randrange(12), (producer, number))

    producers = [in_thread(partial(produce, number)) for number in range(4)]
    for done in producers:
        done()
    pool.drain(PATIENCE)
    history.check(pool)
