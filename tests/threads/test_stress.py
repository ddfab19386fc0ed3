"""Real threads under stress: random failures, calls by hand and endings, and a history that is held to the promises."""

from __future__ import annotations

import logging
import random
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

import pytest

from stress import play
from support import PATIENCE, adds_up, in_thread, wait
from workpool import (
    DrainIncomplete,
    EventWorkerPool,
    HandlerError,
    Park,
    ParkKey,
    Policy,
    PoolClosed,
    PoolFull,
    Retry,
    RetryAfter,
    Skip,
    SkipEvent,
)
from workpool.testing import History

POLICIES: list[Policy] = [
    Retry(attempts=3, base=0.0005), Retry(attempts=2, base=0, then=Skip()), Skip(), Park(),
]  # fmt: skip
OVER = (PoolClosed, HandlerError)


class Round:
    """One pool, from its start to its end at a random moment."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.events = events = rng.choice([20, 300, 3000, 20000])
        self.trouble = min(0.1, rng.choice([3, 30, 300]) / events)
        """What part of the deliveries fails. To wait, for a retry or for room, takes longer than all else."""
        self.keys = rng.choice([1, 5, 50, 1000])
        self.ending = rng.choice(["drain", "drain", "stop", "stop in a handler", "failure"])
        self.moment = rng.randrange(events)
        self.reached = threading.Event()
        self.delivered = 0
        self.history = History(patience=PATIENCE)
        self.pool = EventWorkerPool[int, Any](
            self.history.handler(self.handle),
            workers=rng.choice([1, 2, 4, 8, 32]),
            max_backlog=rng.choice([3, 50, 1000, None] if events < 20000 else [1000, None]),
            max_lane=rng.choice([1, 10, None]),
            max_dead=rng.choice([0, 10, None]),
            on_failure=rng.choice(POLICIES),
            warn_after=rng.choice([0.001, None]),
        )

    def handle(self, event: tuple[int, bool]) -> None:
        self.delivered += 1
        if self.delivered >= self.moment:
            self.reached.set()
            if self.ending == "stop in a handler":
                self.pool.stop()
            elif self.ending == "failure":
                raise SystemExit
        chance = self.rng.random()
        if chance < self.trouble / 5:
            raise self.rng.choice([RetryAfter(0), RetryAfter(0.0005), SkipEvent(), ParkKey()])
        if chance < self.trouble:
            raise ValueError
        if chance > 0.90 and event[1]:
            with suppress(*OVER):
                self.history.add(self.pool, self.rng.randrange(self.keys), (event[0], False))

    def produce(self, events: int) -> None:
        with suppress(*OVER):
            for event in range(events):
                with suppress(PoolFull, TimeoutError):
                    if event % 7:
                        self.history.add(self.pool, self.rng.randrange(self.keys), (event, True))
                    elif event % 2:
                        self.history.add(self.pool, self.rng.randrange(self.keys), (event, True), timeout=0.001)
                    else:
                        self.history.add_nowait(self.pool, self.rng.randrange(self.keys), (event, True))

    def act_by_hand(self, over: threading.Event) -> None:
        """Let go what is parked, so that producers come to an end, and do some harm in between."""
        calls: list[Callable[..., object]] = [self.history.resume] * 3 + [self.history.skip_head]
        while not over.wait(0.001):
            with suppress(*OVER):
                for key in self.pool.parked():
                    with suppress(ValueError):  # It is to be parked, and has not been yet.
                        self.rng.choice(calls)(self.pool, key)
                dead = self.pool.dead()
                if dead and self.rng.random() < 0.3:
                    with suppress(ValueError, PoolFull):
                        self.history.replay(self.pool, self.rng.choice(dead))
                if self.rng.random() < 0.3:
                    self.history.park(self.pool, self.rng.randrange(self.keys))
                self.pool.top(5, by=self.rng.choice(["depth", "age"]))

    def wait_for_producers(self, producers: list[Callable[[], Any]]) -> None:
        for done in producers:
            done()
        self.reached.set()

    def run(self) -> int:
        pool, over = self.pool, threading.Event()
        shares = self.rng.choice([1, 2, 4, 8])
        producers = [in_thread(partial(self.produce, self.events // shares)) for _ in range(shares)]
        by_hand = in_thread(partial(self.act_by_hand, over))
        pool.start()
        produced = in_thread(partial(self.wait_for_producers, producers))
        if self.ending == "stop":
            wait(self.reached)
            pool.stop(PATIENCE)
        produced()
        over.set()
        by_hand()
        with suppress(DrainIncomplete, HandlerError):
            pool.drain(PATIENCE)
        self.history.check(pool)
        stats = pool.stats()
        assert adds_up(stats)
        assert (stats.in_flight, stats.waiting, stats.keys) == (0, 0, 0)
        assert stats.returned == len(pool.left)
        return stats.added


def test_the_history_of_random_rounds_keeps_every_promise(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL + 1, "workpool")
    play(0.95, lambda rng: Round(rng).run())
