"""KeyedExecutor: the interface of `concurrent.futures`, in order per key.

It is the pool on threads, whose events are calls: each has a future, which gets what the call returns or raises. What a
`concurrent.futures.ThreadPoolExecutor` does, it does too: calls that were submitted are finished, whether it is shut
down, forgotten, or the process ends; after a shutdown it refuses, with the same words.
"""

from __future__ import annotations

import concurrent.futures
import logging
import os
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Hashable, Iterable, Iterator
from concurrent.futures import BrokenExecutor, Executor, Future
from contextlib import suppress
from types import TracebackType
from typing import Any, Final, NamedTuple, NoReturn, ParamSpec, Self, TypeVar, cast

from workpool.errors import HandlerError, PoolClosed, WorkpoolError
from workpool.records import State
from workpool.threads import EventWorkerPool

__all__ = ["KeyedExecutor"]

P = ParamSpec("P")
T = TypeVar("T")
I = TypeVar("I")  # noqa: E741

_REFUSAL: Final = "cannot schedule new futures after shutdown"
_BROKEN: Final = "the executor's pool failed, and is not usable anymore"

_log = logging.getLogger("workpool")


class KeyedExecutor:
    """Calls functions on threads: those of one key in the order in which they were submitted, others side by side.

    As a context manager it is shut down on leaving, and waits. It has no bound: `submit` never waits.

    Cost: as for `workpool.EventWorkerPool`, and a future for each call. Its threads start with the first call.

    Args:
        max_workers: How many calls run at once; None for min(32, processors + 4).

    Raises:
        TypeError: `max_workers` is no whole number.
        ValueError: It is below 1.
    """

    def __init__(self, max_workers: int | None = None) -> None:
        if max_workers is not None and not isinstance(max_workers, int):
            raise TypeError(f"max_workers must be a whole number, and {max_workers!r} is not")
        if max_workers is not None and max_workers <= 0:
            raise ValueError("max_workers must be greater than 0")
        number = min(32, (os.cpu_count() or 1) + 4) if max_workers is None else max_workers
        self._pool = _Pool(number)
        self._dropped = weakref.finalize(self, self._pool.forget)
        self._dropped.atexit = False

    def submit(self, key: Hashable, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Have `fn(*args, **kwargs)` called, after those of its key that were submitted before.

        Cancelling the future before the call starts takes the call out at once, and keeps the order of the rest. It
        looks for it from both ends of what waits: many are cancelled at little cost, in order or in reverse.

        Returns:
            The future of the call.

        Raises:
            RuntimeError: It is shut down, also where one of its own calls submits; or this is a forked child.
            TypeError: The key is not hashable.
        """
        future: _Future[T] = _Future(_Work(self._pool, key, fn, args, kwargs))
        self._submit(future)
        return future

    def map(
        self, fn: Callable[[I], T], items: Iterable[I], *, key: Callable[[I], Hashable], timeout: float | None = None
    ) -> Iterator[T]:
        """Call `fn` with each item, in order for items of one key. All are submitted at once.

        Args:
            fn: Called with one item.
            items: The items; they are collected at once.
            key: Gives the key of an item.
            timeout: How many seconds from now all results may take; None for as long as they take.

        Returns:
            The results, in the order of the items. Closing it early cancels the calls that have not started.

        Raises:
            TimeoutError: From the iterator: a result was not there in time.
            Exception: From the iterator: what the call of that item raised.
        """
        end = None if timeout is None else time.monotonic() + timeout
        return _results(deque([self.submit(key(item), fn, item) for item in items]), end)

    def for_key(self, key: Hashable) -> Executor:
        """An executor for the calls of one key: one after another, in order.

        It is a `concurrent.futures.Executor`, for all that takes one (`loop.run_in_executor` does). Shutting it down
        makes this one refuse, and waits for what it was given, except from a call; any other of the same key goes on.
        """
        hash(key)
        return _View(self, key)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more calls. Those that were submitted are finished, or cancelled where they have not started.

        Args:
            wait: Return when the last call has ended and the threads are gone; from a call of its own it never waits.
            cancel_futures: Cancel the calls that have not started.
        """
        for future in self._pool.close(cancel_futures):
            future.cancel()
        if wait:
            self._pool.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.shutdown()

    def __reduce__(self) -> NoReturn:
        raise TypeError("a KeyedExecutor holds threads and cannot be pickled or copied")

    def _submit(self, future: _Future[Any]) -> None:
        try:
            self._pool.submit(future)
        except PoolClosed:
            raise RuntimeError(_REFUSAL) from None
        except HandlerError as error:
            raise BrokenExecutor(_BROKEN) from error.__cause__


class _Work(NamedTuple):
    """A call."""

    pool: _Pool
    key: Hashable
    fn: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    over: Callable[[Future[Any]], object] | None = None
    """Called when it has ended and all done callbacks have, unless it was cancelled."""


class _Future(Future[T]):
    """A call and its future, which is the event of the pool."""

    def __init__(self, work: _Work) -> None:
        super().__init__()
        self.key = work.key
        self.work = work
        """What is to be done. Whoever takes it, to do it or to cancel it, is the one who tells those who wait."""

    def take(self) -> _Work | None:
        """The work, for the first who asks."""
        return cast("_Work | None", self.__dict__.pop("work", None))  # One step of the interpreter: two never get it.

    def cancel(self) -> bool:
        if not super().cancel():
            return False
        work = None
        try:
            if work := self.take():
                pool, key = work.pool, work.key
                # Told, and no work any more, are one statement: no exception falls between.
                _told, work = self.set_running_or_notify_cancel(), None
                if pool._core.serving:
                    with suppress(RuntimeError, WorkpoolError):  # Else a worker finds nothing to do at its turn.
                        pool._by_hand(pool._core.cancel, key, self)
        except BaseException:
            if work:
                self.work = work  # Whoever takes it next tells them.
            raise
        return True

    def run(self) -> None:
        """Do the work, unless it was cancelled."""
        work = self.take()
        try:
            if work is None or not self.set_running_or_notify_cancel():
                return
            try:
                result = work.fn(*work.args, **work.kwargs)
            except BaseException as error:
                self.set_exception(error)
            else:
                self.set_result(result)
        except BaseException:
            _log.critical(
                "a done callback of a future ended its thread's work, or the future was set twice", exc_info=True
            )
        finally:
            if work and work.over:
                work.over(self)
            del self, work  # The traceback of what was raised holds this frame.

    def give_up(self) -> None:
        """End without the work, which nobody will do."""
        if work := self.take():
            if self.set_running_or_notify_cancel():
                self.set_exception(BrokenExecutor(_BROKEN))
            if work.over:
                work.over(self)


class _Pool(EventWorkerPool[Hashable, _Future[Any]]):
    """The pool of an executor. It starts with its first event, and drains when its executor is forgotten."""

    def __init__(self, workers: int) -> None:
        super().__init__(_Future.run, workers=workers, max_backlog=None, name="executor", warn_after=None)
        self._forgotten = False

    def submit(self, future: _Future[Any]) -> None:
        if self._core.state is not State.OPEN:
            raise self._core.refusal("takes no more calls")  # From a call too, which a pool that drains would let add.
        if self._starter is None:
            try:
                self.start()
            except (RuntimeError, PoolClosed):  # Another thread has started it, or shut it down.
                if not self._complete:
                    raise
            finally:
                if not self._complete:
                    self._give_up()  # A thread could not be started. Others may have submitted meanwhile.
        self.add_nowait(future.key, future)

    def close(self, cancel: bool) -> list[_Future[Any]]:
        """Take no more; what is to be cancelled, by the caller."""
        self._step(self._close, cancel)
        return self._unhandled() if self._core.stopped else []

    def join(self) -> None:
        self._wait(None)

    def forget(self) -> None:
        """Drain, when the timekeeper hears of it: a finaliser may run on a thread that is inside."""
        self._forgotten = True
        self._nudge()

    def _look_at_time(self) -> float:
        if self._forgotten:
            self._close(False)
        return super()._look_at_time()

    def _fail(self, *args: Any, **kwargs: Any) -> None:
        super()._fail(*args, **kwargs)
        self._give_up()

    def _unhandled(self) -> list[_Future[Any]]:
        _, left, _ = self._step(self._look)
        return [future for _, future in left]

    def _give_up(self) -> None:
        for future in self._unhandled():
            future.give_up()


class _View(Executor):
    """The calls of one key."""

    def __init__(self, executor: KeyedExecutor, key: Hashable) -> None:
        self._executor = executor
        self._key = key
        self._futures: dict[Future[Any], threading.Lock] = {}
        """Those that have not ended, in order; each with a lock that is free when its done callbacks have ended too."""
        self._shut = False

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        futures, end = self._futures, threading.Lock()
        end.acquire()

        def over(future: Future[Any]) -> None:
            futures.pop(future, None)
            end.release()

        future: _Future[T] = _Future(_Work(self._executor._pool, self._key, fn, args, kwargs, over))
        try:
            futures[future] = end  # First: a shutdown that comes now waits for it.
            future.add_done_callback(lambda future: future.cancelled() and futures.pop(future, None))
            if self._shut:
                raise RuntimeError(_REFUSAL)
            self._executor._submit(future)
        except BaseException:
            if future.cancel():
                futures.pop(future, None)  # What was interrupted may have no callback yet.
            raise
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        self._shut = True
        futures = dict(self._futures)
        if cancel_futures:
            for future in futures:
                future.cancel()
        pool = self._executor._pool
        if wait and not pool._step(pool._is_inside):
            concurrent.futures.wait(futures)
            for future, end in futures.items():
                if not future.cancelled():
                    with end:
                        pass


def _results(futures: deque[Future[T]], end: float | None) -> Iterator[T]:
    try:
        while futures:  # No reference is kept to the one whose result is given.
            yield _result(futures.popleft(), None if end is None else end - time.monotonic())
    finally:
        for future in futures:
            future.cancel()


def _result(future: Future[T], timeout: float | None) -> T:
    try:
        return future.result(timeout)
    finally:
        future.cancel()
        del future  # What it raised holds this frame.
