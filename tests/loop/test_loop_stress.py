"""Everything at once on a loop, from one seed, and the history checker to hold it to P1 to P5."""

from __future__ import annotations

import asyncio
import logging
import random
import weakref
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import pytest

from on_loop import begin, on_loop, turns
from support import PATIENCE
from workpool import DrainIncomplete, PoolClosed, Retry, Skip
from workpool.asyncio import EventWorkerPool
from workpool.handlers import Delivery
from workpool.testing import History
from workpool.testing.history import Envelope

pytestmark = pytest.mark.usefixtures("each_loop")
ENDINGS = ["drain", "stop", "cancel", "handler"]


class LoopHistory(History):
    """A history of coroutine handlers, and of adds that are awaited."""

    def coroutine(self, handler: Callable[[Any], Awaitable[None]]) -> Callable[[Envelope[Any], Delivery], Any]:
        async def recording(envelope: Envelope[Any], delivery: Delivery) -> None:
            self._record("start", envelope.number, delivery.key)
            try:
                await handler(envelope.event)
            except BaseException:
                self._record("raised", envelope.number, delivery.key)
                raise
            self._record("end", envelope.number, delivery.key)

        return recording

    async def await_add(self, pool: EventWorkerPool[Any, Any], key: object, event: object) -> None:
        """Await an add. One that is cancelled may have been accepted or not."""
        envelope = Envelope(next(self._numbers), key, event)
        number = envelope.number
        self._envelopes.append(weakref.ref(envelope))
        self._record("add", number, key)
        adding = pool.add(key, envelope)
        del envelope
        try:
            await adding
        except Exception:
            self._record("refused", number, key)
            raise
        self._record("accepted", number, key)


class FromThread:
    """A pool, as a thread sees it."""

    def __init__(self, pool: EventWorkerPool[Any, Any]) -> None:
        self.pool = pool
        self.workers = pool.workers
        self.add = pool.add_from_thread
        self.add_nowait = pool.add_nowait
        self.stats, self.dead, self.replay = pool.stats, pool.dead, pool.replay
        self.park, self.resume, self.skip_head = pool.park, pool.resume, pool.skip_head

    @property
    def left(self) -> list[tuple[Any, Any]]:
        return self.pool.left


async def one_round(rng: random.Random, ending: str) -> int:
    """A pool with everything at once; how many events it was given."""
    history = LoopHistory(patience=PATIENCE)
    keys = [f"k{number}" for number in range(rng.choice([1, 3, 20]))]

    async def handle(event: int) -> None:
        for _ in range(rng.choice([0, 0, 0, 1, 3])):
            await asyncio.sleep(0)
        if rng.random() < 0.05:
            raise ValueError
        if rng.random() < 0.1:
            await history.await_add(pool, rng.choice(keys), event)
        if ending == "handler" and rng.random() < 0.005:
            await pool.stop()

    pool: EventWorkerPool[Any, Any] = EventWorkerPool(
        history.coroutine(handle),
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
                await history.await_add(pool, mine.choice(keys), event)
        except PoolClosed:
            pass

    def produce_from_thread(seed: int) -> None:
        mine = random.Random(seed)
        try:
            for event in range(50):
                history.add(FromThread(pool), mine.choice(keys), event)
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
    assert not pool._tasks
    violations = history.violations(FromThread(pool))
    broken = [line for line in violations if not is_dead(line)]
    assert len(violations) - len(broken) <= stats.dead, "events were lost"
    assert not broken, "\n".join(broken)
    return stats.added


def is_dead(line: str) -> bool:
    """The checker knows no events that were given up on, and takes them for lost ones."""
    return line.endswith("was accepted, handled 0 times and returned 0 times")


@pytest.mark.parametrize("ending", ENDINGS)
@on_loop
async def test_whatever_comes_together_every_event_ends_once_and_in_order(
    ending: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger("workpool"), "disabled", True)
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    rng = random.Random(seed)
    events = 0
    for _ in range(12):
        events += await one_round(rng, ending)
    assert events > 100
