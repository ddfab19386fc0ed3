"""An event loop for simulations: one seed draws who goes on, and no real time passes.

- *Order.* Of the tasks that can go on, one is drawn and makes one step, up to its next await that reaches the loop.
  Callbacks of the loop's own keep their order among each other, as asyncio promises it.
- *Time* stands still while anything can go on, and then jumps to the next timer.
- *A plain function* is made a coroutine: it has a thread, and that runs only while the loop's thread waits for it to
  come to a `checkpoint()` or to its end. So exactly one thread runs at any time, and the loop decides which.

Prior art: trio's MockClock, for time that jumps; loom (Rust) and coyote (.NET), for seeded schedules at marked points.
"""

from __future__ import annotations

import asyncio
import contextvars
import heapq
import math
import random
import sys
import threading
import traceback
import types
from collections import deque
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any, Final

__all__ = ["Hung", "PlainCall", "SimulatedLoop", "Stuck", "checkpoint", "drive", "place"]

_MAX_STEPS: Final = 100_000
"""Steps that one run may take: more is taken for a run without an end."""

_PATIENCE: Final = 10.0
"""Real seconds for a plain function to come to its next checkpoint: more is taken for a wait without an end."""

_here = threading.local()


class Stuck(AssertionError):
    """No handler can go on, or handlers go on without an end."""


class Hung(Stuck):
    """A plain function keeps its turn without an end, in real time: it is not worth another try."""


class SimulatedLoop(asyncio.BaseEventLoop):
    """Runs what is ready one at a time, in an order drawn from a seed, and jumps in time where nothing is.

    It knows no sockets, no processes and no signals. What is sent to an executor runs as a plain function does.

    Args:
        dice: Draws; None for first come, first served.
        now: What its time starts at.
    """

    _ready: deque[asyncio.Handle]
    _scheduled: list[asyncio.TimerHandle]
    _stopping: bool

    def __init__(self, dice: random.Random | None, now: float = 0.0) -> None:
        super().__init__()
        self._dice = dice
        self._now = now
        self._steps = 0
        self.ending: BaseException | None = None
        """Set to leave the loop after the step that is made: it is raised there."""

    def time(self) -> float:
        """The simulated seconds."""
        return self._now

    def run_in_executor(  # type: ignore[override]
        self,
        executor: object,  # noqa: ARG002
        func: Callable[..., Any],
        *args: Any,
    ) -> asyncio.Future[Any]:
        """Run a plain function under this schedule, whatever the executor."""
        return self.create_task(_run_plain(PlainCall(func, *args)))

    def _run_once(self) -> None:
        while self._scheduled and self._scheduled[0].cancelled():
            heapq.heappop(self._scheduled)
        if not (self._ready or self._stopping):
            if not self._scheduled or math.isinf(self._scheduled[0].when()):
                raise Stuck("nothing can go on: each handler waits for what does not come")
            self._now = max(self._now, self._scheduled[0].when())
        while self._scheduled and self._scheduled[0].when() <= self._now:
            self._ready.append(heapq.heappop(self._scheduled))
        if self._ready:
            self._steps += 1
            if self._steps > _MAX_STEPS:
                raise Stuck(f"no end after {_MAX_STEPS} steps")
            handle = self._draw()
            if not handle.cancelled():
                handle._run()
        if self.ending is not None:
            ending, self.ending = self.ending, None
            raise ending

    def _draw(self) -> asyncio.Handle:
        if self._dice is None:
            return self._ready.popleft()
        first: dict[object, int] = {}
        for index, handle in enumerate(self._ready):
            owner = getattr(handle._callback, "__self__", None)  # type: ignore[attr-defined]
            first.setdefault(owner if isinstance(owner, asyncio.Task) else None, index)
        index = self._dice.choice(list(first.values()))
        handle = self._ready[index]
        del self._ready[index]
        return handle

    def _write_to_self(self) -> None:
        """Wake up from a sleep: it never sleeps."""


class PlainCall:
    """A call of a plain function that can be driven as a coroutine is: each `checkpoint()` of its own is an await."""

    def __init__(self, function: Callable[..., object], *arguments: object) -> None:
        self.where: str = ""
        """The checkpoint that it stands at."""
        self._call: Callable[[], object] = lambda: function(*arguments)
        self._context = contextvars.copy_context()
        self._thread: threading.Thread | None = None
        self._baton, self._back = threading.Lock(), threading.Lock()
        """Taken while it is not the function's turn, and while it is; each is given back by the other side."""
        self._baton.acquire()
        self._back.acquire()
        self._hung = False
        self._thrown: BaseException | None = None
        self._outcome: BaseException | None = None

    def send(self, _: object) -> None:
        """Run to the next checkpoint, or to the end, which is raised: StopIteration for a return."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._context.run, args=(self._run,), name="workpool-explored")
            self._thread.daemon = True  # It ends with the run, unless the function waits for ever.
            self._thread.start()
        else:
            self._baton.release()
        if not self._back.acquire(timeout=_PATIENCE):
            self._hung = True
            frames = sys._current_frames().get(self._thread.ident or 0)
            stack = "".join(traceback.format_stack(frames))
            raise Hung(
                f"a plain function came neither to a checkpoint nor to its end in {_PATIENCE:g} s; "
                f"does it wait for a lock that another holds over a checkpoint?\n{stack}"
            )
        if self._outcome is not None:
            self._thread.join()
            raise self._outcome

    def throw(self, error: BaseException) -> None:
        """As `send`, but the checkpoint raises."""
        self._thrown = error
        self.send(None)

    def hand_over(self, where: str) -> None:
        """Let the loop go on, on the function's own thread, and wait for the next turn."""
        if self._hung:
            raise SystemExit  # Nobody waits for it any more, or gives it another turn.
        self.where = where
        self._back.release()
        self._baton.acquire()
        thrown, self._thrown = self._thrown, None
        if thrown is not None:
            raise thrown

    def _run(self) -> None:
        _here.call = self
        try:
            self._outcome = StopIteration(self._call())
        except StopIteration as error:
            self._outcome = RuntimeError("the handler raised StopIteration")
            self._outcome.__cause__ = error
        except BaseException as error:
            self._outcome = error
        self._back.release()


def checkpoint() -> None:
    """A place where `explore` may let other handlers go on before this plain function does.

    Put it where another thread could come in between: after a read, before the write that depends on it. It does
    nothing outside `explore`, so it may stay in the code; and nothing in a coroutine, where each await is such a place.
    """
    call: PlainCall | None = getattr(_here, "call", None)
    if call is not None:
        frame = sys._getframe(1)
        call.hand_over(_text(frame))


def place(call: Any) -> str:
    """Where a call stands, in the user's code: at a checkpoint or at an await."""
    if isinstance(call, PlainCall):
        return call.where
    found = None
    while (frame := getattr(call, "cr_frame", None)) is not None:
        if not frame.f_code.co_filename.startswith(asyncio.__path__[0]):
            found = frame
        call = call.cr_await
    return "" if found is None else _text(found)


def _text(frame: types.FrameType) -> str:
    return f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno} in {frame.f_code.co_name}"


@types.coroutine
def drive(call: Any, leave: Callable[[], None], enter: Callable[[], None]) -> Generator[Any, Any, Any]:
    """Await a coroutine, or a `PlainCall`, with a look each time that it leaves for the loop, and comes back."""
    advance, what = call.send, None
    while True:
        try:
            waits_for = advance(what)
        except StopIteration as done:
            return done.value
        leave()
        try:
            advance, what = call.send, (yield waits_for)
        except BaseException as error:
            advance, what = call.throw, error
        enter()


async def _run_plain(call: PlainCall) -> Any:
    return await drive(call, _nothing, _nothing)


def _nothing() -> None:
    pass
