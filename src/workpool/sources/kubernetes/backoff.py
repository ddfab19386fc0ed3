"""How long to wait after a failure (R13). Pure: the time and chance are arguments."""

from __future__ import annotations

import math
from typing import Final

__all__ = ["Backoff"]

LEAST: Final = 0.8
MOST: Final = 30.0
CALM: Final = 120.0
ASKED: Final = 300.0
"""The longest wait that a server can ask for: one that says a day, or whose clock is wrong, is not followed."""


class Backoff:
    """Waits that double from failure to failure, until two minutes have passed without one.

    A wait is between a base and its double, so that no two clients keep step; the base goes from 0.8 s to 15 s, and so
    each wait is from 0.8 s to 30 s, unless the server asks for a longer one, of five minutes at most.

    Source: client-go's reflector waits from 0.8 s, doubling, and forgets after two minutes.
    """

    __slots__ = ("_failures", "_over")

    def __init__(self) -> None:
        self._failures = 0
        self._over = -math.inf
        """When the last wait is over: a long one is no time of health."""

    def next(self, now: float, random: float, asked: float = 0.0) -> float:
        """Seconds to wait after a failure.

        Args:
            now: When it happened.
            random: A number from 0 to 1.
            asked: Seconds that the server asks for, at least.
        """
        if now - self._over >= CALM:
            self._failures = 0
        base = min(MOST / 2, LEAST * 2.0**self._failures)
        self._failures = min(self._failures + 1, 10)
        seconds = max(base * (1 + random), min(asked, ASKED))
        self._over = now + seconds
        return seconds
