"""What is given wrong is refused at the call that is wrong, naming what and why; nothing is lost by it."""

from __future__ import annotations

import functools
from functools import partial
from typing import Any

import pytest

from support import PATIENCE, Driver
from workpool import Delivery, Hooks, Park, Retry
from workpool.testing import FakeClock


@pytest.mark.parametrize("value", [0, -1])
@pytest.mark.parametrize("name", ["workers", "max_backlog", "max_lane"])
def test_a_count_below_one(driver: Driver, name: str, value: int) -> None:
    with pytest.raises(ValueError, match=f"{name} must be at least 1, and is {value}"):
        driver.pool(print, **{name: value})


@pytest.mark.parametrize("value", ["8", 2.0, True, object()])
@pytest.mark.parametrize("name", ["workers", "max_backlog", "max_lane", "max_dead"])
def test_a_count_that_is_no_whole_number(driver: Driver, name: str, value: object) -> None:
    with pytest.raises(TypeError, match=f"{name} must be a whole number, and .* is not"):
        driver.pool(print, **{name: value})


def test_no_dead_event_may_be_kept_but_not_fewer(driver: Driver) -> None:
    driver.pool(print, max_dead=0)
    with pytest.raises(ValueError, match="max_dead must be at least 0, and is -1"):
        driver.pool(print, max_dead=-1)


@pytest.mark.parametrize("value", ["60", True, object()])
def test_a_time_to_warn_after_that_is_no_number(driver: Driver, value: object) -> None:
    with pytest.raises(TypeError, match=r"warn_after must be a number of seconds, and .* is not"):
        driver.pool(print, warn_after=value)


@pytest.mark.parametrize("value", [-1, float("inf"), float("nan")])
def test_a_time_to_warn_after_that_cannot_be(driver: Driver, value: float) -> None:
    with pytest.raises(ValueError, match="warn_after must be a number of seconds of at least 0"):
        driver.pool(print, warn_after=value)


@pytest.mark.parametrize("value", [None, Park, Retry, "retry", ValueError])
def test_a_policy_that_is_none(driver: Driver, value: object) -> None:
    with pytest.raises(
        TypeError, match=r"on_failure must be Retry\(...\), Skip\(\), Park\(\) or Fail\(\), and .* is none"
    ):
        driver.pool(print, on_failure=value)


def test_the_bounds_may_be_lifted(driver: Driver) -> None:
    pool = driver.pool(print, max_backlog=None, max_lane=None, max_dead=None, warn_after=None)
    for event in range(100):
        pool.add_nowait("a", event)
    assert len(pool.stop()) == 100


def test_a_start_that_is_wrong_starts_nothing(driver: Driver) -> None:
    """The original blocked for ever on Start(0), and a second Start added workers."""
    pool = driver.pool(print)
    with pytest.raises(ValueError, match="workers must be at least 1, and is 0"):
        pool.start(0)
    with pytest.raises(TypeError, match="workers"):
        pool.start("8")
    assert pool.start(2) is pool
    with pytest.raises(RuntimeError, match="was started before"):
        pool.start()
    assert pool.workers == 2
    pool.stop(PATIENCE)


def test_a_name_that_is_no_string(driver: Driver) -> None:
    with pytest.raises(TypeError, match="name must be a string, and 7 is not"):
        driver.pool(print, name=7)


def test_a_key_that_is_not_hashable(driver: Driver) -> None:
    pool = driver.pool(print)
    for add in (pool.add, pool.add_nowait):
        with pytest.raises(TypeError, match=r"a key must be hashable, and \['a'\] is not: unhashable type: 'list'"):
            add(["a"], 1)
        with pytest.raises(TypeError, match="hashable"):
            add(("a", {}), 1)
    assert pool.stop() == []


@pytest.mark.parametrize("timeout", ["1", True, object()])
def test_a_time_out_that_is_no_number(driver: Driver, timeout: Any) -> None:
    pool = driver.pool(print)
    for call in (partial(pool.add, "a", 1, timeout=timeout), partial(pool.drain, timeout), partial(pool.stop, timeout)):
        with pytest.raises(TypeError, match="timeout must be seconds or None"):
            call()
    assert pool.stop() == []


@pytest.mark.parametrize("timeout", [-1, -0.001, float("nan")])
def test_a_time_out_that_cannot_be(driver: Driver, timeout: float) -> None:
    pool = driver.pool(print)
    with pytest.raises(ValueError, match="timeout must be at least 0 seconds"):
        pool.add("a", 1, timeout=timeout)
    assert pool.stop() == []


def test_a_time_out_may_be_endless(driver: Driver) -> None:
    with driver.pool(print) as pool:
        pool.drain(float("inf"))


@pytest.mark.parametrize("handler", [None, 7, "print"])
def test_a_handler_that_cannot_be_called(driver: Driver, handler: object) -> None:
    """The original found a nil handler at the first event only."""
    with pytest.raises(TypeError, match="the handler must be callable"):
        driver.pool(handler)


def test_a_handler_that_cannot_be_called_so(driver: Driver) -> None:
    for wrong in (lambda: None, lambda a, b, c: None, lambda *, event: None, lambda event, *, more: None):
        with pytest.raises(TypeError, match="cannot be called as handler"):
            driver.pool(wrong)


def test_a_handler_that_would_run_nothing(driver: Driver) -> None:
    async def coroutine(event: object) -> None: ...

    async def asynchronous(event: object) -> Any:
        yield event

    def generator(event: object) -> Any:
        yield event

    class Callable:
        async def __call__(self, event: object) -> None: ...

    class Generating:
        def __call__(self, event: object) -> Any:
            yield event

    for wrong in (coroutine, partial(coroutine), Callable()):
        with pytest.raises(TypeError, match="would never await"):
            driver.pool(wrong)
    for wrong in (generator, asynchronous, Generating()):
        with pytest.raises(TypeError, match="would run none of its lines"):
            driver.pool(wrong)


class WithMethods:
    def __init__(self) -> None:
        self.calls: list[Any] = []

    def one(self, event: Any) -> None:
        self.calls.append(event)

    def two(self, event: Any, delivery: Delivery) -> None:
        self.calls.append((event, delivery.key, delivery.attempt))

    def __call__(self, event: Any, anything: Any) -> None:
        self.calls.append((event, anything.key, anything.attempt))


def test_the_delivery_is_passed_where_the_second_parameter_asks_for_it(driver: Driver) -> None:
    seen = WithMethods()
    delivered = ("event", "key", 1)
    cases: list[tuple[Any, Any]] = [
        (seen.one, "event"),
        (seen.two, delivered),
        (seen, delivered),
        (seen.calls.append, "event"),  # Without a signature, or with one: one parameter.
        (lambda event, delivery=None: seen.two(event, delivery), delivered),
        (lambda event, other=1: seen.one((event, other)), ("event", 1)),
        (lambda event, *others: seen.one((event, others)), ("event", ())),
        (lambda *all_: seen.one(all_), ("event",)),
        (partial(lambda first, event: seen.one((first, event)), 0), (0, "event")),
    ]
    for handler, expected in cases:
        with driver.pool(handler) as pool:
            pool.add("key", "event")
        assert seen.calls.pop() == expected
    assert seen.calls == []


def test_a_decorated_handler_is_called_as_the_decorator_can_be_called(driver: Driver) -> None:
    seen = WithMethods()

    def narrow(function: Any) -> Any:
        @functools.wraps(function)
        def wrapper(event: object) -> None:
            function(event, "a connection")

        return wrapper

    def wide(function: Any) -> Any:
        @functools.wraps(function)
        def wrapper(*arguments: object) -> None:
            function(*arguments)

        return wrapper

    @narrow
    def with_connection(event: object, connection: object) -> None:
        seen.calls.append((event, connection))

    for handler, expected in ((with_connection, ("event", "a connection")), (wide(seen.two), ("event", "key", 1))):
        with driver.pool(handler) as pool:
            pool.add("key", "event")
        assert seen.calls.pop() == expected


def test_a_class_is_a_handler_whatever_its_instances_are(driver: Driver) -> None:
    made: list[object] = []

    class Command:
        def __init__(self, event: object) -> None:
            made.append(event)

        async def __call__(self) -> None: ...

    with driver.pool(Command) as pool:
        pool.add("key", "event")
    assert made == ["event"]


def test_the_number_of_workers_has_a_default(driver: Driver) -> None:
    assert driver.pool(print).workers == driver.default_workers
    assert driver.pool(print, workers=3).workers == 3


def test_hooks_that_are_a_class(driver: Driver) -> None:
    with pytest.raises(TypeError, match=r"hooks must be an object, and .* is a class: make one of it, Hooks\(...\)"):
        driver.pool(print, hooks=Hooks)


@pytest.mark.parametrize(
    ("value", "message"),
    [(7, "clock must have now, pause, and 7 has not"), (FakeClock, r"is a class: make one of it, FakeClock\(...\)")],
)
def test_a_clock_that_is_none(driver: Driver, value: object, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        driver.pool(print, clock=value)


def test_what_is_replayed_has_to_be_dead(driver: Driver) -> None:
    pool = driver.pool(print)
    with pytest.raises(TypeError, match=r"what is replayed must be one of dead\(\), and 7 is not"):
        pool.replay(7)
