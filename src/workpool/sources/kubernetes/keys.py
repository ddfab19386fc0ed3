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
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from workpool.sources.kubernetes.objects import Item

__all__ = ["Key", "KeyFunction", "Keys", "Missing", "MissingKey", "annotation", "label"]

KeyFunction: TypeAlias = Callable[[dict[str, Any]], Hashable]
"""Is given an object, decoded: `label` and `annotation` are cheaper."""
Key: TypeAlias = Literal["namespace/name", "uid"] | KeyFunction
"""What names the lane of an object: "namespace/name", "uid", or a function of the object."""
Missing: TypeAlias = Literal["skip", "namespace/name", "fail"]
"""What an object without a key does: "namespace/name" has it use that, "skip" leaves it out, "fail" ends the source."""

SKIPPED = None
"""The key of an object that has none: None is never a key."""


class MissingKey(LookupError):
    """An object has no key, and the policy is "fail"."""


def label(name: str) -> KeyFunction:
    """The value of a label as the key."""
    return _Find("labels", name)


def annotation(name: str) -> KeyFunction:
    """The value of an annotation as the key."""
    return _Find("annotations", name)


@dataclass(frozen=True)
class _Find:
    """A key in the metadata. It needs no more of an object than an `Item` knows."""

    where: Literal["labels", "annotations"]
    name: str

    def __call__(self, object: dict[str, Any]) -> Hashable:
        return self._in(object["metadata"].get(self.where))

    def of(self, item: Item) -> Hashable:
        return self._in(item.labels if self.where == "labels" else item.annotations)

    def _in(self, values: dict[str, Any] | None) -> Hashable:
        return values.get(self.name) if values else None


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
        self._find: Callable[[Item], Hashable] | None
        """None stands for the name."""
        if isinstance(key, str):
            self._find = None if key == "namespace/name" else lambda item: item.uid or None
        else:
            self._find = key.of if isinstance(key, _Find) else lambda item: key(item.object)
        self._missing = missing

    def is_out(self, item: Item) -> bool:
        """Whether an object is to be skipped, whatever its last key was."""
        if self._missing != "skip" or self._find is None:
            return False
        try:
            return self._find(item) is None
        except Exception:
            return False

    def of(self, item: Item, last: Hashable | None) -> tuple[Hashable | None, Exception | None]:
        """The key of an object.

        Args:
            item: It.
            last: The key that it had; None for a new one.

        Returns:
            The key, or SKIPPED; and what the function raised.

        Raises:
            MissingKey: It has none, and the policy is "fail".
        """
        if self._find is None:
            return item.name, None
        error = None
        try:
            key = self._find(item)
            hash(key)
        except Exception as raised:
            key, error = last, raised
        if key is None:
            if self._missing == "fail" and error is None:
                raise MissingKey(f"{item.name} has no key")
            key = SKIPPED if self._missing == "skip" else item.name
        return key, error
