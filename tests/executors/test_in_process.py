"""Executors that run handlers in this process, and what a pool does with the one that it has."""

from __future__ import annotations

import gc
import logging
import threading
import weakref
from collections.abc import Callable
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from queue import SimpleQueue
from typing import Any

import pytest

from executors.fakes import Factory, Inline
from support import PATIENCE, Driver, Gate, LookedAt, begin, eventually, has_adders, has_handled, in_thread, wait
from workpool import DrainIncomplete, HandlerError, Skip
from workpool.executors import EventWorkerPool
from workpool.testing import FakeClock

EXECUTORS: dict[str, Callable[[], Executor]] = {"threads": partial(ThreadPoolExecutor, 2), "inline": Inline}


@pytest.fixture(params=EXECUTORS)
def make(request: pytest.FixtureRequest) -> Callable[[], Executor]:
    found: str = request.param
    return EXECUTORS[found]


class Counted(ThreadPoolExecutor):
    """Tells how often it was shut down."""

    ends = 0

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        self.ends += 1
        super().shutdown(wait, cancel_futures=cancel_futures)


def test_a_handler_adds_over_the_bound_and_never_waits(make: Callable[[], Executor]) -> None:
    handled: list[int] = []

    def handle(event: int) -> None:
        handled.append(event)
        if event < 3:
            for number in range(3):
                pool.add("b", 10 * event + 10 + number, timeout=PATIENCE)

    pool = EventWorkerPool[str, int](handle, executor=make, workers=1, max_backlog=1)
    pool.start()
    for event in range(3):
        pool.add("a", event)
    pool.drain(PATIENCE)
    assert sorted(handled) == [0, 1, 2, 10, 11, 12, 20, 21, 22, 30, 31, 32]


def test_whoever_the_executor_runs_beside_the_handlers_is_not_inside() -> None:
    """Its thread has run a handler before."""
    with ThreadPoolExecutor(1) as executor:
        gate = Gate()
        with EventWorkerPool[str, int](print, executor=executor, workers=1) as pool:
            pool.add("a", 1)
        with ThreadPoolExecutor(1) as other:
            pool = EventWorkerPool[str, int](gate, executor=other, workers=1, max_backlog=1).start()
            pool.add("a", 1)
            pool.add("a", 2)
            adding = executor.submit(pool.add, "a", 3)
            eventually(lambda: has_adders(pool))
            gate.open.set()
            adding.result(PATIENCE)
            pool.drain(PATIENCE)


@pytest.mark.parametrize("ending", ["drain", "stop"])
def test_an_ending_from_a_handler_asks_and_returns_at_once(make: Callable[[], Executor], ending: str) -> None:
    returned: list[object] = []

    def handle(event: int) -> None:
        if event == 1:
            returned.append(getattr(pool, ending)())

    pool = EventWorkerPool[str, int](handle, executor=make, workers=1)
    for event in (1, 2):
        pool.add("a", event)
    pool.start()
    if ending == "drain":
        pool.drain(PATIENCE)
    else:
        assert pool.stop(PATIENCE) == [("a", 2)]
    assert returned == [None if ending == "drain" else []]


def test_no_more_than_workers_are_in_flight(driver: Driver) -> None:
    """However many the executor could run."""
    most = 0
    inside = threading.Semaphore(0)
    gate = threading.Event()
    mutex = threading.Lock()
    now = 0

    def handle(event: int) -> None:
        nonlocal most, now
        with mutex:
            now += 1
            most = max(most, now)
        inside.release()
        wait(gate)
        with mutex:
            now -= 1

    with ThreadPoolExecutor(8) as executor:
        pool = EventWorkerPool[int, int](handle, executor=executor, workers=2).start()
        for event in range(20):
            pool.add(event, event)
        for _ in range(2):
            assert inside.acquire(timeout=PATIENCE)
        assert executor._work_queue.qsize() == 0, "nothing more was submitted"
        gate.set()
        pool.drain(PATIENCE)
    assert most == 2


def test_workers_are_as_many_as_the_executor_says_that_it_runs() -> None:
    with ThreadPoolExecutor(3) as executor:
        assert EventWorkerPool[Any, Any](print, executor=executor).workers == 3
        assert EventWorkerPool[Any, Any](print, executor=executor, workers=5).workers == 5
    from support import DRIVERS

    assert EventWorkerPool[Any, Any](print, executor=Inline()).workers == DRIVERS[0].default_workers
    assert (
        EventWorkerPool[Any, Any](print, executor=partial(ThreadPoolExecutor, 3)).workers == DRIVERS[0].default_workers
    )


@pytest.mark.parametrize("ending", ["drain", "stop", "failure", "block", "handler", "unstarted"])
def test_what_a_factory_made_is_shut_down_once_and_what_was_given_never(ending: str) -> None:
    def handle(event: int) -> None:
        if ending == "failure":
            raise ValueError
        if ending == "handler":
            pools[-1].drain()

    made: list[Counted] = []

    def make() -> Executor:
        made.append(Counted(2))
        return made[-1]

    given = Counted(2)
    pools: list[EventWorkerPool[str, int]] = []
    for executor in (make, given):
        pools.append(EventWorkerPool(handle, executor=executor, workers=2))
        if ending != "unstarted":
            pools[-1].start().add("a", 1)
        with suppress(HandlerError, LookupError):
            if ending == "block":
                with pools[-1]:
                    raise LookupError
            elif ending == "handler":
                eventually(lambda: "ended" in repr(pools[-1]))
            elif ending == "stop":
                eventually(lambda: has_handled(pools[-1], 1))
                pools[-1].stop()
            else:
                pools[-1].drain(PATIENCE)
        assert pools[-1]._core.state.value == "ended"
    assert [each.ends for each in made] == ([] if ending in ("block", "unstarted") and not made else [1])
    assert not any(thread.is_alive() for each in made for thread in each._threads)
    assert given.ends == 0
    assert given.submit(int).result(PATIENCE) == 0
    given.shutdown()


def test_a_pool_whose_clock_fails_shuts_its_executor_down_when_the_last_handler_has_ended() -> None:
    class Clock(FakeClock):
        fails = False

        def now(self) -> float:
            if self.fails:
                raise OSError("no time")
            return super().now()

    class Nudges(SimpleQueue[None]):
        def get(self, block: bool = True, timeout: float | None = None) -> None:
            if "stopping" in repr(pool):
                waits.set()
            super().get(block, timeout)

    gate = Gate()
    waits = threading.Event()
    clock = Clock()
    make = Factory(executor := Counted(2))
    pool = EventWorkerPool[str, int](gate, executor=make, workers=2, clock=clock)
    pool._nudges = Nudges()
    pool.start()
    pool.add("a", 1)
    gate.wait_inside()
    clock.fails = True
    clock.advance(100)
    eventually(lambda: waits.is_set() or executor.ends > 0)  # Whichever the timekeeper does, now that it has failed.
    assert executor.ends == 0
    gate.open.set()
    with pytest.raises(HandlerError, match="no time"):
        pool.drain(PATIENCE)
    assert (executor.ends, len(make.made)) == (1, 1)
    assert pool.stats().handled == 1


def test_a_handler_that_runs_elsewhere_for_long_is_told_with_the_stack_of_its_worker(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Elsewhere(Executor):
        def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
            submitted.append(Future())
            return submitted[-1]

    submitted: list[Future[Any]] = []
    clock = LookedAt()
    pool = EventWorkerPool[str, int](print, executor=Elsewhere(), workers=1, warn_after=10, clock=clock).start()
    pool.add("a", 1)
    eventually(lambda: bool(submitted))
    clock.look(5, times=20)
    submitted[0].set_result(None)
    pool.drain(PATIENCE)
    [record] = caplog.records
    message = record.getMessage()
    assert message.startswith("pool 'default': the handler of key 'a' has run for 10 s, on thread workpool-default-0:")
    assert ", in _deliver" in message


def test_what_a_handler_returns_is_dropped() -> None:
    executor = Inline()
    with EventWorkerPool[str, int](lambda event: event, executor=executor, workers=1) as pool:
        pool.add("a", 1)
    assert executor.results == [None]


@pytest.mark.parametrize("how", ["handled", "raised", "break", "lose"])
def test_an_event_is_released_when_it_has_ended(how: str, caplog: pytest.LogCaptureFixture) -> None:
    """No frame that leads to itself holds it, nor does what is logged of a loss."""
    if how == "raised":
        caplog.set_level(logging.CRITICAL, "workpool")  # A record that is kept holds the error of a handler.

    class Event:
        pass

    def handle(event: Event) -> None:
        if how == "raised":
            raise ValueError

    make = Factory(ThreadPoolExecutor(1) if how in ("handled", "raised") else Inline(how), ThreadPoolExecutor(1))
    gc.disable()
    try:
        pool = EventWorkerPool[str, Event](handle, executor=make, workers=1, on_failure=Skip(), max_dead=0).start()
        event = Event()
        known = weakref.ref(event)
        pool.add("a", event)
        del event
        eventually(lambda: pool.stats().handled + pool.stats().dead == 1)
        if how in ("break", "lose"):
            make.made[0].calls.clear()
        eventually(lambda: known() is None)
    finally:
        gc.enable()
        pool.drain(PATIENCE)


@pytest.mark.parametrize("cancel", [False, True])
@pytest.mark.parametrize("factory", [False, True])
def test_somebody_who_shuts_an_executor_of_threads_down(factory: bool, cancel: bool) -> None:
    """A factory's is replaced; one that was given is missed."""
    handled: list[int] = []
    inside = threading.Semaphore(0)
    gate = threading.Event()

    def handle(event: int) -> None:
        inside.release()
        wait(gate)
        handled.append(event)

    make = Factory(first := ThreadPoolExecutor(1), ThreadPoolExecutor(3))
    pool = EventWorkerPool[str, int](handle, executor=make if factory else first, workers=3).start()
    for event in range(6):
        pool.add("abc"[event % 3], event)
    assert inside.acquire(timeout=PATIENCE)
    eventually(lambda: first._work_queue.qsize() == 2)
    first.shutdown(wait=False, cancel_futures=cancel)
    gate.set()
    if factory:
        pool.drain(PATIENCE)
        assert sorted(handled) == list(range(6))
        return
    with pytest.raises(HandlerError):
        pool.drain(PATIENCE)
    assert sorted(handled + [event for _, event in pool.left]) == list(range(6))
    assert len(handled) == (1 if cancel else 3)


def test_two_pools_share_an_executor() -> None:
    with ThreadPoolExecutor(2) as executor:
        second = EventWorkerPool[int, int](lambda event: None, executor=executor, workers=2)
        first = EventWorkerPool[int, int](lambda event: second.add(event, event), executor=executor, workers=2)
        with second, first:
            for event in range(50):
                first.add(event % 3, event)
    assert (first.stats().handled, second.stats().handled) == (50, 50)


def test_what_is_parked_is_left_when_the_pool_drains() -> None:
    pool = EventWorkerPool[str, int](print, executor=Inline(), workers=1).start()
    pool.park("a")
    pool.add("a", 1)
    with pytest.raises(DrainIncomplete):
        pool.drain(PATIENCE)
    assert pool.left == [("a", 1)]


def test_a_stop_waits_for_what_the_executor_holds() -> None:
    gate = Gate()
    with ThreadPoolExecutor(1) as executor:
        pool = EventWorkerPool[str, int](gate, executor=executor, workers=2).start()
        for key in "ab":
            pool.add(key, 1)
            pool.add(key, 2)
        gate.wait_inside()
        eventually(lambda: pool.stats().in_flight == 2)
        stopped = begin(pool, "stop")
        gate.open.set()
        assert stopped() == [("a", 2), ("b", 2)]
    assert pool.stats().handled == 2


def test_an_executor_is_wanted() -> None:
    for wrong in (None, 3, "threads", object()):
        with pytest.raises(TypeError, match="executor must be an Executor, or make one when it is called"):
            EventWorkerPool[Any, Any](print, executor=wrong)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="executor"):
        EventWorkerPool[Any, Any](print)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="the handler must be callable"):
        EventWorkerPool[Any, Any](None, executor=Inline())  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="workers must be at least 1"):
        EventWorkerPool[Any, Any](print, executor=Inline(), workers=0)


def test_a_class_of_executors_makes_one() -> None:
    with EventWorkerPool[str, int](print, executor=Inline, workers=1) as pool:
        pool.add("a", 1)
    assert in_thread(lambda: pool.stats().handled)() == 1
