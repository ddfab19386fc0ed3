"""P7 for many at once: each pair is accepted or not, in order, and the caller learns how many were."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from support import PATIENCE, Driver, Gate, eventually, has_adders, in_thread
from workpool import HandlerError, PoolClosed


def count_of(error: BaseException) -> object:
    """How many were accepted before an exception."""
    return error.added  # type: ignore[attr-defined]


def test_all_are_handled_each_key_in_order(driver: Driver) -> None:
    handled: list[tuple[str, int]] = []
    with driver.pool(handled.append, workers=4) as pool:
        assert pool.add_many((key, (key, event)) for event in range(50) for key in "abc") == 150
    for key in "abc":
        assert [event for each, event in handled if each == key] == list(range(50))


@pytest.mark.parametrize("pairs", [[], (), iter([]), {}.items()])
def test_none_are_none(driver: Driver, pairs: Any) -> None:
    with driver.pool(print) as pool:
        assert pool.add_many(pairs) == 0


def test_any_pair_will_do(driver: Driver) -> None:
    handled: list[object] = []
    with driver.pool(handled.append, workers=1) as pool:
        assert pool.add_many([("a", 1), ["a", 2], (None, None)]) == 3
        assert pool.add_many({"a": 3}.items()) == 1
    assert sorted(handled, key=str) == [1, 2, 3, None]


def test_more_than_may_wait_are_taken_as_there_is_room(driver: Driver) -> None:
    """The iterator is asked for the next pair when the one before is accepted: not for all of them at once."""
    gate = Gate()
    pool = driver.pool(gate, workers=1, max_backlog=4).start()
    asked = []

    def pairs() -> Iterator[tuple[str, int]]:
        for event in range(20):
            asked.append(event)
            yield "a", event

    adding = in_thread(lambda: pool.add_many(pairs()))
    gate.wait_inside()
    eventually(lambda: has_adders(pool))
    assert len(asked) == pool.stats().added + 1 < 20
    gate.open.set()
    assert adding() == 20
    pool.drain(PATIENCE)
    assert pool.stats().handled == 20


@pytest.mark.parametrize("timeout", [0, 0.01])
def test_a_time_out_is_for_all_of_them_and_tells_how_many_there_were(driver: Driver, timeout: float) -> None:
    gate = Gate()
    pool = driver.pool(gate, workers=1, max_backlog=4).start()
    pool.add("a", 0)
    gate.wait_inside()
    with pytest.raises(TimeoutError) as info:
        pool.add_many((("a", event) for event in range(1, 20)), timeout=timeout)
    assert count_of(info.value) == 4
    assert pool.stats().added == 5
    gate.open.set()
    pool.drain(PATIENCE)


@pytest.mark.parametrize(
    ("third", "kind"),
    [(("a",), ValueError), (("a", 1, 2), ValueError), (7, TypeError), (([], 1), TypeError), (None, TypeError)],
)
def test_a_pair_that_is_none_raises_there(driver: Driver, third: Any, kind: type[Exception]) -> None:
    handled: list[int] = []
    with driver.pool(handled.append, workers=1) as pool:
        with pytest.raises(kind) as info:
            pool.add_many([("a", 1), ("a", 2), third, ("a", 4)])
        assert count_of(info.value) == 2
    assert handled == [1, 2]


def test_what_the_iterator_raises_comes_out_with_the_number(driver: Driver) -> None:
    def pairs() -> Iterator[tuple[str, int]]:
        yield "a", 1
        yield "a", 2
        raise OSError("the stream broke")

    with driver.pool(print) as pool:
        with pytest.raises(OSError, match="the stream broke") as info:
            pool.add_many(pairs())
        assert count_of(info.value) == 2
        assert pool.stats().added == 2


@pytest.mark.parametrize("wrong", [{"timeout": -1}, {"timeout": "1"}, {"timeout": float("nan")}])
def test_a_wrong_time_out_adds_nothing(driver: Driver, wrong: dict[str, Any]) -> None:
    with driver.pool(print) as pool:
        with pytest.raises((TypeError, ValueError), match="timeout"):
            pool.add_many([("a", 1)], **wrong)
        assert pool.stats().added == 0


@pytest.mark.parametrize("end", [lambda pool: pool.stop(), lambda pool: pool.drain()])
def test_a_pool_that_has_ended_takes_none(driver: Driver, end: Callable[[Any], object]) -> None:
    pool = driver.pool(print).start()
    end(pool)
    with pytest.raises(PoolClosed) as info:
        pool.add_many([("a", 1)])
    assert count_of(info.value) == 0


def test_a_pool_that_fails_meanwhile_says_how_many_it_took(driver: Driver) -> None:
    gate = Gate()

    def handle(event: int) -> None:
        gate(event)
        raise OSError("no")

    pool = driver.pool(handle, workers=1, max_backlog=2).start()
    adding = in_thread(lambda: pool.add_many(("a", event) for event in range(9)))
    gate.wait_inside()
    eventually(lambda: has_adders(pool))
    added = pool.stats().added
    gate.open.set()
    with pytest.raises(HandlerError) as info:
        adding()
    assert count_of(info.value) == added
    with pytest.raises(HandlerError):
        pool.stop()
