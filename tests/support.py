"""Names that the tests share. A test waits for what must happen, with a bound that only a fault reaches."""

from __future__ import annotations

import faulthandler
import os
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import pytest

from asyncio_pool import AsyncioPool
from workpool import EventWorkerPool, Hooks, Stats, executors
from workpool.testing import FakeClock
from workpool.twin import COMPILED

PATIENCE = float(os.environ.get("WORKPOOL_TEST_PATIENCE", "30"))
"""Seconds to wait for what must happen."""

standard_error = 2
"""Where it can be seen what a hang is, whatever is captured meanwhile."""

reference_only = pytest.mark.skipif(
    COMPILED, reason="about lines or containers that only the reference has; tests/twin holds the twin to the same"
)


@dataclass(frozen=True)
class Driver:
    """A pool under the conformance suite, and what it declares that it can do."""

    name: str
    pool: type[Any]
    default_workers: int
    worker_is: str = "on thread"
    runs_handlers: bool = True
    """Whether the stack of a worker shows the handler: it does not where that runs elsewhere."""
    has_starters_context: bool = bool(getattr(sys.flags, "thread_inherit_context", False))
    """Whether a handler has the context (`contextvars`) of who started the pool. None has that of who adds."""


class ExecutorPool(executors.EventWorkerPool[Any, Any]):
    """On an executor whose threads are in this process, so that a handler can be any function."""

    def __init__(self, handler: Any, **options: Any) -> None:
        super().__init__(handler, executor=lambda: ThreadPoolExecutor(self.workers), **options)


_THREADS = min(32, (os.cpu_count() or 1) + 4)
DRIVERS = [
    Driver("threads", EventWorkerPool, default_workers=_THREADS),
    Driver(
        "asyncio", AsyncioPool, default_workers=100, worker_is="in task", runs_handlers=False, has_starters_context=True
    ),
    Driver("executors", ExecutorPool, default_workers=_THREADS),
]


class Gate:
    """A handler that stands still: it says when it is inside, and goes on when it is told to."""

    def __init__(self) -> None:
        self.inside = threading.Semaphore(0)
        self.open = threading.Event()

    def __call__(self, event: object) -> None:
        self.inside.release()
        assert self.open.wait(PATIENCE), "the gate was never opened"

    def wait_inside(self, times: int = 1) -> None:
        """Wait until the handler has been entered that often."""
        for _ in range(times):
            assert self.inside.acquire(timeout=PATIENCE), "the handler was never called"


class Ear:
    """A gate, as drivers have them, of which each time that it is told a note is taken.

    Args:
        look: What to note, with the mutex of the pool taken: it may look into the core.
    """

    def __init__(self, look: Callable[[], object] = lambda: None) -> None:
        self.look = look
        self.heard: list[Any] = []
        self.told = threading.Event()

    def put(self, _: object) -> None:
        """Be told."""
        self.heard.append(self.look())
        self.told.set()


class Heard(Hooks):
    """Notes what it is told, by key."""

    def __init__(self) -> None:
        self.all: list[tuple[Any, ...]] = []
        self.last: list[Any] = []

    def of(self, key: Any) -> list[tuple[Any, ...]]:
        """What it was told of a key, but for what was added: another thread tells that."""
        return [(name, *rest) for name, its, *rest in self.all if its == key and name != "added"]

    def names(self) -> list[str]:
        """Which hooks were called."""
        return [name for name, *_ in self.all]

    def added(self, key: Any, event: Any) -> None:
        self.all.append(("added", key, event))

    def started(self, delivery: Any, event: Any) -> None:
        self.all.append(("started", delivery.key, delivery.attempt, event))

    def succeeded(self, delivery: Any, event: Any, seconds: float) -> None:
        assert seconds >= 0
        self.all.append(("succeeded", delivery.key, delivery.attempt, event))

    def failed(self, delivery: Any, event: Any, seconds: float, error: BaseException) -> None:
        assert seconds >= 0
        self.all.append(("failed", delivery.key, delivery.attempt, event, type(error).__name__))

    def parked(self, key: Any) -> None:
        self.all.append(("parked", key))

    def dead(self, dead: Any) -> None:
        self.all.append(("dead", dead.key, dead.event))

    def merged(self, key: Any, event: Any) -> None:
        self.all.append(("merged", key, event))

    def ended(self, stats: Any) -> None:
        self.last.append(stats)


class Told:
    """A key, an event or the text of an error, that is told by code of the user's."""

    def __init__(self, tell: Callable[[], object]) -> None:
        self.tell = tell

    def __repr__(self) -> str:
        return f"told {self.tell()}"


def no_text() -> object:
    """Tells nothing."""
    raise OSError("no text")


def end_a_hang() -> None:
    """From now on, end the run when a test lasts too long, with the stack of each thread; in place of the last call."""
    faulthandler.dump_traceback_later(5 * PATIENCE, exit=True, file=standard_error)


def wait(event: threading.Event) -> None:
    """Wait for what must happen."""
    assert event.wait(PATIENCE), "it did not happen"


def in_thread(target: Callable[[], object]) -> Callable[[], Any]:
    """Run something in a thread of its own; call the result to wait for its value, or its exception."""
    outcome: list[object] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            outcome.append(target())
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()

    def result() -> object:
        thread.join(PATIENCE)
        assert not thread.is_alive(), "the call has not returned"
        if errors:
            raise errors[0]
        return outcome[0]

    return result


def eventually(condition: Callable[[], bool]) -> None:
    """Wait until a condition holds that no event tells of, looking again each time other threads have run."""
    deadline = threading.Event()
    for _ in range(int(PATIENCE * 1000)):
        if condition():
            return
        deadline.wait(0.001)
    raise AssertionError("it did not come true")


def has_handled(pool: Any, events: int) -> bool:
    """Whether a pool has handled exactly so many events."""
    count: int = pool.stats().handled
    return count == events


def has_adders(pool: Any, adders: int = 1) -> bool:
    """Whether so many adders wait for room. No public call tells, and a test has to know before it goes on."""
    return len(pool._core.adders) == adders


def has_line(pool: Any, adders: int = 1) -> bool:
    """Whether so many adders wait for room in the lanes of their keys. As above."""
    count: int = pool._step(lambda: sum(map(len, pool._core._lines())))
    return count == adders


def adds_up(stats: Stats) -> bool:
    """P10, in two equations, and that a key has an event."""
    ended = stats.handled + stats.dead + stats.returned + stats.merged + stats.cancelled
    return (
        stats.added == ended + stats.in_flight + stats.waiting
        and stats.waiting == stats.queued + stats.delayed + stats.retrying + stats.parked
        and stats.waiting + stats.in_flight >= stats.keys >= stats.in_flight + stats.retrying + stats.parked
        and min(stats.queued, stats.dead - stats.dead_forgotten - stats.replayed) >= 0
    )


class LookedAt(FakeClock):
    """A fake clock that tells how often the pool has looked at it and gone to sleep."""

    def __init__(self) -> None:
        super().__init__()
        self.looks = 0

    def pause(self, until: float, ring: Callable[[], None]) -> float | None:
        self.looks += 1
        return super().pause(until, ring)

    def look(self, seconds: float, times: int = 1) -> None:
        """Move on, and wait until the pool has seen that, and so on, so many times."""
        for _ in range(times):
            seen = self.looks
            self.advance(seconds)
            eventually(lambda: self.looks > seen)  # noqa: B023


def begin(pool: Any, ending: str, *arguments: float) -> Callable[[], Any]:
    """Ask for an ending from another thread, and return once it is under way; call the result for its outcome."""
    outcome = in_thread(lambda: getattr(pool, ending)(*arguments))
    eventually(lambda: {"stop": "stopping", "drain": "draining"}[ending] in repr(pool))
    return outcome


def run_python(source: str, *, timeout: float = PATIENCE, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run a script in a process of its own, with warnings as errors."""
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(source)],
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
        **options,
    )


def threads_of_pools() -> set[threading.Thread]:
    """The threads that pools have started."""
    return {thread for thread in threading.enumerate() if thread.name.startswith("workpool")}
