"""On interpreters of their own, where Python has them."""

from __future__ import annotations

import concurrent.futures
from typing import Any

import pytest

from executors.remote import Folder, handle
from workpool import Skip
from workpool.executors import EventWorkerPool

InterpreterPoolExecutor: Any = getattr(concurrent.futures, "InterpreterPoolExecutor", None)
pytestmark = pytest.mark.skipif(InterpreterPoolExecutor is None, reason="this Python has no InterpreterPoolExecutor")


def test_each_event_is_handled_once_and_in_order_per_key(folder: Folder) -> None:
    orders = [folder.order("abc"[number % 3], number, "raise" if number == 7 else "") for number in range(30)]
    with InterpreterPoolExecutor(2) as executor:
        pool = EventWorkerPool[Any, Any](handle, executor=executor, on_failure=Skip())
        assert pool.workers == 2
        with pool:
            for key, order in orders:
                pool.add(key, order)
    assert [(dead.event.number, dead.error) for dead in pool.dead()] == [(7, "ValueError: as it was told")]
    assert len(folder.records("end")) == len(set(folder.records("end"))) == pool.stats().handled == 29
