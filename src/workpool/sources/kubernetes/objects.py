"""What the server sends, checked: the objects of a list, and the lines of a watch. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from workpool.sources.kubernetes.steps import Failure

__all__ = ["Bookmark", "Change", "Item", "Sheet", "is_older", "read_line", "read_page"]

INITIAL_EVENTS_END = "k8s.io/initial-events-end"


@dataclass(slots=True)
class Item:
    """An object, and what names it."""

    name: str
    """Its namespace and name, or its name alone where it has no namespace."""
    uid: str
    version: str
    object: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Sheet:
    """A page of a list."""

    version: str
    token: str
    """What asks for the next page; empty on the last."""
    items: list[Item]


@dataclass(slots=True)
class Change:
    """A line that tells of an object."""

    type: Literal["ADDED", "MODIFIED", "DELETED"]
    item: Item


@dataclass(frozen=True, slots=True)
class Bookmark:
    """A line that tells of nothing up to a version."""

    version: str
    ends_initial: bool
    """It ends the initial events of a streaming list."""


Said: TypeAlias = Change | Bookmark | Failure


def read_page(body: Any) -> Sheet | None:
    """A page; None where anything about it is not as it must be."""
    metadata = _metadata(body)
    if metadata is None or not isinstance(listed := body.get("items") or [], list):
        return None
    version, token = metadata.get("resourceVersion"), metadata.get("continue") or ""
    if not isinstance(version, str) or not version or not isinstance(token, str):
        return None
    # The server leaves out of each item what the list has already said. In a watch it does not.
    kind, api = body.get("kind"), body.get("apiVersion")
    said = {"apiVersion": api, "kind": kind.removesuffix("List")} if isinstance(kind, str) and api else {}
    items = [_item({**said, **each} if isinstance(each, dict) else each) for each in listed]
    good = [item for item in items if item is not None]
    return Sheet(version, token, good) if len(good) == len(items) else None


def read_line(value: Any) -> Said:
    """A line of a watch; a Failure for an ERROR and for what is no line (R9)."""
    kind = value.get("type") if isinstance(value, dict) else None
    if kind in ("ADDED", "MODIFIED", "DELETED"):
        if item := _item(value.get("object")):
            return Change(kind, item)
    elif kind == "BOOKMARK":
        metadata = _metadata(value.get("object")) or {}
        if isinstance(version := metadata.get("resourceVersion"), str) and version:
            annotations = metadata.get("annotations")
            return Bookmark(version, isinstance(annotations, dict) and annotations.get(INITIAL_EVENTS_END) == "true")
    elif kind == "ERROR":
        status = value.get("object")
        code = status.get("code") if isinstance(status, dict) else None
        return Failure(code if isinstance(code, int) else None, status)
    return Failure(error="a line that is no event")


def is_older(version: str, other: str) -> bool:
    """Whether a version is known to come before another. They are numbers by custom, not by contract (R11)."""
    return version.isdecimal() and other.isdecimal() and int(version) < int(other)


def _item(value: Any) -> Item | None:
    metadata = _metadata(value)
    if metadata is None:
        return None
    name, version = metadata.get("name"), metadata.get("resourceVersion")
    namespace, uid = metadata.get("namespace") or "", metadata.get("uid") or ""
    if not (isinstance(name, str) and isinstance(version, str) and isinstance(namespace, str) and isinstance(uid, str)):
        return None
    return Item(f"{namespace}/{name}" if namespace else name, uid, version, value) if name and version else None


def _metadata(value: Any) -> dict[str, Any] | None:
    metadata = value.get("metadata") if isinstance(value, dict) else None
    return metadata if isinstance(metadata, dict) else None
