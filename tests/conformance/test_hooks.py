"""Hooks hear each event, in its order, and hurt nothing whatever they do."""

from __future__ import annotations

import logging
import threading
from functools import partial
from typing import Any

import pytest

from support import PATIENCE, Driver, Gate, Heard, eventually, has_adders, has_handled, in_thread
from workpool import Delivery, HandlerError, ParkKey, PoolFull, Retry, RetryAfter, Skip, SkipEvent
from workpool.hooks import METRICS, Hearing
from workpool.testing import FakeClock


def test_each_event_is_heard_in_its_order(driver: Driver) -> None:
    heard = Heard()
    with driver.pool(lambda event: None, workers=2, hooks=heard) as pool:
        for event in range(3):
            pool.add("a", event)
        assert pool.add_many([("b", 3), ("b", 4)]) == 2
        pool.add_nowait("c", 5)
    assert sorted(each[1:] for each in heard.all if each[0] == "added") == [
        ("a", 0), ("a", 1), ("a", 2), ("b", 3), ("b", 4), ("c", 5),
    ]  # fmt: skip
    assert heard.of("a") == [(name, 1, event) for event in range(3) for name in ("started", "succeeded")]
    assert heard.of("c") == [("started", 1, 5), ("succeeded", 1, 5)]
    assert [stats.handled for stats in heard.last] == [6]


def test_what_fails_is_heard_and_what_becomes_of_it(driver: Driver) -> None:
    heard, clock = Heard(), FakeClock()

    def handle(event: str, delivery: Any) -> None:
        if event == "retried" and delivery.attempt == 1:
            raise RetryAfter(5)
        if event == "skipped":
            raise SkipEvent
        if event == "parked":
            raise ParkKey
        if event == "worn out":
            raise ValueError

    policy = Retry(attempts=2, base=0, then=Skip())
    pool = driver.pool(handle, workers=1, hooks=heard, clock=clock, on_failure=policy).start()
    for event in ("retried", "skipped", "parked", "worn out"):
        pool.add(event, event)
    eventually(lambda: (pool.stats().retrying, pool.stats().parked, pool.stats().dead) == (1, 1, 2))
    clock.advance(5)
    eventually(partial(has_handled, pool, 1))
    pool.skip_head("parked")
    assert heard.of("parked")[-1] == ("dead", "parked")
    pool.drain(PATIENCE)
    assert heard.of("retried") == [
        ("started", 1, "retried"), ("failed", 1, "retried", "RetryAfter"), ("started", 2, "retried"),
        ("succeeded", 2, "retried"),
    ]  # fmt: skip
    assert heard.of("skipped") == [
        ("started", 1, "skipped"),
        ("failed", 1, "skipped", "SkipEvent"),
        ("dead", "skipped"),
    ]
    assert heard.of("parked") == [
        ("started", 1, "parked"), ("failed", 1, "parked", "ParkKey"), ("parked",), ("dead", "parked"),
    ]  # fmt: skip
    assert [name for name, *_ in heard.of("worn out")] == ["started", "failed", "started", "failed", "dead"]
    assert [(stats.handled, stats.dead) for stats in heard.last] == [(1, 3)]


def test_a_key_that_is_parked_by_hand_is_heard_when_it_is(driver: Driver) -> None:
    heard, gate = Heard(), Gate()
    pool = driver.pool(gate, workers=1, hooks=heard).start()
    for event in range(2):
        pool.add("a", event)
    gate.wait_inside()
    pool.park("a")
    assert ("parked", "a") not in heard.all
    gate.open.set()
    eventually(lambda: ("parked", "a") in heard.all)
    pool.resume("a")
    pool.drain(PATIENCE)
    assert heard.names().count("parked") == 1


def test_one_that_waits_for_room_is_added_when_it_has_it(driver: Driver) -> None:
    heard, gate = Heard(), Gate()
    pool = driver.pool(gate, workers=1, max_backlog=1, hooks=heard).start()
    pool.add("a", 0)
    gate.wait_inside()
    pool.add("a", 1)
    with pytest.raises(PoolFull):
        pool.add_nowait("a", "refused")
    with pytest.raises(TimeoutError):
        pool.add("a", "given up", timeout=0.01)
    adding = in_thread(partial(pool.add, "b", 2))
    eventually(partial(has_adders, pool))
    assert ("added", "b", 2) not in heard.all
    gate.open.set()
    adding()
    pool.drain(PATIENCE)
    assert [each[2] for each in heard.all if each[0] == "added"] == [0, 1, 2]


def test_what_is_replayed_is_added_again(driver: Driver) -> None:
    heard = Heard()
    failed: list[int] = []

    def handle(event: int) -> None:
        if not failed:
            failed.append(event)
            raise SkipEvent

    pool = driver.pool(handle, workers=1, hooks=heard).start()
    pool.add("a", 1)
    eventually(lambda: len(pool.dead()) == 1)
    pool.replay(pool.dead()[0])
    pool.drain(PATIENCE)
    assert heard.names().count("added") == 2


def test_a_failure_of_the_pool_is_heard_and_its_end(driver: Driver) -> None:
    heard = Heard()

    def handle(event: int) -> None:
        raise ValueError

    pool = driver.pool(handle, workers=1, hooks=heard)
    for event in range(2):
        pool.add("a", event)
    pool.start()
    with pytest.raises(HandlerError):
        pool.drain(PATIENCE)
    assert heard.of("a") == [("started", 1, 0), ("failed", 1, 0, "ValueError")]
    assert [(stats.returned, stats.waiting) for stats in heard.last] == [(2, 0)]


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
def test_each_delivery_that_is_heard_to_start_is_heard_to_end(driver: Driver, kind: type[BaseException]) -> None:
    heard = Heard()

    def handle(event: int) -> None:
        raise kind

    pool = driver.pool(handle, workers=1, hooks=heard).start()
    pool.add("a", 0)
    with pytest.raises(HandlerError):
        pool.drain(PATIENCE)
    assert heard.of("a") == [("started", 1, 0), ("failed", 1, 0, kind.__name__)]


def test_but_not_where_it_never_does() -> None:
    """A coroutine that is dropped with its loop is closed by whoever finds it, who must not be called from there."""
    heard = Heard()
    with pytest.raises(GeneratorExit), Hearing(heard, "default").telling(Delivery("a", 1), 0):
        raise GeneratorExit
    assert heard.all == [("started", "a", 1, 0)]


class Hurting:
    """Raises whatever it hears."""

    def hear(self, *_: Any) -> None:
        raise ValueError("heard")

    added = started = succeeded = failed = parked = dead = merged = ended = hear


def test_one_that_raises_hurts_nothing_and_is_logged_once(driver: Driver, caplog: pytest.LogCaptureFixture) -> None:
    handled: list[int] = []

    def handle(event: int) -> None:
        if event == 3:
            raise SkipEvent
        handled.append(event)

    with caplog.at_level(logging.ERROR, "workpool"), driver.pool(handle, workers=1, hooks=Hurting()) as pool:
        for event in range(6):
            pool.add("a", event)
    assert handled == [0, 1, 2, 4, 5]
    [record] = [record for record in caplog.records if "hook" in record.getMessage()]
    assert "its hook" in record.getMessage()
    assert record.exc_info is not None


def test_one_that_raises_hurts_nothing_where_it_cannot_be_logged(
    driver: Driver, monkeypatch: pytest.MonkeyPatch
) -> None:
    handled: list[int] = []

    def broken(*_: Any, **__: Any) -> None:
        raise OSError("logging is broken")

    monkeypatch.setattr(logging.getLogger("workpool"), "exception", broken)
    with driver.pool(handled.append, workers=1, hooks=Hurting()) as pool:
        pool.add("a", 0)
    assert handled == [0]


def test_the_end_is_told_once_although_the_last_worker_may_leave_twice(driver: Driver) -> None:
    """It does where it is cut while it leaves."""
    heard = Heard()
    pool = driver.pool(print, workers=1, hooks=heard).start()
    pool.drain(PATIENCE)
    pool._hearing.tell_end(pool.stats())
    assert len(heard.last) == 1


def test_it_may_look_at_the_pool(driver: Driver) -> None:
    """It is called outside: one that was called in the middle of a step could not."""
    looks: list[int] = []

    class Looking(Heard):
        def succeeded(self, delivery: Any, event: Any, seconds: float) -> None:
            super().succeeded(delivery, event, seconds)
            looks.append(pool._core.added)
            assert not pool._mutex._is_owned()

        def dead(self, dead: Any) -> None:
            super().dead(dead)
            assert not pool._mutex._is_owned()

    def handle(event: int) -> None:
        if event == 1:
            raise SkipEvent

    heard = Looking()
    pool = driver.pool(handle, workers=1, hooks=heard).start()
    for event in range(3):
        pool.add("a", event)
    pool.drain(PATIENCE)
    assert len(looks) == 2
    assert heard.names().count("dead") == 1


def test_nothing_is_kept_for_them(driver: Driver) -> None:
    heard = Heard()
    pool = driver.pool(lambda event: None, workers=3, hooks=heard, on_failure=Skip()).start()
    together = threading.Barrier(3)

    def produce(number: int) -> None:
        together.wait(PATIENCE)
        for event in range(200):
            pool.add(event % 7, number * 1000 + event)

    for done in [in_thread(partial(produce, number)) for number in range(3)]:
        done()
    pool.flush(timeout=PATIENCE)
    assert not pool._core.news
    pool.drain(PATIENCE)
    assert [heard.names().count(name) for name in ("added", "started", "succeeded")] == [600] * 3
    for key in range(7):
        started = [rest for name, *rest in heard.of(key) if name == "started"]
        ended = [rest for name, *rest in heard.of(key) if name == "succeeded"]
        assert started == ended


def test_one_that_lacks_a_hook_is_refused(driver: Driver) -> None:
    class Half:
        def added(self, key: Any, event: Any) -> None:
            """Hear."""

    with pytest.raises(TypeError, match=r"hooks must have started, succeeded, .* inherit from"):
        driver.pool(print, workers=1, hooks=Half())


def test_the_names_of_metrics_are_those_of_client_go() -> None:
    assert len(METRICS) == 7
    assert all(name.startswith("workqueue_") for name in METRICS)
