"""The whole contract, without a thread, a clock or a socket: lanes, held keys, and what is rarer than an event.

Three things, each acting on the lanes between two events:

*Back-pressure* (P7). `Lanes.submit` answers None at its limit, and the driver then asks `offer`, which refuses the
event, or accepts it over the bound, or lists its adder. Adders are served first come, first served: while one is
listed the limit is 0, so that nobody slips in. They are let in once half of the bound is free, together rather than one
by one; or while there is any room and a worker sleeps, which one of them may be able to use (P3). With `max_lane` the
limit is always 0. An adder whose lane is full waits in that lane's own line, and comes in when the lane moves up: it
takes the place of the event that has just left, so it needs no room in the pool, and holds up nobody else.

*Endings* (P8). One way, whoever asks, and however often:

    open --drain--> draining --+--(nothing waits, nothing in flight)--> ended
      |                |       |
      +-----stop-------+--> stopping --(nothing in flight)--> ended, the rest in `left`

A draining pool takes adds from its handlers only; a stopping one chooses nothing more and takes none. A worker that
finds nothing leaves once the pool is settled: no event will start any more. Parked events are no work, so a drain that
finds only those settles, and returns them. The last worker to leave ends the pool. Whoever waits for what an
ending may forestall is in the `audience`, which is told when the pool closes.

*Failure* (P9). `failed` does with an event what the policy decided; `fail` stops the pool. During a stop nothing is
tried again: what fails heads its key, and is returned. At any instant,

    added == handled + dead + returned + merged + cancelled + in_flight + waiting
"""

from __future__ import annotations

import math
import sys
from collections import OrderedDict, deque
from collections.abc import Iterable
from typing import Any, Generic, cast

from workpool.envelope import opened
from workpool.errors import HandlerError, PoolClosed, PoolFull
from workpool.lanes import NOTHING, E, K
from workpool.notes import Held, Late, Note
from workpool.policy import Fail, Park, Skip
from workpool.records import Crowd, Dead, Failure, State, Stats, Watched
from workpool.steered import SteeredLanes

__all__ = ["Dispatch"]

_FEW = 64
"""Held keys that are looked at whenever it is asked where the backlog sits."""


class Dispatch(SteeredLanes[K, E], Generic[K, E]):
    """The lanes of a pool, with its bound, its adders, its endings and its failure."""

    __slots__ = (
        "_held_crowd", "_left_so_far", "_warned", "adders", "audience", "failure", "half", "is_asked", "left", "look",
        "max_backlog", "max_lane", "name", "refused", "replayed", "returned", "state", "stopped", "warning", "workers",
    )  # fmt: skip

    alarm: float
    delayed: dict[K, Held[K, E]]
    aside: dict[K, deque[E] | None]
    lanes: dict[K, deque[E] | None]
    limit: int
    news: deque[tuple[Any, ...]] | None
    notes: dict[K, Note[E]]
    parked: dict[K, Held[K, E]]
    ready: deque[tuple[K, E]]
    retrying: dict[K, Held[K, E]]
    serving: bool
    timers: list[tuple[float, int, K]]
    waiting: int
    waking: bool

    def __init__(
        self,
        max_backlog: int | None = None,
        name: str = "default",
        *,
        max_lane: int | None = None,
        max_dead: int | None = 1000,
        asked: bool = False,
        heard: bool = False,
    ) -> None:
        self.max_backlog: int = sys.maxsize if max_backlog is None else min(max_backlog, sys.maxsize)
        self.max_lane: int | None = max_lane
        """How many events may wait behind the first of a key."""
        self.half: int = (self.max_backlog + 1) // 2
        """Where no more than this many events wait, adders are let in."""
        self.look: int = self.half
        """Where this many events wait, a look is due at which keys they wait for; then at each further eighth."""
        self.is_asked: bool = asked or heard or max_lane is not None
        """Each event is to be decided about by `offer`: the limit is always 0."""
        super().__init__(0 if self.is_asked else self.half, sys.maxsize if max_dead is None else max_dead)
        if heard:
            self.news = deque()
        self.name: str = name
        self.state: State = State.OPEN
        self.failure: Failure | None = None
        self.workers: set[int] = set()
        """Those that have not left."""
        self.adders: OrderedDict[object, tuple[K, E, Late | None]] = OrderedDict()
        """Who waits for room, the first first: the driver's token for each, with what it adds."""
        self.audience: list[object] = []
        """Who is told that the pool closes: when it fails, and at each call that asks for an ending."""
        self.refused: dict[object, Exception] = {}
        """What was raised for those admitted that could not be let in, by their keys."""
        self.warning: Crowd | None = None
        """Set once, when half of the bound waits behind keys in flight: for the driver to log and to clear."""
        self.returned: int = 0
        self.replayed: int = 0
        self.stopped: bool = False
        """Somebody asked for a stop, or the pool failed."""
        self.left: list[tuple[K, E]] = []
        """What the ending returned; empty until then."""
        self._warned = False
        self._held_crowd: tuple[tuple[int, int], Crowd] = ((-1, -1), Crowd(None, 0, 0))
        self._left_so_far: list[tuple[K, E]] | None = None

    # Adding: what Lanes.submit left undecided.

    def accept(self, key: K, event: E, late: Late | None, force: bool = False) -> bool | None:
        """Accept an event by `submit`, or by `submit_late` where it is not to start at any time."""
        return self.submit(key, event, force) if late is None else self.submit_late(key, event, *late, force)

    def offer(
        self, key: K, event: E, adder: object = None, inside: bool = False, late: Late | None = None
    ) -> bool | None:
        """Decide about an event that `accept` did not accept.

        Args:
            key: As for `submit`.
            event: As for `submit`.
            adder: The driver's token for a caller that is ready to wait; None for one that is not.
            inside: The caller is a handler of this pool, and would wait for itself: accept over the bound.
            late: As for `accept`.

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
                return self.accept(key, event, late, True)
            raise self.refusal("takes no more events")
        if self._is_lane_full(key):
            if adder is None:
                raise self.full(key)
            if inside:
                return self.accept(key, event, late, True)
            self._queue(adder, (key, event, late))
            return None
        if not self.adders:
            if self.waiting >= self.look:
                self._weigh()
            self.limit = 0 if self.is_asked else self.look
            if self.waiting < self.max_backlog:
                return self.accept(key, event, late, True)
        if adder is None:
            raise self.full()
        if inside:
            return self.accept(key, event, late, True)
        self.adders[adder] = (key, event, late)
        self.limit = 0  # Until the first that comes when nobody is listed any more: it sets the next one, above.
        return None

    def has_room(self) -> bool:
        """Whether to `admit` adders now, if there are any: for the driver to ask after each `take` and `next`."""
        return self.waiting <= self.half or self.asleep > 0

    def admit(self) -> bool:
        """Let adders in, the first first, up to the bound; whether to wake a worker."""
        wake = False
        while self.adders and self.waiting < self.max_backlog and self.state is State.OPEN:
            adder, item = next(iter(self.adders.items()))
            if self._is_lane_full(item[0]):
                self._queue(adder, item)
                del self.adders[adder]
                continue
            wake = self._enter(self.adders) or wake
        return wake

    def withdraw(self, adder: object, key: K = NOTHING) -> bool:
        """Take an adder off its list, or out of the line of its key; whether it was on one, its event not accepted."""
        if self.adders.pop(adder, None) is not None:
            return True
        if not self.max_lane:
            return False
        note = self.note(key)
        found = note.line is not None and note.line.pop(adder, None) is not None
        self.strike_blank(key, note)
        return found

    def is_in_line(self, adder: object, key: K) -> bool:
        """Whether an adder waits for room in the lane of its key, and not for room in the pool."""
        if not self.max_lane:
            return False
        note = self.noted(key)
        return note is not None and adder in (note.line or ())

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
            attempt=self.failure.attempt,
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
        """Refuse adds from outside, and go on until nothing is left. Returns whom to tell."""
        adders = self._close()  # First: cut after this, an open pool only weighs again.
        if self.state is State.OPEN:
            self.state = State.DRAINING
        return adders

    def stop(self) -> list[object]:
        """Refuse every add and choose nothing more. Returns whom to tell."""
        adders = self._close()
        if self.state is not State.ENDED:
            self.state, self.serving, self.stopped = State.STOPPING, False, True
        return adders

    def failed(
        self, worker: int, item: tuple[K, E], decision: float | Fail | Skip | Park, error: str, now: float
    ) -> bool:
        """Do with the event at a worker what was decided. The worker is counted asleep: `wake` is to be called.

        Args:
            worker: Which.
            item: The event that it holds, whose handler raised.
            decision: Seconds until the next attempt, `Skip()` or `Park()`; `Fail()` is for `fail`.
            error: What was raised, as text.
            now: The time.

        Returns:
            Whether `release` has to be called earlier than at the alarm.
        """
        self.fail_once(item[0], error, now)
        if not self.serving:
            self.again(worker, item)
        elif isinstance(decision, Skip):
            self.bury(worker, item, now)
        elif isinstance(decision, Park) or self.is_to_park(item[0]):
            self.park_head(worker, item, now)
        elif isinstance(decision, float) and decision > 0:
            return self.retry(worker, item, now, now + decision)
        else:
            self.again(worker, item)
        return False

    def fail(
        self, worker: int, item: tuple[K, E] | None, error: BaseException | None, ended: bool = False
    ) -> list[object]:
        """Stop for a worker that cannot go on, or for whoever else serves the pool and holds no event.

        Args:
            worker: Which.
            item: The event that it holds, whose handler raised or was never called: it heads its lane again.
            error: What was raised; None for one that was only cancelled, so that the pool has not failed.
            ended: It holds a key instead, whose event was handled.

        Returns:
            Whom to tell.
        """
        if error is not None and self.failure is None and self.state in (State.OPEN, State.DRAINING):
            key, event = item or (self.key_at(worker), None) if item or ended else (NOTHING, None)
            attempt = 1 if key is NOTHING else self.attempt(key)
            self.failure = Failure(None if key is NOTHING else key, opened(event), error, attempt)
        if item is not None:
            self.give_back(worker, item)
        elif ended:
            self.finish(worker)
        self._left_so_far = None
        return self.stop()

    def settle(self) -> bool:
        """Whether a worker that found nothing may leave, because nothing will start any more."""
        if self.state is State.DRAINING and not (self.ready or self.in_flight or self.retrying or self.delayed):
            self.serving = False
        return not self.serving

    def replay(self, dead: Dead, event: Any = None) -> bool:
        """Add a dead event once more, as a new event at the end of its lane. `wake` is to be called.

        Args:
            dead: Which.
            event: What to add for it; None for its event itself.

        Returns:
            False where it is not among the dead.

        Raises:
            PoolFull, PoolClosed, HandlerError: It is not added, and still among the dead.
        """
        if dead not in self.buried:
            return False
        key: Any = dead.key
        event = dead.event if event is None else event
        added = self.added
        try:
            wake = self.submit(key, event)
            if wake is None:
                wake = self.offer(key, event)
            if wake:
                self.waking = False  # Not sent: the caller is told again.
            _, self.replayed = self.buried.pop(dead), self.replayed + 1
        except BaseException:
            if self.added > added and dead in self.buried:
                _, self.replayed = self.buried.pop(dead), self.replayed + 1
            raise
        return True

    def watch(self, now: float, patience: float) -> list[tuple[int, K, float]]:
        """Compare each worker's delivery with the last look's, which leaves a tag that ends with the delivery.

        Returns:
            Those seen for `patience` seconds, each once: the worker, its key, and for how long it was seen.
        """
        late = []
        for worker, key in enumerate(self.holds):
            if isinstance(key, Watched):
                if not key.told and now - key.since >= patience:
                    key.told = True
                    late.append((worker, key.key, now - key.since))
            elif key is not NOTHING:
                self.holds[worker] = cast("K", Watched(key, now))
        return late

    def key_at(self, worker: int) -> K:
        """The key in flight at a worker, or NOTHING."""
        key = self.holds[worker]
        return cast("K", key.key) if isinstance(key, Watched) else key

    def leave(self, worker: int) -> bool:
        """Count a worker out; whether none is left, so that the pool can `end`. Any number of calls."""
        self.workers.discard(worker)
        return not self.workers

    def end(self) -> None:
        """Hand what is left over to `left`. No worker is there any more. Any number of calls."""
        if self.state is State.ENDED:
            return
        for line in self._lines():
            self.adders.update(line)  # They were told, and have not looked yet: they must find that they are listed.
        left = self.unhandled()
        self.notes.clear()  # Not another dict: hands have this one, and a failure holds a hand.
        self.timers, self.alarm = [], math.inf
        self.rubbish.extend([self.lanes, self.aside, self.ready, self.retrying, self.parked, self.delayed])
        # One line, which no exception cuts: the values are there first, and to store them calls nothing.
        self.lanes, self.aside, self.ready, self.retrying, self.parked, self.delayed, self.waiting, self.returned, self.left, self.state = (  # noqa: E501
            {}, {}, self.make_ready(), {}, {}, {}, 0, len(left), left, State.ENDED,
        )  # fmt: skip

    # Seen from outside.

    def crowd(self) -> Crowd:
        """Where the backlog sits. O(workers), and many held keys are looked at again at each eighth of the bound."""
        depths = [(len(self.lanes[key] or ()), key) for key in self.keys_in_flight()]
        depth, key = max(depths, key=lambda each: each[0], default=(0, None))
        held = self._look_at_held()
        blocked = sum(each for each, _ in depths) + held.blocked
        if held.depth > depth:
            return Crowd(held.key, held.depth, blocked, held.why)
        return Crowd(key if depth else None, depth, blocked)

    def full(self, key: K = NOTHING) -> PoolFull:
        """The error for a pool that is full, or for a key whose lane is."""
        if key is not NOTHING:
            known = self.explain(key)
            return PoolFull(
                f"a lane of pool {self.name!r} is full (max_lane={self.max_lane}); the event was not added",
                key=key,
                depth=known.waiting,
                why=known.state,
            )
        crowd = self.crowd()
        return PoolFull(
            f"pool {self.name!r} is full: {self.waiting} events wait (max_backlog={self.max_backlog}); "
            f"the event was not added",
            key=crowd.key,
            depth=crowd.depth,
            why=crowd.why,
        )

    def stats(self) -> Stats:
        """All counts at this instant."""
        return Stats(
            added=self.added,
            handled=self.handled,
            returned=self.returned,
            in_flight=self.in_flight,
            waiting=self.waiting,
            queued=self.waiting - len(self.retrying) - len(self.parked) - len(self.delayed),
            keys=len(self.lanes) + len(self.aside),
            dead=self.dead,
            dead_forgotten=self.dead_forgotten,
            merged=self.merged,
            cancelled=self.cancelled,
            replayed=self.replayed,
            retrying=len(self.retrying),
            parked=len(self.parked),
            delayed=len(self.delayed),
        )

    def check_invariants(self) -> None:
        """Hold the module's equations too. O(backlog): for tests."""
        super().check_invariants()
        ended = self.handled + self.dead + self.returned + self.merged + self.cancelled
        assert self.added == ended + self.in_flight + self.waiting, "an event was miscounted"
        assert self.dead == len(self.buried) + self.dead_forgotten + self.replayed, "a dead event was miscounted"
        if self.state is State.OPEN:
            for key, note in self.notes.items():
                assert not note.line or self._is_lane_full(key), "an adder waits although its lane has room"
        if self.adders and self.state is State.OPEN:
            assert self.limit == 0, "an adder waits, and others may pass it"
            assert self.waiting >= self.max_backlog or not self.has_room(), "an adder waits although there is room"

    def _close(self) -> list[object]:
        self.limit = 0
        return [*self.adders, *(adder for line in self._lines() for adder in line), *self.admitted, *self.audience]

    def _lines(self) -> Iterable[OrderedDict[object, tuple[Any, E, Late | None]]]:
        if not self.max_lane:
            return []
        notes = [*self.notes.values(), *(held.note for held in self.held())]
        return [note.line for note in notes if note.line]

    def _enter(self, line: OrderedDict[object, tuple[K, E, Late | None]]) -> bool:
        """Let the first of a line in; whether to wake a worker."""
        adder: object = None
        item: tuple[K, E, Late | None] | None = None
        added = self.added
        try:
            adder, item = line.popitem(last=False)
            wake = bool(self.accept(*item, True))
            self.admitted.append(adder)
            return wake
        except BaseException as error:
            if item is not None and self.added > added:
                self.admitted.append(adder)
            elif item is not None and isinstance(error, Exception):
                self.refused[adder] = error  # By its own key: no fault of this worker's, nor of the others.
                self.admitted.append(adder)
                return False
            elif item is not None:
                line[adder] = item
                line.move_to_end(adder, last=False)
            raise

    def _queue(self, adder: object, item: tuple[K, E, Late | None]) -> None:
        note = self.note(item[0])
        line = note.line = note.line or OrderedDict()
        line[adder] = item

    def _is_lane_full(self, key: K) -> bool:
        try:
            return self.max_lane is not None and len(self.behind(key)) >= self.max_lane
        except Exception:
            return False  # A key that cannot be looked up cannot be entered: whoever tries is told.

    def _let_in(self, note: Note[E]) -> None:
        while note.line and self.state is State.OPEN and not self._is_lane_full(next(iter(note.line.values()))[0]):
            if self._enter(note.line):  # A batch that is dead has left the lane empty, and the key is ready.
                self.waking = False  # Not sent: the caller is told again.

    def _look_at_held(self) -> Crowd:
        eighth = max(1, self.max_backlog // 8)
        stamp = (self.added // eighth, len(self.aside) // eighth)
        if self._held_crowd[0] != stamp or len(self.aside) <= _FEW:
            depths = [(len(self.aside[held.key] or ()) + 1, held.key, held.why) for held in self.held()]
            depth, key, why = max(depths, key=lambda each: each[0], default=(0, None, ""))
            self._held_crowd = (stamp, Crowd(key, depth, sum(each[0] for each in depths), why))
        return self._held_crowd[1]

    def _weigh(self) -> None:
        """Look where the backlog sits, and warn once where half of the bound waits behind blocked keys (P3)."""
        if not self._warned and (crowd := self.crowd()).blocked >= self.half:
            self.warning, self._warned = crowd, True
        self.look = min(self.max_backlog, self.waiting + max(1, self.max_backlog // 8))
