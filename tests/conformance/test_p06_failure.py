"""P6 and P9 (*fail*): a handler that raises is never silent, and keeps no lane."""

from __future__ import annotations

import logging
import threading
from functools import partial

import pytest

from support import PATIENCE, Driver, Gate, Told, begin, eventually, has_adders, in_thread, no_text
from workpool import HandlerError


def explode(event: object) -> None:
    raise ValueError(f"cannot handle {event}")


@pytest.mark.parametrize("error", [ValueError("no"), KeyboardInterrupt(), SystemExit(3), GeneratorExit()])
def test_the_pool_stops_and_every_later_call_raises_an_error_of_its_own(driver: Driver, error: BaseException) -> None:
    def handle(event: object) -> None:
        raise error

    pool = driver.pool(handle, workers=2, name="orders").start()
    pool.add("a", 1)
    eventually(lambda: "ended" in repr(pool))
    raised = []
    for call in (
        lambda: pool.add("a", 2),
        lambda: pool.add_nowait("a", 2),
        lambda: pool.drain(PATIENCE),
        lambda: pool.stop(PATIENCE),
        pool.start,
        lambda: pool.__exit__(None, None, None),
    ):
        with pytest.raises(HandlerError, match="pool 'orders' failed: the handler of key 'a' raised") as caught:
            call()
        raised.append(caught.value)
    assert len({id(each) for each in raised}) == len(raised)
    for each in raised:
        assert each.__cause__ is error
        assert (each.key, each.event, each.attempt, each.left) == ("a", 1, 1, [("a", 1)])


def test_the_event_that_failed_heads_its_key_among_those_left(driver: Driver) -> None:
    gate = Gate()

    def handle(event: int) -> None:
        gate(event)
        explode(event)

    pool = driver.pool(handle, workers=1).start()
    for event in range(4):
        pool.add("a" if event < 3 else "b", event)
    gate.wait_inside()
    gate.open.set()
    with pytest.raises(HandlerError):
        pool.drain(PATIENCE)
    assert pool.left == [("a", 0), ("a", 1), ("a", 2), ("b", 3)]
    stats = pool.stats()
    assert (stats.added, stats.handled, stats.returned) == (4, 0, 4)


def test_handlers_in_flight_finish_and_count(driver: Driver) -> None:
    gate = Gate()
    pool = driver.pool(lambda event: explode(event) if event == "bad" else gate(event), workers=2).start()
    pool.add("good", "good")
    gate.wait_inside()
    pool.add("bad", "bad")
    drained = in_thread(lambda: pool.drain(PATIENCE))
    eventually(lambda: "stopping" in repr(pool))
    gate.open.set()
    with pytest.raises(HandlerError):
        drained()
    assert pool.stats().handled == 1


def test_it_is_logged_once_with_key_attempt_and_traceback(driver: Driver, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG, "workpool"), pytest.raises(HandlerError):  # noqa: SIM117
        with driver.pool(explode, workers=4, name="orders") as pool:
            pool.add("a", 1)
    [record] = caplog.records
    assert record.levelno == logging.ERROR
    assert record.getMessage() == "pool 'orders': the handler of key 'a' raised at attempt 1, and the pool stops"
    assert "ValueError: cannot handle 1" in caplog.text
    assert "explode" in caplog.text


@pytest.mark.parametrize("silent", [False, True])
def test_it_is_told_whatever_the_texts_of_key_and_error_do(
    driver: Driver, silent: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """They may raise, and they may call the pool: they are user code, and none runs under a lock."""

    class Failed(Exception):
        def __str__(self) -> str:
            return repr(Told(tell))

    def tell() -> object:
        return no_text() if silent else pool.stats().added

    def handle(event: object) -> None:
        raise Failed

    pool = driver.pool(handle, workers=1, name="orders").start()
    pool.add(Told(tell), 1)
    eventually(lambda: "ended" in repr(pool))
    key, text = ("<Told whose repr raised OSError>", "<Failed whose str raised OSError>") if silent else ["told 1"] * 2
    for call in (pool.drain, pool.stop, lambda: pool.add("a", 2)):
        with pytest.raises(HandlerError) as caught:
            call()
        assert str(caught.value) == f"pool 'orders' failed: the handler of key {key} raised Failed: {text}"
    [record] = caplog.records
    assert record.getMessage() == f"pool 'orders': the handler of key {key} raised at attempt 1, and the pool stops"
    assert pool.stats().returned == 1


def test_leaving_the_block_raises_it(driver: Driver) -> None:
    with pytest.raises(HandlerError), driver.pool(explode) as pool:
        pool.add("a", 1)


def test_an_error_of_the_block_is_not_hidden_by_that_of_the_handler(driver: Driver) -> None:
    with pytest.raises(KeyError) as caught, driver.pool(explode) as pool:  # noqa: PT012
        pool.add("a", 1)
        eventually(lambda: "ended" in repr(pool))
        raise KeyError("the block's own")
    assert caught.value.__notes__ == ["pool 'default' was stopped with 1 events left"]


def test_an_add_that_waits_when_the_pool_fails_raises_it_too(driver: Driver) -> None:
    go = threading.Event()
    inside = threading.Event()

    def handle(event: object) -> None:
        inside.set()
        assert go.wait(PATIENCE)
        explode(event)

    pool = driver.pool(handle, workers=1, max_backlog=1).start()
    pool.add("a", 1)
    assert inside.wait(PATIENCE)
    pool.add("a", 2)
    waiting = in_thread(lambda: pool.add("a", 3))
    eventually(partial(has_adders, pool))
    go.set()
    with pytest.raises(HandlerError):
        waiting()
    eventually(lambda: "ended" in repr(pool))
    assert pool.left == [("a", 1), ("a", 2)]


def test_a_failure_during_a_stop_returns_its_event_and_raises_nothing(
    driver: Driver, caplog: pytest.LogCaptureFixture
) -> None:
    gate = Gate()

    def handle(event: int) -> None:
        gate(event)
        explode(event)

    pool = driver.pool(handle, workers=1).start()
    pool.add("a", 1)
    pool.add("a", 2)
    gate.wait_inside()
    stopped = begin(pool, "stop", PATIENCE)
    gate.open.set()
    assert stopped() == [("a", 1), ("a", 2)]
    assert len(caplog.records) == 1
