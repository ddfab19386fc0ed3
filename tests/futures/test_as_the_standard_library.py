"""What a `ThreadPoolExecutor` with one thread does, the view of a key does: each test runs on both."""

from __future__ import annotations

import asyncio
import gc
import logging
import threading
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import (
    ALL_COMPLETED,
    FIRST_COMPLETED,
    FIRST_EXCEPTION,
    CancelledError,
    Executor,
    Future,
    ThreadPoolExecutor,
    as_completed,
)
from concurrent.futures import wait as wait_for
from contextvars import ContextVar, copy_context
from functools import partial
from typing import Any

import pytest

from support import PATIENCE, Gate, eventually, in_thread
from workpool import KeyedExecutor

MAKERS: dict[str, Callable[[], Executor]] = {
    "standard": lambda: ThreadPoolExecutor(1),
    "view": lambda: KeyedExecutor(2).for_key("k"),
}
WHOLE: dict[str, Callable[..., Any]] = {"standard": ThreadPoolExecutor, "keyed": KeyedExecutor}
REFUSAL = "^cannot schedule new futures after shutdown$"


@pytest.fixture(params=list(MAKERS.values()), ids=list(MAKERS))
def executor(request: pytest.FixtureRequest) -> Iterator[Executor]:
    made: Executor = request.param()
    yield made
    getattr(made, "_executor", made).shutdown()


@pytest.fixture(params=list(WHOLE.values()), ids=list(WHOLE))
def whole(request: pytest.FixtureRequest) -> Callable[..., Any]:
    """The class of an executor that owns its threads."""
    make: Callable[..., Any] = request.param
    return make


def submit(executor: Any, fn: Callable[..., Any], *args: Any) -> Future[Any]:
    """Submit to one that owns its threads, whether it wants a key or not."""
    key = ("k",) if isinstance(executor, KeyedExecutor) else ()
    future: Future[Any] = executor.submit(*key, fn, *args)
    return future


def blocked(executor: Any) -> tuple[Any, Future[Any]]:
    """A call that has started and does not end until its gate opens."""
    gate = Gate()
    future = executor.submit(gate, None)
    gate.wait_inside()
    return gate, future


def standing() -> tuple[Any, Any]:
    """A gate, and a list of who came through: neither returns what is of interest."""
    return Gate(), []


def fail(error: BaseException) -> None:
    raise error


class Payload:
    """Something that can be watched."""


class TestSubmit:
    def test_arguments_arrive_as_they_were_given_whatever_their_names(self, executor: Any) -> None:
        future = executor.submit(lambda *args, **kwargs: (args, kwargs), 1, 2, self=3, fn=4, key=5)
        assert future.result(PATIENCE) == ((1, 2), {"self": 3, "fn": 4, "key": 5})

    @pytest.mark.parametrize("kwargs", [{}, {"fn": print}, {"arg": 1}])
    def test_no_function_is_an_error_with_the_same_words(self, executor: Any, kwargs: Any) -> None:
        with pytest.raises(TypeError, match=r"submit\(\) missing 1 required positional argument: 'fn'"):
            executor.submit(**kwargs)

    def test_what_cannot_be_called_is_an_error_of_the_call(self, executor: Any) -> None:
        future = executor.submit(5)
        with pytest.raises(TypeError, match="'int' object is not callable"):
            future.result(PATIENCE)

    def test_calls_run_one_after_another_in_order(self, executor: Any) -> None:
        running: list[int] = []
        done: list[int] = []

        def call(number: int) -> None:
            running.append(number)
            assert len(running) == 1
            done.append(number)
            running.clear()

        for future in [executor.submit(call, number) for number in range(200)]:
            future.result(PATIENCE)
        assert done == list(range(200))

    @pytest.mark.parametrize("kind", [ValueError, SystemExit, KeyboardInterrupt, GeneratorExit, CancelledError])
    def test_whatever_a_call_raises_is_its_futures_and_the_next_runs(
        self, executor: Any, kind: type[BaseException], caplog: pytest.LogCaptureFixture
    ) -> None:
        error = kind("boom")
        future = executor.submit(fail, error)
        assert future.exception(PATIENCE) is error
        with pytest.raises(kind):
            future.result()
        assert executor.submit(pow, 2, 3).result(PATIENCE) == 8
        assert caplog.records == [], "it is told to whoever asks, and not logged"

    def test_a_result_that_is_late_is_waited_for_again(self, executor: Any) -> None:
        gate, future = blocked(executor)
        for ask in (future.result, future.exception):
            with pytest.raises(TimeoutError):
                ask(0)
        gate.open.set()
        assert (future.result(PATIENCE), future.exception()) == (None, None)

    def test_a_call_does_not_see_the_context_of_who_submits(self, executor: Any) -> None:
        variable: ContextVar[str] = ContextVar("variable", default="nobody's")
        executor.submit(int).result(PATIENCE)  # Its thread runs: some builds start one with a copy of the context.
        context = copy_context()
        context.run(variable.set, "of who submits")
        assert context.run(executor.submit, variable.get).result(PATIENCE) == "nobody's"
        assert executor.submit(context.run, variable.get).result(PATIENCE) == "of who submits"

    def test_a_call_may_submit_the_next(self, executor: Any) -> None:
        order: list[int] = []

        def call(number: int) -> Future[Any] | None:
            order.append(number)
            return executor.submit(call, number + 1) if number < 20 else None

        future: Future[Any] | None = executor.submit(call, 0)
        while future is not None:
            future = future.result(PATIENCE)
        assert order == list(range(21))


class TestCallbacks:
    def test_they_are_called_in_order_with_the_future_whether_it_ends_before_or_after(self, executor: Any) -> None:
        called: list[tuple[str, object]] = []
        gate, future = blocked(executor)
        future.add_done_callback(lambda future: called.append(("first", future)))
        future.add_done_callback(lambda future: called.append(("second", future)))
        assert called == []
        gate.open.set()
        executor.submit(int).result(PATIENCE)
        future.add_done_callback(lambda future: called.append(("third", future)))
        assert called == [("first", future), ("second", future), ("third", future)]

    def test_one_that_raises_is_logged_and_nothing_else_suffers(
        self, executor: Any, caplog: pytest.LogCaptureFixture
    ) -> None:
        called: list[object] = []
        gate, future = blocked(executor)
        future.add_done_callback(lambda future: fail(ValueError("boom")))
        future.add_done_callback(called.append)
        gate.open.set()
        assert executor.submit(pow, 2, 3).result(PATIENCE) == 8
        assert called == [future]
        [record] = caplog.records
        assert (record.name, record.levelno) == ("concurrent.futures", logging.ERROR)

    def test_one_may_submit(self, executor: Any) -> None:
        submitted: list[Future[int]] = []
        gate, future = blocked(executor)
        future.add_done_callback(lambda future: submitted.append(executor.submit(pow, 2, 3)))
        gate.open.set()
        eventually(lambda: bool(submitted))
        assert submitted[0].result(PATIENCE) == 8

    def test_those_of_a_cancelled_future_are_called_by_who_cancels(self, executor: Any) -> None:
        called: list[object] = []
        gate, _ = blocked(executor)
        future = executor.submit(int)
        future.add_done_callback(lambda future: called.append(threading.get_ident()))
        assert future.cancel()
        assert called == [threading.get_ident()]
        gate.open.set()


class TestCancel:
    def test_one_that_waits_is_never_run_and_the_rest_are_in_order(self, executor: Any) -> None:
        order: list[int] = []
        gate, first = blocked(executor)
        futures = [executor.submit(order.append, number) for number in range(6)]
        for number in (0, 3, 5):
            assert futures[number].cancel()
            assert (futures[number].cancelled(), futures[number].done(), futures[number].running()) == (
                True,
                True,
                False,
            )
            with pytest.raises(CancelledError):
                futures[number].result(0)
            with pytest.raises(CancelledError):
                futures[number].exception(0)
        gate.open.set()
        executor.submit(int).result(PATIENCE)
        assert order == [1, 2, 4]
        assert first.result() is None

    def test_one_that_has_started_or_ended_cannot_be_cancelled(self, executor: Any) -> None:
        gate, future = blocked(executor)
        assert future.running()
        assert not future.cancel()
        gate.open.set()
        future.result(PATIENCE)
        assert not future.cancel()
        assert not future.cancelled()

    def test_cancelling_again_is_true_again_and_tells_once(self, executor: Any) -> None:
        called: list[object] = []
        gate, _ = blocked(executor)
        future = executor.submit(int)
        future.add_done_callback(called.append)
        assert [future.cancel() for _ in range(3)] == [True] * 3
        gate.open.set()
        executor.submit(int).result(PATIENCE)
        assert future.cancel()
        assert called == [future]

    def test_a_call_may_cancel_those_behind_it_and_not_itself(self, executor: Any) -> None:
        cancelled: list[bool] = []
        ran: list[int] = []
        gate, _ = blocked(executor)
        futures: list[Future[Any]] = []
        futures.append(executor.submit(lambda: cancelled.extend(future.cancel() for future in futures)))
        futures.extend(executor.submit(ran.append, number) for number in range(3))
        futures.pop()
        gate.open.set()
        executor.submit(int).result(PATIENCE)
        assert (cancelled, ran) == ([False, True, True], [2])


class TestWaiters:
    def test_wait_returns_by_each_of_its_conditions(self, executor: Any) -> None:
        gate, first = blocked(executor)
        error, last = executor.submit(fail, ValueError()), executor.submit(int)
        assert wait_for([first, error, last], 0) == (set(), {first, error, last})
        completed = in_thread(partial(wait_for, [first, error, last], PATIENCE, FIRST_COMPLETED))
        failed = in_thread(partial(wait_for, [first, error, last], PATIENCE, FIRST_EXCEPTION))
        gate.open.set()
        assert first in completed().done
        assert error in failed().done
        assert wait_for([first, error, last], PATIENCE, ALL_COMPLETED).not_done == set()

    def test_as_completed_gives_each_as_it_ends(self, executor: Any) -> None:
        gate, first = blocked(executor)
        done = executor.submit(int)
        ended = as_completed([done, first], PATIENCE)
        gate.open.set()
        assert set(ended) == {first, done}

    def test_as_completed_gives_up_in_time(self, executor: Any) -> None:
        gate, first = blocked(executor)
        with pytest.raises(TimeoutError, match=r"1 \(of 1\) futures unfinished"):
            next(as_completed([first], 0))
        gate.open.set()

    def test_a_loop_awaits_its_calls_in_order(self, executor: Any) -> None:
        order: list[int] = []

        def call(number: int) -> int:
            order.append(number)
            return number

        async def main() -> list[int]:
            loop = asyncio.get_running_loop()
            return await asyncio.gather(*(loop.run_in_executor(executor, call, number) for number in range(20)))

        assert asyncio.run(main()) == order == list(range(20))

    def test_a_loop_that_cancels_its_future_cancels_the_call(self, executor: Any) -> None:
        ran: list[int] = []

        async def main() -> None:
            loop = asyncio.get_running_loop()
            gate, _ = blocked(executor)
            calls = [loop.run_in_executor(executor, ran.append, number) for number in range(3)]
            calls[1].cancel()
            await asyncio.wait([calls[1]])
            await asyncio.wait_for(loop.run_in_executor(None, gate.open.set), PATIENCE)
            await asyncio.wait(calls)

        asyncio.run(main())
        assert ran == [0, 2]


class TestMap:
    def test_results_come_in_the_order_of_the_items(self, executor: Any) -> None:
        assert list(executor.map(pow, range(10), [2] * 12)) == [number**2 for number in range(10)]
        assert list(executor.map(str, range(3), chunksize=2)) == ["0", "1", "2"]

    def test_all_are_submitted_before_the_first_result_is_asked_for(self, executor: Any) -> None:
        done: list[int] = []
        executor.map(done.append, range(3))
        executor.submit(int).result(PATIENCE)
        assert done == [0, 1, 2]

    def test_an_exception_comes_in_its_place_and_ends_the_results(self, executor: Any) -> None:
        results = executor.map(lambda number: 6 // number, [3, 2, 0, 1])
        assert [next(results), next(results)] == [2, 3]
        with pytest.raises(ZeroDivisionError):
            next(results)
        assert list(results) == []

    def test_a_time_out_cancels_what_has_not_started(self, executor: Any) -> None:
        gate, ran = standing()
        results = executor.map(lambda number: gate(number) or ran.append(number), [1, 2, 3], timeout=0)
        gate.wait_inside()
        with pytest.raises(TimeoutError):
            next(results)
        gate.open.set()
        executor.submit(int).result(PATIENCE)
        assert ran == [1]

    def test_a_time_out_that_is_not_reached_does_nothing(self, executor: Any) -> None:
        assert list(executor.map(abs, [-1, -2], timeout=PATIENCE)) == [1, 2]

    @pytest.mark.parametrize("end", ["close", "drop"])
    def test_who_ends_the_results_early_cancels_the_rest(self, executor: Any, end: str) -> None:
        gate, ran = standing()
        results: Any = executor.map(lambda number: ran.append(number) or (number == 2 and gate(number)), range(1, 6))
        next(results)
        gate.wait_inside()
        if end == "close":
            results.close()
        del results
        gate.open.set()
        executor.submit(int).result(PATIENCE)
        assert ran == [1, 2]

    def test_items_that_raise_do_so_at_once_and_those_before_run(self, executor: Any) -> None:
        ran: list[int] = []

        def items() -> Iterator[int]:
            yield 1
            yield 2
            raise ValueError("no more")

        with pytest.raises(ValueError, match="no more"):
            executor.map(ran.append, items())
        executor.submit(int).result(PATIENCE)
        assert ran == [1, 2]

    def test_a_result_that_was_given_is_not_kept(self, executor: Any) -> None:
        results = executor.map(lambda number: Payload(), range(3))
        for _ in range(3):
            result = weakref.ref(next(results))
            eventually(lambda: result() is None)  # noqa: B023


class TestShutdown:
    def test_leaving_the_block_waits_for_all(self, executor: Any) -> None:
        done: list[int] = []
        with executor:
            for number in range(50):
                executor.submit(done.append, number)
        assert done == list(range(50))

    def test_leaving_it_by_an_exception_does_too(self, executor: Any) -> None:
        done: list[int] = []
        with pytest.raises(ValueError, match="boom"), executor:  # noqa: PT012
            for number in range(50):
                executor.submit(done.append, number)
            raise ValueError("boom")
        assert done == list(range(50))

    def test_afterwards_it_refuses_with_the_same_words(self, executor: Any) -> None:
        executor.shutdown()
        with pytest.raises(RuntimeError, match=REFUSAL):
            executor.submit(int)
        with pytest.raises(RuntimeError, match=REFUSAL):
            executor.map(int, [1])

    def test_a_call_of_its_own_is_refused_too(self, executor: Any) -> None:
        gate: Any = Gate()
        future = executor.submit(lambda: gate(0) or executor.submit(int))
        gate.wait_inside()
        executor.shutdown(wait=False)
        gate.open.set()
        with pytest.raises(RuntimeError, match=REFUSAL):
            future.result(PATIENCE)

    def test_without_waiting_it_returns_at_once_and_all_are_done(self, executor: Any) -> None:
        gate, _ = blocked(executor)
        last = executor.submit(pow, 2, 3)
        executor.shutdown(wait=False)
        assert not last.done()
        gate.open.set()
        assert last.result(PATIENCE) == 8

    def test_it_may_be_asked_for_twice_and_from_many_threads(self, executor: Any) -> None:
        gate, first = blocked(executor)
        shutting = [in_thread(executor.shutdown) for _ in range(3)]
        executor.shutdown(wait=False)
        gate.open.set()
        for done in shutting:
            done()
        executor.shutdown(True, cancel_futures=True)
        assert first.result(0) is None

    def test_what_has_not_started_can_be_cancelled(self, executor: Any) -> None:
        gate, first = blocked(executor)
        rest = [executor.submit(int) for _ in range(50)]
        executor.shutdown(wait=False, cancel_futures=True)
        gate.open.set()
        executor.shutdown()
        assert all(future.cancelled() for future in rest)
        assert first.result(0) is None

    def test_results_of_a_map_are_there_after_it(self, executor: Any) -> None:
        results = executor.map(str, range(10))
        executor.shutdown()
        assert "".join(results) == "0123456789"

    def test_an_argument_too_many_is_an_error_with_the_same_words(self, executor: Any) -> None:
        with pytest.raises(TypeError, match=r"shutdown\(\) takes from 1 to 2 positional arguments but 3 were given"):
            executor.shutdown(True, True)


class TestReferences:
    def test_arguments_are_released_when_the_call_has_ended(self, executor: Any) -> None:
        payload = Payload()
        seen = weakref.ref(payload)
        futures = [executor.submit(id, payload), executor.submit(lambda *, word: None, word=payload)]
        del payload
        wait_for(futures, PATIENCE)
        eventually(lambda: seen() is None)

    def test_a_function_is_released_when_its_call_has_failed_and_its_error_is_dropped(self, executor: Any) -> None:
        payload = Payload()
        seen = weakref.ref(payload)
        gc.disable()
        try:
            future = executor.submit(lambda payload: 1 / 0, payload)
            del payload
            assert isinstance(future.exception(PATIENCE), ZeroDivisionError)
            del future
            eventually(lambda: seen() is None)
        finally:
            gc.enable()

    @pytest.mark.parametrize("way", ["exception", "result", "map"])
    def test_an_exception_makes_no_cycle(self, executor: Any, way: str) -> None:
        class Boom(Exception):
            pass

        def boom(item: int) -> None:
            raise Boom

        gc.disable()
        try:
            seen = self.fail(executor, boom, Boom, way)
            eventually(lambda: seen() is None)
        finally:
            gc.enable()

    def fail(self, executor: Any, boom: Any, kind: type[Exception], way: str) -> weakref.ref[BaseException]:
        if way == "exception":
            return weakref.ref(executor.submit(boom, 0).exception(PATIENCE) or Exception())
        try:
            if way == "map":
                list(executor.map(boom, [1, 2]))
            else:
                executor.submit(boom, 0).result(PATIENCE)
        except kind as error:
            return weakref.ref(error)
        raise AssertionError("it has not raised")

    def test_a_result_is_released_with_its_future(self, executor: Any) -> None:
        future = executor.submit(Payload)
        seen = weakref.ref(future.result(PATIENCE))
        assert seen() is not None
        del future
        eventually(lambda: seen() is None)

    def test_a_refused_call_is_dropped_at_once(self, executor: Any) -> None:
        executor.shutdown()
        payload = Payload()
        seen = weakref.ref(payload)
        gc.disable()
        try:
            with pytest.raises(RuntimeError, match=REFUSAL) as caught:
                executor.submit(id, payload)
            del payload, caught
            assert seen() is None
        finally:
            gc.enable()


class TestWhole:
    """Of an executor that owns its threads."""

    @pytest.mark.parametrize("number", [0, -1])
    def test_too_few_workers_is_an_error_with_the_same_words(self, whole: Callable[..., Any], number: int) -> None:
        with pytest.raises(ValueError, match=r"^max_workers must be greater than 0$"):
            whole(max_workers=number)

    def test_a_number_of_workers_that_is_none_is_an_error(self, whole: Callable[..., Any]) -> None:
        with pytest.raises(TypeError):
            whole("two")

    def test_a_shutdown_of_one_that_never_ran_anything_returns(self, whole: Callable[..., Any]) -> None:
        executor = whole(2)
        for _ in range(2):
            executor.shutdown()
        with pytest.raises(RuntimeError, match=REFUSAL):
            submit(executor, int)

    def test_its_threads_are_gone_when_the_block_is_left(self, whole: Callable[..., Any]) -> None:
        before = set(threading.enumerate())
        with whole(3) as executor:
            for _ in range(10):
                submit(executor, int)
            during = set(threading.enumerate()) - before
        assert during
        assert not any(thread.is_alive() for thread in during)

    def test_whoever_submits_while_it_is_shut_down_is_refused_or_served(self, whole: Callable[..., Any]) -> None:
        for cancel in (False, True) * 5:
            executor = whole(2)
            futures: list[Future[Any]] = []
            refused: list[str] = []
            barrier = threading.Barrier(4, timeout=PATIENCE)

            def go_on() -> None:
                barrier.wait()  # noqa: B023
                try:
                    for number in range(100_000):
                        futures.append(submit(executor, abs, -number))  # noqa: B023
                        if number > 20:
                            eventually(lambda: True)
                except RuntimeError as error:
                    refused.append(str(error))  # noqa: B023

            submitting = [in_thread(go_on) for _ in range(3)]
            barrier.wait()
            eventually(lambda: len(futures) > 10)  # noqa: B023
            executor.shutdown(cancel_futures=cancel)
            for done in submitting:
                done()
            assert refused == [REFUSAL.strip("^$")] * 3
            assert all(future.done() for future in futures)
            assert cancel or all(not future.cancelled() for future in futures)

    @pytest.mark.parametrize("cancel", [False, True])
    def test_a_call_that_submits_after_a_shutdown_is_refused(self, whole: Callable[..., Any], cancel: bool) -> None:
        """Although it is one of those that are finished."""
        executor = whole(1)
        gate: Any = Gate()
        ran: list[int] = []
        future = submit(executor, lambda: gate(None) or submit(executor, ran.append, 1))
        gate.wait_inside()
        executor.shutdown(wait=False, cancel_futures=cancel)
        gate.open.set()
        with pytest.raises(RuntimeError, match=REFUSAL):
            future.result(PATIENCE)
        executor.shutdown()
        assert ran == []

    def test_what_was_submitted_before_it_was_forgotten_is_done_and_its_threads_end(
        self, whole: Callable[..., Any]
    ) -> None:
        before = set(threading.enumerate())
        executor = whole(1)
        gate = Gate()
        first = submit(executor, gate, None)
        last = submit(executor, pow, 2, 3)
        gate.wait_inside()
        threads = set(threading.enumerate()) - before
        seen = weakref.ref(executor)
        del executor
        assert seen() is None, "no future and no thread holds it"
        assert not last.done()
        gate.open.set()
        assert (first.result(PATIENCE), last.result(PATIENCE)) == (None, 8)
        for thread in threads:
            thread.join(PATIENCE)
            assert not thread.is_alive()

    def test_one_that_is_forgotten_by_its_own_call_ends_its_threads(self, whole: Callable[..., Any]) -> None:
        before = set(threading.enumerate())
        held = [whole(2)]
        future = submit(held[0], held.clear)
        future.result(PATIENCE)
        eventually(lambda: not set(threading.enumerate()) - before)
