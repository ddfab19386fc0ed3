"""With `max_burst=n` a worker handles up to n events of one key in a row."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest

from support import PATIENCE, Driver, Gate, Heard, adds_up, eventually, has_handled, in_thread
from workpool import DrainIncomplete, HandlerError, Retry, Skip
from workpool.testing import FakeClock


def fill(pool: Any, *pairs: tuple[str, int]) -> Any:
    for key, events in pairs:
        for event in range(events):
            pool.add(key, (key, event))
    return pool


def test_a_worker_handles_so_many_of_a_key_in_a_row(driver: Driver) -> None:
    seen: list[tuple[str, int]] = []
    pool = driver.pool(seen.append, workers=1, max_burst=3)
    with fill(pool, ("a", 5), ("b", 4), ("c", 1)):
        pass
    assert [f"{key}{event}" for key, event in seen] == [*["a0", "a1", "a2", "b0", "b1", "b2", "c0", "a3", "a4", "b3"]]
    assert pool.stats().handled == 10


def test_by_itself_keys_take_turns(driver: Driver) -> None:
    seen: list[tuple[str, int]] = []
    with fill(driver.pool(seen.append, workers=1), ("a", 2), ("b", 2)):
        pass
    assert [key for key, _ in seen] == [*"abab"]


def test_what_comes_meanwhile_is_part_of_it(driver: Driver) -> None:
    seen: list[int] = []

    def handle(event: int) -> None:
        seen.append(event)
        if event < 4:
            pool.add("a", event + 1)

    pool = driver.pool(handle, workers=1, max_burst=3)
    pool.add("a", 0)
    pool.add("b", 10)
    with pool:
        pass
    assert seen == [0, 1, 2, 10, 3, 4]


def test_each_of_it_is_counted_as_it_ends(driver: Driver) -> None:
    gate = Gate()
    pool = fill(driver.pool(gate, workers=2, max_burst=10), ("a", 3)).start()
    gate.wait_inside()
    assert (pool.stats().in_flight, pool.stats().waiting) == (1, 2)
    gate.open.set()
    gate.wait_inside(2)
    pool.drain(PATIENCE)
    assert adds_up(pool.stats())


def test_one_that_fails_ends_it_and_is_the_one_that_is_retried(driver: Driver) -> None:
    clock = FakeClock()
    seen: list[tuple[int, int]] = []

    def handle(event: tuple[str, int], delivery: Any) -> None:
        seen.append((event[1], delivery.attempt))
        if event[1] == 1 and delivery.attempt < 3:
            raise ValueError

    policy = Retry(base=5, jitter="none")
    pool = fill(driver.pool(handle, workers=1, max_burst=5, clock=clock, on_failure=policy), ("a", 4)).start()
    for attempt in (2, 3):
        eventually(lambda: pool.stats().retrying == 1 and pool.explain("a").attempt == attempt)  # noqa: B023
        assert pool.stats().handled == 1
        clock.advance(100)
    pool.drain(PATIENCE)
    assert seen == [(0, 1), (1, 1), (1, 2), (1, 3), (2, 1), (3, 1)]


def test_where_the_pool_fails_the_rest_is_left(driver: Driver) -> None:
    def handle(event: tuple[str, int]) -> None:
        if event[1] == 2:
            raise ValueError

    pool = fill(driver.pool(handle, workers=1, max_burst=5), ("a", 4)).start()
    with pytest.raises(HandlerError) as raised:
        pool.drain(PATIENCE)
    assert raised.value.event == ("a", 2)
    assert [event for _, event in raised.value.left] == [("a", 2), ("a", 3)]
    assert adds_up(pool.stats())


def test_a_skip_is_of_one(driver: Driver) -> None:
    def handle(event: tuple[str, int]) -> None:
        if event[1] == 1:
            raise ValueError

    with fill(driver.pool(handle, workers=1, max_burst=5, on_failure=Skip()), ("a", 4)) as pool:
        pass
    assert [dead.event for dead in pool.dead()] == [("a", 1)]
    assert pool.stats().handled == 3


def test_a_stop_ends_it(driver: Driver) -> None:
    gate = Gate()
    pool = fill(driver.pool(gate, workers=1, max_burst=5), ("a", 3)).start()
    gate.wait_inside()
    stopping = in_thread(pool.stop)
    eventually(lambda: "stopping" in repr(pool))
    gate.open.set()
    assert [event for _, event in stopping()] == [("a", 1), ("a", 2)]


def test_a_park_ends_it(driver: Driver) -> None:
    gate = Gate()
    pool = fill(driver.pool(gate, workers=1, max_burst=5), ("a", 3)).start()
    gate.wait_inside()
    pool.park("a")
    gate.open.set()
    eventually(lambda: pool.stats().parked == 1)
    assert pool.stats().handled == 1
    with pytest.raises(DrainIncomplete):
        pool.drain(PATIENCE)


def test_a_delay_ends_it(driver: Driver) -> None:
    clock = FakeClock()
    pool = driver.pool(lambda event: None, workers=1, max_burst=5, clock=clock)
    fill(pool, ("a", 2)).add("a", ("a", 2), delay=5)
    pool.start()
    eventually(lambda: pool.stats().delayed == 1)
    assert pool.stats().handled == 2
    clock.advance(5)
    pool.drain(PATIENCE)


def test_who_waits_for_room_comes_in_meanwhile(driver: Driver) -> None:
    gate = Gate()
    pool = fill(driver.pool(gate, workers=1, max_burst=10, max_backlog=2), ("a", 1)).start()
    gate.wait_inside()
    fill(pool, ("a", 2))
    adding = [in_thread(partial(pool.add, key, (key, 0))) for key in "bc"]
    eventually(lambda: len(pool._core.adders) == 2)
    gate.open.set()
    for done in adding:
        done()
    pool.drain(PATIENCE)
    assert pool.stats().handled == 5


def test_a_flush_is_told_meanwhile(driver: Driver) -> None:
    gates = {event: Gate() for event in range(3)}
    pool = fill(driver.pool(lambda event: gates[event[1]](event), workers=1, max_burst=10), ("a", 2)).start()
    gates[0].wait_inside()
    flushing = in_thread(partial(pool.flush, "a"))
    eventually(lambda: bool(pool._core.audience))
    pool.add("a", ("a", 2))
    for event in range(2):
        gates[event].open.set()
    flushing()
    gates[2].wait_inside()
    assert pool.stats().in_flight == 1
    gates[2].open.set()
    pool.drain(PATIENCE)


def test_the_longest_is_told_of_each_by_itself(driver: Driver, caplog: pytest.LogCaptureFixture) -> None:
    """Not of a burst that takes longer than any of its events."""
    gates = {event: Gate() for event in range(3)}
    clock = FakeClock()
    pool = fill(
        driver.pool(lambda event: gates[event[1]](event), workers=1, max_burst=10, clock=clock, warn_after=10), ("a", 3)
    ).start()
    for event, gate in gates.items():
        gate.wait_inside()
        for _ in range(2):
            clock.advance(4)
            eventually(lambda: pool._core.holds[0] is not None)
        gate.open.set()
        eventually(partial(has_handled, pool, event + 1))
    pool.drain(PATIENCE)
    assert not [record for record in caplog.records if "has run for" in record.getMessage()]


def test_hooks_hear_of_each(driver: Driver) -> None:
    heard = Heard()
    with fill(driver.pool(lambda event: None, workers=1, max_burst=2, hooks=heard), ("a", 3)):
        pass
    assert [name for name, *_ in heard.of("a")] == ["started", "succeeded"] * 3


def test_a_burst_may_be_of_batches(driver: Driver) -> None:
    seen: list[list[int]] = []
    pool = driver.pool(seen.append, workers=1, max_burst=2, batch=2)
    for event in range(6):
        pool.add("a", event)
    pool.add("b", 10)
    with pool:
        pass
    assert seen == [[0, 1], [2, 3], [10], [4, 5]]


def test_what_it_cannot_be_is_refused(driver: Driver) -> None:
    for wrong in (0, -1):
        with pytest.raises(ValueError, match="max_burst must be at least 1"):
            driver.pool(print, workers=1, max_burst=wrong)
    for strange in (None, "3", 1.5):
        with pytest.raises(TypeError, match="max_burst must be a whole number"):
            driver.pool(print, workers=1, max_burst=strange)
