"""An executor that nobody holds any more, the process around it, and what it never holds."""

from __future__ import annotations

import copy
import os
import pickle
import weakref
from typing import Any

import pytest

from support import PATIENCE, Gate, eventually, run_python, threads_of_pools
from workpool import KeyedExecutor


def test_one_that_was_never_used_goes_at_once(no_collector: None) -> None:
    executor = KeyedExecutor(2)
    seen: list[weakref.ref[Any]] = [weakref.ref(executor), weakref.ref(executor._pool)]
    del executor
    assert [each() for each in seen] == [None, None]


def test_one_that_was_used_goes_with_its_pool_and_its_threads(no_collector: None) -> None:
    before = threads_of_pools()
    executor = KeyedExecutor(2)
    executor.submit("a", int).result(PATIENCE)
    seen: list[weakref.ref[Any]] = [weakref.ref(executor), weakref.ref(executor._pool)]
    threads = threads_of_pools() - before
    del executor
    assert seen[0]() is None
    for thread in threads:
        thread.join(PATIENCE)
        assert not thread.is_alive()
    del thread, threads
    eventually(lambda: seen[1]() is None)


def test_one_that_is_forgotten_finishes_all_of_every_key_in_order() -> None:
    executor = KeyedExecutor(2)
    done: list[int] = []
    gate = Gate()
    executor.submit("a", gate, None)
    gate.wait_inside()
    futures = [executor.submit("a", done.append, number) for number in range(100)]
    futures[50].cancel()
    seen = weakref.ref(executor)
    del executor
    assert seen() is None
    assert futures[99].running() is False
    gate.open.set()
    futures[99].result(PATIENCE)
    assert done == [number for number in range(100) if number != 50]


def test_a_future_of_one_that_is_forgotten_can_be_cancelled() -> None:
    executor = KeyedExecutor(1)
    gate = Gate()
    executor.submit("a", gate, None)
    gate.wait_inside()
    future = executor.submit("a", int)
    del executor
    assert future.cancel()
    gate.open.set()


def test_a_view_keeps_its_executor_and_its_futures_do_not() -> None:
    executor = KeyedExecutor(1)
    view = executor.for_key("a")
    seen = weakref.ref(executor)
    del executor
    future = view.submit(pow, 2, 3)
    assert future.result(PATIENCE) == 8
    assert seen() is not None
    del view
    eventually(lambda: seen() is None)
    assert future.result() == 8


def test_one_that_is_forgotten_where_its_own_thread_is_inside_the_pool_ends() -> None:
    """A finaliser runs wherever the last reference goes: here in the `__hash__` of a key."""
    before = threads_of_pools()
    held: list[KeyedExecutor] = [KeyedExecutor(1)]
    held[0].submit("a", int).result(PATIENCE)
    pool = held[0]._pool

    class Key:
        def __hash__(self) -> int:
            held.clear()
            return 1

    pool.explain(Key())
    assert not held
    del pool
    eventually(lambda: not threads_of_pools() - before)


def test_an_executor_and_its_views_do_not_pickle_and_are_not_copied() -> None:
    executor = KeyedExecutor(2)
    for attempt in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match=r"^a KeyedExecutor holds threads and cannot be pickled or copied$"):
            attempt(executor)
    for attempt in (pickle.dumps, copy.deepcopy):
        with pytest.raises(TypeError, match=r"^a KeyedExecutor holds threads and cannot be pickled or copied$"):
            attempt(executor.for_key("a"))


@pytest.mark.parametrize("last", ["", "raise SystemExit(3)", "del executor", "executor.shutdown(wait=False)"])
def test_what_was_submitted_is_finished_when_the_process_ends(last: str) -> None:
    result = run_python(
        """
        import os
        from workpool import KeyedExecutor
        executor = KeyedExecutor(2)
        for number in range(20):
            executor.submit("a", os.write, 1, b"a%d " % number)
            executor.for_key("b").submit(os.write, 1, b"b%d " % number)
        {last}
        """.replace("{last}", last)
    )
    assert (result.returncode, result.stderr) == (3 if "Exit" in last else 0, "")
    for key in "ab":
        assert [word for word in result.stdout.split() if word[0] == key] == [f"{key}{n}" for n in range(20)]


def test_a_call_that_submits_when_the_process_ends_is_refused() -> None:
    result = run_python(
        """
        import atexit, os, threading
        from workpool import KeyedExecutor
        executor = KeyedExecutor(1)

        def call():
            while "draining" not in repr(executor._pool):
                pass
            try:
                executor.submit("a", int)
            except RuntimeError as error:
                os.write(1, str(error).encode())

        executor.submit("a", call)
        """
    )
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout == "cannot schedule new futures after shutdown"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this platform")
def test_in_a_forked_child_every_call_raises_and_the_parent_goes_on() -> None:
    result = run_python(
        """
        import os, sys, threading, warnings
        warnings.simplefilter("ignore", DeprecationWarning)
        from workpool import KeyedExecutor
        gate = threading.Event()
        executor, unused = KeyedExecutor(1), KeyedExecutor(1)
        view = executor.for_key("a")
        first = view.submit(gate.wait, 20)
        waiting = view.submit(pow, 2, 3)
        child = os.fork()
        if child == 0:
            refused = 0
            for call in (
                lambda: executor.submit("a", int), lambda: unused.submit("a", int), lambda: view.submit(int),
                lambda: executor.map(int, [1], key=int), executor.shutdown, unused.shutdown, view.shutdown,
            ):
                try:
                    call()
                except RuntimeError as error:
                    assert "parent process" in str(error), error
                    refused += 1
            assert waiting.cancel()
            del executor, unused, view
            sys.exit(refused)
        _, status = os.waitpid(child, 0)
        gate.set()
        executor.shutdown()
        print(os.waitstatus_to_exitcode(status), first.result(), waiting.result())
        """
    )
    assert (result.returncode, result.stderr) == (0, ""), result.stderr
    assert result.stdout.split() == ["7", "True", "8"]
