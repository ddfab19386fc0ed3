"""A clock for tests: it stands still until it is told to go on, so that no test waits for a time to pass."""

from __future__ import annotations

import threading
from collections.abc import Callable

__all__ = ["FakeClock"]


class FakeClock:
    """A pool's clock that a test moves.

        clock = FakeClock()
        with EventWorkerPool(handle, on_failure=Retry(base=60), clock=clock) as pool:
            pool.add("a", 1)
            ...                      # wait until the handler has failed
            clock.advance(60)        # its retry is due

    Args:
        now: What it shows at first, in seconds since the epoch.

    Prior art: trio's MockClock, which stands still too until it is moved.
    """

    def __init__(self, now: float = 0.0) -> None:
        self._now: float = now
        self._sleepers: list[tuple[float, Callable[[], None]]] = []
        self._mutex: threading.Lock = threading.Lock()

    def now(self) -> float:
        """What it shows."""
        return self._now

    def pause(self, until: float, ring: Callable[[], None]) -> float | None:
        """Until it is moved: no time passes by itself."""
        with self._mutex:
            if self._now >= until:
                return 0.0
            self._sleepers.append((until, ring))
            return None

    def advance(self, seconds: float) -> None:
        """Move it on, and call whoever waits for a time that has come."""
        with self._mutex:
            self._now += seconds
            due = [ring for until, ring in self._sleepers if until <= self._now]
            self._sleepers = [sleeper for sleeper in self._sleepers if sleeper[0] > self._now]
        for ring in due:
            ring()
