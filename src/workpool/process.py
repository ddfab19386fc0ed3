"""The process around the pools (P12): at its end those that run are drained, and in a forked child all are useless."""

from __future__ import annotations

import atexit
import logging
import os
import weakref
from typing import Any, Protocol

from workpool.dispatch import Dispatch
from workpool.errors import WorkpoolError
from workpool.records import State

__all__ = ["drain_all", "pools", "running"]

_log = logging.getLogger("workpool")


class Owned(Protocol):
    """A pool, as far as a fork goes."""

    def _disown(self) -> None: ...


class Running(Protocol):
    """A pool whose workers end with the process."""

    _core: Dispatch[Any, Any]

    def drain(self) -> None: ...


pools: weakref.WeakSet[Owned] = weakref.WeakSet()
running: dict[Running, None] = {}
"""The pools that have threads, in the order of their starts."""


def drain_all(kind: type = object) -> None:
    """Drain what runs when the process ends, the last started first, and what a handler starts meanwhile."""
    seen: set[Running] = set()
    while left := [pool for pool in running if isinstance(pool, kind) and pool not in seen]:
        pool = left[-1]
        seen.add(pool)
        if pool._core.state not in (State.OPEN, State.DRAINING):
            continue  # A handler that is stuck does not keep the process.
        try:
            pool.drain()
        except WorkpoolError:
            _log.exception("pool %r was not drained when the process ended", pool._core.name)


def _disown_all() -> None:
    running.clear()
    for pool in list(pools):
        pool._disown()


atexit.register(drain_all)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_disown_all)
