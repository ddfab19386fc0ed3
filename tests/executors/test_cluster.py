"""On a cluster of dask's, with its scheduler and its workers in processes of this machine."""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from executors.remote import Folder, handle
from support import PATIENCE, eventually
from workpool import HandlerError, Skip
from workpool.executors import EventWorkerPool, ExecutorBroken

dask: Any = pytest.importorskip("dask")
distributed: Any = pytest.importorskip("distributed")


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A client of a cluster that takes no port for its own, leaves no process, and writes nothing where tests run."""
    options = {"n_workers": 2, "threads_per_worker": 1, "processes": True, "host": "127.0.0.1"}
    quiet = {"dashboard_address": "127.0.0.1:0", "silence_logs": logging.CRITICAL}
    with (
        dask.config.set({"temporary-directory": str(tmp_path_factory.mktemp("cluster"))}),
        distributed.LocalCluster(**options, **quiet) as cluster,
        distributed.Client(cluster) as client,
    ):
        yield client
    eventually(lambda: multiprocessing.active_children() == [])
    assert not [path for path in Path.cwd().iterdir() if "dask" in path.name]


def test_each_event_is_handled_once_and_in_order_per_key(client: Any, folder: Folder) -> None:
    orders = [folder.order("abcd"[number % 4], number) for number in range(60)]
    with EventWorkerPool[Any, Any](handle, executor=client.get_executor(), workers=4) as pool:
        for key, order in orders:
            pool.add(key, order)
    assert sorted(folder.check()) == sorted((key, order.number) for key, order in orders)
    assert os.getpid() not in {record.process for record in folder.records()}


def test_equal_events_are_each_handled(client: Any, folder: Folder) -> None:
    """The cluster takes equal calls for one, unless they differ in something."""
    _, order = folder.order("equal")
    with EventWorkerPool[Any, Any](handle, executor=client.get_executor(), workers=4) as pool:
        for _ in range(3):
            for key in ("equal", "same"):
                pool.add(key, order)
    assert len(folder.records("end")) == pool.stats().handled == 6


def test_a_worker_that_is_killed_takes_nothing_with_it(client: Any, folder: Folder) -> None:
    """The cluster delivers again what it held, by itself."""
    with EventWorkerPool[Any, Any](handle, executor=client.get_executor(), workers=2) as pool:
        for number in range(3):
            for key in "ab":
                pool.add(*folder.order(key, number, "" if number else "wait"))
        eventually(lambda: len(folder.records("start")) == 2)
        os.kill(folder.records("start")[0].process, signal.SIGKILL)
        eventually(lambda: len(folder.records("start")) == 3)
        folder.open_gate()
    assert sorted(folder.check(counts_attempts=False)) == [(key, number) for key in "ab" for number in range(3)]


def test_what_a_handler_raises_is_a_failed_attempt(client: Any, folder: Folder) -> None:
    with EventWorkerPool[Any, Any](handle, executor=client.get_executor(), workers=2, on_failure=Skip()) as pool:
        pool.add(*folder.order("a", 0, "raise"))
        pool.add(*folder.order("a", 1, "raise what is not made again"))
        pool.add(*folder.order("a", 2))
    assert [dead.error for dead in pool.dead()] == ["ValueError: as it was told", "RuntimeError: NotMadeAgain: 7: no"]
    assert [record.number for record in folder.records("end")] == [2]


@pytest.mark.parametrize("factory", [True, False])
def test_an_executor_that_somebody_shuts_down_is_replaced_or_missed(client: Any, folder: Folder, factory: bool) -> None:
    made = [client.get_executor()]

    def make() -> Any:
        made.append(client.get_executor())
        return made[-1]

    pool = EventWorkerPool[Any, Any](handle, executor=make if factory else made[0], workers=1).start()
    pool.add(*folder.order("a", 0))
    eventually(lambda: pool.stats().handled == 1)
    made[-1].shutdown()
    pool.add(*folder.order("a", 1))
    if factory:
        pool.drain(PATIENCE)
        assert folder.check() == [("a", 0), ("a", 1)]
        return
    with pytest.raises(HandlerError) as caught:
        pool.drain(PATIENCE)
    assert isinstance(caught.value.__cause__, ExecutorBroken)
    assert [event.number for _, event in pool.left] == [1]
