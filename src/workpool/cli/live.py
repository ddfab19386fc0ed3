"""The live line: one line at the bottom of a terminal, under whatever else the process prints there."""

from __future__ import annotations

import sys
import threading
from types import TracebackType
from typing import Self, TextIO, cast

from rich.console import Console
from rich.control import Control
from rich.segment import ControlType

__all__ = ["LiveLine"]

_ERASE = Control(ControlType.CARRIAGE_RETURN, (ControlType.ERASE_IN_LINE, 2))


class LiveLine:
    """A line on standard error that is drawn again and again, where that is a terminal; else nothing.

    As a context manager it stands before standard error, and before standard output if that is a terminal too, and
    erases itself before each write: what handlers print keeps every byte, and the line stays below it. (rich's own
    live display prints for them instead: it reads their text as markup, breaks unfinished lines and, with writers on
    several threads, loses some.)
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()  # A __del__ that prints may come in between.
        self._console = Console(file=sys.stderr, highlight=False)
        self.is_shown = sys.stderr.isatty() and self._console.is_terminal and not self._console.is_dumb_terminal
        """Standard error is a terminal that can erase a line."""
        self._drawn = False
        self._column_0 = True
        self._streams = sys.stdout, sys.stderr

    def __enter__(self) -> Self:
        stdout, stderr = self._streams
        if self.is_shown:
            sys.stderr = cast("TextIO", _Above(self, stderr))
            if stdout.isatty():
                sys.stdout = cast("TextIO", _Above(self, stdout))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.erase()
        self.is_shown = False  # Loggers may have kept the streams that stand before the real ones.
        sys.stdout, sys.stderr = self._streams

    def draw(self, text: str) -> None:
        """Draw the line, cut where the terminal ends; not while a line above it is unfinished."""
        with self._lock:
            if self.is_shown and self._column_0:
                self._console.print(_ERASE, text, sep="", end="", markup=False, no_wrap=True, overflow="ellipsis")
                self._drawn = True

    def erase(self) -> None:
        """Take the line away until it is drawn again."""
        with self._lock:
            if self._drawn:
                self._console.control(_ERASE)
                self._drawn = False

    def write_above(self, stream: TextIO, text: str) -> int:
        """Write to a stream on the same terminal."""
        with self._lock:
            self.erase()
            if text:
                self._column_0 = text.endswith("\n")
            return stream.write(text)


class _Above:
    """Stands before a stream, and lets the live line know of each write."""

    def __init__(self, line: LiveLine, stream: TextIO) -> None:
        self._line = line
        self._stream = stream

    def write(self, text: str) -> int:
        return self._line.write_above(self._stream, text)

    def __getattr__(self, name: str) -> object:
        return getattr(self._stream, name)
