"""One run: the reader feeds the pool, and the main thread watches both, ten times a second.

Nothing that may block is ever called here without a time-out, so a signal is heard whatever the other threads wait
for: a read of standard input, room in a full pool, or a handler that is stuck. A signal only leaves its number:

    reading --(source ended, bad line, a handler failed, 1st signal)--> draining --(2nd signal)--> stopping

and what a third one ends is the waiting for handlers in flight.
"""

from __future__ import annotations

import logging
import math
import signal
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable, Hashable
from types import FrameType
from typing import Any, Final

from workpool.cli.live import LiveLine
from workpool.cli.meter import Meter, MeteredIntake
from workpool.cli.output import Complaint, say, stdout_is_gone
from workpool.cli.progress import Progress
from workpool.cli.reader import BadLines, Reader
from workpool.cli.summary import Summary
from workpool.errors import HandlerError, StopTimeout
from workpool.handlers import Delivery, takes_delivery
from workpool.threads import EventWorkerPool

__all__ = ["Run"]

_TICK: Final = 0.1
"""Seconds between two looks at the signals and two drawings of the live line."""
_PATIENCE: Final = 5.0
"""Seconds to wait for the handlers in flight, once asked to stop."""
_SHOWN: Final = 5

_log = logging.getLogger("workpool")
_Event = tuple[int, Any]


class Run:
    """Handles the events of a source, once.

    Args:
        handler: The user's.
        reader: Reads the events.
        bad_lines: Takes what is no event, or has no key.
        workers: As for the pool.
        max_backlog: As for the pool.
    """

    def __init__(
        self,
        handler: Callable[..., object],
        reader: Reader,
        bad_lines: BadLines,
        *,
        workers: int | None,
        max_backlog: int | None,
    ) -> None:
        self.in_flight: list[Hashable] = []
        """Keys whose handlers had not returned when the run gave up waiting for them."""
        self._handler = handler
        self._takes_delivery = takes_delivery(handler)
        self._reader = reader
        self._bad_lines = bad_lines
        self._pool: EventWorkerPool[Hashable, _Event] = EventWorkerPool(
            self._handle, workers=workers, max_backlog=max_backlog, name="run"
        )
        self._meter = Meter()
        self._progress = Progress()
        self._over = threading.Event()
        """There is nothing more to read, or no more use in it."""
        self._signals: list[int] = []
        self._failures: list[BaseException] = []
        self._unheard: list[BaseException] = []
        """Failures that only say that standard output was closed early."""
        self._pool_error: HandlerError | None = None

    def __call__(self, line: LiveLine) -> Summary:
        """Run to the end.

        Raises:
            Complaint: There cannot be so many workers.
        """
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._take_signal)
        _log.addFilter(self._is_news)
        started = time.monotonic()
        try:
            self._pool.start()
        except (RuntimeError, OverflowError, MemoryError) as error:
            raise Complaint(f"cannot start {self._pool.workers:,} workers: {error}") from error
        self._reader.start(MeteredIntake(self._pool, self._meter), self._over)
        while not (self._over.wait(_TICK) or self._signals):
            self._draw(line)
        left = self._end(line)
        seconds = time.monotonic() - started
        if self._unheard:
            say("standard output was closed")
        if left:
            say(f"left, by key: {_count_by_key(left)}")
        if self.in_flight:
            say(f"given up, for their handlers have not returned, by key: {_count_by_key(self.in_flight)}")
        handled = self._pool.stats().handled
        return Summary(
            events=handled,
            keys=self._meter.keys,
            seconds=round(seconds, 3),
            events_per_second=round(handled / seconds, 1),
            deepest_lane=self._meter.deepest,
            overtakes=self._meter.overtakes,
            bad_lines=self._bad_lines.count,
            failed=len(self._failures),
            left=len(left),
            in_flight=len(self.in_flight),
        )

    @property
    def exit_code(self) -> int:
        """0 where all there was is handled; 1 for a fault; as a shell has them for signals, a closed pipe's too."""
        if self._unheard and not self._failures:
            return 128 + 13
        if self._failures or self._pool_error or self._reader.trouble:
            return 1
        return 128 + self._signals[0] if self._signals else 0

    def _take_signal(self, number: int, _frame: FrameType | None) -> None:
        self._signals.append(number)

    def _draw(self, line: LiveLine) -> None:
        if line.is_shown:
            known, deepest = self._reader.is_done, self._meter.deepest_now()
            line.draw(self._progress.text(self._pool.stats(), deepest, known=known, fraction=self._reader.fraction()))

    def _end(self, line: LiveLine) -> list[Hashable]:
        """Drain, or stop once a second signal asks for it. Returns the keys of the events that are left."""
        self._reader.stop()
        answered, deadline = 0, math.inf
        while True:
            signals, stats = len(self._signals), self._pool.stats()
            late = self._try(self._pool.stop if signals > 1 else self._pool.drain)
            # It is said only now, when the pool takes no more, so that whoever hears it can rely on it.
            if signals and not answered:
                say(f"draining {stats.waiting + stats.in_flight:,} events; Ctrl-C again to stop")
            if late is None:
                return [key for key, _ in self._pool.left]
            if signals > 1 and answered < 2:
                deadline = time.monotonic() + _PATIENCE
                say(f"stopping: up to {_PATIENCE:.0f} s for {stats.in_flight:,} in flight; Ctrl-C again to leave now")
            answered = signals
            self._draw(line)
            if isinstance(late, StopTimeout) and (signals > 2 or time.monotonic() > deadline):
                self.in_flight = list(late.in_flight)
                return [key for key, _ in late.left]

    def _try(self, ending: Callable[..., object]) -> TimeoutError | None:
        try:
            ending(timeout=_TICK)
        except HandlerError as error:
            self._pool_error = error  # Told already, on the worker's thread.
        except TimeoutError as late:
            return late
        return None

    # On the reader's thread and on the workers'.

    def _handle(self, numbered: _Event, delivery: Delivery) -> None:
        number, event = numbered
        self._meter.start(delivery.key, number)
        try:
            if self._takes_delivery:
                self._handler(event, delivery)
            else:
                self._handler(event)
        except BaseException as error:
            self._fail(delivery, error)
            raise
        self._meter.end(delivery.key)

    def _fail(self, delivery: Delivery, error: BaseException) -> None:
        """Tell of an event that failed: the first with its traceback, from the handler on, unless it is logged."""
        if isinstance(error, BrokenPipeError) and stdout_is_gone():
            self._unheard.append(error)
        else:
            self._failures.append(error)
            step = error.__traceback__
            if self._failures[0] is error and step is not None and not _log.hasHandlers():
                lines = traceback.format_exception(type(error), error, step.tb_next)
            else:
                lines = traceback.format_exception_only(error)
            say(f"the handler of key {delivery.key!r} raised at attempt {delivery.attempt}\n{''.join(lines).rstrip()}")
        self._over.set()

    def _is_news(self, record: logging.LogRecord) -> bool:
        """Leave the pool's record of a failure to the logging that the user set up; without any, it was told here."""
        told = record.exc_info and record.exc_info[1] in [*self._failures, *self._unheard]
        return not told or _log.hasHandlers()


def _count_by_key(keys: list[Hashable]) -> str:
    """The first few keys, each with how many events it has."""
    counts = Counter(keys)
    shown = ", ".join(f"{key!r} ({count:,})" for key, count in list(counts.items())[:_SHOWN])
    return shown + (f" and {len(counts) - _SHOWN:,} more" if len(counts) > _SHOWN else "")
