"""The time of a pool, and how long whoever waits for a time has to sleep."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Protocol

__all__ = ["Clock", "SystemClock"]


class Clock(Protocol):
    """What a pool reads its time from: the system's, or a fake one in tests."""

    def now(self) -> float:
        """Seconds since the epoch; it never goes back."""
        ...

    def pause(self, until: float, ring: Callable[[], None]) -> float | None:
        """How many seconds to sleep until then; None until `ring` is called, which may also come sooner."""
        ...


class SystemClock:
    """The system's monotonic clock, started at the wall's: it does not jump where that is set."""

    def __init__(self) -> None:
        self._start: float = time.time() - time.monotonic()

    def now(self) -> float:
        """Seconds since the epoch."""
        return self._start + time.monotonic()

    def pause(self, until: float, ring: Callable[[], None]) -> float | None:  # noqa: ARG002
        """The difference."""
        return max(0.0, until - self.now())
