"""What the keys of a `KeyedExecutor` are for: order in each, none in the way of another, and views of one."""

from __future__ import annotations

import concurrent.futures
import random
import threading
import weakref
from collections.abc import Iterator
from concurrent.futures import Executor, Future
from concurrent.futures import wait as wait_for
from typing import Any

import pytest

from support import PATIENCE, Gate, eventually, in_thread, wait
from workpool import KeyedExecutor

REFUSAL = "^cannot schedule new futures after shutdown$"


@pytest.fixture
def executor() -> Iterator[KeyedExecutor]:
    with KeyedExecutor(4) as made:
        yield made


class Payload:
    """Something that can be watched, and its item."""

    def __init__(self, item: object) -> None:
        self.item = item


def blocked(executor: KeyedExecutor, key: object) -> Gate:
    gate = Gate()
    executor.submit(key, gate, None)
    gate.wait_inside()
    return gate


@pytest.mark.parametrize("seed", range(3))
def test_calls_of_a_key_run_in_order_and_never_two_at_once(executor: KeyedExecutor, seed: int) -> None:
    chance = random.Random(seed)
    running: set[int] = set()
    done: dict[int, list[int]] = {key: [] for key in range(5)}

    def call(key: int, number: int) -> None:
        assert key not in running
        running.add(key)
        done[key].append(number)
        running.discard(key)

    futures = []
    for number in range(500):
        key = chance.randrange(5)
        futures.append(executor.submit(key, call, key, number))
    for future in futures:
        future.result(PATIENCE)
    assert all(numbers == sorted(numbers) for numbers in done.values()), seed
    assert sum(map(len, done.values())) == 500


def test_a_key_that_is_busy_delays_no_other(executor: KeyedExecutor) -> None:
    gates = [blocked(executor, key) for key in ("a", "b", "c")]
    waiting = [executor.submit(key, int) for key in ("a", "b", "c") for _ in range(100)]
    assert [executor.submit(key, abs, -key).result(PATIENCE) for key in range(100)] == list(range(100))
    assert not any(future.done() for future in waiting)
    for gate in gates:
        gate.open.set()


def test_keys_run_side_by_side_up_to_the_number_of_workers(executor: KeyedExecutor) -> None:
    barrier = threading.Barrier(4, timeout=PATIENCE)
    assert sorted(future.result(PATIENCE) for future in [executor.submit(key, barrier.wait) for key in range(4)]) == [
        0, 1, 2, 3,
    ]  # fmt: skip
    gates = [blocked(executor, key) for key in range(4)]
    fifth = executor.submit(4, int)
    assert not fifth.running()
    for gate in gates:
        gate.open.set()
    assert fifth.result(PATIENCE) == 0


def test_a_key_whose_call_failed_goes_on(executor: KeyedExecutor) -> None:
    failed = executor.submit("a", lambda: 1 / 0)
    assert executor.submit("a", pow, 2, 3).result(PATIENCE) == 8
    assert isinstance(failed.exception(PATIENCE), ZeroDivisionError)


def test_a_key_that_cannot_be_hashed_is_an_error_and_nothing_is_submitted(executor: KeyedExecutor) -> None:
    key: Any = []
    for call in (lambda: executor.submit(key, int), lambda: executor.for_key(key)):
        with pytest.raises(TypeError, match="unhashable type: 'list'"):
            call()
    assert executor._pool.stats().added == 0


def test_keys_and_arguments_have_no_name_in_common(executor: KeyedExecutor) -> None:
    future = executor.submit("k", lambda *args, **kwargs: (args, kwargs), 1, self=2, key=3, fn=4)
    assert future.result(PATIENCE) == ((1,), {"self": 2, "key": 3, "fn": 4})


@pytest.mark.parametrize(
    ("args", "missing"), [((), "2 required positional arguments: 'key' and 'fn'"), (("k",), "'fn'")]
)
def test_no_function_is_an_error(executor: Any, args: Any, missing: str) -> None:
    with pytest.raises(TypeError, match=rf"^KeyedExecutor.submit\(\) missing .*{missing}$"):
        executor.submit(*args)


@pytest.mark.parametrize("number", [1.5, "two"])
def test_a_number_of_workers_that_is_not_whole_is_an_error(number: Any) -> None:
    with pytest.raises(TypeError, match=f"max_workers must be a whole number, and {number!r} is not"):
        KeyedExecutor(number)


def test_an_idle_key_leaves_nothing(executor: Any) -> None:
    wait_for([executor.submit(key, int) for key in range(1000)], PATIENCE)
    eventually(lambda: executor._pool.stats().keys == 0)
    assert executor._pool._core.lanes == {}


class TestMap:
    def test_items_of_a_key_are_in_order_and_results_in_that_of_the_items(self, executor: KeyedExecutor) -> None:
        done: dict[int, list[int]] = {key: [] for key in range(3)}

        def call(item: int) -> int:
            done[item % 3].append(item)
            return -item

        assert list(executor.map(call, range(100), key=lambda item: item % 3)) == [-item for item in range(100)]
        assert all(items == sorted(items) for items in done.values())

    def test_a_late_result_is_waited_for_and_those_behind_are_not_lost(self, executor: KeyedExecutor) -> None:
        gate = Gate()
        results = executor.map(lambda item: gate(item) if item == 0 else item, range(4), key=abs)
        gate.wait_inside()
        first = in_thread(lambda: next(results))
        gate.open.set()
        assert first() is None
        assert list(results) == [1, 2, 3]

    def test_a_time_out_cancels_what_has_not_started_of_any_key(self, executor: KeyedExecutor) -> None:
        gate: Any = Gate()
        ran: Any = []
        results = executor.map(
            lambda item: gate(item) or ran.append(item), range(12), key=lambda item: item % 4, timeout=0
        )
        gate.wait_inside(4)
        with pytest.raises(TimeoutError):
            next(results)
        assert executor._pool.stats().cancelled == 8
        gate.open.set()
        executor.shutdown()
        assert sorted(ran) == [0, 1, 2, 3]

    def test_an_exception_cancels_what_has_not_started(self, executor: KeyedExecutor) -> None:
        gate: Any = Gate()
        results = executor.map(lambda item: 1 // item if item < 1 else gate(item), range(3), key=bool)
        gate.wait_inside()
        with pytest.raises(ZeroDivisionError):
            list(results)
        assert executor._pool.stats().cancelled == 1
        gate.open.set()

    def test_closing_the_results_early_cancels_the_rest(self, executor: KeyedExecutor) -> None:
        gate: Any = Gate()
        results: Any = executor.map(lambda item: item and gate(item), range(10), key=lambda item: "all")
        assert next(results) == 0
        gate.wait_inside()
        results.close()
        assert executor._pool.stats().cancelled == 8
        gate.open.set()

    def test_items_and_keys_that_raise_do_so_at_once_and_those_before_run(self, executor: KeyedExecutor) -> None:
        ran: list[int] = []
        unhashable: Any = []
        with pytest.raises(ZeroDivisionError):
            executor.map(ran.append, [2, 1, 0, 3], key=lambda item: 1 // item)
        with pytest.raises(TypeError, match="unhashable"):
            executor.map(ran.append, [4], key=lambda item: unhashable)
        executor.shutdown()
        assert sorted(ran) == [1, 2]

    def test_after_a_shutdown_it_refuses(self, executor: KeyedExecutor) -> None:
        executor.shutdown()
        with pytest.raises(RuntimeError, match=REFUSAL):
            executor.map(int, [1], key=int)

    def test_neither_a_result_that_was_given_nor_its_item_is_kept(
        self, executor: KeyedExecutor, no_collector: None
    ) -> None:
        """Nor by the results, while they are not at their end."""
        results = executor.map(Payload, [Payload(None) for _ in range(3)], key=id)
        for _ in range(3):
            given = next(results)
            seen: list[weakref.ref[Any]] = [weakref.ref(given), weakref.ref(given.item)]
            assert all(each() is not None for each in seen)
            del given
            eventually(lambda: not any(each() for each in seen))  # noqa: B023
        assert list(results) == []

    def test_an_exception_makes_no_cycle(self, executor: KeyedExecutor, no_collector: None) -> None:
        class Boom(Exception):
            pass

        def boom(item: int) -> None:
            raise Boom

        def fail() -> weakref.ref[BaseException]:
            try:
                list(executor.map(boom, [1, 2], key=abs))
            except Boom as error:
                return weakref.ref(error)
            raise AssertionError("it has not raised")

        seen = fail()
        eventually(lambda: seen() is None)


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Tells that somebody waits for futures."""
    waits, wait_for = threading.Event(), concurrent.futures.wait

    def tell_and_wait(futures: list[Future[Any]]) -> Any:
        if futures:
            waits.set()
        return wait_for(futures)

    monkeypatch.setattr(concurrent.futures, "wait", tell_and_wait)
    return waits


class TestView:
    def test_it_is_an_executor_in_the_order_of_its_key_whoever_submits(self, executor: KeyedExecutor) -> None:
        order: list[int] = []
        views = [executor.for_key("a"), executor.for_key("a")]
        assert all(isinstance(view, Executor) for view in views)
        gate = blocked(executor, "a")
        for number in range(30):
            if number % 3 == 2:
                executor.submit("a", order.append, number)
            else:
                views[number % 3].submit(order.append, number)
        gate.open.set()
        executor.shutdown()
        assert order == list(range(30))

    def test_its_shutdown_refuses_on_it_only(self, executor: KeyedExecutor) -> None:
        view, other = executor.for_key("a"), executor.for_key("a")
        view.shutdown()
        with pytest.raises(RuntimeError, match=REFUSAL):
            view.submit(int)
        assert other.submit(pow, 2, 3).result(PATIENCE) == executor.submit("a", pow, 2, 3).result(PATIENCE) == 8

    def test_its_shutdown_waits_for_its_own_only(self, executor: KeyedExecutor, waits: threading.Event) -> None:
        view = executor.for_key("a")
        done: list[int] = []
        before, busy = blocked(executor, "a"), blocked(executor, "b")
        view.submit(done.append, 1)
        after = Gate()
        executor.submit("a", after, None)
        over: list[None] = []
        shut = in_thread(lambda: over.append(view.shutdown()))  # type: ignore[func-returns-value]
        eventually(lambda: waits.is_set() or bool(over))
        assert not over
        before.open.set()
        shut()
        assert done == [1]
        after.open.set()
        busy.open.set()

    @pytest.mark.parametrize("call", [int, None])
    def test_its_shutdown_waits_for_the_callbacks_of_its_last_call(self, executor: KeyedExecutor, call: Any) -> None:
        """Those of the standard library do, because they wait for the threads."""
        view: Any = executor.for_key("a")
        before, callback, waits = blocked(executor, "a"), Gate(), threading.Event()
        future = view.submit(call)  # To call None raises.
        future.add_done_callback(callback)
        end = view._futures[future]

        class Seen:
            def __enter__(self) -> None:
                waits.set()
                end.acquire()

            def __exit__(self, *_: object) -> None:
                end.release()

        view._futures[future] = Seen()
        over: list[None] = []
        before.open.set()
        callback.wait_inside()
        shut = in_thread(lambda: over.append(view.shutdown()))
        eventually(lambda: waits.is_set() or bool(over))
        assert future.done()
        assert not over
        callback.open.set()
        shut()
        assert not view._futures

    def test_its_shutdown_cancels_its_own_only(self, executor: KeyedExecutor) -> None:
        view = executor.for_key("a")
        gate = blocked(executor, "a")
        own = [view.submit(int) for _ in range(3)]
        others = [executor.submit("a", int), executor.for_key("a").submit(int)]
        view.shutdown(cancel_futures=True)
        assert all(future.cancelled() for future in own)
        assert executor._pool.stats().cancelled == 3
        gate.open.set()
        assert [future.result(PATIENCE) for future in others] == [0, 0]

    @pytest.mark.parametrize("key", ["a", "b"])
    def test_its_shutdown_from_a_call_returns_at_once(self, executor: KeyedExecutor, key: str) -> None:
        """It would wait for itself, or for a call that may wait for it. The standard library raises there."""
        view: Any = executor.for_key("a")
        gate = Gate()
        own = view.submit(gate, None) if key == "b" else None
        calling = (view if key == "a" else executor.for_key(key)).submit(view.shutdown)
        waits = wait_for([calling], PATIENCE).not_done
        for future in waits:
            future.set_result(None)  # Lets go on what waits for itself, which would hang here for ever.
            for end in view._futures.values():
                end.release()
        gate.open.set()
        assert not waits
        assert calling.result(0) is None
        with pytest.raises(RuntimeError, match=REFUSAL):
            view.submit(int)
        assert own is None or own.result(PATIENCE) is None

    def test_it_is_shut_down_with_its_executor(self, executor: KeyedExecutor) -> None:
        view = executor.for_key("a")
        executor.shutdown()
        with pytest.raises(RuntimeError, match=REFUSAL):
            view.submit(int)
        view.shutdown()

    def test_it_keeps_none_that_has_ended(self, executor: KeyedExecutor) -> None:
        view: Any = executor.for_key("a")
        gate = blocked(executor, "a")
        futures = [view.submit(int), view.submit(lambda: 1 / 0), view.submit(int)]
        futures[2].cancel()
        gate.open.set()
        wait_for(futures, PATIENCE)
        eventually(lambda: not view._futures)
        executor.shutdown()
        with pytest.raises(RuntimeError):
            view.submit(int)
        assert not view._futures

    def test_what_it_accepts_while_it_is_shut_down_is_waited_for(
        self, executor: KeyedExecutor, monkeypatch: pytest.MonkeyPatch, waits: threading.Event
    ) -> None:
        """The shutdown comes when a call has been let in and has not reached the pool."""
        arrived, go = threading.Event(), threading.Event()
        submit = KeyedExecutor._submit

        def submit_late(self: KeyedExecutor, future: Any) -> None:
            arrived.set()
            wait(go)
            submit(self, future)

        monkeypatch.setattr(KeyedExecutor, "_submit", submit_late)
        view = executor.for_key("a")
        submitting = in_thread(lambda: view.submit(pow, 2, 3))
        wait(arrived)
        over: list[None] = []
        shut = in_thread(lambda: over.append(view.shutdown()))  # type: ignore[func-returns-value]
        eventually(lambda: waits.is_set() or bool(over))
        assert not over
        go.set()
        shut()
        future: Future[int] = submitting()
        assert future.result(0) == 8
