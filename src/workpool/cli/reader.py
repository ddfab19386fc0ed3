"""The thread that reads a source and feeds the pool, and what becomes of bad lines."""

from __future__ import annotations

import abc
import threading
from collections.abc import Callable, Hashable, Iterator
from typing import IO, Any, Final

from workpool.cli.keys import NoKey
from workpool.cli.meter import MeteredIntake
from workpool.cli.output import say
from workpool.errors import HandlerError, PoolClosed
from workpool.sources.ndjson import BadLine, NdjsonSource

__all__ = ["BadLines", "NdjsonReader", "Reader"]

_TOLD: Final = 10


class BadLineError(Exception):
    """A bad line that ends the reading, or that cannot be kept."""


class BadLines:
    """What becomes of bad lines: the first one ends the reading, or all are counted, told and kept.

    Args:
        skip: Go on after them.
    """

    def __init__(self, skip: bool) -> None:
        self.count: int = 0
        self._skip = skip
        self._file: IO[bytes] | None = None

    def keep_in(self, file: IO[bytes] | None) -> None:
        """Say where to keep them, as they were read; None to keep none. Before the reading starts."""
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


class Reader(abc.ABC):
    """Reads a source, in a thread of its own, so that no blocked read makes the command deaf.

    The thread is a daemon: a read of standard input cannot be interrupted, and the process must not wait for it.
    """

    def __init__(self) -> None:
        self.is_done: bool = False
        """The source was read to its end, and all its events are known."""
        self.trouble: str | None = None
        """Why the reading ended before the source did; said already. None where nothing is wrong with the source."""

    def start(self, intake: MeteredIntake, ended: threading.Event) -> None:
        """Begin to read.

        Args:
            intake: Takes the events, each as it comes.
            ended: Set when the reading has ended, in any way.
        """
        threading.Thread(target=self._read, args=(intake, ended), name="workpool-reader", daemon=True).start()

    def stop(self) -> None:
        """Read no more, where the source can be told; else the pool refuses what still comes."""
        return

    def fraction(self) -> float | None:
        """How much of the source has been read; None where that is not known."""
        return None

    @abc.abstractmethod
    def _feed(self, intake: MeteredIntake) -> None:
        """Add all events."""

    def _close(self) -> None:
        """Let the source go."""
        return

    def _read(self, intake: MeteredIntake, ended: threading.Event) -> None:
        try:
            self._feed(intake)
            self.is_done = True
        except (PoolClosed, HandlerError):
            pass  # The main thread closed the pool, or its handler failed; either is told elsewhere.
        except Exception as error:
            self.trouble = str(error) or type(error).__name__
            say(self.trouble)
        finally:
            self._close()
            ended.set()


class NdjsonReader(Reader):
    """Reads lines.

    Args:
        source: What to read.
        key_of: Finds the key of an event, or raises NoKey.
        bad_lines: Takes the lines that are no events, or have no key.
    """

    def __init__(self, source: NdjsonSource, key_of: Callable[[Any], Hashable], bad_lines: BadLines) -> None:
        super().__init__()
        self._source, self._key_of, self._bad_lines = source, key_of, bad_lines

    def fraction(self) -> float | None:
        """How much of a regular file has been read."""
        return self._source.fraction()

    def _feed(self, intake: MeteredIntake) -> None:
        intake.add_many(self._events())

    def _close(self) -> None:
        self._source.close()

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
