"""P9: what becomes of an event whose handler raises, and of the events behind it."""

from __future__ import annotations

import gc
import logging
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from typing import Any

import pytest

from support import PATIENCE, Driver, Gate, LookedAt, adds_up, begin, eventually, has_handled, has_line, in_thread
from workpool import (
    Delivery,
    DrainIncomplete,
    Explanation,
    Fail,
    HandlerError,
    Park,
    ParkKey,
    Policy,
    PoolClosed,
    PoolFull,
    Retry,
    RetryAfter,
    Skip,
    SkipEvent,
)
from workpool.testing import FakeClock

EXACT = Retry(attempts=3, base=10, cap=60, jitter="none")


class Script:
    """A handler that raises what it is told to for an event, delivery by delivery, and then handles it."""

    def __init__(self, **errors: list[Any]) -> None:
        self.errors = errors
        self.deliveries: list[tuple[str, int]] = []
        self.handled: list[str] = []

    def __call__(self, event: str, delivery: Delivery) -> None:
        self.deliveries.append((event, delivery.attempt))
        if errors := self.errors.get(event):
            raise errors.pop(0)
        self.handled.append(event)


def counts(pool: Any, **expected: int) -> bool:
    """Whether a pool counts so, and adds up."""
    stats = pool.stats()
    assert adds_up(stats), stats
    return all(getattr(stats, name) == value for name, value in expected.items())


def eventually_counts(pool: Any, **expected: int) -> None:
    eventually(partial(counts, pool, **expected))


class Pools:
    """Makes pools of one worker on a fake clock, and stops them when the test is over."""

    def __init__(self, driver: Driver) -> None:
        self.driver = driver
        self.clock = FakeClock(1000.0)
        self.made: list[Any] = []

    def __call__(self, handler: Any, on_failure: Policy = Fail(), **arguments: Any) -> Any:  # noqa: B008 - frozen
        given = {"workers": 1, "on_failure": on_failure, "clock": self.clock, "name": "orders"} | arguments
        self.made.append(self.driver.pool(handler, **given).start())
        return self.made[-1]


@pytest.fixture
def make(driver: Driver) -> Iterator[Pools]:
    pools = Pools(driver)
    yield pools
    for pool in pools.made:
        with suppress(HandlerError):
            pool.stop(PATIENCE)


def add(pool: Any, *events: str) -> None:
    """Add events that are named after their keys."""
    for event in events:
        pool.add(event[0], event)


class TestRetry:
    def test_an_event_is_delivered_again_when_it_is_due_with_the_number_of_the_attempt(self, make: Pools) -> None:
        handler = Script(a1=[ValueError(), ValueError()])
        pool = make(handler, EXACT)
        add(pool, "a1")
        eventually_counts(pool, retrying=1)
        assert pool.explain("a").due == 1010
        make.clock.advance(9.9)
        assert handler.deliveries == [("a1", 1)]
        make.clock.advance(0.1)
        eventually(lambda: len(handler.deliveries) == 2)
        eventually_counts(pool, retrying=1)
        make.clock.advance(20)
        pool.drain(PATIENCE)
        assert handler.deliveries == [("a1", 1), ("a1", 2), ("a1", 3)]
        assert handler.handled == ["a1"]

    def test_no_event_of_its_key_passes_it_and_the_other_keys_go_on(self, make: Pools) -> None:
        handler = Script(a1=[ValueError()])
        pool = make(handler, EXACT)
        add(pool, "a1", "a2")
        eventually_counts(pool, retrying=1)
        add(pool, "b1", "a3", "b2")
        eventually(partial(has_handled, pool, 2))
        assert handler.handled == ["b1", "b2"]
        make.clock.advance(10)
        pool.drain(PATIENCE)
        assert handler.handled == ["b1", "b2", "a1", "a2", "a3"]
        assert handler.deliveries[-2:] == [("a2", 1), ("a3", 1)], "attempts are those of an event, not of its key"

    def test_each_event_of_a_key_has_attempts_of_its_own(self, make: Pools) -> None:
        handler = Script(a1=[ValueError()], a2=[ValueError(), ValueError()])
        pool = make(handler, Retry(attempts=3, base=0))
        add(pool, "a1", "a2", "a3")
        pool.drain(PATIENCE)
        assert handler.deliveries == [("a1", 1), ("a1", 2), ("a2", 1), ("a2", 2), ("a2", 3), ("a3", 1)]

    def test_after_the_last_attempt_the_key_is_parked(self, make: Pools) -> None:
        handler = Script(a1=[ValueError("no")] * 3)
        pool = make(handler, Retry(attempts=3, base=0))
        add(pool, "a1", "a2", "b1")
        eventually_counts(pool, parked=1, handled=1)
        assert handler.deliveries.count(("a1", 3)) == 1
        assert pool.explain("a").attempt == 4

    def test_after_the_last_attempt_the_event_is_skipped(self, make: Pools) -> None:
        handler = Script(a1=[ValueError(), OSError("at last")])
        pool = make(handler, Retry(attempts=2, base=0, then=Skip()))
        add(pool, "a1", "a2")
        pool.drain(PATIENCE)
        [dead] = pool.dead()
        assert (dead.event, dead.attempts, dead.error) == ("a1", 2, "OSError: at last")
        assert handler.handled == ["a2"]

    def test_after_the_last_attempt_the_pool_fails_and_says_which_it_was(self, make: Pools) -> None:
        pool = make(Script(a1=[ValueError()] * 3), Retry(attempts=3, base=0, then=Fail()))
        add(pool, "a1", "a2")
        with pytest.raises(HandlerError) as caught:
            pool.drain(PATIENCE)
        assert (caught.value.key, caught.value.event, caught.value.attempt) == ("a", "a1", 3)
        assert pool.left == [("a", "a1"), ("a", "a2")]

    def test_an_error_that_is_worth_no_attempt_gets_none(self, make: Pools) -> None:
        handler = Script(a1=[ConnectionError(), ValueError()])
        pool = make(handler, Retry(attempts=5, base=0, retry_on=(OSError,), then=Skip()))
        add(pool, "a1")
        pool.drain(PATIENCE)
        assert handler.deliveries == [("a1", 1), ("a1", 2)]
        assert [dead.attempts for dead in pool.dead()] == [2]

    def test_a_drain_waits_for_retries(self, make: Pools) -> None:
        handler = Script(a1=[ValueError()])
        pool = make(handler, EXACT)
        add(pool, "a1", "a2")
        eventually_counts(pool, retrying=1)
        with pytest.raises(TimeoutError, match="2 events wait, 0 are in flight"):
            pool.drain(0.01)
        make.clock.advance(10)
        pool.drain(PATIENCE)
        assert handler.handled == ["a1", "a2"]

    def test_time_is_not_waited_for_by_any_worker(self, make: Pools) -> None:
        """Far more keys back off than there are workers, and those that are healthy go on."""
        keys = [f"k{number}" for number in range(500)]
        failed: set[str] = set()
        handled: list[str] = []

        def handle(event: str) -> None:
            if event in keys and event not in failed:
                failed.add(event)
                raise ValueError
            handled.append(event)

        pool = make(handle, EXACT, workers=2)
        for key in keys:
            pool.add(key, key)
        eventually_counts(pool, retrying=500)
        add(pool, "a1", "b1")
        eventually(partial(has_handled, pool, 2))
        make.clock.advance(10)
        pool.drain(PATIENCE)
        assert sorted(handled) == sorted([*keys, "a1", "b1"])


class TestVerdicts:
    @pytest.mark.parametrize("policy", [Fail(), Skip(), Park(), Retry(attempts=1), EXACT], ids=repr)
    def test_a_handler_decides_whatever_the_policy_says(self, make: Pools, policy: Policy) -> None:
        handler = Script(a1=[RetryAfter(3)] * 4, b1=[SkipEvent("no use")], c1=[ParkKey()])
        pool = make(handler, policy)
        add(pool, "a1", "b1", "b2", "c1", "c2")
        for _ in range(4):
            eventually_counts(pool, retrying=1, dead=1, parked=1)
            assert pool.explain("a").due == make.clock.now() + 3
            make.clock.advance(3)
            eventually(lambda: pool.explain("a").due != make.clock.now())
        eventually(partial(has_handled, pool, 2))
        assert sorted(handler.handled) == ["a1", "b2"]
        assert [dead.error for dead in pool.dead()] == ["SkipEvent: no use"]
        assert pool.parked() == ["c"]
        with pytest.raises(DrainIncomplete):
            pool.drain(PATIENCE)
        assert pool.left == [("c", "c1"), ("c", "c2")]

    def test_to_be_retried_after_no_time_is_to_be_retried_at_once(self, make: Pools) -> None:
        handler = Script(a1=[RetryAfter(0)] * 10)
        pool = make(handler)
        add(pool, "a1", "a2")
        pool.drain(PATIENCE)
        assert handler.deliveries == [*(("a1", attempt) for attempt in range(1, 12)), ("a2", 1)]

    @pytest.mark.parametrize("policy", [Skip(), Park(), EXACT], ids=repr)
    @pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(1), GeneratorExit()], ids=repr)
    def test_what_is_no_exception_fails_the_pool_under_any_policy(
        self, make: Pools, policy: Policy, error: BaseException
    ) -> None:
        pool = make(Script(a1=[error]), policy)
        with suppress(HandlerError):
            add(pool, "a1", "a2")
        with pytest.raises(HandlerError) as caught:
            pool.drain(PATIENCE)
        assert caught.value.__cause__ is error
        assert pool.left in ([("a", "a1")], [("a", "a1"), ("a", "a2")])
        assert pool.stats().dead == 0


class TestDead:
    def test_a_dead_event_says_what_it_was(self, make: Pools) -> None:
        pool = make(
            Script(a1=[ValueError("first"), OSError("second")]), Retry(attempts=2, base=10, jitter="none", then=Skip())
        )
        add(pool, "a1")
        eventually_counts(pool, retrying=1)
        make.clock.advance(10)
        pool.drain(PATIENCE)
        [dead] = pool.dead()
        assert (dead.key, dead.event, dead.attempts, dead.error) == ("a", "a1", 2, "OSError: second")
        assert (dead.failed, dead.died) == (1000, 1010)

    def test_the_newest_are_kept_the_oldest_first_and_the_others_counted(self, make: Pools) -> None:
        events = [f"a{number}" for number in range(5)]
        pool = make(Script(**{event: [ValueError()] for event in events}), Skip(), max_dead=2)
        add(pool, *events)
        pool.drain(PATIENCE)
        assert [dead.event for dead in pool.dead()] == ["a3", "a4"]
        assert counts(pool, dead=5, dead_forgotten=3, handled=0)

    @pytest.mark.parametrize(("max_dead", "kept"), [(0, 0), (None, 1001)])
    def test_none_or_all_may_be_kept(self, make: Pools, max_dead: int | None, kept: int) -> None:
        def handle(event: int) -> None:
            raise SkipEvent

        pool = make(handle, max_dead=max_dead)
        for event in range(1001):
            pool.add("a", event)
        pool.drain(PATIENCE)
        assert len(pool.dead()) == kept
        assert counts(pool, dead=1001, dead_forgotten=1001 - kept)

    def test_a_replayed_event_is_a_new_one_at_the_end_of_its_lane(self, make: Pools) -> None:
        gate = Gate()
        handler = Script(a1=[SkipEvent()])

        def handle(event: str, delivery: Delivery) -> None:
            if event == "a2":
                gate(event)
            handler(event, delivery)

        pool = make(handle)
        add(pool, "a1", "a2", "a3")
        gate.wait_inside()
        [dead] = pool.dead()
        pool.replay(dead)
        assert pool.dead() == []
        assert counts(pool, added=4, dead=1, replayed=1, waiting=2)
        with pytest.raises(ValueError, match="this event is not among the dead"):
            pool.replay(dead)
        gate.open.set()
        pool.drain(PATIENCE)
        assert handler.deliveries == [("a1", 1), ("a2", 1), ("a3", 1), ("a1", 1)]

    def test_a_replay_wakes_a_pool_that_sleeps(self, make: Pools) -> None:
        handler = Script(a1=[SkipEvent()])
        pool = make(handler)
        add(pool, "a1")
        eventually_counts(pool, dead=1)
        pool.replay(pool.dead()[0])
        eventually(partial(has_handled, pool, 1))

    def test_a_replay_that_is_refused_leaves_the_event_among_the_dead(self, make: Pools) -> None:
        gate = Gate()
        pool = make(
            lambda event: gate(event) if event != "a1" else Script(a1=[SkipEvent()])("a1", Delivery("a", 1)),
            max_backlog=1,
        )
        add(pool, "a1", "b1")
        gate.wait_inside()
        add(pool, "b2")
        dead = pool.dead()
        with pytest.raises(PoolFull):
            pool.replay(dead[0])
        stopped = begin(pool, "stop", PATIENCE)
        with pytest.raises(PoolClosed):
            pool.replay(dead[0])
        gate.open.set()
        stopped()
        with pytest.raises(PoolClosed):
            pool.replay(dead[0])
        assert pool.dead() == dead
        assert counts(pool, added=3, dead=1, replayed=0, handled=1, returned=1)


class TestByHand:
    def test_an_idle_key_is_parked_with_what_comes_and_other_keys_go_on(self, make: Pools) -> None:
        handler = Script()
        pool = make(handler)
        pool.park("a")
        assert pool.parked() == ["a"]
        assert pool.explain("a").state == "parked"
        add(pool, "a1", "b1", "a2")
        eventually_counts(pool, handled=1, parked=1, queued=1)
        assert handler.handled == ["b1"]
        pool.resume("a")
        assert pool.parked() == []
        pool.drain(PATIENCE)
        assert handler.handled == ["b1", "a1", "a2"]

    def test_a_ready_key_is_parked_when_its_turn_comes(self, make: Pools) -> None:
        gate = Gate()
        handled: list[str] = []
        pool = make(lambda event: gate(event) if event == "x1" else handled.append(event))
        add(pool, "x1")
        gate.wait_inside()
        add(pool, "a1", "a2", "b1")
        pool.park("a")
        gate.open.set()
        eventually_counts(pool, parked=1, handled=2)
        assert handled == ["b1"]
        pool.resume("a")
        pool.drain(PATIENCE)
        assert handled == ["b1", "a1", "a2"]

    def test_a_key_in_flight_is_parked_with_the_next_event(self, make: Pools) -> None:
        gate = Gate()
        handled: list[str] = []
        pool = make(lambda event: gate(event) if event == "a1" else handled.append(event))
        add(pool, "a1", "a2")
        gate.wait_inside()
        pool.park("a")
        assert pool.explain("a").state == "in flight"
        with pytest.raises(ValueError, match="key 'a' is not parked, or has no event to skip"):
            pool.skip_head("a")
        gate.open.set()
        eventually_counts(pool, handled=1, parked=1)
        assert pool.skip_head("a").event == "a2"
        eventually_counts(pool, keys=0, dead=1)
        assert handled == []

    def test_a_key_in_flight_that_fails_is_parked_rather_than_retried(self, make: Pools) -> None:
        gate = Gate()

        def handle(event: str) -> None:
            gate(event)
            raise ValueError

        pool = make(handle, EXACT)
        add(pool, "a1")
        gate.wait_inside()
        pool.park("a")
        gate.open.set()
        eventually_counts(pool, parked=1, retrying=0)

    def test_a_key_that_waits_for_its_retry_is_parked_and_is_not_due(self, make: Pools) -> None:
        handler = Script(a1=[ValueError()])
        pool = make(handler, EXACT)
        add(pool, "a1", "a2")
        eventually_counts(pool, retrying=1)
        pool.park("a")
        assert counts(pool, retrying=0, parked=1, waiting=2)
        make.clock.advance(100)
        add(pool, "b1")
        eventually(partial(has_handled, pool, 1))
        assert pool.parked() == ["a"]
        pool.resume("a")
        pool.drain(PATIENCE)
        assert handler.deliveries == [("a1", 1), ("b1", 1), ("a1", 2), ("a2", 1)]

    def test_a_parked_key_stays_parked(self, make: Pools) -> None:
        pool = make(Script(a1=[ParkKey()]))
        add(pool, "a1")
        eventually_counts(pool, parked=1)
        before = pool.explain("a")
        make.clock.advance(5)
        pool.park("a")
        assert pool.explain("a") == before

    def test_a_key_that_waits_for_its_retry_can_be_retried_now(self, make: Pools) -> None:
        handler = Script(a1=[ValueError()])
        pool = make(handler, EXACT)
        add(pool, "a1")
        eventually_counts(pool, retrying=1)
        pool.resume("a")
        pool.drain(PATIENCE)
        assert handler.deliveries == [("a1", 1), ("a1", 2)]

    def test_the_count_of_attempts_goes_on_after_a_resume(self, make: Pools) -> None:
        handler = Script(a1=[ValueError()] * 3)
        pool = make(handler, Retry(attempts=2, base=0))
        add(pool, "a1", "a2")
        eventually_counts(pool, parked=1)
        pool.resume("a")
        eventually(lambda: len(handler.deliveries) == 3)
        eventually_counts(pool, parked=1)
        pool.resume("a")
        pool.drain(PATIENCE)
        assert handler.deliveries == [("a1", 1), ("a1", 2), ("a1", 3), ("a1", 4), ("a2", 1)]

    @pytest.mark.parametrize("policy", [Park(), EXACT], ids=["parked", "retrying"])
    def test_the_head_of_a_held_key_is_skipped_and_the_rest_goes_on(self, make: Pools, policy: Policy) -> None:
        handler = Script(a1=[ValueError("no")])
        pool = make(handler, policy)
        add(pool, "a1", "a2")
        eventually_counts(pool, waiting=2, in_flight=0, queued=1)
        dead = pool.skip_head("a")
        assert (dead.event, dead.attempts, dead.error) == ("a1", 1, "ValueError: no")
        assert pool.dead() == [dead]
        pool.drain(PATIENCE)
        assert handler.handled == ["a2"]
        assert counts(pool, dead=1, handled=1, waiting=0)

    def test_what_is_not_held_is_said_to_be_so(self, make: Pools) -> None:
        gate = Gate()
        pool = make(gate)
        add(pool, "a1")
        gate.wait_inside()
        add(pool, "b1")
        pool.park("c")
        for key in "abd":
            with pytest.raises(ValueError, match=f"key '{key}' is not parked"):
                pool.resume(key)
        for key in "abcd":
            with pytest.raises(ValueError, match=f"key '{key}' is not parked, or has no event to skip"):
                pool.skip_head(key)
        for call in (pool.park, pool.resume, pool.skip_head, pool.explain):
            with pytest.raises(TypeError, match="unhashable"):
                call([])
        gate.open.set()

    def test_a_pool_that_starts_nothing_more_refuses_them_all(self, make: Pools) -> None:
        pool = make(Script(a1=[ParkKey()], b1=[SkipEvent()]))
        add(pool, "a1", "b1")
        eventually_counts(pool, parked=1, dead=1)
        [dead] = pool.dead()
        pool.stop(PATIENCE)
        for call in (pool.park, pool.resume, pool.skip_head):
            with pytest.raises(PoolClosed, match="pool 'orders' starts nothing more: it is ended"):
                call("a")
        with pytest.raises(PoolClosed):
            pool.replay(dead)
        assert (pool.parked(), pool.dead()) == ([], [dead])
        failed = make(Script(a1=[ValueError()]))
        add(failed, "a1")
        eventually(lambda: "ended" in repr(failed))
        with pytest.raises(HandlerError):
            failed.park("a")

    def test_they_work_before_the_start_and_from_a_handler(self, driver: Driver) -> None:
        handled: list[str] = []

        def handle(event: str) -> None:
            handled.append(event)
            if event == "b1":
                pool.resume("a")

        pool = driver.pool(handle, workers=1)
        pool.park("a")
        add(pool, "a1", "b1")
        pool.start()
        pool.drain(PATIENCE)
        assert handled == ["b1", "a1"]


class TestEndings:
    def test_a_drain_that_finds_only_parked_keys_ends_and_returns_their_events_in_order(self, make: Pools) -> None:
        handler = Script(a1=[ParkKey()], b1=[ParkKey()])
        pool = make(handler)
        add(pool, "a1", "b1", "a2", "c1", "b2", "a3")
        with pytest.raises(
            DrainIncomplete, match="pool 'orders' has drained but for parked keys: 5 events left"
        ) as caught:
            pool.drain(PATIENCE)
        left = sorted(caught.value.left, key=lambda item: item[0])
        assert left == [("a", "a1"), ("a", "a2"), ("a", "a3"), ("b", "b1"), ("b", "b2")]
        assert caught.value.left is pool.left
        assert handler.handled == ["c1"]
        assert counts(pool, handled=1, returned=5, waiting=0, keys=0, parked=0)
        with pytest.raises(DrainIncomplete):
            pool.drain(PATIENCE)
        assert pool.stop(PATIENCE) is pool.left

    def test_leaving_a_block_says_so_too(self, driver: Driver) -> None:
        with pytest.raises(DrainIncomplete) as caught, driver.pool(Script(a1=[ParkKey()]), workers=1) as pool:
            add(pool, "a1", "a2")
        assert caught.value.left == [("a", "a1"), ("a", "a2")]

    def test_but_not_after_a_stop_which_was_asked_for(self, driver: Driver) -> None:
        with driver.pool(Script(a1=[ParkKey()]), workers=1) as pool:
            add(pool, "a1")
            eventually_counts(pool, parked=1)
            assert pool.stop(PATIENCE) == [("a", "a1")]

    @pytest.mark.parametrize("call", ["park", "skip_head"])
    def test_a_drain_ends_when_its_last_retry_is_called_off(self, make: Pools, call: str) -> None:
        pool = make(Script(a1=[ValueError()]), EXACT)
        add(pool, "a1")
        eventually_counts(pool, retrying=1)
        drained = begin(pool, "drain", PATIENCE)
        getattr(pool, call)("a")
        if call == "park":
            with pytest.raises(DrainIncomplete):
                drained()
        else:
            drained()

    def test_a_parked_key_can_be_resumed_while_the_rest_is_drained(self, make: Pools) -> None:
        gate = Gate()
        handler = Script(a1=[ParkKey()])

        def handle(event: str, delivery: Delivery) -> None:
            if event == "b1":
                gate(event)
            handler(event, delivery)

        pool = make(handle)
        add(pool, "a1", "b1")
        gate.wait_inside()
        drained = begin(pool, "drain", PATIENCE)
        pool.resume("a")
        gate.open.set()
        drained()
        assert handler.handled == ["b1", "a1"]

    def test_a_stop_returns_what_is_held_with_what_failed_at_the_head(self, make: Pools) -> None:
        pool = make(Script(a1=[ValueError()], b1=[ParkKey()]), EXACT)
        add(pool, "a1", "b1", "a2", "b2")
        eventually_counts(pool, retrying=1, parked=1)
        add(pool, "a3")
        left = pool.stop(PATIENCE)
        assert sorted(left, key=lambda item: item[0]) == [
            ("a", "a1"), ("a", "a2"), ("a", "a3"), ("b", "b1"), ("b", "b2"),
        ]  # fmt: skip
        assert counts(pool, returned=5, waiting=0, retrying=0, parked=0, keys=0)

    @pytest.mark.parametrize("policy", [EXACT, Retry(base=0), Skip(), Park()], ids=repr)
    def test_a_failed_attempt_during_a_stop_is_returned_whatever_the_policy(
        self, make: Pools, policy: Policy, caplog: pytest.LogCaptureFixture
    ) -> None:
        gate = Gate()

        def handle(event: str) -> None:
            gate(event)
            raise ValueError("no")

        pool = make(handle, policy)
        add(pool, "a1", "a2")
        gate.wait_inside()
        stopped = begin(pool, "stop", PATIENCE)
        gate.open.set()
        assert stopped() == [("a", "a1"), ("a", "a2")]
        assert counts(pool, returned=2, dead=0, handled=0)
        assert [record.getMessage() for record in caplog.records] == [
            "pool 'orders': the handler of key 'a' raised at attempt 1: it is left by the stop"
        ]

    def test_a_pool_that_fails_leaves_what_is_held(self, make: Pools) -> None:
        pool = make(Script(a1=[RetryAfter(10)], b1=[ParkKey()], c1=[ValueError()]))
        add(pool, "a1", "b1", "a2", "c1")
        with pytest.raises(HandlerError) as caught:
            pool.drain(PATIENCE)
        assert sorted(caught.value.left) == [("a", "a1"), ("a", "a2"), ("b", "b1"), ("c", "c1")]


class TestBackPressure:
    def test_held_events_count_and_a_full_pool_names_their_key(
        self, make: Pools, caplog: pytest.LogCaptureFixture
    ) -> None:
        pool = make(Script(a1=[ValueError()], b1=[ParkKey()]), EXACT, max_backlog=6)
        with caplog.at_level(logging.CRITICAL + 1, "workpool"):
            add(pool, "a1", "b1")
            eventually_counts(pool, retrying=1, parked=1)
        add(pool, "b2", "b3")
        pool.park("c")
        add(pool, "c1", "c2")
        eventually_counts(pool, waiting=6, parked=2)
        for adding in (partial(pool.add, timeout=0), pool.add_nowait):
            with pytest.raises((PoolFull, TimeoutError), match="3 of those that wait are of key 'b', which is parked"):
                adding("d", "d1")
        [record] = caplog.records
        assert record.getMessage() == (
            "pool 'orders': 3 events, half of max_backlog, wait behind blocked keys, 2 of them of key 'b', "
            "which is parked"
        )

    @pytest.mark.parametrize("call", ["resume", "skip_head"])
    def test_who_waits_for_room_comes_in_when_a_held_key_goes_on(self, make: Pools, call: str) -> None:
        handler = Script(a1=[ParkKey()])
        pool = make(handler, max_backlog=1)
        add(pool, "a1")
        eventually_counts(pool, parked=1)
        waiting = in_thread(lambda: add(pool, "b1"))
        eventually(lambda: len(pool._core.adders) == 1)
        getattr(pool, call)("a")
        waiting()
        pool.drain(PATIENCE)
        assert handler.handled == (["a1", "b1"] if call == "resume" else ["b1"])


class TestMaxLane:
    def held(self, make: Pools, **arguments: Any) -> tuple[Any, Gate, list[str]]:
        """A key whose head is in flight and whose lane is full, beside a worker that is free."""
        gate = Gate()
        handled: list[str] = []

        def handle(event: str) -> None:
            if event == "a1":
                gate(event)
            handled.append(event)

        pool = make(handle, workers=2, max_lane=2, **arguments)
        add(pool, "a1")
        gate.wait_inside()
        add(pool, "a2", "a3")
        return pool, gate, handled

    def test_a_full_lane_makes_those_wait_who_add_to_it_and_nobody_else(self, make: Pools) -> None:
        pool, gate, handled = self.held(make)
        waiting = []
        for number, event in enumerate(("a4", "a5")):
            waiting.append(in_thread(partial(add, pool, event)))
            eventually(partial(has_line, pool, number + 1))
        add(pool, *(f"b{number}" for number in range(10)))
        eventually(partial(has_handled, pool, 10))
        assert counts(pool, added=13)
        gate.open.set()
        for done in waiting:
            done()
        pool.drain(PATIENCE)
        assert [event for event in handled if event[0] == "a"] == ["a1", "a2", "a3", "a4", "a5"]

    def test_who_does_not_wait_is_told_which_key_it_is(self, make: Pools) -> None:
        pool, gate, _ = self.held(make)
        with pytest.raises(PoolFull) as caught:
            pool.add_nowait("a", "a4")
        assert str(caught.value) == (
            "a lane of pool 'orders' is full (max_lane=2); the event was not added; "
            "2 of those that wait are of key 'a', which is in flight"
        )
        assert (caught.value.key, caught.value.depth, caught.value.why) == ("a", 2, "in flight")
        with pytest.raises(TimeoutError, match=r"max_lane=2.*key 'a'.*given up after 0 s"):
            pool.add("a", "a4", timeout=0)
        assert counts(pool, added=3)
        gate.open.set()
        pool.drain(PATIENCE)
        assert counts(pool, handled=3)

    def test_a_handler_never_waits_for_a_lane(self, make: Pools) -> None:
        handled: list[str] = []

        def handle(event: str) -> None:
            handled.append(event)
            if event == "a1":
                add(pool, *(f"a{number}" for number in range(2, 10)))

        pool = make(handle, max_lane=1)
        add(pool, "a1")
        eventually(partial(has_handled, pool, 9))
        assert handled == [f"a{number}" for number in range(1, 10)]

    @pytest.mark.parametrize("ending", ["drain", "stop"])
    @pytest.mark.parametrize("state", ["in flight", "parked"])
    def test_who_waits_for_a_lane_when_the_ending_comes_is_refused(self, make: Pools, ending: str, state: str) -> None:
        gate = Gate()
        pool = make(gate, max_lane=1)
        if state == "parked":
            pool.park("a")
            add(pool, "a1")
            eventually_counts(pool, parked=1)
        else:
            add(pool, "a1")
            gate.wait_inside()
        add(pool, "a2")
        waiting = in_thread(lambda: add(pool, "a3"))
        eventually(partial(has_line, pool))
        ended = in_thread(lambda: getattr(pool, ending)(PATIENCE))
        with pytest.raises(PoolClosed):
            waiting()
        gate.open.set()
        if (ending, state) == ("drain", "parked"):
            with pytest.raises(DrainIncomplete):
                ended()
        else:
            ended()
        assert pool.stats().added == 2

    @pytest.mark.parametrize("call", ["resume", "skip_head"])
    def test_a_parked_key_lets_them_in_when_it_goes_on(self, make: Pools, call: str) -> None:
        handler = Script()
        pool = make(handler, max_lane=1)
        pool.park("a")
        add(pool, "a1")
        eventually_counts(pool, parked=1)
        add(pool, "a2")
        waiting = in_thread(lambda: add(pool, "a3"))
        eventually(partial(has_line, pool))
        getattr(pool, call)("a")
        waiting()
        pool.drain(PATIENCE)
        assert handler.handled == ["a1", "a2", "a3"][call == "skip_head" :]


class TestLooks:
    def test_each_state_is_explained(self, make: Pools) -> None:
        gate = Gate()
        handler = Script(a1=[ValueError("no")], b1=[ParkKey("ask first")])

        def handle(event: str, delivery: Delivery) -> None:
            if event == "c1":
                gate(event)
            handler(event, delivery)

        pool = make(handle, EXACT)
        assert pool.explain("a") == Explanation("a", "idle", 0, 1, "")
        add(pool, "a1", "b1", "c1")
        gate.wait_inside()
        add(pool, "a2", "c2", "d1")
        assert pool.explain("a") == Explanation("a", "retrying", 2, 2, "ValueError: no", since=1000, due=1010)
        assert pool.explain("b") == Explanation("b", "parked", 1, 2, "ParkKey: ask first", since=1000)
        assert pool.explain("c") == Explanation("c", "in flight", 1, 1, "")
        assert pool.explain("d") == Explanation("d", "ready", 1, 1, "")
        make.clock.advance(10)
        eventually(lambda: pool.explain("a").state == "ready")
        assert pool.explain("a") == Explanation("a", "ready", 2, 2, "ValueError: no")
        gate.open.set()
        eventually(lambda: pool.explain("a").state == "idle")

    def test_the_deepest_keys_come_first(self, make: Pools) -> None:
        gate = Gate()
        pool = make(gate)
        add(pool, "a1")
        gate.wait_inside()
        add(pool, "b1", "b2", "a2", "a3", "a4", "c1", "d1", "d2", "d3", "d4")
        assert [(each.key, each.waiting) for each in pool.top(3)] == [("d", 4), ("a", 3), ("b", 2)]
        assert [each.key for each in pool.top(1)] == ["d"]
        assert [each.key for each in pool.top()] == ["d", "a", "b", "c"]
        gate.open.set()

    def test_a_key_that_has_nothing_waiting_is_not_deep(self, make: Pools) -> None:
        gate = Gate()
        pool = make(gate)
        add(pool, "a1")
        gate.wait_inside()
        assert pool.top() == []
        add(pool, "b1")
        assert [each.key for each in pool.top(1)] == ["b"]
        gate.open.set()

    def test_the_keys_held_longest_come_first(self, driver: Driver, make: Pools) -> None:
        make.clock = FakeClock()  # It shows 0, which is a time like any other.
        pool = make(Script(**{event: [ValueError()] for event in ("a1", "b1", "c1")}), EXACT)
        assert pool.top(by="age") == []
        for event in ("b1", "a1", "c1"):
            add(pool, event)
            eventually(lambda event=event: pool.explain(event[0]).state == "retrying")  # type: ignore[misc]
            make.clock.advance(1)
        pool.park("c")
        assert [(each.key, each.since) for each in pool.top(by="age")] == [("b", 0), ("a", 1), ("c", 3)]
        assert [each.key for each in pool.top(2, by="age")] == ["b", "a"]

    def test_what_is_asked_for_wrong_is_refused(self, make: Pools) -> None:
        pool = make(print)
        with pytest.raises(ValueError, match="n must be at least 1, and is 0"):
            pool.top(0)
        with pytest.raises(ValueError, match='by must be "depth" or "age", and is \'size\''):
            pool.top(by="size")

    def test_the_counts_add_up_at_each_step(self, make: Pools) -> None:
        pool = make(Script(a1=[ValueError()], b1=[ParkKey()], c1=[SkipEvent()]), EXACT)
        add(pool, "a1", "b1", "c1", "a2", "b2", "c2")
        eventually_counts(pool, added=6, handled=1, dead=1, retrying=1, parked=1, queued=2, waiting=4, keys=2)
        pool.replay(pool.dead()[0])
        eventually_counts(pool, added=7, handled=2, dead=1, replayed=1)
        pool.skip_head("b")
        eventually_counts(pool, handled=3, dead=2, parked=0, retrying=1, waiting=2)
        pool.stop(PATIENCE)
        assert counts(pool, added=7, handled=3, dead=2, returned=2, waiting=0)


class TestMemory:
    """A traceback would hold what its frames hold."""

    @pytest.mark.parametrize("policy", [EXACT, Park(), Skip()], ids=repr)
    def test_a_stored_error_is_text_and_keeps_nothing_alive(
        self, make: Pools, policy: Policy, caplog: pytest.LogCaptureFixture
    ) -> None:
        class Local:
            pass

        seen: list[weakref.ref[Local]] = []

        def handle(event: str) -> None:
            local = Local()
            seen.append(weakref.ref(local))
            raise ValueError("no")

        caplog.set_level(logging.CRITICAL + 1, "workpool")  # A log record holds its exception.
        pool = make(handle, policy)
        gc.disable()
        try:
            add(pool, "a1")
            eventually_counts(pool, in_flight=0, handled=0)
            eventually(lambda: bool(seen) and seen[0]() is None)
        finally:
            gc.enable()
        errors = [pool.explain("a").error, *(dead.error for dead in pool.dead())]
        assert "ValueError: no" in errors

    def test_an_event_that_has_ended_is_let_go(self, make: Pools, caplog: pytest.LogCaptureFixture) -> None:
        class Payload:
            attempts = 0

        def handle(event: Payload) -> None:
            event.attempts += 1
            if event.attempts < 2:
                raise ValueError("no")
            raise SkipEvent

        caplog.set_level(logging.CRITICAL + 1, "workpool")
        pool = make(handle, Retry(base=0), max_dead=1)
        seen = []
        gc.disable()
        try:
            for number in range(5):
                payload = Payload()
                seen.append(weakref.ref(payload))
                pool.add(number, payload)
                del payload
            eventually_counts(pool, dead=5, dead_forgotten=4)
            eventually(lambda: sum(ref() is not None for ref in seen) == 1)
            pool.replay(pool.dead()[0])
            eventually_counts(pool, dead=6)
        finally:
            gc.enable()

    def test_keys_that_have_gone_on_leave_nothing(self, make: Pools, caplog: pytest.LogCaptureFixture) -> None:
        class Key:
            pass

        caplog.set_level(logging.CRITICAL + 1, "workpool")
        pool = make(Script(x=[ValueError()] * 10, y=[ParkKey()] * 10), EXACT)
        keys = []
        for number in range(20):
            key = Key()
            keys.append(weakref.ref(key))
            pool.add(key, "xy"[number % 2])
            del key
        eventually_counts(pool, retrying=10, parked=10)
        for key in pool.parked():
            pool.resume(key)
        del key
        make.clock.advance(10)
        eventually_counts(pool, handled=20, keys=0)
        eventually(lambda: not any(ref() for ref in keys))


class TestLog:
    def test_each_failure_is_told_once_with_what_comes_of_it(
        self, make: Pools, caplog: pytest.LogCaptureFixture
    ) -> None:
        pool = make(
            Script(a1=[ValueError("no"), OSError("again")], b1=[SkipEvent("no use")], c1=[ParkKey()]),
            Retry(attempts=2, base=10, jitter="none"),
        )
        with caplog.at_level(logging.DEBUG, "workpool"):
            add(pool, "a1")
            eventually_counts(pool, retrying=1)
            make.clock.advance(10)
            eventually_counts(pool, parked=1)
            add(pool, "b1", "c1")
            eventually_counts(pool, parked=2)
            pool.stop(PATIENCE)
        start = "pool 'orders': the handler of key"
        assert [(record.levelname, record.getMessage(), bool(record.exc_info)) for record in caplog.records] == [
            ("WARNING", f"{start} 'a' raised at attempt 1; once more in 10 s: ValueError: no", False),
            ("ERROR", f"{start} 'a' raised at attempt 2: the key is parked", True),
            ("ERROR", f"{start} 'b' raised at attempt 1: the event is skipped, and kept among the dead", True),
            ("ERROR", f"{start} 'c' raised at attempt 1: the key is parked", True),
        ]  # fmt: skip

    def test_an_error_whose_text_raises_harms_nothing(self, make: Pools) -> None:
        class Mute(Exception):
            def __str__(self) -> str:
                raise OSError

        pool = make(Script(a1=[Mute()]), Park())
        add(pool, "a1")
        eventually_counts(pool, parked=1)
        assert pool.explain("a").error == "Mute: <Mute whose str raised OSError>"


class TestWatchdog:
    def warnings(self, caplog: pytest.LogCaptureFixture) -> list[str]:
        return [record.getMessage() for record in caplog.records]

    def test_a_handler_that_runs_for_long_is_told_once_with_its_stack(
        self, make: Pools, caplog: pytest.LogCaptureFixture
    ) -> None:
        clock = make.clock = LookedAt()
        go: list[Callable[[], object]] = []
        inside = threading.Semaphore(0)

        def handler_that_hangs(event: str) -> None:
            gate = threading.Event()
            go.append(gate.set)
            inside.release()
            assert gate.wait(PATIENCE)

        pool = make(handler_that_hangs, warn_after=10)
        add(pool, "a1", "a2")
        for _ in range(2):
            assert inside.acquire(timeout=PATIENCE)
            caplog.clear()
            clock.look(5, times=20)
            go.pop()()
            [warning] = self.warnings(caplog)
            where = make.driver.worker_is
            assert warning.startswith(f"pool 'orders': the handler of key 'a' has run for 10 s, {where} ")
            assert (", in handler_that_hangs" in warning) is make.driver.runs_handlers
            assert caplog.records[0].levelno == logging.WARNING
        pool.drain(PATIENCE)

    @pytest.mark.parametrize("warn_after", [10, None])
    def test_handlers_that_are_quick_are_not_told_of_nor_is_anyone_where_it_is_off(
        self, make: Pools, caplog: pytest.LogCaptureFixture, warn_after: float | None
    ) -> None:
        clock = make.clock = LookedAt()
        steps, inside = threading.Semaphore(0), threading.Semaphore(0)

        def handle(event: str) -> None:
            inside.release()
            assert steps.acquire(timeout=PATIENCE)

        pool = make(handle, warn_after=warn_after)
        add(pool, *["a1"] * 10)
        for _ in range(10):
            assert inside.acquire(timeout=PATIENCE)
            if warn_after:
                clock.look(7)
            else:
                clock.advance(1000)
            steps.release()
        pool.drain(PATIENCE)
        assert self.warnings(caplog) == []
