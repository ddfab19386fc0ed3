"""Which objects a request is about: namespace, label selector, field selector. Pure.

Source: the grammars in k8s.io/apimachinery/pkg/labels and pkg/fields.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from workpool.testing.kubernetes.status import ApiError, bad_request

__all__ = ["Selection", "fields", "labels"]

_Labels = Mapping[str, str]

_COMMA: Final = re.compile(r",(?![^(]*\))")
"""A comma that is not inside parentheses."""

_KEY: Final = r"(?P<key>[A-Za-z0-9][-A-Za-z0-9_./]*)"
_EXISTS: Final = re.compile(rf"\s*(?P<no>!?)\s*{_KEY}\s*")
_EQUAL: Final = re.compile(rf"\s*{_KEY}\s*(?P<operator>==|=|!=)\s*(?P<value>[-A-Za-z0-9_.]*)\s*")
_IN: Final = re.compile(rf"\s*{_KEY}\s+(?P<operator>in|notin)\s*\((?P<values>[-A-Za-z0-9_.,\s]*)\)\s*")
_ORDER: Final = re.compile(rf"\s*{_KEY}\s*(?P<operator>[<>])\s*(?P<value>-?\d+)\s*")
_FIELD: Final = re.compile(r"(?P<path>[^=!]+)(?P<operator>==|=|!=)(?P<value>.*)")


@dataclass(frozen=True, slots=True)
class Selection:
    """What a list or a watch is about."""

    namespace: str | None
    """None for all of them."""
    labels: Callable[[Any], bool]
    fields: Callable[[Any], bool]
    narrowed: bool
    """Whether there is a selector: then a server does not count the items that remain."""

    @classmethod
    def of(cls, namespace: str | None, query: Mapping[str, str]) -> Selection:
        """That of a request.

        Raises:
            ApiError: A selector cannot be read.
        """
        by_label, by_field = query.get("labelSelector", ""), query.get("fieldSelector", "")
        return cls(namespace, labels(by_label), fields(by_field), bool(by_label or by_field))

    def matches(self, found: Any) -> bool:
        """Whether an object is one of them."""
        if self.namespace is not None and found["metadata"].get("namespace") != self.namespace:
            return False
        return self.labels(found) and self.fields(found)


def labels(text: str) -> Callable[[Any], bool]:
    """A label selector, equality based or set based, as a predicate on objects."""
    requirements = [_requirement(part) for part in _COMMA.split(text)] if text.strip() else []

    def matches(found: Any) -> bool:
        having = found["metadata"].get("labels") or {}
        return all(requirement(having) for requirement in requirements)

    return matches


def _requirement(part: str) -> Callable[[_Labels], bool]:
    if found := _EXISTS.fullmatch(part):
        key, wanted = found["key"], not found["no"]
        return lambda having: (key in having) == wanted
    if found := _EQUAL.fullmatch(part):
        return _one_of(found["key"], {found["value"]}, negated=found["operator"] == "!=")
    if found := _IN.fullmatch(part):
        values = {value.strip() for value in found["values"].split(",")}
        return _one_of(found["key"], values, negated=found["operator"] == "notin")
    if found := _ORDER.fullmatch(part):
        return _beyond(found["key"], int(found["value"]), 1 if found["operator"] == ">" else -1)
    raise ApiError(bad_request(f"unable to parse requirement: {part!r}"))


def _one_of(key: str, values: set[str], *, negated: bool) -> Callable[[_Labels], bool]:
    # An object without the label has none of the values, so the negation takes it.
    return lambda having: (having.get(key) in values) != negated


def _beyond(key: str, bound: int, sign: int) -> Callable[[_Labels], bool]:
    def matches(having: _Labels) -> bool:
        try:
            return int(having[key]) * sign > bound * sign
        except (KeyError, ValueError):
            return False

    return matches


def fields(text: str) -> Callable[[Any], bool]:
    """A field selector as a predicate: dotted paths, where a real server knows only a few; what is missing is empty."""
    terms: list[tuple[list[str], str, bool]] = []
    for part in text.split(",") if text.strip() else []:
        found = _FIELD.fullmatch(part.strip())
        if found is None:
            raise ApiError(bad_request(f"invalid selector: {text!r}; can't understand {part!r}"))
        terms.append((found["path"].strip().split("."), found["value"].strip(), found["operator"] != "!="))

    def matches(found: Any) -> bool:
        return all((_at(found, path) == value) == wanted for path, value, wanted in terms)

    return matches


def _at(found: Any, path: list[str]) -> str:
    for name in path:
        found = found.get(name) if isinstance(found, dict) else None
    if isinstance(found, bool):
        return str(found).lower()
    return "" if found is None else str(found)
