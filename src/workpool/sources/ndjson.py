"""Newline-delimited JSON: one event a line, from a file (plain or `.gz`) or from standard input.

A line that is not JSON is handed on as a `BadLine` instead of being raised, so that whoever reads decides, and can go
on after it. A stream that breaks (a truncated `.gz`, a disk error) raises, because no next line can be found in it.
"""

from __future__ import annotations

import gzip
import json
import os
import stat
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final, NoReturn

from workpool.errors import SourceError

__all__ = ["MAX_LINE", "BadLine", "Line", "NdjsonSource"]

MAX_LINE: Final = 64 * 2**20
"""Bytes of the longest line that is read. A longer one is bad, and memory stays bounded."""


@dataclass(frozen=True, slots=True)
class Line:
    """A line and its event."""

    number: int
    """From 1; blank lines count, though they are skipped."""
    raw: bytes
    event: Any


@dataclass(frozen=True, slots=True)
class BadLine:
    """A line that is no event."""

    number: int
    raw: bytes
    """As it was read, its end included; of a line that is too long, the beginning."""
    reason: str
    """Why, in one line."""


class NdjsonSource:
    """The lines of one stream, once.

    Args:
        path: The file, which is unpacked where its name ends in `.gz`; `-` for standard input.
        max_line: Bytes of the longest line.

    Raises:
        OSError: The file cannot be opened.
    """

    def __init__(self, path: str, *, max_line: int = MAX_LINE) -> None:
        self.name: str = "<stdin>" if path == "-" else path
        self._max_line = max_line
        # Standard input gets a buffer of its own. A thread that is blocked in sys.stdin holds the lock of its buffer,
        # which the interpreter wants when it shuts down, and dies for.
        self._file: IO[bytes] = open(0, "rb", closefd=False) if path == "-" else Path(path).open("rb")  # noqa: SIM115
        self._lines: IO[bytes] | gzip.GzipFile = self._file
        if path.endswith(".gz"):
            self._lines = gzip.GzipFile(fileobj=self._file)
        status = os.fstat(self._file.fileno())
        self._size = status.st_size if stat.S_ISREG(status.st_mode) else 0

    def __iter__(self) -> Iterator[Line | BadLine]:
        """Read to the end.

        Raises:
            SourceError: The stream broke.
        """
        number = 1
        while raw := self._read(number):
            if len(raw) >= self._max_line and not raw.endswith(b"\n"):
                while not (rest := self._read(number)).endswith(b"\n") and rest:
                    pass
                yield BadLine(number, raw, f"longer than {self._max_line:,} bytes")
            elif not raw.isspace():
                yield _parse(number, raw)
            number += 1

    def fraction(self) -> float | None:
        """How much of a regular file has been read, by its bytes on disk; None where that is not known.

        It asks the descriptor and not the buffer, and so may be called while another thread reads.
        """
        try:
            return min(1.0, os.lseek(self._file.fileno(), 0, os.SEEK_CUR) / self._size) if self._size else None
        except (OSError, ValueError):
            return None  # It was closed in between.

    def close(self) -> None:
        """Close the file. Not while a thread may be reading it: this would wait for that."""
        self._lines.close()
        self._file.close()

    def _read(self, number: int) -> bytes:
        try:
            return self._lines.readline(self._max_line)
        except (OSError, EOFError, zlib.error) as error:
            raise SourceError(self.name, number, getattr(error, "strerror", None) or str(error)) from error


def _parse(number: int, raw: bytes) -> Line | BadLine:
    try:
        return Line(number, raw, _decode(raw.decode("utf-8-sig")))
    except json.JSONDecodeError as error:
        reason = f"not JSON: {error.msg} at column {error.colno}"
    except UnicodeDecodeError as error:
        reason = f"not UTF-8: {error.reason} at byte {error.start + 1}"
    except RecursionError:
        reason = "nested too deeply"
    except ValueError as error:  # A number with more digits than Python turns into one, or a constant.
        reason = str(error).partition(":")[0]
    return BadLine(number, raw, reason)


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not JSON")


_decode = json.JSONDecoder(parse_constant=_refuse).decode
