"""Keys that may not start now: those whose head waits for its retry, and those that are parked.

A third place beside the two of `Lanes`. No worker and no scan ever sees it, so a held key costs nothing to step around:

    ready --take, next--> in flight --retry--> retrying --due, resume--> ready
      |                      |                    | park
      +-------- park --------+------ park -----> parked --resume, skip_head--> ready | idle

A held key keeps its lane, which lies `aside`: its head is in `retrying` or `parked`, the rest wait behind, in order,
and what is added meanwhile comes after them. So nothing passes the event that is held. A heap finds the retries that
are due, O(log n); the time is the caller's to say.

What there is to know of a key that is not held is its *note*: how often its head has failed, that it is to be parked
(which is done when its turn comes, without a search in the ring), who waits for room in its lane, or its *marks*: who
is to be told when all events that it had at a moment have ended. A mark is a number, of those that have not; each that
ends for good counts it down, and what is added later is behind it. A driver looks at notes only while there are any.
Invariant:

    set(aside) == set(retrying) | set(parked)                             (disjoint, and none of them in lanes)
    waiting    == len(ready) + len(aside) + sum(len(behind))              (in lanes and aside)
    0 < each mark of a key <= how many events it has                      (one that is at 0 has been told)

An event that is given up on is dead: it leaves its lane, and is kept in `dead`, the newest `max_dead` of them.

Each transition that takes an event from a worker (`retry`, `park_head`, `bury`) does it in one statement, after which
`holds` says that the worker has it no more: whoever is interrupted can tell (P11).
"""

from __future__ import annotations

import itertools
import math
from collections import OrderedDict, deque
from collections.abc import Iterable
from dataclasses import dataclass, replace
from heapq import heapify, heappop, heappush
from typing import Any, Generic

from workpool.lanes import NOTHING, E, K
from workpool.records import Dead, Explanation
from workpool.twin import Lanes

__all__ = ["Held", "HeldLanes", "Note"]


@dataclass(slots=True)
class Note(Generic[E]):
    """What there is to know of a key beyond its events."""

    failures: int = 0
    """How many deliveries of its head have failed."""
    error: str = ""
    """The last of them, as text: a traceback would hold what its frames hold."""
    failed: float | None = None
    """When the first of them failed."""
    parking: bool = False
    """It is to be parked when its turn comes."""
    line: OrderedDict[object, tuple[Any, E]] | None = None
    """Who waits for room in its lane, the first first, each with what it adds."""
    marks: dict[object, int] | None = None
    """Who is to be told when the events before its mark have ended: the driver's token, and how many have not."""

    def is_blank(self) -> bool:
        """Whether it says nothing."""
        return not (self.failures or self.parking or self.line or self.marks)

    def marks_without(self, place: int) -> dict[object, int] | None:
        """Its marks once the event at a place of its lane has ended; the head's is 0, in flight or not."""
        return self.marks and {gate: ahead - (ahead > place) for gate, ahead in self.marks.items()}


@dataclass(frozen=True, slots=True)
class Held(Generic[K, E]):
    """A key that may not start, with its head."""

    key: K
    event: E
    note: Note[E]
    since: float
    due: float = math.inf
    ticket: int = 0
    """Its number among the timers; 0 for a parked one."""


class HeldLanes(Lanes[K, E], Generic[K, E]):
    """Lanes with keys that are held, and with events that are dead."""

    __slots__ = (
        "_tickets", "admitted", "alarm", "buried", "cancelled", "dead", "dead_forgotten", "lookouts", "max_dead",
        "notes", "parked", "retrying", "rubbish", "timers",
    )  # fmt: skip

    aside: dict[K, deque[E] | None]
    asleep: int
    in_flight: int
    lanes: dict[K, deque[E] | None]
    waiting: int

    def __init__(self, limit: int, max_dead: int) -> None:
        super().__init__(limit)
        self.retrying: dict[K, Held[K, E]] = {}
        """Keys whose head waits for its next attempt."""
        self.parked: dict[K, Held[K, E]] = {}
        """Keys that wait for somebody to resume them."""
        self.notes: dict[K, Note[E]] = {}
        """Keys that are not held, and of which there is something to know. A key to be parked may be idle."""
        self.timers: list[tuple[float, int, K]] = []
        """A heap of when keys are due; one whose ticket is not its key's any more is void."""
        self.alarm: float = math.inf
        """When `release` is called next, for all the driver knows."""
        self.max_dead: int = max_dead
        self.buried: OrderedDict[Dead, None] = OrderedDict()
        """The dead events that are kept, the oldest first."""
        self.dead: int = 0
        self.cancelled: int = 0
        self.dead_forgotten: int = 0
        """Dead events that are not kept any more."""
        self.admitted: list[object] = []
        """Whom the driver has to tell yet: those who were let in, those whose marks are reached, and the lookouts."""
        self.lookouts: list[object] = []
        """Who is told of each key that is parked."""
        self.rubbish: list[object] = []
        """What the driver drops when nobody is inside: dropping an event can run the user's code."""
        self._tickets = itertools.count(1)

    # What a worker does with an event that failed. It is counted asleep afterwards, and `wake` is to be called.

    def attempt(self, key: K) -> int:
        """Which delivery of the head of a key, ready or in flight, this is, from 1."""
        try:
            note = self.notes.get(key)
        except Exception:
            return 1  # A key that cannot be looked up any more: whoever fails for it asks, too.
        return note.failures + 1 if note else 1

    def fail_once(self, key: K, error: str, now: float) -> None:
        """Note that a delivery of the head of a key has failed."""
        note = self.notes.setdefault(key, Note())
        note.failures, note.error = note.failures + 1, error
        if note.failed is None:
            note.failed = now

    def again(self, worker: int, item: tuple[K, E]) -> None:
        """Give an event back to be delivered again at once: its key takes its turn."""
        self.ready.append(item)
        self.holds[worker], self.in_flight, self.waiting, self.asleep = (
            NOTHING, self.in_flight - 1, self.waiting + 1, self.asleep + 1,
        )  # fmt: skip

    def retry(self, worker: int, item: tuple[K, E], now: float, due: float) -> bool:
        """Hold the key of an event until it is due; whether that is before the alarm."""
        key, event = item
        held = Held(key, event, self.notes.get(key) or Note(), now, due, next(self._tickets))
        heappush(self.timers, (due, held.ticket, key))
        self._hold(worker, self.retrying, held)
        if due >= self.alarm:
            return False
        self.alarm = due  # The driver is told once, not for each that is due before its next look.
        return True

    def park_head(self, worker: int, item: tuple[K, E], now: float) -> None:
        """Park the key of an event, with the event at its head."""
        key, event = item
        note = self.notes.get(key) or Note()
        self._hold(worker, self.parked, Held(key, event, note, now))
        note.parking = False
        self.admitted += self.lookouts

    def bury(self, worker: int, item: tuple[K, E], now: float) -> None:
        """Give up on an event; its lane moves up."""
        key, event = item
        note = self.notes.get(key) or Note()
        dead = Dead(key, event, note.failures, note.error, note.failed, now)
        self.buried[dead], self.holds[worker], self.dead, self.in_flight, self.asleep = (
            None, NOTHING, self.dead + 1, self.in_flight - 1, self.asleep + 1,
        )  # fmt: skip
        self._advance(key)
        self.heed(key)
        self._keep_newest()

    def heed(self, key: K) -> None:
        """Act on the note of a key whose head has ended at a worker: its lane has moved up."""
        note = self.notes.get(key)
        if note is not None:
            note.marks = note.marks_without(0)
            self._act_on(key, note)

    def is_to_park(self, key: K) -> bool:
        """Whether a key that was chosen is to be parked instead."""
        note = self.notes.get(key)
        return note is not None and note.parking

    # Time.

    def release(self, now: float) -> bool:
        """Let the keys that are due take their turn, and set the alarm; whether to wake a worker."""
        timers = self.timers
        while timers and timers[0][0] <= now:
            _, ticket, key = heappop(timers)
            held = self.retrying.get(key)
            if held is not None and held.ticket == ticket:
                self._let_go(self.retrying, held)
        self.alarm = timers[0][0] if timers else math.inf
        self._shrink()
        return self.wake()

    # By hand.

    def park(self, key: K, now: float) -> None:
        """Hold a key, whatever its state: a ready one when its turn comes, one in flight when its event has ended."""
        if key in self.parked:
            return
        held = self.retrying.get(key)
        if held is None:
            self.notes.setdefault(key, Note()).parking = True
        else:
            try:
                self.parked[held.key] = Held(held.key, held.event, held.note, now)
                del self.retrying[held.key]
            except BaseException:
                if held.key in self.retrying:
                    self.parked.pop(held.key, None)
                raise
            self.admitted += self.lookouts
            self._shrink()

    def resume(self, key: K) -> bool:
        """Let a key that is parked, is to be, or waits for its retry take its turn; whether it was one."""
        if held := self.parked.get(key):
            self._let_go(self.parked, held)
        elif held := self.retrying.get(key):
            self._let_go(self.retrying, held)
        elif (note := self.notes.get(key)) and note.parking:
            note.parking = False
            self.strike_blank(key, note)
        else:
            return False
        self._shrink()
        return True

    def skip_head(self, key: K, now: float) -> Dead | None:
        """Give up on the head of a held key, and let the rest take its turn; None for a key that is not held."""
        held = self.parked.get(key) or self.retrying.get(key)
        if held is None:
            return None
        note, rest = held.note, replace(held.note, marks=held.note.marks_without(0))
        dead = Dead(held.key, held.event, note.failures, note.error, note.failed, now)
        where = self.parked if held.due == math.inf else self.retrying
        try:
            self.buried[dead], self.dead, self.waiting, _ = None, self.dead + 1, self.waiting - 1, where.pop(held.key)
            self._go_on(held.key, rest)
        except BaseException:
            if dead in self.buried:
                self._go_on(held.key, rest)
            raise
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
        parked, retrying = self.parked.get(key), self.retrying.get(key)
        held = parked or retrying
        note = (held.note if held else self.notes.get(key)) or Note()
        waiting = len(self.behind(key))
        facts = (note.failures + 1, note.error)
        if held:
            due = held.due if retrying else None
            return Explanation(key, "parked" if parked else "retrying", waiting + 1, *facts, held.since, due)
        if key in self.keys_in_flight():
            return Explanation(key, "in flight", waiting, *facts)
        if key in self.lanes:
            return Explanation(key, "ready", waiting + 1, *facts)
        return Explanation(key, "parked" if note.parking else "idle", 0, *facts)

    def behind(self, key: K) -> deque[E] | tuple[()]:
        """The events behind the head of a key, held or not."""
        return self.lanes.get(key) or self.aside.get(key) or ()

    def noted(self, key: K) -> Note[E] | None:
        """The note of a key, held or not, if there is one."""
        held = self.parked.get(key) or self.retrying.get(key)
        return held.note if held else self.notes.get(key)

    def note(self, key: K) -> Note[E]:
        """The note of a key, held or not: made where there is none."""
        held = self.parked.get(key) or self.retrying.get(key)
        return held.note if held else self.notes.setdefault(key, Note())

    def held(self) -> Iterable[Held[K, E]]:
        """All keys that are held."""
        return itertools.chain(self.retrying.values(), self.parked.values())

    # Seen from Lanes.

    def heads(self) -> Iterable[tuple[K, E]]:
        """The first event of each active key that is not in flight, in the ring or held."""
        return itertools.chain(self.ready, ((held.key, held.event) for held in self.held()))

    def check_invariants(self) -> None:
        """Hold the module's equations too. O(backlog): for tests."""
        super().check_invariants()
        tickets = {ticket for _, ticket, _ in self.timers}
        assert all(held.ticket in tickets for held in self.retrying.values()), "a retry is never due"
        assert len(self.timers) <= 2 * len(self.retrying) + _SPARE, "void timers are kept"
        assert len(self.buried) <= self.max_dead, "more dead events are kept than there may be"
        assert not any(note.is_blank() for note in self.notes.values()), "a note that says nothing is kept"
        held = self.retrying.keys() | self.parked.keys()
        assert not held & self.notes.keys(), "a held key has a second note"
        assert held == self.aside.keys(), "a key is held without its lane, or is not"
        assert not held & self.lanes.keys(), "a held key has a second lane"
        for key, note in [*self.notes.items(), *((each.key, each.note) for each in self.held())]:
            events = 1 + len(self.behind(key)) if key in self.lanes or key in self.aside else 0
            assert all(0 < ahead <= events for ahead in (note.marks or {}).values()), "a mark is miscounted"

    # Steps.

    def _let_in(self, note: Note[E]) -> None:
        """The lane of a key has moved up: whoever waits for room in it may come in. Nobody does, without a bound."""

    def _hold(self, worker: int, where: dict[K, Held[K, E]], held: Held[K, E]) -> None:
        try:
            self.aside[held.key] = self.lanes[held.key]
            where[held.key], self.holds[worker], self.in_flight, self.waiting, self.asleep = (
                held, NOTHING, self.in_flight - 1, self.waiting + 1, self.asleep + 1,
            )  # fmt: skip
            del self.lanes[held.key]
        except BaseException:
            (self.lanes if self.holds[worker] is NOTHING else self.aside).pop(held.key, None)
            raise
        self.notes.pop(held.key, None)

    def _let_go(self, where: dict[K, Held[K, E]], held: Held[K, E]) -> None:
        item = (held.key, held.event)
        try:
            if not held.note.is_blank():
                self.notes[held.key] = held.note  # First: who waits in its line has to be found there.
            self.lanes[held.key] = self.aside[held.key]
            self.ready.append(item)
            del where[held.key]
            del self.aside[held.key]
        except BaseException:
            if self.ready and self.ready[-1][0] is item[0]:
                where.pop(held.key, None)
                self.aside.pop(held.key, None)
            else:
                self.notes.pop(held.key, None)
                self.lanes.pop(held.key, None)
            raise

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
            self.waiting, self.cancelled, note.marks = self.waiting - 1, cancelled, note.marks_without(place)
        if place == 0:
            self.rubbish.append(key)  # Nobody else may hold it.
            if key in self.lanes and not (self.ready and self.ready[-1][0] is key):
                self._advance(key)
        self._act_on(key, note, place)

    def _act_on(self, key: K, note: Note[E], place: int = 0) -> None:
        """See to those who wait for an event that has gone from a place of its lane. It may be done twice."""
        if place == 0:
            note.failures, note.error, note.failed = 0, "", None  # What is known of a head is over with it.
        if note.line:
            self._let_in(note)
        if note.marks:
            self.admitted += [gate for gate, ahead in note.marks.items() if not ahead]
            note.marks = {gate: ahead for gate, ahead in note.marks.items() if ahead} or None
        self.strike_blank(key, note)

    def _advance(self, key: K) -> None:
        """Let the lane of a key move up, whose head has gone from where it was."""
        if behind := self.lanes[key]:
            self.ready.append((key, behind.popleft()))
            return
        del self.lanes[key]
        if not self.lanes:
            self.lanes = {}

    def strike_blank(self, key: K, note: Note[E]) -> None:
        """Drop the note of a key that is not held, if it says nothing."""
        if note.is_blank():
            self.notes.pop(key, None)
            if not self.notes:
                self.notes.clear()  # It gives back what it grew by, and stays the one that workers look at.

    def _shrink(self) -> None:
        """Release what grew. A dict never shrinks by itself, and a void timer names a key that may be idle."""
        if not self.parked:
            self.parked = {}
        if not self.retrying:
            self.retrying = {}
        if not self.aside:
            self.aside = {}
        if len(self.timers) > 2 * len(self.retrying) + _SPARE:
            valid = {held.ticket for held in self.retrying.values()}
            self.timers = [timer for timer in self.timers if timer[1] in valid]
            heapify(self.timers)

    def _keep_newest(self) -> None:
        while len(self.buried) > self.max_dead:
            (oldest, _), self.dead_forgotten = self.buried.popitem(last=False), self.dead_forgotten + 1
            self.rubbish.append(oldest)


_SPARE = 16
"""Void timers that are no matter."""
