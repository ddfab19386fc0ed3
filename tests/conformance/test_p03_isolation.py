"""P3: a key that is slow delays no other, and costs nothing to step around."""

from __future__ import annotations

import logging
import threading
from functools import partial

import pytest

from support import PATIENCE, Driver, Gate, Told, eventually, has_adders, has_handled, in_thread, no_text
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
    """No scan: the work for a free event is the same behind one blocked event and behind a thousand."""

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
    for backlog in (1, 1_000):
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
        "pool 'orders': 5 events, half of max_backlog, wait behind blocked keys, "
        "5 of them of key 'slow', which is in flight"
    )
    assert str(caught.value) == (
        "pool 'orders' is full: 10 events wait (max_backlog=10); the event was not added; "
        "10 of those that wait are of key 'slow', which is in flight"
    )
    gate.open.set()
    pool.drain(PATIENCE)


@pytest.mark.parametrize("silent", [False, True])
def test_a_warning_and_a_full_pool_name_the_key_whatever_its_text_does(
    driver: Driver, silent: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """It may raise, and it may call the pool: it is user code, and none runs under a lock."""
    gate = Gate()
    pool = driver.pool(gate, workers=1, max_backlog=2).start()
    slow = Told(no_text if silent else lambda: pool.stats().in_flight)
    key = "<Told whose repr raised OSError>" if silent else "told 1"
    pool.add(slow, 0)
    gate.wait_inside()
    pool.add(slow, 1)
    pool.add(slow, 2)
    [record] = caplog.records
    assert record.getMessage().endswith(f"1 of them of key {key}, which is in flight")
    with pytest.raises(PoolFull, match=f"of key {key}, which is in flight"):
        pool.add_nowait("other", 3)
    with pytest.raises(TimeoutError, match=f"of key {key}, which is in flight; given up after 0 s"):
        pool.add("other", 3, timeout=0)
    gate.open.set()
    pool.drain(PATIENCE)
    assert pool.stats().handled == 3


def test_a_warning_that_cannot_be_logged_is_no_error_of_its_add(
    driver: Driver, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The event is accepted, and an add that raises has not accepted."""

    def broken(record: logging.LogRecord) -> bool:
        raise OSError("a filter that is broken")

    monkeypatch.setattr(logging.getLogger("workpool"), "filters", [broken])
    gate = Gate()
    pool = driver.pool(gate, workers=1, max_backlog=2).start()
    pool.add("slow", 0)
    gate.wait_inside()
    pool.add("slow", 1)
    pool.add("slow", 2)
    assert pool.stats().added == 3
    assert "a filter that is broken" in capsys.readouterr().err
    gate.open.set()
    pool.drain(PATIENCE)


def test_an_add_that_waits_goes_on_when_a_worker_has_taken_what_filled_the_pool(driver: Driver) -> None:
    """Not when an event has ended: here none does."""
    gate = Gate()
    handled: list[object] = []
    pool = driver.pool(lambda event: gate(event) if event == "slow" else handled.append(event), max_backlog=1)
    pool.add("slow", "slow")
    adding = in_thread(lambda: pool.add("quick", "quick"))
    eventually(partial(has_adders, pool))
    pool.start(4)
    adding()
    eventually(partial(has_handled, pool, 1))
    assert handled == ["quick"]
    gate.open.set()
    pool.drain(PATIENCE)


@pytest.mark.parametrize("bound", [1, 8])
def test_an_add_that_waits_goes_on_as_soon_as_there_is_room_and_an_idle_worker(driver: Driver, bound: int) -> None:
    """A slow key fills the bound; when one of its events has ended there is room, and its next one is in flight."""
    steps, inside = threading.Semaphore(0), threading.Semaphore(0)
    handled: list[object] = []

    def handle(event: object) -> None:
        if event == "slow":
            inside.release()
            assert steps.acquire(timeout=PATIENCE)
        handled.append(event)

    pool = driver.pool(handle, workers=4, max_backlog=bound).start()
    for number in range(1 + bound):
        pool.add("slow", "slow")
        assert number or inside.acquire(timeout=PATIENCE)
    adding = in_thread(lambda: pool.add("quick", "quick"))
    eventually(partial(has_adders, pool))
    steps.release()
    adding()
    eventually(partial(has_handled, pool, 2))
    assert handled == ["slow", "quick"]
    steps.release(bound)
    pool.drain(PATIENCE)
