"""One call of `flush`: how somebody waits for what a pool has at a moment, while it goes on.

Each key that has events then gets a mark, behind the last of them. The call is over when all marks are reached: what is
added meanwhile is behind them, so that a pool which is never idle can be flushed.
"""

from __future__ import annotations

from collections.abc import Iterable
from time import monotonic
from types import TracebackType
from typing import Any, Generic, Self

from workpool.errors import FlushIncomplete, describe
from workpool.lanes import NOTHING, E, K
from workpool.pool import Pool
from workpool.records import State

__all__ = ["Flush"]


class Flush(Generic[K, E]):
    """Marks the keys on entering, and takes the marks back on leaving. In between, whoever waits sleeps at the bell.

    Args:
        pool: What is flushed.
        key: The key whose events are waited for; NOTHING for those of all keys.
        bell: A gate: it is told when the last mark is reached, when a key is parked, and when the pool closes.
        timeout: How many seconds to wait at most; None for as long as it takes.

    Raises:
        RuntimeError: On entering: a handler of the pool calls, or the pool was never started and events wait.
    """

    def __init__(self, pool: Pool[K, E], key: K, bell: Any, timeout: float | None) -> None:
        self._pool = pool
        self._key = key
        self._bell = bell
        self._timeout = timeout
        self._end = None if timeout is None else monotonic() + timeout
        self._marks: dict[K, _Mark] = {}
        self._pending: set[int] = set()
        """The numbers of those that are not reached: a key is not compared where a mark is."""

    def __enter__(self) -> Self:
        if self._pool._is_inside():
            raise RuntimeError("flush() in a handler would wait for the handler's own event")
        try:
            self._pool._step(self._make_marks)
            return self
        except BaseException:
            self._pool._step(self._take_back)
            raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            self._pool._step(self._take_back)
        except BaseException:
            self._pool._step(self._take_back)  # Once more, where it was cut short.
            raise

    def is_over(self) -> bool:
        """Whether all has ended that there was.

        Raises:
            FlushIncomplete: One of the keys is parked.
            PoolClosed, HandlerError: The pool was stopped, or has failed, with events left.
        """
        return self._pool._step(self._look)

    def patience(self) -> float | None:
        """How many seconds are left; None for as long as it takes."""
        return None if self._end is None else max(0.0, self._end - monotonic())

    def late(self) -> TimeoutError:
        """What to raise when they are over."""
        waiting = [key for key, mark in self._marks.items() if mark.number in self._pending]
        first = f", {describe(waiting[0])} among them" if waiting else ""
        return TimeoutError(
            f"pool {self._pool._core.name!r} was not flushed in {self._timeout:.3g} s: "
            f"of what it had, events of {len(waiting)} keys have not ended{first}"
        )

    # Steps: each is called with the mutex taken.

    def _make_marks(self) -> None:
        core = self._pool._core
        core.audience.append(self._bell)
        core.lookouts.append(self._bell)
        for key in [key for key, _ in core.all_lanes()] if self._key is NOTHING else [self._key]:
            mark = self._marks[key] = _Mark(self, len(self._marks))
            self._pending.add(mark.number)  # First: cut after the mark is made, it has to be taken back.
            if not core.mark(key, mark):
                self._pending.discard(mark.number)
        if self._pending and self._pool._starter is None:
            raise RuntimeError(
                f"pool {core.name!r} cannot be flushed: it was never started, and events wait; start() it"
            )

    def _take_back(self) -> None:
        core = self._pool._core
        for gates in (core.audience, core.lookouts):
            if self._bell in gates:
                gates.remove(self._bell)
        for key, mark in self._marks.items():
            if mark.number in self._pending:
                core.unmark(key, mark)

    def _look(self) -> bool:
        core = self._pool._core
        if core.state in (State.STOPPING, State.ENDED) and (self._pending or core.left or core.failure):
            raise core.refusal("cannot be flushed")
        fewer: Iterable[K] = core.parked if len(core.parked) < len(self._marks) else self._marks
        for key in fewer:  # So that it is one look where one key is flushed, whatever is parked.
            if key in core.parked and (mark := self._marks.get(key)) and mark.number in self._pending:
                raise FlushIncomplete(
                    f"pool {core.name!r} cannot be flushed while key {describe(key)} is parked", key=key
                )
        return not self._pending


class _Mark:
    """The gate behind the last event of one key."""

    __slots__ = ("_flush", "number")

    def __init__(self, flush: Flush[Any, Any], number: int) -> None:
        self._flush = flush
        self.number = number

    def put(self, _: None) -> None:
        """Be reached; any number of times."""
        pending = self._flush._pending
        pending.discard(self.number)
        if not pending:
            self._flush._bell.put(None)
