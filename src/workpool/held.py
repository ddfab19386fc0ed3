"""Keys that may not start now: those whose head waits for its retry, and those that are parked.

A third place beside the two of `Lanes`. No worker and no scan ever sees it, so a held key costs nothing to step around:

    ready --take, next--> in flight --retry--> retrying --due, resume--> ready
      | |                    |                    | park
      | +------ park --------+------ park -----> parked --resume, skip_head--> ready | idle
      +----- put_off ----------------------> delayed --due, resume--> ready       (from idle too: submit_late)

A held key keeps its lane, which lies `aside`: its head is in `retrying`, `parked` or `delayed`, the rest wait behind,
in order, and what is added meanwhile comes after them. So nothing passes the event that is held. A heap finds the keys
that are due, O(log n); the time is the caller's to say.

What there is to know of a key that is not held is its *note*: how often its head has failed, that it is to be parked
or that an event of it is to start late (which are done when its turn comes, without a search in the ring), who waits
for room in its lane, or its *marks*: who is to be told when all events that it had at a moment have ended. A mark is a
number, of those that have not; each that ends for good counts it down, and what is added later is behind it. A driver
looks at notes only while there are any. Invariant:

    set(aside) == set(retrying) | set(parked) | set(delayed)              (disjoint, and none of them in lanes)
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
from heapq import heapify, heappop, heappush
from typing import Any, Generic

from workpool.envelope import opened
from workpool.lanes import NOTHING, E, K
from workpool.notes import Held, Note
from workpool.records import Dead
from workpool.twin import Lanes

__all__ = ["HeldLanes", "dead_of"]


class HeldLanes(Lanes[K, E], Generic[K, E]):
    """Lanes with keys that are held, and with events that are dead."""

    __slots__ = (
        "_tickets", "admitted", "alarm", "buried", "cancelled", "dead", "dead_forgotten", "delayed", "lookouts",
        "max_dead", "merged", "news", "notes", "parked", "retrying", "rubbish", "timers",
    )  # fmt: skip

    added: int
    aside: dict[K, deque[E] | None]
    asleep: int
    handled: int
    in_flight: int
    lanes: dict[K, deque[E] | None]
    waiting: int

    def __init__(self, limit: int, max_dead: int) -> None:
        super().__init__(limit)
        self.retrying: dict[K, Held[K, E]] = {}
        """Keys whose head waits for its next attempt."""
        self.parked: dict[K, Held[K, E]] = {}
        """Keys that wait for somebody to resume them."""
        self.delayed: dict[K, Held[K, E]] = {}
        """Keys whose head may not start before a time."""
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
        self.merged: int = 0
        self.dead_forgotten: int = 0
        """Dead events that are not kept any more."""
        self.admitted: list[object] = []
        """Whom the driver has to tell yet: those who were let in, those whose marks are reached, and the lookouts."""
        self.lookouts: list[object] = []
        """Who is told of each key that is parked."""
        self.rubbish: list[object] = []
        """What the driver drops when nobody is inside: dropping an event can run the user's code."""
        self.news: deque[tuple[Any, ...]] | None = None
        """What the driver has to tell to hooks: which, and what of. None where there are none."""
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
        return self._hold_until(
            worker, Held(key, event, self.notes.get(key) or Note(), now, "retrying", due, next(self._tickets))
        )

    def park_head(self, worker: int, item: tuple[K, E], now: float) -> None:
        """Park the key of an event, with the event at its head."""
        key, event = item
        note = self.notes.get(key) or Note()
        self._hold(worker, self.parked, Held(key, event, note, now, "parked"))
        note.parking = False
        self._say_parked(key)

    def bury(self, worker: int, item: tuple[K, E], now: float) -> None:
        """Give up on an event, and on those that failed with it; its lane moves up."""
        key, event = item
        note = self.notes.get(key) or Note()
        dead = [dead_of(key, event, note, now)]
        self.buried[dead[0]], self.holds[worker], self.dead, self.in_flight, self.asleep = (
            None, NOTHING, self.dead + 1, self.in_flight - 1, self.asleep + 1,
        )  # fmt: skip
        for _ in range(1, note.batch):
            behind: Any = self.lanes[key]
            dead.append(dead_of(key, next(iter(behind)), note, now))
            self.buried[dead[-1]], self.dead, self.waiting, _ = None, self.dead + 1, self.waiting - 1, behind.popleft()
            note.marks, note.passed, note.delays = note.without(0)
        self._advance(key)
        self.heed(key)
        self._keep_newest()
        for each in dead:
            self._say("dead", each)

    def heed(self, key: K) -> None:
        """Act on the note of a key whose head has ended at a worker: its lane has moved up."""
        note = self.notes.get(key)
        if note is not None:
            note.marks, note.passed, note.delays = note.without(0)
            self._act_on(key, note)

    def batch(self, key: K, event: E, most: int) -> list[E]:
        """The event in flight of a key, and those behind it that are handled with it: they stay where they are.

        As many as have failed together, where they have; else up to `most`, and none that was added with a delay.
        """
        note = self.notes.get(key)
        if note is not None:
            delayed = (place - note.passed for place, _ in note.delays or () if place > note.passed)
            most = note.batch or min(most, next(delayed, most))
        return [event, *itertools.islice(self.behind(key), most - 1)]

    def may_go_on(self, key: K) -> bool:
        """Whether a worker may take the next event of the key that it holds, out of turn."""
        note = self.notes.get(key)
        return self.serving and bool(self.behind(key)) and not (note and (note.parking or note.delays))

    def go_on(self, worker: int, hand: Any, *, ended: bool) -> tuple[K, E]:
        """End the event that a worker holds, which was handled, and have it hold the next of the key, out of turn.

        Args:
            worker: Which.
            hand: Has the worker's `item`, and says whether that has `ended`.
            ended: Whether the next was handled, too.

        Returns:
            What it held, for the caller to release.
        """
        item: tuple[K, E] = hand.item
        key, handled, waiting = item[0], self.handled + 1, self.waiting - 1
        behind: Any = self.lanes[key]
        following = (key, next(iter(behind)))
        hand.item, hand.ended, self.handled, self.waiting, _ = following, ended, handled, waiting, behind.popleft()
        self.holds[worker] = key  # Whoever looks how long it runs begins anew.
        self.heed(key)
        return item

    def is_to_park(self, key: K) -> bool:
        """Whether a key that was chosen is to be parked instead."""
        note = self.notes.get(key)
        return note is not None and note.parking

    # Time.

    def submit_late(self, key: K, event: E, now: float, due: float, force: bool = False) -> bool | None:
        """Accept an event at the end of its key's lane that is not to start before a time, nor what comes after it.

        Args:
            key: As for `submit`.
            event: As for `submit`.
            now: The time.
            due: When it may start.
            force: As for `submit`.

        Returns:
            As `submit`. Where that leaves an earlier `alarm`, the driver has to be told.
        """
        if self.waiting >= self.limit and not force:
            return None
        note = self.noted(key)
        if note is None and key not in self.lanes and key not in self.aside:
            self._enter_held(Held(key, event, Note(), now, "delayed", due, next(self._tickets)))
            self._is_earlier(due)
            return False
        added = self.added
        try:
            wake = self.submit(key, event, True)
            self._put_behind(key, due)
        except BaseException:
            if self.added > added:
                self._put_behind(key, due)
            raise
        return wake

    def put_off(self, worker: int, item: tuple[K, E], now: float) -> bool:
        """Hold the key of an event that was chosen, and may not start yet; whether it was one."""
        key, event = item
        note = self.notes.get(key)
        due = note.due() if note else 0.0
        if note is None or due <= now:
            return False
        self._hold_until(worker, Held(key, event, note, now, "delayed", due, next(self._tickets)))
        note.delays = note.without(0)[2]
        return True

    def release(self, now: float) -> bool:
        """Let the keys that are due take their turn, and set the alarm; whether to wake a worker."""
        timers = self.timers
        while timers and timers[0][0] <= now:
            _, ticket, key = heappop(timers)
            held = self.retrying.get(key) or self.delayed.get(key)
            if held is not None and held.ticket == ticket:
                self._let_go(held)
        self.alarm = timers[0][0] if timers else math.inf
        self._shrink()
        return self.wake()

    def behind(self, key: K) -> deque[E] | tuple[()]:
        """The events behind the head of a key, held or not."""
        return self.lanes.get(key) or self.aside.get(key) or ()

    def noted(self, key: K) -> Note[E] | None:
        """The note of a key, held or not, if there is one."""
        held = self.held_at(key)
        return held.note if held else self.notes.get(key)

    def note(self, key: K) -> Note[E]:
        """The note of a key, held or not: made where there is none."""
        held = self.held_at(key)
        return held.note if held else self.notes.setdefault(key, Note())

    def held_at(self, key: K) -> Held[K, E] | None:
        """A key, where it is held."""
        return self.parked.get(key) or self.retrying.get(key) or self.delayed.get(key)

    def held(self) -> Iterable[Held[K, E]]:
        """All keys that are held."""
        return itertools.chain(self.retrying.values(), self.parked.values(), self.delayed.values())

    # Seen from Lanes.

    def heads(self) -> Iterable[tuple[K, E]]:
        """The first event of each active key that is not in flight, in the ring or held."""
        return itertools.chain(self.ready, ((held.key, held.event) for held in self.held()))

    def check_invariants(self) -> None:
        """Hold the module's equations too. O(backlog): for tests."""
        super().check_invariants()
        tickets = {ticket for _, ticket, _ in self.timers}
        timed = [*self.retrying.values(), *self.delayed.values()]
        assert all(held.ticket in tickets for held in timed), "a held key is never due"
        assert len(self.timers) <= 2 * len(timed) + _SPARE, "void timers are kept"
        assert len(self.buried) <= self.max_dead, "more dead events are kept than there may be"
        assert not any(note.is_blank() for note in self.notes.values()), "a note that says nothing is kept"
        held = self.retrying.keys() | self.parked.keys() | self.delayed.keys()
        assert len(held) == len(list(self.held())), "a key is held twice"
        assert not held & self.notes.keys(), "a held key has a second note"
        assert held == self.aside.keys(), "a key is held without its lane, or is not"
        assert not held & self.lanes.keys(), "a held key has a second lane"
        for key, note in [*self.notes.items(), *((each.key, each.note) for each in self.held())]:
            events = 1 + len(self.behind(key)) if key in self.lanes or key in self.aside else 0
            assert all(0 < ahead <= events for ahead in (note.marks or {}).values()), "a mark is miscounted"
            places = [place - note.passed for place, _ in note.delays or ()]
            assert places == sorted(set(places) & set(range(events))), "a delay is of no event"

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

    def _hold_until(self, worker: int, held: Held[K, E]) -> bool:
        """Hold the key of an event that a worker has until it is due; whether that is before the alarm."""
        heappush(self.timers, (held.due, held.ticket, held.key))
        self._hold(worker, self._where(held), held)
        return self._is_earlier(held.due)

    def _enter_held(self, held: Held[K, E]) -> None:
        """Accept the first event of a key, which is held at once."""
        aside, delayed, waiting, added = len(self.aside), len(self.delayed), self.waiting + 1, self.added + 1
        heappush(self.timers, (held.due, held.ticket, held.key))
        try:
            self.aside[held.key] = None
            self.delayed[held.key], self.waiting, self.added = held, waiting, added
        except BaseException:
            if len(self.delayed) > delayed:
                self.waiting, self.added = waiting, added
            elif len(self.aside) > aside:
                self.aside.popitem()  # The last one in.
            raise

    def _put_behind(self, key: K, due: float) -> None:
        """Note of the last event of a key when it may start. It may be done twice."""
        note = self.note(key)
        delays = note.delays = note.delays or deque()
        place = note.passed + len(self.behind(key))
        if not delays or delays[-1][0] < place:
            delays.append((place, due))

    def _say_parked(self, key: K) -> None:
        self.admitted += self.lookouts
        self._say("parked", key)

    def _say(self, hook: str, *what: Any) -> None:
        """Keep news, where there is somebody to hear them."""
        if self.news is not None:
            self.news.append((hook, *what))

    def _is_earlier(self, due: float) -> bool:
        """Whether a time is before the alarm, which it is set to then: the driver is told once, and not for each."""
        if due >= self.alarm:
            return False
        self.alarm = due
        return True

    def _where(self, held: Held[K, E]) -> dict[K, Held[K, E]]:
        return {"retrying": self.retrying, "parked": self.parked, "delayed": self.delayed}[held.why]

    def _let_go(self, held: Held[K, E]) -> None:
        item, where = (held.key, held.event), self._where(held)
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

    def _act_on(self, key: K, note: Note[E], place: int = 0) -> None:
        """See to those who wait for an event that has gone from a place of its lane. It may be done twice."""
        if place == 0:
            note.forget_failures()
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
        if not self.delayed:
            self.delayed = {}
        if not self.aside:
            self.aside = {}
        if len(self.timers) > 2 * (len(self.retrying) + len(self.delayed)) + _SPARE:
            valid = {held.ticket for held in self.held()}
            self.timers = [timer for timer in self.timers if timer[1] in valid]
            heapify(self.timers)

    def _keep_newest(self) -> None:
        while len(self.buried) > self.max_dead:
            (oldest, _), self.dead_forgotten = self.buried.popitem(last=False), self.dead_forgotten + 1
            self.rubbish.append(oldest)


def dead_of(key: K, event: E, note: Note[E], now: float) -> Dead:
    """The record of an event that is given up on, with what is known of it."""
    return Dead(key, opened(event), note.failures, note.error, note.failed, now)


_SPARE = 16
"""Void timers that are no matter."""
