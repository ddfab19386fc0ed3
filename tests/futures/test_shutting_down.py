"""The shutdown of a `KeyedExecutor`, and what ends it otherwise: every future ends, whatever happens."""

from __future__ import annotations

import logging
import sys
import threading
import weakref
from collections.abc import Callable
from concurrent.futures import BrokenExecutor, Future
from concurrent.futures import wait as wait_for
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

import workpool
from support import PATIENCE, Gate, adds_up, eventually, in_thread, threads_of_pools, wait
from workpool import KeyedExecutor

REFUSAL = "^cannot schedule new futures after shutdown$"
BROKEN = "^the executor's pool failed, and is not usable anymore$"


def blocked(executor: KeyedExecutor, key: object = "busy") -> tuple[Gate, Future[Any]]:
    gate = Gate()
    future: Future[Any] = executor.submit(key, gate, None)
    gate.wait_inside()
    return gate, future


def quit_thread(future: object) -> None:
    """A done callback that is not logged and forgotten: only an `Exception` is."""
    raise SystemExit


def lines_of(call: Callable[[], object]) -> int:
    """How many lines of the package a call runs."""
    lines = 0

    def trace(frame: FrameType, event: str, argument: object) -> Any:
        nonlocal lines
        lines += event == "line"
        return trace if frame.f_code.co_filename.startswith(str(Path(workpool.__file__).parent)) else None

    sys.settrace(trace)
    try:
        call()
    finally:
        sys.settrace(None)
    return lines


def test_none_starts_after_one_that_cancels_and_all_are_told() -> None:
    executor = KeyedExecutor(2)
    ran: list[int] = []
    gate, running = blocked(executor)
    also, running_too = blocked(executor, "busy too")
    waiting = [executor.submit(key, ran.append, 1) for key in ["busy", "busy too", "free"] * 5]
    told = in_thread(partial(wait_for, waiting, PATIENCE))
    executor.shutdown(wait=False, cancel_futures=True)
    assert told().not_done == set()
    assert all(future.cancelled() for future in waiting)
    assert running.running()
    gate.open.set()
    also.open.set()
    executor.shutdown()
    assert (running.result(0), running_too.result(0), ran) == (None, None, [])


def test_one_that_waits_returns_when_the_last_call_has_ended_and_its_threads_are_gone() -> None:
    before = threads_of_pools()
    executor = KeyedExecutor(2)
    gate, running = blocked(executor)
    last = executor.submit("busy", pow, 2, 3)
    during = threads_of_pools() - before
    shut = in_thread(executor.shutdown)
    eventually(lambda: "draining" in repr(executor._pool))
    assert not last.done()
    gate.open.set()
    shut()
    assert (running.result(0), last.result(0)) == (None, 8)
    assert len(during) == 3
    assert not any(thread.is_alive() for thread in during)


def test_one_from_a_call_never_waits() -> None:
    """It would wait for itself. The standard library raises there."""
    executor = KeyedExecutor(1)
    future = executor.submit("a", executor.shutdown)
    last = executor.submit("a", pow, 2, 3)
    assert (future.result(PATIENCE), last.result(PATIENCE)) == (None, 8)
    executor.shutdown()


def test_one_from_a_call_cancels_what_waits() -> None:
    executor = KeyedExecutor(1)
    gate = Gate()

    def call() -> None:
        gate(None)
        executor.shutdown(cancel_futures=True)

    future, waiting = executor.submit("a", call), executor.submit("a", int)
    gate.open.set()
    assert future.result(PATIENCE) is None
    assert waiting.cancelled()
    executor.shutdown()


@pytest.mark.parametrize("first", [{}, {"cancel_futures": True}])
def test_one_that_cancels_may_follow_any_and_come_from_many_threads(first: dict[str, bool]) -> None:
    executor = KeyedExecutor(1)
    gate, running = blocked(executor)
    waiting = [executor.submit(key, int) for key in range(5)]
    executor.shutdown(wait=False, **first)
    shutting = [in_thread(partial(executor.shutdown, cancel_futures=True)) for _ in range(3)]
    eventually(lambda: all(future.cancelled() for future in waiting))
    gate.open.set()
    for shut in shutting:
        shut()
    executor.shutdown(cancel_futures=True)
    assert running.result(0) is None
    assert adds_up(executor._pool.stats())


def test_what_the_ending_took_over_first_is_cancelled_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """The last thread leaves between the step that closes the pool and the look at what it has left."""
    executor = KeyedExecutor(1)
    gate, _ = blocked(executor)
    waiting = executor.submit("a", int)
    look = executor._pool._look

    def look_late() -> Any:
        executor._pool._mutex.release()
        gate.open.set()
        executor._pool._wait(None)
        executor._pool._mutex.acquire()
        return look()

    monkeypatch.setattr(executor._pool, "_look", look_late)
    executor.shutdown(cancel_futures=True)
    assert waiting.cancelled()


def test_one_that_was_interrupted_while_it_cancelled_is_made_good_by_the_next() -> None:
    executor = KeyedExecutor(1)
    gate, _ = blocked(executor)
    waiting = [executor.submit("a", int) for _ in range(3)]
    waiting[1].add_done_callback(quit_thread)
    with pytest.raises(SystemExit):
        executor.shutdown(cancel_futures=True)
    assert [future.cancelled() for future in waiting] == [True, True, False]
    gate.open.set()
    executor.shutdown()
    assert wait_for(waiting, 0).not_done == set()


@pytest.mark.parametrize("whose", ["executor", "view", "map"])
@pytest.mark.parametrize("busy", [False, True])
def test_cancelling_many_costs_as_much_for_each_as_cancelling_few(whose: str, busy: bool) -> None:
    """Counted, not timed."""
    lines = []
    for number in (100, 200):
        executor = KeyedExecutor(1)
        gate, _ = blocked(executor, "key" if busy else "another")
        view = executor.for_key("key")
        if whose == "map":
            results = executor.map(abs, range(number), key=lambda item: "key", timeout=0)
            lines.append(lines_of(partial(pytest.raises, TimeoutError, next, results)))
        else:
            for _ in range(number):
                view.submit(int)
            shutdown = {"executor": executor.shutdown, "view": view.shutdown}[whose]
            lines.append(lines_of(partial(shutdown, False, cancel_futures=True)))
        gate.open.set()
        executor.shutdown()
    assert lines[0] > 100
    assert lines[1] < 2.5 * lines[0]


def test_a_call_that_was_cancelled_holds_nothing_after_the_end() -> None:
    executor = KeyedExecutor(1)
    gate, _ = blocked(executor)
    payload = Gate()
    seen = weakref.ref(payload)
    future = executor.submit("a", payload, None)
    del payload
    executor.shutdown(wait=False, cancel_futures=True)
    assert seen() is None
    gate.open.set()
    executor.shutdown()
    assert future.cancelled()


def test_a_done_callback_that_ends_its_thread_ends_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """The standard library loses a thread by it, and hangs where that was the last."""
    with KeyedExecutor(1) as executor:
        gate, first = blocked(executor)
        failed = executor.submit("a", lambda: 1 / 0)
        for future in (first, failed):
            future.add_done_callback(quit_thread)
        gate.open.set()
        assert executor.submit("a", pow, 2, 3).result(PATIENCE) == 8
    assert isinstance(failed.exception(0), ZeroDivisionError)
    assert [record.levelno for record in caplog.records] == [logging.CRITICAL] * 2


def test_a_future_that_somebody_else_has_set_ends_nothing(caplog: pytest.LogCaptureFixture) -> None:
    with KeyedExecutor(1) as executor:
        gate, running = blocked(executor)
        waiting: Future[Any] = executor.submit("a", int)
        for future in (running, waiting):
            future.set_result(5)
        gate.open.set()
        assert executor.submit("a", pow, 2, 3).result(PATIENCE) == 8
    assert (running.result(0), waiting.result(0)) == (5, 5)
    assert {record.levelno for record in caplog.records} == {logging.CRITICAL}


class TestBroken:
    def test_where_no_thread_can_be_started_submit_says_so_and_no_future_hangs(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Another thread has submitted while the threads were started."""
        executor = KeyedExecutor(3)
        started: list[threading.Thread] = []
        others: list[Future[int]] = []
        start, live = threading.Thread.start, executor._pool._live
        go = threading.Event()

        def live_late(worker: int) -> None:
            assert worker < 0 or go.wait(PATIENCE)
            live(worker)

        def start_some(thread: threading.Thread) -> None:
            if thread.name.startswith("workpool"):
                started.append(thread)
                if len(started) == 3:
                    others.append(in_thread(partial(executor.submit, "a", int))())
                    go.set()
                    raise RuntimeError("can't start new thread")
            start(thread)

        monkeypatch.setattr(executor._pool, "_live", live_late)
        monkeypatch.setattr(threading.Thread, "start", start_some)
        with pytest.raises(RuntimeError, match=r"^can't start new thread$"):
            executor.submit("a", int)
        monkeypatch.undo()
        assert wait_for(others, PATIENCE).not_done == set()
        assert others[0].exception() is None or isinstance(others[0].exception(), BrokenExecutor)
        with pytest.raises(RuntimeError, match=REFUSAL):
            executor.submit("a", int)
        executor.shutdown()

    def test_where_a_worker_fails_every_future_ends_and_submit_says_so(self, caplog: pytest.LogCaptureFixture) -> None:
        """A key that can be hashed no more is such a failure."""

        class Key:
            broken = False

            def __hash__(self) -> int:
                if Key.broken:
                    raise ValueError("broken")
                return 1

        executor = KeyedExecutor(1)
        gate, running = blocked(executor, Key())
        waiting = [executor.submit(key, int) for key in "aab"]
        assert waiting[2].cancel()
        Key.broken = True
        gate.open.set()
        assert running.result(PATIENCE) is None
        for future in waiting[:2]:
            with pytest.raises(BrokenExecutor, match=BROKEN):
                future.result(PATIENCE)
        with pytest.raises(BrokenExecutor, match=BROKEN) as caught:
            executor.submit("a", int)
        assert isinstance(caught.value.__cause__, ValueError)
        executor.shutdown(cancel_futures=True)
        assert waiting[2].cancelled()
        assert "the pool stops" in caplog.text


def test_a_late_call_is_refused_while_what_was_accepted_goes_on() -> None:
    executor = KeyedExecutor(1)
    gate, running = blocked(executor)
    executor.shutdown(wait=False)
    refused = threading.Event()

    def late() -> None:
        with pytest.raises(RuntimeError, match=REFUSAL):
            executor.submit("b", int)
        refused.set()

    in_thread(late)()
    wait(refused)
    gate.open.set()
    executor.shutdown()
    assert running.result(0) is None
