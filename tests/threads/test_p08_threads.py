"""P8 on threads: none is left behind, and none is missing."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable

import pytest

from support import PATIENCE, Gate, begin, eventually, in_thread, threads_of_pools, wait
from workpool import Delivery, EventWorkerPool, Retry, StopTimeout
from workpool.dispatch import Dispatch
from workpool.lanes import NOTHING
from workpool.mutex import give_way
from workpool.testing import FakeClock


@pytest.mark.parametrize("ending", ["drain", "stop"])
def test_an_ending_returns_when_the_last_thread_has_ended(ending: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not when it has counted itself out, which it does shortly before: here it ends only once it is waited for."""
    awaited = threading.Event()
    leave, join = EventWorkerPool._leave, threading.Thread.join

    def leave_slowly(pool: EventWorkerPool[str, int], worker: int) -> None:
        leave(pool, worker)
        wait(awaited)

    def tell_and_join(thread: threading.Thread, timeout: float | None = None) -> None:
        awaited.set()
        join(thread, timeout)

    monkeypatch.setattr(EventWorkerPool, "_leave", leave_slowly)
    monkeypatch.setattr(threading.Thread, "join", tell_and_join)
    pool = EventWorkerPool[str, int](print, workers=1).start()
    threads = threads_of_pools()
    getattr(pool, ending)()
    alive = [thread for thread in threads if thread.is_alive()]
    awaited.set()
    assert not alive


def test_asking_for_the_end_again_and_again_piles_up_nothing() -> None:
    """A command asks ten times a second, while a handler may take hours."""
    gate = Gate()
    pool = EventWorkerPool[str, int](gate, workers=1).start()
    pool.add("a", 1)
    gate.wait_inside()
    for _ in range(100):
        with pytest.raises(TimeoutError):
            pool.drain(0)
        with pytest.raises(StopTimeout):
            pool.stop(0)
    assert pool._wakeups.qsize() <= 1
    gate.open.set()
    for ended in (pool, EventWorkerPool[str, int](print)):
        for _ in range(10):
            ended.stop()
        assert ended._wakeups.qsize() + ended._ended.qsize() <= 4


def test_a_drain_that_waits_for_a_retry_keeps_no_worker_busy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where a note is kept of some key: the worker that is woken for nothing wakes nobody in turn."""
    takes = 0
    take = Dispatch.take

    def counting(core: Dispatch[str, int], worker: int) -> tuple[str, int] | None:
        nonlocal takes
        takes += 1
        return take(core, worker)

    def handle(event: int, delivery: Delivery) -> None:
        if delivery.attempt == 1:
            raise ValueError

    monkeypatch.setattr(Dispatch, "take", counting)
    clock = FakeClock()
    pool = EventWorkerPool[str, int](handle, workers=2, on_failure=Retry(base=60, jitter="none"), clock=clock).start()
    pool.park("idle")
    pool.add("a", 1)
    eventually(lambda: pool.stats().retrying == 1)
    drained = begin(pool, "drain", PATIENCE)
    for _ in range(20_000):
        pool.stats()
    assert takes < 20
    clock.advance(60)
    drained()


def test_a_worker_that_wakes_for_nothing_wakes_nobody() -> None:
    """The same in one step, which no scheduler can hide."""
    pool = EventWorkerPool[str, int](print, workers=1)
    pool.park("idle")
    assert pool._step(pool._heed, 0, None, NOTHING) is None
    assert pool._wakeups.empty()


@pytest.mark.parametrize("number", [0, 3])
def test_where_a_thread_cannot_be_started_those_that_were_are_ended(
    number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[threading.Thread] = []
    start = threading.Thread.start

    def start_some(thread: threading.Thread) -> None:
        if thread.name.startswith("workpool"):
            if len(started) == number:
                raise RuntimeError("can't start new thread")
            started.append(thread)
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", start_some)
    pool: EventWorkerPool[str, int] = EventWorkerPool(print, workers=5)
    pool.add("a", 1)
    with pytest.raises(RuntimeError, match="can't start new thread"):
        in_thread(pool.start)()
    assert len(started) == number
    assert not any(thread.is_alive() for thread in started)
    stats = pool.stats()
    assert stats.handled + len(pool.left) == 1


def test_an_interrupted_start_leaves_no_thread_and_returns_every_event(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C while `start` waits for a thread to come up: it does come up, and finds that it is not waited for."""
    late = threading.Event()
    threads: list[threading.Thread] = []
    start, live = threading.Thread.start, EventWorkerPool._live

    def start_and_interrupt(thread: threading.Thread) -> None:
        start(thread)
        if thread.name.startswith("workpool"):
            threads.append(thread)
            if len(threads) == 2:
                raise KeyboardInterrupt

    def live_late(pool: EventWorkerPool[str, int], worker: int) -> None:
        assert worker == 0 or late.wait(PATIENCE)
        live(pool, worker)

    monkeypatch.setattr(threading.Thread, "start", start_and_interrupt)
    monkeypatch.setattr(EventWorkerPool, "_live", live_late)
    pool = EventWorkerPool[str, int](print, workers=4)
    pool.add("a", 1)
    with pytest.raises(KeyboardInterrupt):
        pool.start()
    stats = pool.stats()
    assert (stats.added, stats.in_flight, stats.waiting) == (1, 0, 0)
    late.set()
    for thread in threads:
        thread.join(PATIENCE)
        assert not thread.is_alive()
    assert set(pool._threads) <= {0}, "a thread came in that is not waited for"
    assert pool.stop() == pool.left


def test_threads_are_named_after_their_pool() -> None:
    with EventWorkerPool(print, workers=2, name="orders"):
        names = sorted(thread.name for thread in threads_of_pools())
    assert names == ["workpool-orders-0", "workpool-orders-1", "workpool-orders-timekeeper"]


def test_a_thread_that_has_the_number_of_a_worker_that_left_is_no_handler(monkeypatch: pytest.MonkeyPatch) -> None:
    """The system gives the number of a thread that has ended to the next one."""
    numbers: list[int] = []
    pool = EventWorkerPool[str, int](lambda event: numbers.append(threading.get_ident()), workers=1).start()
    pool.add("a", 1)
    pool.drain(PATIENCE)
    monkeypatch.setattr("workpool.threads.get_ident", numbers.pop)
    assert pool.stop() is pool.left


def test_a_stop_that_gives_up_as_the_pool_ends_returns_what_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its time is over, and before it looks at what is left, the last worker leaves."""
    gate = Gate()
    pool = EventWorkerPool[str, int](gate, workers=1).start()
    pool.add("a", 1)
    pool.add("a", 2)
    gate.wait_inside()
    end = EventWorkerPool._wait

    def give_up_too_late(pool: EventWorkerPool[str, int], timeout: float | None) -> bool:
        assert not end(pool, timeout)
        gate.open.set()
        assert end(pool, None)
        return False

    monkeypatch.setattr(EventWorkerPool, "_wait", give_up_too_late)
    left = pool.stop(0)
    assert left is pool.left
    assert left == [("a", 2)]


def test_ctrl_c_while_the_end_of_a_block_drains_stops_the_pool() -> None:
    gate = Gate()
    pool = EventWorkerPool[str, int](gate, workers=1)

    def interrupt() -> None:
        eventually(lambda: "draining" in repr(pool))
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt), pool:  # noqa: PT012
            pool.add("a", 1)
            pool.add("a", 2)
            gate.wait_inside()
            interrupted = in_thread(interrupt)
    finally:
        signal.signal(signal.SIGINT, before)
    interrupted()
    assert "stopping" in repr(pool)
    gate.open.set()
    assert in_thread(pool.stop)() == [("a", 2)]


class Taken:
    """A mutex that is free for whoever waits in it, and for nobody who looks."""

    def __init__(self) -> None:
        self.looks = self.waits = 0

    def acquire(self, blocking: bool = True) -> bool:
        self.waits += blocking
        self.looks += not blocking
        return blocking

    def release(self) -> None: ...

    def _is_owned(self) -> bool:
        return False


@pytest.mark.parametrize(("gil", "looks"), [(True, 1000), (False, 0)])
def test_a_mutex_is_taken_by_giving_way_and_in_the_end_by_waiting(
    gil: bool, looks: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where giving way does not help (its holder is not scheduled, or there is no GIL), a thread queues up."""
    pauses: list[float] = []
    monkeypatch.setattr("workpool.mutex._GIL", gil)
    monkeypatch.setattr("workpool.mutex.time.sleep", pauses.append)
    taken = Taken()
    give_way(taken)
    assert (taken.looks, taken.waits, pauses) == (looks, 1, [0] * looks)


def test_an_add_that_finds_the_mutex_taken_goes_on_when_it_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    pool: EventWorkerPool[str, int] = EventWorkerPool(print)
    gave_way = threading.Event()
    monkeypatch.setattr("workpool.mutex.time.sleep", lambda seconds: gave_way.set())
    pool._mutex.acquire()
    try:
        adding = in_thread(lambda: pool.add("a", 1))
        wait(gave_way)
        assert pool._core.added == 0
    finally:
        pool._mutex.release()
    adding()
    assert pool.stop(PATIENCE) == [("a", 1)]


def test_the_time_is_not_looked_at_for_each_worker_that_leaves() -> None:
    """A look is O(workers), and so an ending was O(workers squared): minutes for 16,000."""
    looks = 0

    class CountingClock(FakeClock):
        def pause(self, until: float, ring: Callable[[], None]) -> float | None:
            nonlocal looks
            looks += 1
            return super().pause(until, ring)

    pool: EventWorkerPool[str, int] = EventWorkerPool(print, workers=50, clock=CountingClock())
    pool.start()
    pool.stop(PATIENCE)
    assert looks <= 2  # One at the start, and one for the last.
