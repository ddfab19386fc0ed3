"""An executor whose calls end as a test says."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import BrokenExecutor, Executor, Future
from typing import Any, ParamSpec, TypeVar, cast

P = ParamSpec("P")
T = TypeVar("T")


class Inline(Executor):
    """Runs each call at once, on the thread that submits it, unless the next word of its script says otherwise.

    Args:
        script: For each call "run", "break" (it is lost before it starts), "lose" (after it has run), "cancel" or
            "refuse", from which on it is shut down. Where the words end, all are run.
    """

    def __init__(self, *script: str) -> None:
        self.script = list(script)
        self.calls: list[tuple[Any, ...]] = []
        self.results: list[object] = []
        self.ends: list[bool] = []
        """Whether each `shutdown` was to wait."""

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        word = self.script.pop(0) if self.script else "run"
        if word == "refuse":
            self.script.insert(0, word)
        if word == "refuse" or self.ends:
            raise RuntimeError("cannot schedule new futures after shutdown")
        self.calls.append((fn, *args))
        future: Future[T] = Future()
        if word == "cancel":
            future.cancel()
            future.set_running_or_notify_cancel()
            return future
        if word == "break":
            future.set_exception(BrokenExecutor("a process was killed"))
            return future
        try:
            self.results.append(fn(*args, **kwargs))
        except BaseException as error:
            future.set_exception(error)
        else:
            if word == "lose":
                future.set_exception(BrokenExecutor("a process was killed"))
            else:
                future.set_result(cast(T, self.results[-1]))
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        self.ends.append(wait)


class Factory:
    """Makes the executors that it is given, one after the other, then such as run all calls."""

    def __init__(self, *executors: Executor) -> None:
        self.to_make = list(executors)
        self.made: list[Any] = []

    def __call__(self) -> Executor:
        self.made.append(self.to_make.pop(0) if self.to_make else Inline())
        made: Executor = self.made[-1]
        return made
