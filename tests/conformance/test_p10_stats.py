"""P10: the counts add up at any instant."""

from __future__ import annotations

import random
from contextlib import suppress
from functools import partial

import pytest

from support import PATIENCE, Driver, adds_up, eventually, in_thread
from workpool import DrainIncomplete, HandlerError, ParkKey, PoolFull, Retry, RetryAfter, Skip, SkipEvent, Stats


@pytest.mark.parametrize("ending", ["drain", "stop", "failure"])
def test_they_add_up_while_events_come_and_go(driver: Driver, ending: str) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    rng = random.Random(seed)
    wrong: list[Stats] = []

    def handle(event: int) -> None:
        if not adds_up(stats := pool.stats()):
            wrong.append(stats)
        if event % 50 == 7:
            pool.add(rng.randrange(9), 1)
        if ending == "failure" and event == 900:
            raise ValueError

    pool = driver.pool(handle, workers=4, max_backlog=20).start()

    def produce() -> None:
        for event in range(1000):
            pool.add(rng.randrange(9), event)

    done = in_thread(produce)
    if ending == "failure":
        with pytest.raises(HandlerError):
            done()
        eventually(lambda: "ended" in repr(pool))
    else:
        done()
        getattr(pool, ending)(PATIENCE)
    assert wrong == []
    stats = pool.stats()
    assert adds_up(stats)
    assert (stats.in_flight, stats.waiting, stats.keys) == (0, 0, 0)
    assert stats.returned == len(pool.left)


@pytest.mark.parametrize("ending", ["drain", "stop"])
def test_they_add_up_while_events_fail_and_keys_are_held(driver: Driver, ending: str) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    rng = random.Random(seed)
    wrong: list[Stats] = []

    def handle(event: int) -> None:
        if not adds_up(stats := pool.stats()):
            wrong.append(stats)
        if rng.random() < 0.3:
            raise rng.choice([ValueError(), RetryAfter(0), SkipEvent(), ParkKey()])

    policy = Retry(attempts=3, base=0.001, then=Skip())
    pool = driver.pool(handle, workers=4, max_backlog=50, max_lane=20, max_dead=10, on_failure=policy).start()

    def add(event: int) -> bool:
        try:
            pool.add(rng.randrange(9), event, timeout=0.01)
            return True
        except TimeoutError:
            for key in pool.parked():
                rng.choice([pool.resume, pool.skip_head])(key)
            with suppress(PoolFull, ValueError):  # Newer ones may have taken its place.
                for dead in pool.dead():
                    pool.replay(dead)
            return False

    for event in range(1000):
        eventually(partial(add, event))
    if ending == "stop":
        pool.stop(PATIENCE)
    else:
        with suppress(DrainIncomplete):
            pool.drain(PATIENCE)
    assert wrong == []
    stats = pool.stats()
    assert adds_up(stats)
    assert (stats.in_flight, stats.waiting, stats.keys) == (0, 0, 0)
    assert stats.returned == len(pool.left)
    assert stats.dead - stats.replayed - stats.dead_forgotten == len(pool.dead())


def test_each_place_is_counted(driver: Driver) -> None:
    pool = driver.pool(print)
    pool.add("a", 1)
    pool.add("a", 2)
    pool.add("b", 3)
    assert pool.stats() == Stats(added=3, handled=0, returned=0, in_flight=0, waiting=3, queued=3, keys=2)
    pool.stop()
    assert pool.stats() == Stats(added=3, handled=0, returned=3, in_flight=0, waiting=0, queued=0, keys=0)
