"""A dispatch that keeps at most one waiting event of a key: a newer one takes its place (`coalesce="latest"`).

Each event travels in an envelope. That of a key which has not been opened is in `latest`, wherever in the lanes it is,
and a newer event is put into it: in O(1), without a search, and at the place that the older one had. A worker opens it
when its handler starts. So what was added before that is what it handles, and what comes later waits behind it:

    idle --add--> waiting --open--> in flight --add--> in flight, and one waits --end--> waiting
                   |   ^                 |                        |
                   +add+                 +--fail--> waiting       +--fail--> waiting: the newer, the older is merged

One run always starts after the last add (as client-go's work queue promises). What is known of the failures of an event
is over with it: the newer one starts its attempts afresh, at once, or when its own delay is over. A parked key stays
parked, with the newer event. Each that was replaced has ended, and is counted as merged. Invariant:

    latest == the waiting envelopes, by key        (and those that a worker was given, and has not opened)

Two events of a key are left only where the pool fails: the one in flight, and the newer one.
"""

from __future__ import annotations

from collections import deque
from dataclasses import replace
from heapq import heappush
from typing import Any, Generic

from workpool.dispatch import Dispatch
from workpool.envelope import Envelope, opened
from workpool.lanes import NOTHING, E, K
from workpool.notes import Held, Late
from workpool.policy import Fail, Park, Skip
from workpool.records import Dead, State

__all__ = ["Coalescing"]


class Coalescing(Dispatch[K, E], Generic[K, E]):
    """The whole contract, with at most one waiting event of a key. Each event that it is given is an envelope."""

    __slots__ = ("latest",)

    added: int
    alarm: float
    asleep: int
    delayed: dict[K, Held[K, E]]
    holds: list[K]
    in_flight: int
    latest: dict[K, Envelope]
    merged: int
    retrying: dict[K, Held[K, E]]
    timers: list[tuple[float, int, K]]

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.latest = {}
        """The envelope of each key that was not opened."""

    def accept(self, key: K, event: E, late: Late | None, force: bool = False) -> bool | None:
        """Accept an event, in the place of one of its key that waits; where `force` is not set, leave it to `offer`."""
        envelope: Any = event
        waiting = self.latest.get(key)
        if force and waiting is not None and not (late and self._is_chosen(key)):
            return self._merge(key, waiting, envelope, late)
        added = self.added
        try:
            wake = super().accept(key, event, late, force)
            if wake is not None:
                self.latest[key] = envelope
        except BaseException:
            if self.added > added:
                self.latest[key] = envelope
            raise
        return wake

    def offer(
        self, key: K, event: E, adder: object = None, inside: bool = False, late: Late | None = None
    ) -> bool | None:
        """Decide about an event: one that takes the place of another needs no room."""
        if key in self.latest and (self.state is State.OPEN or (inside and self.state is State.DRAINING)):
            return self.accept(key, event, late, True)
        return super().offer(key, event, adder, inside, late)

    def open(self, key: K, event: E) -> None:
        """Begin to handle an event that a worker was given: nothing takes its place any more."""
        if self.latest.get(key) is event:
            self._forget(key)

    def failed(
        self, worker: int, item: tuple[K, E], decision: float | Fail | Skip | Park, error: str, now: float
    ) -> bool:
        """Do with the event at a worker what was decided; with one that a newer one waits behind, nothing more."""
        key, event = item
        if isinstance(decision, Skip) and self.serving:
            return super().failed(worker, item, decision, error, now)
        if self.behind(key):
            self._supersede(worker, item)
            if isinstance(decision, Park):
                self.park(key, now)
            return False
        envelope: Any = event
        self.latest[key] = envelope
        return super().failed(worker, item, decision, error, now)

    def skip_head(self, key: K, now: float) -> Dead | None:
        """Give up on the event of a held key."""
        held = self.held_at(key)
        if held is None:
            return None
        envelope: Any = held.event
        self._forget(key)  # First: a newer event that were put into one that has gone would be lost.
        try:
            return super().skip_head(key, now)
        except BaseException:
            if self.held_at(key) is held:
                self.latest[key] = envelope
            raise

    def end(self) -> None:
        """Hand what is left over to `left`."""
        super().end()
        self.latest = {}

    def check_invariants(self) -> None:
        """Hold the module's equations too. O(backlog): for tests."""
        super().check_invariants()
        if self.serving:
            waiting = [*self.heads(), *((key, event) for key, behind in self.all_lanes() for event in behind or ())]
            assert len(dict(waiting)) == len(waiting), "two events of a key wait"
            assert all(self.latest.get(key) is event for key, event in waiting), "a newer event would pass one"
            assert self.latest.keys() <= dict(waiting).keys() | set(self.keys_in_flight()), "what has gone is kept"

    # Steps.

    def _is_lane_full(self, key: K) -> bool:  # noqa: ARG002
        """Never: behind the first of a key there is one event at most, whose place a newer one takes."""
        return False

    def _is_chosen(self, key: K) -> bool:
        """Whether a worker has what waits, and will open it: too late for a delay. O(workers)."""
        return not self.behind(key) and key in self.keys_in_flight()

    def _forget(self, key: K) -> None:
        """Have no newer event take the place of the one that a key has."""
        self.latest.pop(key, None)
        if not self.latest:
            self.latest = {}

    def _merge(self, key: K, waiting: Envelope, newer: Envelope, late: Late | None) -> bool:
        """Put a newer event in the place of one that waits; whether to wake a worker."""
        older, context, added, merged = waiting.event, waiting.context, self.added + 1, self.merged + 1
        self.rubbish.append(newer)  # It takes the older event away.
        waiting.event, newer.event, waiting.context, newer.context, self.added, self.merged = (
            newer.event, older, newer.context, context, added, merged,
        )  # fmt: skip
        try:
            self._say("merged", key, older)
            self._begin_afresh(key, late)
        except BaseException:
            self._begin_afresh(key, late)
            raise
        return self.wake()

    def _begin_afresh(self, key: K, late: Late | None) -> None:
        """Have a key wait for nothing that its older event waited for. It may be done twice."""
        held = self.held_at(key)
        if held is None:
            self._renew_note(key, late)
        else:
            held.note.forget_failures()
            if held.why == "parked":
                held.note.delays = deque([(held.note.passed, late[1])]) if late else None
            elif late is None:
                self._let_go(held)
                self._shrink()
            else:
                self._hold_anew(held, late)

    def _renew_note(self, key: K, late: Late | None) -> None:
        """What was known of an event that waits in the ring, or behind one in flight, is of the newer one now."""
        note = self.notes.get(key)
        if note is None and late is None:
            return
        note = note or self.note(key)
        place = note.passed + len(self.behind(key))
        if place == note.passed:
            note.forget_failures()
        if note.delays and note.delays[-1][0] == place:
            note.delays.pop()
            note.delays = note.delays or None
        if late:
            self._put_behind(key, late[1])
        self.strike_blank(key, note)

    def _hold_anew(self, held: Held[K, E], late: Late) -> None:
        """Hold a key until another time."""
        anew = replace(held, since=late[0], due=late[1], why="delayed", ticket=next(self._tickets))
        heappush(self.timers, (anew.due, anew.ticket, anew.key))
        self.delayed[held.key] = anew
        if held.why == "retrying":
            del self.retrying[held.key]
        self._is_earlier(anew.due)
        self._shrink()

    def _supersede(self, worker: int, item: tuple[K, E]) -> None:
        """End an event that failed, for a newer one of its key waits behind it; its lane moves up."""
        key, event = item
        older = opened(event)
        self.holds[worker], self.merged, self.in_flight, self.asleep = (
            NOTHING, self.merged + 1, self.in_flight - 1, self.asleep + 1,
        )  # fmt: skip
        self._advance(key)
        note = self.notes.get(key)
        if note is not None and note.marks:
            # Whoever waits for the older one waits for the newer one, which stands for it.
            note.marks = dict.fromkeys(note.marks, 2)
        self.heed(key)
        self._say("merged", key, older)
