"""With `batch=n` the handler gets up to n consecutive events of one key; what it has not done is delivered again."""

from __future__ import annotations

import pickle
import random
import threading
from functools import partial
from typing import Any

import pytest

from support import PATIENCE, Driver, Gate, Heard, adds_up, eventually, has_handled, has_line, in_thread
from workpool import BatchIncomplete, DrainIncomplete, HandlerError, Park, ParkKey, Retry, RetryAfter, Skip, SkipEvent
from workpool.testing import FakeClock


class Log:
    """A handler that notes what it is given, and answers as it is told to: each answer once, then with None."""

    def __init__(self, *answers: Any) -> None:
        self.seen: list[list[Any]] = []
        self.answers = [*answers]

    def __call__(self, events: list[Any]) -> Any:
        self.seen.append(events)
        answer = self.answers.pop(0) if self.answers else None
        if isinstance(answer, BaseException):
            raise answer
        return answer


def filled(driver: Driver, handler: Any, events: int, **options: Any) -> Any:
    """A pool with one worker, not started, and so many events of key "a"."""
    pool = driver.pool(handler, workers=1, **options)
    for event in range(events):
        pool.add("a", event)
    return pool


def test_a_handler_gets_what_waits_of_one_key_together(driver: Driver) -> None:
    log = Log()
    pool = filled(driver, log, 5, batch=3)
    pool.add("b", 10)
    with pool:
        pass
    assert log.seen == [[0, 1, 2], [10], [3, 4]]
    assert pool.stats().handled == 6


def test_while_it_runs_the_rest_waits_and_comes_to_no_other_worker(driver: Driver) -> None:
    gate = Gate()
    pool = driver.pool(gate, workers=3, batch=10)
    for event in range(3):
        pool.add("a", event)
    pool.start()
    gate.wait_inside()
    pool.add("a", 3)
    stats = pool.stats()
    assert (stats.in_flight, stats.waiting) == (1, 3)
    assert adds_up(stats)
    gate.open.set()
    pool.drain(PATIENCE)
    assert pool.stats().handled == 4


def test_what_failed_together_is_retried_together(driver: Driver) -> None:
    """Not with what came meanwhile: that has not failed."""
    log, clock = Log(ValueError(), ValueError()), FakeClock()
    pool = filled(driver, log, 2, batch=3, clock=clock, on_failure=Retry(base=5, jitter="none"))
    pool.start()
    for attempt in (1, 2):
        eventually(lambda: pool.stats().retrying == 1 and pool.explain("a").attempt == attempt + 1)  # noqa: B023
        pool.add("a", 10 + attempt)
        pool.add("a", 20 + attempt)
        clock.advance(attempt * 5)
    pool.drain(PATIENCE)
    assert log.seen == [[0, 1], [0, 1], [0, 1], [11, 21, 12], [22]]


def test_it_says_how_many_it_has_done(driver: Driver) -> None:
    log, clock = Log(2, 0, 1), FakeClock()
    pool = filled(driver, log, 6, batch=4, clock=clock, on_failure=Retry(base=5, jitter="none"))
    pool.start()
    eventually(lambda: pool.stats().retrying == 1)
    stats = pool.stats()
    assert (stats.handled, stats.waiting) == (2, 4)
    told = pool.explain("a")
    assert (told.attempt, told.error) == (2, "BatchIncomplete: the handler has done 2 events of its batch")
    for attempt, handled in ((3, 2), (2, 3)):
        clock.advance(100)
        eventually(lambda: pool.explain("a").attempt == attempt and pool.stats().handled == handled)  # noqa: B023
        eventually(lambda: pool.stats().retrying == 1)
    clock.advance(100)
    pool.drain(PATIENCE)
    assert log.seen == [[0, 1, 2, 3], [2, 3], [2, 3], [3], [4, 5]]


def test_or_raises_it_with_the_reason(driver: Driver) -> None:
    reason = ValueError("no such account")
    error = BatchIncomplete(1)
    error.__cause__ = reason
    log = Log(error)
    pool = filled(driver, log, 3, batch=3, on_failure=Park())
    pool.start()
    eventually(lambda: pool.parked() == ["a"])
    assert pool.explain("a").error == (
        "BatchIncomplete: the handler has done 1 events of its batch: ValueError: no such account"
    )
    assert pool.skip_head("a").event == 1
    pool.drain(PATIENCE)
    assert log.seen == [[0, 1, 2], [2]]


@pytest.mark.parametrize("answer", [0, 2, 3, None])
def test_all_of_it_is_all_of_it(driver: Driver, answer: int | None) -> None:
    """And fewer is a failure."""
    log = Log(answer)
    pool = filled(driver, log, 3, batch=3)
    pool.start()
    if answer in (3, None):
        pool.drain(PATIENCE)
        assert pool.stats().handled == 3
        return
    with pytest.raises(HandlerError) as raised:
        pool.drain(PATIENCE)
    assert isinstance(raised.value.__cause__, BatchIncomplete)
    assert raised.value.event == answer
    assert raised.value.left == [("a", event) for event in range(answer or 0, 3)]
    assert adds_up(pool.stats())


@pytest.mark.parametrize("answer", [-1, 4, True, "3", 2.0, [1]])
def test_what_is_no_number_of_them_is_an_error_and_none_is_done(driver: Driver, answer: Any) -> None:
    pool = filled(driver, Log(answer), 3, batch=3)
    pool.start()
    with pytest.raises(HandlerError, match="a handler of batches") as raised:
        pool.drain(PATIENCE)
    assert len(raised.value.left) == 3


def test_all_of_a_batch_are_skipped_each_by_itself(driver: Driver) -> None:
    log = Log(SkipEvent("no"), 1)
    pool = filled(driver, log, 6, batch=3, on_failure=Skip())
    pool.start()
    pool.drain(PATIENCE)
    assert [dead.event for dead in pool.dead()] == [0, 1, 2, 4, 5]
    assert {dead.attempts for dead in pool.dead()} == {1}
    assert (pool.stats().handled, pool.stats().dead) == (1, 5)
    assert log.seen == [[0, 1, 2], [3, 4, 5]]


def test_of_the_dead_the_newest_are_kept(driver: Driver) -> None:
    pool = filled(driver, Log(SkipEvent()), 5, batch=5, max_dead=2)
    with pool:
        pass
    assert [dead.event for dead in pool.dead()] == [3, 4]
    assert (pool.stats().dead, pool.stats().dead_forgotten) == (5, 3)


def test_a_batch_is_parked_as_it_is(driver: Driver) -> None:
    log = Log(ParkKey())
    pool = filled(driver, log, 2, batch=3)
    pool.start()
    eventually(lambda: pool.parked() == ["a"])
    pool.add("a", 2)
    assert pool.stats().waiting == 3
    pool.resume("a")
    eventually(partial(has_handled, pool, 3))
    assert log.seen == [[0, 1], [0, 1], [2]]
    pool.park("a")
    pool.add("a", 3)
    with pytest.raises(DrainIncomplete):
        pool.drain(PATIENCE)


def test_it_may_be_tried_again_by_its_own_wish(driver: Driver) -> None:
    log, clock = Log(RetryAfter(5)), FakeClock()
    pool = filled(driver, log, 3, batch=3, clock=clock)
    pool.start()
    eventually(lambda: pool.stats().retrying == 1)
    clock.advance(5)
    pool.drain(PATIENCE)
    assert log.seen == [[0, 1, 2]] * 2


def test_a_delay_begins_another_batch(driver: Driver) -> None:
    log, clock = Log(), FakeClock()
    pool = driver.pool(log, workers=1, batch=10, clock=clock)
    pool.add("a", 0)
    pool.add("a", 1)
    pool.add("a", 2, delay=5)
    pool.add("a", 3)
    pool.start()
    eventually(partial(has_handled, pool, 2))
    clock.advance(5)
    pool.drain(PATIENCE)
    assert log.seen == [[0, 1], [2, 3]]


def test_who_waits_for_room_in_the_lane_comes_in_as_a_batch_ends(driver: Driver) -> None:
    gate = Gate()
    pool = filled(driver, gate, 3, batch=3, max_lane=2)
    pool.start()
    gate.wait_inside()
    adding = [in_thread(partial(pool.add, "a", event)) for event in (3, 4)]
    eventually(partial(has_line, pool, 2))
    gate.open.set()
    for done in adding:
        done()
    pool.drain(PATIENCE)
    assert pool.stats().handled == 5


def test_who_waits_for_room_in_the_lane_of_a_batch_that_is_skipped_is_handled(driver: Driver) -> None:
    """The batch was all that the lane had, and no other event is there to wake a worker."""
    gate = Gate()

    def handle(events: list[int]) -> None:
        gate(events)
        if 0 in events:
            raise ValueError

    pool = filled(driver, handle, 2, batch=2, max_lane=1, on_failure=Skip())
    pool.start()
    gate.wait_inside()
    adding = in_thread(partial(pool.add, "a", 2))
    eventually(partial(has_line, pool))
    gate.open.set()
    adding()
    eventually(partial(has_handled, pool, 1))
    assert [dead.event for dead in pool.dead()] == [0, 1]
    pool.drain(PATIENCE)


def test_who_waits_for_room_in_the_pool_comes_in_as_a_batch_ends(driver: Driver) -> None:
    gate, go = Gate(), threading.Event()

    def handle(events: list[int]) -> None:
        gate(events)
        if 3 in events:
            assert go.wait(PATIENCE)

    pool = driver.pool(handle, workers=1, batch=2, max_backlog=2)
    pool.add("a", 0)
    pool.start()
    gate.wait_inside()
    pool.add("a", 1)
    pool.add("a", 2)
    adding = in_thread(partial(pool.add, "b", 3))
    eventually(lambda: bool(pool._core.adders))
    gate.open.set()
    adding()
    go.set()
    pool.drain(PATIENCE)
    assert pool.stats().handled == 4


def test_a_flush_waits_for_all_of_a_batch(driver: Driver) -> None:
    gate = Gate()
    pool = filled(driver, gate, 3, batch=2)
    pool.start()
    gate.wait_inside()
    flushing = in_thread(partial(pool.flush, "a"))
    eventually(lambda: bool(pool._core.audience))
    gate.open.set()
    flushing()
    assert pool.stats().handled == 3
    pool.drain(PATIENCE)


def test_a_flush_of_the_first_of_a_batch_waits_for_that_batch_only(driver: Driver) -> None:
    gate = Gate()
    pool = driver.pool(gate, workers=1, batch=2).start()
    pool.add("b", 0)
    gate.wait_inside()
    pool.add("a", 1)
    flushing = in_thread(partial(pool.flush, "a"))
    eventually(lambda: bool(pool._core.audience))
    pool.add("a", 2)
    gate.open.set()
    flushing()
    pool.drain(PATIENCE)


def test_a_stop_ends_a_batch_and_returns_what_was_not_in_it(driver: Driver) -> None:
    gate = Gate()
    pool = filled(driver, gate, 4, batch=2)
    pool.start()
    gate.wait_inside()
    stopping = in_thread(pool.stop)
    eventually(lambda: "stopping" in repr(pool))
    gate.open.set()
    assert stopping() == [("a", 2), ("a", 3)]
    assert adds_up(pool.stats())


def test_a_stop_returns_what_a_batch_has_not_done(driver: Driver) -> None:
    gate = Gate()

    def handle(events: list[int]) -> int:
        gate(events)
        return 1

    pool = filled(driver, handle, 4, batch=3, on_failure=Retry())
    pool.start()
    gate.wait_inside()
    stopping = in_thread(pool.stop)
    eventually(lambda: "stopping" in repr(pool))
    gate.open.set()
    assert stopping() == [("a", 1), ("a", 2), ("a", 3)]
    assert adds_up(pool.stats())


def test_hooks_hear_of_batches(driver: Driver) -> None:
    heard = Heard()
    pool = filled(driver, Log(1), 3, batch=3, hooks=heard, on_failure=Retry(attempts=2, base=0))
    with pool:
        pass
    assert heard.of("a") == [
        ("started", 1, [0, 1, 2]), ("failed", 1, [0, 1, 2], "BatchIncomplete"), ("started", 2, [1, 2]),
        ("succeeded", 2, [1, 2]),
    ]  # fmt: skip


def test_a_batch_that_is_handled_has_ended_whatever_its_hook_raises(driver: Driver) -> None:
    class Fatal(Heard):
        def succeeded(self, delivery: Any, event: Any, seconds: float) -> None:
            raise SystemExit

    log = Log()
    pool = filled(driver, log, 5, batch=3, hooks=Fatal())
    pool.start()
    with pytest.raises(HandlerError) as raised:
        pool.drain(PATIENCE)
    assert log.seen == [[0, 1, 2]]
    assert raised.value.left == [("a", 3), ("a", 4)]
    assert pool.stats().handled == 3
    assert adds_up(pool.stats())


def test_a_batch_is_delivered_with_what_is_known_of_its_first(driver: Driver) -> None:
    seen: list[Any] = []

    def handle(events: list[int], delivery: Any) -> None:
        seen.append((events, delivery.key, delivery.attempt))
        if len(seen) == 1:
            raise ValueError

    pool = filled(driver, handle, 3, batch=2, on_failure=Retry(base=0))
    with pool:
        pass
    assert seen == [([0, 1], "a", 1), ([0, 1], "a", 2), ([2], "a", 1)]


def test_its_error_can_travel() -> None:
    again = pickle.loads(pickle.dumps(BatchIncomplete(3)))
    assert (type(again), again.done, str(again)) == (BatchIncomplete, 3, "the handler has done 3 events of its batch")
    told = BatchIncomplete(3)
    told.__cause__ = ValueError("no such account")
    again = pickle.loads(pickle.dumps(pickle.loads(pickle.dumps(told))))
    again.__cause__ = OSError("what it became where it arrived")
    assert str(again) == str(told) == "the handler has done 3 events of its batch: ValueError: no such account"


@pytest.mark.parametrize("wrong", [-1, "3", 1.5, None, True])
def test_its_error_is_of_a_number(wrong: Any) -> None:
    with pytest.raises((TypeError, ValueError), match="done must be"):
        BatchIncomplete(wrong)


def test_one_that_has_done_all_and_raises_has_failed_whole(driver: Driver) -> None:
    """Which of them is not done cannot be told."""
    log = Log(BatchIncomplete(3))
    pool = filled(driver, log, 3, batch=3, on_failure=Skip())
    with pool:
        pass
    assert [dead.event for dead in pool.dead()] == [0, 1, 2]


def test_what_it_cannot_be_is_refused(driver: Driver) -> None:
    for wrong in (0, -1):
        with pytest.raises(ValueError, match="batch must be at least 1"):
            driver.pool(print, workers=1, batch=wrong)
    for strange in ("3", 1.5, True):
        with pytest.raises(TypeError, match="batch must be a whole number"):
            driver.pool(print, workers=1, batch=strange)
    with pytest.raises(ValueError, match="batch cannot be had with contextvars"):
        driver.pool(print, workers=1, batch=2, contextvars=True)


def test_at_random_each_ends_once_and_in_order(driver: Driver) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    rng = random.Random(seed)
    lock = threading.Lock()
    done: dict[int, list[int]] = {}

    def handle(events: list[int]) -> int | None:
        with lock:
            [key] = {event % 5 for event in events}
            assert 1 <= len(events) <= 4
            chance, count = rng.random(), rng.randrange(len(events) + 1)
            if chance < 0.1:
                raise ValueError
            if chance < 0.2:
                count = len(events)
            done.setdefault(key, []).extend(events[:count])
            return count

    policy = Retry(attempts=1000, base=0.0001, cap=0.001)
    pool = driver.pool(handle, workers=3, batch=4, max_backlog=50, on_failure=policy).start()
    for event in range(1000):
        pool.add(event % 5, event, timeout=PATIENCE)
    pool.drain(PATIENCE)
    assert all(events == list(range(key, 1000, 5)) for key, events in done.items())
    assert pool.stats().handled == 1000
    assert not pool._core.notes


def test_a_handler_may_take_its_list_apart(driver: Driver) -> None:
    heard, done = Heard(), []

    def handle(events: list[int]) -> None:
        while events:
            done.append(events.pop(0))

    pool = filled(driver, handle, 3, batch=3, hooks=heard)
    with pool:
        pass
    assert done == [0, 1, 2]
    assert heard.of("a") == [("started", 1, [0, 1, 2]), ("succeeded", 1, [0, 1, 2])]


def test_what_goes_wrong_after_a_batch_is_no_second_run(driver: Driver) -> None:
    """A key that cannot be looked up any more fails the pool, and not the handler."""
    seen: list[list[int]] = []

    class Fickle:
        broken = False

        def __hash__(self) -> int:
            if self.broken:
                raise OSError("no longer")
            return 1

    key = Fickle()

    def handle(events: list[int]) -> None:
        seen.append(events)
        key.broken = True

    pool = driver.pool(handle, workers=1, batch=3, on_failure=Retry(base=0))
    for event in range(3):
        pool.add(key, event)
    pool.start()
    with pytest.raises(HandlerError):
        pool.drain(PATIENCE)
    assert seen == [[0, 1, 2]]
    assert pool.stats().handled >= 1
