"""P12: the process around a pool: its end, its forks, its copies."""

from __future__ import annotations

import copy
import gc
import logging
import os
import pickle
import weakref
from typing import Any

import pytest

from support import PATIENCE, eventually, run_python
from workpool import EventWorkerPool, HandlerError


def test_a_pool_that_is_forgotten_is_drained_at_the_end_of_the_process() -> None:
    result = run_python(
        """
        import os
        from workpool import EventWorkerPool

        def handle(event):
            os.write(1, b"%d " % event)
            if event < 10:
                pool.add("more", event + 10)

        pool = EventWorkerPool(handle, workers=2).start()
        for event in range(20):
            pool.add(event % 3, event)
        """
    )
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""
    assert sorted(map(int, result.stdout.split())) == sorted([*range(20), *range(10, 20)])


def test_so_it_is_with_an_event_that_waits_for_its_retry() -> None:
    result = run_python(
        """
        import os
        from workpool import EventWorkerPool, Retry

        def handle(event, delivery):
            os.write(1, b"%d.%d " % (event, delivery.attempt))
            if delivery.attempt < 3:
                raise ValueError

        pool = EventWorkerPool(handle, workers=2, on_failure=Retry(base=0.01, jitter="none")).start()
        pool.add("a", 1)
        pool.add("a", 2)
        """
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.split() == ["1.1", "1.2", "1.3", "2.1", "2.2", "2.3"]


def test_what_is_parked_at_the_end_of_the_process_is_told() -> None:
    result = run_python(
        """
        from workpool import EventWorkerPool, ParkKey

        def handle(event):
            raise ParkKey

        pool = EventWorkerPool(handle, workers=1, name="orders").start()
        pool.add("a", 1)
        """
    )
    assert "pool 'orders' was not drained when the process ended" in result.stderr
    assert "pool 'orders' has drained but for parked keys: 1 events left" in result.stderr


def test_so_it_is_when_the_main_thread_ends_by_an_exception() -> None:
    result = run_python(
        """
        import os
        from workpool import EventWorkerPool
        pool = EventWorkerPool(lambda event: os.write(1, b"%d " % event), workers=2).start()
        for event in range(5):
            pool.add(0, event)
        raise SystemExit(3)
        """
    )
    assert (result.returncode, result.stdout.split()) == (3, list("01234"))


def test_a_drain_that_was_given_up_goes_on_at_the_end_of_the_process() -> None:
    result = run_python(
        """
        import atexit, os, threading
        from workpool import EventWorkerPool

        gate = threading.Event()
        atexit.register(gate.set)

        def handle(event):
            gate.wait()
            threading.Event().wait(0.01)
            os.write(1, b"%d " % event)

        pool = EventWorkerPool(handle, workers=1).start()
        for event in range(20):
            pool.add(0, event)
        try:
            pool.drain(0)
        except TimeoutError:
            pass
        """
    )
    assert (result.stderr, result.stdout.split()) == ("", [str(event) for event in range(20)])


def test_so_it_is_with_one_that_a_handler_starts_then_where_a_thread_can_be_started() -> None:
    """From Python 3.12 on none can, and the handler is told."""
    result = run_python(
        """
        import os
        from workpool import EventWorkerPool, KeyedExecutor

        def drain_of(pool):
            while "draining" not in repr(pool):
                pass

        def handle(event):
            drain_of(pool)
            try:
                executor = KeyedExecutor(1)
                held.append(executor)
                executor.submit("a", drain_of, executor._pool)  # Else all may be done before anybody looks.
                for number in range(5):
                    executor.submit("a", os.write, 1, b"%d " % number)
            except RuntimeError:
                os.write(1, b"0 1 2 3 4")

        held = []
        pool = EventWorkerPool(handle, workers=1).start()
        pool.add("a", 1)
        """
    )
    assert (result.returncode, result.stderr, result.stdout.split()) == (0, "", list("01234"))


def test_pools_are_drained_in_the_reverse_order_of_their_starts() -> None:
    """A pool that feeds another is mostly started after it, and must be drained before it."""
    result = run_python(
        """
        import os
        from workpool import EventWorkerPool
        second = EventWorkerPool(lambda event: os.write(1, b"%d " % event), workers=1).start()
        first = EventWorkerPool(lambda event: second.add(0, event), workers=1).start()
        for event in range(50):
            first.add(0, event)
        """
    )
    assert result.stderr == ""
    assert len(result.stdout.split()) == 50


def test_a_failure_at_the_end_of_the_process_is_loud() -> None:
    result = run_python(
        """
        from workpool import EventWorkerPool
        def handle(event):
            raise ValueError("boom")
        EventWorkerPool(handle, workers=1).start().add("a", 1)
        """
    )
    assert "the handler of key 'a' raised at attempt 1, and the pool stops" in result.stderr
    assert "HandlerError" in result.stderr


def test_a_pool_that_never_started_says_what_it_drops() -> None:
    result = run_python(
        """
        import os
        from workpool import EventWorkerPool
        pool = EventWorkerPool(print, name="orders")
        pool.add("a", 1)
        """
    )
    assert result.stderr.strip() == "pool 'orders' is dropped with 1 events: it was never started"


def test_a_stopped_pool_with_a_stuck_handler_does_not_keep_the_process() -> None:
    result = run_python(
        """
        import threading
        from workpool import EventWorkerPool, StopTimeout
        inside = threading.Event()
        pool = EventWorkerPool(lambda event: inside.set() or threading.Event().wait(), workers=1).start()
        pool.add("a", 1)
        inside.wait()
        try:
            pool.stop(0.01)
        except StopTimeout as error:
            print(error.in_flight)
        """
    )
    assert (result.returncode, result.stdout.strip()) == (0, "['a']"), result.stderr


FORKED = """
    import os, sys, threading, warnings
    warnings.simplefilter("ignore", DeprecationWarning)
    from workpool import EventWorkerPool
    gate = threading.Event()
    pool = EventWorkerPool(lambda event: gate.wait(20), workers=2).start()
    unstarted = EventWorkerPool(print)
    unstarted.add("a", 1)
    for event in range(5):
        pool.add(event, event)
    if {held}:
        # Fork while another thread is inside the pool: the child gets a mutex that nobody will free.
        inside, leave = threading.Event(), threading.Event()
        class Key:
            def __hash__(self):
                inside.set()
                leave.wait(20)
                return 1
        threading.Thread(target=pool.add, args=(Key(), 1), daemon=True).start()
        inside.wait(20)
    child = os.fork()
    if child == 0:
        refused = 0
        for each in (pool, unstarted):
            for call in (
                lambda: each.add("a", 1), lambda: each.add_nowait("a", 1), lambda: each.drain(1), lambda: each.stop(1),
                each.stats, each.start, lambda: each.left, each.__enter__, each.dead, each.parked, each.top,
                lambda: each.explain("a"), lambda: each.park("a"), lambda: each.resume("a"),
                lambda: each.skip_head("a"), lambda: each.replay(None),
            ):
                try:
                    call()
                except RuntimeError as error:
                    assert "parent process" in str(error), error
                    refused += 1
        repr(pool)
        sys.exit(refused)
    if {held}:
        leave.set()
    _, status = os.waitpid(child, 0)
    gate.set()
    pool.drain(20)
    print(os.waitstatus_to_exitcode(status), pool.stats().handled)
    unstarted.stop()
"""


@pytest.mark.parametrize("held", [False, True])
@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this platform")
def test_in_a_forked_child_every_call_raises_and_the_parent_goes_on(held: bool) -> None:
    result = run_python(FORKED.replace("{held}", str(held)))
    assert (result.returncode, result.stderr) == (0, ""), result.stderr
    assert result.stdout.split() == ["32", "6" if held else "5"], result.stdout


@pytest.mark.parametrize("ending", ["return", "raise ValueError('in the child')"])
@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this platform")
def test_a_handler_that_forks_leaves_the_backlog_to_the_parent(ending: str) -> None:
    result = run_python(
        """
        import os, signal, warnings
        warnings.simplefilter("ignore", DeprecationWarning)
        from workpool import EventWorkerPool

        parent = os.getpid()
        children = []

        def handle(event):
            os.write(1, b"parent" if os.getpid() == parent else b"child")
            os.write(1, b" %d;" % event)
            if event == 0:
                child = os.fork()
                if child == 0:
                    signal.alarm({patience})
                    {ending}
                else:
                    children.append(child)

        pool = EventWorkerPool(handle, workers=2)
        for event in range(5):
            pool.add("a", event)
        pool.start()
        pool.drain()
        _, status = os.waitpid(children[0], 0)
        assert status == 0, status
        assert pool.stats().handled == 5
        """.replace("{ending}", ending).replace("{patience}", str(max(1, int(PATIENCE / 2))))
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout == "".join(f"parent {event};" for event in range(5))
    assert "the pool stops" not in result.stderr, "that of the parent does not"
    assert result.stderr.count("Traceback") == (ending != "return")
    assert result.stderr == "" or result.stderr.endswith("ValueError: in the child\n")


def test_a_pool_does_not_pickle_and_is_not_copied() -> None:
    pool: EventWorkerPool[Any, Any] = EventWorkerPool(print, name="orders")
    for attempt in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match="pool 'orders' holds workers and cannot be pickled or copied"):
            attempt(pool)


def test_a_pool_that_has_ended_is_free_to_go() -> None:
    """Also where only a handler asked for the end, and nobody waited for it."""

    def end_by_a_handler() -> weakref.ref[Any]:
        pools: list[EventWorkerPool[str, int]] = []
        pools.append(EventWorkerPool(lambda event: pools[0].drain(), workers=2).start())
        pools[0].add("a", 1)
        eventually(lambda: "ended" in repr(pools[0]))
        return weakref.ref(pools.pop())

    pool = end_by_a_handler()
    eventually(lambda: gc.collect() >= 0 and pool() is None)


def test_a_pool_that_has_failed_is_free_to_go(caplog: pytest.LogCaptureFixture) -> None:
    """Nothing holds it but the errors that tell of it, whose tracebacks lead to it."""
    caplog.set_level(logging.CRITICAL, "workpool")  # A record that is kept holds the error.

    def fail() -> weakref.ref[Any]:
        pool = EventWorkerPool[str, int](lambda event: 1 // event, workers=2).start()
        pool.add("a", 0)
        with pytest.raises(HandlerError):
            pool.drain(PATIENCE)
        return weakref.ref(pool)

    pool = fail()
    eventually(lambda: gc.collect() >= 0 and pool() is None)
