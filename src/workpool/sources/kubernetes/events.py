"""What a handler is given: one change of one object."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any, Literal

from orjson import loads

__all__ = ["Event"]


@dataclass(frozen=True, slots=True, eq=False)
class Event:
    """A change of an object, as it differs from what was added to the pool before it.

    So the types of one object always read ADDED, MODIFIED and so on, DELETED, ADDED, whatever the server called them.
    The objects are the handler's own: the source keeps none of them.
    """

    type: Literal["ADDED", "MODIFIED", "DELETED"]
    object: dict[str, Any]
    """As the server sent it; of a DELETED that is synthetic, the last that was known of it."""
    key: Hashable
    """The key that it was added under; of a DELETED, the last that the object had."""
    _old: bytes | dict[str, Any] | None = None
    """What `old` is made of."""
    synthetic: bool = False
    """No such event came: a list lacks the object, another of its name took its place, or it has lost its key."""
    initial: bool = False
    """It was there when the source started."""
    resync: bool = False
    """Nothing has changed; the source repeats what it knows."""
    old_key: Hashable = None
    """The key that it was under before; None for ADDED. Where that is another, only this event tells of the change."""

    @property
    def old(self) -> dict[str, Any] | None:
        """What was known before; None for ADDED, and everywhere if the source does not keep it.

        Cost: it is kept as JSON, and decoded each time that it is asked for.
        """
        return loads(self._old) if isinstance(self._old, bytes) else self._old

    def __getitem__(self, name: str) -> Any:
        """A field by its name, so that a handler can take events and recorded lines alike.

        Raises:
            KeyError: There is no such field.
        """
        if name.startswith("_") or not hasattr(self, name):
            raise KeyError(name)
        return getattr(self, name)
