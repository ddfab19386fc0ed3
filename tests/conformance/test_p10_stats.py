"""P10: the counts add up at any instant."""

from __future__ import annotations

import random

import pytest

from support import PATIENCE, Driver, eventually, in_thread
from workpool import HandlerError, Stats


def holds(stats: Stats) -> bool:
    ended = stats.handled + stats.dead + stats.returned + stats.merged + stats.cancelled
    return (
        stats.added == ended + stats.in_flight + stats.waiting
        and stats.waiting == stats.queued + stats.delayed + stats.retrying + stats.parked
        and stats.waiting + stats.in_flight >= stats.keys
    )


@pytest.mark.parametrize("ending", ["drain", "stop", "failure"])
def test_they_add_up_while_events_come_and_go(driver: Driver, ending: str) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    rng = random.Random(seed)
    wrong: list[Stats] = []

    def handle(event: int) -> None:
        if not holds(stats := pool.stats()):
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
    assert holds(stats)
    assert (stats.in_flight, stats.waiting, stats.keys) == (0, 0, 0)
    assert stats.returned == len(pool.left)


def test_each_place_is_counted(driver: Driver) -> None:
    pool = driver.pool(print)
    pool.add("a", 1)
    pool.add("a", 2)
    pool.add("b", 3)
    assert pool.stats() == Stats(added=3, handled=0, returned=0, in_flight=0, waiting=3, queued=3, keys=2)
    pool.stop()
    assert pool.stats() == Stats(added=3, handled=0, returned=3, in_flight=0, waiting=0, queued=0, keys=0)
