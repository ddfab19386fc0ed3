"""EventWorkerPool on threads.

The core decides; this module waits, wakes and calls. Its rules:

- *One mutex* around each step of the core, never around the handler, a log record or the release of an event.
  What is in `mutex.py` is written out in the two places that each event passes, `_add` and `_work`.
- *No step is left half made* (P11). An exception between any two lines is undone, or the step completed, before the
  mutex is free again: hence here and there two facts that must not come apart in one assignment.
- *Waiting is done in C*, in a `SimpleQueue`: `threading.Event` and `Condition` are Python, and a signal between two of
  their lines leaves them broken.
- *A wake-up may be sent twice, never lost*: a worker that wakes for nothing goes back to sleep.
- *Time is one thread's*: the timekeeper lets retries that are due take their turn, and looks for handlers that run too
  long. It sleeps until there is either to do, counts as one of those who serve the pool, and is the last to leave.
"""

from __future__ import annotations

import os
import sys
import threading
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from queue import Empty, SimpleQueue
from threading import get_ident
from time import monotonic
from types import TracebackType
from typing import Literal, Self, cast

from workpool import process
from workpool.arguments import seconds
from workpool.clock import Clock
from workpool.driver import TIMEKEEPER
from workpool.flush import Flush
from workpool.handlers import takes_delivery
from workpool.hooks import Hooks
from workpool.intake import Reading, Source
from workpool.lanes import NOTHING, E, K
from workpool.policy import Fail, Policy
from workpool.pool import Adding, Pool
from workpool.records import State
from workpool.turn import Features, Handler, Turn
from workpool.twin import Hand, entrance, one_by_one

__all__ = ["EventWorkerPool"]


class EventWorkerPool(Pool[K, E]):
    """Handles events on threads: each exactly once, in order per key, no key blocking another.

    Within one key an event starts after the one before has ended; across keys up to `workers` run at once. A key is
    only a name: nothing sets it up, and nothing remains of it when it is idle. As a context manager the pool starts
    on entering (unless it has started) and drains on leaving; an exception that leaves the block stops it.

    What a handler that raises means is the policy `on_failure`. By default the pool *fails*: it stops, and every later
    call raises a new `HandlerError`. A handler decides by itself by raising `RetryAfter`, `SkipEvent` or `ParkKey`.

    Cost: an idle worker is a sleeping thread, choosing an event is O(1) whatever waits, and an event costs the same
    from 1 to 256 workers.

    Args:
        handler: Called as `handler(event)`, or as `handler(event, delivery)` where its second positional parameter
            has no default or is named `delivery`. Its result is dropped.
        workers: How many threads; None for min(32, processors + 4). Handlers mostly wait for something else, so a
            pool wants more threads than processors, and it is the number that `ThreadPoolExecutor` chooses.
        max_backlog: How many events may wait, those in flight not counted; None for no bound.
        max_lane: How many events of one key may wait behind its first, so that one key cannot use up `max_backlog`;
            None for no bound of its own. An `add` for a key that has as many waits for that key only.
        name: Names the pool in errors, log records and threads.
        on_failure: `Fail()`, `Skip()`, `Park()`, or `Retry(...)`, which ends in one of them.
        max_dead: How many events that were given up on are kept for `dead()`, the newest; None for all.
        warn_after: A handler that runs for more than so many seconds is logged once, with its stack; None for never.
        clock: Where the time comes from; None for the system's clock. `workpool.testing` has one for tests.
        hooks: Hears what happens, event by event; each `add` takes its longer way then. None for nobody.
        coalesce: "latest" keeps at most one waiting event of a key, the newest: each that it replaces is `merged`. A
            retry that is pending is replaced too, and the newer event starts its attempts afresh, at once or when its
            own `delay` is over. One run always starts after the last `add`. It needs no room where one waits already.
        max_burst: How many events of one key, or batches, a worker handles in a row before other keys have their turn.
        batch: The handler gets a list of up to so many events of one key, those that wait when it starts. What it
            raises fails them all: they are retried together, or skipped, or parked. Where it returns a number, it has
            done so many, and only the others have failed. While it runs, those behind the first count as waiting. Name
            the types then, `EventWorkerPool[str, Event](handle, batch=100)`. None hands over each event by itself.
        timing: Tells in `Delivery.age` how long ago the event was added; of the first, for a batch.
        contextvars: The context (`contextvars`) of who called `add` is current in the handler, at each attempt.

    Raises:
        TypeError: The handler cannot be called so, or an argument is of the wrong type.
        ValueError: A number is too low.
    """

    def __init__(
        self,
        handler: Handler[E],
        *,
        workers: int | None = None,
        max_backlog: int | None = 10_000,
        max_lane: int | None = None,
        name: str = "default",
        on_failure: Policy = Fail(),  # noqa: B008 - frozen
        max_dead: int | None = 1000,
        warn_after: float | None = 60.0,
        clock: Clock | None = None,
        hooks: Hooks | None = None,
        coalesce: Literal["latest"] | None = None,
        max_burst: int = 1,
        batch: int | None = None,
        timing: bool = False,
        contextvars: bool = False,
    ) -> None:
        self._takes_delivery = takes_delivery(handler)
        self._handler: Callable[..., object] = handler
        super().__init__(
            workers=min(32, (os.cpu_count() or 1) + 4) if workers is None else workers, max_backlog=max_backlog,
            max_lane=max_lane, name=name, on_failure=on_failure, max_dead=max_dead, warn_after=warn_after, clock=clock,
            features=Features(hooks, coalesce, max_burst, batch, timing, contextvars),
        )  # fmt: skip
        self._nudges: SimpleQueue[None] = SimpleQueue()
        """Calls the timekeeper before its time."""
        self._wakeups: SimpleQueue[None] = SimpleQueue()
        self._threads: dict[int, threading.Thread] = {}
        """The workers that have arrived."""
        self._inside: set[int] = set()
        self._ended: SimpleQueue[None] = SimpleQueue()

    def start(self, workers: int | None = None) -> Self:
        """Start the workers. Events that were added before are handled now.

        Args:
            workers: How many; None for what the constructor was given.

        Raises:
            RuntimeError: It was started before.
            PoolClosed: It was drained or stopped before.
            TypeError, ValueError: As for the constructor.
        """
        me = object()
        try:
            number = self._step(self._enlist, me, workers)
            name = f"workpool-{self._core.name}-timekeeper"
            threading.Thread(target=self._live, args=(TIMEKEEPER,), name=name, daemon=True).start()
            for worker in range(number):
                name = f"workpool-{self._core.name}-{worker}"
                threading.Thread(target=self._live, args=(worker,), name=name, daemon=True).start()
        except BaseException:
            if self._take_back(me, self._threads):
                self._wait(None)
            raise
        return self

    @entrance
    def add(self, key: K, event: E, *, timeout: float | None = None, delay: float | None = None) -> None:
        """Add an event at the end of its key's lane.

        When this returns, the event is accepted: it will end exactly once, after those of its key whose `add`
        returned before. When this raises, it is not accepted, except where an exception comes from outside (Ctrl-C):
        then it is accepted or not, never half.

        It waits while the pool is full, first come first served, and goes on once half of the bound is free. From a
        handler of the same pool it never waits, for it could wait for itself: the event is accepted over the bound.

        Args:
            key: Names the lane: any hashable object. It is compared inside the pool, and must not call it.
            event: Any object.
            timeout: How many seconds to wait at most; None waits as long as it takes.
            delay: How many seconds from now on the event does not start, at least; None or 0 for no delay. It keeps its
                place: what is added to its key later comes after it, and waits too. It counts as one that waits, in
                `max_backlog` too, and a `drain` waits for it; `resume` of its key ends the delay.

        Raises:
            TimeoutError: The pool was full for that long.
            PoolClosed: The pool takes no more, or began to refuse while this waited.
            HandlerError: The pool failed.
            TypeError: The key is not hashable, or a number is none.
            ValueError: A number of seconds is negative.
            RuntimeError: This thread is inside the pool already (a signal handler, a `__del__`, the key's own
                `__hash__` or `__eq__`), or this is a forked child.
        """
        self._enter(key, event, SimpleQueue, self._await, None if timeout is None else seconds(timeout), delay=delay)

    def add_nowait(self, key: K, event: E, *, delay: float | None = None) -> None:
        """Add an event as `add` does, or raise at once where that would wait.

        Raises:
            PoolFull: The pool is full, or others wait for room, whoever calls.
            PoolClosed, HandlerError, TypeError, ValueError, RuntimeError: As for `add`.
        """
        self._enter(key, event, delay=delay)

    def add_many(self, pairs: Iterable[tuple[K, E]], *, timeout: float | None = None) -> int:
        """Add events, each as `add` does and in the order given: cheaper than as many calls.

        It takes pairs from an iterator one by one, as there is room, and gives other threads their turn meanwhile.

        Args:
            pairs: Each a key and an event.
            timeout: How many seconds to wait at most, in all; None waits as long as it takes.

        Returns:
            How many there were.

        Raises:
            TimeoutError, PoolClosed, HandlerError, TypeError, RuntimeError: As for `add`, at the first pair that is
                not accepted; no later one is. Whatever is raised, here or by the iterator, says in its attribute
                `added` how many were accepted.
        """
        patience = seconds(timeout)
        enter_some = self._enter_some if type(self).add is EventWorkerPool.add else one_by_one
        with Adding(pairs, enter_some, patience, monotonic) as adding:
            while (pair := adding.next()) is not NOTHING:
                key, event = pair
                self.add(key, event, timeout=adding.patience())
                adding.added += 1
        return adding.added

    def drain(self, timeout: float | None = None) -> None:
        """Handle all that was accepted, then end; refuse adds from outside at once.

        Adds from handlers are part of finishing, and are accepted until the last event has ended. From a handler this
        only asks, and returns at once. Any number of calls, from any thread, wait for the same ending.

        Args:
            timeout: How many seconds to wait at most; None waits as long as it takes.

        Raises:
            TimeoutError: It has not ended yet. It goes on draining.
            DrainIncomplete: It ended with events left: of parked keys, which are no work; or what a `stop()` left.
            HandlerError: The pool failed.
            RuntimeError: It was never started and events wait: `start()` it, or `stop()` it to get them back.
        """
        patience = seconds(timeout)
        self._step(self._close, False)
        self._require_drained(self._wait(patience), timeout)

    def stop(self, timeout: float | None = None) -> list[tuple[K, E]]:
        """Finish what is in flight, start nothing more, refuse every add, and return what was not handled.

        From a handler this only asks, and returns an empty list at once. Any number of calls, from any thread, wait
        for the same ending and return the same list. A handler that raises now is logged, and its event is returned.

        A thread cannot be killed: a handler that never returns keeps its thread, which ends with the process.

        Args:
            timeout: How many seconds to wait at most; None waits as long as it takes.

        Returns:
            The events that were not handled, as (key, event), in order within each key; also kept as `left`.

        Raises:
            StopTimeout: Handlers are still running. A later call waits again.
            HandlerError: The pool failed.
        """
        patience = seconds(timeout)
        self._step(self._close, True)
        if not self._wait(patience) and self._is_inside():
            return []
        return self._require_stopped(timeout)

    def flush(self, key: K = NOTHING, *, timeout: float | None = None) -> None:
        """Wait until everything has ended that was accepted before the call: of one key, or of all.

        Handled or given up on, that is; a retry is waited for. What is added meanwhile is not: a pool that is never
        idle can be flushed. It needs no ending, and changes nothing. Cost: O(keys that have events) for all, O(1) for
        one; nothing for the events that come after.

        Args:
            key: Whose events; where it has none, this returns at once. Left out: those of every key.
            timeout: How many seconds to wait at most; None waits as long as it takes.

        Raises:
            FlushIncomplete: Such a key is parked, or is while this waits: it would wait for somebody to resume it.
            TimeoutError: That took longer.
            PoolClosed, HandlerError: The pool was stopped, or has failed, with events left.
            RuntimeError: A handler of this pool calls, who would wait for itself; or it was never started and events
                wait.
            TypeError: The key is not hashable.
        """
        bell: SimpleQueue[None] = SimpleQueue()
        with Flush(self, key, bell, seconds(timeout)) as flush:
            while not flush.is_over():
                try:
                    bell.get(timeout=flush.patience())
                except Empty:
                    raise flush.late() from None

    def run(self, *sources: Source) -> None:
        """Read sources, all at the same time, and add what they bring, until each has ended or is stopped.

        It starts the pool unless that has started, and leaves it open: what was added is handled, and `drain` waits for
        that. `stop` and `drain` of the pool, from anywhere, end this too. It reads no faster than events are handled:
        while the pool is full, a source waits.

        Cost: a thread for each source, which ends with this call. An exception in the wait, such as Ctrl-C, stops the
        sources first.

        Args:
            sources: What to read, such as `workpool.sources.kubernetes.watch(...)`. Events of one key come in the order
                of their source; those of several sources in the order in which they are read.

        Raises:
            TypeError: One is no source.
            HandlerError: The pool failed.
            PoolClosed: It was drained or stopped before.
            Exception: What a source raised first; the others are stopped.
        """
        if not self._step(self._has_started):
            self.start()
        bell: SimpleQueue[None] = SimpleQueue()
        reading = Reading(self, sources, bell, partial(bell.put, None))
        try:
            reading.start()
            if sources:
                bell.get()
        finally:
            reading.end()
        reading.check()

    def __enter__(self) -> Self:
        if not self._step(self._has_started):
            self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is not None:
            self._step(self._close, True)
            self._wait(None)
            self._note_left(error)
            return
        try:
            self.drain()
        except BaseException as failure:
            if not self._leave_block(failure):
                raise

    def _live(self, worker: int) -> None:
        """One worker's life: it comes, works, and leaves whatever happens."""
        try:
            if self._step(self._arrive, worker):
                self._keep_time() if worker == TIMEKEEPER else self._work(worker)
            self._leave(worker)
        except BaseException:
            self._leave(worker)  # Once more, where it was cut short: each part of it may be done twice.
            raise

    def _work(self, worker: int) -> None:
        """Sleep, take, and handle what there is, until the pool is settled."""
        core, mutex, wakeups = self._core, self._mutex, self._wakeups
        handler, takes_delivery = self._handler, self._takes_delivery
        hand: Hand[K, E] = Hand(self, worker, handler, takes_delivery)
        run = Turn(self, worker, hand, handler, takes_delivery).run if self._features.are_asked else hand.run
        try:
            while core.state is State.OPEN or not self._step(core.settle):
                wakeups.get()
                self._take(worker, hand)
                while (outcome := run()) is True:
                    self._see_to(worker, hand)
                if outcome is False:
                    return  # The handler forked, and this is the child.
                if outcome is not None:
                    if self._mutex is not mutex or not isinstance(outcome, Exception):
                        raise outcome
                    if not self._put_aside(worker, hand.item, outcome):
                        raise outcome
                    hand.item = outcome = None
        except BaseException as error:
            if self._mutex is not mutex:
                raise  # As above, in a child that the handler forked.
            self._fail(worker, hand.item, error, hand.ended)

    def _keep_time(self) -> None:
        """Look, and sleep until the next look, until the timekeeper is the last that serves the pool."""
        try:
            while self._core.workers != {TIMEKEEPER}:
                pause = self._do_what_is_due(self._nudge)
                with suppress(Empty):
                    self._nudges.get(timeout=None if pause is None else min(pause, threading.TIMEOUT_MAX))
        except BaseException as error:
            self._fail(TIMEKEEPER, None, error)

    def _report(self, worker: int, key: K, seconds: float) -> None:
        """Log where a handler is that runs for long, unless it has just returned."""
        thread = self._place(worker)
        frame = sys._current_frames().get(thread.ident or 0)
        stack = "".join(traceback.format_stack(frame)) if frame else ""
        del frame
        if stack and self._step(self._core.key_at, worker) is key:
            self._say_late(key, seconds, f"on thread {thread.name}", stack)

    def _place(self, worker: int) -> threading.Thread:
        """The thread that runs the handler of a worker."""
        return self._threads[worker]

    # Steps: each is called with the mutex taken.

    def _wake(self, again: bool = True) -> None:
        if again or self._wakeups.empty():
            self._wakeups.put(None)

    def _nudge(self) -> None:
        self._nudges.put(None)

    def _tell(self, gates: list[object]) -> None:
        for gate in gates:
            cast("SimpleQueue[None]", gate).put(None)

    def _arrive(self, worker: int) -> bool:
        if self._complete:
            self._threads[worker] = threading.current_thread()
            if worker != TIMEKEEPER:
                self._inside.add(get_ident())
        return self._complete

    def _enlist(self, starter: object, workers: int | None) -> int:
        number = super()._enlist(starter, workers)
        self._core.workers.add(TIMEKEEPER)
        process.running[self] = None
        return number

    def _leave(self, worker: int) -> None:
        super()._leave(worker)
        self._inside.discard(get_ident())

    def _all_left(self) -> None:
        process.running.pop(self, None)
        self._ended.put(None)  # Before the end, which asks for memory: whoever waits makes it again.
        self._core.end()

    # Around the steps.

    def _is_inside(self) -> bool:
        return get_ident() in self._inside

    @contextmanager
    def _from_inside(self) -> Iterator[None]:
        """Count this thread as one that runs a handler, for as long."""
        ident = get_ident()
        if ident in self._inside:
            yield
            return
        self._inside.add(ident)
        try:
            yield
        finally:
            self._inside.discard(ident)

    def _wait(self, timeout: float | None) -> bool:
        """Wait for the ending; False from a handler, and after the time-out."""
        if self._is_inside():
            return False
        try:
            with suppress(Empty):
                self._ended.get(timeout=timeout)
            over = self._pass_on()
        except BaseException:
            self._pass_on()  # Once more, where it was cut short.
            raise
        if not over:
            return False
        self._step(self._core.end)
        for thread in self._threads.values():
            thread.join()
        return True

    def _pass_on(self) -> bool:
        """Whether the pool is at its end, which the next that waits is told of then."""
        core = self._core
        over = not core.workers and (self._starter is not None or core.state is State.ENDED)
        if over:
            self._ended.put(None)
        return over
