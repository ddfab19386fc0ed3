"""Which event may start next: the order of every key, and no key in the way of another.

Theory. A key that has events is *active*, and an active key is in exactly one of two places:

    idle --submit--> ready --take, next--> in flight --next--> ready | idle

`ready` is a ring of the keys that may start now and of nothing else. So choosing an event is taking the front of
the ring, whatever the backlog, the number of keys, or how many of them are busy: a key in flight is not in the ring
and costs nothing. A key enters the ring when its first event comes and again each time one of its events ends, so
keys are served in turn, and never two events of one key at once. An idle key is in no structure. (`held.py` adds a
third place, out of the ring, for a key that may not start now. Its lane lies `aside`: among thousands of those, the few
that come and go would each cost a dict as large.)

The head event of a key travels with it, through the ring and to the worker. The others wait behind it, in a deque
that appears with the second event and goes when the key is idle again. Invariant, for the active keys:

    set(lanes) == {key for key, _ in ready} | {key for key in holds}      (disjoint, no key twice)
    waiting    == len(ready) + sum(len(behind))                           (+ what is held, and its lanes)
    added      == handled + in_flight + waiting                           (+ what a Dispatch ends in other ways)

No lost wake-up (P5). A worker that finds nothing ready is counted `asleep` in that same transition. Then

    ready and asleep  implies  waking

holds at every step: `submit` fills the ring and wakes; a worker that is awake looks again before it sleeps, and one
that was woken wakes the next while more is ready. One wake-up is under way at a time, so an idle pool of any size
is woken worker by worker, and never more of them than there is work.

Calls, each one step, for a driver that holds them apart by a lock or by its event loop: `submit` and `next`, two an
event; `take` for a worker that was asleep, and `wake` after it. Nothing here blocks, reads a clock or calls the user,
except that a dict calls a key's own `__hash__` and `__eq__`. Each costs O(1), amortised.

An exception may fall anywhere (Ctrl-C between two lines, a key that cannot be hashed). `submit` then leaves the event
accepted or not. `take` and `next` leave the counts as they were and every waiting event in one place, which is all
that is needed to fail the pool, and their caller must do so.
"""

from __future__ import annotations

import itertools
import sys
from collections import deque
from collections.abc import Hashable, Iterable
from typing import TYPE_CHECKING, Any, Final, Generic

if TYPE_CHECKING:
    from typing_extensions import TypeVar

    K = TypeVar("K", bound=Hashable, default=Any)
    E = TypeVar("E", default=Any)
else:
    from typing import TypeVar

    K = TypeVar("K", bound=Hashable)
    E = TypeVar("E")

NOTHING: Final[Any] = object()
"""What a worker holds that holds no key; None may be a key."""


class Lanes(Generic[K, E]):
    """The lanes of all active keys, and the workers that are asleep for want of one."""

    __slots__ = (
        "added", "aside", "asleep", "handled", "holds", "in_flight", "lanes", "limit", "ready", "serving", "waiting",
        "waking",
    )  # fmt: skip

    def __init__(self, limit: int = sys.maxsize) -> None:
        self.lanes: dict[K, deque[E] | None] = {}
        """What waits behind the head of each active key; None until there was a second event."""
        self.aside: dict[K, deque[E] | None] = {}
        """The same of the keys that are held."""
        self.ready: deque[tuple[K, E]] = self.make_ready()
        """The keys that may start, each once, with their head events: the next to start first."""
        self.holds: list[K] = []
        """The key in flight at each worker, or NOTHING."""
        self.limit: int = limit
        """`submit` accepts while fewer events wait; 0 makes it refuse them all."""
        self.serving: bool = True
        """False: nothing is chosen any more, and what waits stays."""
        self.asleep: int = 0
        """Workers that found nothing ready, each until its own next `take`."""
        self.waking: bool = False
        """A wake-up is under way: set by whom it is asked of, cleared by the woken worker only."""
        self.added: int = 0
        self.waiting: int = 0
        self.in_flight: int = 0
        self.handled: int = 0

    @staticmethod
    def make_ready() -> deque[tuple[K, E]]:
        """An empty ring."""
        return deque()

    def submit(self, key: K, event: E, force: bool = False) -> bool | None:
        """Accept an event at the end of its key's lane.

        Args:
            key: Names the lane.
            event: Any object.
            force: Accept over the limit.

        Returns:
            None where the limit is reached and nothing was accepted; else whether the caller has to wake a worker.
        """
        waiting = self.waiting
        if waiting >= self.limit and not force:
            return None
        added = self.added
        lanes = self.lanes
        keys = len(lanes)
        try:
            behind = lanes.setdefault(key, None)
            idle = len(lanes) > keys
            place = lanes
            if idle and self.aside and key in self.aside:
                lanes.popitem()
                idle, place, behind = False, self.aside, self.aside[key]
            if idle:
                self.ready.append((key, event))
            elif behind is None:
                place[key] = deque((event,))
            else:
                behind.append(event)
            self.waiting = waiting + 1
            self.added = added + 1
            return idle and self.wake()
        except BaseException:
            # The structures tell whether the event came in; the counts follow them. One look at each lane, here only.
            accepted = self._count_waiting() - waiting
            if not accepted and len(lanes) > keys:
                lanes.popitem()  # The last one in: its key was entered, its event was not.
            self.waiting = waiting + accepted
            self.added = added + accepted
            raise

    def wake(self) -> bool:
        """Whether to wake a worker: one sleeps, something is ready, and no other wake-up is under way."""
        if self.waking or not self.asleep or not self.ready or not self.serving:
            return False
        self.waking = True
        return True

    def start(self, workers: int) -> None:
        """Count workers in, all of them asleep. They are numbered from 0."""
        self.holds = [NOTHING] * workers
        self.asleep = workers

    def take(self, worker: int) -> tuple[K, E] | None:
        """Let a worker that slept choose an event, or go back to sleep.

        The caller calls `wake` next, and wakes one more worker where that says so.
        """
        waiting, in_flight, ready, item = self.waiting, self.in_flight, self.ready, None
        try:
            self.waking = False
            if not ready or not self.serving:
                return None
            item = ready.popleft()
            self.holds[worker] = item[0]
            self.in_flight = in_flight + 1  # Before the next line: an event is never seen in no place.
            self.waiting = waiting - 1
            self.asleep -= 1
            return item
        except BaseException:
            self.waiting, self.in_flight = waiting, in_flight
            if item is not None:
                ready.appendleft(item)
            raise

    def next(self, worker: int, key: K) -> tuple[K, E] | None:
        """End the event in flight at a worker, and choose its next one, or count the worker asleep.

        The lane of `key`, which the worker holds, moves up first, to the end of the ring: it waits its turn.
        """
        waiting, in_flight, handled = self.waiting, self.in_flight, self.handled
        lanes, ready, item = self.lanes, self.ready, None
        try:
            behind = lanes[key]
            if behind:
                ready.append((key, behind.popleft()))
            else:
                del lanes[key]
            self.handled = handled + 1
            if ready and self.serving:
                item = ready.popleft()
                self.holds[worker] = item[0]
                self.waiting = waiting - 1
                return item
            self.holds[worker] = NOTHING
            self.in_flight = in_flight - 1
            self.asleep += 1
            if not lanes:
                self.lanes = {}  # A dict that grew never shrinks by itself.
            return item  # Not None, which is the same here: the return of a constant is outside the try.
        except BaseException:
            self.waiting, self.in_flight, self.handled = waiting, in_flight, handled
            if item is not None:
                ready.appendleft(item)
            raise

    def give_back(self, worker: int, item: tuple[K, E]) -> None:
        """Let a worker hand back what it holds: the event heads its lane again."""
        self.ready.append(item)
        self.holds[worker] = NOTHING
        self.waiting += 1
        self.in_flight -= 1

    def finish(self, worker: int) -> None:
        """End the event in flight at a worker, and choose nothing. Its lane stays where it is."""
        self.holds[worker] = NOTHING
        self.in_flight -= 1
        self.handled += 1

    def unhandled(self) -> list[tuple[K, E]]:
        """The events that wait, in order within each key. Calls no key's `__hash__` and no `__eq__`."""
        heads = {id(item[0]): item for item in self.heads()}
        found = []
        for key, behind in self.all_lanes():
            if id(key) in heads:
                found.append(heads[id(key)])
            found.extend((key, event) for event in behind or ())
        return found

    def all_lanes(self) -> Iterable[tuple[K, deque[E] | None]]:
        """The active keys, held or not, with their lanes."""
        return itertools.chain(self.aside.items(), self.lanes.items())

    def heads(self) -> Iterable[tuple[K, E]]:
        """The first event of each active key that is not in flight."""
        return self.ready

    def keys_in_flight(self) -> list[K]:
        """The keys that workers hold. O(workers)."""
        return [key for key in map(self.key_at, range(len(self.holds))) if key is not NOTHING]

    def key_at(self, worker: int) -> K:
        """The key in flight at a worker, or NOTHING."""
        return self.holds[worker]

    def _count_waiting(self) -> int:
        return sum(1 for _ in self.heads()) + sum(len(behind) for _, behind in self.all_lanes() if behind)

    def check_invariants(self) -> None:
        """Hold the module's equations against the structures. O(backlog): for tests."""
        active = [key for key, _ in self.heads()] + self.keys_in_flight()
        assert len(active) == len(set(active)), "a key is in two places"
        known = {key for key, _ in self.all_lanes()}
        assert set(active) == known, "a key is active and in no place, or idle and in one"
        assert self.in_flight == len(self.keys_in_flight()), "in_flight is miscounted"
        assert self.waiting == self._count_waiting(), "waiting is miscounted"
        assert self.asleep >= 0, "asleep is miscounted"
        if self.ready and self.asleep and self.serving:
            assert self.waking, "an event is ready, a worker sleeps, and nobody wakes it"
