"""The lock of a pool on threads: it knows its owner, is taken by giving way, and raises in a forked child.

*Giving way, not queueing up.* A thread that finds the lock taken gives up the interpreter and looks again. To sleep in
the lock instead would hand it from thread to thread at each event, with a context switch each time (a lock convoy): 2
to 4 times as long per event, and the longer the more workers.

*Its owner* (P11). A call that finds its own thread inside raises, before it takes anything. Taking the lock and being
its owner are one fact, so whoever is interrupted knows what to undo. That is done by `try` around explicit calls rather
than by `with`, whose exit an exception can skip.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from typing import ParamSpec, Protocol, TypeVar, cast

__all__ = ["Forked", "Mutex", "give_way", "make_mutex", "require_outside", "step"]

_P = ParamSpec("_P")
_R = TypeVar("_R")
_GIL: bool = getattr(sys, "_is_gil_enabled", lambda: True)()


class Mutex(Protocol):
    """A lock that knows its owner, as `threading.RLock` does."""

    def acquire(self, blocking: bool = True) -> bool:
        """Take it; whether it was free, where that is not waited for."""
        ...

    def release(self) -> None:
        """Give it back."""

    def _is_owned(self) -> bool: ...


class Forked:
    """Stands in for the mutex in a forked child, where no worker exists: every call takes it, and raises."""

    def acquire(self, blocking: bool = True) -> bool:  # noqa: ARG002
        """Refuse."""
        raise RuntimeError("this pool belongs to the parent process: its threads are not here after a fork")

    def release(self) -> None:
        """Refuse."""
        self.acquire()

    def _is_owned(self) -> bool:
        return self.acquire()


def make_mutex() -> Mutex:
    """A mutex that is free."""
    return cast("Mutex", threading.RLock())


def require_outside(mutex: Mutex) -> None:
    """Raise where this thread has the mutex already."""
    if mutex._is_owned():
        raise RuntimeError(
            "this thread is inside the pool already: a signal handler, a __del__ or a key's methods must not call it"
        )


def give_way(mutex: Mutex) -> None:
    """Take a mutex by looking again and again, with the interpreter given up in between."""
    if _GIL:
        for _ in range(1000):
            if mutex.acquire(False):
                return
            time.sleep(0)
    mutex.acquire()


def step(mutex: Mutex, transition: Callable[_P, _R], *args: _P.args, **kwargs: _P.kwargs) -> _R:
    """Call something with the mutex taken, from a thread that has not got it."""
    require_outside(mutex)
    try:
        if not mutex.acquire(False):
            give_way(mutex)
        result = transition(*args, **kwargs)
        mutex.release()
        return result
    except BaseException:
        if mutex._is_owned():
            mutex.release()
        raise
