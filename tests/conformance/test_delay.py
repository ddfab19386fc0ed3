"""An event with a delay keeps its place in its lane, and holds it until then."""

from __future__ import annotations

import random
import threading
from functools import partial
from typing import Any

import pytest

from support import PATIENCE, Driver, Gate, adds_up, eventually, has_adders, has_handled, has_line, in_thread
from workpool import DrainIncomplete, FlushIncomplete, PoolFull, Retry, Skip, SkipEvent
from workpool.testing import FakeClock


class Log:
    """A handler that notes each event and the time."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.start = self.clock.now()
        self.seen: list[tuple[Any, float]] = []

    def __call__(self, event: Any) -> None:
        self.seen.append((event, self.clock.now() - self.start))


def has_delayed(pool: Any, events: int = 1) -> bool:
    """Whether so many keys are held by a delay."""
    count: int = pool.stats().delayed
    return count == events


def test_an_event_starts_when_its_delay_is_over_and_not_before(driver: Driver) -> None:
    log = Log()
    pool = driver.pool(log, workers=2, clock=log.clock).start()
    pool.add("a", "late", delay=5)
    assert pool.stats().delayed == 1
    pool.add("b", "now", delay=0)
    pool.add("b", "too", delay=None)
    eventually(partial(has_handled, pool, 2))
    log.clock.advance(4.75)
    pool.add("b", "third")
    eventually(partial(has_handled, pool, 3))
    assert [event for event, _ in log.seen] == ["now", "too", "third"]
    log.clock.advance(0.5)
    eventually(partial(has_handled, pool, 4))
    assert log.seen[-1] == ("late", 5.25)
    pool.drain(PATIENCE)


def test_what_comes_after_it_waits_too(driver: Driver) -> None:
    """A delay never reorders a key."""
    log = Log()
    pool = driver.pool(log, workers=2, clock=log.clock).start()
    pool.add("a", 0, delay=5)
    for event in range(1, 4):
        pool.add("a", event)
    pool.add("b", "other")
    eventually(partial(has_handled, pool, 1))
    stats = pool.stats()
    assert (stats.delayed, stats.queued, stats.waiting) == (1, 3, 4)
    assert adds_up(stats)
    log.clock.advance(5)
    pool.drain(PATIENCE)
    assert [event for event, _ in log.seen] == ["other", 0, 1, 2, 3]


def test_it_holds_its_key_where_it_comes_to_be_first(driver: Driver) -> None:
    gate, log = Gate(), Log()

    def handle(event: int) -> None:
        if event == 0:
            gate(event)
        log(event)

    pool = driver.pool(handle, workers=1, clock=log.clock).start()
    pool.add("a", 0)
    gate.wait_inside()
    pool.add("a", 1, delay=10)
    pool.add("a", 2)
    gate.open.set()
    eventually(partial(has_delayed, pool))
    assert pool.explain("a").state == "delayed"
    log.clock.advance(9)
    pool.add("b", "b")
    eventually(partial(has_handled, pool, 2))
    log.clock.advance(1)
    pool.drain(PATIENCE)
    assert log.seen == [(0, 0.0), ("b", 9.0), (1, 10.0), (2, 10.0)]


def test_each_of_a_lane_has_its_own(driver: Driver) -> None:
    """A later one that is shorter is over when its turn comes; a longer one holds the lane once more."""
    log = Log()
    pool = driver.pool(log, workers=1, clock=log.clock).start()
    pool.add("a", 0, delay=5)
    pool.add("a", 1)
    pool.add("a", 2, delay=2)
    pool.add("a", 3, delay=20)
    pool.add("a", 4, delay=10)
    log.clock.advance(5)
    eventually(partial(has_handled, pool, 3))
    eventually(partial(has_delayed, pool))
    log.clock.advance(15)
    pool.drain(PATIENCE)
    assert log.seen == [(0, 5.0), (1, 5.0), (2, 5.0), (3, 20.0), (4, 20.0)]


def test_a_shorter_one_is_not_late_for_a_longer_one(driver: Driver) -> None:
    log = Log()
    pool = driver.pool(log, workers=1, clock=log.clock).start()
    pool.add("a", "long", delay=100)
    pool.add("b", "short", delay=1)
    log.clock.advance(1)
    eventually(partial(has_handled, pool, 1))
    log.clock.advance(99)
    pool.drain(PATIENCE)
    assert [event for event, _ in log.seen] == ["short", "long"]


def test_it_counts_before_the_start_too(driver: Driver) -> None:
    log = Log()
    pool = driver.pool(log, workers=1, clock=log.clock)
    pool.add("a", 0, delay=5)
    pool.add_nowait("b", 1, delay=3)
    log.clock.advance(4)
    pool.start()
    eventually(partial(has_handled, pool, 1))
    log.clock.advance(1)
    pool.drain(PATIENCE)
    assert log.seen == [(1, 4.0), (0, 5.0)]


def test_one_that_waits_for_room_is_late_from_when_it_was_added(driver: Driver) -> None:
    gate, log = Gate(), Log()

    def handle(event: str) -> None:
        if event == "first":
            gate(event)
        log(event)

    pool = driver.pool(handle, workers=1, max_backlog=1, clock=log.clock).start()
    pool.add("a", "first")
    gate.wait_inside()
    pool.add("a", "second")
    adding = in_thread(partial(pool.add, "b", "late", delay=5))
    eventually(partial(has_adders, pool))
    log.clock.advance(3)
    gate.open.set()
    adding()
    eventually(partial(has_handled, pool, 2))
    assert pool.stats().delayed == 1
    log.clock.advance(2)
    pool.drain(PATIENCE)
    assert log.seen[-1] == ("late", 5.0)


def test_one_that_waits_for_room_in_its_lane(driver: Driver) -> None:
    gate, log = Gate(), Log()

    def handle(event: int) -> None:
        if event == 0:
            gate(event)
        log(event)

    pool = driver.pool(handle, workers=1, max_lane=1, clock=log.clock).start()
    pool.add("a", 0)
    gate.wait_inside()
    pool.add("a", 1)
    adding = in_thread(partial(pool.add, "a", 2, delay=5))
    eventually(partial(has_line, pool))
    gate.open.set()
    adding()
    eventually(partial(has_delayed, pool))
    log.clock.advance(5)
    pool.drain(PATIENCE)
    assert log.seen == [(0, 0.0), (1, 0.0), (2, 5.0)]


def test_it_counts_in_the_bound(driver: Driver) -> None:
    pool = driver.pool(print, workers=1, max_backlog=2, clock=FakeClock()).start()
    pool.add("a", 1, delay=5)
    pool.add("a", 2)
    with pytest.raises(PoolFull) as raised:
        pool.add_nowait("b", 3)
    assert (raised.value.key, raised.value.depth, raised.value.why) == ("a", 2, "delayed")
    with pytest.raises(PoolFull):
        pool.add_nowait("b", 3, delay=1)
    assert pool.stop(PATIENCE) == [("a", 1), ("a", 2)]


def test_a_handler_may_add_one_to_its_own_key(driver: Driver) -> None:
    """Come back in a while: what is added meanwhile comes after it."""
    log = Log()

    def handle(event: int) -> None:
        log(event)
        if event < 3:
            pool.add("a", event + 1, delay=10)

    pool = driver.pool(handle, workers=1, clock=log.clock).start()
    pool.add("a", 0)
    for handled in range(1, 4):
        eventually(partial(has_handled, pool, handled))
        eventually(partial(has_delayed, pool))
        log.clock.advance(10)
    pool.drain(PATIENCE)
    assert log.seen == [(0, 0.0), (1, 10.0), (2, 20.0), (3, 30.0)]


def test_a_drain_waits_for_it(driver: Driver) -> None:
    log = Log()
    pool = driver.pool(log, workers=1, clock=log.clock).start()
    pool.add("a", 1, delay=5)
    draining = in_thread(partial(pool.drain, PATIENCE))
    eventually(lambda: "draining" in repr(pool))
    with pytest.raises(TimeoutError):
        pool.drain(0.01)
    log.clock.advance(5)
    draining()
    assert log.seen == [(1, 5.0)]


def test_a_stop_returns_it_in_its_place(driver: Driver) -> None:
    pool = driver.pool(print, workers=1, clock=FakeClock()).start()
    for event in range(3):
        pool.add("a", event, delay=5)
    assert pool.stop(PATIENCE) == [("a", 0), ("a", 1), ("a", 2)]
    assert adds_up(pool.stats())
    assert pool.stats().returned == 3


def test_it_can_be_ended_by_hand(driver: Driver) -> None:
    log = Log()
    pool = driver.pool(log, workers=1, clock=log.clock).start()
    pool.add("a", 0, delay=5)
    pool.resume("a")
    eventually(partial(has_handled, pool, 1))
    pool.add("a", 1, delay=5)
    pool.add("a", 2)
    assert pool.skip_head("a").event == 1
    eventually(partial(has_handled, pool, 2))
    pool.add("a", 3, delay=5)
    pool.park("a")
    assert (pool.stats().parked, pool.stats().delayed) == (1, 0)
    log.clock.advance(10)
    with pytest.raises(FlushIncomplete):
        pool.flush("a")
    with pytest.raises(DrainIncomplete) as raised:
        pool.drain(PATIENCE)
    assert raised.value.left == [("a", 3)]
    assert [event for event, _ in log.seen] == [0, 2]


def test_a_key_to_be_parked_is_parked_first(driver: Driver) -> None:
    log = Log()
    pool = driver.pool(log, workers=1, clock=log.clock).start()
    pool.park("a")
    pool.add("a", 0, delay=5)
    eventually(lambda: pool.stats().parked == 1)
    log.clock.advance(1)
    pool.resume("a")
    eventually(partial(has_delayed, pool))
    log.clock.advance(4)
    pool.drain(PATIENCE)
    assert log.seen == [(0, 5.0)]


def test_a_flush_waits_for_it(driver: Driver) -> None:
    log = Log()
    pool = driver.pool(log, workers=1, clock=log.clock).start()
    pool.add("a", 0, delay=5)
    flushing = in_thread(pool.flush)
    eventually(lambda: bool(pool._core.audience))
    pool.add("a", 1, delay=50)
    log.clock.advance(5)
    flushing()
    assert log.seen == [(0, 5.0)]
    pool.stop(PATIENCE)


def test_one_that_fails_is_retried_without_its_delay(driver: Driver) -> None:
    log = Log()

    def handle(event: int) -> None:
        log(event)
        if len(log.seen) < 3:
            raise ValueError

    pool = driver.pool(handle, workers=1, clock=log.clock, on_failure=Retry(attempts=5, base=1, jitter="none")).start()
    pool.add("a", 0, delay=5)
    pool.add("a", 1, delay=7)
    log.clock.advance(5)
    for attempt in (1, 2):
        eventually(lambda: pool.explain("a").attempt == attempt + 1 and pool.stats().retrying == 1)  # noqa: B023
        log.clock.advance(attempt)
    pool.drain(PATIENCE)
    assert log.seen == [(0, 5.0), (0, 6.0), (0, 8.0), (1, 8.0)]


def test_it_is_explained(driver: Driver) -> None:
    log = Log()
    pool = driver.pool(log, workers=1, clock=log.clock).start()
    log.clock.advance(1)
    pool.add("a", 0, delay=5)
    pool.add("a", 1)
    told = pool.explain("a")
    assert (told.state, told.waiting, told.attempt) == ("delayed", 2, 1)
    assert (told.since, told.due) == (log.start + 1, log.start + 6)
    [oldest] = pool.top(by="age")
    assert oldest == told
    pool.stop(PATIENCE)


@pytest.mark.parametrize("delay", [-1, float("nan"), float("inf"), "5", True, []])
def test_a_delay_that_is_none_is_refused_and_nothing_is_added(driver: Driver, delay: Any) -> None:
    pool = driver.pool(print, workers=1).start()
    for add in (pool.add, pool.add_nowait):
        with pytest.raises((TypeError, ValueError), match="delay must be a number of seconds"):
            add("a", 1, delay=delay)
    with pytest.raises(TypeError):
        pool.add([], 1, delay=5)
    assert pool.stats().added == 0
    pool.drain(PATIENCE)


def test_nothing_is_left_of_it(driver: Driver) -> None:
    log = Log()
    pool = driver.pool(log, workers=3, clock=log.clock).start()
    for event in range(300):
        pool.add(event % 100, event, delay=event % 7)
    log.clock.advance(6)
    pool.flush(timeout=PATIENCE)
    core = pool._core
    assert not any([core.delayed, core.aside, core.notes, core.timers, core.lanes])
    pool.drain(PATIENCE)


def test_at_random_none_is_early_and_no_key_is_reordered(driver: Driver) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    rng = random.Random(seed)
    clock = FakeClock()
    due: dict[int, float] = {}
    early: list[int] = []
    order: dict[int, list[int]] = {}

    def handle(event: int) -> None:
        if clock.now() < due[event]:
            early.append(event)
        if rng.random() < 0.2:
            raise rng.choice([ValueError(), SkipEvent()])
        order.setdefault(event % 5, []).append(event)

    policy = Retry(attempts=3, base=0.5, then=Skip())
    pool = driver.pool(handle, workers=3, max_backlog=50, clock=clock, on_failure=policy).start()
    enough = threading.Event()

    def advance() -> None:
        while not enough.wait(0.001):
            clock.advance(0.5)

    moving = in_thread(advance)
    for event in range(600):
        delay = rng.choice([0, 0, 0.3, 2.0])
        due[event] = clock.now() + delay
        pool.add(event % 5, event, delay=delay, timeout=PATIENCE)
    pool.drain(PATIENCE)
    enough.set()
    moving()
    assert early == []
    assert all(events == sorted(events) for events in order.values())
    assert adds_up(pool.stats())
