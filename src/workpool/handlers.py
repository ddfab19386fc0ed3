"""What a handler is, and what it is called with: `handler(event)` or `handler(event, delivery)`."""

from __future__ import annotations

import inspect
from collections.abc import Hashable
from dataclasses import dataclass

__all__ = ["Delivery", "takes_delivery"]


@dataclass(frozen=True, slots=True)
class Delivery:
    """One attempt at one event, for the handlers that ask for it by a second parameter."""

    key: Hashable
    """The key that the event was added under."""
    attempt: int
    """Which delivery of the event this is, from 1."""


_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


def takes_delivery(handler: object) -> bool:
    """Decide once whether a handler is called with the delivery too.

    It is where its second positional parameter has no default or is named `delivery`. A callable without a
    signature (some of those written in C) takes the event alone.

    Raises:
        TypeError: The handler cannot be called, cannot be called so, or calling it would run nothing.
    """
    if not callable(handler):
        raise TypeError(f"the handler must be callable, and {handler!r} is not")
    if inspect.iscoroutinefunction(handler) or inspect.iscoroutinefunction(getattr(handler, "__call__", None)):  # noqa: B004
        raise TypeError(f"the handler {handler!r} is a coroutine function: a thread would never await it")
    if inspect.isgeneratorfunction(handler) or inspect.isasyncgenfunction(handler):
        raise TypeError(f"the handler {handler!r} is a generator function: calling it would run none of its lines")
    try:
        signature = inspect.signature(handler)
    except (TypeError, ValueError):
        return False
    positional = [p for p in signature.parameters.values() if p.kind in _POSITIONAL]
    second = positional[1] if len(positional) > 1 else None
    wanted = second is not None and (second.default is second.empty or second.name == "delivery")
    try:
        signature.bind(*("event", "delivery")[: 1 + wanted])
    except TypeError as error:
        raise TypeError(
            f"the handler {handler!r} cannot be called as handler(event{', delivery' * wanted}): {error}"
        ) from None
    return wanted
