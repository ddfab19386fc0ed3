"""A history of what happened to each event around a pool, and a checker that holds it to P1 to P5.

Each event is numbered and travels in an envelope, so that two equal events, and even the same object added twice,
stay two. What is checked, with `a` and `b` two events of one key:

- P1: an accepted event was handled once, or is in `left`, or is dead, and never two of these; no other event reached
  the handler. Of dead events that the pool does not keep any more only the number is known, and that has to be right.
- P2: if the add of `a` returned before the add of `b` was called, the last delivery of `a` ended before the first of
  `b` started, and what is left is in order. No two deliveries of one key overlap.
- P3: no event waited beside a worker without work, while events of other keys were in flight.
- P4: of what has ended, nothing is left in the pool: no key, and no reference to an event that is not dead.
- P5: no event waited beside a worker without work, while nothing was in flight.

P3 and P5 compare times, because a worker needs a moment to wake up: they count from `patience` seconds on, once the
first event has started, and for events that were not returned by an ending. A key waits for no worker from a failed
delivery on until its next one, or while it was parked by hand: what the failure meant is the pool's to know. The other
checks compare the order of records only, and a record is one append to a list, which threads make one at a time.

A replayed event is a new one in the same envelope. So what is done by hand is done through the history too.
"""

from __future__ import annotations

import functools
import gc
import itertools
import math
import time
import weakref
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Literal, Protocol, TypeVar

from workpool.arguments import seconds
from workpool.handlers import Delivery, takes_delivery
from workpool.records import Dead, Stats

__all__ = ["BrokenPromise", "History"]

E = TypeVar("E")
Kind = Literal["add", "accepted", "refused", "start", "end", "raised", "park", "resume", "skip"]


class BrokenPromise(AssertionError):
    """The history shows that a pool broke a promise; the message lists each case."""


class Pool(Protocol):
    """What a history asks of a pool."""

    workers: int

    def add(self, key: Any, event: Any, *, timeout: float | None = None) -> None: ...
    def add_nowait(self, key: Any, event: Any) -> None: ...
    def stats(self) -> Stats: ...
    def dead(self) -> list[Dead]: ...
    def replay(self, dead: Dead) -> None: ...
    def park(self, key: Any) -> None: ...
    def resume(self, key: Any) -> None: ...
    def skip_head(self, key: Any) -> Dead: ...
    @property
    def left(self) -> list[tuple[Any, Any]]: ...


@dataclass(frozen=True, slots=True)
class Record:
    """One thing that happened to one event, or to a key."""

    kind: Kind
    number: int
    """The event's; -1 where it happened to a key."""
    key: Hashable
    time: float


class Envelope(Generic[E]):
    """An event on its way through a pool, with its number."""

    __slots__ = ("__weakref__", "event", "key", "number")

    def __init__(self, number: int, key: Hashable, event: E) -> None:
        self.number: int = number
        self.key: Hashable = key
        self.event: E = event

    def __repr__(self) -> str:
        return f"<event {self.number} of key {self.key!r}: {self.event!r}>"


@dataclass(slots=True)
class Life:
    """What became of an event between one add, or replay, and its end. The times are places in the history."""

    number: int
    called: int
    accepted: float = math.inf
    refused: bool = False
    first: float = math.inf
    """When its first delivery started,"""
    last: float = -1
    """and when its last ended."""


class History:
    """Records each add, start and end, from any thread, and checks them afterwards.

    It keeps a few small records for each event, and no event: what has ended is free to go.

    Args:
        patience: How many seconds an event may wait beside an idle worker before P3 or P5 counts as broken.
        clock: Gives seconds that never go back.
    """

    def __init__(self, *, patience: float = 1.0, clock: Callable[[], float] = time.monotonic) -> None:
        self._patience = seconds(patience) or 0.0
        self._clock = clock
        self._numbers = itertools.count()
        self._records: list[Record] = []
        self._envelopes: list[weakref.ref[Envelope[Any]]] = []

    def handler(self, handler: Callable[..., object]) -> Callable[[Any, Delivery], object]:
        """A handler for the pool, which records, and calls yours with the event (and the delivery, where it asks)."""
        wants_delivery = takes_delivery(handler)

        @functools.wraps(handler, assigned=("__name__", "__doc__"), updated=())
        def recording(envelope: Envelope[Any], delivery: Delivery) -> object:
            number, key, event = envelope.number, delivery.key, envelope.event
            del envelope  # A traceback that somebody keeps would keep it.
            self._record("start", number, key)
            try:
                result = handler(event, delivery) if wants_delivery else handler(event)
            except BaseException:
                self._record("raised", number, key)
                raise
            self._record("end", number, key)
            return result

        del recording.__wrapped__  # Its signature is the one that counts, not yours.
        return recording

    def add(self, pool: Pool, key: Hashable, event: object, *, timeout: float | None = None) -> None:
        """Add an event to the pool as `pool.add` does."""
        envelope = self._wrap(key, event)
        self._accept(envelope.number, key, lambda: pool.add(key, envelope, timeout=timeout))

    def add_nowait(self, pool: Pool, key: Hashable, event: object) -> None:
        """Add an event to the pool as `pool.add_nowait` does."""
        envelope = self._wrap(key, event)
        self._accept(envelope.number, key, lambda: pool.add_nowait(key, envelope))

    def replay(self, pool: Pool, dead: Dead) -> None:
        """Add a dead event once more as `pool.replay` does."""
        self._accept(dead.event.number, dead.key, lambda: pool.replay(dead))

    def park(self, pool: Pool, key: Hashable) -> None:
        """Hold a key as `pool.park` does."""
        self._record("park", -1, key)
        pool.park(key)

    def resume(self, pool: Pool, key: Hashable) -> None:
        """Let a held key go on as `pool.resume` does."""
        pool.resume(key)
        self._record("resume", -1, key)

    def skip_head(self, pool: Pool, key: Hashable) -> Dead:
        """Give up on the first event of a held key as `pool.skip_head` does."""
        dead = pool.skip_head(key)
        self._record("skip", dead.event.number, key)
        return dead

    def handled(self, key: Hashable) -> int:
        """How many events of a key were handled."""
        return sum(record.kind == "end" and record.key == key for record in list(self._records))

    def check(self, pool: Pool) -> None:
        """Hold everything recorded so far to the promises, for a pool that has ended.

        Raises:
            BrokenPromise: With one line for each case, the first twenty of them.
        """
        broken = self.violations(pool)
        if broken:
            more = [f"... and {len(broken) - 20} more"] if len(broken) > 20 else []
            raise BrokenPromise("\n".join(broken[:20] + more))

    def violations(self, pool: Pool) -> list[str]:
        """What `check` raises for, as one line each; empty where every promise was kept."""
        left = [envelope.number for _, envelope in pool.left]
        dead = [each.event.number for each in pool.dead()]
        records = list(self._records)
        started = {record.number for record in records if record.kind == "start"}
        aside = set(left) | (set(dead) - started)
        return [
            *exactly_once(lives_of(records), records, left, dead, pool.stats().dead_forgotten),
            *order(records, pool.left),
            *_isolation(records, aside, pool.workers, self._patience),
            *self._residue(pool, {*left, *dead}),
        ]

    def _wrap(self, key: Hashable, event: object) -> Envelope[Any]:
        envelope = Envelope(next(self._numbers), key, event)
        self._envelopes.append(weakref.ref(envelope))
        return envelope

    def _accept(self, number: int, key: Hashable, add: Callable[[], None]) -> None:
        self._record("add", number, key)
        try:
            add()
        except Exception:
            self._record("refused", number, key)
            raise
        self._record("accepted", number, key)

    def _record(self, kind: Kind, number: int, key: Hashable) -> None:
        self._records.append(Record(kind, number, key, self._clock()))

    def _residue(self, pool: Pool, kept: set[int]) -> list[str]:
        broken = []
        if keys := pool.stats().keys:
            broken.append(f"P4 no residue: {keys} keys are left in a pool that has ended")
        gc.collect()
        alive = [ref() for ref in self._envelopes]
        held = [envelope for envelope in alive if envelope is not None and envelope.number not in kept]
        broken.extend(f"P4 no residue: {envelope!r} has ended and is still referred to" for envelope in held)
        return broken


def lives_of(records: list[Record]) -> dict[Hashable, list[Life]]:
    """What became of the events of each key, in the order of their adds."""
    lives: dict[Hashable, list[Life]] = defaultdict(list)
    current: dict[int, Life] = {}
    for at, record in enumerate(records):
        if record.kind == "add":
            current[record.number] = Life(record.number, at)
            lives[record.key].append(current[record.number])
        if record.number not in current:
            continue
        life = current[record.number]
        if record.kind == "accepted":
            life.accepted = at
        elif record.kind == "refused":
            life.refused = True
        elif record.kind == "start":
            life.first = min(life.first, at)
        elif record.kind in ("end", "raised"):
            life.last = at
    return lives


def exactly_once(
    lives: dict[Hashable, list[Life]], records: list[Record], left: list[int], dead: list[int], forgotten: int
) -> list[str]:
    handled = Counter(record.number for record in records if record.kind == "end")
    returned, buried = Counter(left), Counter(dead)
    accepted: Counter[int] = Counter()
    refused: Counter[int] = Counter()
    adds: Counter[int] = Counter()
    for life in itertools.chain(*lives.values()):
        adds[life.number] += 1
        accepted[life.number] += life.accepted < math.inf
        refused[life.number] += life.refused
    broken, lost, unknown = [], [], 0
    for number, times in adds.items():
        died = buried[number] + max(0, accepted[number] - 1)  # Of what is replayed, the life before has ended so.
        places = handled[number] + returned[number] + died
        told = (
            f"P1 exactly once: event {number} was {'accepted' if accepted[number] else 'refused'}, "
            f"handled {handled[number]} times, returned {returned[number]} times and dead {died} times"
        )
        unknown += times - accepted[number] - refused[number]  # An add that was cut is accepted or not.
        if places > times - refused[number]:
            broken.append(told)
        elif places < accepted[number]:
            lost.append(told)
    if len(lost) > forgotten:
        broken.extend(lost)
    elif len(lost) + unknown < forgotten:
        broken.append(
            f"P1 exactly once: {forgotten} events are said to be dead and not kept, "
            f"and {len(lost)} are in no other place"
        )
    return broken


def order(records: list[Record], left: Sequence[tuple[Any, Any]] = ()) -> list[str]:
    lives = lives_of(records)
    newest = {life.number: life for life in itertools.chain(*lives.values())}
    returned: dict[Hashable, list[Life]] = defaultdict(list)
    for key, envelope in left:
        returned[key].append(newest[envelope.number])
        newest[envelope.number].last = math.inf  # It would be delivered again.
    broken = _overlaps(records)
    for key, of_key in lives.items():
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
    started = deque(sorted((life for life in lives if life.first < math.inf), key=lambda life: life.first))
    latest = Life(-1, -1)  # The one that was added last, of those that started before.
    for life in sorted((life for life in lives if life.last >= 0), key=lambda life: life.last):
        while started and started[0].first < life.last:
            latest = max(latest, started.popleft(), key=lambda life: life.called)
        if latest.called > life.accepted:
            yield life, latest


def _overlaps(records: list[Record]) -> list[str]:
    running: dict[Hashable, int] = {}
    broken = []
    for record in records:
        number, key = record.number, record.key
        if record.kind == "start":
            if key in running:
                broken.append(f"P2 order: events {running[key]} and {number} of key {key!r} overlap")
            running[key] = number
        elif record.kind in ("end", "raised"):
            running.pop(key, None)
    return broken


class _Keys:
    """What each key does at one place in the history, as far as it shows."""

    def __init__(self, aside: set[int]) -> None:
        self.running: set[Hashable] = set()
        self._aside = aside  # Events that never came to a worker, for reasons that are not in the history.
        self._waiting: dict[Hashable, int] = defaultdict(int)  # Events that have not been delivered.
        self._begun: set[int] = set()
        self._failed: set[Hashable] = set()  # Keys whose last delivery failed: who knows what they wait for.
        self._again: set[Hashable] = set()  # Keys that are to retry now.
        self._parked: set[Hashable] = set()

    def is_startable(self, key: Hashable) -> bool:
        """Whether an event of a key waits for nothing but a worker."""
        held = key in self.running or key in self._failed or key in self._parked
        return not held and (self._waiting[key] > 0 or key in self._again)

    def note(self, record: Record) -> None:
        """Go on by one record."""
        key, number = record.key, record.number
        if record.kind == "add":
            self._begun.discard(number)
        elif record.kind == "accepted":
            self._waiting[key] += number not in self._aside
        elif record.kind in ("start", "skip"):
            self._waiting[key] -= not (number in self._begun or number in self._aside)
            self._begun.add(number)
            self._let_go(key)
            if record.kind == "start":
                self.running.add(key)
            else:
                self._parked.discard(key)
        elif record.kind in ("end", "raised"):
            self.running.discard(key)
            if record.kind == "raised":
                self._failed.add(key)
        elif record.kind == "park":
            self._parked.add(key)
        elif record.kind == "resume":
            self._parked.discard(key)
            if key in self._failed:
                self._let_go(key)
                self._again.add(key)

    def _let_go(self, key: Hashable) -> None:
        self._failed.discard(key)
        self._again.discard(key)


def _isolation(records: list[Record], aside: set[int], workers: int, patience: float) -> list[str]:
    keys = _Keys(aside)
    startable: OrderedDict[Hashable, float] = OrderedDict()  # Since when, the longest first.
    idle_since: float | None = None  # Workers are there once the first event has started.
    started = False
    reported: set[Hashable] = set()
    broken = []
    for record in records:
        key, now = record.key, record.time
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
        keys.note(record)
        started = started or record.kind == "start"
        if keys.is_startable(key):
            startable.setdefault(key, now)
        else:
            startable.pop(key, None)
        if len(keys.running) >= workers:
            idle_since = None
        elif idle_since is None and started:
            idle_since = now
    return broken
