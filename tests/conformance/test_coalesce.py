"""With `coalesce="latest"` at most one event of a key waits: a newer one takes its place, and is always handled."""

from __future__ import annotations

import random
import threading
from functools import partial
from typing import Any

import pytest

from support import PATIENCE, Driver, Gate, Heard, adds_up, eventually, has_adders, has_handled, in_thread
from workpool import DrainIncomplete, HandlerError, ParkKey, PoolFull, Retry, Skip, SkipEvent
from workpool.testing import FakeClock


class Log:
    """A handler that notes what it is given, and raises what it is told to, once each."""

    def __init__(self, *raised: BaseException) -> None:
        self.seen: list[tuple[Any, int]] = []
        self.raised = [*raised]

    def __call__(self, event: Any, delivery: Any) -> None:
        self.seen.append((event, delivery.attempt))
        if self.raised:
            raise self.raised.pop(0)


def make(driver: Driver, handler: Any, **options: Any) -> Any:
    return driver.pool(handler, coalesce="latest", **{"workers": 1, **options})


def test_a_newer_event_takes_the_place_of_one_that_waits(driver: Driver) -> None:
    log = Log()
    pool = make(driver, log)
    for event in range(3):
        pool.add("a", event)
        pool.add("b", event + 10)
    stats = pool.stats()
    assert (stats.added, stats.merged, stats.waiting, stats.keys) == (6, 4, 2, 2)
    assert adds_up(stats)
    with pool:
        pass
    assert log.seen == [(2, 1), (12, 1)]


def test_one_run_always_starts_after_the_last_add(driver: Driver) -> None:
    """What is in flight has begun without the newer event: that is handled next."""
    gate, seen = Gate(), []

    def handle(event: int) -> None:
        seen.append(event)
        gate(event)

    pool = make(driver, handle, workers=3).start()
    pool.add("a", 0)
    gate.wait_inside()
    for event in range(1, 5):
        pool.add("a", event)
    assert pool.explain("a").waiting == 1
    gate.open.set()
    pool.drain(PATIENCE)
    assert seen == [0, 4]
    assert (pool.stats().handled, pool.stats().merged) == (2, 3)


def test_a_newer_event_needs_no_room(driver: Driver) -> None:
    gate = Gate()
    pool = make(driver, gate, max_backlog=1, max_lane=1).start()
    pool.add("a", 0)
    gate.wait_inside()
    pool.add_nowait("a", 1)
    pool.add_nowait("a", 2)
    with pytest.raises(PoolFull):
        pool.add_nowait("b", 0)
    with pytest.raises(TimeoutError):
        pool.add("b", 0, timeout=0.01)
    adding = in_thread(partial(pool.add, "b", 1))
    eventually(lambda: bool(pool._core.adders))
    pool.add("a", 3)
    gate.open.set()
    adding()
    pool.drain(PATIENCE)
    assert (pool.stats().handled, pool.stats().merged) == (3, 2)


def test_a_newer_event_replaces_a_retry_and_starts_afresh(driver: Driver) -> None:
    log, clock = Log(ValueError(), ValueError()), FakeClock()
    pool = make(driver, log, clock=clock, on_failure=Retry(attempts=3, base=100, jitter="none")).start()
    pool.add("a", "old")
    eventually(lambda: pool.stats().retrying == 1)
    clock.advance(100)
    eventually(lambda: pool.explain("a").attempt == 3)
    pool.add("a", "new")
    pool.drain(PATIENCE)
    assert log.seen == [("old", 1), ("old", 2), ("new", 1)]
    assert (pool.stats().handled, pool.stats().merged) == (1, 1)


def test_one_that_fails_is_not_retried_where_a_newer_one_waits(driver: Driver) -> None:
    gate = Gate()
    seen: list[tuple[int, int]] = []

    def handle(event: int, delivery: Any) -> None:
        seen.append((event, delivery.attempt))
        gate(event)
        if event == 0:
            raise ValueError

    pool = make(driver, handle, on_failure=Retry(base=1000)).start()
    pool.add("a", 0)
    gate.wait_inside()
    pool.add("a", 1)
    gate.open.set()
    pool.drain(PATIENCE)
    assert seen == [(0, 1), (1, 1)]
    assert (pool.stats().handled, pool.stats().merged) == (1, 1)


def test_one_that_is_not_retried_for_a_newer_one_is_heard(driver: Driver, caplog: pytest.LogCaptureFixture) -> None:
    heard, gate = Heard(), Gate()

    def handle(event: int) -> None:
        gate(event)
        if event == 0:
            raise ValueError

    pool = make(driver, handle, hooks=heard, on_failure=Retry(base=1000)).start()
    pool.add("a", 0)
    gate.wait_inside()
    pool.add("a", 1)
    gate.open.set()
    pool.drain(PATIENCE)
    assert heard.of("a") == [
        ("started", 1, 0), ("failed", 1, 0, "ValueError"), ("merged", 0), ("started", 1, 1), ("succeeded", 1, 1),
    ]  # fmt: skip
    [record] = caplog.records
    assert record.getMessage().endswith("raised at attempt 1: a newer one takes its place")


def test_a_retry_is_told_as_one_although_who_waited_for_room_takes_the_place_of_another(
    driver: Driver, caplog: pytest.LogCaptureFixture
) -> None:
    gates = {event: Gate() for event in ("fails", 0, 1, 2, 3)}

    def handle(event: Any) -> None:
        if event in gates:
            gates[event](event)
        if event == "fails":
            pool.add("a", "from inside")
            raise ValueError

    policy = Retry(base=5, jitter="none")
    pool = make(driver, handle, workers=2, max_backlog=10, on_failure=policy, clock=FakeClock()).start()
    for event in ("fails", 0):
        pool.add(event, event)
        gates[event].wait_inside()
    for event in range(1, 11):
        pool.add(event, event)
    adding = in_thread(partial(pool.add, "a", "waits"))
    eventually(partial(has_adders, pool))
    for event in range(3):
        gates[event].open.set()
        gates[event + 1].wait_inside()
    gates["fails"].open.set()
    adding()
    eventually(lambda: bool(caplog.records))
    assert (pool.stats().retrying, pool.stats().merged) == (1, 1)
    assert "once more in 5 s" in caplog.records[0].getMessage()
    gates[3].open.set()
    pool.stop(PATIENCE)


def test_a_skip_is_a_skip(driver: Driver) -> None:
    gate = Gate()

    def handle(event: int) -> None:
        gate(event)
        if event == 0:
            raise SkipEvent

    pool = make(driver, handle).start()
    pool.add("a", 0)
    gate.wait_inside()
    pool.add("a", 1)
    gate.open.set()
    pool.drain(PATIENCE)
    assert [(dead.key, dead.event, dead.attempts) for dead in pool.dead()] == [("a", 0, 1)]
    assert (pool.stats().handled, pool.stats().merged) == (1, 0)


def test_a_parked_key_stays_parked_with_the_newer_event(driver: Driver) -> None:
    log = Log(ParkKey())
    pool = make(driver, log).start()
    pool.add("a", 0)
    eventually(lambda: pool.parked() == ["a"])
    pool.add("a", 1)
    pool.add("b", 2)
    eventually(partial(has_handled, pool, 1))
    told = pool.explain("a")
    assert (told.state, told.waiting, told.attempt, told.error) == ("parked", 1, 1, "")
    pool.resume("a")
    pool.drain(PATIENCE)
    assert log.seen == [(0, 1), (2, 1), (1, 1)]


def test_a_park_with_a_newer_event_behind_parks_that(driver: Driver) -> None:
    gate = Gate()

    def handle(event: int) -> None:
        assert event in (0, 2), "it was parked, and has started"
        gate(event)
        raise ParkKey

    pool = make(driver, handle).start()
    pool.add("a", 0)
    gate.wait_inside()
    pool.add("a", 1)
    gate.open.set()
    eventually(lambda: pool.stats().parked == 1)
    assert pool.stats().merged == 1
    assert pool.skip_head("a").event == 1
    pool.add("a", 2)
    eventually(lambda: pool.stats().parked == 1)
    with pytest.raises(DrainIncomplete) as raised:
        pool.drain(PATIENCE)
    assert raised.value.left == [("a", 2)]


def test_a_newer_event_ends_a_delay_or_brings_its_own(driver: Driver) -> None:
    """Again and again with a delay, that is to wait until it is quiet."""
    log, clock = Log(), FakeClock()
    pool = make(driver, log, clock=clock).start()
    for event in range(3):
        pool.add("a", event, delay=10)
        clock.advance(9)
    assert (pool.stats().delayed, pool.stats().merged) == (1, 2)
    clock.advance(1)
    eventually(partial(has_handled, pool, 1))
    pool.add("a", 3, delay=10)
    pool.add("a", 4)
    pool.drain(PATIENCE)
    assert log.seen == [(2, 1), (4, 1)]


def test_a_newer_event_with_a_delay_holds_what_would_be_ready(driver: Driver) -> None:
    gate, clock, log = Gate(), FakeClock(), Log()

    def handle(event: Any, delivery: Any) -> None:
        if event == "first":
            gate(event)
        log(event, delivery)

    pool = make(driver, handle, clock=clock).start()
    pool.add("b", "first")
    gate.wait_inside()
    pool.add("a", 0)
    pool.add("a", 1, delay=10)  # In the ring.
    pool.add("b", 2)
    pool.add("b", 3, delay=20)  # Behind the one in flight.
    gate.open.set()
    eventually(lambda: pool.stats().delayed == 2)
    clock.advance(10)
    eventually(partial(has_handled, pool, 2))
    clock.advance(10)
    pool.drain(PATIENCE)
    assert [event for event, _ in log.seen] == ["first", 1, 3]


def test_one_that_waits_for_its_retry_is_replaced_by_one_with_a_delay(driver: Driver) -> None:
    log, clock = Log(ValueError()), FakeClock()
    pool = make(driver, log, clock=clock, on_failure=Retry(base=5, jitter="none")).start()
    pool.add("a", 0)
    eventually(lambda: pool.stats().retrying == 1)
    pool.add("a", 1, delay=50)
    assert (pool.stats().retrying, pool.stats().delayed) == (0, 1)
    clock.advance(49)
    pool.add("b", 2)
    eventually(partial(has_handled, pool, 1))
    clock.advance(1)
    pool.drain(PATIENCE)
    assert log.seen == [(0, 1), (2, 1), (1, 1)]


def test_a_stop_returns_the_newest(driver: Driver) -> None:
    gate = Gate()
    pool = make(driver, gate).start()
    pool.add("a", 0)
    gate.wait_inside()
    for event in range(1, 4):
        pool.add("a", event)
        pool.add("b", event)
    stopping = in_thread(pool.stop)
    eventually(lambda: "stopping" in repr(pool))
    gate.open.set()
    assert sorted(stopping()) == [("a", 3), ("b", 3)]
    assert adds_up(pool.stats())


def test_where_the_pool_fails_what_failed_and_the_newer_one_are_left(driver: Driver) -> None:
    gate = Gate()

    def handle(event: int) -> None:
        gate(event)
        raise ValueError

    pool = make(driver, handle).start()
    pool.add("a", 0)
    gate.wait_inside()
    pool.add("a", 1)
    pool.add("a", 2)
    gate.open.set()
    with pytest.raises(HandlerError) as raised:
        pool.drain(PATIENCE)
    assert (raised.value.event, raised.value.left) == (0, [("a", 0), ("a", 2)])
    assert adds_up(pool.stats())


def test_a_flush_waits_for_what_took_the_place(driver: Driver) -> None:
    gate = Gate()
    pool = make(driver, gate).start()
    pool.add("b", 0)
    gate.wait_inside()
    pool.add("a", 0)
    flushing = in_thread(partial(pool.flush, "a"))
    eventually(lambda: bool(pool._core.audience))
    pool.add("a", 1)
    gate.open.set()
    flushing()
    assert pool.stats().handled == 2
    pool.drain(PATIENCE)


def test_each_that_is_merged_is_heard(driver: Driver) -> None:
    heard, clock = Heard(), FakeClock()
    log = Log(ValueError())
    pool = make(driver, log, hooks=heard, clock=clock, on_failure=Retry(base=100, jitter="none"))
    pool.add("a", 0)
    pool.add("a", 1)
    assert heard.all == [("added", "a", 0), ("added", "a", 1), ("merged", "a", 0)]
    pool.start()
    eventually(lambda: pool.stats().retrying == 1)
    pool.add("a", 2)
    pool.drain(PATIENCE)
    assert heard.of("a") == [
        ("merged", 0), ("started", 1, 1), ("failed", 1, 1, "ValueError"), ("merged", 1), ("started", 1, 2),
        ("succeeded", 1, 2),
    ]  # fmt: skip


def test_a_dead_event_that_is_replayed_is_a_new_one(driver: Driver) -> None:
    log = Log(SkipEvent())
    pool = make(driver, log).start()
    pool.add("a", 0)
    eventually(lambda: pool.stats().dead == 1)
    [dead] = pool.dead()
    pool.replay(dead)
    pool.drain(PATIENCE)
    assert [event for event, _ in log.seen] == [0, 0]
    assert adds_up(pool.stats())


def test_nothing_is_left_of_it(driver: Driver) -> None:
    pool = make(driver, Log(), workers=3).start()
    pool.add_many((event % 100, event) for event in range(1000))
    pool.flush(timeout=PATIENCE)
    core = pool._core
    eventually(lambda: not any([core.latest, core.aside, core.notes, core.timers, core.lanes, core.rubbish]))
    pool.drain(PATIENCE)


@pytest.mark.parametrize("wrong", ["newest", True, 1, ""])
def test_what_it_cannot_be_is_refused(driver: Driver, wrong: Any) -> None:
    with pytest.raises(ValueError, match='coalesce must be "latest" or None, and is'):
        driver.pool(print, workers=1, coalesce=wrong)
    with pytest.raises(ValueError, match="batch cannot be had with coalesce"):
        driver.pool(print, workers=1, coalesce="latest", batch=2)


def test_a_key_that_cannot_be_hashed_is_refused_and_merges_nothing(driver: Driver) -> None:
    pool = make(driver, Log()).start()
    with pytest.raises(TypeError, match="hashable"):
        pool.add([], 1)
    assert pool.stats().added == 0
    pool.drain(PATIENCE)


def test_at_random_the_last_of_each_key_is_handled_and_nothing_is_uncounted(driver: Driver) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    rng = random.Random(seed)
    heard, lock = Heard(), threading.Lock()
    last: dict[int, tuple[int, int]] = {}
    busy: set[int] = set()

    def handle(event: tuple[int, int]) -> None:
        key = event[0]
        with lock:
            assert key not in busy
            busy.add(key)
            chance = rng.random()
        with lock:
            busy.remove(key)
            if chance < 0.2:
                raise ValueError
            last[key] = event

    policy = Retry(attempts=3, base=0.001, then=Skip())
    pool = make(driver, handle, workers=3, max_backlog=3, on_failure=policy, hooks=heard).start()

    def produce(producer: int) -> None:
        chance = random.Random(seed + producer)
        for number in range(200):
            key = 10 * producer + chance.randrange(3)
            pool.add(key, (key, number), delay=chance.choice([None, None, 0.001]), timeout=PATIENCE)

    for done in [in_thread(partial(produce, producer)) for producer in range(3)]:
        done()
    pool.drain(PATIENCE)
    stats = pool.stats()
    assert adds_up(stats)
    assert stats.added == stats.handled + stats.dead + stats.merged == 600
    merged = [each[1:] for each in heard.all if each[0] == "merged"]
    assert len(merged) == len(set(merged)) == stats.merged
    newest: dict[int, Any] = {}
    for _, key, event in (each for each in heard.all if each[0] == "added"):
        newest[key] = max(event, newest.get(key, event))
    dead = {each.event for each in pool.dead()}
    assert all(last.get(key) == event or event in dead for key, event in newest.items())
