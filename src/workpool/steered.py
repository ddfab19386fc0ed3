"""Lanes on which somebody acts from outside, by the name of a key: park, resume, skip, cancel, mark, look.

None of these is what a worker does, and each finds its key in any place: ready, in flight, held, or idle.
"""

from __future__ import annotations

import itertools
import math
from collections import deque
from dataclasses import replace
from typing import Any, Generic

from workpool.envelope import opened
from workpool.held import HeldLanes, dead_of
from workpool.lanes import NOTHING, E, K
from workpool.notes import Held, Note
from workpool.records import Dead, Explanation

__all__ = ["SteeredLanes"]


class SteeredLanes(HeldLanes[K, E], Generic[K, E]):
    """Lanes, steered by hand."""

    __slots__ = ()

    admitted: list[object]
    aside: dict[K, deque[E] | None]
    cancelled: int
    dead: int
    lanes: dict[K, deque[E] | None]
    notes: dict[K, Note[E]]
    parked: dict[K, Held[K, E]]
    waiting: int

    def park(self, key: K, now: float) -> None:
        """Hold a key, whatever its state: a ready one when its turn comes, one in flight when its event has ended."""
        if key in self.parked:
            return
        held = self.held_at(key)
        if held is None:
            self.notes.setdefault(key, Note()).parking = True
        else:
            where = self._where(held)
            try:
                self.parked[held.key] = Held(held.key, held.event, held.note, now, "parked")
                del where[held.key]
            except BaseException:
                if held.key in where:
                    self.parked.pop(held.key, None)
                raise
            self._say_parked(held.key)
            self._shrink()

    def resume(self, key: K) -> bool:
        """Let a key that is held, or is to be parked, take its turn; whether it was one."""
        if held := self.held_at(key):
            self._let_go(held)
        elif (note := self.notes.get(key)) and note.parking:
            note.parking = False
            self.strike_blank(key, note)
        else:
            return False
        self._shrink()
        return True

    def skip_head(self, key: K, now: float) -> Dead | None:
        """Give up on the head of a held key, and let the rest take its turn; None for a key that is not held."""
        held = self.held_at(key)
        if held is None:
            return None
        note, (marks, passed, delays) = held.note, held.note.without(0)
        rest = replace(note, marks=marks, passed=passed, delays=delays)
        dead = dead_of(held.key, held.event, note, now)
        where = self._where(held)
        self.rubbish.append(held)  # Its envelope goes with it.
        try:
            self.buried[dead], self.dead, self.waiting, _ = None, self.dead + 1, self.waiting - 1, where.pop(held.key)
            self._go_on(held.key, rest)
        except BaseException:
            if dead in self.buried:
                self._go_on(held.key, rest)
            raise
        self._say("dead", dead)
        return dead

    def cancel(self, key: K, event: E) -> bool:
        """Take an event that is ready, or waits behind another, out of its lane; whether it was there.

        It is found by what it is, not by what it equals. It is looked for from both ends of its lane and of the ring:
        O(how far it is from the nearest), so that many are cancelled at little cost, in order or in reverse.
        """
        found = self._find(key, event)
        if found is None:
            return False
        place, at, key = found
        note, cancelled = self.noted(key) or Note(), self.cancelled + 1
        behind = 0 if place is self.ready else 1 + at % len(place)
        try:
            del place[at]
            self._close_up(key, note, behind, cancelled)
        except BaseException:
            if self._find(key, event) is None:
                self._close_up(key, note, behind, cancelled)
            raise
        return True

    def unhandled(self) -> list[tuple[K, E]]:
        """The events that wait, as they were added, in order within each key."""
        return [(key, opened(event)) for key, event in super().unhandled()]

    # Marks.

    def mark(self, key: K, gate: object) -> bool:
        """Tell a gate, by way of `admitted`, when all events that a key has now have ended for good.

        One that is handled, dead or cancelled has ended; a retry or a park ends none. What is added later, or replayed,
        is not waited for. A gate that marks a key again waits for what the key has then. Where the pool ends first, its
        marks are dropped: whoever waits hears of that otherwise.

        Args:
            key: Whose events.
            gate: The driver's token; it may be told more than once.

        Returns:
            False where the key has no event: there is nothing to wait for, and nothing is noted.
        """
        if key not in self.lanes and key not in self.aside:
            return False
        note = self.noted(key) or Note()
        note.marks = note.marks or {}
        note.marks[gate] = 1 + len(self.behind(key))
        if key in self.lanes:
            self.notes[key] = note  # Last: cut before this, a new one has not been seen.
        return True

    def unmark(self, key: K, gate: object) -> bool:
        """Take a mark back; whether it was still waiting."""
        note = self.noted(key)
        if note is None or not note.marks or gate not in note.marks:
            return False
        try:
            del note.marks[gate]
            self.strike_blank(key, note)
        except BaseException:
            self.strike_blank(key, note)
            raise
        return True

    def parked_keys(self) -> list[K]:
        """The keys that are parked, or are to be. O(of them and of those that failed)."""
        return [*self.parked, *(key for key, note in self.notes.items() if note.parking)]

    def explain(self, key: K) -> Explanation:
        """What a key waits for. O(workers)."""
        held = self.held_at(key)
        note = (held.note if held else self.notes.get(key)) or Note()
        waiting = len(self.behind(key))
        facts = (note.failures + 1, note.error)
        if held:
            due = None if held.due == math.inf else held.due
            return Explanation(key, held.why, waiting + 1, *facts, held.since, due)
        if key in self.keys_in_flight():
            return Explanation(key, "in flight", waiting, *facts)
        if key in self.lanes:
            return Explanation(key, "ready", waiting + 1, *facts)
        return Explanation(key, "parked" if note.parking else "idle", 0, *facts)

    # Steps.

    def _go_on(self, key: K, note: Note[E]) -> None:
        """Let the rest of a key go on, whose head was skipped where it was held. It may be done twice."""
        self.notes[key] = note
        if key in self.aside:
            self.lanes[key] = self.aside[key]
            del self.aside[key]
        if key in self.lanes and not (self.ready and self.ready[-1][0] is key):
            self._advance(key)
        self._act_on(key, note)
        self._shrink()
        self._keep_newest()

    def _find(self, key: K, event: E) -> tuple[deque[Any], int, K] | None:
        """Where an event waits that is not held: the place, its index there, and its key, as the ring has it."""
        behind, ready = self.behind(key), self.ready
        sides = itertools.zip_longest(behind, reversed(behind), ready, reversed(ready), fillvalue=(NOTHING, NOTHING))
        for at, (first, last, head, tail) in enumerate(sides):
            if behind and (first is event or last is event):
                return behind, at if first is event else -1 - at, key
            if head[1] is event or tail[1] is event:
                return (ready, at, head[0]) if head[1] is event else (ready, -1 - at, tail[0])
        return None

    def _close_up(self, key: K, note: Note[E], place: int, cancelled: int) -> None:
        """Count an event off that was taken out, and let the rest of its lane move up. It may be done twice."""
        if self.cancelled < cancelled:
            self.waiting, self.cancelled, (note.marks, note.passed, note.delays) = (
                self.waiting - 1, cancelled, note.without(place),
            )  # fmt: skip
        if place == 0:
            self.rubbish.append(key)  # Nobody else may hold it.
            if key in self.lanes and not (self.ready and self.ready[-1][0] is key):
                self._advance(key)
        self._act_on(key, note, place)
