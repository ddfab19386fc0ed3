"""What a failure means (P9): try the event again later, skip it, park its key, or fail the pool. Pure.

A policy is a value, given at construction; `decide` applies it to one failed delivery. A handler overrules it by
raising one of the verdicts:

    Verdict
    ├── RetryAfter(seconds)   try this event again then, however often it was tried
    ├── SkipEvent(reason)     this event is dead; its key goes on
    └── ParkKey(reason)       this event and those behind it wait, until somebody resumes the key

What is no `Exception` (KeyboardInterrupt, SystemExit and the like) fails the pool under any policy (P6).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from workpool.arguments import count, duration

__all__ = ["Fail", "Park", "ParkKey", "Policy", "Retry", "RetryAfter", "Skip", "SkipEvent", "Verdict", "decide"]


@dataclass(frozen=True, slots=True)
class Fail:
    """The pool stops, and every later call raises a `HandlerError`."""


@dataclass(frozen=True, slots=True)
class Skip:
    """The event is dead: kept in `pool.dead()`, and its key goes on with the next."""


@dataclass(frozen=True, slots=True)
class Park:
    """The key is held, this event at its head: until it is resumed, or its head is skipped. Other keys go on."""


_LAST = (Fail, Skip, Park)


@dataclass(frozen=True, slots=True)
class Retry:
    """The event is delivered again, after a time that doubles from attempt to attempt; no event of its key passes it.

    A key that waits for its retry holds no worker, no thread and no scan time; its events count for `max_backlog`.

    Args:
        attempts: How many deliveries an event gets in all.
        base: Seconds to wait after the first failure, before jitter.
        cap: Seconds to wait at most.
        jitter: "full" waits a random part of that time, so that what failed together is not retried together; "none"
            waits all of it.
        retry_on: Exceptions that are worth another attempt; any other ends them at once.
        then: What happens to an event that no attempt is left for: `Park()`, `Skip()` or `Fail()`.

    Raises:
        TypeError, ValueError: An argument is wrong; the message says which and why.

    Source: "full jitter" is the formula of M. Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015:
    random between 0 and min(cap, base * 2 ** (attempt - 1)).
    """

    attempts: int = 5
    base: float = 0.5
    cap: float = 60.0
    jitter: Literal["full", "none"] = "full"
    retry_on: tuple[type[Exception], ...] = (Exception,)
    then: Fail | Skip | Park = Park()

    def __post_init__(self) -> None:
        count("attempts", self.attempts)
        duration("base", self.base)
        duration("cap", self.cap)
        if self.jitter not in ("full", "none"):
            raise ValueError(f'jitter must be "full" or "none", and is {self.jitter!r}')
        if not _are_exceptions(self.retry_on):
            raise TypeError(f"retry_on must be a tuple of exception classes, and {self.retry_on!r} is not")
        if not isinstance(self.then, _LAST):
            raise TypeError(f"then must be Park(), Skip() or Fail(), and {self.then!r} is none of them")

    def delay(self, attempt: int, random: float) -> float:
        """Seconds to wait after a failed attempt, for a random number from 0 to 1."""
        wait = min(float(self.cap), self.base * 2.0 ** min(attempt - 1, 1000))
        return wait * random if self.jitter == "full" else wait


Policy: TypeAlias = Fail | Skip | Park | Retry


class Verdict(Exception):
    """The base of what a handler raises to decide by itself what becomes of its event, whatever the policy says."""


class RetryAfter(Verdict):
    """Raised by a handler: deliver this event again, later, however often it was tried.

    Args:
        seconds: When: so many seconds from now.

    Raises:
        TypeError, ValueError: `seconds` is not a number of at least 0.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds: float = duration("seconds", seconds)
        super().__init__(seconds)  # What it is made again from where it is pickled.

    def __str__(self) -> str:
        return f"again in {self.seconds:g} s"


class SkipEvent(Verdict):
    """Raised by a handler: this event is dead, kept in `pool.dead()`; its key goes on with the next."""


class ParkKey(Verdict):
    """Raised by a handler: hold the key, with this event at its head, until somebody resumes it."""


def decide(policy: Policy, error: BaseException, attempt: int, random: float) -> float | Fail | Skip | Park:
    """What becomes of an event whose handler raised.

    Args:
        policy: The pool's.
        error: What was raised.
        attempt: Which delivery it was, from 1.
        random: A number from 0 to 1, for jitter.

    Returns:
        Seconds until the next attempt; or what ends the attempts.
    """
    match error:
        case RetryAfter():
            decision: float | Policy = error.seconds
        case SkipEvent():
            decision = Skip()
        case ParkKey():
            decision = Park()
        case Exception():
            decision = policy
        case _:
            decision = Fail()
    if not isinstance(decision, Retry):
        return decision
    if attempt < decision.attempts and isinstance(error, decision.retry_on):
        return decision.delay(attempt, random)
    return decision.then


def require_policy(policy: object) -> Policy:
    """Check the argument `on_failure`.

    Raises:
        TypeError: It is no policy; the class itself, without parentheses, included.
    """
    if isinstance(policy, Fail | Skip | Park | Retry):
        return policy
    raise TypeError(f"on_failure must be Retry(...), Skip(), Park() or Fail(), and {policy!r} is none of them")


def _are_exceptions(value: object) -> bool:
    return isinstance(value, tuple) and all(isinstance(each, type) and issubclass(each, Exception) for each in value)
