"""Pools and histories that belong to one test, and say at its end what the test has not seen itself.

`workpool.testing.plugin` makes fixtures of them; nothing here needs pytest. A test has *seen* how a pool ended when an
`add`, a `flush` or an ending of that pool told it: by a `HandlerError` or a `DrainIncomplete`, or by what `stop()`
returned.

A test has to end, so no call here waits without end: where a pool would, it gives up after the limit, and says what the
pool waits for.
"""

from __future__ import annotations

import sys
import threading
import time
from asyncio import sleep
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, TypedDict, Unpack

from workpool import asyncio, threads
from workpool.arguments import duration
from workpool.clock import Clock
from workpool.errors import DrainIncomplete, HandlerError, StopTimeout, WorkpoolError, describe
from workpool.handlers import Delivery
from workpool.hooks import Hooks
from workpool.lanes import NOTHING, E, K
from workpool.policy import Policy
from workpool.pool import Pool
from workpool.records import Explanation, State
from workpool.testing.clock import FakeClock
from workpool.testing.history import History
from workpool.testing.loop import place

__all__ = ["AsyncioPoolFactory", "AsyncioPoolOptions", "PoolFactory", "PoolOptions", "WatchedHistory"]

_LIBRARY = (str(Path(threads.__file__).parent), threading.__file__)
"""Where the frames of a worker are that are not its handler's."""

_LOOK = 0.001
"""Seconds between two looks at a pool that is not still yet."""


class PoolOptions(TypedDict, total=False):
    """What `workpool.EventWorkerPool` takes beside the handler."""

    workers: int | None
    max_backlog: int | None
    max_lane: int | None
    name: str
    on_failure: Policy
    max_dead: int | None
    warn_after: float | None
    clock: Clock | None
    hooks: Hooks | None
    coalesce: Literal["latest"] | None
    max_burst: int
    batch: int | None
    timing: bool
    contextvars: bool


class AsyncioPoolOptions(PoolOptions, total=False):
    """What `workpool.asyncio.EventWorkerPool` takes beside the handler."""

    timeout: float | None


class _Watched(Pool[K, E]):
    """A pool that notes what the test was told of its end."""

    limit: float
    _has_told: bool = False
    _has_stopped: bool = False
    """Somebody asked it to stop, and so for what it has left."""

    def _patience(self, timeout: float | None) -> float:
        return self.limit if timeout is None else timeout

    @contextmanager
    def _telling(self) -> Iterator[None]:
        """Around a call of the test."""
        try:
            yield
        except (DrainIncomplete, HandlerError):
            self._has_told = self._has_told or not self._is_inside()
            raise
        except TimeoutError as error:
            for line in self._why():
                error.add_note(line)
            raise

    def is_still(self) -> bool:
        """Whether nothing goes on by itself: each event that is left waits for the test, or for the fake clock."""
        stats = self.stats()
        if stats.in_flight or stats.keys > stats.retrying + stats.parked + stats.delayed:
            return False
        times = [each.due for each in self._held() if each.due is not None]
        return not times or (isinstance(self._clock, FakeClock) and min(times) > self._clock.now())

    def require_still(self) -> None:
        """Raise what says why it is not, after the limit."""
        if not self.is_still():
            with self._telling():
                raise TimeoutError(f"pool {self._core.name!r} is not still in {self.limit:g} s")

    def _held(self) -> list[Explanation]:
        stats = self.stats()
        return self.top(max(1, stats.retrying + stats.parked + stats.delayed), by="age")

    def _why(self) -> list[str]:
        """What the pool waits for, a line for each key; ten of those that are held."""
        workers = [(worker, self._step(self._core.key_at, worker)) for worker in range(len(self._core.holds))]
        running = [
            f"  the handler of key {describe(key)} has not returned{self._where(worker)}"
            for worker, key in workers
            if key is not NOTHING
        ]
        return running + [self._explained(each) for each in self._held()[:10] if each.waiting]

    def _explained(self, held: Explanation) -> str:
        after = f" after {held.error}" if held.error else ""
        if held.due is None:
            return f"  key {describe(held.key)} is parked{after}: resume(key) or skip_head(key) lets it go on"
        due = "advance the clock by" if isinstance(self._clock, FakeClock) else "it is due in"
        what = "its delay to be over" if held.state == "delayed" else "its retry"
        return f"  key {describe(held.key)} waits for {what}{after}: {due} {held.due - self._clock.now():g} s"

    def _where(self, worker: int) -> str:
        """Where the handler of a worker stands, as the end of a sentence."""
        raise NotImplementedError

    def _failed(self, error: HandlerError) -> list[str]:
        if self._has_told:
            return []
        return [
            f"{error} (attempt {error.attempt}; events left: {len(error.left)}). "
            f"Mend the handler, give the pool an on_failure, or expect a HandlerError of its drain()"
        ]

    def _has_left(self, left: list[tuple[K, E]], why: Iterable[str]) -> list[str]:
        if not left or self._has_told or self._has_stopped:
            return []
        keys = list(dict.fromkeys(describe(key) for key, _ in left))
        more = f" and {len(keys) - 10} more" if len(keys) > 10 else ""
        told = (
            f"pool {self._core.name!r} was left with events: {len(left)}, of keys {', '.join(keys[:10])}{more}. "
            f"Have the test see to them, or take them by its stop()"
        )
        return ["\n".join([told, *why])]


class WatchedPool(_Watched[K, E], threads.EventWorkerPool[K, E]):
    """A pool on threads, of one test."""

    def add(self, key: K, event: E, *, timeout: float | None = None, delay: float | None = None) -> None:
        with self._telling():
            super().add(key, event, timeout=self._patience(timeout), delay=delay)

    def add_nowait(self, key: K, event: E, *, delay: float | None = None) -> None:
        with self._telling():
            super().add_nowait(key, event, delay=delay)

    def flush(self, key: K = NOTHING, *, timeout: float | None = None) -> None:
        with self._telling():
            super().flush(key, timeout=self._patience(timeout))

    def drain(self, timeout: float | None = None) -> None:
        with self._telling():
            super().drain(self._patience(timeout))

    def stop(self, timeout: float | None = None) -> list[tuple[K, E]]:
        with self._telling():
            self._has_stopped = True
            return super().stop(self._patience(timeout))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is not None:
            try:
                self.stop()
            except StopTimeout:
                return  # The end of the test says so; the error that leaves the block is the one to see.
            except WorkpoolError:
                pass
        super().__exit__(kind, error, traceback)

    def finish(self, is_complete: bool) -> list[str]:
        """End the pool, leaving no thread; what the test has to be told of it.

        Args:
            is_complete: Whether the test came to its own end. One that did not could not see to what is left.
        """
        deadline = time.monotonic() + self.limit
        while is_complete and not self.is_still() and time.monotonic() < deadline:
            time.sleep(_LOOK)
        why = self._why()
        try:
            left = super().stop(self.limit if time.monotonic() < deadline else 0)
        except HandlerError as error:
            return self._failed(error)
        except StopTimeout:
            told = (
                f"pool {self._core.name!r} cannot end: {self.limit:g} s after the test a handler has not returned. "
                f"A thread cannot be killed, and stays: have the test let it go on, or give its waiting a time-out"
            )
            return ["\n".join([told, *self._why()])]
        return self._has_left(left, why) if is_complete else []

    def _where(self, worker: int) -> str:
        thread = self._threads.get(worker)
        frame = None if thread is None else sys._current_frames().get(thread.ident or 0)
        where = ""
        while frame is not None:
            code = frame.f_code
            if not code.co_filename.startswith(_LIBRARY):
                where = f", and is at {Path(code.co_filename).name}:{frame.f_lineno} in {code.co_name}"
            frame = frame.f_back  # Outwards: the last that is found is the handler's own.
        return where


class WatchedAsyncioPool(_Watched[K, E], asyncio.EventWorkerPool[K, E]):
    """A pool on an event loop, of one test."""

    async def add(self, key: K, event: E, *, timeout: float | None = None, delay: float | None = None) -> None:
        with self._telling():
            await super().add(key, event, timeout=self._patience(timeout), delay=delay)

    def add_nowait(self, key: K, event: E, *, delay: float | None = None) -> None:
        with self._telling():
            super().add_nowait(key, event, delay=delay)

    def add_from_thread(self, key: K, event: E, *, timeout: float | None = None, delay: float | None = None) -> None:
        with self._telling():
            super().add_from_thread(key, event, timeout=self._patience(timeout), delay=delay)

    async def flush(self, key: K = NOTHING, *, timeout: float | None = None) -> None:
        with self._telling():
            await super().flush(key, timeout=self._patience(timeout))

    async def drain(self, timeout: float | None = None) -> None:
        with self._telling():
            await super().drain(self._patience(timeout))

    async def stop(self, timeout: float | None = None) -> list[tuple[K, E]]:
        with self._telling():
            self._has_stopped = True
            return await super().stop(self._patience(timeout))

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is not None:
            try:
                await self.stop()
            except StopTimeout:
                return
            except WorkpoolError:
                pass
        await super().__aexit__(kind, error, traceback)

    def finish(self, is_complete: bool) -> list[str]:
        """What the test has to be told of a pool whose loop has ended, or does not run now."""
        core = self._core
        if isinstance(failure := core.refusal("is of no more use"), HandlerError):
            return self._failed(failure)
        if not is_complete or (self._starter is None and not core.waiting):
            return []
        cure = "Have its loop end it: `async with` it, or await its drain() or stop()"
        if core.state is not State.ENDED:
            return [f"pool {core.name!r} has not ended. {cure}"]
        return self._has_left(core.left, [f"  {cure}"])

    def _where(self, worker: int) -> str:
        found = next((place(task.get_coro()) for task, number in self._tasks.items() if number == worker), "")
        return found and f", and is at {found}"


class _Factory:
    """What both factories have: the pools that they made, and their names."""

    def __init__(self, name: str, clock: FakeClock, limit: float) -> None:
        self._name = name
        self._clock = clock
        self._limit = duration("workpool_time_limit", limit)
        self._made: list[Any] = []

    def _make(self, kind: Any, handler: Any, options: Any) -> Any:
        name = f"{self._name}-{len(self._made) + 1}" if self._made else self._name
        __tracebackhide__ = True
        try:
            pool = kind(handler, **{"name": name, "clock": self._clock, **options})
        except (TypeError, ValueError) as error:
            raise error.with_traceback(None)  # noqa: B904 - the same error, told at the line of the test
        pool.limit = self._limit
        self._made.append(pool)
        return pool

    def _looks(self) -> Iterator[None]:
        """Look at the pools, again and again, until all are still.

        Raises:
            TimeoutError: One is not, after the limit.
        """
        deadline = time.monotonic() + self._limit
        while not all(pool.is_still() for pool in self._made):
            if time.monotonic() > deadline:
                for pool in self._made:
                    pool.require_still()
            yield

    def finish(self, is_complete: bool) -> list[str]:
        """End the pools, the last that was made first; what the test has to be told of them."""
        return [told for pool in reversed(self._made) for told in pool.finish(is_complete)]


class PoolFactory(_Factory):
    """Makes pools on threads that end with the test; the fixture `workpool_pool` is one."""

    def __call__(
        self, handler: Callable[[E], object] | Callable[[E, Delivery], object], **options: Unpack[PoolOptions]
    ) -> threads.EventWorkerPool[Any, E]:
        """Make a pool, and start it.

        Args:
            handler: As for `workpool.EventWorkerPool`.
            options: As for `workpool.EventWorkerPool`; but `clock` is the fixture `workpool_clock`, and `name` the
                test's, where they are not given.

        Raises:
            TypeError, ValueError: An argument is wrong.
        """
        __tracebackhide__ = True
        pool: threads.EventWorkerPool[Any, E] = self._make(WatchedPool, handler, options)
        return pool.start()

    def wait_until_still(self) -> None:
        """Wait until nothing goes on by itself: what is left waits for the fake clock, or for a call of the test.

        So a retry is known to wait before the clock is moved. It looks at each pool that was made here.

        Raises:
            TimeoutError: Something goes on after the limit; its notes say what.
        """
        for _ in self._looks():
            time.sleep(_LOOK)


class AsyncioPoolFactory(_Factory):
    """Makes pools on an event loop that have to end with it; the fixture `workpool_asyncio_pool` is one."""

    def __call__(
        self,
        handler: Callable[[E], Awaitable[object]] | Callable[[E, Delivery], Awaitable[object]],
        **options: Unpack[AsyncioPoolOptions],
    ) -> asyncio.EventWorkerPool[Any, E]:
        """Make a pool, which `async with` starts, on the loop that runs there.

        Args:
            handler: As for `workpool.asyncio.EventWorkerPool`.
            options: As for `workpool.asyncio.EventWorkerPool`; but `clock` is the fixture `workpool_clock`, and `name`
                the test's, where they are not given.

        Raises:
            TypeError, ValueError: An argument is wrong.
        """
        __tracebackhide__ = True
        pool: asyncio.EventWorkerPool[Any, E] = self._make(WatchedAsyncioPool, handler, options)
        return pool

    async def wait_until_still(self) -> None:
        """Wait until nothing goes on by itself, as `PoolFactory.wait_until_still` does.

        Raises:
            TimeoutError: Something goes on after the limit; its notes say what.
        """
        for _ in self._looks():
            await sleep(_LOOK)


class WatchedHistory(History):
    """A history of one pool that knows which that is, and whether the test has checked it.

    Args:
        limit: How many seconds a pool of the test may wait. An event may wait as long beside an idle worker, and no
            less than a `History` lets it: a machine that is busy must not fail a test that checks nothing itself.
    """

    def __init__(self, limit: float) -> None:
        super().__init__(patience=max(1.0, duration("workpool_time_limit", limit)))
        self._pool: Any = None
        self._is_checked = False

    def add(self, pool: Any, key: Any, event: object, *, timeout: float | None = None) -> Any:
        """As `History.add`, for one pool."""
        self._watch(pool)
        return super().add(pool, key, event, timeout=timeout)

    def add_from_thread(self, pool: Any, key: Any, event: object, *, timeout: float | None = None) -> None:
        """As `History.add_from_thread`, for one pool."""
        self._watch(pool)
        super().add_from_thread(pool, key, event, timeout=timeout)

    def add_nowait(self, pool: Any, key: Any, event: object) -> None:
        """As `History.add_nowait`, for one pool."""
        self._watch(pool)
        super().add_nowait(pool, key, event)

    def violations(self, pool: Any) -> list[str]:
        """As `History.violations`, and as a note that the test has looked."""
        self._is_checked = True
        return super().violations(pool)

    def finish(self, is_complete: bool) -> list[str]:
        """Hold the pool to its promises, unless the test has; what the test has to be told.

        Args:
            is_complete: Whether the test came to its own end. What it raised holds on to events, which is no residue.
        """
        if self._pool is None or self._is_checked:
            return []
        if self._pool._core.state is not State.ENDED:
            if isinstance(self._pool, _Watched) or not is_complete:
                return []  # Its own end has told of it; or it could not be ended.
            return [
                f"workpool_history cannot check pool {self._pool._core.name!r}, which has not ended: "
                f"drain() or stop() it, or have workpool_pool make it"
            ]
        broken = self.violations(self._pool)
        return [line for line in broken if is_complete or not line.startswith("P4")]

    def _watch(self, pool: Any) -> None:
        if self._pool is not pool and self._pool is not None:
            raise ValueError("workpool_history is of one pool, and this is another: make a History() for it")
        self._pool, self._is_checked = pool, False
