"""The thread that reads the source and feeds the pool, and what it does with bad lines."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable, Iterable, Iterator
from typing import IO, Any, Final

from workpool.cli.keys import NoKey
from workpool.cli.output import say
from workpool.errors import HandlerError, PoolClosed
from workpool.sources.ndjson import BadLine, NdjsonSource

__all__ = ["BadLines", "Reader"]

_TOLD: Final = 10


class BadLineError(Exception):
    """A bad line that ends the reading, or that cannot be kept."""


class BadLines:
    """What becomes of bad lines: the first one ends the reading, or all are counted, told and kept.

    Args:
        skip: Go on after them.
        file: Where to keep them, as they were read; None to keep none.
    """

    def __init__(self, skip: bool, file: IO[bytes] | None = None) -> None:
        self.count: int = 0
        self._skip = skip
        self._file = file

    def take(self, source: str, line: BadLine) -> None:
        """Take one.

        Raises:
            BadLineError: The reading ends here.
        """
        self.count += 1
        message = f"{source}:{line.number}: {line.reason}"
        if not self._skip:
            raise BadLineError(message)
        if self._file is not None:
            try:
                self._file.write(line.raw)
                self._file.flush()  # A full disk is told now, and nothing that was kept is lost by a crash.
            except OSError as error:
                raise BadLineError(f"cannot keep bad lines in {self._file.name}: {error.strerror}") from error
        if self.count <= _TOLD:
            say(message)
        if self.count == _TOLD + 1:
            say("more bad lines follow; they are counted, and no longer shown")


class Reader:
    """Reads a source to its end, in a thread of its own, so that no blocked read makes the command deaf.

    The thread is a daemon: a read of standard input cannot be interrupted, and the process must not wait for it.

    Args:
        source: What to read.
        key_of: Finds the key of an event, or raises NoKey.
        feed: Adds events with their keys to the pool, each as it comes.
        bad_lines: Takes the lines that are no events, or have no key.
        ended: Set when the reading has ended, in any way.
    """

    def __init__(
        self,
        source: NdjsonSource,
        key_of: Callable[[Any], Hashable],
        feed: Callable[[Iterable[tuple[Hashable, Any]]], object],
        bad_lines: BadLines,
        ended: threading.Event,
    ) -> None:
        self.is_done: bool = False
        """The source was read to its end, and all its events are known."""
        self.trouble: str | None = None
        """Why the reading ended before the source did; said already. None where nothing is wrong with the source."""
        self._source, self._key_of, self._feed, self._bad_lines, self._ended = source, key_of, feed, bad_lines, ended
        self._thread = threading.Thread(target=self._read, name="workpool-reader", daemon=True)

    def start(self) -> None:
        """Begin to read."""
        self._thread.start()

    def _read(self) -> None:
        try:
            self._feed(self._events())
            self.is_done = True
        except (PoolClosed, HandlerError):
            pass  # The main thread closed the pool, or its handler failed; either is told elsewhere.
        except Exception as error:
            self.trouble = str(error) or type(error).__name__
            say(self.trouble)
        finally:
            self._source.close()
            self._ended.set()

    def _events(self) -> Iterator[tuple[Hashable, Any]]:
        """The events, each with its key."""
        for line in self._source:
            if isinstance(line, BadLine):
                self._bad_lines.take(self._source.name, line)
                continue
            try:
                key = self._key_of(line.event)
            except NoKey as error:
                self._bad_lines.take(self._source.name, BadLine(line.number, line.raw, str(error)))
                continue
            yield key, line.event
