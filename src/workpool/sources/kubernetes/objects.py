"""What the server sends, checked: the objects of a list, and the lines of a watch. Pure.

Of a line only what the reflector needs is decoded, for a quarter of what the whole takes. The rest is looked through
for being JSON, and stays the bytes that it is until a handler or a key's function asks for the object.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias

from msgspec import DecodeError, Raw, Struct, field
from msgspec.json import Decoder, encode

from workpool.sources.kubernetes.line import decode
from workpool.sources.kubernetes.steps import Failure

__all__ = ["BAD", "Bookmark", "Item", "Sheet", "is_older", "read_line", "read_page"]

INITIAL_EVENTS_END: Final = "k8s.io/initial-events-end"

BAD: Final = (DecodeError, UnicodeDecodeError, RecursionError)
"""What is raised for what is no JSON, or not of the kind that is wanted."""


class Item:
    """An object that a line tells of.

    Attributes:
        type: What the line says of it; in a list, ADDED.
        line: It.
        name: Its namespace and name, or its name alone where it has no namespace.
        uid: Empty where it has none.
        version: Of the object.
        labels: A mapping, or None.
        annotations: A mapping, or None.
    """

    __slots__ = ("_object", "annotations", "labels", "line", "name", "type", "uid", "version")

    def __init__(self, type: Literal["ADDED", "MODIFIED", "DELETED"], line: bytes, metadata: _Metadata) -> None:
        self.type: Literal["ADDED", "MODIFIED", "DELETED"] = type
        self.line: bytes = line
        self.name: str = f"{metadata.namespace}/{metadata.name}" if metadata.namespace else metadata.name
        self.uid: str = metadata.uid or ""
        self.version: str = metadata.version
        self.labels: Any = metadata.labels
        self.annotations: Any = metadata.annotations
        self._object: dict[str, Any] | None = None

    @property
    def object(self) -> dict[str, Any]:
        """The whole object, decoded once."""
        if self._object is None:
            self._object = decode(self.line)
        return self._object

    @property
    def cheapest(self) -> bytes | dict[str, Any]:
        """The object where it is decoded already, else its line."""
        return self.line if self._object is None else self._object


@dataclass(frozen=True, slots=True)
class Sheet:
    """A page of a list."""

    version: str
    token: str
    """What asks for the next page; empty on the last."""
    items: list[Item]


@dataclass(frozen=True, slots=True)
class Bookmark:
    """A line that tells of nothing up to a version."""

    version: str
    ends_initial: bool
    """It ends the initial events of a streaming list."""


Said: TypeAlias = Item | Bookmark | Failure


class _Metadata(Struct, rename={"version": "resourceVersion", "token": "continue"}):
    name: str = ""
    version: str = ""
    uid: str | None = None
    namespace: str | None = None
    labels: Any = None
    annotations: Any = None
    token: str | None = None


class _Object(Struct):
    metadata: _Metadata = field(default_factory=_Metadata)


class _Line(Struct):
    type: str
    object: _Object


class _List(Struct):
    metadata: _Metadata
    kind: Any = None
    apiVersion: Any = None  # noqa: N815
    items: list[Raw] | None = None


_read: Final = Decoder(_Line).decode
_read_list: Final = Decoder(_List).decode


def read_page(body: bytes) -> Sheet | None:
    """A page; None where anything about it is not as it must be."""
    try:
        page = _read_list(body)
    except BAD:
        return None
    if not page.metadata.version:
        return None
    # The server leaves out of each item what the list has already said. In a watch it does not.
    said = b"{"
    if isinstance(page.kind, str) and page.apiVersion:
        said = encode({"apiVersion": page.apiVersion, "kind": page.kind.removesuffix("List")})[:-1] + b","
    lines = [b'{"type":"ADDED","object":%b%b}' % (said, bytes(item)[1:]) for item in page.items or ()]
    items = [item for item in map(read_line, lines) if isinstance(item, Item)]
    return Sheet(page.metadata.version, page.metadata.token or "", items) if len(items) == len(lines) else None


def read_line(line: bytes) -> Said:
    """A line of a watch; a Failure for an ERROR and for what is no line (R9)."""
    try:
        line.decode()  # Of what is not decoded further, msgspec does not look whether it is UTF-8.
        read = _read(line)
        kind, metadata = read.type, read.object.metadata
        if kind in ("ADDED", "MODIFIED", "DELETED"):
            if metadata.name and metadata.version:
                return Item(kind, line, metadata)  # type: ignore[arg-type]
        elif kind == "BOOKMARK":
            if metadata.version:
                annotations = metadata.annotations
                ends = isinstance(annotations, dict) and annotations.get(INITIAL_EVENTS_END) == "true"
                return Bookmark(metadata.version, ends)
        elif kind == "ERROR":
            status = decode(line)
            code = status.get("code")
            return Failure(code if isinstance(code, int) else None, status)
    except BAD:
        pass
    return Failure(error="a line that is no event")


def is_older(version: str, other: str) -> bool:
    """Whether a version is known to come before another. They are numbers by custom, not by contract (R11)."""
    return version.isdecimal() and other.isdecimal() and int(version) < int(other)
