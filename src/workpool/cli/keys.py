"""`--key` on the command line: a JMESPath expression, or several between commas for a key of several parts."""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from textwrap import shorten
from typing import Any

import jmespath
from jmespath.exceptions import ArityError, JMESPathError, UnknownFunctionError
from jmespath.lexer import Lexer

from workpool.cli.output import Complaint

__all__ = ["KeyExpression", "NoKey"]

_OPENING = {"lparen", "lbracket", "lbrace", "filter"}
_CLOSING = {"rparen", "rbracket", "rbrace"}


class NoKey(Exception):
    """An event has no key; the message says why."""


class KeyExpression:
    """Finds the key of an event.

    A list becomes a tuple, so that it can be a key.

    Raises:
        Complaint: An expression is wrong.
    """

    def __init__(self, expression: str) -> None:
        try:
            self._parts = [(part.strip(), _compile(part)) for part in _split(expression)]
        except (JMESPathError, RecursionError) as error:
            reason = str(error).partition(", for expression")[0].splitlines()[0].rstrip(":")
            raise Complaint(f"the key {expression!r} is not JMESPath: {reason}") from error

    def __call__(self, event: object) -> Hashable:
        """The key of an event.

        Raises:
            NoKey: A part of it is null, or an object, or cannot be evaluated.
        """
        found = [self._find(text, compiled, event) for text, compiled in self._parts]
        return tuple(found) if len(found) > 1 else found[0]

    def _find(self, text: str, compiled: Any, event: object) -> Hashable:
        try:
            value = _freeze(compiled.search(event))
        except NoKey as error:
            raise NoKey(f"no key: {text} {error}") from None
        except Exception as error:  # Its functions raise whatever their arguments make Python raise.
            raise NoKey(f"no key: {text}: {shorten(str(error), 200)}") from error
        if value is None:
            raise NoKey(f"no key: {text} is null or missing")
        return value


def _split(expression: str) -> Iterator[str]:
    """Split at the commas that stand in no bracket and in no string, as JMESPath's own lexer sees them."""
    depth = start = 0
    for token in Lexer().tokenize(expression):
        depth += (token["type"] in _OPENING) - (token["type"] in _CLOSING)
        if token["type"] == "comma" and not depth:
            yield expression[start : token["start"]]
            start = token["end"]
    yield expression[start:]


def _compile(part: str) -> Any:
    compiled = jmespath.compile(part)
    try:
        compiled.search(None)  # That a function is unknown shows only when it is called.
    except (UnknownFunctionError, ArityError):
        raise
    except JMESPathError:
        pass  # This one wants another argument than null, which the events will have.
    return compiled


def _freeze(value: Any) -> Hashable:
    if isinstance(value, dict):
        raise NoKey("is an object, and cannot be a key")
    return tuple(map(_freeze, value)) if isinstance(value, list) else value
