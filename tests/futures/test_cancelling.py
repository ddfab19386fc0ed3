"""A future that is cancelled before its call has started: it goes at once, and nothing else is touched."""

from __future__ import annotations

import random
import sys
import threading
import weakref
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, CancelledError, Future, as_completed
from concurrent.futures import wait as wait_for
from functools import partial
from typing import Any

import pytest

from support import PATIENCE, Ear, Gate, adds_up, eventually, in_thread, wait
from workpool import KeyedExecutor, futures


class Payload:
    """Something that can be watched."""

    def method(self, *args: object, **kwargs: object) -> None: ...


@pytest.fixture
def executor() -> Iterator[KeyedExecutor]:
    with KeyedExecutor(1) as made:
        yield made


@pytest.fixture
def gate(executor: KeyedExecutor) -> Iterator[Gate]:
    """The only worker of the executor is at it, with the key "busy"."""
    made = Gate()
    executor.submit("busy", made, None)
    made.wait_inside()
    yield made
    made.open.set()


@pytest.mark.parametrize("key", ["busy", "free"])
def test_it_goes_at_once(executor: KeyedExecutor, gate: Gate, key: str) -> None:
    for number in range(3):
        future = executor.submit(key, int)
        assert future.cancel()
        stats = executor._pool.stats()
        assert (stats.waiting, stats.cancelled, stats.in_flight) == (0, number + 1, 1)
        assert adds_up(stats)
    assert (stats.keys, list(executor._pool._core.lanes)) == (1, ["busy"])


def test_a_mark_does_not_wait_for_it(executor: KeyedExecutor, gate: Gate) -> None:
    """Nor for what is cancelled behind it."""
    pool, ear, later = executor._pool, Ear(), Ear()
    futures = [executor.submit("free", int) for _ in range(2)]
    assert pool._mark("free", ear)
    futures.append(executor.submit("free", int))
    assert pool._mark("free", later)
    for number, heard in ((2, 0), (0, 0), (1, 1)):
        assert futures[number].cancel()
        assert len(ear.heard) == heard
    assert len(later.heard) == 1
    assert pool._core.notes == {}


@pytest.mark.parametrize("ending", [None, "drain", "stop"])
def test_its_function_and_arguments_are_free_to_go(executor: KeyedExecutor, gate: Gate, ending: str | None) -> None:
    payloads = [Payload(), Payload(), Payload()]
    seen = [weakref.ref(payload) for payload in payloads]
    future = executor.submit("free", payloads[0].method, payloads[1], word=payloads[2])
    del payloads
    assert all(each() for each in seen)
    if ending:
        executor.shutdown(wait=False, cancel_futures=ending == "stop")
    assert future.cancel()
    assert not any(each() for each in seen)


@pytest.mark.parametrize("seed", range(5))
def test_the_rest_keep_their_order(executor: KeyedExecutor, gate: Gate, seed: int) -> None:
    chance = random.Random(seed)
    ran: dict[str, list[int]] = {"busy": [], "a": [], "b": []}
    left: dict[str, list[int]] = {"busy": [], "a": [], "b": []}
    calls: list[tuple[str, int, Future[Any]]] = []
    for number in range(60):
        key = chance.choice(list(ran))
        calls.append((key, number, executor.submit(key, ran[key].append, number)))
    chance.shuffle(calls)
    for key, number, future in sorted(calls[:30], key=lambda call: call[1]):
        left[key].append(number)
        assert not future.done()
    for _, _, future in calls[30:]:
        assert future.cancel()
    gate.open.set()
    wait_for([future for _, _, future in calls], PATIENCE)
    assert ran == left, seed


def test_whoever_waits_for_it_wakes_although_no_worker_is_free(executor: KeyedExecutor, gate: Gate) -> None:
    """The standard library tells them only when its turn comes."""
    future, other = executor.submit("free", int), executor.submit("free", int)
    waiters = [
        in_thread(lambda: future.exception(PATIENCE)),
        in_thread(lambda: next(as_completed([future, other], PATIENCE))),
        in_thread(lambda: wait_for([future, other], PATIENCE, FIRST_COMPLETED)),
        in_thread(lambda: wait_for([future], PATIENCE)),
    ]
    eventually(lambda: len(future._waiters) == 3)
    assert future.cancel()
    with pytest.raises(CancelledError):
        waiters[0]()
    assert waiters[1]() is future
    assert waiters[2]() == ({future}, {other})
    assert waiters[3]() == ({future}, set())
    assert not other.done()


def test_cancelling_twice_counts_once_and_calls_back_once(executor: KeyedExecutor, gate: Gate) -> None:
    called: list[object] = []
    future = executor.submit("free", int)
    future.add_done_callback(called.append)
    threads = [in_thread(future.cancel) for _ in range(4)]
    assert all(cancelled() for cancelled in threads)
    assert future.cancel()
    assert called == [future]
    assert executor._pool.stats().cancelled == 1


def test_one_that_runs_or_has_ended_is_not_cancelled_and_not_counted(executor: KeyedExecutor) -> None:
    gate = Gate()
    future = executor.submit("a", gate, None)
    gate.wait_inside()
    assert not future.cancel()
    gate.open.set()
    assert future.result(PATIENCE) is None
    assert not future.cancel()
    assert executor._pool.stats().cancelled == 0


def test_one_that_a_worker_has_taken_and_not_started_is_not_run(executor: KeyedExecutor) -> None:
    """It is not in its lane any more: the worker finds nothing to do, and goes on."""
    taken, go = threading.Event(), threading.Event()
    run = executor._pool._handler

    def run_late(future: Any) -> None:
        taken.set()
        wait(go)
        run(future)

    executor._pool._handler = run_late
    ran: list[int] = []
    future, after = executor.submit("a", ran.append, 1), executor.submit("a", ran.append, 2)
    wait(taken)
    waiting = in_thread(lambda: wait_for([future], PATIENCE))
    eventually(lambda: len(future._waiters) == 1)
    assert future.cancel()
    assert waiting().done == {future}
    go.set()
    after.result(PATIENCE)
    executor.shutdown()
    stats = executor._pool.stats()
    assert (ran, stats.cancelled, stats.handled) == ([2], 0, 2)


def test_a_cancel_that_comes_as_it_starts_is_told_by_the_worker(executor: KeyedExecutor) -> None:
    """The worker has its work, and finds it cancelled."""
    future: Any = executor.submit("busy", int)
    future.result(PATIENCE)
    cancelled = futures._Future[int](futures._Work(executor._pool, "a", int, (), {}))
    work = cancelled.take()
    assert cancelled.cancel()
    assert work is not None
    assert wait_for([cancelled], 0).not_done, "it is not told twice"
    cancelled.work = work
    cancelled.run()
    assert wait_for([cancelled], 0).done


@pytest.mark.parametrize("seed", range(4))
def test_none_is_both_run_and_cancelled_and_none_is_neither(seed: int) -> None:
    """Threads that cancel race with workers that start; each future ends once, and those that ran are in order."""
    chance = random.Random(seed)
    ran: dict[int, list[int]] = {key: [] for key in range(4)}
    called: list[Future[Any]] = []
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        with KeyedExecutor(3) as executor:
            calls: list[tuple[int, int, Future[Any]]] = []

            def cancel_some(chance: random.Random) -> list[Future[Any]]:
                cancelled = []
                for _ in range(300):
                    future = chance.choice(calls[-20:])[2]
                    if future.cancel():
                        cancelled.append(future)
                return cancelled

            cancelling = []
            for number in range(600):
                key = chance.randrange(4)
                future = executor.submit(key, ran[key].append, number)
                future.add_done_callback(called.append)
                calls.append((key, number, future))
                if number == 20:
                    cancelling = [in_thread(partial(cancel_some, random.Random(seed * 10 + n))) for n in range(3)]
            cancelled = {future for cancels in cancelling for future in cancels()}
    finally:
        sys.setswitchinterval(interval)
    for key, number, future in calls:
        assert future.done(), seed
        assert (number in ran[key]) != future.cancelled(), seed
        assert future.cancelled() == (future in cancelled), seed
    assert all(numbers == sorted(numbers) for numbers in ran.values()), seed
    assert len(called) == len(set(called)) == 600, seed
    stats = executor._pool.stats()
    assert adds_up(stats), seed
    assert stats.added == stats.handled + stats.cancelled == 600, seed
    assert stats.cancelled <= len(cancelled), seed


@pytest.mark.parametrize("key", ["own", "other"])
def test_a_call_cancels_another(executor: KeyedExecutor, key: str) -> None:
    gate: Any = Gate()
    first = executor.submit("own", lambda: gate(None) or waiting.cancel())
    waiting = executor.submit(key, int)
    after = executor.submit(key, pow, 2, 3)
    gate.open.set()
    assert (first.result(PATIENCE), after.result(PATIENCE)) == (True, 8)
    assert waiting.cancelled()
    assert executor._pool.stats().cancelled == 1


def test_a_done_callback_of_one_that_is_cancelled_may_use_the_executor(executor: KeyedExecutor, gate: Gate) -> None:
    ran: list[int] = []
    future, other = executor.submit("a", ran.append, 1), executor.submit("a", ran.append, 2)
    future.add_done_callback(lambda _: other.cancel() and executor.submit("a", ran.append, 3))
    future.cancel()
    gate.open.set()
    executor.shutdown()
    assert (ran, executor._pool.stats().cancelled) == ([3], 2)


def test_where_a_done_callback_ends_the_thread_the_future_is_told_by_a_worker(
    executor: KeyedExecutor, gate: Gate
) -> None:
    """Callbacks that raise an `Exception` are logged by the standard library; this is how it hands on the others."""
    future = executor.submit("a", int)

    def interrupt(future: object) -> None:
        raise KeyboardInterrupt

    future.add_done_callback(interrupt)
    with pytest.raises(KeyboardInterrupt):
        future.cancel()
    assert future.cancelled()
    gate.open.set()
    assert wait_for([future], PATIENCE).done


@pytest.mark.parametrize("cancel_futures", [False, True])
def test_on_one_that_is_shut_down_too(executor: KeyedExecutor, gate: Gate, cancel_futures: bool) -> None:
    future = executor.submit("a", int)
    executor.shutdown(wait=False, cancel_futures=cancel_futures)
    assert future.cancel()
    assert wait_for([future], 0).done
    gate.open.set()
    executor.shutdown()
    assert future.cancel()
    assert adds_up(executor._pool.stats())


def test_the_last_that_waits_ends_a_shutdown(executor: KeyedExecutor) -> None:
    gate = Gate()
    executor.submit("a", gate, None)
    gate.wait_inside()
    future = executor.submit("a", int)
    shut = in_thread(executor.shutdown)
    eventually(lambda: "draining" in repr(executor._pool))
    assert future.cancel()
    gate.open.set()
    shut()


def test_from_code_that_runs_inside_the_pool_it_is_never_run_all_the_same(executor: KeyedExecutor, gate: Gate) -> None:
    """A `__hash__` of the user's is such code: the call stays in its lane, and is passed over when its turn comes."""
    ran: list[int] = []
    future = executor.submit("a", ran.append, 1)

    class Key:
        def __hash__(self) -> int:
            future.cancel()
            return 1

    executor.submit(Key(), ran.append, 2)
    assert future.cancelled()
    assert wait_for([future], 0).done
    assert executor._pool.stats().cancelled == 0
    gate.open.set()
    executor.shutdown()
    assert ran == [2]
