"""Which spelling of the core is in use: its compiled twin where that was built, else the reference.

The twin is C, and means what `lanes.py`, `hand.py` and `mutex.py` say. `WORKPOOL_PURE=1` in the environment
chooses the reference.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import suppress
from importlib import import_module
from typing import TYPE_CHECKING, Any, Generic

from workpool import lanes
from workpool.lanes import E, K

__all__ = ["COMPILED", "Hand", "Lanes", "Seat", "entrance", "make_mutex", "one_by_one"]

COMPILED: bool = False
"""Whether the compiled twin of the core is in use."""

_HAS_GIL = getattr(sys, "_is_gil_enabled", lambda: True)()  # The twin was never run without: see the design page.
if os.environ.get("WORKPOOL_PURE", "0" if _HAS_GIL else "1") in ("", "0"):
    with suppress(ImportError):  # No C compiler where it was installed.
        _twin = import_module("workpool._twin")
        COMPILED = True


def one_by_one(pairs: Iterator[tuple[K, E]]) -> tuple[int, tuple[K, E], BaseException | None]:
    """Add none of some pairs: each is to be seen to by `add`, as `Seat._enter_some` tells."""
    return 0, next(pairs, lanes.NOTHING), None


if TYPE_CHECKING or not COMPILED:
    from workpool.hand import Hand
    from workpool.lanes import Lanes
    from workpool.mutex import make_mutex

    class Seat:
        """What a pool stands on."""

        def _enter_some(self, pairs: Iterator[tuple[Any, Any]]) -> tuple[int, tuple[Any, Any], BaseException | None]:
            """Add pairs while nothing is in the way of one.

            Returns:
                How many there were, the pair that is to be seen to or NOTHING, and what was raised or None.
            """
            return one_by_one(pairs)

        def _enter_at_once(self, key: Any, event: Any) -> bool:  # noqa: ARG002
            """Enter an event where nothing is in its way; whether it was."""
            return False

    def entrance(function: Any) -> Any:
        """What stands before `add`: nothing."""
        return function

else:
    Seat, Hand, entrance, make_mutex = _twin.Seat, _twin.Hand, _twin.Entrance, _twin.Mutex

    class Lanes(_twin.Lanes, Generic[K, E]):
        """The twin, with the reference's own rarer steps."""

        __slots__ = ()
        _RARE = lanes.Lanes
        start, give_back, finish = _RARE.start, _RARE.give_back, _RARE.finish
        unhandled, all_lanes, heads = _RARE.unhandled, _RARE.all_lanes, _RARE.heads
        keys_in_flight, key_at = _RARE.keys_in_flight, _RARE.key_at
        _count_waiting, check_invariants = _RARE._count_waiting, _RARE.check_invariants

        @staticmethod
        def make_ready() -> Any:
            """An empty ring."""
            return _twin.Ring(2)
