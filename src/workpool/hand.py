"""What a worker holds, and the way from one event to the next.

A worker handles an event, passes its key on, and goes on with what it got for it: `run` on threads, where the handler
is called here, and `pass_on` alone where it is awaited elsewhere. What is not ordinary is left to the driver: a handler
that raised, a note of a key, an adder that may come in.

An exception may fall anywhere (P11), so what the worker holds is here and not in a local variable: `item`, and `ended`
once its handler has returned. Whoever finds the worker cut short can tell what is to be done with both.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, Protocol

from workpool.handlers import Delivery
from workpool.lanes import E, K
from workpool.mutex import Mutex, give_way

__all__ = ["Hand"]


class Pool(Protocol):
    """What a hand needs of a pool."""

    _core: Any
    _mutex: Mutex


class Hand(Generic[K, E]):
    """What one worker holds.

    Args:
        pool: Whose worker.
        worker: Its number.
        handler: What it calls, for `run`.
        takes_delivery: Whether that wants to know of the delivery.
    """

    __slots__ = ("_core", "_handler", "_mutex", "_pool", "_takes_delivery", "_worker", "ended", "item", "last")

    def __init__(self, pool: Pool, worker: int, handler: Callable[..., object], takes_delivery: bool) -> None:
        self._pool = pool
        self._core = pool._core
        self._mutex = pool._mutex
        self._worker = worker
        self._handler = handler
        self._takes_delivery = takes_delivery
        self.item: Any = None
        """The key and the event that it holds, or None."""
        self.ended: bool = False
        """Its event was handled, and its key is not passed on yet."""
        self.last: Any = None
        """The key that was passed on, while somebody has to look at that."""

    def __bool__(self) -> bool:
        """Whether it holds an event."""
        return self.item is not None

    @property
    def event(self) -> E:
        """The event that it holds."""
        event: E = self.item[1]
        return event

    def delivery(self) -> Delivery:
        """Of the event that it holds."""
        key = self.item[0]
        return Delivery(key, self._core.attempt(key) if self._core.notes else 1)

    def run(self) -> BaseException | bool | None:
        """Handle what it holds and whatever can start next, as long as nothing else is to be done.

        Returns:
            What the handler raised, and the event is held still; or else as `pass_on`.
        """
        handler, takes_delivery, outcome = self._handler, self._takes_delivery, None
        while self.item is not None and outcome is None:
            try:
                # The handler's return and its record are one statement: no exception falls between.
                if takes_delivery:
                    result, self.ended = handler(self.item[1], self.delivery()), True
                else:
                    result, self.ended = handler(self.item[1]), True
            except BaseException as error:
                if self.ended:
                    raise
                return error
            del result
            outcome = self.pass_on()
        return outcome

    def pass_on(self) -> bool | None:
        """Release the event, which was handled; pass its key on, and hold the next event, if there is one.

        Returns:
            None where that is all. True where there is something to look at first, `last` among it: then the mutex is
            taken. False where the pool has another mutex, because the handler forked: what waits is the parent's.
        """
        core, mutex = self._core, self._mutex
        key = self.item[0]
        self.item = None  # The event is released here, outside the mutex.
        if self._pool._mutex is not mutex:
            return False
        if not mutex.acquire(False):
            give_way(mutex)
        self.item, self.ended = core.next(self._worker, key), False
        if core.notes or (core.adders and core.has_room()):
            self.last = key
            return True
        mutex.release()
        return None  # And here the key, if it is idle now.
