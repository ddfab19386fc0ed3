"""A flush returns when what there was has ended, whatever comes after it, and says so where that cannot be."""

from __future__ import annotations

import random
import threading
from functools import partial
from queue import SimpleQueue
from typing import Any

import pytest

from support import PATIENCE, Driver, Gate, eventually, has_handled, in_thread
from workpool import FlushIncomplete, HandlerError, ParkKey, PoolClosed, Retry, RetryAfter, Skip, SkipEvent
from workpool.flush import Flush
from workpool.lanes import NOTHING
from workpool.testing import FakeClock


def is_clean(pool: Any) -> bool:
    """Whether nothing is left of any flush."""
    core = pool._core
    return not (core.notes or core.audience or core.lookouts or core.admitted)


def flushing(pool: Any, *key: object, timeout: float | None = None) -> Any:
    """Flush on another thread, and return once that waits; call the result for its outcome."""
    before = len(pool._core.audience)
    outcome = in_thread(partial(pool.flush, *key, timeout=timeout))
    eventually(lambda: len(pool._core.audience) > before)
    return outcome


@pytest.mark.parametrize("keys", [("a",), ()], ids=["a key", "all"])
def test_it_waits_for_what_there_was_and_not_for_what_comes(driver: Driver, keys: tuple[str, ...]) -> None:
    """The pool is never idle: each event of the key that is handled adds another."""
    gate = Gate()
    handled: list[int] = []
    enough = threading.Event()

    def handle(event: int) -> None:
        gate(event)
        handled.append(event)
        if not enough.is_set():
            pool.add("a", event + 3)

    pool = driver.pool(handle, workers=1).start()
    for event in range(3):
        pool.add("a", event)
    gate.wait_inside()
    outcome = flushing(pool, *keys)
    assert handled == []
    gate.open.set()
    outcome()
    assert handled[:3] == [0, 1, 2]
    assert not enough.is_set()
    enough.set()
    pool.drain(PATIENCE)
    assert is_clean(pool)


def test_all_keys_are_waited_for_where_none_is_named(driver: Driver) -> None:
    gates = {key: Gate() for key in "abc"}
    pool = driver.pool(lambda key: gates[key](key), workers=2).start()
    for key in "abc":
        pool.add(key, key)
    bell: SimpleQueue[None] = SimpleQueue()
    outcome = flushing(pool)
    with Flush(pool, NOTHING, bell, None) as flush:
        for handled, key in enumerate("abc"):
            eventually(partial(has_handled, pool, handled))
            assert not flush.is_over()
            gates[key].open.set()
        bell.get(timeout=PATIENCE)
        assert flush.is_over()
    outcome()
    assert pool.stats().handled == 3
    pool.drain(PATIENCE)
    assert is_clean(pool)


def test_one_key_is_flushed_while_another_stands_still(driver: Driver) -> None:
    gate = Gate()
    pool = driver.pool(lambda event: gate(event) if event == "slow" else None, workers=2).start()
    pool.add("slow", "slow")
    gate.wait_inside()
    for _ in range(10):
        pool.add("quick", "quick")
    pool.flush("quick", timeout=PATIENCE)
    assert pool.stats().handled == 10
    gate.open.set()
    pool.drain(PATIENCE)


def test_what_is_idle_is_flushed_at_once(driver: Driver) -> None:
    pool = driver.pool(print, workers=1)
    pool.flush()
    pool.flush("a")
    pool.start()
    pool.flush()
    pool.park("a")
    pool.flush("a")
    pool.resume("a")
    pool.drain(PATIENCE)
    pool.flush()
    pool.flush("a")
    assert is_clean(pool)


@pytest.mark.parametrize("ending", ["retry", "skip", "dead"])
def test_a_retry_is_waited_for_and_what_is_given_up_on_has_ended(driver: Driver, ending: str) -> None:
    clock = FakeClock()
    failed: list[str] = []

    def handle(event: str) -> None:
        if event != ending or failed:
            return
        failed.append(event)
        if event == "retry":
            raise RetryAfter(5)
        raise SkipEvent if event == "skip" else ValueError

    pool = driver.pool(handle, workers=1, clock=clock, on_failure=Skip()).start()
    pool.add("a", ending)
    pool.add("a", "next")
    outcome = in_thread(partial(pool.flush, "a"))
    if ending == "retry":
        eventually(lambda: pool.stats().retrying == 1)
        assert len(pool._core.audience) <= 1
        clock.advance(5)
    outcome()
    stats = pool.stats()
    assert (stats.handled, stats.dead) == ((2, 0) if ending == "retry" else (1, 1))
    pool.drain(PATIENCE)


def test_a_key_that_is_parked_is_told_at_once(driver: Driver) -> None:
    def handle(event: int) -> None:
        if event == 0:
            raise ParkKey

    pool = driver.pool(handle, workers=1).start()
    pool.add("a", 0)
    eventually(lambda: pool.stats().parked == 1)
    for keys in (("a",), ()):
        with pytest.raises(FlushIncomplete, match="while key 'a' is parked") as raised:
            pool.flush(*keys)
        assert raised.value.key == "a"
    pool.add("b", 1)
    pool.flush("b", timeout=PATIENCE)
    assert pool.skip_head("a").event == 0
    pool.flush()
    pool.drain(PATIENCE)
    assert is_clean(pool)


@pytest.mark.parametrize("how", ["handler", "policy", "by hand, in flight", "by hand, retrying"])
def test_a_key_that_is_parked_while_it_is_waited_for(driver: Driver, how: str) -> None:
    gate = Gate()

    def handle(event: str) -> None:
        gate(event)
        if event == "handler":
            raise ParkKey
        if event == "policy":
            raise ValueError
        if event == "by hand, retrying":
            raise RetryAfter(5)

    policy = Retry(attempts=1)
    pool = driver.pool(handle, workers=1, on_failure=policy, clock=FakeClock()).start()
    pool.add("a", how)
    pool.add("a", "behind")
    gate.wait_inside()
    outcome = flushing(pool)
    if how == "by hand, in flight":
        pool.park("a")
    gate.open.set()
    if how == "by hand, retrying":
        eventually(lambda: pool.stats().retrying == 1)
        pool.park("a")
    with pytest.raises(FlushIncomplete) as raised:
        outcome()
    assert raised.value.key == "a"
    assert pool.stats().parked == 1
    assert not pool._core.audience
    assert len(pool.stop(PATIENCE)) == (1 if how == "by hand, in flight" else 2)
    assert is_clean(pool)


def test_how_many_other_keys_are_parked_is_no_matter(driver: Driver) -> None:
    """To look whether one key is parked is one look, with the pool stopped for it, whatever is parked."""
    looks: list[int] = []

    class Key(int):
        def __hash__(self) -> int:
            looks.append(self)
            return int(self)

    pool = driver.pool(lambda event: None, workers=1).start()
    for number in range(100):
        pool.park(Key(number))
        pool.add(Key(number), number)
    eventually(lambda: pool.stats().parked == 100)
    pool.add(Key(100), 100)
    looks.clear()
    pool.flush(Key(100), timeout=PATIENCE)
    assert len(looks) < 50
    pool.stop(PATIENCE)


def test_that_another_key_is_parked_is_no_matter(driver: Driver) -> None:
    gate = Gate()
    pool = driver.pool(gate, workers=1).start()
    pool.add("a", 1)
    gate.wait_inside()
    outcome = flushing(pool, "a")
    pool.add("b", 2)
    pool.park("b")
    gate.open.set()
    outcome()
    eventually(lambda: pool.stats().parked == 1)
    pool.stop(PATIENCE)


def test_an_event_in_flight_ends_although_its_key_is_to_be_parked(driver: Driver) -> None:
    gate = Gate()
    pool = driver.pool(gate, workers=1).start()
    pool.add("a", 1)
    gate.wait_inside()
    outcome = flushing(pool, "a")
    pool.park("a")
    gate.open.set()
    outcome()
    pool.resume("a")
    pool.drain(PATIENCE)


def test_a_stop_ends_it(driver: Driver) -> None:
    gate = Gate()
    pool = driver.pool(gate, workers=1).start()
    for event in range(2):
        pool.add("a", event)
    gate.wait_inside()
    outcome = flushing(pool)
    stopped = in_thread(partial(pool.stop, PATIENCE))
    with pytest.raises(PoolClosed, match="cannot be flushed"):
        outcome()
    gate.open.set()
    assert stopped() == [("a", 1)]
    with pytest.raises(PoolClosed, match="cannot be flushed"):
        pool.flush()
    assert is_clean(pool)


def test_a_failure_ends_it(driver: Driver) -> None:
    gate = Gate()

    def handle(event: int) -> None:
        gate(event)
        raise ValueError

    pool = driver.pool(handle, workers=1).start()
    pool.add("a", 1)
    gate.wait_inside()
    outcome = flushing(pool, "a")
    gate.open.set()
    with pytest.raises(HandlerError, match="failed"):
        outcome()
    with pytest.raises(HandlerError):
        pool.flush()
    with pytest.raises(HandlerError):
        pool.stop(PATIENCE)


def test_a_drain_does_not_end_it(driver: Driver) -> None:
    gate = Gate()
    pool = driver.pool(gate, workers=1).start()
    for event in range(3):
        pool.add("a", event)
    gate.wait_inside()
    outcome = flushing(pool)
    drained = in_thread(partial(pool.drain, PATIENCE))
    eventually(lambda: "draining" in repr(pool))
    assert len(pool._core.audience) == 1, "it waits still"
    gate.open.set()
    outcome()
    drained()
    assert is_clean(pool)


@pytest.mark.parametrize("keys", [("a",), ("other",), ()])
def test_a_handler_would_wait_for_itself(driver: Driver, keys: tuple[str, ...]) -> None:
    told: list[str] = []

    def handle(event: int) -> None:
        try:
            pool.flush(*keys)
        except RuntimeError as error:
            told.append(str(error))

    pool = driver.pool(handle, workers=1).start()
    pool.add("a", 1)
    eventually(partial(has_handled, pool, 1))
    pool.drain(PATIENCE)
    assert told == ["flush() in a handler would wait for the handler's own event"]


def test_a_pool_that_was_never_started_never_would(driver: Driver) -> None:
    pool = driver.pool(print, workers=1)
    pool.add("a", 1)
    for keys in (("a",), ()):
        with pytest.raises(RuntimeError, match="never started"):
            pool.flush(*keys)
    assert is_clean(pool)
    assert pool.stop(PATIENCE) == [("a", 1)]


def test_it_is_given_up_after_a_time(driver: Driver) -> None:
    gate = Gate()
    pool = driver.pool(gate, workers=1).start()
    for event in range(3):
        pool.add("a", event)
    gate.wait_inside()
    with pytest.raises(TimeoutError, match=r"in 0.01 s: .* of 1 keys have not ended, 'a' among them"):
        pool.flush(timeout=0.01)
    assert is_clean(pool)
    gate.open.set()
    pool.drain(PATIENCE)


@pytest.mark.parametrize("arguments", [([],), ("a", -1), ("a", "x")])
def test_bad_arguments(driver: Driver, arguments: tuple[Any, ...]) -> None:
    pool = driver.pool(print, workers=1).start()
    key, *timeout = arguments
    with pytest.raises((TypeError, ValueError)):
        pool.flush(key, **dict(zip(["timeout"], timeout, strict=False)))
    pool.drain(PATIENCE)
    assert is_clean(pool)


def test_many_at_once_each_return_when_what_they_saw_has_ended(driver: Driver) -> None:
    """At random: events that fail and are skipped, flushes of one key and of all, from several threads."""
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    rng = random.Random(seed)
    ended: set[int] = set()
    early: list[int] = []

    def handle(event: int) -> None:
        if rng.random() < 0.2:
            raise rng.choice([ValueError(), RetryAfter(0), SkipEvent()])
        ended.add(event)

    pool = driver.pool(
        handle, workers=3, max_backlog=50, max_dead=None, on_failure=Retry(attempts=3, base=0, then=Skip())
    ).start()

    def produce(number: int) -> None:
        mine = random.Random(seed + number)
        added: dict[int, list[int]] = {}
        for event in range(number, 600, 3):
            key = mine.randrange(4)
            pool.add(key, event)
            added.setdefault(key, []).append(event)
            if mine.random() < 0.1:
                whole = mine.random() < 0.5
                pool.flush(*([] if whole else [key]), timeout=PATIENCE)
                seen = ended | {dead.event for dead in pool.dead()}
                mine_too = [each for events in added.values() for each in events] if whole else added[key]
                early.extend(each for each in mine_too if each not in seen)

    producers = [in_thread(partial(produce, number)) for number in range(3)]
    for done in producers:
        done()
    pool.flush(timeout=PATIENCE)
    assert early == []
    assert is_clean(pool)
    pool.drain(PATIENCE)
