"""EventWorkerPool on threads.

The core decides; this module waits, wakes and calls. Its rules:

- *One mutex* around each step of the core, never around the handler, a log record or the release of an event.
  What is in `mutex.py` is written out in the two places that each event passes, `_add` and `_work`.
- *No step is left half made* (P11). An exception between any two lines is undone, or the step completed, before the
  mutex is free again: hence here and there two facts that must not come apart in one assignment.
- *Waiting is done in C*, in a `SimpleQueue`: `threading.Event` and `Condition` are Python, and a signal between two of
  their lines leaves them broken.
- *A wake-up may be sent twice, never lost*: a worker that wakes for nothing goes back to sleep.
"""

from __future__ import annotations

import atexit
import logging
import os
import threading
import traceback
import weakref
from collections.abc import Callable
from contextlib import suppress
from queue import Empty, SimpleQueue
from threading import get_ident
from types import TracebackType
from typing import Any, Generic, NoReturn, ParamSpec, Self, TypeVar, cast

from workpool.arguments import count, require_hashable, seconds
from workpool.dispatch import Dispatch, State, Stats
from workpool.errors import DrainIncomplete, PoolFull, StopTimeout, WorkpoolError, describe
from workpool.handlers import Delivery, takes_delivery
from workpool.lanes import E, K
from workpool.mutex import Forked, give_way, make_mutex, require_outside, step

__all__ = ["EventWorkerPool"]

_log = logging.getLogger("workpool")
_P = ParamSpec("_P")
_R = TypeVar("_R")


class EventWorkerPool(Generic[K, E]):
    """Handles events on threads: each exactly once, in order per key, no key blocking another.

    Within one key an event starts after the one before has ended; across keys up to `workers` run at once. A key is
    only a name: nothing sets it up, and nothing remains of it when it is idle. As a context manager the pool starts
    on entering (unless it has started) and drains on leaving; an exception that leaves the block stops it.

    A handler that raises makes the pool *fail*: it stops, and every later call raises a new `HandlerError`.

    Cost: an idle worker is a sleeping thread, choosing an event is O(1) whatever waits, and an event costs the same
    from 1 to 256 workers.

    Args:
        handler: Called as `handler(event)`, or as `handler(event, delivery)` where its second positional parameter
            has no default or is named `delivery`. Its result is dropped.
        workers: How many threads; None for min(32, processors + 4). Handlers mostly wait for something else, so a
            pool wants more threads than processors, and it is the number that `ThreadPoolExecutor` chooses.
        max_backlog: How many events may wait, those in flight not counted; None for no bound.
        name: Names the pool in errors, log records and threads.

    Raises:
        TypeError: The handler cannot be called so, or an argument is of the wrong type.
        ValueError: `workers` or `max_backlog` is below 1.
    """

    def __init__(
        self,
        handler: Callable[[E], object] | Callable[[E, Delivery], object],
        *,
        workers: int | None = None,
        max_backlog: int | None = 10_000,
        name: str = "default",
    ) -> None:
        self._takes_delivery = takes_delivery(handler)
        self._handler: Callable[..., object] = handler
        self.workers: int = count("workers", min(32, (os.cpu_count() or 1) + 4) if workers is None else workers)
        """How many workers the pool has, or will have when it is started."""
        bound = None if max_backlog is None else count("max_backlog", max_backlog)
        if not isinstance(name, str):
            raise TypeError(f"name must be a string, and {name!r} is not")
        self._core: Dispatch[K, E] = Dispatch(bound, name)
        self._mutex = make_mutex()
        self._wakeups: SimpleQueue[None] = SimpleQueue()
        self._starter: object = None
        """Stands for the call of `start` that started the pool."""
        self._complete = True
        self._threads: dict[int, threading.Thread] = {}
        """The workers that have arrived."""
        self._inside: set[int] = set()
        self._ended: SimpleQueue[None] = SimpleQueue()
        self._unstarted = weakref.finalize(self, _report_unstarted, self._core)
        _pools.add(self)

    def start(self, workers: int | None = None) -> Self:
        """Start the workers. Events that were added before are handled now.

        Args:
            workers: How many; None for what the constructor was given.

        Raises:
            RuntimeError: It was started before.
            PoolClosed: It was drained or stopped before.
            TypeError, ValueError: As for the constructor.
        """
        number = self.workers if workers is None else count("workers", workers)
        me = object()
        try:
            self._step(self._enlist, me, number)
            for worker in range(number):
                name = f"workpool-{self._core.name}-{worker}"
                threading.Thread(target=self._live, args=(worker,), name=name, daemon=True).start()
        except BaseException:
            if self._starter is me:
                self._step(self._write_off)
                self.stop()
            raise
        return self

    def add(self, key: K, event: E, *, timeout: float | None = None) -> None:
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

        Raises:
            TimeoutError: The pool was full for that long.
            PoolClosed: The pool takes no more, or began to refuse while this waited.
            HandlerError: The pool failed.
            TypeError: The key is not hashable.
            RuntimeError: This thread is inside the pool already (a signal handler, a `__del__`, the key's own
                `__hash__` or `__eq__`), or this is a forked child.
        """
        self._add(key, event, True, timeout)

    def add_nowait(self, key: K, event: E) -> None:
        """Add an event as `add` does, or raise at once where that would wait.

        Raises:
            PoolFull: The pool is full, or others wait for room, whoever calls.
            PoolClosed, HandlerError, TypeError, RuntimeError: As for `add`.
        """
        self._add(key, event, False, None)

    def drain(self, timeout: float | None = None) -> None:
        """Handle all that was accepted, then end; refuse adds from outside at once.

        Adds from handlers are part of finishing, and are accepted until the last event has ended. From a handler this
        only asks, and returns at once. Any number of calls, from any thread, wait for the same ending.

        Args:
            timeout: How many seconds to wait at most; None waits as long as it takes.

        Raises:
            TimeoutError: It has not ended yet. It goes on draining.
            DrainIncomplete: A `stop()` ended it with events left.
            HandlerError: The pool failed.
            RuntimeError: It was never started and events wait: `start()` it, or `stop()` it to get them back.
        """
        patience = seconds(timeout)
        self._step(self._close, False)
        if self._wait(patience):
            if self._core.failure is not None:
                raise self._step(self._core.refusal, "is of no more use")
            if self._core.left:
                left = self._core.left
                raise DrainIncomplete(f"pool {self._core.name!r} was stopped with {len(left)} events left", left=left)
        elif not self._is_inside():
            stats = self.stats()
            raise TimeoutError(
                f"pool {self._core.name!r} has not drained in {timeout} s: "
                f"{stats.waiting} events wait, {stats.in_flight} are in flight"
            )

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
        state, left, keys = self._step(self._look)
        if state is not State.ENDED:
            raise StopTimeout(
                f"pool {self._core.name!r} has not stopped in {timeout} s: {len(keys)} handlers have not returned",
                left=left,
                in_flight=keys,
            )
        if self._core.failure is not None:
            raise self._step(self._core.refusal, "is of no more use")
        return left

    @property
    def left(self) -> list[tuple[K, E]]:
        """What the ending returned, as `stop()` gives it; empty until the pool has ended."""
        return self._step(lambda: self._core.left)

    def stats(self) -> Stats:
        """All counts, at one instant."""
        return self._step(self._core.stats)

    def __enter__(self) -> Self:
        if not self._step(self._has_started):
            self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is None:
            try:
                with suppress(DrainIncomplete):  # Whoever stopped it asked for that, and finds the rest in `left`.
                    self.drain()
            except WorkpoolError:
                raise
            except BaseException:
                self._step(self._close, True)  # An exception leaves the block after all: Ctrl-C, in the wait.
                raise
            return
        self._step(self._close, True)
        self._wait(None)
        if left := len(self._core.left):
            error.add_note(f"pool {self._core.name!r} was stopped with {left} events left")

    def __repr__(self) -> str:
        core = self._core
        return (
            f"<EventWorkerPool {core.name!r}: {core.state.value}, {len(core.workers)} workers, "
            f"{core.waiting} events waiting, {core.in_flight} in flight>"
        )

    def __reduce__(self) -> NoReturn:
        raise TypeError(f"pool {self._core.name!r} holds threads and cannot be pickled or copied")

    # The fast path, and the mutex around it.

    def _add(self, key: K, event: E, waits: bool, timeout: float | None) -> None:
        if timeout is not None:
            timeout = seconds(timeout)
        mutex, core = self._mutex, self._core
        require_outside(mutex)
        gate = None
        try:
            if not mutex.acquire(False):
                give_way(mutex)
            wake = core.submit(key, event)
            if undecided := wake is None:
                gate = SimpleQueue[None]() if waits else None
                wake = core.offer(key, event, gate, self._is_inside())
            if wake:
                self._wakeups.put(None)
            mutex.release()
            if undecided:
                self._warn()
                if wake is None and gate is not None:
                    self._await(gate, timeout)
        except BaseException as error:
            try:
                if not mutex._is_owned():
                    give_way(mutex)
                if gate is not None:
                    core.withdraw(gate)
                    core.refused.pop(gate, None)
                if core.waking or core.wake():
                    self._wakeups.put(None)  # The one that this call owed may not have been sent.
            finally:
                mutex.release()
            self._warn()
            if isinstance(error, TypeError):
                require_hashable(key)
            raise

    def _await(self, gate: SimpleQueue[None], timeout: float | None) -> None:
        """Wait at the gate of an adder that is listed."""
        with suppress(Empty):
            gate.get(timeout=timeout)
        refusal = self._step(self._withdraw, gate)
        if isinstance(refusal, PoolFull):
            raise TimeoutError(f"{refusal}; given up after {timeout} s")
        if refusal is not None:
            raise refusal

    def _live(self, worker: int) -> None:
        """One worker's life: it comes, works, and leaves whatever happens."""
        try:
            if self._step(self._arrive, worker):
                self._work(worker)
            self._leave(worker)
        except BaseException:
            self._leave(worker)  # Once more, where it was cut short: each part of it may be done twice.
            raise

    def _work(self, worker: int) -> None:
        """Sleep, take, handle, next, until the pool is finished."""
        core, mutex, wakeups, handler = self._core, self._mutex, self._wakeups, self._handler
        takes_delivery = self._takes_delivery
        item: tuple[K, E] | None = None
        ended = False  # The event was handled, and its key is not passed on yet.
        try:
            while not core.finished:
                wakeups.get()
                if not mutex.acquire(False):
                    give_way(mutex)
                item = core.take(worker)
                if core.wake():
                    wakeups.put(None)
                if core.adders and core.has_room():
                    self._admit()
                mutex.release()
                while item is not None:
                    # The handler's return and its record are one statement, so that no exception falls between.
                    if takes_delivery:
                        _result, ended = handler(item[1], Delivery(item[0], 1)), True
                    else:
                        _result, ended = handler(item[1]), True
                    key, item, _result = item[0], None, None  # The event is released here, outside the mutex.
                    if self._mutex is not mutex:
                        return  # The handler forked, and this is the child: what waits is the parent's.
                    if not mutex.acquire(False):
                        give_way(mutex)
                    item, ended = core.next(worker, key), False
                    if core.adders and core.has_room():
                        self._admit()
                    mutex.release()
                    del key  # And here the key, if it is idle now.
        except BaseException as error:
            if self._mutex is not mutex:
                raise  # As below, in a child that the handler forked.
            if not mutex._is_owned():
                give_way(mutex)
            key = core.holds[worker]
            self._tell(core.fail(worker, None if ended else item, error, ended))
            mutex.release()
            _log.error(
                "pool %r: the handler of key %s raised at attempt 1, and the pool stops",
                core.name, describe(key), exc_info=error,
            )  # fmt: skip

    def _step(self, transition: Callable[_P, _R], *args: _P.args, **kwargs: _P.kwargs) -> _R:
        """Make one step of the core, alone and whole."""
        return step(self._mutex, transition, *args, **kwargs)

    # Steps: each is called with the mutex taken.

    def _admit(self) -> None:
        if self._core.admit():
            self._wakeups.put(None)
        self._tell(self._core.admitted)
        self._core.admitted.clear()

    def _tell(self, adders: list[object]) -> None:
        for gate in adders:
            cast("SimpleQueue[None]", gate).put(None)

    def _withdraw(self, gate: SimpleQueue[None]) -> Exception | None:
        """Take an adder off the list; why its event was not accepted, or None where it was."""
        core = self._core
        if not core.withdraw(gate):
            return core.refused.pop(gate, None)
        return core.full() if core.state is State.OPEN else core.refusal("takes no more events")

    def _has_started(self) -> bool:
        if self._core.state is not State.OPEN:
            raise self._core.refusal("cannot be entered")
        return self._starter is not None

    def _enlist(self, starter: object, workers: int) -> None:
        if self._core.state is not State.OPEN:
            raise self._core.refusal("cannot be started")
        if self._starter is not None:
            raise RuntimeError(f"pool {self._core.name!r} was started before")
        self._starter = starter
        self.workers = workers
        self._core.start(workers)
        self._unstarted.detach()
        _running[self] = None
        if self._core.wake():
            self._wakeups.put(None)

    def _arrive(self, worker: int) -> bool:
        if self._complete:
            self._threads[worker] = threading.current_thread()
            self._inside.add(get_ident())
        return self._complete

    def _write_off(self) -> None:
        """Stop, without the workers that have not arrived: a thread that could not be started, or comes too late."""
        self._complete = False
        self._tell(self._core.stop())
        for worker in range(self.workers):
            if worker not in self._threads:
                self._core.leave(worker)
        if not self._core.workers:
            self._all_left()

    def _look(self) -> tuple[State, list[tuple[K, E]], list[K]]:
        core = self._core
        return core.state, core.left if core.state is State.ENDED else core.unhandled(), core.keys_in_flight()

    def _close(self, stopping: bool) -> None:
        core = self._core
        if self._starter is not None:
            self._tell(core.stop() if stopping else core.drain())
            if self._wakeups.empty():  # Else each call of one that asks again and again would add to them.
                self._wakeups.put(None)
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

    def _leave(self, worker: int) -> None:
        if isinstance(self._mutex, Forked):
            return  # The handler forked, and in the child there is nobody to leave.
        last = self._step(self._core.leave, worker)
        self._wakeups.put(None)  # The next that sleeps may leave too.
        if last:
            self._step(self._all_left)
        self._inside.discard(get_ident())

    def _all_left(self) -> None:
        _running.pop(self, None)
        self._ended.put(None)  # Before the end, which asks for memory: whoever waits makes it again.
        self._core.end()

    # Around the steps.

    def _is_inside(self) -> bool:
        return get_ident() in self._inside

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

    def _warn(self) -> None:
        crowd, self._core.warning = self._core.warning, None
        if crowd is None:
            return
        try:
            _log.warning(
                "pool %r: %d events, half of max_backlog, wait behind keys in flight, %d of them behind key %s",
                self._core.name, crowd.blocked, crowd.depth, describe(crowd.key),
            )  # fmt: skip
        except Exception:
            traceback.print_exc()  # The event is accepted, and logging that is broken cannot make its add raise.


_pools: weakref.WeakSet[EventWorkerPool[Any, Any]] = weakref.WeakSet()
_running: dict[EventWorkerPool[Any, Any], None] = {}
"""The pools that have workers, in the order of their starts."""


def _drain_all() -> None:
    """Drain what is open when the process ends, the last started first."""
    for pool in reversed(list(_running)):
        if pool._core.state in (State.OPEN, State.DRAINING):
            try:
                pool.drain()
            except WorkpoolError:
                _log.exception("pool %r was not drained when the process ended", pool._core.name)


def _disown() -> None:
    """Make every pool of the parent useless in a forked child, and idle for the thread that forked."""
    _running.clear()
    for pool in list(_pools):
        pool._mutex = Forked()
        pool._unstarted.detach()


atexit.register(_drain_all)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_disown)


def _report_unstarted(core: Dispatch[Any, Any]) -> None:
    if core.state is State.OPEN and core.waiting:
        _log.error("pool %r is dropped with %d events: it was never started", core.name, core.waiting)
