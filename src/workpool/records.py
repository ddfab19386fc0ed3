"""What a pool tells of itself: plain records, made in one step and never changed.

Times are seconds since the epoch, by the pool's clock.
"""

from __future__ import annotations

import enum
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any, Literal

__all__ = ["Crowd", "Dead", "Explanation", "Failure", "State", "Stats", "Watched"]


@dataclass(frozen=True, slots=True, eq=False)
class Dead:
    """An event that was given up on: skipped by the policy, by its handler, or by hand. `pool.replay` takes it."""

    key: Hashable
    event: Any
    attempts: int
    """How often it was delivered."""
    error: str
    """What its last attempt raised, as text; empty where it never failed."""
    failed: float | None
    """When its first attempt failed; None where it never did."""
    died: float
    """When it was given up on."""


@dataclass(frozen=True, slots=True)
class Explanation:
    """What a key waits for."""

    key: Hashable
    state: Literal["idle", "ready", "in flight", "retrying", "parked", "delayed"]
    waiting: int
    """How many events of the key wait, its head included unless that is in flight."""
    attempt: int
    """Which delivery of its first event is under way or comes next, from 1."""
    error: str
    """What the last attempt at its first event raised, as text; empty where none has failed."""
    since: float | None = None
    """When it was held, by the pool's clock. With `timing` also when its delivery in flight began, and of a key that is
    ready when its first event was added. Else None."""
    due: float | None = None
    """When its head may start; None for a key that waits for no time."""


class State(enum.Enum):
    """Where a pool is in its life; it only moves forward."""

    OPEN = "open"
    DRAINING = "draining"
    STOPPING = "stopping"
    ENDED = "ended"


@dataclass(frozen=True, slots=True)
class Stats:
    """What a pool counts, at one instant (P10).

    `added == handled + dead + returned + merged + cancelled + in_flight + waiting`, and
    `waiting == queued + delayed + retrying + parked`, where only the head of a lane is ever one of the last three: what
    waits behind it is queued.
    """

    added: int
    handled: int
    returned: int
    in_flight: int
    waiting: int
    queued: int
    keys: int
    """Keys that have an event, waiting or in flight."""
    dead: int = 0
    """Events that were given up on."""
    dead_forgotten: int = 0
    """Those of them that are not kept any more, because `max_dead` newer ones are."""
    replayed: int = 0
    """Those of them that were added once more, each counted in `added` again."""
    merged: int = 0
    """Events that a newer one took the place of."""
    cancelled: int = 0
    delayed: int = 0
    """Events that may not start yet, each at the head of its key."""
    retrying: int = 0
    """Events that wait for their next attempt, each at the head of its key."""
    parked: int = 0
    """Events at the head of a parked key."""


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a pool failed."""

    key: Hashable | None
    event: Any
    error: BaseException
    attempt: int


@dataclass(frozen=True, slots=True)
class Crowd:
    """Where the backlog of a pool sits: behind which blocked keys."""

    key: Hashable | None
    """The blocked key with most events that wait; None where none waits."""
    depth: int
    """How many of its events wait."""
    blocked: int
    """How many events of all blocked keys wait."""
    why: str = "in flight"
    """What that key does: "in flight", "retrying", "parked" or "delayed"."""


@dataclass(slots=True)
class Watched:
    """Stands for a key in `holds` since a look at it; the next event of that worker takes its place."""

    key: Any
    since: float
    told: bool = False
