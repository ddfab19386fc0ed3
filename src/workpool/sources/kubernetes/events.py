"""What a handler is given: one change of one object."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any, Literal

__all__ = ["Event"]


@dataclass(frozen=True, slots=True, eq=False)
class Event:
    """A change of an object, as it differs from what was added to the pool before it.

    So the types of one object always read ADDED, MODIFIED and so on, DELETED, ADDED, whatever the server called them.
    The objects are shared with the source, which compares none of them again: read them, and change copies.
    """

    type: Literal["ADDED", "MODIFIED", "DELETED"]
    object: dict[str, Any]
    """As the server sent it; of a DELETED that is synthetic, the last that was known of it."""
    key: Hashable
    """The key that it was added under; of a DELETED, the last that the object had."""
    old: dict[str, Any] | None = None
    """What was known before; None for ADDED, and everywhere if the source does not keep it."""
    synthetic: bool = False
    """No such event came: a list lacks the object, another of its name took its place, or it has lost its key."""
    initial: bool = False
    """It was there when the source started."""
    resync: bool = False
    """Nothing has changed; the source repeats what it knows."""
