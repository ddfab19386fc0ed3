"""What all tests share: the drivers, and how long a test waits for what must happen."""

from __future__ import annotations

import gc
import threading
from collections.abc import Iterator

import pytest

from support import DRIVERS, PATIENCE, Driver


@pytest.fixture(params=DRIVERS, ids=lambda driver: driver.name)
def driver(request: pytest.FixtureRequest) -> Driver:
    """Each driver in turn."""
    found: Driver = request.param
    return found


@pytest.fixture(autouse=True)
def no_thread_left() -> Iterator[None]:
    """P8: an ending leaves no thread behind, whatever the test did."""
    before = set(threading.enumerate())
    yield
    gc.collect()
    for thread in set(threading.enumerate()) - before:
        if thread.name.startswith("workpool"):
            thread.join(PATIENCE)
            assert not thread.is_alive(), f"{thread.name} was left behind"
