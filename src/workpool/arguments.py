"""The checks of what callers give, with errors that name the argument and say what is wrong with it."""

from __future__ import annotations

import math
import operator
import threading
from collections.abc import Iterable

__all__ = ["count", "duration", "require_hashable", "require_methods", "seconds"]


def count(name: str, value: object, least: int = 1) -> int:
    """A whole number that is large enough.

    Raises:
        TypeError: It is not a whole number.
        ValueError: It is below `least`.
    """
    try:
        if isinstance(value, bool):
            raise TypeError
        number = operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        raise TypeError(f"{name} must be a whole number, and {value!r} is not") from None
    if number < least:
        raise ValueError(f"{name} must be at least {least}, and is {number}")
    return number


def duration(name: str, value: object) -> float:
    """A time in seconds, of at least 0 and with an end.

    Raises:
        TypeError: It is not a number.
        ValueError: It is negative, infinite, or not a number in the other sense.
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{name} must be a number of seconds, and {value!r} is not")
    if not 0 <= value < math.inf:
        raise ValueError(f"{name} must be a number of seconds of at least 0, and is {value!r}")
    return float(value)


def seconds(timeout: object) -> float | None:
    """A time to wait at most, as long as the platform can wait; None waits without end.

    Raises:
        TypeError: It is not a number.
        ValueError: It is negative, or not a number in the other sense.
    """
    if timeout is None:
        return None
    if isinstance(timeout, bool) or not isinstance(timeout, int | float):
        raise TypeError(f"timeout must be seconds or None, and {timeout!r} is neither")
    if not timeout >= 0:
        raise ValueError(f"timeout must be at least 0 seconds, and is {timeout!r}")
    return min(timeout, threading.TIMEOUT_MAX)


def require_hashable(key: object) -> None:
    """Raise the TypeError that says so, where a key is not hashable."""
    try:
        hash(key)
    except TypeError as error:
        raise TypeError(f"a key must be hashable, and {key!r} is not: {error}") from None


def require_methods(name: str, value: object, methods: Iterable[str], hint: str = "") -> None:
    """Raise where an object cannot be called as it will be.

    Raises:
        TypeError: A method is missing; or it is a class, and not an object of it.
    """
    if isinstance(value, type):
        raise TypeError(f"{name} must be an object, and {value!r} is a class: make one of it, {value.__name__}(...)")
    if missing := [each for each in methods if not callable(getattr(value, each, None))]:
        raise TypeError(f"{name} must have {', '.join(missing)}, and {value!r} has not{hint}")
