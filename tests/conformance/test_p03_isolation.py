"""P3: a key that is slow delays no other, and costs nothing to step around."""

from __future__ import annotations

import logging
from functools import partial

import pytest

from support import PATIENCE, Driver, Gate, eventually, has_handled
from workpool import PoolFull


def test_a_slow_key_delays_no_other(driver: Driver) -> None:
    gate = Gate()
    handled: list[int] = []
    pool = driver.pool(lambda event: gate(event) if event == "slow" else handled.append(event), workers=2).start()
    for _ in range(50):
        pool.add("slow", "slow")
    gate.wait_inside()
    for event in range(200):
        pool.add(event % 9, event)
    eventually(partial(has_handled, pool, 200))
    assert sorted(handled) == list(range(200))
    gate.open.set()
    pool.drain(PATIENCE)


def test_all_workers_but_those_that_are_held_go_on(driver: Driver) -> None:
    gate = Gate()
    handled: list[int] = []
    pool = driver.pool(lambda event: gate(event) if event == "slow" else handled.append(event), workers=4).start()
    for key in range(3):
        pool.add(("slow", key), "slow")
    gate.wait_inside(3)
    for event in range(100):
        pool.add(event, event)
    eventually(partial(has_handled, pool, 100))
    gate.open.set()
    pool.drain(PATIENCE)


def test_choosing_looks_at_no_key_that_is_blocked(driver: Driver) -> None:
    """No scan: the work for a free event is the same behind one blocked event and behind ten thousand."""

    class Key:
        looked_at = 0

        def __init__(self, name: object) -> None:
            self.name = name

        def __hash__(self) -> int:
            Key.looked_at += 1
            return hash(self.name)

        def __eq__(self, other: object) -> bool:
            Key.looked_at += 1
            return isinstance(other, Key) and self.name == other.name

    gate = Gate()
    looks: list[int] = []
    for backlog in (1, 10_000):
        pool = driver.pool(lambda event: gate(event) if event == "slow" else None, workers=2, max_backlog=None).start()
        slow = Key("slow")
        pool.add(slow, "slow")
        gate.wait_inside()
        for _ in range(backlog):
            pool.add(slow, "slow")
        before = Key.looked_at
        for event in range(100):
            pool.add(Key(event), event)
        eventually(partial(has_handled, pool, 100))
        looks.append(Key.looked_at - before)
        gate.open.set()
        pool.drain(PATIENCE)
        gate.open.clear()
    assert looks[0] == looks[1]


def test_keys_take_turns(driver: Driver) -> None:
    """Round-robin: a key with much to do takes one turn at a time."""
    gate = Gate()
    handled: list[str] = []
    pool = driver.pool(lambda event: gate(event) if event == "gate" else handled.append(event), workers=1).start()
    pool.add("gate", "gate")
    gate.wait_inside()
    for event in ("a1", "a2", "a3", "b1", "b2", "c1"):
        pool.add(event[0], event)
    gate.open.set()
    pool.drain(PATIENCE)
    assert handled == ["a1", "b1", "c1", "a2", "b2", "a3"]


@pytest.mark.parametrize("call", ["add", "add_nowait"])
def test_half_of_the_bound_behind_slow_keys_is_warned_of_once(
    driver: Driver, call: str, caplog: pytest.LogCaptureFixture
) -> None:
    gate = Gate()
    pool = driver.pool(gate, workers=2, max_backlog=10, name="orders").start()
    pool.add("slow", 0)
    gate.wait_inside()
    with caplog.at_level(logging.WARNING, "workpool"):
        for event in range(10):
            getattr(pool, call)("slow", event)
        with pytest.raises(PoolFull) as caught:
            pool.add_nowait("other", 0)
    [record] = caplog.records
    assert record.getMessage() == (
        "pool 'orders': 5 events, half of max_backlog, wait behind keys in flight, 5 of them behind key 'slow'"
    )
    assert str(caught.value) == (
        "pool 'orders' is full: 10 events wait (max_backlog=10); the event was not added; "
        "10 of those that wait are behind key 'slow', which is in flight"
    )
    gate.open.set()
    pool.drain(PATIENCE)
