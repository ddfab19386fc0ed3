"""One turn of a worker, where its pool is asked for more than to hand over one event.

A turn is one delivery, or with `max_burst` a few of one key. Around each of them the envelope is opened, the batch is
made, hooks are told, and what came of it is noted:

    begin --(the handler runs)--> handled ----> the next of its key, or the end of the turn
      |                             |
      +-- an error, or a batch that is not done: what is done has ended, the rest has failed

The events of a batch, but for the first, wait in their lane while the handler has them. So there is nothing to put back
of one that failed, and the next attempt finds them in their order.

The handler's return and its record are one statement, as in `hand.py`, so that an exception that comes between is no
second run (P11). Of a batch it is looked at first what was done: cut there, what is not recorded is not done.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator, Iterator
from contextlib import contextmanager, nullcontext
from contextvars import Context, copy_context
from dataclasses import dataclass
from types import coroutine
from typing import Any, Final, Generic, Literal, Protocol, Self, TypeAlias

from workpool.arguments import count
from workpool.clock import Clock
from workpool.envelope import Envelope, opened
from workpool.errors import BatchIncomplete
from workpool.handlers import Delivery
from workpool.hooks import Hearing, Hooks
from workpool.lanes import E, K
from workpool.mutex import Mutex
from workpool.twin import Hand

__all__ = ["AwaitedHandler", "Features", "Handler", "InContext", "Turn", "in_context", "require_done"]

Handler: TypeAlias = (
    Callable[[E], object]
    | Callable[[E, Delivery], object]
    | Callable[[list[E]], object]
    | Callable[[list[E], Delivery], object]
)
"""What a pool calls with an event, or with a batch of them."""

AwaitedHandler: TypeAlias = (
    Callable[[E], Awaitable[object]]
    | Callable[[E, Delivery], Awaitable[object]]
    | Callable[[list[E]], Awaitable[object]]
    | Callable[[list[E], Delivery], Awaitable[object]]
)
"""The same on an event loop."""

_BURST: Final = 64
"""Events of a turn that a loop sees handled before its others have their turn, where no handler ever waits."""


@dataclass(frozen=True, slots=True)
class Features:
    """What a pool is asked for: the arguments of `workpool.EventWorkerPool` that are off by default.

    Raises:
        TypeError, ValueError: One is wrong, or two of them cannot be kept together.
    """

    hooks: Hooks | None = None
    coalesce: Literal["latest"] | None = None
    max_burst: int = 1
    batch: int | None = None
    timing: bool = False
    contextvars: bool = False

    def __post_init__(self) -> None:
        if self.coalesce not in (None, "latest"):
            raise ValueError(f'coalesce must be "latest" or None, and is {self.coalesce!r}')
        count("max_burst", self.max_burst)
        if self.batch is None:
            return
        count("batch", self.batch)
        if self.coalesce:
            raise ValueError('batch cannot be had with coalesce="latest": at most one event of a key waits then')
        if self.contextvars:
            raise ValueError("batch cannot be had with contextvars: each event of a batch has a context of its own")

    @property
    def are_asked(self) -> bool:
        """Whether there is more to a turn than to call the handler."""
        return self != Features()

    @property
    def is_enveloped(self) -> bool:
        """Whether each event travels in an envelope."""
        return bool(self.coalesce or self.timing or self.contextvars)

    def enclose(self, event: Any, clock: Clock) -> Any:
        """An event as it travels."""
        if not self.is_enveloped:
            return event
        return Envelope(event, clock.now() if self.timing else None, copy_context() if self.contextvars else None)


class _Pool(Protocol):
    _began: dict[int, float]
    _clock: Clock
    _core: Any
    _features: Features
    _hearing: Hearing | None
    _mutex: Mutex

    def _follow_up(self) -> None: ...

    def _step(self, transition: Callable[..., Any], *args: Any) -> Any: ...


@dataclass(slots=True)
class _Given:
    """What the handler is called with once, and what came of it."""

    event: Any
    delivery: Delivery
    context: Context | None
    size: int
    """How many events they are."""
    ends: bool
    """The event has ended when the handler has returned: of a batch, that is looked at first."""
    result: Any = None


class Turn(Generic[K, E]):
    """The turns of one worker.

    Args:
        pool: Whose worker.
        worker: Its number.
        hand: What it holds.
        handler: The user's.
        takes_delivery: Whether that wants to know of the delivery.
        cancelled: Whether the worker was asked to end, on an event loop.
    """

    def __init__(
        self,
        pool: _Pool,
        worker: int,
        hand: Hand[K, E],
        handler: Callable[..., Any],
        takes_delivery: bool,
        *,
        cancelled: Callable[[], int] = int,
    ) -> None:
        self._pool = pool
        self._core = pool._core
        self._mutex = pool._mutex
        self._features = pool._features
        self._worker = worker
        self._hand = hand
        self._handler = handler
        self._takes_delivery = takes_delivery
        self._cancelled = cancelled
        self._gone_on = 0

    def run(self) -> BaseException | bool | None:
        """Take turns as long as nothing else is to be done; returns as `Hand.run`."""
        hand, outcome = self._hand, None
        while hand and outcome is None:
            try:
                self._take()
            except BaseException as error:
                if hand.ended:
                    raise
                return error
            outcome = hand.pass_on()
        return outcome

    def _take(self) -> None:
        for more in reversed(range(self._features.max_burst)):
            with self._deliver() as given:
                run, arguments = self._call_of(given)
                given.result, self._hand.ended = run(*arguments), given.ends
            if not (more and self._goes_on()):
                return

    async def take_awaited(self, _event: E) -> None:
        """Take a turn on an event loop."""
        del _event  # It ends before the turn does.
        for more in reversed(range(self._features.max_burst)):
            with self._deliver() as given:
                run, arguments = self._call_of(given)
                awaited = run(*arguments)
                if given.context is not None:
                    awaited = InContext(given.context, awaited)
                given.result, self._hand.ended = await awaited, given.ends
            if not more or self._cancelled() or not self._goes_on():
                return
            self._gone_on += 1
            if self._gone_on % _BURST == 0:
                await _give_turn()

    def _call_of(self, given: _Given) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        """What calls the handler, and with what: the list of a batch is a copy, which it may take apart."""
        event = [*given.event] if self._features.batch else given.event
        arguments = (self._handler, event, given.delivery) if self._takes_delivery else (self._handler, event)
        return in_context(given.context), arguments

    @contextmanager
    def _deliver(self) -> Iterator[_Given]:
        """One delivery, around the handler."""
        given: _Given = self._pool._step(self._begin)
        hearing = self._pool._hearing
        try:
            with hearing.telling(given.delivery, given.event) if hearing else nullcontext():
                yield given
                if self._features.batch:
                    require_done(given.result, given.size)
                    self._hand.ended = True
        except BaseException as error:
            if self._features.batch and self._is_here():
                done, failed = given.size - 1, 0
                if not self._hand.ended:  # Else it is a hook's error, and not the handler's: that has done all.
                    done = error.done if isinstance(error, BatchIncomplete) and error.done < given.size else 0
                    failed = given.size
                self._pool._step(self._settle, done, failed)
            raise
        finally:
            self._pool._began.pop(self._worker, None)
        if self._features.batch and self._is_here():
            self._pool._step(self._settle, given.size - 1, 0)

    def _is_here(self) -> bool:
        """Whether this is the pool's own process: not where the handler forked, and this is the child."""
        return self._pool._mutex is self._mutex

    def _goes_on(self) -> bool:
        return self._is_here() and bool(self._pool._step(self._go_on))

    # Steps: each is called with the mutex taken. What one returns is released after it.

    def _begin(self) -> _Given:
        core, features = self._core, self._features
        key, event = self._hand.item
        if features.coalesce:
            core.open(key, event)
        delivery, context = self._hand.delivery(), None
        if isinstance(event, Envelope):
            if event.context is not None:
                context = event.context.copy()  # What an attempt changes there is not the next one's.
            if event.added is not None:
                self._pool._began[self._worker] = now = self._pool._clock.now()
                delivery = delivery._replace(age=max(0.0, now - event.added))
        if features.batch is None:
            return _Given(opened(event), delivery, context, 1, ends=True)
        events = [opened(each) for each in core.batch(key, event, features.batch)]
        return _Given(events, delivery, context, len(events), ends=False)

    def _settle(self, done: int, failed: int) -> list[Any]:
        """Pass what a batch has done; `failed`: how large it was, where the rest has failed."""
        items = [
            self._core.go_on(self._worker, self._hand, ended=more > 0 or not failed) for more in reversed(range(done))
        ]
        if failed:
            self._core.note(self._hand.item[0]).batch = failed - done
        self._pool._follow_up()
        return items

    def _go_on(self) -> Any:
        """Take the next event of the key, where that may be; what was held before, or None."""
        if not self._core.may_go_on(self._hand.item[0]):
            return None
        item = self._core.go_on(self._worker, self._hand, ended=False)
        self._pool._follow_up()
        return item


def require_done(result: object, size: int) -> int:
    """How many events of a batch its handler has done, by what it returned.

    Raises:
        BatchIncomplete: Not all of them.
        TypeError, ValueError: It returned something else.
    """
    if result is None:
        return size
    if isinstance(result, bool) or not isinstance(result, int):
        raise TypeError(
            f"a handler of batches returns how many of the events it has done, or None for all, and not {result!r}"
        )
    if not 0 <= result <= size:
        raise ValueError(f"a handler of batches has returned {result} as how many of {size} events it has done")
    if result < size:
        raise BatchIncomplete(result)
    return result


def in_context(context: Context | None) -> Callable[..., Any]:
    """What calls a function with a context, or with the one that is current."""
    return _call if context is None else context.run


def _call(function: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
    return function(*arguments, **options)


@coroutine
def _give_turn() -> Generator[None, None, None]:
    """Let the others of the loop have their turn: what `asyncio.sleep(0)` does."""
    yield


class InContext:
    """Awaits a coroutine with a context current in each of its steps, in the task that awaits this: it costs none."""

    def __init__(self, context: Context, awaited: Awaitable[Any]) -> None:
        self._context = context
        self.awaited: Any = awaited if hasattr(awaited, "send") else awaited.__await__()

    def __await__(self) -> Self:
        return self

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Any:
        return self.send(None)

    def send(self, value: Any) -> Any:
        """Go on with what was waited for."""
        return self._context.run(self.awaited.send, value)

    def throw(self, *error: Any) -> Any:
        """Go on with an error: a cancel, or that of what was waited for."""
        try:
            return self._context.run(self.awaited.throw, *error)
        finally:
            del error  # Else what it leads to would hold it.

    def close(self) -> None:
        """Give up."""
        self._context.run(self.awaited.close)
