"""EventWorkerPool on any `concurrent.futures.Executor`: processes, interpreters, a cluster's.

The pool keeps the order, and the executor runs the handler elsewhere. It is the pool on threads, whose workers each
submit one delivery and wait for its future. So whatever goes wrong elsewhere is an exception in a worker, nothing is
done in a future's callback (from where a broken `ProcessPoolExecutor` deadlocks whoever submits), and there are never
more than `workers` deliveries in flight.

An executor *breaks* when it loses what it held: a process of its was killed, or somebody shut it down. Nobody knows
then whether a handler had run, so what was lost is delivered again: at least once, before any later event of its key.
"""

from __future__ import annotations

import itertools
import logging
import os
import pickle
import threading
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import BrokenExecutor, CancelledError, Executor
from concurrent.futures import process as _process
from concurrent.futures import thread as _thread
from contextlib import contextmanager, nullcontext
from contextvars import Context, copy_context
from queue import SimpleQueue
from threading import get_ident
from typing import Any, Final, Literal, NamedTuple

from workpool import process
from workpool.clock import Clock
from workpool.driver import TIMEKEEPER
from workpool.errors import describe
from workpool.handlers import Delivery, takes_delivery
from workpool.hooks import Hooks
from workpool.lanes import E, K
from workpool.policy import Fail, Park, Policy, Skip
from workpool.threads import EventWorkerPool as ThreadsPool
from workpool.turn import Handler, in_context, require_done

__all__ = ["EventWorkerPool", "ExecutorBroken"]

_LOSSES: Final = 3
"""How often in a row a delivery may be lost until it counts as failed: it may be what kills its process."""

_SHUT_DOWN: Final = "cannot schedule new futures after"
"""How the standard library's executors begin to refuse: what they hold goes on."""

_log = logging.getLogger("workpool")
_numbers = itertools.count()


class ExecutorBroken(BrokenExecutor):
    """The executor lost an event, and that cannot be mended: it was no factory's, or three in a row have lost it."""


class EventWorkerPool(ThreadsPool[K, E]):
    """Handles events on an executor: each in order per key, no key blocking another, at least once where it breaks.

    It means what `workpool.EventWorkerPool` means, with these differences. The handler runs where the executor runs it;
    for processes it has to be importable there, and events have to pickle. An event whose executor broke is delivered
    again, by a new executor where a factory was given; after three losses in a row its failure is the policy's matter.
    Given an executor itself, the pool fails, loudly, when that breaks.

    A handler that runs in this process adds to the pool as on threads: without waiting. From another process it cannot.

    A pool that is forgotten is drained when the process ends, before the executors stop: wholly where its executor has
    started its threads or processes by then. One that has not can start threads and forked processes even then. So it
    can spawned processes and those of a fork server, but they find only a handler that can be imported, for Python has
    forgotten where the script is. Python 3.12.0 and 3.12.1 start nothing then: the pool fails, and says so in the log;
    with an executor of spawned processes that was given, and has not begun, it hangs. `drain` or `stop` it yourself.

    Cost: a thread for each worker, which waits, and what the executor costs.

    Args:
        handler: Called as `handler(event)`, or as `handler(event, delivery)`, as on threads.
        executor: An executor, which stays yours to shut down; or what makes one when it is called, and is called again
            when that breaks: those are shut down with the pool.
        workers: How many deliveries are in flight at once; None for as many as the executor says that it runs, else
            as on threads.
        max_backlog: As on threads, and so are all others.
        max_lane: How many events of one key may wait behind its first.
        name: Names the pool in errors, log records and threads.
        on_failure: What a handler that raises means.
        max_dead: How many events that were given up on are kept.
        warn_after: A handler that takes more than so many seconds is logged once, with its stack if it runs here.
        clock: Where the time comes from.
        hooks: Hears what happens, in this process.
        coalesce, max_burst, batch, timing: As on threads.
        contextvars: As on threads where the handler runs in this process; a context does not travel to another.

    Raises:
        TypeError: The executor is none and makes none, or as on threads.
        ValueError: A number is too low.
    """

    def __init__(
        self,
        handler: Handler[E],
        *,
        executor: Executor | Callable[[], Executor],
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
        if not isinstance(executor, Executor) and not callable(executor):
            raise TypeError(f"executor must be an Executor, or make one when it is called, and {executor!r} is neither")
        self._wants_delivery = takes_delivery(handler)
        self._remote: Callable[..., object] = handler
        given = executor if isinstance(executor, Executor) else None
        self._factory: Callable[[], Executor] | None = None if isinstance(executor, Executor) else executor
        self._executor: Executor | None = given
        self._making = threading.Lock()
        """Held while an executor is made or dropped, so that there is one at a time."""
        self._last_chance = threading.Lock()
        """Held while a delivery is made that was lost as often as it may be."""
        self._calls = itertools.count()
        self._places: dict[int, threading.Thread] = {}
        """The threads of this process that run the handlers of workers, by whose threads' numbers."""
        self._calls_to_start: dict[int, _Ended] = {}
        """The calls that have not started in this process."""
        self._number = next(_numbers)
        """Names this pool to its handlers that run in this process."""
        _pools[self._number] = self
        super().__init__(
            self._deliver, workers=getattr(given, "_max_workers", None) if workers is None else workers,
            max_backlog=max_backlog, max_lane=max_lane, name=name, on_failure=on_failure, max_dead=max_dead,
            warn_after=warn_after, clock=clock, hooks=hooks, coalesce=coalesce, max_burst=max_burst, batch=batch,
            timing=timing, contextvars=contextvars,
        )  # fmt: skip

    def _deliver(self, event: E, delivery: Delivery) -> int | None:
        """What a worker calls: have the executor run the handler, again where it is lost."""
        raised: BaseException | int | None = None
        for losses in range(1, _LOSSES + 1):
            # The last chance is given to one event at a time, so that none is blamed that was only beside another.
            with self._last_chance if losses == _LOSSES else nullcontext():
                executor, submitted = self._get_executor(), False
                ticket = _Ticket(_here(), self._number, get_ident(), next(self._calls), bool(self._features.batch))
                ended = self._calls_to_start[ticket.call] = _Ended()
                ended.context = copy_context() if self._features.contextvars else None
                try:
                    whole: Any = [*event] if ticket.is_batch else event  # type: ignore[misc]  # As it was, if lost.
                    arguments = (whole, delivery) if self._wants_delivery else (whole,)
                    future = [executor.submit(_call, ticket, self._remote, *arguments)]
                    submitted = True
                    raised = future.pop().result()  # Popped, for its exception would lead to this frame, and back.
                    if self._calls_to_start.pop(ticket.call, None) is None:
                        raised = ended.get()
                    break
                except (RuntimeError, OSError, CancelledError) as error:
                    cancelled, broke = isinstance(error, CancelledError), isinstance(error, BrokenExecutor)
                    if submitted and not (cancelled or broke):
                        raise  # The handler's own. What refuses at once is shut down, and has no better way to say so.
                    # What is lost and has not started here never will. What has started must not be delivered again
                    # beside itself; and where `submit` has raised although it has taken the call, it is no loss.
                    if self._calls_to_start.pop(ticket.call, None) is None:
                        raised = ended.get()
                        if not submitted:
                            break
                        raised = None
                    if not cancelled:
                        self._drop(executor, error)
                    text = f"{type(error).__name__}: {describe(error, str)}"
                    if self._factory is None or losses == _LOSSES or not self._core.serving:
                        raise ExecutorBroken(f"the executor has lost the event {losses} times: {text}") from error
                    if submitted:
                        key: Any = delivery.key
                        self._step(self._core.fail_once, key, text, self._clock.now())
                        delivery = delivery._replace(attempt=delivery.attempt + 1)
                finally:
                    self._calls_to_start.pop(ticket.call, None)
                    del ended  # It holds what was raised.
        if not isinstance(raised, BaseException):
            return raised
        try:
            raise raised
        finally:
            del raised  # As above.

    def _get_executor(self) -> Executor:
        with self._making:
            if self._executor is None:
                assert self._factory is not None
                made = self._factory()
                if not isinstance(made, Executor):
                    raise TypeError(f"executor must make an Executor when it is called, and has made {made!r}")
                self._executor = made
            return self._executor

    def _drop(self, executor: Executor, error: Exception) -> None:
        """Have the next delivery find a new executor, where there can be one."""
        with self._making:
            if self._factory is None or self._executor is not executor:
                return
            # A broken pool of processes fails its futures before it ends the processes, which it does by a signal that
            # they may ignore; and one that cannot start a process has taken the call all the same, for the others.
            # What one of them still runs must not be delivered again beside it.
            processes = None if describe(error, str).startswith(_SHUT_DOWN) else getattr(executor, "_processes", None)
            for each in list((processes or {}).values()):
                each.kill()
            self._shut_down(executor, wait=bool(processes))
            self._executor = None
        self._say(
            logging.WARNING, "pool %r: its executor broke, and what it held is delivered again by a new one: %s",
            self._core.name, describe(error, str),
        )  # fmt: skip

    def _shut_down(self, executor: Executor, *, wait: bool) -> None:
        try:
            executor.shutdown(wait=wait)
        except Exception as error:  # It is of no more use, whatever it says.
            self._say(logging.ERROR, "pool %r: its executor cannot be shut down", self._core.name, error=error)

    @contextmanager
    def _run_here(self, worker: int) -> Iterator[None]:
        self._places[worker] = threading.current_thread()
        try:
            with self._from_inside():
                yield
        finally:
            del self._places[worker]

    def _place(self, worker: int) -> threading.Thread:
        thread = super()._place(worker)
        return self._places.get(thread.ident or 0, thread)

    def _decide(self, error: Exception, attempt: int) -> float | Fail | Skip | Park:
        if self._factory is None and isinstance(error, ExecutorBroken):
            return Fail()
        return super()._decide(error, attempt)

    def _keep_time(self) -> None:
        super()._keep_time()
        while self._core.workers != {TIMEKEEPER}:  # It has failed, and they have not left yet.
            self._nudges.get()
        if self._factory is not None and self._executor is not None:
            self._shut_down(self._executor, wait=True)  # The pool has ended when this has.
            self._executor = None


class _Ended(SimpleQueue["BaseException | int | None"]):
    """What tells of the end of a call in this process: what it raised, or how much of its batch it has done."""

    context: Context | None = None
    """What it is called with."""


class _Ticket(NamedTuple):
    """Whose call it is. No two are equal, or dask would make equal calls once."""

    process: tuple[str, int]
    pool: int
    worker: int
    call: int
    is_batch: bool
    """Its result is wanted."""


_token: Final = os.urandom(8).hex()
"""Tells processes apart that have the same number, as on two machines, and interpreters in one process."""
_pools: weakref.WeakValueDictionary[int, EventWorkerPool[Any, Any]] = weakref.WeakValueDictionary()
"""The pools of this process, by number; in a forked child also those of its parent."""


def _here() -> tuple[str, int]:
    """This process: neither another one on any machine, nor a forked child of it."""
    return _token, os.getpid()


def _call(ticket: _Ticket, handler: Callable[..., object], *arguments: object) -> Exception | int | None:
    """What the executor runs. Where that is in the pool's own process, the handler's calls are from inside.

    Args:
        ticket: Whose call it is.
        handler: The user's.
        arguments: What it is called with.

    Returns:
        What the handler raised, where that would look like the executor's own; or how much of a batch it has done. In
        the pool's own process None, for the executor's frames would hold what was raised, and that them.
    """
    if ticket.process != _here():
        return _run(ticket, handler, arguments, travels=True)
    pool = _pools.get(ticket.pool)
    ended = None if pool is None else pool._calls_to_start.pop(ticket.call, None)
    if pool is None or ended is None:
        return None  # It counts as lost: it was delivered again, or is left.
    raised: BaseException | int | None = None
    try:
        with pool._run_here(ticket.worker):
            raised = in_context(ended.context)(_run, ticket, handler, arguments, travels=False)
    except BaseException as error:
        raised = error
        raise
    finally:
        ended.put(raised)
        del raised, ended  # What was raised leads to this frame.
    return None


def _run(
    ticket: _Ticket, handler: Callable[..., object], arguments: tuple[Any, ...], *, travels: bool
) -> Exception | int | None:
    try:
        size = len(arguments[0]) if ticket.is_batch else 0  # Of the list as it comes.
        result = handler(*arguments)
        return require_done(result, size) if ticket.is_batch else None
    except Exception as error:
        if travels and not _can_travel(error):
            raise RuntimeError(f"{type(error).__name__}: {describe(error, str)}") from error
        if isinstance(error, (BrokenExecutor, CancelledError)):
            return error
        raise


def _can_travel(error: Exception) -> bool:
    """Whether an exception can go to another process. One that cannot be made again there breaks a pool of them."""
    try:
        pickle.loads(pickle.dumps(error))
        return True
    except Exception:
        return False


def _drain_all() -> None:
    process.drain_all(EventWorkerPool)


# The executors of the standard library stop before `atexit`, by a call that they have registered when they were
# imported, just above; the last that is registered is the first that is made.
assert _process is not _thread
threading._register_atexit(_drain_all)  # type: ignore[attr-defined]
