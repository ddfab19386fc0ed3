"""What the command says, and how it leaves when a stream that it writes to is gone."""

from __future__ import annotations

import os
import select
import signal
import sys
import threading
from pathlib import Path
from typing import NoReturn

__all__ = [
    "Complaint",
    "flush_last",
    "leave_now",
    "open_closed_streams",
    "put",
    "restore_signals",
    "say",
    "stdout_is_gone",
]


class Complaint(Exception):
    """The caller's fault, in one line: the command prints it and exits with 2, before anything has started."""


def say(message: str, prefix: str = "workpool: ") -> None:
    """Print one message on standard error, if somebody can still read it."""
    try:
        print(f"{prefix}{message}", file=sys.stderr, flush=True)
    except OSError:
        _drop(2)


def open_closed_streams() -> None:
    """Give each standard stream that was closed when the process started to the null device.

    Each takes the lowest free descriptor, which is its own. Else the next file that is opened would get it, and what
    is meant for the stream would be written there.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open(mode))  # noqa: SIM115


def stdout_is_gone() -> bool:
    """Whether nobody reads our standard output any more, as after `| head`."""
    if not hasattr(select, "poll"):
        return False
    poll = select.poll()
    poll.register(1, 0)
    return any(found & (select.POLLERR | select.POLLHUP) for _, found in poll.poll(0))


def restore_signals() -> None:
    """Let signals end the process as they end any other: there is nothing left to save.

    A closed pipe is one of them. While handlers ran it was an error of theirs; what the process still writes, at its
    exit too, goes where nobody reads it.
    """
    for name in ("SIGINT", "SIGTERM", "SIGPIPE"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_DFL)


def put(text: str) -> bool:
    """Print on standard output, or say why that cannot be; whether it could."""
    try:
        print(text, end="", flush=True)
    except OSError as error:
        say(f"cannot write to standard output: {error.strerror}")
        _drop(1)
        return False
    return True


def flush_last() -> None:
    """Write what standard output still holds, or exit with 1. Called after all that prints at exit."""
    if not put(""):
        os._exit(1)  # An exit code cannot be changed any more in another way.


def leave_now(code: int) -> NoReturn:
    """Exit while a handler is still running.

    It may hold any lock, that of standard output included, and the interpreter's own way out would wait for it.
    """
    thread = threading.Thread(target=flush_last, daemon=True)
    thread.start()
    thread.join(1)
    os._exit(code)


def _drop(descriptor: int) -> None:
    """Give a stream that cannot be written to the null device: what it holds would be tried again at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), descriptor)
