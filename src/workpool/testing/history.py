"""A history of what happened to each event around a pool, and a checker that holds it to P1 to P5.

Each event is numbered and travels in an envelope, so that two equal events, and even the same object added twice,
stay two. What is checked, with `a` and `b` two events of one key:

- P1: an accepted event was handled once, or is in `left`, or is dead, or was merged, and never two of these; no other
  event reached the handler, and none under another key. Of dead events that the pool does not keep any more, and of
  those that are merged, only the number is known, and that has to be right; an event is dead only after a delivery that
  failed, or a `skip_head`, and merged only where a newer one of its key was accepted.
- P2: if the add of `a` returned before the add of `b` was called, the last delivery of `a` ended before the first of
  `b` started, and what is left is in order. No two deliveries of one key overlap.
- P3: no event waited beside a worker without work, while events of other keys were in flight.
- P4: of what has ended, nothing is left in the pool: no key, no delivery that goes on, and no reference to an event
  that is not dead.
- P5: no event waited beside a worker without work, while nothing was in flight.

P3 and P5 compare times, because a worker needs a moment to wake up: they count from `patience` seconds on, once the
first event has started, and for events that were not returned by an ending. A key waits for no worker from a failed
delivery on until its next one, or while it was parked by hand: what the failure meant is the pool's to know. A batch is
recorded as its first event, and as the others that it has done, one after the other when it returns. The other checks
compare the order of records only, and a record is one append to a list, which threads make one at a time.

What it cannot see: the order of two events whose adds overlapped in time, which may be either; a worker that is slow to
wake, but not so slow as `patience`; what happens around the history, in another process, or after the check.

A replayed event is a new one in the same envelope. So what is done by hand is done through the history too.
"""

from __future__ import annotations

import functools
import gc
import itertools
import threading
import time
import weakref
from collections.abc import Awaitable, Callable, Hashable, Iterator
from contextlib import contextmanager
from typing import Any, Final, Generic, Protocol, TypeVar, cast

from workpool.arguments import seconds
from workpool.errors import BatchIncomplete
from workpool.handlers import Delivery, is_awaited, takes_delivery
from workpool.records import Dead, Stats
from workpool.testing.checker import Account, Kind, Record, exactly_once, isolation, order, read, superseded

__all__ = ["BrokenPromise", "History"]

_COLLECTING: Final = 60.0
"""Seconds to wait at most until the collection of another thread is over."""

E = TypeVar("E")
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)


class BrokenPromise(AssertionError):
    """The history shows that a pool broke a promise; the message lists each case."""


class Pool(Protocol[R_co]):
    """What a history asks of a pool, whose `add` gives R: None on threads, and what is awaited on an event loop."""

    workers: int

    def add(self, key: Any, event: Any, *, timeout: float | None = None) -> R_co: ...
    def add_nowait(self, key: Any, event: Any) -> None: ...
    def stats(self) -> Stats: ...
    def dead(self) -> list[Dead]: ...
    def replay(self, dead: Dead) -> None: ...
    def park(self, key: Any) -> None: ...
    def resume(self, key: Any) -> None: ...
    def skip_head(self, key: Any) -> Dead: ...
    @property
    def left(self) -> list[tuple[Any, Any]]: ...


class LoopPool(Pool[Any], Protocol):
    """And of one on an event loop."""

    def add_from_thread(self, key: Any, event: Any, *, timeout: float | None = None) -> None: ...


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

    It serves the pools on threads and those on an event loop. A coroutine handler is recorded by a coroutine handler,
    and `add` is awaited where the pool's is:

        history = History()
        async with EventWorkerPool(history.handler(handle)) as pool:  # of workpool.asyncio
            await history.add(pool, "key", event)
        history.check(pool)

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
        self._replaying = threading.Lock()
        """Held for a replay: two of one event would be told apart by nothing."""

    def handler(self, handler: Callable[..., R]) -> Callable[[Any, Delivery], R]:
        """A handler for the pool, which records, and calls yours with the event (and the delivery, where it asks).

        Where yours is a coroutine function, so is this.
        """
        awaited, awaitable = is_awaited(handler), cast("Callable[..., Awaitable[object]]", handler)
        wants_delivery = takes_delivery(handler, awaited=awaited)

        def recording(given: Any, delivery: Delivery) -> Any:
            with self._delivery(_numbers(given), delivery.key) as outcome:
                given = _events(given)  # A traceback that somebody keeps would keep the envelope.
                outcome.append(handler(given, delivery) if wants_delivery else handler(given))
                return outcome[0]

        async def recording_awaited(given: Any, delivery: Delivery) -> Any:
            with self._delivery(_numbers(given), delivery.key) as outcome:
                given = _events(given)
                outcome.append(await (awaitable(given, delivery) if wants_delivery else awaitable(given)))
                return outcome[0]

        wrapper: Any = recording_awaited if awaited else recording
        functools.update_wrapper(wrapper, handler, assigned=("__name__", "__doc__"), updated=())
        del wrapper.__wrapped__  # Its signature is the one that counts, not yours.
        return cast("Callable[[Any, Delivery], R]", wrapper)

    def add(self, pool: Pool[R], key: Hashable, event: object, *, timeout: float | None = None) -> R:
        """Add an event to the pool as `pool.add` does; it is to be awaited where that is."""
        return cast("R", self._add(pool.add, key, event, timeout=timeout))

    def add_from_thread(self, pool: LoopPool, key: Hashable, event: object, *, timeout: float | None = None) -> None:
        """Add an event to the pool as `pool.add_from_thread` does."""
        self._add(pool.add_from_thread, key, event, timeout=timeout)

    def add_nowait(self, pool: Pool[Any], key: Hashable, event: object) -> None:
        """Add an event to the pool as `pool.add_nowait` does."""
        self._add(pool.add_nowait, key, event)

    def replay(self, pool: Pool[Any], dead: Dead) -> None:
        """Add a dead event once more as `pool.replay` does."""
        with self._replaying:
            self._accept(dead.event.number, dead.key, pool.replay, dead)

    def park(self, pool: Pool[Any], key: Hashable) -> None:
        """Hold a key as `pool.park` does."""
        self._record("park", -1, key)
        pool.park(key)

    def resume(self, pool: Pool[Any], key: Hashable) -> None:
        """Let a held key go on as `pool.resume` does."""
        self._record("letting go", -1, key)
        pool.resume(key)
        self._record("resume", -1, key)

    def skip_head(self, pool: Pool[Any], key: Hashable) -> Dead:
        """Give up on the first event of a held key as `pool.skip_head` does."""
        self._record("letting go", -1, key)
        dead = pool.skip_head(key)
        self._record("skip", dead.event.number, key)
        return dead

    def handled(self, key: Hashable) -> int:
        """How many events of a key were handled."""
        return sum(kind == "end" and its_key == key for kind, _, its_key, _ in list(self._records))

    def check(self, pool: Pool[Any]) -> None:
        """Hold everything recorded so far to the promises, for a pool that has ended.

        Raises:
            BrokenPromise: With one line for each case, the first twenty of them.
        """
        broken = self.violations(pool)
        if broken:
            more = [f"... and {len(broken) - 20} more"] if len(broken) > 20 else []
            raise BrokenPromise("\n".join(broken[:20] + more))

    def violations(self, pool: Pool[Any]) -> list[str]:
        """What `check` raises for, as one line each; empty where every promise was kept."""
        returned, stats = pool.left, pool.stats()
        left = [envelope.number for _, envelope in returned]
        dead = [each.event.number for each in pool.dead()]
        records = list(self._records)
        account = read(records)
        merged = superseded(account, {*left, *dead}, stats.merged)
        return [
            *exactly_once(account, left, dead, (stats.dead_forgotten, stats.merged), merged),
            *order(account, returned),
            *isolation(records, account, {*left, *dead, *merged}, pool.workers, self._patience),
            *self._residue(pool, account, {*left, *dead}),
        ]

    @contextmanager
    def _delivery(self, numbers: list[int], key: Hashable) -> Iterator[list[Any]]:
        """Record a delivery: of a batch, that the first runs while it lasts, and then each that is done, one by one."""
        outcome: list[Any] = []
        self._record("start", numbers[0], key)
        done = 0
        try:
            yield outcome
            done = outcome[0] if len(numbers) > 1 and isinstance(outcome[0], int) else len(numbers)
        except BatchIncomplete as error:
            done = error.done
            raise
        finally:
            for place, number in enumerate(numbers[: done + 1]):
                if place:
                    self._record("start", number, key)
                self._record("end" if place < done else "raised", number, key)

    def _add(self, add: Callable[..., Any], key: Hashable, event: object, **options: Any) -> Any:
        envelope = Envelope(next(self._numbers), key, event)
        self._envelopes.append(weakref.ref(envelope))
        return self._accept(envelope.number, key, add, key, envelope, **options)

    def _accept(self, number: int, key: Hashable, add: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        self._record("add", number, key)
        try:
            adding = add(*arguments, **options)
        except Exception:
            self._record("refused", number, key)
            raise
        if adding is not None:
            return self._accept_awaited(number, key, adding)
        self._record("accepted", number, key)
        return None

    async def _accept_awaited(self, number: int, key: Hashable, adding: Awaitable[None]) -> None:
        try:
            await adding
        except Exception:
            self._record("refused", number, key)
            raise
        self._record("accepted", number, key)

    def _record(self, kind: Kind, number: int, key: Hashable) -> None:
        self._records.append((kind, number, key, self._clock()))

    def _residue(self, pool: Pool[Any], account: Account, kept: set[int]) -> list[str]:
        broken = [
            f"P4 no residue: event {number} of key {key!r} is in flight in a pool that has ended"
            for key, numbers in account.running.items()
            for number in numbers
        ]
        if keys := pool.stats().keys:
            broken.append(f"P4 no residue: {keys} keys are left in a pool that has ended")
        if self._alive(kept):
            _collect()  # Else there is nothing to collect, and it would look at all that the process has.
            broken.extend(
                f"P4 no residue: {envelope!r} has ended and is still referred to" for envelope in self._alive(kept)
            )
        return broken

    def _alive(self, kept: set[int]) -> list[Envelope[Any]]:
        found = (ref() for ref in self._envelopes)
        return [envelope for envelope in found if envelope is not None and envelope.number not in kept]


def _numbers(given: Any) -> list[int]:
    return [envelope.number for envelope in given] if isinstance(given, list) else [given.number]


def _events(given: Any) -> Any:
    return [envelope.event for envelope in given] if isinstance(given, list) else given.event


def _collect() -> None:
    """Collect garbage, even while another thread does: `gc.collect` would do nothing then.

    It does not wait for ever: a finaliser that is stuck holds up all collections of the process.
    """
    me, collected, end = threading.get_ident(), False, time.monotonic() + _COLLECTING

    def note(phase: str, info: dict[str, int]) -> None:
        nonlocal collected
        collected = collected or (phase == "stop" and info["generation"] == 2 and threading.get_ident() == me)

    gc.callbacks.append(note)
    try:
        while not collected and time.monotonic() < end:
            gc.collect()
            time.sleep(0)  # For the other thread.
    finally:
        gc.callbacks.remove(note)
