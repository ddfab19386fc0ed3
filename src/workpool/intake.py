"""How a pool takes from sources: each is read on a thread of its own, so that no source waits for another.

A *source* brings events until it ends, raises, or is stopped. `pool.run` gives it an `Intake`, its way into the pool:
while the pool is full the source waits there, and so does whatever it reads from.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from queue import SimpleQueue
from time import monotonic
from typing import Any, Generic, Protocol

from workpool.arguments import require_methods
from workpool.errors import HandlerError, PoolClosed, PoolFull
from workpool.lanes import NOTHING, E, K
from workpool.pool import Adding, Pool
from workpool.records import State

__all__ = ["Intake", "Reading", "Source"]


class Source(Protocol):
    """What a pool can `run`: a stream of events with their keys."""

    def feed(self, intake: Intake[Any, Any]) -> None:
        """Add events, by `intake.add`, until there are no more or that says to end. Called once, on its own thread."""
        ...

    def stop(self) -> None:
        """End it, from any thread and any number of times: `feed` returns soon, and after this nothing is added."""
        ...


class Intake(Generic[K, E]):
    """The way of one source into its pool, for any number of its threads."""

    def __init__(self, pool: Pool[K, E]) -> None:
        self._pool = pool
        self._closed = False
        self._gates: set[SimpleQueue[None]] = set()
        """Where its threads wait for room."""

    def add(self, key: K, event: E) -> bool:
        """Add an event as `add` of the pool does, and wait for room until this is closed.

        Returns:
            False where it was closed, before this or while it waited: the event is not accepted.

        Raises:
            PoolClosed, HandlerError: The pool takes no more.
            TypeError: The key is not hashable.
        """
        return self._add(key, event)

    def add_many(self, pairs: Iterable[tuple[K, E]]) -> bool:
        """Add events in order, each as `add` does: cheaper than as many calls.

        Returns:
            False where it was closed: that event is not accepted, nor are those after it.

        Raises:
            PoolClosed, HandlerError, TypeError: As for `add`.
        """
        with Adding(pairs, self._pool._enter_some, None, monotonic) as adding:
            while not self._closed:
                pair = adding.next()
                if pair is NOTHING:
                    return True
                if not self._add(*pair):
                    break
        return False

    def mark(self, key: K, gate: Any) -> bool:
        """Have `gate.put(None)` called when all that was accepted under a key until now has ended.

        It is called by whichever worker ends the last of it, inside the pool: it must be quick, and not call the pool.

        Returns:
            False where there is nothing to wait for: `gate` will not be called.
        """
        return self._pool._mark(key, gate)

    def close(self) -> None:
        """Take no more, and let whoever waits for room go."""
        self._closed = True
        for gate in self._gates.copy():
            gate.put(None)

    def _add(self, key: K, event: E) -> bool:
        if self._closed:
            return False
        if self._pool._enter_at_once(key, event):
            return True
        gate: SimpleQueue[None] = SimpleQueue()
        self._gates.add(gate)
        try:
            self._pool._enter(key, event, lambda: gate, self._await)
        except _Closed:
            return False
        finally:
            self._gates.discard(gate)
        return True

    def _await(self, gate: SimpleQueue[None], key: K, _timeout: float | None) -> None:
        if not self._closed:  # It is closed first and the gate told then: one of the two is seen.
            gate.get()
        refusal = self._pool._step(self._pool._withdraw, gate, key)
        try:
            if isinstance(refusal, PoolFull):
                raise _Closed
            if refusal is not None:
                raise refusal
        finally:
            del refusal  # Else the error and this call would hold each other, and the event.


class _Closed(Exception):
    """The intake was closed while an event waited for room."""


class Reading:
    """Some sources that a pool reads: `start` them, wait until `bell` is told, and `end` them whatever has happened.

    It is told when all have ended, when one has raised, and when the pool closes.

    Args:
        pool: Where the events go.
        sources: Each is read on a thread of its own.
        bell: A gate, as the pool's driver tells them.
        ring: Tells it, from any thread.

    Raises:
        TypeError: One is no source.
    """

    def __init__(self, pool: Pool[Any, Any], sources: Sequence[Source], bell: object, ring: Callable[[], None]) -> None:
        for source in sources:
            require_methods("a source", source, ("feed", "stop"))
        self._pool = pool
        self._sources = sources
        self._bell = bell
        self._ring = ring
        self._threads: list[threading.Thread] = []
        self._errors: list[BaseException] = []
        self._unread = len(sources)
        self._lock = threading.Lock()

    def start(self) -> None:
        """Begin to read.

        Raises:
            PoolClosed, HandlerError: The pool takes no more.
            RuntimeError: There cannot be so many threads.
        """
        self._pool._step(self._listen)
        for number, source in enumerate(self._sources):
            name = f"workpool-{self._pool._core.name}-source-{number}"
            self._threads.append(threading.Thread(target=self._read, args=(source,), name=name, daemon=True))
            self._threads[-1].start()

    def end(self) -> None:
        """Stop the sources, and wait for their threads. Where `start` was cut short, too."""
        for source in self._sources:
            source.stop()
        for thread in self._threads:
            with suppress(RuntimeError):  # The last one may not have started.
                thread.join()
        self._pool._step(self._forget)

    def check(self) -> None:
        """Raise what a source has raised first, or the pool's failure."""
        errors, self._errors = self._errors, []
        if self._pool._core.failure is not None:
            raise self._pool._step(self._pool._core.refusal, "reads no more")
        if errors:
            raise errors[0]

    def _read(self, source: Source) -> None:
        try:
            source.feed(Intake(self._pool))
        except (PoolClosed, HandlerError):
            pass  # Of this pool: the bell was told.
        except BaseException as error:
            self._errors.append(error)
            self._ring()
        with self._lock:
            self._unread -= 1
            if not self._unread:
                self._ring()

    # Steps: each is called with the mutex taken.

    def _listen(self) -> None:
        core = self._pool._core
        if core.state is not State.OPEN:
            raise core.refusal("reads no source")
        core.audience.append(self._bell)

    def _forget(self) -> None:
        with suppress(ValueError):
            self._pool._core.audience.remove(self._bell)
