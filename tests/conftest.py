"""What all tests share: the drivers, and how long a test waits for what must happen."""

from __future__ import annotations

import faulthandler
import gc
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest

import support
import workpool
from asyncio_pool import close_all
from support import DRIVERS, PATIENCE, Driver
from workpool import StopTimeout, process
from workpool.twin import COMPILED

pytest_plugins = ["pytester"]
COPY = os.environ.get("WORKPOOL_TEST_COPY", "")
assert workpool.__file__.startswith(COPY), "the copy that is to be tested is not the one that is imported"


def pytest_configure() -> None:
    """Keep the standard error: while a test runs it is captured, and what is known of a hang would be lost."""
    support.standard_error = os.dup(2)


def pytest_collection_finish() -> None:
    """Pass over in each later collection, of which there is one after each test, what exists by now: it stays."""
    gc.collect()
    gc.freeze()


def pytest_report_header() -> str:
    """Say what is tested."""
    return f"workpool: {'the twin in C' if COMPILED else 'the reference in Python'}"


@pytest.fixture(params=DRIVERS, ids=lambda driver: driver.name)
def driver(request: pytest.FixtureRequest) -> Driver:
    """Each driver in turn."""
    found: Driver = request.param
    return found


@pytest.fixture(autouse=True)
def no_endless_wait() -> Iterator[None]:
    """A test that hangs ends the run, with the stack of each thread, instead of holding it for ever."""
    support.end_a_hang()
    yield
    faulthandler.cancel_dump_traceback_later()


@pytest.fixture(autouse=True)
def tracing_as_before() -> Iterator[None]:
    """Take back what a test traces: some cut what they call at each of its lines."""
    before, in_threads = sys.gettrace(), threading.gettrace()
    yield
    sys.settrace(before)
    threading.settrace(in_threads)


@pytest.fixture(autouse=True)
def no_thread_left() -> Iterator[None]:
    """P8: an ending leaves no thread behind, whatever the test did."""
    before = set(threading.enumerate())
    yield
    close_all()
    gc.collect()
    for thread in set(threading.enumerate()) - before:
        if thread.name.startswith("workpool"):
            thread.join(PATIENCE)
            assert not thread.is_alive(), f"{thread.name} was left behind"


def pytest_sessionfinish() -> None:
    """Stop what a test that failed has left behind: what it would be drained of may never be due."""
    running: list[Any] = [] if COPY else list(process.running)
    for pool in running:
        with suppress(StopTimeout):
            pool.stop(0)
