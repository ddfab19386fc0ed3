"""A pool on a loop, for tests that are written for one on threads: each call is made on the loop, and waited for.

A plain handler runs on a thread of its own, so that it may stand still, while the worker's task awaits it, with a copy
of that task's context. A call that the handler makes is made by that task: it is a call from inside.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import contextvars
import threading
from collections.abc import Callable, Coroutine
from functools import partial
from queue import SimpleQueue
from typing import Any, Self

from workpool.asyncio import EventWorkerPool
from workpool.handlers import takes_delivery
from workpool.turn import InContext

Call = Callable[[], Coroutine[Any, Any, Any]]


class Inside(threading.local):
    """How the handler that runs on this thread reaches the task that awaits it."""

    send: Callable[[Call], Any] | None = None
    pool: AsyncioPool | None = None


class Threads:
    """Threads that run one thing after another: to start one for each event takes longer than all else."""

    def __init__(self) -> None:
        self.idle: list[SimpleQueue[Callable[[], None]]] = []

    def run(self, target: Callable[[], None]) -> None:
        """Run something on a thread that is free, or on a new one."""
        try:
            targets = self.idle.pop()
        except IndexError:
            targets = SimpleQueue()
            threading.Thread(target=self._serve, args=(targets,), daemon=True).start()
        targets.put(target)

    def _serve(self, targets: SimpleQueue[Callable[[], None]]) -> None:
        while True:
            target = targets.get()
            target()
            del target  # It holds an event, perhaps.
            self.idle.append(targets)


inside = Inside()
threads = Threads()
made: list[AsyncioPool] = []
"""The pools that a test has made, for `close_all`."""


class AsyncioPool:
    """The calls of `workpool.EventWorkerPool`, on a pool on a loop that runs on a thread of its own."""

    def __init__(self, handler: Callable[..., Any], **options: Any) -> None:
        wants_delivery = takes_delivery(handler)

        async def handle(event: Any) -> Any:
            return await self._call(handler, event)

        async def handle_delivery(event: Any, delivery: Any) -> Any:
            return await self._call(handler, event, delivery)

        self._pool: EventWorkerPool[Any, Any] = EventWorkerPool(
            handle_delivery if wants_delivery else handle, **options
        )
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        made.append(self)

    async def _call(self, handler: Callable[..., Any], *arguments: Any) -> Any:
        calls: asyncio.Queue[tuple[Call, contextvars.Context, concurrent.futures.Future[Any]] | None] = asyncio.Queue()
        results: list[Any] = []
        errors: list[BaseException] = []

        def send(call: Call) -> Any:
            answer: concurrent.futures.Future[Any] = concurrent.futures.Future()
            self._loop.call_soon_threadsafe(calls.put_nowait, (call, contextvars.copy_context(), answer))
            return answer.result()

        def run(arguments: list[Any]) -> None:
            inside.send, inside.pool = send, self
            try:
                results.append(handler(*arguments))
            except BaseException as error:
                errors.append(error)
            finally:
                arguments.clear()
                inside.send = inside.pool = None
                self._loop.call_soon_threadsafe(calls.put_nowait, None)

        threads.run(partial(contextvars.copy_context().run, run, list(arguments)))
        del arguments
        while (asked := await calls.get()) is not None:
            call, context, answer = asked
            try:
                answer.set_result(await InContext(context, call()))
            except BaseException as error:
                answer.set_exception(error)
        if errors:
            raise errors.pop()
        return results.pop()

    def _run(self, call: Call) -> Any:
        if inside.pool is self and inside.send is not None:
            return inside.send(call)
        if threading.current_thread() is self._thread:  # A key's own methods, or a finaliser: it cannot be awaited.
            try:
                call().__await__().send(None)
            except StopIteration as done:
                return done.value

        async def run() -> tuple[Any, BaseException | None]:
            try:
                return await call(), None
            except BaseException as error:  # Not through the future, which would make another of it.
                return None, error

        value, raised = asyncio.run_coroutine_threadsafe(run(), self._loop).result()
        try:
            if raised is not None:
                raise raised
        finally:
            del raised
        return value

    def start(self, workers: int | None = None) -> Self:
        async def start() -> None:
            self._pool.start(workers)

        self._run(start)
        return self

    def add(self, key: Any, event: Any, *, timeout: float | None = None, delay: float | None = None) -> None:
        self._run(lambda: self._pool.add(key, event, timeout=timeout, delay=delay))

    def add_many(self, pairs: Any, *, timeout: float | None = None) -> Any:
        return self._run(lambda: self._pool.add_many(pairs, timeout=timeout))

    def flush(self, *key: Any, timeout: float | None = None) -> None:
        self._run(lambda: self._pool.flush(*key, timeout=timeout))

    def run(self, *sources: Any) -> None:
        self._run(lambda: self._pool.run(*sources))

    def drain(self, timeout: float | None = None) -> None:
        self._run(lambda: self._pool.drain(timeout))

    def stop(self, timeout: float | None = None) -> Any:
        return self._run(lambda: self._pool.stop(timeout))

    def __enter__(self) -> Self:
        self._run(self._pool.__aenter__)
        return self

    def __exit__(self, *error: Any) -> None:
        self._run(lambda: self._pool.__aexit__(*error))

    def __repr__(self) -> str:
        return repr(self._pool)

    def __reduce__(self) -> Any:
        return self._pool.__reduce__()

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._pool, name)
        if name.startswith("_") or not callable(value):
            return value

        def call(*arguments: Any, **options: Any) -> Any:
            async def run() -> Any:
                return value(*arguments, **options)

            return self._run(run)

        return call


def close_all() -> None:
    """End the loops. P8: a pool that has ended has left no task."""
    left = []
    while made:
        pool = made.pop()
        tasks = asyncio.all_tasks(pool._loop)
        if "ended" in repr(pool):
            left += [task for task in tasks if task.get_name().startswith("workpool")]
        for task in tasks:
            pool._loop.call_soon_threadsafe(task.cancel)
        pool._loop.call_soon_threadsafe(pool._loop.stop)
        pool._thread.join()
        with contextlib.suppress(RuntimeError):
            pool._loop.close()
    assert not left, f"{left} were left behind"
