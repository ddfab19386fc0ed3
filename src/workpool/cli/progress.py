"""The text of the live line: how fast, how far, and how much at once."""

from __future__ import annotations

import time
from collections import deque

from workpool.records import Stats

__all__ = ["Progress"]


class Progress:
    """Puts the line together; the rate is that of the last twenty calls, which are two seconds."""

    def __init__(self) -> None:
        self._samples: deque[tuple[float, int]] = deque(maxlen=20)

    def text(self, stats: Stats, deepest: int, *, known: bool, fraction: float | None) -> str:
        """The line at this instant.

        Args:
            stats: The pool's counts.
            deepest: How many events the deepest lane has.
            known: The source is read to its end, so that what was added is the total.
            fraction: How much of the source has been read, until then; None where that is not known.
        """
        self._samples.append((time.monotonic(), stats.handled))
        (before, first), (now, last) = self._samples[0], self._samples[-1]
        rate = (last - first) / (now - before) if now > before else 0.0
        total = f" of {stats.added:,}" if known else ""
        read = f" ({fraction:.0%} read)" if fraction is not None and not known else ""
        return (
            f"{rate:,.0f}/s  {stats.handled:,}{total} handled{read}  {stats.in_flight} in flight  "
            f"{stats.waiting:,} waiting  {stats.keys:,} keys  deepest {deepest:,}"
        )
