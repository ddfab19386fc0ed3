"""P8 on threads: none is left behind, and none is missing."""

from __future__ import annotations

import threading

import pytest

from support import PATIENCE, Gate, eventually, in_thread
from workpool import EventWorkerPool, StopTimeout


@pytest.mark.parametrize("ending", ["drain", "stop"])
def test_an_ending_returns_when_the_last_thread_has_ended(ending: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not when it has counted itself out, which it does shortly before."""
    almost, go_on, returned = threading.Event(), threading.Event(), threading.Event()
    leave = EventWorkerPool._leave

    def leave_slowly(pool: EventWorkerPool[str, int], worker: int) -> None:
        leave(pool, worker)
        almost.set()
        assert go_on.wait(PATIENCE)

    monkeypatch.setattr(EventWorkerPool, "_leave", leave_slowly)
    pool = EventWorkerPool[str, int](print, workers=1).start()

    def end() -> None:
        getattr(pool, ending)()
        returned.set()

    ended = in_thread(end)
    assert almost.wait(PATIENCE)
    assert not returned.wait(0.1)
    go_on.set()
    ended()


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
    pool.stop(PATIENCE)


def test_where_a_thread_cannot_be_started_those_that_were_are_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[threading.Thread] = []
    start = threading.Thread.start

    def start_three(thread: threading.Thread) -> None:
        if thread.name.startswith("workpool") and len(started) == 3:
            raise RuntimeError("can't start new thread")
        started.append(thread)
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", start_three)
    pool: EventWorkerPool[str, int] = EventWorkerPool(print, workers=5)
    pool.add("a", 1)
    with pytest.raises(RuntimeError, match="can't start new thread"):
        pool.start()
    assert not any(thread.is_alive() for thread in started)
    stats = pool.stats()
    assert stats.handled + len(pool.left) == 1


def test_an_interrupted_start_leaves_no_thread_and_returns_every_event(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C while `start` waits for a thread to come up: it does come up, and finds that it is not waited for."""
    late = threading.Event()
    threads: list[threading.Thread] = []
    start, work = threading.Thread.start, EventWorkerPool._work

    def start_and_interrupt(thread: threading.Thread) -> None:
        start(thread)
        if thread.name.startswith("workpool"):
            threads.append(thread)
            if len(threads) == 2:
                raise KeyboardInterrupt

    def work_late(pool: EventWorkerPool[str, int], worker: int) -> None:
        assert worker == 0 or late.wait(PATIENCE)
        work(pool, worker)

    monkeypatch.setattr(threading.Thread, "start", start_and_interrupt)
    monkeypatch.setattr(EventWorkerPool, "_work", work_late)
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
    assert pool.stop() == pool.left


def test_threads_are_named_after_their_pool() -> None:
    with EventWorkerPool(print, workers=2, name="orders"):
        names = sorted(thread.name for thread in threading.enumerate() if thread.name.startswith("workpool"))
    assert names == ["workpool-orders-0", "workpool-orders-1"]


def test_the_mutex_is_taken_by_giving_way_and_in_the_end_by_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where giving way does not help (its holder is not scheduled, or there is no GIL), a thread queues up."""
    from workpool import mutex

    pool: EventWorkerPool[str, int] = EventWorkerPool(print)
    monkeypatch.setattr("workpool.mutex.time.sleep", lambda seconds: None)
    for gil in (True, False):
        monkeypatch.setattr(mutex, "_GIL", gil)
        pool._mutex.acquire()
        adding = in_thread(lambda: pool.add("a", 1))
        reached = threading.Event()
        reached.wait(0.01)
        pool._mutex.release()
        adding()
    eventually(lambda: pool.stats().added == 2)
    assert len(pool.stop(PATIENCE)) == 2
