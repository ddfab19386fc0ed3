"""What is measured: workpool, and the usual ways to do without it, each behind the same two calls.

Each is written as its users would write it, and no slower. What each keeps of order (events of one key one after
another) and isolation (no key waits for another's) is said at its name.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from queue import SimpleQueue
from typing import Any, Protocol

from benchmarks.reference import COMPILED, PurePool
from workpool import EventWorkerPool

Handler = Callable[[Any], object]


class Subject(Protocol):
    """Handles what it is given. It is made ready to go: with its workers started."""

    def add(self, key: str, event: Any, /) -> object:
        """Take an event to handle."""

    def drain(self) -> object:
        """Return when all was handled and the workers have ended."""


Make = Callable[[Handler, int], Subject]


def make_bounded(handler: Handler, workers: int) -> Subject:
    """Ours, as it comes."""
    return EventWorkerPool[str, Any](handler).start(workers)


def make_unbounded(handler: Handler, workers: int) -> Subject:
    """Ours with any backlog, as all the others have it."""
    return EventWorkerPool[str, Any](handler, max_backlog=None).start(workers)


def make_reference(handler: Handler, workers: int) -> Subject:
    """Ours with any backlog, in Python alone."""
    pool: Subject = PurePool(handler, max_backlog=None).start(workers)
    return pool


class Executor:
    """`ThreadPoolExecutor.submit`: neither order nor isolation."""

    def __init__(self, handler: Handler, workers: int) -> None:
        self._handler = handler
        self._executor = ThreadPoolExecutor(workers)
        # An executor starts its threads as tasks come; here they all have to be there before the clock starts.
        barrier = threading.Barrier(workers + 1)
        for _ in range(workers):
            self._executor.submit(barrier.wait)
        barrier.wait()

    def add(self, key: str, event: Any) -> None:  # noqa: ARG002 - it has no use for a key
        self._executor.submit(self._handler, event)

    def drain(self) -> None:
        self._executor.shutdown()


class HashedQueues:
    """A `SimpleQueue` for each worker, keys hashed onto them: order without isolation."""

    def __init__(self, handler: Handler, workers: int) -> None:
        self._handler = handler
        self._queues: list[SimpleQueue[Any]] = [SimpleQueue() for _ in range(workers)]
        self._threads = [threading.Thread(target=self._work, args=(queue,)) for queue in self._queues]
        for thread in self._threads:
            thread.start()

    def add(self, key: str, event: Any) -> None:
        self._queues[hash(key) % len(self._queues)].put(event)

    def drain(self) -> None:
        for queue in self._queues:
            queue.put(None)
        for thread in self._threads:
            thread.join()

    def _work(self, queue: SimpleQueue[Any]) -> None:
        while (event := queue.get()) is not None:
            self._handler(event)


class KeyTasks:
    """An asyncio task for each key that has events, on one loop: order and isolation, for coroutines.

    The loop runs once so many events wait; by default as many as the default bound of workpool lets wait.
    """

    def __init__(self, handler: Callable[[Any], Coroutine[Any, Any, object]], bound: int = 10_000) -> None:
        self._handler = handler
        self._bound = bound
        self._waiting = 0
        self._loop = asyncio.new_event_loop()
        self._lanes: dict[str, tuple[deque[Any], asyncio.Task[None]]] = {}

    def add(self, key: str, event: Any) -> None:
        if found := self._lanes.get(key):
            found[0].append(event)
        else:
            lane = deque((event,))
            self._lanes[key] = lane, self._loop.create_task(self._work(key, lane))
        self._waiting += 1
        if self._waiting == self._bound:
            self._run()

    def drain(self) -> None:
        self._run()
        self._loop.close()

    def _run(self) -> None:
        self._loop.run_until_complete(self._settle())
        self._waiting = 0

    async def _work(self, key: str, lane: deque[Any]) -> None:
        while lane:
            await self._handler(lane.popleft())
        del self._lanes[key]

    async def _settle(self) -> None:
        while self._lanes:
            await asyncio.sleep(0)


class ScannedJournal:
    """One list, from whose front each worker looks for the first event of a free key: order and isolation, by scan."""

    def __init__(self, handler: Handler, workers: int) -> None:
        self._handler = handler
        self._journal: list[tuple[str, Any]] = []
        self._held: set[str] = set()
        self._closed = False
        self._changed = threading.Condition()
        self._threads = [threading.Thread(target=self._work) for _ in range(workers)]
        for thread in self._threads:
            thread.start()

    def add(self, key: str, event: Any) -> None:
        with self._changed:
            self._journal.append((key, event))
            self._changed.notify()

    def drain(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()

    def _work(self) -> None:
        while item := self._claim():
            key, event = item
            self._handler(event)
            with self._changed:
                self._held.remove(key)

    def _claim(self) -> tuple[str, Any] | None:
        with self._changed:
            while True:
                for index, (key, _) in enumerate(self._journal):
                    if key not in self._held:
                        self._held.add(key)
                        return self._journal.pop(index)
                if self._closed and not self._journal:
                    self._changed.notify_all()
                    return None
                self._changed.wait()


BOUNDED = "workpool"
UNBOUNDED = "workpool, no bound"
MANY = "workpool, add_many"
REFERENCE = "workpool, pure Python"
EXECUTOR = "ThreadPoolExecutor"
HASHED = "queue per worker"
TASKS = "asyncio task per event"
KEY_TASKS = "asyncio task per key"
SCANNED = "scanned journal"

OURS: dict[str, Make] = {BOUNDED: make_bounded, UNBOUNDED: make_unbounded}
# Where the twin is not compiled, the rows of workpool are the reference.
REFERENCES: dict[str, Make] = {REFERENCE: make_reference} if COMPILED else {}
THREADED: dict[str, Make] = {**OURS, **REFERENCES, EXECUTOR: Executor, HASHED: HashedQueues}
