"""P8: an ending says what became of every event, may be asked for anywhere, and leaves nothing behind."""

from __future__ import annotations

import threading
from functools import partial
from typing import Any

import pytest

from support import PATIENCE, Driver, Ear, Gate, begin, eventually, has_adders, in_thread, threads_of_pools, wait
from workpool import DrainIncomplete, HandlerError, PoolClosed, StopTimeout
from workpool.records import State


def test_drain_finishes_all_that_was_accepted(driver: Driver) -> None:
    handled: list[int] = []
    pool = driver.pool(handled.append, workers=3).start()
    for event in range(500):
        pool.add(event % 11, event)
    pool.drain(PATIENCE)
    assert len(handled) == 500
    assert pool.left == []


def test_stop_right_after_start_waits_for_every_worker(driver: Driver) -> None:
    """The original returned before its workers had begun in 1,997 of 2,000 runs."""
    for _ in range(200):
        threads = threads_of_pools()
        assert driver.pool(print, workers=4).start().stop(PATIENCE) == []
        assert threads_of_pools() <= threads


def test_drain_refuses_outside_at_once_and_takes_from_handlers_to_the_last(driver: Driver) -> None:
    gate = Gate()
    handled: list[int] = []

    def handle(event: int) -> None:
        gate(event)
        handled.append(event)
        if event < 5:
            pool.add(event % 2, event + 1)

    pool = driver.pool(handle, workers=2, max_backlog=1).start()
    pool.add("first", 0)
    gate.wait_inside()
    drained = begin(pool, "drain", PATIENCE)
    with pytest.raises(PoolClosed, match="it is draining"):
        pool.add("a", 9)
    with pytest.raises(PoolClosed):
        pool.add_nowait("a", 9)
    gate.open.set()
    drained()
    assert handled == list(range(6))


def test_what_the_last_handler_of_a_drain_adds_finds_every_worker(driver: Driver) -> None:
    """One that waits for nothing, while a handler may still add, has not left."""
    gate = Gate()
    together = threading.Barrier(2)

    def handle(event: str) -> None:
        if event == "last":
            gate(event)
            pool.add("left", "pair")
            pool.add("right", "pair")
        else:
            together.wait(PATIENCE)

    pool = driver.pool(handle, workers=2).start()
    pool.add("a", "last")
    gate.wait_inside()
    drained = begin(pool, "drain", PATIENCE)
    gate.open.set()
    drained()
    assert pool.stats().handled == 3


def test_drain_with_a_time_out_says_so_and_goes_on(driver: Driver) -> None:
    gate = Gate()
    pool = driver.pool(gate, workers=1).start()
    pool.add("a", 1)
    pool.add("a", 2)
    gate.wait_inside()
    with pytest.raises(TimeoutError, match=r"has not drained in 0.01 s: 1 events wait, 1 are in flight"):
        pool.drain(0.01)
    gate.open.set()
    pool.drain(PATIENCE)
    assert pool.stats().handled == 2


def test_stop_finishes_what_is_in_flight_and_returns_the_rest_in_order(driver: Driver) -> None:
    gate = Gate()
    pool = driver.pool(gate, workers=1).start()
    for key, event in (("a", 0), ("b", 1), ("a", 2), ("b", 3), ("a", 4)):
        pool.add(key, event)
        if event == 0:
            gate.wait_inside()
    stopped = begin(pool, "stop", PATIENCE)
    gate.open.set()
    left = stopped()
    assert left == [("a", 2), ("a", 4), ("b", 1), ("b", 3)]
    assert left is pool.left is pool.stop()
    assert pool.stats().handled == 1


def test_stop_with_a_time_out_says_what_is_left_and_what_runs(driver: Driver) -> None:
    gate = Gate()
    pool = driver.pool(gate, workers=1).start()
    pool.add("a", 1)
    pool.add("a", 2)
    gate.wait_inside()
    with pytest.raises(StopTimeout, match=r"has not stopped in 0.01 s: 1 handlers have not returned") as caught:
        pool.stop(0.01)
    assert caught.value.left == [("a", 2)]
    assert caught.value.in_flight == ["a"]
    assert isinstance(caught.value, TimeoutError)
    gate.open.set()
    assert pool.stop(PATIENCE) == [("a", 2)]


@pytest.mark.parametrize("ending", ["drain", "stop"])
def test_an_add_that_waits_when_the_ending_comes_is_refused(driver: Driver, ending: str) -> None:
    gate = Gate()
    pool = driver.pool(gate, workers=1, max_backlog=1).start()
    pool.add("a", 1)
    gate.wait_inside()
    pool.add("a", 2)
    waiting = in_thread(lambda: pool.add("a", 3))
    eventually(partial(has_adders, pool))
    ended = in_thread(lambda: getattr(pool, ending)(PATIENCE))
    with pytest.raises(PoolClosed):
        waiting()
    gate.open.set()
    ended()
    assert pool.stats().added == 2


@pytest.mark.parametrize("ending", ["drain", "stop"])
@pytest.mark.parametrize("inside", [False, True])
def test_an_audience_is_told_at_once_when_an_ending_is_asked_for(driver: Driver, ending: str, inside: bool) -> None:
    gate = Gate()
    ear = Ear(lambda: pool._core.state)
    heard: list[bool] = []

    def handle(event: int) -> None:
        if inside:
            getattr(pool, ending)()
        heard.append(ear.told.is_set())
        gate(event)

    pool = driver.pool(handle, workers=1).start()
    pool._step(pool._core.audience.append, ear)
    assert ear.heard == [], "it is open"
    pool.add("a", 1)
    gate.wait_inside()
    ended = pool.stop if inside else begin(pool, ending)
    wait(ear.told)
    gate.open.set()
    ended()
    assert heard == [inside]
    assert ear.heard[0] is (State.DRAINING if ending == "drain" else State.STOPPING)


def test_an_audience_is_told_when_the_pool_fails(driver: Driver) -> None:
    ear = Ear(lambda: pool._core.failure)

    def handle(event: int) -> None:
        assert ear.heard == [], "it is open"
        raise ValueError

    pool = driver.pool(handle, workers=1).start()
    pool._step(pool._core.audience.append, ear)
    pool.add("a", 1)
    wait(ear.told)
    with pytest.raises(HandlerError):
        pool.stop(PATIENCE)
    assert isinstance(ear.heard[0].error, ValueError)


@pytest.mark.parametrize("ending", ["drain", "stop"])
def test_the_audience_of_a_pool_that_never_started_is_told_too(driver: Driver, ending: str) -> None:
    pool, ear = driver.pool(print), Ear()
    pool._step(pool._core.audience.append, ear)
    getattr(pool, ending)()
    assert ear.told.is_set()


@pytest.mark.parametrize("ending", ["drain", "stop"])
def test_an_ending_from_a_handler_asks_and_returns_at_once(driver: Driver, ending: str) -> None:
    """The original deadlocked."""
    answers: list[Any] = []

    def handle(event: int) -> None:
        answers.append(getattr(pool, ending)())
        if ending == "drain":
            pool.add("more", event + 1) if event < 3 else None
        else:
            with pytest.raises(PoolClosed):
                pool.add("more", 9)

    pool = driver.pool(handle, workers=1).start()
    pool.add("a", 1)
    eventually(lambda: "ended" in repr(pool))
    expected: list[Any] = [None] * 3 if ending == "drain" else [[]]
    assert answers == expected
    assert pool.stop(PATIENCE) == []


def test_endings_are_idempotent_and_may_come_from_any_thread(driver: Driver) -> None:
    """The original panicked at a second stop."""
    gate = Gate()
    pool = driver.pool(gate, workers=2).start()
    for event in range(6):
        pool.add(event, event)
    gate.wait_inside(2)
    calls = [in_thread(pool.stop) for _ in range(5)]
    eventually(lambda: "stopping" in repr(pool))
    gate.open.set()
    results = [done() for done in calls]
    assert all(result is results[0] for result in results)
    assert len(results[0]) == 4
    pool.stop()
    with pytest.raises(DrainIncomplete) as caught:
        pool.drain()
    assert caught.value.left == results[0]


def test_a_stop_ends_a_drain_that_waits_and_the_drain_says_so(driver: Driver) -> None:
    gate = Gate()
    pool = driver.pool(gate, workers=1).start()
    pool.add("a", 1)
    pool.add("a", 2)
    gate.wait_inside()
    drained = begin(pool, "drain", PATIENCE)
    stopped = begin(pool, "stop", PATIENCE)
    gate.open.set()
    assert stopped() == [("a", 2)]
    with pytest.raises(DrainIncomplete, match="was stopped with 1 events left"):
        drained()


def test_an_add_after_an_ending_is_refused_and_says_why(driver: Driver) -> None:
    """The original hung for ever, or lost the event."""
    for ending in ("drain", "stop"):
        pool = driver.pool(print).start()
        getattr(pool, ending)()
        for add in (pool.add, pool.add_nowait):
            with pytest.raises(PoolClosed, match="pool 'default' takes no more events: it is ended"):
                add("a", 1)


def test_a_block_drains_and_an_exception_in_it_stops(driver: Driver) -> None:
    handled: list[int] = []
    with driver.pool(handled.append) as pool:
        for event in range(100):
            pool.add("a", event)
    assert handled == list(range(100))

    gate = Gate()

    def open_when_stopping() -> None:
        eventually(lambda: "stopping" in repr(pool))
        gate.open.set()

    with pytest.raises(LookupError) as caught, driver.pool(gate, workers=1) as pool:  # noqa: PT012
        pool.add("a", 1)
        pool.add("a", 2)
        gate.wait_inside()
        opened = in_thread(open_when_stopping)
        raise LookupError
    assert pool.left == [("a", 2)]
    assert caught.value.__notes__ == ["pool 'default' was stopped with 1 events left"]
    opened()


def test_a_block_whose_pool_was_stopped_inside_ends_quietly(driver: Driver) -> None:
    gate = Gate()
    with driver.pool(gate, workers=1) as pool:
        pool.add("a", 1)
        pool.add("a", 2)
        gate.wait_inside()
        stopped = begin(pool, "stop", PATIENCE)
        gate.open.set()
    assert stopped() == [("a", 2)]


def test_a_block_takes_a_pool_that_has_started(driver: Driver) -> None:
    handled: list[int] = []
    with driver.pool(handled.append).start(3) as pool:
        pool.add("a", 1)
    assert handled == [1]


def test_a_block_takes_no_pool_that_has_ended(driver: Driver) -> None:
    for started in (True, False):
        pool = driver.pool(print).start() if started else driver.pool(print)
        pool.stop()
        with pytest.raises(PoolClosed, match="pool 'default' cannot be entered: it is ended"), pool:
            raise AssertionError("it was entered")


def test_a_pool_that_never_started_gives_its_events_back(driver: Driver) -> None:
    pool = driver.pool(print)
    pool.add("a", 1)
    with pytest.raises(RuntimeError, match=r"never started, and 1 events wait; start\(\) it, or stop\(\) it"):
        pool.drain()
    pool.add("a", 2)
    assert pool.stop() == pool.stop() == [("a", 1), ("a", 2)]
    with pytest.raises(PoolClosed):
        pool.start()
    empty = driver.pool(print)
    empty.drain()
    with pytest.raises(PoolClosed):
        empty.add("a", 1)
