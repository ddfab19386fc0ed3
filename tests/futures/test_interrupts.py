"""P11 on futures: an exception between any two lines of a call leaves nothing that hangs, and nothing half done."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import wait as wait_for
from functools import partial
from typing import Any

import pytest

from support import PATIENCE, Gate, adds_up, in_thread
from tracer import cut_calls
from workpool import KeyedExecutor


def cut_at_each_line(make_call: Callable[[KeyedExecutor, list[Any]], Callable[[], object]]) -> None:
    """Cut a call of an executor that has one worker, which is busy; then all that was accepted runs, and it ends."""
    for at in range(1, 1000):
        gate = Gate()
        ran: list[Any] = []
        executor = KeyedExecutor(1)
        executor.submit("busy", gate, None)
        gate.wait_inside()
        was_cut, where = cut_calls(make_call(executor, ran), at)
        executor._pool._step(executor._pool._core.check_invariants)
        gate.open.set()
        in_thread(executor.shutdown)()
        stats = executor._pool.stats()
        assert adds_up(stats), where
        assert (stats.in_flight, stats.waiting) == (0, 0), where
        assert ran in ([], [1], [1, 2], [1, 2, 3]), where
        if not was_cut:
            assert at > 5, "the tracer has seen no lines"
            assert ran == [1, 2, 3]
            return
    raise AssertionError("there is no end of lines")


def test_submit() -> None:
    def submit(executor: KeyedExecutor, ran: list[Any]) -> Callable[[], object]:
        return lambda: [executor.submit("a", ran.append, number) for number in (1, 2, 3)]

    cut_at_each_line(submit)


def test_map() -> None:
    def map_all(executor: KeyedExecutor, ran: list[Any]) -> Callable[[], object]:
        return partial(executor.map, ran.append, (1, 2, 3), key=lambda item: "a")

    cut_at_each_line(map_all)


def test_submit_on_a_view_whose_shutdown_then_waits_for_nothing_that_never_ends() -> None:
    def submit(executor: KeyedExecutor, ran: list[Any]) -> Callable[[], object]:
        view: Any = executor.for_key("a")
        for number in (1, 2):
            view.submit(ran.append, number)

        def end_view(ended: Callable[[], object]) -> None:
            ended()
            in_thread(view.shutdown)()
            assert not view._futures

        ends.append(partial(end_view, executor.shutdown))
        executor.shutdown = lambda *args, **kwargs: ends.pop()()  # type: ignore[method-assign]
        return partial(view.submit, ran.append, 3)

    ends: list[Callable[[], None]] = []
    cut_at_each_line(submit)


@pytest.mark.parametrize("whose", ["executor", "view"])
@pytest.mark.parametrize("cancel", [False, True])
def test_a_shutdown_that_is_interrupted_is_made_good_by_the_next(whose: str, cancel: bool) -> None:
    for at in range(1, 1000):
        gate = Gate()
        executor = KeyedExecutor(1)
        executor.submit("busy", gate, None)
        gate.wait_inside()
        view: Any = executor.for_key("a")
        futures: list[Future[int]] = [view.submit(int) for _ in range(3)]
        shutdown = (executor if whose == "executor" else view).shutdown
        was_cut, where = cut_calls(partial(shutdown, False, cancel_futures=cancel), at)
        gate.open.set()
        in_thread(partial(shutdown, cancel_futures=cancel))()
        in_thread(executor.shutdown)()
        for future in futures:
            future.cancel()  # Of those that are cancelled, it tells whoever waits.
        assert wait_for(futures, PATIENCE).not_done == set(), where
        assert cancel or [future.result() for future in futures] == [0, 0, 0], where
        assert adds_up(executor._pool.stats()), where
        if not was_cut:
            assert at > 2, "the tracer has seen no lines"
            assert all(future.cancelled() for future in futures) is cancel
            return
    raise AssertionError("there is no end of lines")
