"""One run of a handler under a seeded schedule, with faults.

The pool is the real one, on a loop that draws the order from a seed (`workpool.testing.loop`). A run goes through
*points*: where a delivery is about to start, where it waits, and where its handler has returned. Faults are planned as
points, drawn from the same seed, so that the seed, the events and the arguments fix everything that happens.

A run is a row of *lives*, each a pool of its own. A crash ends one at a point: its handlers stand still until the run
is over, and what was accepted and not handled is added to the next pool, as a durable journal would. A stop ends one
too, and what it returned is added to the next.
"""

from __future__ import annotations

import asyncio
import functools
import random
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Self

from workpool.asyncio import EventWorkerPool
from workpool.errors import PoolClosed, WorkpoolError, describe
from workpool.handlers import Delivery, is_awaited, takes_delivery
from workpool.policy import Policy, Verdict
from workpool.testing.checker import Kind, Record, exactly_once, order, read
from workpool.testing.history import BrokenPromise, Envelope
from workpool.testing.loop import PlainCall, SimulatedLoop, Stuck, drive, place

__all__ = ["Case", "InjectedFailure", "Run"]


class InjectedFailure(Exception):
    """Raised in place of a handler, before it was called or after it returned."""


@dataclass(frozen=True, slots=True)
class Case:
    """What all runs have in common."""

    handler: Callable[..., object]
    setup: Callable[[], object] | None
    check: Callable[..., object] | None
    restart: Callable[..., object] | None
    workers: int
    on_failure: Policy
    expected: tuple[type[Exception], ...]

    @property
    def awaited(self) -> bool:
        """Whether the handler is a coroutine function."""
        return is_awaited(self.handler)


class _Crash(BaseException):
    """Leaves the loop where a crash strikes."""


class _Over(BaseException):
    """Leaves the loop where the run has failed."""


@dataclass(slots=True, eq=False)
class _Flight:
    """One delivery, and the faults that wait for their place in it."""

    name: str
    fails: bool = False
    expires: bool = False
    expired: bool = False


class Run:
    """One run of all events.

    Args:
        case: What to run.
        events: What to add.
        seed: Fixes the schedule; None for one event at a time.
        faults: How many of each kind at most.
        points: Among how many points the faults are spread.
    """

    def __init__(
        self,
        case: Case,
        events: list[Any],
        seed: int | None = None,
        faults: dict[str, int] | None = None,
        points: int = 0,
    ) -> None:
        self.case: Case = case
        self.events: list[Any] = events
        self.seed: int | None = seed
        self.faults: dict[str, int] = faults or {}
        random.seed(seed or 0)  # The pool's jitter; and the handler's own dice, where it has any.
        self._dice: random.Random | None = None if seed is None else random.Random(seed)
        self._plan: dict[int, str] = {}
        if self._dice is not None:
            for name, most in self.faults.items():
                for _ in range(self._dice.randint(0, most) if points else 0):
                    self._plan.setdefault(self._dice.randrange(points), name)
        self.points: int = 0
        """How many it has gone through."""
        self.struck: Counter[str] = Counter()
        """The faults that did strike, and the switches."""
        self.history: list[str] = []
        self.failure: BaseException | None = None
        self._stays: _Flight | None = None
        """Who stood at an await last, while nothing else has happened since."""
        self._waits: dict[_Flight, str] = {}
        self._records: list[Record] = []
        self._settled: set[int] = set()
        self._over = False

    def run(self) -> Self:
        """Go through all lives, and check what came out."""
        case = self.case
        state = None if case.setup is None else case.setup()
        self._state = () if state is None else (state,)
        self._handler = functools.partial(case.handler, *self._state) if self._state else case.handler
        self._takes_delivery = takes_delivery(self._handler, awaited=case.awaited)
        lives: list[asyncio.Runner] = []
        self._todo = [Envelope(number, key, event) for number, (key, event) in enumerate(self.events)]
        try:
            try:
                while self._goes_on(lives):
                    pass
                if case.check is not None:
                    case.check(*self._state)
            except _Over:
                pass
            except Exception as error:
                self.failure = error
                self._say(_told(error))
            return self
        finally:
            self._over = True
            for life in lives:
                life.get_loop().set_exception_handler(lambda *_: None)
                with suppress(Stuck):
                    life.close()  # What still stands somewhere is cancelled.

    # The lives.

    def _goes_on(self, lives: list[asyncio.Runner]) -> bool:
        """Live once; whether there is more to do, after a fault."""
        faults = sum(self.struck.values()) - self.struck["switches"]
        now = self._loop.time() if lives else 0.0
        life = asyncio.Runner(loop_factory=lambda: SimulatedLoop(self._dice, now))
        lives.append(life)
        self._records, self._waits, self._stays = [], {}, None
        self._loop: SimulatedLoop = life.get_loop()  # type: ignore[assignment]
        self._left: list[Envelope[Any]] = []
        self._accepted: list[Envelope[Any]] = []
        try:
            life.run(self._live())
        except _Crash:
            self._say("crash: all workers vanish")
            dead = {each.event.number for each in self._pool.dead()}
            self._left = [each for each in self._accepted if each.number not in self._settled | dead]
            if self.case.restart is not None:
                self.case.restart(*self._state)
            broken = order(read(self._records))
        except Stuck as error:
            waits = "".join(f"\n    {flight.name} at {where}" for flight, where in self._waits.items())
            raise Stuck(f"{error}{waits}") from error
        else:
            dead = {each.event.number for each in self._pool.dead()}
            left = [each.number for each in self._left]
            account = read(self._records)
            broken = exactly_once(account, left, [*dead], (0, 0)) + order(account)
        if broken:
            raise BrokenPromise("\n".join(broken))
        self._todo = self._left + self._todo[len(self._accepted) :]
        return bool(self._todo) and sum(self.struck.values()) - self.struck["switches"] > faults

    async def _live(self) -> None:
        """One pool's life."""
        pool: EventWorkerPool[Any, Any] = EventWorkerPool(
            self._deliver, workers=1 if self.seed is None else self.case.workers, max_backlog=None, name="explored",
            on_failure=self.case.on_failure, warn_after=None, clock=self,
        )  # fmt: skip
        self._pool = pool.start()
        with suppress(WorkpoolError):  # A stop came, or keys are parked, or the pool failed, as its policy says.
            for envelope in self._todo:
                self._record("add", envelope)
                try:
                    pool.add_nowait(envelope.key, envelope)
                except WorkpoolError:
                    self._record("refused", envelope)
                    raise
                self._record("accepted", envelope)
                self._accepted.append(envelope)
                self._say("added", _name(envelope), describe(envelope.event))
                await asyncio.sleep(0)
            await pool.drain()
        with suppress(WorkpoolError):
            await pool.stop()
        self._left = [envelope for _, envelope in pool.left]
        if self._left:
            self._say("left", ", ".join(map(_name, self._left)))

    def now(self) -> float:
        """The pool's clock is the loop's."""
        return self._loop.time()

    def pause(self, until: float, ring: Callable[[], None]) -> float | None:  # noqa: ARG002
        """The same seconds."""
        return max(0.0, until - self.now())

    # A delivery.

    async def _deliver(self, envelope: Envelope[Any], delivery: Delivery) -> None:
        flight = _Flight(_name(envelope))
        self._record("start", envelope)
        try:
            await self._attempt(flight, envelope, delivery)
        except BaseException as error:
            self._record("raised", envelope)
            if not self._over:
                self._judge(flight, error)
            raise
        self._record("end", envelope)
        self._settled.add(envelope.number)
        self._say("handled", flight.name)

    async def _attempt(self, flight: _Flight, envelope: Envelope[Any], delivery: Delivery) -> None:
        self._point(flight)
        await asyncio.sleep(0)
        if flight.fails:
            raise InjectedFailure("before the handler was called")
        self._say("started", flight.name, "" if delivery.attempt == 1 else f"attempt {delivery.attempt}")
        arguments = (envelope.event, delivery) if self._takes_delivery else (envelope.event,)
        awaited = self.case.awaited
        call: Any = self._handler(*arguments) if awaited else PlainCall(self._handler, *arguments)
        try:
            await drive(call, lambda: self._leave(flight, call), lambda: self._enter(flight))
        except asyncio.CancelledError as error:
            if flight.expired:
                raise TimeoutError("injected") from error
            raise
        finally:
            self._waits.pop(flight, None)
            if flight.expired and (task := asyncio.current_task()):
                task.uncancel()
        self._say("returned", flight.name)
        self._point(flight)
        await asyncio.sleep(0)
        if flight.fails:
            raise InjectedFailure("after the handler returned")

    def _point(self, flight: _Flight) -> None:
        """Let the fault strike that is planned for here, or note it for its place in this delivery."""
        if self._over:
            return
        fault = self._plan.pop(self.points, None)
        self.points += 1
        if fault == "failures":
            flight.fails = True
        elif fault == "timeouts":
            flight.expires = self.case.awaited
        elif fault == "crashes":
            self.struck[fault] += 1
            self._loop.ending = _Crash()
        elif fault == "stops":
            self.struck[fault] += 1
            self._say("stop")
            with suppress(StopIteration, PoolClosed):
                self._pool.stop().send(None)  # From a handler it only asks, and returns at once.

    def _leave(self, flight: _Flight, call: Any) -> None:
        self._point(flight)
        self._waits[flight] = place(call)
        self._say("waits", flight.name, self._waits[flight])
        if flight.expires and not self._over and (task := asyncio.current_task()):
            flight.expires, flight.expired = False, True
            self.struck["timeouts"] += 1
            self._say("time-out", flight.name)
            task.cancel()
        else:
            self._stays = flight

    def _enter(self, flight: _Flight) -> None:
        self._waits.pop(flight, None)
        if self._over:
            return
        if self._stays is flight:
            self.history.pop()  # Nothing came in between: that is no news.
        else:
            self.struck["switches"] += 1
            self._say("goes on", flight.name)

    def _judge(self, flight: _Flight, error: BaseException) -> None:
        """Tell of an error; it is a failure of the run unless it was injected or expected."""
        self._say("raised", flight.name, _told(error))
        if isinstance(error, KeyboardInterrupt):
            self._loop.ending = error
        elif isinstance(error, InjectedFailure):
            self.struck["failures"] += 1
        elif isinstance(error, AssertionError) or not (
            flight.expired or isinstance(error, (Verdict, *self.case.expected))
        ):
            self.failure, self._loop.ending = error, _Over()

    # The history.

    def _say(self, what: str, name: str = "", more: str = "") -> None:
        if not self._over:
            self._stays = None
            self.history.append(f"{self._loop.time():9.3f}  {what:9} {name} {more}".rstrip())

    def _record(self, kind: Kind, envelope: Envelope[Any]) -> None:
        if not self._over:
            self._records.append((kind, envelope.number, envelope.key, self._loop.time()))


def _told(error: BaseException) -> str:
    """An error in one line."""
    lines = describe(error, str).splitlines()
    return f"{type(error).__name__}{': ' if lines else ''}{''.join(lines[:1])}"


def _name(envelope: Envelope[Any]) -> str:
    return f"{describe(envelope.key)} #{envelope.number}"
