"""What the command counts and the pool does not: distinct keys, lanes' depths, and who overtook whom."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Hashable, Iterable
from typing import Any, Final

from workpool.intake import Intake
from workpool.threads import EventWorkerPool

__all__ = ["MAX_KEYS", "Meter", "MeteredIntake"]

MAX_KEYS: Final = 1_000_000
"""Distinct keys are counted up to here. To count them is to keep them, and every buffer has a bound."""


class Meter:
    """Counts each event when it is added, when it starts and when it has ended. O(1) each, from any thread.

    Events are numbered in the order of the source. An event *overtakes* where it starts while one with a smaller
    number, of another key necessarily, has not started.
    """

    def __init__(self) -> None:
        self.deepest: int = 0
        """The most events that one key had at once, waiting (for room too) or in flight."""
        self.overtakes: int = 0
        self._lock = threading.Lock()
        self._number = 0
        self._keys: set[Hashable] = set()
        self._depths: dict[Hashable, int] = {}
        # Unlike a dict's, its first item is found at once, however many were taken out before it.
        self._not_started: OrderedDict[int, None] = OrderedDict()

    def add(self, key: Hashable) -> int:
        """Count an event that is about to be added, and number it.

        One that the pool then refuses stays counted: it refuses when it ends, and so that is the last one.
        """
        with self._lock:
            self._number += 1
            self._not_started[self._number] = None
            depth = self._depths[key] = self._depths.get(key, 0) + 1
            self.deepest = max(self.deepest, depth)
            return self._number

    def start(self, key: Hashable, number: int) -> None:
        """Count an event that starts."""
        with self._lock:
            if len(self._keys) < MAX_KEYS:
                self._keys.add(key)
            self.overtakes += next(iter(self._not_started)) != number
            del self._not_started[number]

    def end(self, key: Hashable) -> None:
        """Count an event that has ended."""
        with self._lock:
            self._depths[key] -= 1
            if not self._depths[key]:
                del self._depths[key]

    @property
    def keys(self) -> int:
        """Distinct keys of events that have started, or MAX_KEYS where there are as many or more."""
        return len(self._keys)

    def deepest_now(self) -> int:
        """The most events that one key has at this instant. O(active keys)."""
        with self._lock:
            return max(self._depths.values(), default=0)


class MeteredIntake(Intake[Hashable, tuple[int, Any]]):
    """The way into the pool of a run: it counts and numbers each event."""

    def __init__(self, pool: EventWorkerPool[Hashable, tuple[int, Any]], meter: Meter) -> None:
        super().__init__(pool)
        self._meter = meter

    def add(self, key: Hashable, event: Any) -> bool:
        """Add an event."""
        return super().add(key, (self._meter.add(key), event))

    def add_many(self, pairs: Iterable[tuple[Hashable, Any]]) -> bool:
        """Add events."""
        return super().add_many((key, (self._meter.add(key), event)) for key, event in pairs)
