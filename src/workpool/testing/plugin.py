"""The fixtures for pytest.

The topmost `conftest.py`, or a test module, loads them:

    pytest_plugins = ["workpool.testing.plugin"]

| fixture                 | what a test gets                                                                          |
|-------------------------|-------------------------------------------------------------------------------------------|
| `workpool_clock`        | a `FakeClock`, which stands at 0                                                          |
| `workpool_history`      | a `History` of one pool, which is checked when the test has ended                         |
| `workpool_pool`         | makes pools on threads: started, on that clock, and ended with the test                   |
| `workpool_asyncio_pool` | makes pools on an event loop, on that clock, for `async with`                             |
| `workpool_time_limit`   | how many seconds a pool of the test waits before it says what for: 10, unless overridden  |
| `kubernetes_api`        | an API server, empty, from `workpool.testing.kubernetes`                                  |

What these find when a test has ended fails it at its teardown, without a traceback of ours.

It is no entry point (`pytest11`), so nothing loads it unasked. pytest would import the library then in every session
of an environment where it is installed, and before pytest-cov begins to count: the imports of whoever tests workpool
itself would be missing from the coverage. And a line in `conftest.py` says where the fixtures come from. It is named
`plugin` as those of pytest-asyncio and pytest-trio are.

This module is the only one, beside `workpool.testing.kubernetes.fixture`, that imports pytest.

PYTEST_DONT_REWRITE: nothing asserts here, and a module may import the types before pytest loads the fixtures.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from workpool.testing.clock import FakeClock
from workpool.testing.history import History
from workpool.testing.kubernetes.fixture import kubernetes_api
from workpool.testing.watched import AsyncioPoolFactory, PoolFactory, WatchedHistory

__all__ = [
    "AsyncioPoolFactory", "PoolFactory", "kubernetes_api", "pytest_runtest_makereport", "workpool_asyncio_pool",
    "workpool_clock", "workpool_history", "workpool_pool", "workpool_time_limit",
]  # fmt: skip

_RAISED = pytest.StashKey[bool]()


def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> None:
    """Note which test did not come to its end."""
    if call.excinfo is not None and call.when != "teardown":
        item.stash[_RAISED] = True


@pytest.fixture
def workpool_clock() -> FakeClock:
    """A clock that stands at 0 until the test moves it: `workpool_clock.advance(60)`."""
    return FakeClock()


@pytest.fixture
def workpool_time_limit() -> float:
    """How many seconds a pool of the test may wait before it gives up and says what for; override it for others."""
    return 10.0


@pytest.fixture
def workpool_history(request: pytest.FixtureRequest, workpool_time_limit: float) -> Iterator[History]:
    """A history of one pool, held to the promises P1 to P5 when the test has ended, unless the test has checked it.

    A pool that `workpool_pool` has made has ended by then. Of a test that failed P4 is not checked: what it raised may
    hold on to events. An event counts as kept waiting beside an idle worker (P3, P5) after `workpool_time_limit`.

    Raises:
        BrokenPromise: At teardown, as the text of the failure: with a line for each case.
    """
    history = WatchedHistory(workpool_time_limit)
    yield history
    _tell(request, history.finish, "BrokenPromise: ")


@pytest.fixture
def workpool_pool(
    request: pytest.FixtureRequest,
    workpool_clock: FakeClock,
    workpool_history: History,  # noqa: ARG001 - so that it is checked after the pools have ended
    workpool_time_limit: float,
) -> Iterator[PoolFactory]:
    """Makes pools on threads, as `workpool.EventWorkerPool` is made, each started and on the test's clock.

    When the test has ended, all that can go on without the test is handled, and each pool is stopped: no thread is
    left. The test fails where a pool failed or was left with events, unless it has seen that itself: by an `add`, a
    `flush` or an ending that raised, or by `stop()`. Where a handler does not return, it says where that stands, after
    the limit.

    `add`, `flush`, `drain`, `stop` and leaving a block give up after the limit too, where they have no time-out of
    their own: the `TimeoutError` says what the pool waits for.
    """
    factory = PoolFactory(request.node.name, workpool_clock, workpool_time_limit)
    yield factory
    _tell(request, factory.finish)


@pytest.fixture
def workpool_asyncio_pool(
    request: pytest.FixtureRequest,
    workpool_clock: FakeClock,
    workpool_history: History,  # noqa: ARG001
    workpool_time_limit: float,
) -> Iterator[AsyncioPoolFactory]:
    """Makes pools on an event loop, as `workpool.asyncio.EventWorkerPool` is made, on the test's clock.

    It needs no plug-in for asyncio, and works with each: `async with` in the test starts the pool and drains it, within
    `asyncio.run` too. The fixture has no loop to await an ending on. So the test ends its pools itself, and fails
    where it has not, or has not seen a failure.
    """
    factory = AsyncioPoolFactory(request.node.name, workpool_clock, workpool_time_limit)
    yield factory
    _tell(request, factory.finish)


def _tell(request: pytest.FixtureRequest, finish: Callable[[bool], list[str]], what: str = "") -> None:
    """End what is of the test, and fail it with what that says."""
    told = finish(not request.node.stash.get(_RAISED, False))
    if told:
        more = [f"... and {len(told) - 20} more"] if len(told) > 20 else []
        pytest.fail(what + "\n".join(told[:20] + more), pytrace=False)
