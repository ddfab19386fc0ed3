"""What a pool on an event loop needs beside asyncio: what its callers wait at, a call from elsewhere, and a stack."""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from workpool.lanes import NOTHING
from workpool.turn import InContext

__all__ = ["Bell", "Gate", "call_on", "nothing", "stack_of"]


class Gate(asyncio.Future[None]):
    """Where an adder waits, once. A cancel takes it off its list at once: later, it could have been let in."""

    key: Any = NOTHING

    def __init__(self, pool: Any) -> None:
        super().__init__(loop=pool._loop)
        self._pool = pool

    def cancel(self, msg: Any | None = None) -> bool:
        """Wait no more."""
        if not self.done():
            self._pool._step(self._pool._strike, self)
        return super().cancel(msg)


class Bell:
    """What may be told any number of times, on the loop; whoever waits is woken once for all of them."""

    def __init__(self) -> None:
        self._rung = asyncio.Event()

    def put(self, _: None) -> None:
        """Be told."""
        self._rung.set()

    async def wait(self) -> None:
        """Sleep until it was told, since the last time."""
        await self._rung.wait()
        self._rung.clear()


def call_on(loop: asyncio.AbstractEventLoop, call: Callable[[], None]) -> None:
    """Make a call on a loop, from any thread, unless that is closed."""
    with suppress(RuntimeError):  # The loop is closed.
        loop.call_soon_threadsafe(call)


def nothing() -> None:
    """Do nothing: the loop has woken."""


def stack_of(coroutine: Any) -> traceback.StackSummary:
    """Where a coroutine stands: its own frame, and those of what it awaits."""
    frames = []
    while coroutine is not None:
        if isinstance(coroutine, InContext):
            coroutine = coroutine.awaited
        if (frame := getattr(coroutine, "cr_frame", None)) is not None:
            frames.append((frame, frame.f_lineno))
        coroutine = getattr(coroutine, "cr_await", None)
    return traceback.StackSummary.extract(frames)
