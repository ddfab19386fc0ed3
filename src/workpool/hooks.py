"""What somebody outside hears of a pool: where metrics and traces are fastened."""
# ruff: noqa: ARG002 - a hook that nobody has defined does nothing with what it is told

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from time import perf_counter
from typing import Any, Final, Protocol

from workpool.arguments import require_methods
from workpool.handlers import Delivery
from workpool.records import Dead, Stats

__all__ = ["METRICS", "Hearing", "Hooks"]

METRICS: Final[tuple[str, ...]] = (
    "workqueue_depth",
    "workqueue_adds_total",
    "workqueue_queue_duration_seconds",
    "workqueue_work_duration_seconds",
    "workqueue_unfinished_work_seconds",
    "workqueue_longest_running_processor_seconds",
    "workqueue_retries_total",
)
"""Names of metrics that are reserved for hooks that mean by them what client-go's work queue does.

Each with the label `name`, which is the pool's, and never with one by key. Source: client-go, `util/workqueue`.
"""

_log = logging.getLogger("workpool")


class Hooks(Protocol):
    """What a pool tells as it goes. Inherit, and define those that you want to hear.

    Each is called outside the pool, on the thread or in the task to which it happens, which goes on when it returns: so
    a slow hook slows the pool, and what two threads tell may come in any order, `started` even before `added`. Whatever
    of `Exception` a hook raises is logged, once for each pool, and changes nothing. It may look at the pool, and should
    not wait for it.
    """

    def added(self, key: Any, event: Any) -> None:
        """An event was accepted; also one that was replayed."""
        return

    def started(self, delivery: Delivery, event: Any) -> None:
        """A delivery begins."""
        return

    def succeeded(self, delivery: Delivery, event: Any, seconds: float) -> None:
        """A delivery ended, and the event was handled; `seconds` is how long the handler took."""
        return

    def failed(self, delivery: Delivery, event: Any, seconds: float, error: BaseException) -> None:
        """A delivery ended with an error or a cancel. What becomes of the event is for the policy, and told next."""
        return

    def parked(self, key: Any) -> None:
        """A key that has events was parked."""
        return

    def dead(self, dead: Dead) -> None:
        """An event was given up on."""
        return

    def merged(self, key: Any, event: Any) -> None:
        """An event has ended because a newer one of its key took its place (`coalesce="latest"`)."""
        return

    def ended(self, stats: Stats) -> None:
        """The pool has ended, and these are its last counts. Told once, of a pool that was started."""
        return


class Hearing:
    """Hooks that cannot hurt.

    Args:
        hooks: The user's.
        pool: The name of the pool.

    Raises:
        TypeError: One of the hooks is missing; or they are a class, and not an object of it.
    """

    def __init__(self, hooks: Hooks, pool: str) -> None:
        names = [name for name in vars(Hooks) if not name.startswith("_")]
        require_methods("hooks", hooks, names, ": inherit from workpool.Hooks")
        self._hooks = hooks
        self._pool = pool
        self._has_raised = self._has_ended = False

    def tell(self, name: str, *arguments: object) -> None:
        """Call a hook."""
        try:
            getattr(self._hooks, name)(*arguments)
        except Exception:
            if not self._has_raised:
                self._has_raised = True
                with suppress(Exception):  # Logging that is broken hurts no more than the hook.
                    _log.exception("pool %r: its hook %r raised; this is told once", self._pool, name)

    def tell_end(self, stats: Stats) -> None:
        """Call the hook for the end of the pool; once, however often its last worker leaves."""
        if not self._has_ended:
            self._has_ended = True
            self.tell("ended", stats)

    @contextmanager
    def telling(self, delivery: Delivery, event: Any) -> Iterator[None]:
        """Tell of a delivery, around it."""
        self.tell("started", delivery, event)
        start = perf_counter()
        try:
            yield
        except GeneratorExit:
            raise  # Of a coroutine that is given up with its loop: whoever finds that may be in the middle of anything.
        except BaseException as error:
            self.tell("failed", delivery, event, perf_counter() - start, error)
            raise
        self.tell("succeeded", delivery, event, perf_counter() - start)
