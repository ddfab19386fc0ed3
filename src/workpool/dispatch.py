"""The whole contract, without a thread, a clock or a socket: lanes, plus what is rarer than an event.

Three things, each acting on the lanes between two events:

*Back-pressure* (P7). `Lanes.submit` answers None at its limit, and the driver then asks `offer`, which refuses the
event, or accepts it over the bound, or lists its adder. Adders are served first come, first served: while one is
listed the limit is 0, so that nobody slips in. They are let in once half of the bound is free, together rather than one
by one; or while there is any room and a worker sleeps, which one of them may be able to use (P3).

*Endings* (P8). One way, whoever asks, and however often:

    open --drain--> draining --+--(nothing waits, nothing in flight)--> ended
      |                |       |
      +-----stop-------+--> stopping --(nothing in flight)--> ended, the rest in `left`

A draining pool takes adds from its handlers only; a stopping one chooses nothing more and takes none. A worker leaves
once the pool is `finished`, and the last to leave ends it.

*Failure* (P9). The policy is *fail*: the event that failed heads its lane again and the pool stops. With it in
place, at any instant,

    added == handled + returned + in_flight + waiting
"""

from __future__ import annotations

import enum
import sys
from collections import OrderedDict, deque
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any, Generic

from workpool.errors import HandlerError, PoolClosed, PoolFull
from workpool.lanes import NOTHING, E, K, Lanes

__all__ = ["Crowd", "Dispatch", "State", "Stats"]


class State(enum.Enum):
    """Where a pool is in its life; it only moves forward."""

    OPEN = "open"
    DRAINING = "draining"
    STOPPING = "stopping"
    ENDED = "ended"


@dataclass(frozen=True, slots=True)
class Stats:
    """What a pool counts, at one instant (P10).

    `added == handled + dead + returned + merged + cancelled + in_flight + waiting`, and
    `waiting == queued + delayed + retrying + parked`. Under the failure policy *fail*, `dead`, `merged`, `cancelled`,
    `delayed`, `retrying` and `parked` stay 0.
    """

    added: int
    handled: int
    returned: int
    in_flight: int
    waiting: int
    queued: int
    keys: int
    """Keys that have an event, waiting or in flight."""
    dead: int = 0
    merged: int = 0
    cancelled: int = 0
    delayed: int = 0
    retrying: int = 0
    parked: int = 0


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a pool failed."""

    key: Hashable | None
    event: Any
    error: BaseException


@dataclass(frozen=True, slots=True)
class Crowd:
    """Where the backlog of a pool sits."""

    key: Hashable | None
    """The key in flight with most events behind it; None where no key in flight has any."""
    depth: int
    """How many events wait behind it."""
    blocked: int
    """How many events wait behind all the keys in flight."""


class Dispatch(Lanes[K, E], Generic[K, E]):
    """The lanes of a pool, with its bound, its adders, its endings and its failure."""

    __slots__ = (
        "_left_so_far", "_warned", "adders", "admitted", "failure", "half", "left", "max_backlog", "name", "refused",
        "returned", "state", "warning", "workers",
    )  # fmt: skip

    lanes: dict[K, deque[E] | None]
    limit: int
    ready: deque[tuple[K, E]]
    serving: bool
    waiting: int

    def __init__(self, max_backlog: int | None = None, name: str = "default") -> None:
        self.max_backlog: int = sys.maxsize if max_backlog is None else max_backlog
        self.half: int = (self.max_backlog + 1) // 2
        """Where no more than this many events wait, adders are let in."""
        super().__init__(self.half)
        self.name: str = name
        self.state: State = State.OPEN
        self.failure: Failure | None = None
        self.workers: set[int] = set()
        """Those that have not left."""
        self.adders: OrderedDict[object, tuple[K, E]] = OrderedDict()
        """Who waits for room, the first first: the driver's token for each, with what it adds."""
        self.admitted: list[object] = []
        """Those that are not listed any more, and that the driver has not told yet."""
        self.refused: dict[object, Exception] = {}
        """What was raised for those of them that could not be let in, by their keys."""
        self.warning: Crowd | None = None
        """Set once, when half of the bound waits behind keys in flight: for the driver to log and to clear."""
        self.returned: int = 0
        self.left: list[tuple[K, E]] = []
        """What the ending returned; empty until then."""
        self._warned = False
        self._left_so_far: list[tuple[K, E]] | None = None

    # Adding: what Lanes.submit left undecided.

    def offer(self, key: K, event: E, adder: object = None, inside: bool = False) -> bool | None:
        """Decide about an event that `submit` did not accept.

        Args:
            key: As for `submit`.
            event: As for `submit`.
            adder: The driver's token for a caller that is ready to wait; None for one that is not.
            inside: The caller is a handler of this pool, and would wait for itself: accept over the bound.

        Returns:
            None where the adder is listed and has to wait; else whether the caller has to wake a worker.

        Raises:
            PoolClosed: The pool takes no more.
            HandlerError: It takes no more because it failed.
            PoolFull: It is full, and there is no adder to list.
            TypeError: The key is not hashable.
        """
        hash(key)  # Who waits has to hear of it now, and not the worker that lets it in.
        if self.state is not State.OPEN:
            if inside and self.state is State.DRAINING:
                return self.submit(key, event, True)
            raise self.refusal("takes no more events")
        if not self.adders:
            self.limit = self._weigh()
            if self.waiting < self.max_backlog:
                return self.submit(key, event, True)
        if adder is None:
            raise self.full()
        if inside:
            return self.submit(key, event, True)
        self.adders[adder] = (key, event)
        self.limit = 0  # Until the first that comes when nobody is listed any more: it sets the next one, above.
        return None

    def has_room(self) -> bool:
        """Whether to `admit` adders now, if there are any: for the driver to ask after each `take` and `next`."""
        return self.waiting <= self.half or self.asleep > 0

    def admit(self) -> bool:
        """Let adders in, the first first, up to the bound; whether to wake a worker."""
        wake = False
        while self.adders and self.waiting < self.max_backlog and self.state is State.OPEN:
            adder: object = None
            item: tuple[K, E] | None = None
            added = self.added
            try:
                adder, item = self.adders.popitem(last=False)
                wake = bool(self.submit(*item, True)) or wake
                self.admitted.append(adder)
            except BaseException as error:
                if item is not None and self.added > added:
                    self.admitted.append(adder)
                elif item is not None and isinstance(error, Exception):
                    self.refused[adder] = error  # By its own key: no fault of this worker's, nor of the others.
                    self.admitted.append(adder)
                    continue
                elif item is not None:
                    self.adders[adder] = item
                    self.adders.move_to_end(adder, last=False)
                raise
        return wake

    def withdraw(self, adder: object) -> bool:
        """Take an adder off the list; whether it was still on it, and its event not accepted."""
        return self.adders.pop(adder, None) is not None

    def refusal(self, what: str) -> PoolClosed | HandlerError:
        """The error for a call on a pool that is closed: a new one each time."""
        if self.failure is None:
            return PoolClosed(f"pool {self.name!r} {what}: it is {self.state.value}")
        if self._left_so_far is None:
            self._left_so_far = self.unhandled()
        failed = HandlerError(
            f"pool {self.name!r} failed",
            key=self.failure.key,
            event=self.failure.event,
            left=self.left if self.state is State.ENDED else self._left_so_far,
        )
        failed.__cause__ = self.failure.error
        return failed

    # Endings.

    def start(self, workers: int) -> None:
        """Count the workers in, all of them asleep."""
        super().start(workers)
        self.workers = set(range(workers))

    def drain(self) -> list[object]:
        """Refuse adds from outside, and go on until nothing is left. Returns the adders to tell."""
        adders = self._close()  # First: cut after this, an open pool only weighs again.
        if self.state is State.OPEN:
            self.state = State.DRAINING
        return adders

    def stop(self) -> list[object]:
        """Refuse every add and choose nothing more. Returns the adders to tell."""
        adders = self._close()
        if self.state is not State.ENDED:
            self.state, self.serving = State.STOPPING, False
        return adders

    def fail(self, worker: int, item: tuple[K, E] | None, error: BaseException, ended: bool = False) -> list[object]:
        """Stop for a worker that cannot go on.

        Args:
            worker: Which.
            item: The event that it holds, whose handler raised or was never called: it heads its lane again.
            error: What was raised.
            ended: It holds a key instead, whose event was handled.

        Returns:
            The adders to tell.
        """
        if self.failure is None and self.state in (State.OPEN, State.DRAINING):
            key, event = item or (self.holds[worker], None)
            self.failure = Failure(None if key is NOTHING else key, event, error)
        if item is not None:
            self.give_back(worker, item)
        elif ended:
            self.finish(worker)
        self._left_so_far = None
        return self.stop()

    @property
    def finished(self) -> bool:
        """No worker will find an event again. Once true it stays true, so a driver may read it at any time."""
        return not self.serving or (self.state is not State.OPEN and not self.waiting and not self.in_flight)

    def leave(self, worker: int) -> bool:
        """Count a worker out; whether none is left, so that the pool can `end`. Any number of calls."""
        self.workers.discard(worker)
        return not self.workers

    def end(self) -> None:
        """Hand what is left over to `left`. No worker is there any more. Any number of calls."""
        if self.state is State.ENDED:
            return
        self.left = self.left or self.unhandled()  # Where a first call was cut here, a second one goes on.
        self.lanes, self.ready, self.waiting, self.returned = {}, deque(), 0, len(self.left)
        self.state = State.ENDED

    # Seen from outside.

    def crowd(self) -> Crowd:
        """Where the backlog sits. O(workers)."""
        depths = [(len(self.lanes[key] or ()), key) for key in self.keys_in_flight()]
        depth, key = max(depths, key=lambda each: each[0], default=(0, None))
        return Crowd(key if depth else None, depth, sum(each for each, _ in depths))

    def full(self) -> PoolFull:
        """The error for a pool that is full."""
        crowd = self.crowd()
        return PoolFull(
            f"pool {self.name!r} is full: {self.waiting} events wait (max_backlog={self.max_backlog}); "
            f"the event was not added",
            key=crowd.key,
            depth=crowd.depth,
        )

    def stats(self) -> Stats:
        """All counts at this instant."""
        return Stats(
            added=self.added,
            handled=self.handled,
            returned=self.returned,
            in_flight=self.in_flight,
            waiting=self.waiting,
            queued=self.waiting,
            keys=len(self.lanes),
        )

    def check_invariants(self) -> None:
        """Hold the module's equations too. O(backlog): for tests."""
        super().check_invariants()
        assert self.added == self.handled + self.returned + self.in_flight + self.waiting, "an event was miscounted"
        if self.adders and self.state is State.OPEN:
            assert self.limit == 0, "an adder waits, and others may pass it"
            assert self.waiting >= self.max_backlog or not self.has_room(), "an adder waits although there is room"

    def _close(self) -> list[object]:
        self.limit = 0
        return [*self.adders, *self.admitted]

    def _weigh(self) -> int:
        """Look where the backlog sits, and warn once where half of the bound waits behind keys in flight (P3).

        Returns:
            The limit at which to look again. The first is half of the bound, then each further eighth of it.
        """
        if not self._warned:
            crowd = self.crowd()
            if crowd.blocked >= self.half:
                self.warning, self._warned = crowd, True
        return min(self.max_backlog, self.waiting + max(1, self.max_backlog // 8))
