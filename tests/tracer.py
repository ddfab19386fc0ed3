"""Cuts what runs at any line of the package (P11).

The tracer raises at one line that runs, then at the next one in another run, until a run meets no more lines.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from linecache import getline
from pathlib import Path
from types import FrameType
from typing import Any

import workpool
from support import PATIENCE
from workpool import HandlerError

PACKAGE = str(Path(workpool.__file__).parent)
TESTING = str(Path(workpool.__file__).parent / "testing")
"""Help for tests is not cut: the fake clock has a lock of its own."""


class Cut(BaseException):
    """What comes in between."""


class Tracer:
    """Raises `Cut` once, at the given number of lines of the package after it was armed.

    Lines that only say `try:` are passed over: they do nothing, so that nothing but a tracer can raise there, and no
    clause covers them, not even that of a `try` around it.
    """

    def __init__(self, at: int, counts: Callable[[], bool] = lambda: True) -> None:
        self.at, self.lines, self.armed, self.where = at, 0, False, ""
        self.counts = counts

    def __call__(self, frame: FrameType, event: str, argument: Any) -> Any:
        if not frame.f_code.co_filename.startswith(PACKAGE) or frame.f_code.co_filename.startswith(TESTING):
            return None
        if event == "line" and self.armed and getline(frame.f_code.co_filename, frame.f_lineno).strip() != "try:":
            self.lines += self.counts()
            if self.lines == self.at:
                self.armed = False
                self.where = f"{frame.f_code.co_qualname}:{frame.f_lineno}"
                raise Cut(self.where)
        return self


def cut_calls(call: Callable[[], object], at: int) -> tuple[bool, str]:
    """Make a call that is cut at one line; whether there was such a line, and where."""
    tracer = Tracer(at)
    sys.settrace(tracer)
    tracer.armed = True
    try:
        call()
    except Cut:
        pass
    finally:
        tracer.armed = False
        sys.settrace(None)
    return bool(tracer.where), tracer.where


def start_traced(pool: Any, tracer: Tracer) -> None:
    """Start a pool whose threads the tracer watches."""
    before = threading.gettrace()
    threading.settrace(tracer)
    try:
        pool.start()
    finally:
        threading.settrace(before)


def run_cut(pool: Any, tracer: Tracer) -> BaseException | None:
    """Start a pool whose threads the tracer watches, and drain it; what failed it, if anything did."""
    start_traced(pool, tracer)
    try:
        pool.drain(PATIENCE)
    except HandlerError as error:
        return error.__cause__
    return None
