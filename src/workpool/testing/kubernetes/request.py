"""A request as it came. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import parse_qsl, urlsplit

from workpool.testing.kubernetes.query import is_true
from workpool.testing.kubernetes.resource import Path

__all__ = ["VERBS", "Request"]

_WRITES: Final = {"POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}

VERBS: Final = frozenset({"list", "page", "watch", "get", "discover", *_WRITES.values()})


@dataclass(frozen=True, slots=True)
class Request:
    """What a client asked."""

    method: str
    path: str
    query: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    """By names in lower case."""
    body: bytes = b""

    @classmethod
    def of(cls, method: str, target: str, headers: Mapping[str, str], body: bytes) -> Request:
        """From its first line, and what follows."""
        split = urlsplit(target)
        return cls(method, split.path, dict(parse_qsl(split.query, keep_blank_values=True)), headers, body)

    @property
    def target(self) -> Path:
        """The path, taken apart."""
        return Path.parse(self.path)

    @property
    def verb(self) -> str:
        """What it asks for: a list, a later page of one, a watch, a get, a discover, or a write by its name."""
        if self.method in _WRITES:
            return _WRITES[self.method]
        target = self.target
        if not target.plural:
            return "discover"
        if target.name:
            return "get"
        if is_true(self.query, "watch"):
            return "watch"
        return "page" if self.query.get("continue") else "list"
