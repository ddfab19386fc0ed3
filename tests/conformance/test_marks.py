"""A mark is told when all events that its key had have ended, never before, and whatever comes after them."""

from __future__ import annotations

import random
import threading
from contextlib import suppress
from functools import partial
from queue import SimpleQueue
from typing import Any

import pytest

from support import PATIENCE, Driver, Ear, Gate, eventually, has_handled, in_thread, wait
from workpool import ParkKey, Retry, RetryAfter, Skip, SkipEvent
from workpool.testing import FakeClock


@pytest.mark.parametrize("workers", [1, 3])
def test_it_is_told_between_the_last_event_that_there_was_and_the_first_that_came_later(
    driver: Driver, workers: int
) -> None:
    """It is made while the first is in flight."""
    gate, ear = Gate(), Ear()
    told: list[bool] = []

    def handle(event: int) -> None:
        gate(event)
        told.append(ear.told.is_set())

    pool = driver.pool(handle, workers=workers).start()
    pool.add("a", 0)
    gate.wait_inside()
    pool.add("a", 1)
    assert pool._mark("a", ear)
    pool.add("a", 2)
    gate.open.set()
    pool.drain(PATIENCE)
    assert told == [False, False, True]
    assert len(ear.heard) == 1


def test_it_is_told_where_its_events_have_not_started_yet(driver: Driver) -> None:
    handled: list[int] = []
    ear = Ear(handled.copy)
    pool = driver.pool(handled.append, workers=1)
    for event in range(3):
        pool.add("a", event)
    assert pool._mark("a", ear)
    pool.add("a", 3)
    pool.start().drain(PATIENCE)
    assert ear.heard == [[0, 1, 2]]


def test_a_key_without_events_has_nothing_to_wait_for(driver: Driver) -> None:
    ear = Ear()
    pool = driver.pool(print, workers=1).start()
    assert not pool._mark("a", ear)
    pool.add("a", 1)
    eventually(partial(has_handled, pool, 1))
    assert not pool._mark("a", ear)
    pool.drain(PATIENCE)
    assert not pool._mark("a", ear)
    assert (ear.heard, pool._core.notes) == ([], {})


def test_who_asks_is_not_held_up_and_neither_is_another_key(driver: Driver) -> None:
    gate, slow, quick = Gate(), Ear(), Ear()
    together = threading.Barrier(2)
    pool = driver.pool(lambda event: gate(event) if event == "slow" else together.wait(PATIENCE), workers=2).start()
    pool.add("slow", "slow")
    gate.wait_inside()
    assert pool._mark("slow", slow)
    pool.add("quick", "quick")
    assert pool._mark("quick", quick)
    together.wait(PATIENCE)
    wait(quick.told)
    assert slow.heard == []
    gate.open.set()
    wait(slow.told)
    pool.drain(PATIENCE)


def test_a_thread_can_wait_for_it(driver: Driver) -> None:
    gate = Gate()
    pool = driver.pool(gate, workers=1).start()
    pool.add("a", 1)
    gate.wait_inside()
    ear: SimpleQueue[None] = SimpleQueue()
    assert pool._mark("a", ear)
    waiting = in_thread(partial(ear.get, timeout=PATIENCE))
    gate.open.set()
    waiting()
    pool.drain(PATIENCE)


def test_a_handler_can_have_another_told_that_it_has_ended(driver: Driver) -> None:
    """Its own event is among those that there are."""
    handled: list[int] = []
    ear = Ear(lambda: (pool._core.handled, handled.copy()))

    def handle(event: int) -> None:
        if event == 0:
            assert pool._mark("a", ear)
        handled.append(event)

    pool = driver.pool(handle, workers=1)
    pool.add("a", 0)
    pool.add("a", 1)
    pool.add("a", 2)
    pool.start().drain(PATIENCE)
    assert ear.heard == [(3, [0, 1, 2])]


@pytest.mark.parametrize("policy", [Skip(), Retry(attempts=2, base=0, then=Skip())], ids=repr)
def test_an_event_that_is_given_up_on_has_ended_and_one_that_is_delivered_again_has_not(
    driver: Driver, policy: Any
) -> None:
    gate = Gate()
    ear = Ear(lambda: (len(pool._core.buried), pool._core.handled))

    def handle(event: int) -> None:
        gate(event)
        raise ValueError

    pool = driver.pool(handle, workers=1, on_failure=policy).start()
    pool.add("a", 0)
    gate.wait_inside()
    pool.add("a", 1)
    assert pool._mark("a", ear)
    pool.add("a", 2)
    gate.open.set()
    pool.drain(PATIENCE)
    assert ear.heard == [(2, 0)]


def test_it_waits_for_a_retry(driver: Driver) -> None:
    clock, ear = FakeClock(), Ear()
    failed: list[int] = []

    def handle(event: int) -> None:
        if event == 0 and not failed:
            failed.append(event)
            raise RetryAfter(5)

    pool = driver.pool(handle, workers=1, clock=clock)
    for event in range(2):
        pool.add("a", event)
    assert pool._mark("a", ear)
    pool.start()
    eventually(lambda: pool.stats().retrying == 1)
    pool.add("a", 2)
    assert ear.heard == []
    clock.advance(5)
    wait(ear.told)
    pool.drain(PATIENCE)
    assert len(ear.heard) == 1


@pytest.mark.parametrize("before", [False, True])
@pytest.mark.parametrize("call", ["resume", "skip_head"])
def test_it_waits_while_its_key_is_parked(driver: Driver, call: str, before: bool) -> None:
    """It is made before the key is parked, or when that is done."""
    ear, parked = Ear(), [0]

    def handle(event: int) -> None:
        if parked:
            parked.pop()
            raise ParkKey

    pool = driver.pool(handle, workers=1)
    pool.add("a", 0)
    if before:
        assert pool._mark("a", ear)
    pool.start()
    eventually(lambda: pool.stats().parked == 1)
    if not before:
        assert pool._mark("a", ear)
    pool.add("a", 1)
    assert ear.heard == []
    getattr(pool, call)("a")
    wait(ear.told)
    pool.drain(PATIENCE)
    assert len(ear.heard) == 1
    assert pool.stats().dead == (call == "skip_head")


def test_an_event_that_is_replayed_is_a_new_one(driver: Driver) -> None:
    gate, ear, later = Gate(), Ear(), Ear()

    def handle(event: str) -> None:
        if event == "dead":
            raise SkipEvent
        gate(event)

    pool = driver.pool(handle, workers=1).start()
    pool.add("a", "dead")
    eventually(lambda: pool.stats().dead == 1)
    pool.add("a", "alive")
    gate.wait_inside()
    assert pool._mark("a", ear)
    [dead] = pool.dead()
    pool.replay(dead)
    assert pool._mark("a", later)
    gate.open.set()
    wait(ear.told)
    wait(later.told)
    pool.drain(PATIENCE)


def test_one_that_is_taken_back_is_not_told(driver: Driver) -> None:
    gate, ear = Gate(), Ear()
    pool = driver.pool(gate, workers=1).start()
    pool.add("a", 0)
    gate.wait_inside()
    assert pool._mark("a", ear)
    assert pool._step(pool._core.unmark, "a", ear) is True
    assert pool._step(pool._core.unmark, "a", ear) is False
    gate.open.set()
    pool.drain(PATIENCE)
    assert ear.heard == []


def test_a_drain_tells_it_at_its_time(driver: Driver) -> None:
    handled: list[int] = []
    gate, ear = Gate(), Ear(handled.copy)

    def handle(event: int) -> None:
        gate(event)
        handled.append(event)

    pool = driver.pool(handle, workers=1).start()
    for event in range(3):
        pool.add("a", event)
    gate.wait_inside()
    assert pool._mark("a", ear)
    drained = in_thread(partial(pool.drain, PATIENCE))
    eventually(lambda: "draining" in repr(pool))
    assert ear.heard == []
    gate.open.set()
    drained()
    assert ear.heard == [[0, 1, 2]]


def test_where_the_pool_ends_first_it_is_dropped(driver: Driver) -> None:
    gate, ear = Gate(), Ear()
    pool = driver.pool(gate, workers=1).start()
    pool.add("a", 0)
    gate.wait_inside()
    pool.add("a", 1)
    assert pool._mark("a", ear)
    stopped = in_thread(partial(pool.stop, PATIENCE))
    eventually(lambda: "stopping" in repr(pool))
    gate.open.set()
    assert stopped() == [("a", 1)]
    assert (ear.heard, pool._core.notes) == ([], {})


@pytest.mark.parametrize("native", [False, True])
def test_marks_of_many_are_each_told_when_their_own_events_have_ended(driver: Driver, native: bool) -> None:
    """At random: events that fail, are parked and skipped; `native` is a handler that is no Python function."""
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    rng = random.Random(seed)
    ended: set[int] = set()
    early: list[int] = []
    ears: list[Ear] = []

    class Ended:
        """Of events: by the time that a mark is told, each was handled or is among the dead."""

        def __init__(self, events: list[int]) -> None:
            self.events = events

        def __call__(self) -> None:
            dead = {dead.event for dead in pool._core.buried}
            early.extend(event for event in self.events if event not in ended and event not in dead)

    def handle(event: int) -> None:
        if rng.random() < 0.2:
            raise rng.choice([ValueError(), RetryAfter(0), SkipEvent(), ParkKey()])
        ended.add(event)

    policy = Retry(attempts=3, base=0, then=Skip())
    handler = ended.add if native else handle
    pool = driver.pool(handler, workers=3, max_backlog=50, max_dead=None, on_failure=policy).start()
    together = threading.Barrier(3)

    def produce(number: int) -> None:
        mine = random.Random(seed + number)
        added: dict[int, list[int]] = {}
        together.wait(PATIENCE)
        for event in range(number, 600, 3):
            key = mine.randrange(4)
            eventually(partial(add, key, event))
            added.setdefault(key, []).append(event)
            if mine.random() < 0.3:
                ear = Ear(Ended(added[key].copy()))
                if pool._mark(key, ear):
                    ears.append(ear)
                else:
                    pool._step(ear.look)

    def add(key: int, event: int) -> bool:
        try:
            pool.add(key, event, timeout=0.01)
            return True
        except TimeoutError:
            resume_all()
            return False

    def resume_all() -> None:
        for key in pool.parked():
            with suppress(ValueError):  # Another has resumed it.
                pool.resume(key)

    def is_idle() -> bool:
        resume_all()
        return not pool.stats().keys

    producers = [in_thread(partial(produce, number)) for number in range(3)]
    for done in producers:
        done()
    eventually(is_idle)
    assert early == []
    assert all(len(ear.heard) == 1 for ear in ears), "each is told by the time that its key is idle, and once"
    assert ears
    assert pool._core.notes == {}
    pool.drain(PATIENCE)
