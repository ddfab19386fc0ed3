"""What there is to know of a key beyond its events: its note, and that it is held."""

from __future__ import annotations

import math
from collections import OrderedDict, deque
from dataclasses import dataclass
from typing import Any, Generic, Literal, TypeAlias

from workpool.lanes import E, K

__all__ = ["Held", "Late", "Note"]

Late: TypeAlias = tuple[float, float]
"""Of an event that is not to start at any time: when it was added, and when it may start."""


@dataclass(slots=True)
class Note(Generic[E]):
    """What there is to know of a key that has events, or is to be parked."""

    failures: int = 0
    """How many deliveries of its head have failed."""
    error: str = ""
    """The last of them, as text: a traceback would hold what its frames hold."""
    failed: float | None = None
    """When the first of them failed."""
    batch: int = 0
    """How many of its first events failed together, where they are delivered so; else 0."""
    parking: bool = False
    """It is to be parked when its turn comes."""
    line: OrderedDict[object, tuple[Any, E, Late | None]] | None = None
    """Who waits for room in its lane, the first first, each with what it adds."""
    marks: dict[object, int] | None = None
    """Who is to be told when the events before its mark have ended: the driver's token, and how many have not."""
    passed: int = 0
    """How many of its events have ended while there was a note: the place of its head."""
    delays: deque[tuple[int, float]] | None = None
    """Which of its events may not start before when, the first first, by their places."""

    def forget_failures(self) -> None:
        """Know nothing of its head any more: that has ended, or another took its place."""
        self.failures, self.error, self.failed, self.batch = 0, "", None, 0

    def is_blank(self) -> bool:
        """Whether it says nothing."""
        return not (self.failures or self.batch or self.parking or self.line or self.marks or self.delays)

    def without(self, place: int) -> tuple[dict[object, int] | None, int, deque[tuple[int, float]] | None]:
        """Its marks, `passed` and delays once the event at a place has ended; the head's is 0, in flight or not."""
        marks = self.marks and {gate: ahead - (ahead > place) for gate, ahead in self.marks.items()}
        at = self.passed + place
        delays = self.delays
        if delays and (place or delays[0][0] == at):
            delays = deque((each - (each > at > self.passed), due) for each, due in delays if each != at)
        return marks, self.passed + (place == 0), delays or None

    def due(self) -> float:
        """When its head may start; 0.0 for at any time."""
        return self.delays[0][1] if self.delays and self.delays[0][0] == self.passed else 0.0


@dataclass(frozen=True, slots=True)
class Held(Generic[K, E]):
    """A key that may not start, with its head."""

    key: K
    event: E
    note: Note[E]
    since: float
    why: Literal["retrying", "parked", "delayed"]
    due: float = math.inf
    ticket: int = 0
    """Its number among the timers; 0 for a parked one."""
