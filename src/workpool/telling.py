"""What a pool tells: log records, and the errors of an ending."""

from __future__ import annotations

import abc
import logging
import traceback
from collections.abc import Callable
from typing import Generic, ParamSpec, TypeVar

from workpool.dispatch import Dispatch
from workpool.errors import DrainIncomplete, StopTimeout, describe
from workpool.lanes import E, K
from workpool.mutex import Mutex, step
from workpool.records import State
from workpool.twin import Seat

__all__ = ["Telling"]

_log = logging.getLogger("workpool")

_P = ParamSpec("_P")
_R = TypeVar("_R")


class Telling(Seat, abc.ABC, Generic[K, E]):
    """The part of a pool that speaks, and never about itself in the middle of a step."""

    _core: Dispatch[K, E]
    _mutex: Mutex

    @abc.abstractmethod
    def _is_inside(self) -> bool:
        """Whether a handler of this pool calls."""

    def _step(self, transition: Callable[_P, _R], *args: _P.args, **kwargs: _P.kwargs) -> _R:
        """Make one step of the core, alone and whole."""
        return step(self._mutex, transition, *args, **kwargs)

    def _look(self) -> tuple[State, list[tuple[K, E]], list[K]]:
        core = self._core
        return core.state, core.left if core.state is State.ENDED else core.unhandled(), core.keys_in_flight()

    def _require_drained(self, over: bool, timeout: float | None) -> None:
        """Raise what tells of a pool that has not ended, or otherwise than by handling everything."""
        core = self._core
        if not over:
            if self._is_inside():
                return
            stats = self._step(core.stats)
            raise TimeoutError(
                f"pool {core.name!r} has not drained in {timeout} s: "
                f"{stats.waiting} events wait, {stats.in_flight} are in flight"
            )
        if core.failure is not None:
            raise self._step(core.refusal, "is of no more use")
        if left := core.left:
            how = "was stopped with" if core.stopped else "has drained but for parked keys:"
            raise DrainIncomplete(f"pool {core.name!r} {how} {len(left)} events left", left=left)

    def _require_stopped(self, timeout: float | None) -> list[tuple[K, E]]:
        """What a stop returns, or raises where it has not ended or the pool failed."""
        self._core.rubbish.clear()  # Of a pool that was never started.
        state, left, keys = self._step(self._look)
        if state is not State.ENDED:
            message = f"pool {self._core.name!r} has not stopped in {timeout} s: {len(keys)} handlers have not returned"
            raise StopTimeout(message, left=left, in_flight=keys)
        if self._core.failure is not None:
            raise self._step(self._core.refusal, "is of no more use")
        return left

    def _note_left(self, error: BaseException) -> None:
        """Add to what stopped the pool how much that left."""
        if left := len(self._core.left):
            error.add_note(f"pool {self._core.name!r} was stopped with {left} events left")

    def _warn(self) -> None:
        crowd, self._core.warning = self._core.warning, None
        if crowd is None:
            return
        self._say(
            logging.WARNING, "pool %r: %d events, half of max_backlog, wait behind blocked keys, %d of them of key %s, "
            "which is %s", self._core.name, crowd.blocked, crowd.depth, describe(crowd.key), crowd.why,
        )  # fmt: skip

    def _say_late(self, key: K, seconds: float, place: str, stack: str) -> None:
        self._say(
            logging.WARNING, "pool %r: the handler of key %s has run for %.0f s, %s:\n%s",
            self._core.name, describe(key), seconds, place, stack,
        )  # fmt: skip

    def _say(self, level: int, message: str, *args: object, error: BaseException | None = None) -> None:
        try:
            _log.log(level, message, *args, exc_info=error)
        except Exception:
            traceback.print_exc()  # What was done is done: logging that is broken cannot make it raise.
