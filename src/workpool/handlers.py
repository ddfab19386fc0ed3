"""What a handler is, and what it is called with: `handler(event)` or `handler(event, delivery)`."""

from __future__ import annotations

import inspect
from collections.abc import Hashable
from functools import partial
from typing import NamedTuple

__all__ = ["Delivery", "is_awaited", "takes_delivery"]


class Delivery(NamedTuple):
    """One attempt at one event, for the handlers that ask for it by a second parameter."""

    key: Hashable
    """The key that the event was added under."""
    attempt: int
    """Which delivery of the event this is, from 1."""
    age: float | None = None
    """Seconds since the event was added, where the pool has `timing=True`, else None; of one that took the place of
    others (`coalesce`), how long ago the first of them was."""


_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


def is_awaited(handler: object) -> bool:
    """Whether a handler is a coroutine function: calling it runs nothing until the result is awaited."""
    return inspect.iscoroutinefunction(_called(handler))


def takes_delivery(handler: object, *, awaited: bool = False) -> bool:
    """Decide once whether a handler is called with the delivery too.

    It is where its second positional parameter has no default or is named `delivery`. A callable without a
    signature (some of those written in C) takes the event alone.

    Args:
        handler: The user's.
        awaited: Whether what it returns is awaited: then it has to be a coroutine function, and else it must be none.

    Raises:
        TypeError: The handler cannot be called, cannot be called so, or calling it would run nothing.
    """
    if not callable(handler):
        raise TypeError(f"the handler must be callable, and {handler!r} is not")
    called = _called(handler)
    if awaited and not inspect.iscoroutinefunction(called):
        raise TypeError(f"the handler {handler!r} must be a coroutine function (async def): it is awaited on the loop")
    if not awaited and inspect.iscoroutinefunction(called):
        raise TypeError(f"the handler {handler!r} is a coroutine function: a thread would never await it")
    if inspect.isgeneratorfunction(called) or inspect.isasyncgenfunction(called):
        raise TypeError(f"the handler {handler!r} is a generator function: calling it would run none of its lines")
    try:
        # A decorator may show the signature of what it wraps, and take less itself: then its own is the one to call.
        signatures = [inspect.signature(handler, follow_wrapped=follow) for follow in (True, False)]
    except (TypeError, ValueError):
        return False
    wanted, reason = False, TypeError()
    for signature in signatures:
        wanted = _wants_delivery(signature)
        try:
            signatures[-1].bind(*("event", "delivery")[: 1 + wanted])
            return wanted
        except TypeError as error:
            reason = error
    call = f"handler(event{', delivery' * wanted})"
    raise TypeError(f"the handler {handler!r} cannot be called as {call}: {reason}")


def _called(handler: object) -> object:
    if isinstance(handler, partial) or inspect.isroutine(handler) or not callable(handler):
        return handler
    return type(handler).__call__


def _wants_delivery(signature: inspect.Signature) -> bool:
    positional = [p for p in signature.parameters.values() if p.kind in _POSITIONAL]
    if len(positional) < 2:
        return False
    return positional[1].default is inspect.Parameter.empty or positional[1].name == "delivery"
