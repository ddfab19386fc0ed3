"""Everything at once on a loop, and a history that is held to the promises."""

from __future__ import annotations

import asyncio
import logging
import random
from contextlib import suppress
from typing import Any

import pytest

from on_loop import begin, run, turns, workers
from stress import play
from support import PATIENCE
from workpool import DrainIncomplete, PoolClosed, Retry, Skip
from workpool.asyncio import EventWorkerPool
from workpool.testing import History

pytestmark = pytest.mark.usefixtures("each_loop")
ENDINGS = ["drain", "stop", "cancel", "handler"]


async def one_round(rng: random.Random, ending: str) -> int:
    """A pool with everything at once; how many events it was given."""
    history = History(patience=PATIENCE)
    keys = [f"k{number}" for number in range(rng.choice([1, 3, 20]))]

    async def handle(event: int) -> None:
        for _ in range(rng.choice([0, 0, 0, 1, 3])):
            await asyncio.sleep(0)
        if rng.random() < 0.05:
            raise ValueError
        if rng.random() < 0.1:
            await history.add(pool, rng.choice(keys), event)
        if ending == "handler" and rng.random() < 0.005:
            await pool.stop()

    pool: EventWorkerPool[Any, Any] = EventWorkerPool(
        history.handler(handle),
        workers=rng.choice([1, 2, 8]),
        max_backlog=rng.choice([1, 5, 50]),
        max_lane=rng.choice([None, None, 2]),
        timeout=rng.choice([None, PATIENCE]),
        on_failure=Retry(attempts=3, base=rng.choice([0, 0.001]), then=Skip()),
        max_dead=0,
    ).start()

    async def produce(seed: int) -> None:
        mine = random.Random(seed)
        try:
            for event in range(150):
                await history.add(pool, mine.choice(keys), event)
        except PoolClosed:
            pass

    def produce_from_thread(seed: int) -> None:
        mine = random.Random(seed)
        try:
            for event in range(50):
                history.add_from_thread(pool, mine.choice(keys), event)
        except PoolClosed:
            pass

    tasks = [begin(produce(rng.randrange(2**32))) for _ in range(4)]
    threads = [begin(asyncio.to_thread(produce_from_thread, rng.randrange(2**32))) for _ in range(2)]
    await turns(1 + rng.randrange(1000))
    tasks[0].cancel()
    await turns(rng.randrange(100))
    match ending:
        case "drain":
            await asyncio.gather(*tasks, *threads, return_exceptions=True)
            await pool.drain()
        case "stop":
            await pool.stop()
        case "cancel":
            rng.choice(list(pool._tasks)).cancel()
            await pool.stop()
        case _:
            await asyncio.gather(*tasks[1:], *threads, return_exceptions=True)
            with suppress(DrainIncomplete):
                await pool.drain()
    outcomes = await asyncio.gather(*tasks, *threads, return_exceptions=True)
    assert all(outcome is None for outcome in outcomes[1:]), outcomes
    tasks.clear()
    outcomes.clear()  # A cancelled one holds what it was about to add, and the loop holds that until its next turn.
    await turns()
    stats = pool.stats()
    assert stats.added == stats.handled + stats.dead + stats.returned
    assert not workers()
    history.check(pool)
    return stats.added


@pytest.mark.parametrize("ending", ENDINGS)
def test_whatever_comes_together_every_event_ends_once_and_in_order(
    ending: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger("workpool"), "disabled", True)
    play(0.05 / 2 / len(ENDINGS), lambda rng: run(lambda: one_round(rng, ending)))
