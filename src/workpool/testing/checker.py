"""The checker of histories: what is read from records, held to the promises. `workpool.testing.history` says which."""

from __future__ import annotations

import math
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Hashable, Iterator, Sequence, Set
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

__all__ = ["Account", "Kind", "Record", "exactly_once", "isolation", "order", "read", "superseded"]

Kind = Literal["add", "accepted", "refused", "start", "end", "raised", "park", "letting go", "resume", "skip"]
Record: TypeAlias = tuple[Kind, int, Hashable, float]
"""One thing that happened: what, to which event (-1: to a key as such), of which key, when. A tuple: it is cheap."""


@dataclass(slots=True)
class Life:
    """What became of an event between one add, or replay, and its end. The times are places in the history."""

    number: int
    key: Hashable
    called: int
    before: Life | None
    """The one that ended before it was replayed."""
    accepted: float = math.inf
    refused: bool = False
    first: float = math.inf
    """When its first delivery started,"""
    last: float = -1
    """and when its last ended."""
    handled: int = 0
    may_be_dead: bool = False


@dataclass(slots=True)
class Account:
    """What a history tells, read once from its start to its end."""

    of_key: dict[Hashable, list[Life]] = field(default_factory=lambda: defaultdict(list))
    """In the order of their adds."""
    of_event: dict[int, Life] = field(default_factory=dict)
    """The newest of each."""
    running: dict[Hashable, tuple[int, ...]] = field(default_factory=dict)
    """Events that are delivered at the end of the history."""
    broken: list[str] = field(default_factory=list)
    """What is wrong with the deliveries, one beside the other."""


def read(records: list[Record]) -> Account:
    """What became of each event, and which deliveries overlapped or came under a wrong key."""
    account = Account()
    of_key, of_event, running, broken = account.of_key, account.of_event, account.running, account.broken
    for at, (kind, number, key, _) in enumerate(records):
        if kind == "add":
            of_event[number] = life = Life(number, key, at, of_event.get(number))
            of_key[key].append(life)
            continue
        if number not in of_event:
            continue
        life = of_event[number]
        if kind == "accepted":
            life.accepted = at
        elif kind == "start":
            if life.first == math.inf:
                life.first = at
            life.last = math.inf  # Until it ends.
            if key is not life.key and key != life.key:
                broken.append(f"P1 exactly once: event {number} of key {life.key!r} was delivered under key {key!r}")
            others = running.get(life.key, ())
            if others:
                broken.append(f"P2 order: events {others[-1]} and {number} of key {life.key!r} overlap")
            running[life.key] = (*others, number)
        elif kind in ("end", "raised"):
            life.last = at
            if kind == "end":
                life.handled += 1
            else:
                life.may_be_dead = True
            others = tuple(other for other in running.pop(life.key, ()) if other != number)
            if others:
                running[life.key] = others
        elif kind == "skip":
            life.may_be_dead = True
        elif life.before is None:
            life.refused = True
        else:  # A replay that was refused: whatever has happened meanwhile was the life's before it.
            before = of_event[number] = life.before
            before.first, before.last = min(before.first, life.first), max(before.last, life.last)
            before.handled, before.may_be_dead = before.handled + life.handled, before.may_be_dead or life.may_be_dead
            life.first, life.last = math.inf, -1
    return account


def superseded(account: Account, ended: set[int], merged: int) -> set[int]:
    """Events that are in no place, so many of those that a newer one of their key may have taken the place of."""
    found: list[Life] = []
    for lives in account.of_key.values() if merged else ():
        newest = max(lives, key=lambda life: -1 if life.accepted == math.inf else life.accepted)
        for life in lives:
            is_older = life is not newest and life.accepted < math.inf and life.called < newest.accepted
            is_lost = not life.handled and life.number not in ended and account.of_event[life.number] is life
            if is_older and is_lost:
                found.append(life)
    return {life.number for life in sorted(found, key=lambda life: life.may_be_dead)[:merged]}


def exactly_once(
    account: Account, left: list[int], dead: list[int], told: tuple[int, int], superseded: Set[int] = frozenset()
) -> list[str]:
    """P1, given what was returned, what is dead, and in whose place newer ones came.

    Of the dead that are not kept, and of those that are merged, only how many there are is `told`.
    """
    forgotten, merged = told
    returned, buried = Counter(left), Counter(dead)
    broken, lost, unknown, uncertain = [], [], 0, 0
    for number, life in account.of_event.items():
        times, accepted, handled, may_be_dead = 0, 0, 0, False
        each: Life | None = life
        while each is not None:
            may_be_dead = may_be_dead or (not accepted and each.may_be_dead)
            times, accepted, handled = times + 1, accepted + (each.accepted < math.inf), handled + each.handled
            each = each.before
        died = buried[number] + max(0, accepted - 1)  # Of what is replayed, the life before has ended so.
        places = handled + returned[number] + died
        if accepted <= places <= times - life.refused:
            unknown += may_be_dead * (times - life.refused - places)  # An add that was cut is accepted or not.
            uncertain += times - life.refused - places
            continue
        if places < accepted and number in superseded:
            continue
        what = (
            f"P1 exactly once: event {number} was {'accepted' if accepted else 'refused'}, "
            f"handled {handled} times, returned {returned[number]} times and dead {died} times"
        )
        if places < accepted and may_be_dead:
            lost.append(what)
        else:
            broken.append(what)
    if len(lost) > forgotten:
        broken.extend(lost)
    elif len(lost) + unknown < forgotten:
        broken.append(
            f"P1 exactly once: {forgotten} events are said to be dead and not kept, "
            f"and {len(lost)} are in no other place"
        )
    if len(superseded) + uncertain < merged:
        broken.append(
            f"P1 exactly once: {merged} events are said to be merged, "
            f"and {len(superseded)} are in no other place and had a newer one"
        )
    return broken


def order(account: Account, left: Sequence[tuple[Any, Any]] = ()) -> list[str]:
    """P2, given what was returned; and what else is wrong with the deliveries, one beside the other."""
    returned: dict[Hashable, list[Life]] = defaultdict(list)
    broken = list(account.broken)
    for key, envelope in left:
        life = account.of_event[envelope.number]
        life.last = math.inf  # It would be delivered again.
        returned[life.key].append(life)
        if key is not life.key and key != life.key:
            broken.append(f"P1 exactly once: event {life.number} of key {life.key!r} is returned under key {key!r}")
    for key, of_key in account.of_key.items():
        broken.extend(
            f"P2 order: event {later.number} of key {key!r} started before the earlier event {earlier.number} had ended"
            for earlier, later in _passed(of_key)
        )
    for key, of_key in returned.items():
        latest = of_key[0]
        for life in of_key:
            if latest.called > life.accepted:
                broken.append(
                    f"P2 order: event {latest.number} of key {key!r} is returned before the earlier event {life.number}"
                )
            latest = max(latest, life, key=lambda life: life.called)
    return broken


def _passed(lives: list[Life]) -> Iterator[tuple[Life, Life]]:
    """Each event of a key that another passed, which was added later and started before it had ended."""
    last = -1.0
    for life in lives:
        if life.first < last:
            break
        last = max(last, life.last)
    else:
        return  # One after the other, as they were added.
    started = deque(sorted((life for life in lives if life.first < math.inf), key=lambda life: life.first))
    latest = Life(-1, None, -1, None)  # The one that was added last, of those that started before.
    for life in sorted((life for life in lives if life.last >= 0), key=lambda life: life.last):
        while started and started[0].first < life.last:
            latest = max(latest, started.popleft(), key=lambda life: life.called)
        if latest.called > life.accepted:
            yield life, latest


class _Keys:
    """What each key does at one place in the history, as far as it shows."""

    def __init__(self, aside: set[int]) -> None:
        self.running: set[Hashable] = set()
        self._aside = aside  # Events that never came to a worker, for reasons that are not in the history.
        self._waits: set[int] = set()  # Events that were accepted and have not been delivered,
        self._waiting: dict[Hashable, int] = defaultdict(int)  # and how many these are of each key.
        self._begun: set[int] = set()
        self._failed: set[Hashable] = set()  # Keys whose last delivery failed: who knows what they wait for.
        self._again: set[Hashable] = set()  # Keys that are to retry now.
        self._parked: set[Hashable] = set()
        self._letting_go: set[Hashable] = set()  # Keys that a call lets go, and that have not started since it came.

    def is_startable(self, key: Hashable) -> bool:
        """Whether an event of a key waits for nothing but a worker."""
        held = key in self.running or key in self._failed or key in self._parked
        return not held and (self._waiting[key] > 0 or key in self._again)

    def note(self, kind: Kind, number: int, key: Hashable) -> None:
        """Go on by one record."""
        if kind == "add":
            self._begun.discard(number)
        elif kind == "accepted":
            if number not in self._begun and number not in self._aside:
                self._waits.add(number)
                self._waiting[key] += 1
        elif kind == "start":
            self._begin(number, key)
            self._let_go(key)
            self.running.add(key)
        elif kind in ("end", "raised"):
            self.running.discard(key)
            if kind == "raised":
                self._failed.add(key)
        elif kind == "park":
            self._parked.add(key)
        elif kind == "letting go":
            self._letting_go.add(key)
        elif kind in ("resume", "skip"):
            failed = key in self._failed
            self._parked.discard(key)
            if kind == "skip":
                self._begin(number, key)
            if key in self._letting_go:  # Else it has gone on already, and may have failed again.
                self._let_go(key)
                if kind == "resume" and failed:
                    self._again.add(key)

    def _begin(self, number: int, key: Hashable) -> None:
        self._begun.add(number)
        if number in self._waits:
            self._waits.discard(number)
            self._waiting[key] -= 1

    def _let_go(self, key: Hashable) -> None:
        self._failed.discard(key)
        self._again.discard(key)
        self._letting_go.discard(key)


def isolation(records: list[Record], account: Account, ended: set[int], workers: int, patience: float) -> list[str]:
    """P3 and P5, given the events that were returned, are dead, or are merged."""
    if not records or records[-1][3] - records[0][3] <= patience:
        return []  # Nothing can have waited for longer.
    keys = _Keys({number for number in ended if account.of_event[number].first == math.inf})
    startable: OrderedDict[Hashable, float] = OrderedDict()  # Since when, the longest first.
    idle_since: float | None = None  # Workers are there once the first event has started.
    started = False
    reported: set[Hashable] = set()
    broken = []
    for kind, number, key, now in records:
        if startable and idle_since is not None:
            longest, since = next(iter(startable.items()))
            waited = now - max(since, idle_since)
            if waited > patience and longest not in reported:
                reported.add(longest)
                idle = workers - len(keys.running)
                broken.append(
                    f"{'P3 isolation' if keys.running else 'P5 no lost wake-up'}: an event of key {longest!r} waited "
                    f"{waited:.3f} s while {idle} of {workers} workers had nothing to do"
                )
        keys.note(kind, number, key)
        started = started or kind == "start"
        if keys.is_startable(key):
            startable.setdefault(key, now)
        else:
            startable.pop(key, None)
        if len(keys.running) >= workers:
            idle_since = None
        elif idle_since is None and started:
            idle_since = now
    return broken
