"""On real processes: spawned, and forked from a server."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from executors.remote import Folder, handle
from support import PATIENCE, adds_up, eventually, in_thread, run_python
from workpool import HandlerError, Skip
from workpool.executors import EventWorkerPool, ExecutorBroken


@pytest.fixture(params=["spawn", "forkserver"])
def method(request: pytest.FixtureRequest) -> str:
    found: str = request.param
    return found


@pytest.fixture(autouse=True)
def no_process_left() -> Iterator[None]:
    """P8: nor does an ending leave a process behind."""
    yield
    assert multiprocessing.active_children() == []


class Processes:
    """Makes executors of processes, and remembers them."""

    def __init__(self, method: str, processes: int = 2) -> None:
        self.context: Any = multiprocessing.get_context(method)
        self.processes = processes
        self.made: list[ProcessPoolExecutor] = []

    def __call__(self) -> ProcessPoolExecutor:
        self.made.append(ProcessPoolExecutor(self.processes, mp_context=self.context))
        return self.made[-1]


def kill(*processes: int) -> None:
    for process in processes:
        with suppress(ProcessLookupError):  # Its executor ends the others as soon as one is gone.
            os.kill(process, signal.SIGKILL)


def make_pool(executor: Any, workers: int = 2, **options: Any) -> EventWorkerPool[Any, Any]:
    return EventWorkerPool(handle, executor=executor, workers=workers, **options)


def test_each_event_is_handled_once_and_in_order_per_key(method: str, folder: Folder) -> None:
    orders = [folder.order("abcde"[number % 5], number) for number in range(100)]
    with make_pool(Processes(method), workers=4) as pool:
        for key, order in orders:
            pool.add(key, order)
    assert sorted(folder.check()) == sorted((key, order.number) for key, order in orders)
    assert pool.stats().handled == 100
    assert {record.attempt for record in folder.records()} == {1}


def test_a_process_that_is_killed_takes_nothing_with_it(method: str, folder: Folder) -> None:
    """What the executor held is delivered again by a new one. What its other process was at is over by then."""
    make = Processes(method)
    with make_pool(make) as pool:
        for number in range(3):
            pool.add(*folder.order("a", number, "ignore SIGTERM and wait" if number == 0 else ""))
            pool.add(*folder.order("b", number, "kill once" if number == 1 else ""))
        eventually(lambda: pool.explain("a").attempt == 2)
        folder.open_gate()
    assert sorted(folder.check()) == [(key, number) for key in "ab" for number in range(3)]
    assert len(make.made) == 2
    assert pool.stats().handled == 6


def test_so_it_is_when_several_are_killed_at_once(method: str, folder: Folder) -> None:
    with make_pool(Processes(method, 3), workers=3) as pool:
        for number in range(2):
            for key in "abc":
                pool.add(*folder.order(key, number, "wait"))
        for lost, killed in enumerate((3, 2), 1):
            eventually(lambda: len(folder.records("start")) == 3 * lost)  # noqa: B023
            kill(*[record.process for record in folder.records("start")][-killed:])
            eventually(lambda: all(pool.explain(key).attempt == lost + 1 for key in "abc"))  # noqa: B023
        folder.open_gate()
    assert sorted(folder.check()) == [(key, number) for key in "abc" for number in range(2)]


def test_a_process_that_is_killed_while_it_is_idle_takes_no_attempt(method: str, folder: Folder) -> None:
    make = Processes(method, 1)
    with make_pool(make, workers=1) as pool:
        pool.add(*folder.order("a", 1))
        eventually(lambda: pool.stats().handled == 1)
        kill(folder.records()[0].process)
        eventually(lambda: bool(make.made[0]._broken))
        pool.add(*folder.order("a", 2))
    assert [(record.number, record.attempt) for record in folder.records("end")] == [(1, 1), (2, 1)]


@pytest.mark.parametrize("policy", [None, Skip()], ids=repr)
def test_an_executor_that_was_given_fails_the_pool_when_it_breaks(method: str, folder: Folder, policy: Any) -> None:
    options = {"on_failure": policy} if policy else {}
    with Processes(method)() as executor:
        pool = make_pool(executor, **options).start()
        added = [folder.order(key, number, "wait" if number else "") for number in range(3) for key in "ab"]
        for key, order in added:
            pool.add(key, order)
        eventually(lambda: len(folder.records("start")) == 4)
        kill(folder.records("start")[-1].process)
        with pytest.raises(HandlerError, match="the executor has lost the event 1 times") as caught:
            pool.drain(PATIENCE)
        assert isinstance(caught.value.__cause__, ExecutorBroken)
        assert sorted(pool.left, key=str) == sorted(added[2:], key=str)
        assert adds_up(pool.stats())


def test_an_event_that_kills_each_process_is_given_up_on_after_three(method: str, folder: Folder) -> None:
    make = Processes(method, 1)
    with make_pool(make, workers=1, on_failure=Skip()) as pool:
        pool.add(*folder.order("a", 0, "kill"))
        pool.add(*folder.order("a", 1))
    [dead] = pool.dead()
    assert (dead.event.number, dead.attempts) == (0, 3)
    assert [record.attempt for record in folder.records("start") if record.number == 0] == [1, 2, 3]
    assert [(record.number, record.attempt) for record in folder.records("end")] == [(1, 1)]
    assert len(make.made) == 4


def test_a_large_event_is_lost_like_any_other(method: str, folder: Folder) -> None:
    """It does not fit into the pipe that the process read which was killed: whoever writes must not wait for ever."""
    make = Processes(method, 1)
    with make_pool(make, workers=3) as pool:
        pool.add(*folder.order("a", 0, "kill once"))
        for key in "bc":
            pool.add(*folder.order(key, 0, "x" * 5_000_000))
    assert sorted(folder.check()) == [("a", 0), ("b", 0), ("c", 0)]


def test_what_a_handler_raises_or_returns_arrives_or_is_told(folder: Folder) -> None:
    told = {
        "raise": (1, "ValueError: as it was told"),
        "raise what is not made again": (1, "RuntimeError: NotMadeAgain: 7: no"),
        "raise what does not pickle": (1, "RuntimeError: HoldsLock: ('of no use elsewhere', <unlocked _thread.lock"),
        "raise what looks like the executor's": (1, "BrokenExecutor: of the handler"),
        "raise what looks like the executor's and is not made again": (1, "RuntimeError: BrokenNotMadeAgain: 7: no"),
        "skip": (1, "SkipEvent: no good"),
    }
    make = Processes("spawn", 1)
    with make_pool(make, workers=2, on_failure=Skip()) as pool:
        for what in (*told, "retry", "park", "return what does not pickle"):
            pool.add(*folder.order(what, 0, what))
        pool.add("lock", threading.Lock())
        eventually(lambda: pool.parked() == ["park"])
        pool.resume("park")
        eventually(lambda: pool.parked() == ["park"] and pool.explain("park").attempt == 3)
        pool.skip_head("park")
    dead = {each.key: (each.attempts, each.error) for each in pool.dead()}
    for what, (attempts, error) in told.items():
        assert dead[what][0] == attempts
        assert dead[what][1].startswith(error)
    assert "pickle" in dead["lock"][1]
    assert set(dead) == {*told, "park", "lock"}
    assert sorted(folder.check()) == [("retry", 0), ("return what does not pickle", 0)]
    assert len(make.made) == 1, "none of them breaks the executor"


def test_a_handler_that_cannot_be_sent_is_a_failed_attempt(folder: Folder) -> None:
    pool: EventWorkerPool[str, int] = EventWorkerPool(lambda event: event, executor=Processes("spawn"), workers=1)
    pool.start().add("a", 1)
    with pytest.raises(HandlerError, match="<lambda>"):
        pool.drain(PATIENCE)
    assert pool.left == [("a", 1)]


def test_a_handler_that_ends_its_process_by_system_exit_fails_the_pool(folder: Folder) -> None:
    pool = make_pool(Processes("spawn"), workers=1, on_failure=Skip()).start()
    pool.add(*folder.order("a", 0, "exit"))
    with pytest.raises(HandlerError) as caught:
        pool.drain(PATIENCE)
    assert isinstance(caught.value.__cause__, SystemExit)
    assert caught.value.__cause__.code == 3


@pytest.mark.parametrize("factory", [True, False])
def test_somebody_who_shuts_the_executor_down_and_cancels_what_it_has_not_started(
    factory: bool, folder: Folder
) -> None:
    """What is in flight ends; what had not started was cancelled."""
    make = Processes("spawn", 1)
    pool = make_pool(make if factory else make(), workers=4).start()
    added = [folder.order(key, number, "wait") for number in range(2) for key in "abcd"]
    for key, order in added:
        pool.add(key, order)
    eventually(lambda: len(folder.records("start")) == 1 and pool.stats().in_flight == 4)
    make.made[0].shutdown(wait=False, cancel_futures=True)
    if factory:
        eventually(lambda: len(folder.records("start")) == 2)
    folder.open_gate()
    with suppress(HandlerError):
        pool.drain(PATIENCE)
    handled = folder.check()
    assert sorted(handled + [(key, order.number) for key, order in pool.left]) == sorted(
        (key, order.number) for key, order in added
    )
    assert bool(pool.left) is not factory
    eventually(lambda: multiprocessing.active_children() == [])


@pytest.mark.parametrize("ending", ["drain", "stop", "failure"])
def test_no_process_is_left_when_an_ending_returns(method: str, folder: Folder, ending: str) -> None:
    pool = make_pool(Processes(method)).start()
    for key in "ab":
        pool.add(*folder.order(key, 0, "wait" if key == "a" else "exit" if ending == "failure" else ""))
    eventually(lambda: len(folder.records("start")) == 2)
    assert len(multiprocessing.active_children()) == 2
    ended = in_thread(partial(pool.stop if ending == "stop" else pool.drain, PATIENCE))
    folder.open_gate()
    with suppress(HandlerError):
        ended()
    assert multiprocessing.active_children() == []


def test_a_handler_in_a_forked_process_cannot_add(tmp_path: Path) -> None:
    """It finds the pool there, in its copy of the memory; that is the parent's."""
    result = run_python(
        """
        import multiprocessing, os, warnings
        warnings.simplefilter("ignore", DeprecationWarning)
        from concurrent.futures import ProcessPoolExecutor
        from workpool.executors import EventWorkerPool

        def handle(event):
            try:
                pool.add("b", 1)
            except RuntimeError as error:
                os.write(1, str(error).encode())

        executor = ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("fork"))
        with EventWorkerPool(handle, executor=executor, workers=1) as pool:
            pool.add("a", 1)
        executor.shutdown()
        """
    )
    assert (result.returncode, result.stderr) == (0, "")
    assert "belongs to the parent process" in result.stdout
