"""What all drivers do alike: all but the waiting.

Each step of the core under the mutex; an add; what a worker does about an event that failed and about a note of a key;
what is due; and what is said of all that, in log records and errors.
"""

from __future__ import annotations

import abc
import logging
import random
import weakref
from collections.abc import Callable, Collection
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import Any, Final, ParamSpec, TypeVar

from workpool import process
from workpool.arguments import count, duration, require_hashable, require_methods
from workpool.clock import Clock, SystemClock
from workpool.coalescing import Coalescing
from workpool.dispatch import Dispatch
from workpool.errors import DrainIncomplete, PoolFull, WorkpoolError, describe
from workpool.hooks import Hearing
from workpool.lanes import NOTHING, E, K
from workpool.mutex import Forked, Mutex, give_way, require_outside
from workpool.notes import Late
from workpool.policy import Fail, Park, Policy, Skip, decide, require_policy
from workpool.records import State
from workpool.telling import Telling
from workpool.turn import Features
from workpool.twin import Hand, make_mutex

__all__ = ["TIMEKEEPER", "Driver"]

TIMEKEEPER: Final = -1
"""The number of whoever keeps the time, beside those of the workers."""

_SLACK: Final = 0.005
"""Seconds that a retry may come late, so that many are let in together."""

_log = logging.getLogger("workpool")

_P = ParamSpec("_P")
_R = TypeVar("_R")


class Driver(Telling[K, E]):
    """A pool without its calls and without its waiting; the arguments are those of `workpool.EventWorkerPool`."""

    def __init__(
        self,
        *,
        workers: int,
        max_backlog: int | None,
        max_lane: int | None,
        name: str,
        on_failure: Policy,
        max_dead: int | None,
        warn_after: float | None,
        clock: Clock | None,
        features: Features,
    ) -> None:
        if not isinstance(name, str):
            raise TypeError(f"name must be a string, and {name!r} is not")
        self.workers: int = count("workers", workers)
        """How many workers the pool has, or will have when it is started."""
        core: type[Dispatch[K, E]] = Coalescing if features.coalesce else Dispatch
        self._core: Dispatch[K, E] = core(
            None if max_backlog is None else count("max_backlog", max_backlog),
            name,
            max_lane=None if max_lane is None else count("max_lane", max_lane),
            max_dead=None if max_dead is None else count("max_dead", max_dead, 0),
            asked=features.is_enveloped,
            heard=features.hooks is not None,
        )
        self._features: Features = features
        self._hearing: Hearing | None = None if features.hooks is None else Hearing(features.hooks, name)
        self._on_failure: Policy = require_policy(on_failure)
        self._warn_after: float | None = None if warn_after is None else duration("warn_after", warn_after)
        if clock is not None:
            require_methods("clock", clock, ("now", "pause"))
        self._clock: Clock = clock or SystemClock()
        self._began: dict[int, float] = {}
        """When the delivery of each worker that has one began, with `timing`."""
        self._late: list[tuple[int, K, float]] = []
        """Workers whose handlers run for long, to be reported."""
        self._mutex: Mutex = make_mutex()
        self._starter: object = None
        """Stands for the call of `start` that started the pool."""
        self._complete = True
        """Each of its workers has arrived, or may still arrive."""
        self._unstarted: weakref.finalize[Any, Any] = weakref.finalize(self, _report_unstarted, self._core)
        process.pools.add(self)

    # What a driver adds, for its own way of waiting.

    @abc.abstractmethod
    def _wake(self, again: bool = True) -> None:
        """Send a wake-up to the workers; another one, or only where none is under way."""

    @abc.abstractmethod
    def _tell(self, gates: list[object]) -> None:
        """Send those who wait to see what became of it: for room, for the end of other events, or of the pool."""

    @abc.abstractmethod
    def _nudge(self) -> None:
        """Call whoever keeps the time, before its time."""

    def _require_owner(self) -> object:
        """Raise where whoever calls may not act on this pool."""
        return None

    @abc.abstractmethod
    def _report(self, worker: int, key: K, seconds: float) -> None:
        """Log where a handler is that runs for long."""

    @abc.abstractmethod
    def _all_left(self) -> None:
        """End the pool, within a step: no worker is there any more."""

    # The fast path, and the mutex around it.

    def _enter(
        self,
        key: K,
        event: E,
        make_gate: Callable[[], Any] | None = None,
        wait: Callable[[Any, K, float | None], None] | None = None,
        timeout: float | None = None,
        *,
        delay: float | None = None,
    ) -> Any:
        """Add an event, or list its adder.

        Args:
            key: Names the lane.
            event: Any object.
            make_gate: Makes what a listed adder waits at; None for one that does not wait.
            wait: Waits there, and raises where the event was not accepted; None leaves that to the caller.
            timeout: For `wait`.
            delay: Seconds until the event may start; None for at any time.

        Returns:
            The gate that the caller has to wait at; None where the event is accepted.
        """
        mutex, core = self._mutex, self._core
        require_outside(mutex)
        gate = None
        late = None if delay is None else self._late_by(delay)
        item = self._features.enclose(event, self._clock) if core.is_asked else event
        try:
            if not mutex.acquire(False):
                give_way(mutex)
            wake = core.submit(key, item) if late is None else core.accept(key, item, late)
            if undecided := wake is None:
                gate = make_gate() if make_gate else None
                wake = core.offer(key, item, gate, self._is_inside(), late)
            if wake:
                self._wake()
            if late is not None and core.alarm == late[1]:
                self._nudge()  # It is due before all others, as far as is known.
            mutex.release()
            if undecided:
                self._warn()
                if wake is None and gate is not None:
                    if wait is None:
                        return gate
                    wait(gate, key, timeout)
                self._tell_added(key, event)
            return None
        except BaseException as error:
            try:
                if not mutex._is_owned():
                    give_way(mutex)
                if gate is not None:
                    core.withdraw(gate, key)
                    core.refused.pop(gate, None)
                if core.waking or core.wake():
                    self._wake()  # The one that this call owed may not have been sent.
            finally:
                mutex.release()
            self._warn()
            if isinstance(error, TypeError):
                require_hashable(key)
            raise

    def _tell_added(self, key: K, event: E) -> None:
        """Tell of an event that was accepted, and of one whose place it took."""
        self._core.rubbish.clear()
        if self._hearing:
            self._hearing.tell("added", key, event)
            self._tell_news()

    def _late_by(self, delay: float) -> Late | None:
        seconds, now = duration("delay", delay), self._clock.now()
        return (now, now + seconds) if seconds else None

    def _await(self, gate: SimpleQueue[None], key: K, timeout: float | None) -> None:
        """Wait, on a thread, at the gate of an adder that is listed."""
        with suppress(Empty):
            gate.get(timeout=timeout)
        self._require_let_in(gate, key, timeout)

    def _require_let_in(self, gate: object, key: K, timeout: float | None) -> None:
        """Take an adder off the list that waits no more, and raise where its event was not accepted."""
        refusal = self._step(self._withdraw, gate, key)
        try:
            if isinstance(refusal, PoolFull):
                raise TimeoutError(f"{refusal}; given up after {timeout:.3g} s")
            if refusal is not None:
                raise refusal
        finally:
            del refusal  # Else the error and this call would hold each other, and the event.

    def _by_hand(self, transition: Callable[_P, _R], *args: _P.args, **kwargs: _P.kwargs) -> _R:
        def act() -> _R:
            if not self._core.serving:
                raise self._core.refusal("starts nothing more")
            try:
                result = transition(*args, **kwargs)
                self._follow_up()
                if self._core.state is not State.OPEN:
                    self._wake(again=False)  # Nothing may be left to do: a worker has to see that.
                return result
            except BaseException:
                self._tell(self._core.admitted)
                if self._core.waking or self._core.wake():
                    self._wake()  # What this call owed may not have been sent.
                raise

        self._require_owner()
        result = self._step(act)
        self._core.rubbish.clear()
        self._tell_news()
        return result

    def _take_back(self, starter: object, arrived: Collection[int]) -> bool:
        """Stop what a start that failed has begun; False where it has begun nothing."""
        if self._starter is not starter:
            return False
        self._step(self._write_off, arrived)
        return True

    def _leave_block(self, failure: BaseException) -> bool:
        """Say whether a block ends quietly whose drain raised; it stops the pool for what comes from outside."""
        if isinstance(failure, DrainIncomplete):
            return self._core.stopped  # Whoever stopped it asked for that, and finds the rest in `left`.
        if not isinstance(failure, WorkpoolError):
            self._step(self._close, True)  # An exception leaves the block after all: Ctrl-C or a cancel, in the wait.
        return False

    # For workers.

    def _leave(self, worker: int) -> None:
        """Count a worker out. Any number of calls, each whole or cut."""
        if isinstance(self._mutex, Forked):
            return  # The handler forked, and in the child there is nobody to leave.
        last = self._step(self._core.leave, worker)
        self._step(self._wake)  # The next that sleeps may leave too.
        if self._core.workers <= {TIMEKEEPER}:
            self._step(self._nudge)  # So may whoever keeps the time: a look at it is O(workers), and this the last.
        if last:
            if self._hearing:
                self._step(self._core.end)
                self._tell_news()
                self._hearing.tell_end(self._step(self._core.stats))
            self._step(self._all_left)
            self._core.rubbish.clear()

    def _take(self, worker: int, hand: Hand[K, E]) -> None:
        """Let a worker that was woken hold the event that it starts with, and wake the next."""
        if not self._mutex.acquire(False):
            give_way(self._mutex)
        hand.item, hand.last = self._core.take(worker), NOTHING
        self._see_to(worker, hand)

    def _see_to(self, worker: int, hand: Hand[K, E]) -> None:
        """Do what a worker's step has left to do, and give back the mutex, which that has taken."""
        core = self._core
        if core.notes:
            hand.item = self._heed(worker, hand.item, hand.last)
        if core.wake():
            self._wake()
        if core.adders and core.has_room():
            self._admit()
        self._mutex.release()
        hand.last = None
        if core.news:
            self._tell_news()

    def _tell_news(self) -> None:
        news = self._core.news
        while news and self._hearing:
            with suppress(IndexError):  # Another thread was first.
                self._hearing.tell(*news.popleft())

    def _decide(self, error: Exception, attempt: int) -> float | Fail | Skip | Park:
        return decide(self._on_failure, error, attempt, random.random())

    def _put_aside(self, worker: int, item: tuple[K, E], error: Exception) -> bool:
        """Do with an event that failed what the policy says; False where it says that the pool fails.

        The worker is counted asleep, and a wake-up calls it, or another, to whatever is ready.
        """
        core, key = self._core, item[0]
        attempt = core.attempt(key)
        decision = self._decide(error, attempt)
        if isinstance(decision, Fail):
            return False
        text = f"{type(error).__name__}: {describe(error, str)}"
        became = self._step(self._settle_failed, worker, item, decision, text)
        core.rubbish.clear()
        self._tell_news()
        if became:
            what = became
        elif isinstance(decision, Skip):
            what = "the event is skipped, and kept among the dead"
        elif isinstance(decision, Park):
            what = "the key is parked"
        else:
            self._say(
                logging.WARNING, "pool %r: the handler of key %s raised at attempt %d; once more in %.3g s: %s",
                core.name, describe(key), attempt, decision, " ".join(text.split()),
            )  # fmt: skip
            return True
        self._say(
            logging.ERROR, "pool %r: the handler of key %s raised at attempt %d: %s",
            core.name, describe(key), attempt, what, error=error,
        )  # fmt: skip
        return True

    def _fail(
        self, worker: int, item: tuple[K, E] | None, error: BaseException, ended: bool = False, cancelled: bool = False
    ) -> None:
        """Stop the pool for a worker that cannot go on, or for its timekeeper; its event heads its lane again."""
        core, mutex = self._core, self._mutex
        if not mutex._is_owned():
            give_way(mutex)
        key = NOTHING if worker == TIMEKEEPER else core.key_at(worker)
        attempt = 1 if key is NOTHING else core.attempt(key)
        news = core.serving
        self._tell(core.fail(worker, None if ended or key is NOTHING else item, None if cancelled else error, ended))
        left = core.waiting + core.in_flight
        self._wake()
        mutex.release()
        if not cancelled:
            who = "its own work" if key is NOTHING else f"the handler of key {describe(key)}"
            self._say(
                logging.ERROR, "pool %r: %s raised at attempt %d, and the pool stops",
                core.name, who, attempt, error=error,
            )  # fmt: skip
        elif news and left:
            self._say(
                logging.ERROR, "pool %r: its workers were cancelled, and the pool stops with %d events not handled: "
                "drain() or stop() it before its loop ends", core.name, left,
            )  # fmt: skip

    def _do_what_is_due(self, ring: Callable[[], None]) -> float | None:
        """Look at the time; how many seconds to sleep then, or None until `ring` is called."""
        until = self._step(self._look_at_time)
        while self._late:
            self._report(*self._late.pop())
        return self._clock.pause(until, ring)

    # Steps: each is called with the mutex taken.

    def _withdraw(self, gate: object, key: K) -> Exception | None:
        """Take an adder off the list; why its event was not accepted, or None where it was."""
        core = self._core
        was_behind = core.is_in_line(gate, key)
        if not core.withdraw(gate, key):
            return core.refused.pop(gate, None)
        if core.state is not State.OPEN:
            return core.refusal("takes no more events")
        return core.full(key) if was_behind else core.full()

    def _has_started(self) -> bool:
        self._require_owner()
        if self._core.state is not State.OPEN:
            raise self._core.refusal("cannot be entered")
        return self._starter is not None

    def _enlist(self, starter: object, workers: int | None) -> int:
        """Count the workers in; how many are to be started."""
        self._require_owner()
        number = self.workers if workers is None else count("workers", workers)
        if self._core.state is not State.OPEN:
            raise self._core.refusal("cannot be started")
        if self._starter is not None:
            raise RuntimeError(f"pool {self._core.name!r} was started before")
        self._starter = starter
        self.workers = number
        self._core.start(number)
        self._unstarted.detach()
        if self._core.wake():
            self._wake()
        return number

    def _write_off(self, arrived: Collection[int]) -> None:
        """Stop, without the workers that have not arrived: one that could not be started, or comes too late."""
        self._complete = False
        self._tell(self._core.stop())
        for worker in self._core.workers.difference(arrived):
            self._core.leave(worker)
        self._wake()
        self._nudge()
        if not self._core.workers:
            self._all_left()

    def _close(self, stopping: bool) -> None:
        self._require_owner()
        core = self._core
        if self._starter is not None:
            self._tell(core.stop() if stopping else core.drain())
            self._wake(again=False)  # Else each call of one that asks again and again would add to them.
            return
        if core.waiting and not stopping:
            raise RuntimeError(
                f"pool {core.name!r} cannot drain: it was never started, and {core.waiting} events wait; "
                f"start() it, or stop() it to get them back"
            )
        self._tell(core.stop())
        self._unstarted.detach()
        if core.state is not State.ENDED:
            self._all_left()

    def _heed(self, worker: int, item: tuple[K, E] | None, ended: K) -> tuple[K, E] | None:
        """Act on what is noted of the key that ended, and of the one that was chosen; what the worker goes on with."""
        core = self._core
        if ended is not NOTHING:
            core.heed(ended)
        elif item is None:
            return None  # It woke for nothing: to wake another for that, or itself, would go on for ever in a drain.
        if item is not None and core.is_to_park(item[0]):
            core.park_head(worker, item, self._clock.now())
            item = None
        elif item is not None and core.put_off(worker, item, self._clock.now()):
            self._nudge()
            item = None
        self._follow_up()
        return item

    def _settle_failed(self, worker: int, item: tuple[K, E], decision: float | Skip | Park, text: str) -> str:
        """Have the core do what was decided; what else became of the event, if it did not."""
        core, merged = self._core, self._core.merged
        if core.failed(worker, item, decision, text, self._clock.now()):
            self._nudge()
        is_merged = core.merged > merged  # Before others are let in, who may take places too.
        self._follow_up()
        if is_merged:
            return "a newer one takes its place"
        return "" if core.serving else "it is left by the stop"

    def _follow_up(self) -> None:
        """Let in, and wake, whom the step has made something to do for."""
        core = self._core
        if core.admitted or (core.adders and core.has_room()):
            self._admit()
        if core.wake():
            self._wake()

    def _admit(self) -> None:
        alarm = self._core.alarm
        if self._core.admit():
            self._wake()
        if self._core.alarm < alarm:
            self._nudge()
        self._tell(self._core.admitted)
        self._core.admitted.clear()

    def _look_at_time(self) -> float:
        """Let in what is due, and see which handlers run for long; when to look again."""
        core, now = self._core, self._clock.now()
        if core.release(now):
            self._wake()
        until = max(core.alarm, now + _SLACK)
        if self._warn_after is not None:
            self._late += core.watch(now, self._warn_after)
            until = min(until, now + max(self._warn_after / 2, _SLACK))
        return until

    def _disown(self) -> None:
        """Become useless: this is a forked child, and the threads are the parent's."""
        self._mutex = Forked()
        self._unstarted.detach()


def _report_unstarted(core: Dispatch[Any, Any]) -> None:
    if core.state is State.OPEN and core.waiting:
        _log.error("pool %r is dropped with %d events: it was never started", core.name, core.waiting)
