"""What becomes of an event that its executor loses, or does not take: with executors that do it when they are told."""

from __future__ import annotations

import gc
import importlib.util
import logging
import threading
import weakref
from concurrent.futures import BrokenExecutor, CancelledError, Executor, Future, ThreadPoolExecutor
from concurrent.futures import wait as wait_for
from typing import Any

import pytest

from executors.fakes import Factory, Inline
from support import PATIENCE, Gate, adds_up, begin, eventually
from workpool import Delivery, Fail, HandlerError, Park, Policy, Retry, Skip, executors
from workpool.executors import EventWorkerPool, ExecutorBroken
from workpool.testing import FakeClock

WAYS = ["break", "cancel", "refuse"]


class Seen:
    """A handler that remembers what it was called with."""

    def __init__(self) -> None:
        self.deliveries: list[tuple[object, int]] = []

    def __call__(self, event: object, delivery: Delivery) -> None:
        self.deliveries.append((event, delivery.attempt))


def add(pool: EventWorkerPool[Any, Any], key: str, *events: object) -> None:
    for event in events:
        pool.add(key, event)


@pytest.mark.parametrize("way", WAYS)
def test_an_event_that_is_lost_is_delivered_again_before_any_later_one_of_its_key(way: str) -> None:
    handle = Seen()
    make = Factory(Inline("run", way))
    pool = EventWorkerPool[str, int](handle, executor=make, workers=1)
    add(pool, "a", 1, 2, 3)
    pool.start().drain(PATIENCE)
    assert [event for event, _ in handle.deliveries] == [1, 2, 3]
    assert pool.stats().handled == 3
    assert len(make.made) == (1 if way == "cancel" else 2), "one that cancels goes on taking events"
    assert [len(made.ends) for made in make.made] == [1] * len(make.made), "each is shut down, and once"


def test_a_batch_that_is_lost_is_delivered_whole_although_its_handler_took_it_apart() -> None:
    seen: list[list[int]] = []

    def handle(events: list[int]) -> None:
        seen.append([*events])
        events.clear()

    pool = EventWorkerPool[str, int](handle, executor=Factory(Inline("lose")), workers=1, batch=3)
    for event in range(3):
        pool.add("a", event)
    pool.start().drain(PATIENCE)
    assert seen == [[0, 1, 2]] * 2
    assert pool.stats().handled == 3


def test_deliveries_are_counted_in_what_the_handler_and_the_pool_tell_of_them() -> None:
    """One that an executor did not take was none."""
    handle = Seen()
    gate = Gate()

    def seen(event: int, delivery: Delivery) -> None:
        handle(event, delivery)
        if delivery.attempt == 3:
            gate(event)

    make = Factory(Inline("lose"), Inline("refuse"), Inline())
    clock = FakeClock(100)
    pool = EventWorkerPool[str, int](seen, executor=Factory(Inline("lose"), Inline("lose")), workers=1, clock=clock)
    pool.start().add("a", 1)
    gate.wait_inside()
    known = pool.explain("a")
    assert (known.state, known.attempt, known.error) == ("in flight", 3, "BrokenExecutor: a process was killed")
    gate.open.set()
    pool.add("a", 2)
    pool.drain(PATIENCE)
    assert handle.deliveries == [(1, 1), (1, 2), (1, 3), (2, 1)]
    handle.deliveries.clear()
    with EventWorkerPool[str, int](handle, executor=make, workers=1) as pool:
        add(pool, "a", 1, 2)
    assert handle.deliveries == [(1, 1), (1, 2), (2, 1)]


@pytest.mark.parametrize("way", WAYS)
def test_after_three_losses_in_a_row_the_policy_decides(way: str) -> None:
    handle = Seen()
    make = Factory(*(Inline(way) for _ in range(3))) if way != "cancel" else Factory(Inline(*[way] * 3))
    pool = EventWorkerPool[str, str](handle, executor=make, workers=1, on_failure=Skip())
    add(pool, "a", "poison", "next")
    pool.start().drain(PATIENCE)
    [dead] = pool.dead()
    assert (dead.event, dead.attempts) == ("poison", 1 if way == "refuse" else 3)
    assert dead.error.startswith("ExecutorBroken: the executor has lost the event 3 times: ")
    assert handle.deliveries == [("next", 1)]
    assert [len(made.ends) for made in make.made] == [1] * len(make.made)


def test_by_default_it_fails_the_pool_and_all_is_left() -> None:
    pool = EventWorkerPool[str, str](Seen(), executor=Factory(*(Inline("break") for _ in range(9))), workers=1)
    add(pool, "a", "poison", "next")
    with pytest.raises(HandlerError) as caught:
        pool.start().drain(PATIENCE)
    assert isinstance(caught.value.__cause__, ExecutorBroken)
    assert isinstance(caught.value.__cause__.__cause__, BrokenExecutor)
    assert (caught.value.key, caught.value.event, caught.value.attempt) == ("a", "poison", 3)
    assert pool.left == [("a", "poison"), ("a", "next")]


def test_a_retry_goes_on_counting() -> None:
    handle = Seen()
    make = Factory(*(Inline("lose") for _ in range(3)))
    pool = EventWorkerPool[str, int](
        handle, executor=make, workers=1, on_failure=Retry(attempts=4, base=0, then=Park())
    )
    pool.start().add("a", 1)
    pool.drain(PATIENCE)
    assert handle.deliveries == [(1, 1), (1, 2), (1, 3), (1, 4)]


class Shared(Executor):
    """Holds its calls until a poisonous one comes, which breaks all; by itself each of the others is run."""

    def __init__(self, expected: int) -> None:
        self.expected = expected
        self.held: list[Future[Any]] = []
        self.mutex = threading.Lock()
        self.broken = False

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        with self.mutex:
            if self.broken:
                raise BrokenExecutor("broken")
            self.held.append(future)
            if len(self.held) == self.expected:
                self.broken = True
                for each in self.held:
                    each.set_exception(BrokenExecutor("a process was killed"))
        return future


class Apart(Inline):
    """Breaks for a poisonous event, and tells how many calls were ever under way at once."""

    now = most = 0

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
        Apart.now += 1
        Apart.most = max(Apart.most, Apart.now)
        try:
            if args[-1] == "poison":
                self.script = ["break"]
            return super().submit(fn, *args, **kwargs)
        finally:
            Apart.now -= 1


def test_what_was_only_beside_an_event_that_kills_is_not_blamed_for_it() -> None:
    """All four are lost twice together. Their last chance they have one by one."""
    keys = ["poison", "b", "c", "d"]
    entered = threading.Semaphore(0)
    go = threading.Event()
    Apart.most = 0

    def handle(event: str) -> None:
        entered.release()
        assert go.wait(PATIENCE)

    make = Factory(Shared(4), Shared(4), *(Apart() for _ in range(9)))
    pool = EventWorkerPool[str, str](handle, executor=make, workers=4, on_failure=Skip()).start()
    for key in keys:
        pool.add(key, key)
    eventually(lambda: all(pool.explain(key).attempt == 3 for key in keys[1:]))
    assert entered.acquire(timeout=PATIENCE)
    go.set()
    pool.drain(PATIENCE)
    assert Apart.most == 1
    assert [dead.event for dead in pool.dead()] == ["poison"]
    assert pool.stats().handled == 3


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("policy", [Fail(), Skip(), Park(), Retry(base=0)], ids=repr)
def test_an_executor_that_was_given_is_not_replaced_and_fails_the_pool(way: str, policy: Policy) -> None:
    """Under any policy: no event could be handled any more, and each would be given up on."""
    executor = Inline("run", way)
    handle = Seen()
    pool = EventWorkerPool[str, int](handle, executor=executor, workers=1, on_failure=policy)
    add(pool, "a", 1, 2, 3)
    with pytest.raises(HandlerError, match="the executor has lost the event 1 times") as caught:
        pool.start().drain(PATIENCE)
    assert isinstance(caught.value.__cause__, ExecutorBroken)
    assert handle.deliveries == [(1, 1)]
    assert pool.left == [("a", 2), ("a", 3)]
    assert pool.stats().dead == 0
    assert executor.ends == [], "it is not the pool's to shut down"


@pytest.mark.parametrize("given", [True, False])
@pytest.mark.parametrize(
    "error", [BrokenExecutor("of its own"), CancelledError("of its own"), RuntimeError("of its own")], ids=repr
)
def test_what_a_handler_raises_by_itself_is_its_own_whatever_it_looks_like(error: Exception, given: bool) -> None:
    """A handler may use executors too, and one of those may break."""

    def handle(event: int) -> None:
        if event == 1:
            raise error

    executor = Inline()
    make = Factory(executor)
    pool = EventWorkerPool[str, int](handle, executor=executor if given else make, workers=1, on_failure=Skip())
    add(pool, "a", 1, 2)
    pool.start().drain(PATIENCE)
    [dead] = pool.dead()
    assert (dead.event, dead.attempts, dead.error) == (1, 1, f"{type(error).__name__}: of its own")
    assert (len(executor.calls), len(make.made)) == (2, 0 if given else 1)


def test_a_call_that_an_executor_cannot_take_is_a_failed_attempt() -> None:
    """Some pickle what they are given while they are given it."""

    class Picky(Inline):
        def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
            if args[-1] == 1:
                raise TypeError("cannot pickle 1")
            return super().submit(fn, *args, **kwargs)

    pool = EventWorkerPool[str, int](print, executor=Picky(), workers=1, on_failure=Skip())
    add(pool, "a", 1, 2)
    pool.start().drain(PATIENCE)
    assert [dead.error for dead in pool.dead()] == ["TypeError: cannot pickle 1"]
    assert pool.stats().handled == 1


def test_a_factory_that_raises_is_a_failed_attempt() -> None:
    handle = Seen()
    errors = [OSError("no executor"), OSError("no executor")]

    def make() -> Executor:
        if errors:
            raise errors.pop()
        return Inline()

    pool = EventWorkerPool[str, int](handle, executor=make, workers=1, on_failure=Retry(base=0))
    pool.start().add("a", 1)
    pool.drain(PATIENCE)
    assert handle.deliveries == [(1, 3)]
    errors.append(OSError("no executor"))
    pool = EventWorkerPool[str, int](handle, executor=make, workers=1)
    pool.start().add("a", 1)
    with pytest.raises(HandlerError, match="raised OSError: no executor"):
        pool.drain(PATIENCE)
    assert pool.left == [("a", 1)]


def test_a_factory_has_to_make_an_executor() -> None:
    pool = EventWorkerPool[str, int](print, executor=lambda: None, workers=1)  # type: ignore[arg-type, return-value]
    pool.start().add("a", 1)
    with pytest.raises(
        HandlerError, match="TypeError: executor must make an Executor when it is called, and has made None"
    ):
        pool.drain(PATIENCE)


def test_what_is_lost_during_a_stop_is_returned_and_not_delivered_again() -> None:
    class Waits(Inline):
        def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
            gate(None)
            return super().submit(fn, *args, **kwargs)

    gate = Gate()
    handle = Seen()
    make = Factory(Waits("break"))
    pool = EventWorkerPool[str, int](handle, executor=make, workers=1, on_failure=Skip()).start()
    add(pool, "a", 1, 2)
    gate.wait_inside()
    stopped = begin(pool, "stop")
    gate.open.set()
    assert stopped() == [("a", 1), ("a", 2)]
    assert (handle.deliveries, len(make.made)) == ([], 1)
    assert adds_up(pool.stats())


def test_an_executor_that_breaks_is_told_of_once(caplog: pytest.LogCaptureFixture) -> None:
    """However many it held."""
    make = Factory(Shared(3))
    with EventWorkerPool[str, int](Seen(), executor=make, workers=3, name="orders") as pool:
        for key in "abc":
            pool.add(key, 1)
    [record] = caplog.records
    assert (record.levelno, record.getMessage()) == (
        logging.WARNING,
        "pool 'orders': its executor broke, and what it held is delivered again by a new one: a process was killed",
    )


def test_no_two_calls_are_equal() -> None:
    """Some executors (dask's) make equal calls only once, and give each of them the one result."""
    executor = Inline()
    with EventWorkerPool[str, int](Seen(), executor=executor, workers=1) as pool:
        for key in "abcabc":
            pool.add(key, 1)
    assert len(set(executor.calls)) == len(executor.calls) == 6


class Unstarted(ThreadPoolExecutor):
    """Cannot start its second thread, as where the process has as many as it may: it has taken the call by then."""

    def __init__(self) -> None:
        super().__init__(2)
        self.refused = threading.Event()

    def _adjust_thread_count(self) -> None:
        if self._threads:
            self.refused.set()
            raise RuntimeError("can't start new thread")
        super()._adjust_thread_count()


@pytest.mark.parametrize("factory", [True, False])
def test_a_call_that_an_executor_takes_and_refuses_is_not_run_when_its_turn_comes(factory: bool) -> None:
    """It was delivered again, or is left."""
    gate, handled = Gate(), Seen()

    def handle(event: int, delivery: Delivery) -> None:
        if event == 1:
            gate(event)
        handled(event, delivery)

    with Unstarted() as executor:
        pool = EventWorkerPool[str, int](handle, executor=Factory(executor) if factory else executor, workers=2).start()
        pool.add("a", 1)
        gate.wait_inside()
        pool.add("b", 2)
        eventually(lambda: pool.stats().handled == 1 if factory else "stopping" in repr(pool))
        gate.open.set()
        if not factory:
            with pytest.raises(HandlerError, match="can't start new thread"):
                pool.drain(PATIENCE)
            assert pool.left == [("b", 2)]
    if factory:
        pool.drain(PATIENCE)
    assert handled.deliveries == ([(2, 1), (1, 1)] if factory else [(1, 1)])


@pytest.mark.parametrize("raises", [None, ValueError("as it was told"), BrokenExecutor("of the handler")], ids=repr)
def test_a_call_that_an_executor_runs_and_refuses_has_been_run(
    raises: Exception | None, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL, "workpool")  # A record that is kept holds the error of a handler.

    class Late(ThreadPoolExecutor):
        def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
            wait_for([super().submit(fn, *args, **kwargs)], PATIENCE)
            raise RuntimeError("can't start new thread")

    class Event:
        pass

    calls: list[int] = []

    def handle(event: Event) -> None:
        calls.append(1)
        if raises is not None:
            raise type(raises)(*raises.args)

    make = Factory(Late(1))
    pool = EventWorkerPool[str, Event](handle, executor=make, workers=1, on_failure=Skip(), max_dead=0).start()
    event = Event()
    known = weakref.ref(event)
    gc.disable()
    try:
        pool.add("a", event)
        del event
        pool.drain(PATIENCE)
        assert known() is None
    finally:
        gc.enable()
    assert calls == [1]
    assert (pool.stats().handled, pool.stats().dead) == ((1, 0) if raises is None else (0, 1))
    assert len(make.made) == 1


def test_a_call_that_is_lost_while_it_runs_here_is_not_delivered_again_beside_itself(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Hasty(ThreadPoolExecutor):
        def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
            super().submit(fn, *args, **kwargs)
            lost: Future[Any] = Future()
            gate.wait_inside()
            lost.set_exception(BrokenExecutor("lost"))
            return lost

    class Ended(executors._Ended):
        def get(self, block: bool = True, timeout: float | None = None) -> BaseException | int | None:
            waiting.set()
            return super().get(block, timeout)

    monkeypatch.setattr(executors, "_Ended", Ended)
    gate, waiting = Gate(), threading.Event()
    running: list[int] = []
    most: list[int] = []

    def handle(event: int, delivery: Delivery) -> None:
        running.append(delivery.attempt)
        most.append(len(running))
        if delivery.attempt == 1:
            gate(event)
        running.remove(delivery.attempt)

    executor = Hasty(1)
    make = Factory(executor, ThreadPoolExecutor(1))
    pool = EventWorkerPool[str, int](handle, executor=make, workers=1).start()
    pool.add("a", 1)
    eventually(lambda: waiting.is_set() or len(most) > 1)
    gate.open.set()
    pool.drain(PATIENCE)
    assert most == [1, 1]


def test_an_executor_that_cannot_start_a_process_is_replaced_and_what_it_has_is_ended() -> None:
    """It has taken the call, for the processes that it has: those are killed."""

    class Process:
        killed = 0

        def kill(self) -> None:
            self.killed += 1

    class Full(Inline):
        _processes = {1: Process()}  # noqa: RUF012

        def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
            raise OSError(11, "Resource temporarily unavailable")

    handle = Seen()
    make = Factory(full := Full())
    pool = EventWorkerPool[str, int](handle, executor=make, workers=1).start()
    pool.add("a", 1)
    pool.drain(PATIENCE)
    assert handle.deliveries == [(1, 1)]
    assert (full._processes[1].killed, full.ends) == (1, [True])


def test_a_call_of_a_pool_that_is_gone_is_not_run() -> None:
    """Its event is among those that the pool has left."""
    executor = Inline("break")
    handle = Seen()
    pool = EventWorkerPool[str, int](handle, executor=executor, workers=1)
    pool.start().add("a", 1)
    with pytest.raises(HandlerError):
        pool.drain(PATIENCE)
    [(call, *arguments)] = executor.calls
    assert call(*arguments) is None
    del pool
    gc.collect()
    assert call(*arguments) is None
    assert handle.deliveries == []


@pytest.mark.parametrize("breaks", [True, False])
def test_an_executor_that_cannot_be_shut_down_is_told_of_and_harms_nothing(
    breaks: bool, caplog: pytest.LogCaptureFixture
) -> None:
    class Stuck(Inline):
        def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
            super().shutdown(wait)
            raise OSError("not now")

    handle = Seen()
    make = Factory(Stuck(*["break"] * breaks))
    with EventWorkerPool[str, int](handle, executor=make, workers=1) as pool:
        add(pool, "a", 1, 2)
    assert [event for event, _ in handle.deliveries] == [1, 2]
    [record] = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert record.getMessage() == "pool 'default': its executor cannot be shut down"


def test_a_pool_is_not_taken_for_one_of_another_process_that_has_the_same_number() -> None:
    """Two machines have that, or two interpreters of one process: here, two copies of the module."""
    spec = importlib.util.find_spec("workpool.executors")
    assert spec is not None
    assert spec.loader is not None
    copies: list[Any] = [importlib.util.module_from_spec(spec) for _ in range(2)]
    pools, executors = [], [Inline("break"), Inline("break")]
    for copy, executor in zip(copies, executors, strict=True):
        spec.loader.exec_module(copy)
        pools.append(copy.EventWorkerPool(print, executor=executor, workers=1))
    assert pools[0]._number == pools[1]._number
    assert copies[0]._here() != copies[1]._here()
    assert copies[0]._here()[1] == copies[1]._here()[1]
