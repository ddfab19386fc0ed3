"""With `timing=True` a delivery tells how old its event is."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest

from support import PATIENCE, Driver, Gate, eventually, has_handled
from workpool import Delivery, Hooks, Retry, SkipEvent
from workpool.testing import FakeClock


def test_a_delivery_tells_how_old_its_event_is(driver: Driver) -> None:
    gate, clock = Gate(), FakeClock()
    ages: list[Any] = []

    def handle(event: int, delivery: Any) -> None:
        ages.append((event, delivery.age))
        if event == 0:
            gate(event)
        if event == 1 and delivery.attempt == 1:
            raise ValueError

    policy = Retry(base=4, jitter="none")
    pool = driver.pool(handle, workers=1, clock=clock, timing=True, on_failure=policy).start()
    pool.add("a", 0)
    gate.wait_inside()
    pool.add("b", 1)
    clock.advance(5)
    pool.add("c", 2)
    clock.advance(2)
    gate.open.set()
    eventually(partial(has_handled, pool, 2))
    eventually(lambda: pool.stats().retrying == 1)
    clock.advance(4)
    pool.drain(PATIENCE)
    assert ages == [(0, 0.0), (1, 7.0), (2, 2.0), (1, 11.0)]


@pytest.mark.parametrize("timing", [True, False])
def test_it_is_known_since_when_a_key_is_in_flight_or_ready(driver: Driver, timing: bool) -> None:
    """P10; since when one is held is always known."""
    gate, clock = Gate(), FakeClock()
    pool = driver.pool(gate, workers=1, clock=clock, timing=timing).start()
    start = clock.now()
    pool.add("a", 0)
    gate.wait_inside()
    clock.advance(5)
    pool.add("a", 1)
    pool.add("b", 2)
    clock.advance(3)
    pool.add("c", 3, delay=10)
    told = [pool.explain(key) for key in "abcd"]
    assert [each.state for each in told] == ["in flight", "ready", "delayed", "idle"]
    assert [each.since for each in told] == [*([start, start + 5] if timing else [None, None]), start + 8, None]
    gate.open.set()
    pool.stop(PATIENCE)


def test_hooks_are_told_too(driver: Driver) -> None:
    clock, told = FakeClock(), []

    class Waits(Hooks):
        def started(self, delivery: Delivery, event: Any) -> None:
            told.append((event, delivery.age))

    pool = driver.pool(lambda event: None, workers=1, clock=clock, timing=True, hooks=Waits())
    pool.add("a", 0)
    clock.advance(3)
    with pool:
        pass
    assert told == [(0, 3.0)]


def test_without_it_no_age_is_known(driver: Driver) -> None:
    ages: list[Any] = []
    with driver.pool(lambda event, delivery: ages.append(delivery.age), workers=1) as pool:
        pool.add("a", 0)
    assert ages == [None]


def test_of_a_batch_it_is_that_of_the_first(driver: Driver) -> None:
    clock, ages = FakeClock(), []
    pool = driver.pool(
        lambda events, delivery: ages.append((events, delivery.age)), workers=1, clock=clock, timing=True, batch=5
    )
    for event in range(3):
        pool.add("a", event)
        clock.advance(1)
    with pool:
        pass
    assert ages == [([0, 1, 2], 3.0)]


def test_of_what_took_a_place_it_is_how_long_the_place_was_taken(driver: Driver) -> None:
    """As client-go counts it: from when there was something to do for the key."""
    clock, ages = FakeClock(), []
    pool = driver.pool(
        lambda event, delivery: ages.append((event, delivery.age)),
        workers=1,
        clock=clock,
        timing=True,
        coalesce="latest",
    )
    for event in range(3):
        pool.add("a", event)
        clock.advance(1)
    with pool:
        pass
    assert ages == [(2, 3.0)]


def test_what_is_told_of_an_event_is_the_event(driver: Driver) -> None:
    """And not what it travels in."""

    def handle(event: str) -> None:
        if event == "skip":
            raise SkipEvent
        raise ValueError

    pool = driver.pool(handle, workers=1, timing=True, clock=FakeClock(), on_failure=Retry(base=5))
    for event in ("skip", "hold", "wait"):
        pool.add("a", event)
    pool.start()
    eventually(lambda: pool.stats().retrying == 1)
    [dead] = pool.dead()
    assert dead.event == "skip"
    pool.replay(dead)
    pool.park("a")
    assert pool.skip_head("a").event == "hold"
    assert pool.stop(PATIENCE)[-1] == ("a", "skip")


def test_a_clock_that_goes_back_makes_nothing_younger_than_new(driver: Driver) -> None:
    class Back(FakeClock):
        """Goes back once it was read."""

        reads = 0

        def now(self) -> float:
            self.reads += 1
            return super().now() - self.reads

    ages: list[Any] = []
    with driver.pool(lambda event, delivery: ages.append(delivery.age), workers=1, clock=Back(), timing=True) as pool:
        pool.add("a", 0)
    assert ages == [0.0]


def test_a_delivery_is_still_a_key_and_an_attempt() -> None:
    delivery = Delivery("a", 1)
    assert delivery.age is None
    with pytest.raises(TypeError):
        Delivery("a")  # type: ignore[call-arg]
