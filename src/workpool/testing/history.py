"""A history of what happened to each event around a pool, and a checker that holds it to P1 to P5.

Each event is numbered and travels in an envelope, so that two equal events, and even the same object added twice,
stay two. What is checked, with `a` and `b` two events of one key:

- P1: an accepted event was handled once, or is in `left`, and never both; no other event reached the handler.
- P2: if the add of `a` returned before the add of `b` was called, `a` ended before `b` started. No two deliveries of
  one key overlap.
- P3: no event waited beside a worker without work, while events of other keys were in flight.
- P4: of what has ended, nothing is left in the pool: no key, and no reference to an event.
- P5: no event waited beside a worker without work, while nothing was in flight.

P3 and P5 compare times, because a worker needs a moment to wake up: they count from `patience` seconds on, once the
first event has started, and for events that were not returned by an ending. The other checks compare the order of
records only, and a record is one append to a list, which threads make one at a time.
"""

from __future__ import annotations

import functools
import gc
import itertools
import time
import weakref
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any, Generic, Literal, Protocol, TypeVar

from workpool.arguments import seconds
from workpool.dispatch import Stats
from workpool.handlers import Delivery, takes_delivery

__all__ = ["BrokenPromise", "History"]

E = TypeVar("E")
Kind = Literal["add", "accepted", "refused", "start", "end", "raised"]


class BrokenPromise(AssertionError):
    """The history shows that a pool broke a promise; the message lists each case."""


class Pool(Protocol):
    """What a history asks of a pool."""

    workers: int

    def add(self, key: Any, event: Any, *, timeout: float | None = None) -> None: ...
    def add_nowait(self, key: Any, event: Any) -> None: ...
    def stats(self) -> Stats: ...
    @property
    def left(self) -> list[tuple[Any, Any]]: ...


@dataclass(frozen=True, slots=True)
class Record:
    """One thing that happened to one event."""

    kind: Kind
    number: int
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
            number, key = envelope.number, delivery.key
            self._record("start", number, key)
            try:
                result = handler(envelope.event, delivery) if wants_delivery else handler(envelope.event)
            except BaseException:
                self._record("raised", number, key)
                raise
            self._record("end", number, key)
            return result

        del recording.__wrapped__  # Its signature is the one that counts, not yours.
        return recording

    def add(self, pool: Pool, key: Hashable, event: object, *, timeout: float | None = None) -> None:
        """Add an event to the pool as `pool.add` does."""
        self._add(key, event, lambda envelope: pool.add(key, envelope, timeout=timeout))

    def add_nowait(self, pool: Pool, key: Hashable, event: object) -> None:
        """Add an event to the pool as `pool.add_nowait` does."""
        self._add(key, event, lambda envelope: pool.add_nowait(key, envelope))

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
        records = list(self._records)
        return [
            *_exactly_once(records, left),
            *_order(records),
            *_isolation([record for record in records if record.number not in left], pool.workers, self._patience),
            *self._residue(pool, set(left)),
        ]

    def _add(self, key: Hashable, event: object, add: Callable[[Envelope[Any]], None]) -> None:
        envelope = Envelope(next(self._numbers), key, event)
        number = envelope.number
        self._envelopes.append(weakref.ref(envelope))
        self._record("add", number, key)
        try:
            add(envelope)
        except Exception:
            self._record("refused", number, key)
            raise
        self._record("accepted", number, key)

    def _record(self, kind: Kind, number: int, key: Hashable) -> None:
        self._records.append(Record(kind, number, key, self._clock()))

    def _residue(self, pool: Pool, left: set[int]) -> list[str]:
        broken = []
        if keys := pool.stats().keys:
            broken.append(f"P4 no residue: {keys} keys are left in a pool that has ended")
        gc.collect()
        alive = [ref() for ref in self._envelopes]
        held = [envelope for envelope in alive if envelope is not None and envelope.number not in left]
        broken.extend(f"P4 no residue: {envelope!r} has ended and is still referred to" for envelope in held)
        return broken


def _exactly_once(records: list[Record], left: list[int]) -> list[str]:
    counts: dict[Kind, dict[int, int]] = {
        kind: defaultdict(int) for kind in ("add", "accepted", "refused", "start", "end", "raised")
    }
    for record in records:
        counts[record.kind][record.number] += 1
    returned: dict[int, int] = defaultdict(int)
    for number in left:
        returned[number] += 1
    broken = []
    for number in counts["add"]:
        accepted, refused = counts["accepted"][number], counts["refused"][number]
        places = counts["end"][number] + returned[number]
        if places > 1 or (accepted and not places) or (refused and places):
            broken.append(
                f"P1 exactly once: event {number} was {'accepted' if accepted else 'refused'}, "
                f"handled {counts['end'][number]} times and returned {returned[number]} times"
            )
    return broken


def _order(records: list[Record]) -> list[str]:
    called: dict[int, int] = {}
    accepted: dict[int, int] = {}
    started: dict[Hashable, list[int]] = defaultdict(list)
    running: dict[Hashable, int] = {}
    broken = []
    for at, record in enumerate(records):
        number, key = record.number, record.key
        if record.kind == "add":
            called[number] = at
        elif record.kind == "accepted":
            accepted[number] = at
        elif record.kind == "start":
            if key in running:
                broken.append(f"P2 order: events {running[key]} and {number} of key {key!r} overlap")
            running[key] = number
            started[key].append(number)
        elif record.kind in ("end", "raised"):
            running.pop(key, None)
    never = set(accepted) - {number for numbers in started.values() for number in numbers}
    for record in records:
        if record.kind == "accepted" and record.number in never:
            started[record.key].append(record.number)
    for key, numbers in started.items():
        last_call, passed_by = -1, -1
        for number in numbers:
            if last_call > accepted.get(number, last_call):
                broken.append(f"P2 order: event {passed_by} of key {key!r} started before the earlier event {number}")
            if number not in never and called[number] > last_call:
                last_call, passed_by = called[number], number
    return broken


def _isolation(records: list[Record], workers: int, patience: float) -> list[str]:
    waiting: dict[Hashable, int] = defaultdict(int)
    running: set[Hashable] = set()
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
                broken.append(
                    f"{'P3 isolation' if running else 'P5 no lost wake-up'}: an event of key {longest!r} waited "
                    f"{waited:.3f} s while {workers - len(running)} of {workers} workers had nothing to do"
                )
        if record.kind == "accepted":
            waiting[key] += 1
        elif record.kind == "start":
            waiting[key] -= 1
            running.add(key)
            started = True
        elif record.kind in ("end", "raised"):
            running.discard(key)
        if waiting[key] <= 0 or key in running:
            startable.pop(key, None)
        else:
            startable.setdefault(key, now)
        if len(running) >= workers:
            idle_since = None
        elif idle_since is None and started:
            idle_since = now
    return broken
