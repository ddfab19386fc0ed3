"""What a handler is given: one change of one object."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from workpool.sources.kubernetes.line import decode

__all__ = ["Event"]

_set: Final = object.__setattr__


@dataclass(frozen=True, slots=True, eq=False, init=False)
class Event:
    """A change of an object, as it differs from what was added to the pool before it.

    So the types of one object always read ADDED, MODIFIED and so on, DELETED, ADDED, whatever the server called them.
    The objects are the handler's own: the source keeps none of them.

    Cost: an event that waits is the line that the server sent, a fraction of the memory of the object that it decodes
    to, and nothing for the garbage collector to go through.
    """

    type: Literal["ADDED", "MODIFIED", "DELETED"]
    key: Hashable
    """The key that it was added under; of a DELETED, the last that the object had."""
    synthetic: bool
    """No such event came: a list lacks the object, another of its name took its place, or it has lost its key."""
    initial: bool
    """It was there when the source started."""
    resync: bool
    """Nothing has changed; the source repeats what it knows."""
    old_key: Hashable
    """The key that it was under before; None for ADDED. Where that is another, only this event tells of the change."""
    _object: bytes | dict[str, Any] = field(repr=False)
    _old: bytes | dict[str, Any] | None = field(repr=False)

    def __init__(
        self,
        type: Literal["ADDED", "MODIFIED", "DELETED"],
        object: bytes | dict[str, Any],
        key: Hashable,
        old: bytes | dict[str, Any] | None = None,
        *,
        synthetic: bool = False,
        initial: bool = False,
        resync: bool = False,
        old_key: Hashable = None,
    ) -> None:
        """Sources make events; you may make one for another lane, or for a test.

        Args:
            type: How the object differs from what came before.
            object: A dict; or what the server sent, the line of a watch.
            key: The key that it is added under.
            old: As `object`; None for none.
            synthetic: Whether no server sent it.
            initial: Whether it was there when the source started.
            resync: Whether nothing has changed.
            old_key: The key that the object was under before.
        """
        _set(self, "type", type)
        _set(self, "key", key)
        _set(self, "synthetic", synthetic)
        _set(self, "initial", initial)
        _set(self, "resync", resync)
        _set(self, "old_key", old_key)
        _set(self, "_object", object)
        _set(self, "_old", old)

    @property
    def object(self) -> dict[str, Any]:
        """As the server sent it; of a DELETED that is synthetic, the last that was known of it.

        Cost: it is decoded when it is first asked for, in some 10 µs for a pod, and the same one from then on.
        """
        if isinstance(self._object, bytes):
            _set(self, "_object", decode(self._object))
        return self._object  # type: ignore[return-value]

    @property
    def old(self) -> dict[str, Any] | None:
        """What was known before; None for ADDED, and everywhere if the source does not keep it.

        Cost: it is decoded each time that it is asked for.
        """
        return decode(self._old) if isinstance(self._old, bytes) else self._old

    def __getitem__(self, name: str) -> Any:
        """A field by its name, so that a handler can take events and recorded lines alike.

        Raises:
            KeyError: There is no such field.
        """
        if name.startswith("_"):
            raise KeyError(name)
        try:
            return getattr(self, name)  # Once: to ask for `old` decodes it.
        except AttributeError:
            raise KeyError(name) from None
