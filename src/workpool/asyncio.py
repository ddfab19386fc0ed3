"""EventWorkerPool on one event loop.

The core decides; this module waits, wakes and calls. Its rules:

- *The worker is the task that runs the handler*: so many workers, so many tasks, whatever waits, is held, or is idle.
- *Each step of the core is made without an await in between*, mostly on the loop's thread. The mutex is there for
  `add_from_thread` and for those who only look, and to know when a signal handler or a finaliser finds its own thread
  inside (P11). Nobody but the loop's thread touches a future or a timer.
- *A cancel that was asked for puts the event back* at the head of its lane and stops the pool, whatever the handler
  makes of it; a `CancelledError` that nobody asked for is a failed attempt.
"""

from __future__ import annotations

import asyncio
import math
import sys
import traceback
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from functools import partial
from queue import SimpleQueue
from threading import get_ident
from types import TracebackType
from typing import Any, Final, Literal, Self, cast

from workpool.arguments import duration, seconds
from workpool.clock import Clock
from workpool.driver import TIMEKEEPER
from workpool.errors import HandlerCancelled
from workpool.flush import Flush
from workpool.handlers import takes_delivery
from workpool.hooks import Hooks
from workpool.intake import Reading, Source
from workpool.lanes import NOTHING, E, K
from workpool.loop import Bell, Gate, call_on, nothing, stack_of
from workpool.mutex import Forked
from workpool.policy import Fail, Policy
from workpool.pool import Adding, Pool
from workpool.records import State
from workpool.turn import AwaitedHandler, Features, Turn
from workpool.twin import Hand, one_by_one

__all__ = ["EventWorkerPool"]

_running_loop = asyncio._get_running_loop
_SLOW: Final = sys.version_info < (3, 12)
"""To ask for the loop that runs is a call of the system, which an `add` for each event would notice."""

_BURST: Final = 64
"""Events that a worker handles before others of the loop get their turn, where no handler ever waits."""


class EventWorkerPool(Pool[K, E]):
    """Handles events on an event loop: each exactly once, in order per key, no key blocking another.

    It means what `workpool.EventWorkerPool` means, with these differences. The handler is a coroutine function; `add`,
    `drain` and `stop` are awaited, and `async with` starts and drains. The pool belongs to the loop that it is first
    used on: a call from elsewhere raises, but for `add_from_thread`. It lives no longer than its loop: where that ends
    first, the workers are cancelled, the pool is stopped, what is left is in `left`, and an error is logged.

    Cost: a task for each worker, and one timer; no task for a key, for an event that waits, or for a retry.

    Args:
        handler: Awaited as `handler(event)`, or as `handler(event, delivery)` where its second positional parameter has
            no default or is named `delivery`.
        workers: How many handlers run at once, each in a task; None for 100.
        timeout: How many seconds one delivery may take; it is cancelled then, and has failed with a `TimeoutError`.
            None for as long as it takes. A handler that never awaits cannot be cancelled, and one that returns although
            it was cancelled has handled its event.
        max_backlog, max_lane, name, on_failure, max_dead, warn_after: As on threads.
        clock: As on threads; but `timeout` always counts the loop's time.
        hooks: As on threads. They are called on the loop.
        coalesce, max_burst, batch, timing, contextvars: As on threads.

    Raises:
        TypeError: The handler is no coroutine function or cannot be called so, or an argument is of the wrong type.
        ValueError: A number is too low.
    """

    def __init__(
        self,
        handler: AwaitedHandler[E],
        *,
        workers: int | None = None,
        timeout: float | None = None,
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
        self._takes_delivery = takes_delivery(handler, awaited=True)
        self._handler: Callable[..., Awaitable[object]] = handler
        self._timeout = None if timeout is None else duration("timeout", timeout)
        super().__init__(
            workers=100 if workers is None else workers, max_backlog=max_backlog, max_lane=max_lane, name=name,
            on_failure=on_failure, max_dead=max_dead, warn_after=warn_after, clock=clock,
            features=Features(hooks, coalesce, max_burst, batch, timing, contextvars),
        )  # fmt: skip
        self._loop: asyncio.AbstractEventLoop | None = None
        self._is_running: Callable[[], bool] = bool
        self._ident = 0
        """The thread that it is on."""
        self._tasks: dict[asyncio.Task[None], int] = {}
        self._sleepers: list[asyncio.Future[None]] = []
        self._wakeups = 0
        """Wake-ups that no sleeper has taken yet."""
        self._timer: asyncio.TimerHandle | None = None
        self._nudged = False
        self._ended = asyncio.Event()

    def start(self, workers: int | None = None) -> Self:
        """Start the workers, on the loop that runs. Events that were added before are handled now.

        Raises:
            RuntimeError: It was started before, or no loop runs, or another than the pool's.
            PoolClosed: It was drained or stopped before.
            TypeError, ValueError: `workers` is wrong.
        """
        loop, me = self._require_owner(), object()
        try:
            number = self._step(self._enlist, me, workers)
            for worker in range(number):
                task = loop.create_task(self._live(worker), name=f"workpool-{self._core.name}-{worker}")
                self._tasks[task] = worker
                task.add_done_callback(partial(self._forget, worker))
            self._keep_time()
        except BaseException:
            self._take_back(me, self._tasks.values())
            raise
        return self

    async def add(self, key: K, event: E, *, timeout: float | None = None, delay: float | None = None) -> None:
        """Add an event at the end of its key's lane.

        It is as on threads. An `add` that is cancelled has added nothing, unless its event was accepted before the
        cancel came. Only the task that runs a handler never waits: one that a handler has started is like any other.

        Raises:
            TimeoutError, PoolClosed, HandlerError, TypeError, ValueError: As on threads.
            RuntimeError: This is another loop's, or a forked child's, or a call from inside the pool.
        """
        is_here = self._is_running() and get_ident() == self._ident if _SLOW else _running_loop() is self._loop
        if is_here and timeout is None is delay and self._enter_at_once(key, event):
            return
        patience = seconds(timeout)
        self._require_owner()
        gate = self._enter(key, event, partial(Gate, self), delay=delay)
        if gate is None:
            return
        gate.key = key
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(patience):
                    await gate
        except BaseException:
            if self._step(self._withdraw, gate, key) is None:
                self._tell_added(key, event)  # It was accepted before the cancel came.
            raise
        self._require_let_in(gate, key, timeout)
        self._tell_added(key, event)

    async def add_many(self, pairs: Iterable[tuple[K, E]], *, timeout: float | None = None) -> int:
        """Add events, each as `add` does and in the order given: cheaper than as many calls.

        It is as on threads. The loop has its turn where this waits for room, and not before.
        """
        patience = seconds(timeout)
        loop = self._require_owner()
        enter_some = self._enter_some if type(self).add is EventWorkerPool.add else one_by_one
        with Adding(pairs, enter_some, patience, loop.time) as adding:
            while (pair := adding.next()) is not NOTHING:
                key, event = pair
                await self.add(key, event, timeout=adding.patience())
                adding.added += 1
        return adding.added

    def add_nowait(self, key: K, event: E, *, delay: float | None = None) -> None:
        """Add an event as `add` does, or raise at once where that would wait.

        Raises:
            PoolFull: The pool, or the lane, is full, whoever calls.
            PoolClosed, HandlerError, TypeError, ValueError, RuntimeError: As for `add`.
        """
        loop = self._require_owner()
        self._enter(key, event, delay=delay)
        if asyncio.current_task() is None:
            loop.call_soon_threadsafe(nothing)  # A signal handler's: the loop may sleep, and has not heard of it.

    def add_from_thread(self, key: K, event: E, *, timeout: float | None = None, delay: float | None = None) -> None:
        """Add an event as `add` does, from a thread that is not the loop's, and wait there.

        Raises:
            RuntimeError: This is the loop's own thread, or its loop does not run.
            TimeoutError, PoolClosed, HandlerError, TypeError, ValueError: As for `add`.
        """
        loop = self._loop
        if loop is None or not loop.is_running():
            raise RuntimeError(f"pool {self._core.name!r} has no loop that runs: start it first")
        if loop is _running_loop():
            raise RuntimeError("this is the loop's own thread: await add(...) instead")
        self._enter(key, event, SimpleQueue, self._await, seconds(timeout), delay=delay)

    async def drain(self, timeout: float | None = None) -> None:
        """Handle all that was accepted, retries included, then end; refuse adds from outside at once.

        From a handler this only asks, and returns at once. Cancelling it cancels the waiting: the pool goes on.

        Raises:
            TimeoutError: It has not ended in `timeout` seconds. It goes on draining.
            DrainIncomplete, HandlerError, RuntimeError: As on threads.
        """
        patience = seconds(timeout)
        self._step(self._close, False)
        self._require_drained(await self._wait(patience), timeout)

    async def stop(self, timeout: float | None = None) -> list[tuple[K, E]]:
        """Finish what is in flight, start nothing more, refuse every add, and return what was not handled.

        From a handler this only asks, and returns an empty list at once. Handlers are not cancelled: give deliveries a
        `timeout` where they may hang.

        Returns:
            The events that were not handled, as (key, event), in order within each key; also kept as `left`.

        Raises:
            StopTimeout: Handlers are still running after `timeout` seconds. A later call waits again.
            HandlerError: The pool failed.
        """
        patience = seconds(timeout)
        self._step(self._close, True)
        if not await self._wait(patience) and self._is_inside():
            return []
        return self._require_stopped(timeout)

    async def flush(self, key: K = NOTHING, *, timeout: float | None = None) -> None:
        """Wait until everything has ended that was accepted before the call: of one key, or of all.

        Raises:
            FlushIncomplete, TimeoutError, PoolClosed, HandlerError, RuntimeError, TypeError: As on threads.
        """
        patience = seconds(timeout)
        self._require_owner()
        bell = Bell()
        with Flush(self, key, bell, patience) as flush:
            while not flush.is_over():
                try:
                    async with asyncio.timeout(flush.patience()):
                        await bell.wait()
                except TimeoutError:
                    raise flush.late() from None

    async def run(self, *sources: Source) -> None:
        """Read sources, all at the same time, and add what they bring, until each has ended or is stopped.

        It is as on threads: each source is read on a thread of its own, and waits there while the pool is full. A
        cancel stops the sources first.

        Raises:
            HandlerError, PoolClosed, Exception: As on threads.
        """
        if not self._step(self._has_started):
            self.start()
        loop = self._require_owner()
        bell = loop.create_future()
        reading = Reading(self, sources, bell, partial(call_on, loop, partial(self._tell, [bell])))
        try:
            reading.start()
            if sources:
                await bell
        finally:
            reading.end()
        reading.check()

    async def __aenter__(self) -> Self:
        if not self._step(self._has_started):
            self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is not None:
            self._step(self._close, True)
            await self._wait(None)
            self._note_left(error)
            return
        try:
            await self.drain()
        except BaseException as failure:
            if not self._leave_block(failure):
                raise

    # The workers.

    async def _live(self, worker: int) -> None:
        """One worker's life: it works, and leaves whatever happens."""
        task = cast("asyncio.Task[None]", asyncio.current_task())
        try:
            self._tasks[task] = worker  # An eager task is here before `start` has it.
            await self._work(worker, task.cancelling)
            self._leave(worker)
        except BaseException:
            self._leave(worker)  # Once more, where it was cut short: each part of it may be done twice.
            raise

    def _forget(self, worker: int, task: asyncio.Task[None]) -> None:
        """See to a task that is done. One that was cancelled before it began has not lived, and did not leave."""
        self._tasks.pop(task, None)
        if worker in self._core.workers and not isinstance(self._mutex, Forked):
            self._fail(worker, None, asyncio.CancelledError(), cancelled=True)
            self._leave(worker)

    async def _work(self, worker: int, cancelled: Callable[[], int]) -> None:
        """Sleep, take, handle, pass on, until the pool is settled. It is cut short as its twin on threads is (P11)."""
        core, mutex, takes_delivery, burst = self._core, self._mutex, self._takes_delivery, 0
        handler = self._handler if self._timeout is None else self._handle_in_time
        hand: Hand[K, E] = Hand(self, worker, handler, takes_delivery)
        if self._features.are_asked:
            turn: Any = Turn(self, worker, hand, handler, takes_delivery, cancelled=cancelled)
            handler, takes_delivery = turn.take_awaited, False
        pass_on = hand.pass_on
        try:
            while core.state is State.OPEN or not self._step(core.settle):
                await self._sleep()
                self._take(worker, hand)
                while hand:
                    burst += 1
                    if burst > _BURST:
                        burst = 1
                        await asyncio.sleep(0)
                    try:
                        # The handler's return and its record are one statement: no exception falls between.
                        if takes_delivery:
                            _result, hand.ended = await handler(hand.event, hand.delivery()), True
                        else:
                            _result, hand.ended = await handler(hand.event), True
                    except (Exception, asyncio.CancelledError) as error:
                        ended = hand.ended or self._mutex is not mutex
                        if ended or not self._is_failure(worker, hand.item, error, cancelled()):
                            raise
                        hand.item = None
                        if cancelled():
                            raise asyncio.CancelledError from error  # The handler made another error of it.
                        break
                    del _result
                    if cancelled():
                        raise asyncio.CancelledError  # The handler kept it to itself.
                    look = pass_on()
                    if look is False:
                        return  # The handler forked, and this is the child.
                    if look:
                        self._see_to(worker, hand)
        except BaseException as error:
            if self._mutex is not mutex or cast("asyncio.AbstractEventLoop", self._loop).is_closed():
                raise
            is_asked = isinstance(error, asyncio.CancelledError) and cancelled() > 0
            self._fail(worker, hand.item, error, hand.ended, is_asked)
            if is_asked:
                raise

    async def _handle_in_time(self, *arguments: Any) -> object:
        async with asyncio.timeout(self._timeout):
            return await self._handler(*arguments)

    def _is_failure(
        self, worker: int, item: tuple[K, E], error: Exception | asyncio.CancelledError, cancels: int
    ) -> bool:
        """Put aside an event that failed; False where it has not, or its failure is the pool's."""
        if isinstance(error, Exception):
            return self._put_aside(worker, item, error)
        if cancels:
            return False
        unasked = HandlerCancelled("the handler raised CancelledError, and nobody had cancelled it")
        unasked.__cause__ = error
        if not self._put_aside(worker, item, unasked):
            raise unasked
        return True

    async def _sleep(self) -> None:
        """Wait for a wake-up."""
        sleeper = cast("asyncio.AbstractEventLoop", self._loop).create_future()
        try:
            self._step(self._lie_down, sleeper)
            await sleeper
        except BaseException:
            with suppress(ValueError):
                self._sleepers.remove(sleeper)
            if sleeper.done() and not sleeper.cancelled():
                self._step(self._wake)  # It came, and was not heard.
            raise

    def _keep_time(self) -> None:
        """Look what is due, and set the timer for the next look."""
        try:
            loop = cast("asyncio.AbstractEventLoop", self._loop)
            self._nudged = False
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
            if not self._core.workers:
                return
            pause = self._do_what_is_due(lambda: call_on(loop, self._keep_time))
            if pause is not None and pause < math.inf:
                self._timer = loop.call_later(pause, self._keep_time)
        except BaseException as error:
            self._fail(TIMEKEEPER, None, error)

    def _report(self, worker: int, key: K, seconds: float) -> None:
        for task, number in self._tasks.items():
            if number == worker:
                stack = "".join(traceback.format_list(stack_of(task.get_coro())))
                self._say_late(key, seconds, f"in task {task.get_name()}", stack)

    # Steps: each is called with the mutex taken.

    def _wake(self, again: bool = True) -> None:
        if _running_loop() is not self._loop:
            # From `add_from_thread`.
            call_on(cast("asyncio.AbstractEventLoop", self._loop), partial(self._step, self._wake))
            return
        while self._sleepers:
            sleeper = self._sleepers[-1]
            if woken := not sleeper.done():
                sleeper.set_result(None)  # Before it is taken off the list: else one that is cut here would lose it.
            self._sleepers.pop()
            if woken:
                return
        if again or not self._wakeups:
            self._wakeups += 1

    def _lie_down(self, sleeper: asyncio.Future[None]) -> None:
        self._sleepers.append(sleeper)
        if self._wakeups:
            self._wakeups -= 1
            self._wake()

    def _nudge(self) -> None:
        loop = cast("asyncio.AbstractEventLoop", self._loop)
        if _running_loop() is not loop:
            call_on(loop, self._keep_time)  # From `add_from_thread`.
        elif not self._nudged:
            loop.call_soon(self._keep_time)
            self._nudged = True

    def _tell(self, gates: list[object]) -> None:
        for gate in gates:
            if not isinstance(gate, asyncio.Future):
                cast("SimpleQueue[None]", gate).put(None)
            elif not gate.done():
                gate.set_result(None)

    def _strike(self, gate: Gate) -> None:
        if (refusal := self._withdraw(gate, gate.key)) is not None:
            self._core.refused[gate] = refusal  # For when it hears of it.

    def _leave(self, worker: int) -> None:
        if not cast("asyncio.AbstractEventLoop", self._loop).is_closed():
            super()._leave(worker)

    def _all_left(self) -> None:
        self._ended.set()  # Before the end, which asks for memory: whoever waits makes it again.
        if self._timer is not None:
            self._timer.cancel()
        self._core.end()

    # Around the steps.

    def _is_inside(self) -> bool:
        return _running_loop() is self._loop and asyncio.current_task() in self._tasks

    def _require_owner(self) -> asyncio.AbstractEventLoop:
        """The loop that runs, which has to be the pool's."""
        loop = asyncio.get_running_loop()
        if self._loop is None:
            self._loop, self._is_running, self._ident = loop, loop.is_running, get_ident()
        elif self._loop is not loop:
            raise RuntimeError(f"pool {self._core.name!r} belongs to another event loop")
        return loop

    async def _wait(self, timeout: float | None) -> bool:
        """Wait for the ending; False from a handler, and after the time-out."""
        if self._is_inside():
            return False
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                await self._ended.wait()
        if not self._ended.is_set():
            return False
        self._step(self._core.end)
        return True
