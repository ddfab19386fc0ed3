"""`pool.run`: sources are read at the same time, wait while the pool is full, and are ended from anywhere."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from typing import Any

import pytest

from support import PATIENCE, Driver, Gate, eventually, has_adders, in_thread
from workpool import HandlerError, PoolClosed, Skip
from workpool.intake import Intake

Pairs = Iterable[tuple[Any, Any]]


class Scripted:
    """Brings some events, and then ends, or waits until it is stopped."""

    def __init__(self, pairs: Pairs = (), *, ends: bool = True, error: BaseException | None = None) -> None:
        self.pairs, self.ends, self.error = pairs, ends, error
        self.intake: Intake[Any, Any] | None = None
        self.has_begun = threading.Event()
        self.is_stopped = threading.Event()
        self.has_ended = threading.Event()

    def feed(self, intake: Intake[Any, Any]) -> None:
        self.intake = intake
        self.has_begun.set()
        try:
            for key, event in self.pairs:
                if not intake.add(key, event):
                    return
            if self.error is not None:
                raise self.error
            if not self.ends:
                assert self.is_stopped.wait(PATIENCE), "the source was never stopped"
        finally:
            self.has_ended.set()

    def stop(self) -> None:
        self.is_stopped.set()
        if self.intake is not None:
            self.intake.close()


def test_all_that_sources_bring_is_added_and_handled_in_order_per_key(driver: Driver) -> None:
    handled: list[tuple[str, int]] = []
    with driver.pool(handled.append, workers=4) as pool:
        pool.run(*(Scripted([(key, (key, number)) for number in range(100)]) for key in "abc"))
        assert pool.stats().added == 300
    for key in "abc":
        assert [number for each, number in handled if each == key] == list(range(100))


def test_run_starts_the_pool_and_leaves_it_open(driver: Driver) -> None:
    handled: list[int] = []
    pool = driver.pool(handled.append, workers=1)
    pool.run(Scripted([("a", 1)]))
    pool.run(Scripted([("a", 2)]))
    pool.add("a", 3)
    pool.drain(PATIENCE)
    assert handled == [1, 2, 3]


def test_run_without_a_source_returns_at_once(driver: Driver) -> None:
    with driver.pool(print, workers=1) as pool:
        pool.run()


@pytest.mark.parametrize("end", ["drain", "stop"])
def test_a_closed_pool_reads_no_source(driver: Driver, end: str) -> None:
    pool = driver.pool(print, workers=1).start()
    getattr(pool, end)()
    source = Scripted([("a", 1)])
    with pytest.raises(PoolClosed):
        pool.run(source)
    assert not source.has_begun.is_set()


def test_a_source_that_is_stopped_in_a_handler_ends_the_run(driver: Driver) -> None:
    source = Scripted([("a", 1)], ends=False)
    with driver.pool(lambda _: source.stop(), workers=1) as pool:
        pool.run(source)
    assert source.has_ended.is_set()


@pytest.mark.parametrize("end", ["drain", "stop"])
@pytest.mark.parametrize("where", ["outside", "inside"])
def test_an_ending_of_the_pool_ends_the_run(driver: Driver, end: str, where: str) -> None:
    source = Scripted([("a", 1)], ends=False)
    pool: Any = None

    def handle(_: int) -> None:
        if where == "inside":
            getattr(pool, end)()

    pool = driver.pool(handle, workers=1).start()
    running = in_thread(lambda: pool.run(source))
    assert source.has_begun.wait(PATIENCE)
    if where == "outside":
        getattr(pool, end)(PATIENCE)
    running()
    assert source.is_stopped.is_set()
    assert source.has_ended.is_set()
    pool.stop(PATIENCE)


def test_a_pool_that_fails_ends_the_run_which_raises(driver: Driver) -> None:
    fault = ValueError("no")

    def fail(_: int) -> None:
        raise fault

    source = Scripted([("a", 1)], ends=False)
    pool = driver.pool(fail, workers=1)
    with pytest.raises(HandlerError) as caught:
        pool.run(source)
    assert caught.value.__cause__ is fault
    assert source.has_ended.is_set()


def test_what_a_source_raises_is_raised_and_ends_the_others(driver: Driver) -> None:
    fault = OSError("gone")
    other = Scripted(ends=False)
    with driver.pool(print, workers=1) as pool:
        with pytest.raises(OSError, match="gone") as caught:
            pool.run(other, Scripted([("a", 1)], error=fault))
        assert caught.value is fault
        assert other.is_stopped.is_set()
        assert other.has_ended.is_set()
        assert pool.stats().added == 1


def test_a_key_that_cannot_be_hashed_is_the_source_s_fault(driver: Driver) -> None:
    with driver.pool(print, workers=1) as pool:
        with pytest.raises(TypeError, match="hashable"):
            pool.run(Scripted([([], 1)]))
        assert pool.stats().added == 0


def held_up(driver: Driver, pairs: Pairs) -> tuple[Gate, Any, Scripted, Callable[[], Any]]:
    """A gate, a pool of one worker that stands there, a source that waits for room, and the end of its run."""
    gate, source = Gate(), Scripted(pairs)
    pool = driver.pool(gate, workers=1, max_backlog=2)
    running = in_thread(lambda: pool.run(source))
    gate.wait_inside()
    eventually(lambda: has_adders(pool, 1))
    return gate, pool, source, running


def test_a_full_pool_stops_the_source(driver: Driver) -> None:
    brought: list[int] = []

    def bring() -> Pairs:
        for number in range(10):
            brought.append(number)
            yield "a", number

    gate, pool, _, running = held_up(driver, bring())
    assert brought == [0, 1, 2, 3]
    assert pool.stats().added == 3
    gate.open.set()
    running()
    pool.drain(PATIENCE)
    assert pool.stats().handled == 10


def test_a_source_that_waits_for_room_is_stopped_and_adds_nothing_more(driver: Driver) -> None:
    gate, pool, source, running = held_up(driver, (("a", number) for number in range(10)))
    source.stop()
    running()
    assert has_adders(pool, 0)
    assert pool.stats().added == 3
    gate.open.set()
    pool.drain(PATIENCE)
    assert pool.stats().handled == 3


def test_a_source_that_waits_for_room_while_the_pool_stops(driver: Driver) -> None:
    gate, pool, _, running = held_up(driver, (("a", number) for number in range(10)))
    stopping = in_thread(pool.stop)
    running()
    gate.open.set()
    assert len(stopping()) == 2


def test_an_intake_that_was_closed_takes_nothing(driver: Driver) -> None:
    pool = driver.pool(print, workers=1)
    intake: Intake[Any, Any] = Intake(getattr(pool, "_pool", pool))
    intake.close()
    assert not intake.add("a", 1)
    assert pool.stop() == []


def test_a_mark_is_told_when_what_came_before_is_over(driver: Driver) -> None:
    gate = Gate()
    told = threading.Event()

    class Mark:
        def put(self, _: None) -> None:
            told.set()

    class Marking(Scripted):
        def feed(self, intake: Intake[Any, Any]) -> None:
            assert not intake.mark("a", Mark())
            intake.add("a", 1)
            assert intake.mark("a", Mark())

    with driver.pool(gate, workers=1, on_failure=Skip()) as pool:
        pool.run(Marking())
        gate.wait_inside()
        assert not told.is_set()
        gate.open.set()
        assert told.wait(PATIENCE)


def test_a_thread_that_cannot_be_started_stops_those_that_were(driver: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    start: Callable[[threading.Thread], None] = threading.Thread.start

    def refuse(thread: threading.Thread) -> None:
        if thread.name.endswith("source-1"):
            raise RuntimeError("can't start new thread")
        start(thread)

    first = Scripted(ends=False)
    with driver.pool(print, workers=1) as pool:
        monkeypatch.setattr(threading.Thread, "start", refuse)
        with pytest.raises(RuntimeError, match="start new thread"):
            pool.run(first, Scripted())
        assert first.is_stopped.is_set()
        assert first.has_ended.is_set()


@pytest.mark.parametrize("wrong", ["v1/pods", [Scripted()]])
def test_what_is_no_source_is_refused_before_any_is_read(driver: Driver, wrong: object) -> None:
    good = Scripted()
    with driver.pool(print) as pool, pytest.raises(TypeError, match=r"a source must have feed, stop, and .* has not"):
        pool.run(good, wrong)
    assert not good.has_begun.is_set()
