"""Tests that run on an event loop: each on a loop of its own, with a bound, and no task or complaint is left of it."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

from support import PATIENCE

Factory = Callable[[], asyncio.AbstractEventLoop]
T = TypeVar("T")

factory: Factory = asyncio.new_event_loop
"""What makes the loops; the fixture `each_loop` sets it."""


def run(main: Callable[[], Coroutine[Any, Any, T]], *, quiet: bool = False) -> T:
    """Run a coroutine function. The loop ends as that of `asyncio.run` does, and tells nothing unless it is `quiet`."""
    told: list[dict[str, Any]] = []

    async def bounded() -> T:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context))
        async with asyncio.timeout(PATIENCE):
            return await main()

    with asyncio.Runner(loop_factory=factory) as runner:
        result = runner.run(bounded())
    assert quiet or not told, told
    return result


def on_loop(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """A test that is a coroutine function; it leaves no worker's task."""

    @functools.wraps(test)
    def run_test(**fixtures: Any) -> None:
        async def main() -> None:
            await test(**fixtures)
            await turns(2)
            assert not workers(), "tasks were left behind"

        run(main)

    return run_test


async def turns(number: int = 10) -> None:
    """Let everything else have so many turns of the loop."""
    for _ in range(number):
        await asyncio.sleep(0)


async def until(condition: Callable[[], object]) -> None:
    """Let everything else have its turns until something is so. The bound of the test bounds it."""
    while not condition():
        await asyncio.sleep(0)


def tasks() -> set[asyncio.Task[Any]]:
    """The tasks beside the one that calls."""
    return asyncio.all_tasks() - {asyncio.current_task()}


def workers() -> list[asyncio.Task[Any]]:
    """The tasks of pools, in the order of their numbers."""
    found = [task for task in tasks() if task.get_name().startswith("workpool")]
    return sorted(found, key=lambda task: int(task.get_name().rpartition("-")[2]))


def begin(call: Awaitable[T]) -> asyncio.Task[T]:
    """A task that makes a call."""

    async def make() -> T:
        return await call

    return asyncio.get_running_loop().create_task(make())


class Gate:
    """A handler that stands still: it says what it holds, and goes on when it is told to."""

    def __init__(self) -> None:
        self.held: list[Any] = []
        self.open = asyncio.Event()

    async def __call__(self, event: Any) -> None:
        self.held.append(event)
        await self.open.wait()

    async def inside(self, times: int = 1) -> None:
        """Wait until it was entered so often."""
        await until(lambda: len(self.held) >= times)
