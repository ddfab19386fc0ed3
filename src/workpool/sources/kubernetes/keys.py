"""Under which key an object's events are added: its name, its uid, a label, an annotation, or what a function says.

An object may have no such label. `missing` says what that means (R28):

    "namespace/name"   it falls back to its name (the default: nothing is lost)
    "skip"             it is not there: it is added to no lane, and one that loses its label is DELETED from its last
    "fail"             the source ends, and raises

A function that returns None has found none. One that raises never ends the source: an object keeps the key that it had
(a fault of a function must not look like the end of an object), and a new one is skipped under "skip", and else falls
back to its name.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any, Literal, TypeAlias

__all__ = ["Key", "KeyFunction", "Keys", "Missing", "MissingKey", "annotation", "label"]

KeyFunction: TypeAlias = Callable[[dict[str, Any]], Hashable]
Key: TypeAlias = Literal["namespace/name", "uid"] | KeyFunction
Missing: TypeAlias = Literal["skip", "namespace/name", "fail"]

SKIPPED = None
"""The key of an object that has none: None is never a key."""


class MissingKey(LookupError):
    """An object has no key, and the policy is "fail"."""


def label(name: str) -> KeyFunction:
    """The value of a label as the key."""
    return _find("labels", name)


def annotation(name: str) -> KeyFunction:
    """The value of an annotation as the key."""
    return _find("annotations", name)


def _uid(object: dict[str, Any]) -> Hashable:
    uid: Hashable = object["metadata"].get("uid")
    return uid


def _find(where: str, name: str) -> KeyFunction:
    def find(object: dict[str, Any]) -> Hashable:
        values = object["metadata"].get(where)
        return values.get(name) if values else None

    return find


class Keys:
    """A key and its policy.

    Args:
        key: Names the lane of an object.
        missing: What happens to an object that has no key.

    Raises:
        TypeError, ValueError: An argument is none of those.
    """

    def __init__(self, key: Key = "namespace/name", missing: Missing = "namespace/name") -> None:
        if missing not in ("skip", "namespace/name", "fail"):
            raise ValueError(f'missing must be "skip", "namespace/name" or "fail", and is {missing!r}')
        if isinstance(key, str) and key not in ("namespace/name", "uid"):
            raise ValueError(f'key must be "namespace/name", "uid", label(...), annotation(...) or a function: {key!r}')
        if not isinstance(key, str) and not callable(key):
            raise TypeError(f"key must be a name of a key or a function, and {key!r} is neither")
        self._function = _uid if key == "uid" else None if isinstance(key, str) else key
        """None stands for the name, which the caller has already."""
        self._missing = missing

    def is_out(self, object: dict[str, Any]) -> bool:
        """Whether an object is to be skipped, whatever its last key was."""
        if self._missing != "skip" or self._function is None:
            return False
        try:
            return self._function(object) is None
        except Exception:
            return False

    def of(self, object: dict[str, Any], name: str, last: Hashable | None) -> tuple[Hashable | None, Exception | None]:
        """The key of an object.

        Args:
            object: It.
            name: Its namespace and name.
            last: The key that it had; None for a new one.

        Returns:
            The key, or SKIPPED; and what the function raised.

        Raises:
            MissingKey: It has none, and the policy is "fail".
        """
        if self._function is None:
            return name, None
        error = None
        try:
            key = self._function(object)
            hash(key)
        except Exception as raised:
            key, error = last, raised
        if key is None:
            if self._missing == "fail" and error is None:
                raise MissingKey(f"{name} has no key")
            key = SKIPPED if self._missing == "skip" else name
        return key, error
