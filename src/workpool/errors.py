"""Every error that workpool raises on purpose.

    WorkpoolError
    ├── PoolClosed        the caller's: an add or a start after drain() or stop()
    ├── PoolFull          the caller's: add_nowait() on a full pool
    ├── DrainIncomplete   the caller's: a drain() ended with events left, of parked keys or by a stop()
    ├── FlushIncomplete   the caller's: a flush() waits for a key that is parked
    ├── StopTimeout       the world's: a handler did not return in time (a TimeoutError too)
    ├── HandlerError      the handler's: it raised, and the pool stopped for it
    ├── BatchIncomplete   the handler's: it has done a part of its batch only
    ├── HandlerCancelled  the handler's: it raised a CancelledError that nobody had asked for
    ├── SourceError       the world's: a source cannot be read on
    └── KubernetesError   of a watch: its own tree is in workpool.sources.kubernetes.errors

The built-in ones keep their meaning: TypeError and ValueError for an argument that is wrong, TimeoutError for
a wait that was given up, RuntimeError for a call where none is possible (inside the pool, in a forked child, twice).
Facts are attributes; the message only tells them.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import Any

from workpool.arguments import count

__all__ = [
    "BatchIncomplete", "DrainIncomplete", "FlushIncomplete", "HandlerCancelled", "HandlerError", "PoolClosed",
    "PoolFull", "SourceError", "StopTimeout", "WorkpoolError",
]  # fmt: skip


class WorkpoolError(Exception):
    """The base of every error here: catch it to catch them all."""


class PoolClosed(WorkpoolError):
    """The pool takes no more: `drain()` or `stop()` was called. The event was not accepted; keep it."""


class PoolFull(WorkpoolError):
    """`add_nowait()` found `max_backlog` events waiting. The event was not accepted: drop it, or try later.

    Attributes:
        key: The blocked key with most events that wait; None where nothing waits for a blocked key.
        depth: How many of its events wait.
        why: What that key does: it is "in flight", "retrying" or "parked" (or "ready", where only its own lane is
            full).
    """

    def __init__(
        self, message: str = "", *, key: Hashable | None = None, depth: int = 0, why: str = "in flight"
    ) -> None:
        super().__init__(message)
        self.key = key
        self.depth = depth
        self.why = why

    def __str__(self) -> str:
        """The message, and where the backlog sits. Made when it is asked for: a key's `repr` is the user's code."""
        if not self.depth:
            return super().__str__()
        return (
            f"{super().__str__()}; {self.depth} of those that wait are of key {describe(self.key)}, which is {self.why}"
        )


class DrainIncomplete(WorkpoolError):
    """A `drain()` ended before everything was handled: only events of parked keys remained, or a `stop()` came.

    Attributes:
        left: The events that were not handled, as (key, event), in order within each key.
    """

    def __init__(self, message: str = "", *, left: Sequence[tuple[Any, Any]] = ()) -> None:
        super().__init__(message)
        self.left = left


class FlushIncomplete(WorkpoolError):
    """A `flush()` would wait for a key that is parked, until somebody resumes it.

    Attributes:
        key: That key.
    """

    def __init__(self, message: str = "", *, key: Hashable | None = None) -> None:
        super().__init__(message)
        self.key = key


class StopTimeout(WorkpoolError, TimeoutError):
    """`stop(timeout)` gave up waiting for the handlers in flight. A later `stop()` waits again.

    Attributes:
        left: The events that no handler holds, as (key, event), in order within each key.
        in_flight: The keys whose handlers had not returned.
    """

    def __init__(
        self, message: str = "", *, left: Sequence[tuple[Any, Any]] = (), in_flight: Sequence[Hashable] = ()
    ) -> None:
        super().__init__(message)
        self.left = left
        self.in_flight = in_flight


class HandlerError(WorkpoolError):
    """A handler raised and the failure policy stopped the pool; its exception is the `__cause__`.

    Each call on the failed pool raises a new one, so that no traceback grows from call to call.

    Attributes:
        key: The key of the event that failed.
        event: The event that failed. It heads its key in `left`.
        attempt: Which delivery of the event it was, from 1.
        left: The events that were not handled, as (key, event), in order within each key. Events still in flight are
            not in it; once the pool has ended, `pool.left` has them all.
    """

    def __init__(
        self,
        message: str = "",
        *,
        key: Hashable | None = None,
        event: Any = None,
        attempt: int = 1,
        left: Sequence[tuple[Any, Any]] = (),
    ) -> None:
        super().__init__(message)
        self.key = key
        self.event = event
        self.attempt = attempt
        self.left = left

    def __str__(self) -> str:
        """The message, and what was raised. Made when it is asked for: it is the user's code that tells."""
        cause = self.__cause__
        if cause is None:
            return super().__str__()
        return (
            f"{super().__str__()}: the handler of key {describe(self.key)} raised "
            f"{type(cause).__name__}: {describe(cause, str)}"
        )


class BatchIncomplete(WorkpoolError):
    """A handler of batches has done its first `done` events, and not the others: those have failed.

    It is what is raised for one that returns fewer than it was given; or raise it yourself, `from` the reason.

    Args:
        done: How many are done, from 0 to one less than there are.

    Raises:
        TypeError, ValueError: That is no such number.
    """

    def __init__(self, done: int) -> None:
        self.done: int = count("done", done, 0)
        super().__init__(done)
        self._reason: str | None = None

    def __str__(self) -> str:
        cause, reason = self.__cause__, self._reason
        if cause is not None and reason is None:
            reason = f": {type(cause).__name__}: {describe(cause, str)}"
        return f"the handler has done {self.done} events of its batch{reason or ''}"

    def __reduce__(self) -> tuple[Any, ...]:
        # A cause does not travel; its text does.
        return type(self), (self.done,), {"_reason": str(self).partition(" of its batch")[2]}


class HandlerCancelled(WorkpoolError):
    """A handler on a loop raised `CancelledError` although nobody had cancelled it: a failed attempt like any other."""


class SourceError(WorkpoolError):
    """A source cannot be read on: it is truncated, or the disk fails. What was read before stands.

    Attributes:
        source: The name of the source.
        line: The number of the line that could not be read.
        reason: Why, in one line.
    """

    def __init__(self, source: str, line: int, reason: str) -> None:
        super().__init__(f"{source}:{line}: cannot be read on: {reason}")
        self.source = source
        self.line = line
        self.reason = reason


def describe(thing: object, how: Callable[[object], str] = repr) -> str:
    """The text of something of the user's, for a message that has to come whatever that text does."""
    try:
        return how(thing)
    except Exception as error:
        return f"<{type(thing).__name__} whose {how.__name__} raised {type(error).__name__}>"
