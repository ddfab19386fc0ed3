"""What the workloads share: how much of everything, keys, and knowing when all is done."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Any

KEYS = [f"key-{number}" for number in range(1_000)]


@dataclass(frozen=True, slots=True)
class Scale:
    """How much of everything."""

    rounds: int
    short_rounds: int
    backlog_rounds: int
    latency_rounds: int
    workers: tuple[int, ...]
    backlogs: tuple[int, ...]
    events: int
    free_events: int
    peers_free_events: int
    paced_events: int
    sleeps: int
    waiting_events: int
    distinct_keys: int
    watched_events: int
    watched_rounds: int
    live_objects: int
    gone_objects: int


FULL = Scale(
    rounds=5,
    short_rounds=9,
    backlog_rounds=9,
    latency_rounds=11,
    workers=(1, 2, 8, 32, 256),
    backlogs=(0, 100, 1_000, 10_000, 100_000, 1_000_000),
    events=1_000_000,
    free_events=100_000,
    peers_free_events=10_000,
    paced_events=5_000,
    sleeps=10_000,
    waiting_events=100_000,
    distinct_keys=10_000_000,
    watched_events=20_000,
    watched_rounds=5,
    live_objects=10_000,
    gone_objects=1_000_000,
)
QUICK = Scale(
    rounds=2,
    short_rounds=3,
    backlog_rounds=2,
    latency_rounds=3,
    workers=(1, 8, 256),
    backlogs=(0, 1_000, 100_000, 1_000_000),
    events=200_000,
    free_events=20_000,
    peers_free_events=1_000,
    paced_events=2_000,
    sleeps=2_560,
    waiting_events=10_000,
    distinct_keys=300_000,
    watched_events=5_000,
    watched_rounds=1,
    live_objects=2_000,
    gone_objects=20_000,
)


def do_nothing(event: Any) -> None:
    pass


async def do_nothing_async(event: Any) -> None:
    pass


def spread_keys(count: int) -> list[str]:
    """1,000 keys in turn, as many as events."""
    return [KEYS[number % len(KEYS)] for number in range(count)]


class Tally:
    """Counts the events that were handled, and knows when they are all."""

    def __init__(self, expected: int) -> None:
        self._expected = expected
        self._handled: list[object] = []
        self._all = threading.Event()

    def count(self, event: object) -> None:
        self._handled.append(event)
        if len(self._handled) == self._expected:
            self._all.set()

    def await_all(self) -> int:
        """Wait until all are handled, or until no more are; return how many are not."""
        seen = -1
        while not self._all.wait(0.25) and seen != len(self._handled):
            seen = len(self._handled)
        return self._expected - len(self._handled)
