"""P4: an idle key holds no memory, and a handled event is let go at once."""

from __future__ import annotations

import gc
import tracemalloc
import weakref
from collections.abc import Callable
from contextlib import suppress
from functools import partial

import pytest

from support import PATIENCE, Driver, Gate, begin, eventually, has_adders, in_thread
from workpool import PoolClosed, PoolFull


class Payload:
    pass


def test_a_handled_event_is_released_when_its_handler_has_returned(driver: Driver) -> None:
    """The original kept each payload reachable: 100 of 100."""
    payloads: list[weakref.ref[Payload]] = []
    pool = driver.pool(lambda event: event, workers=2).start()  # A handler that returns its event, too.
    gc.disable()
    try:
        for number in range(100):
            payload = Payload()
            payloads.append(weakref.ref(payload))
            pool.add(number % 3, payload)
            del payload
        eventually(lambda: pool.stats().handled == 100)
        eventually(lambda: all(ref() is None for ref in payloads))
    finally:
        gc.enable()
    pool.drain(PATIENCE)


def test_it_is_released_while_later_events_of_its_key_still_wait(driver: Driver) -> None:
    gate = Gate()
    pool = driver.pool(lambda event: gate(event) if event == "gate" else None, workers=1).start()
    payload = Payload()
    released = weakref.ref(payload)
    pool.add("a", payload)
    del payload
    pool.add("a", "gate")
    pool.add("a", "later")
    gate.wait_inside()
    assert released() is None
    gate.open.set()
    pool.drain(PATIENCE)


def test_a_refused_event_is_released_when_its_add_has_raised(driver: Driver) -> None:
    """It waited for the next collection, which may be long in coming."""
    gate = Gate()
    pool = driver.pool(gate, workers=1, max_backlog=1).start()
    pool.add("a", "in flight")
    gate.wait_inside()
    pool.add("a", "waits")
    payloads: list[weakref.ref[Payload]] = []

    def refused(add: Callable[..., object], error: type[Exception], **options: float) -> None:
        payload = Payload()
        payloads.append(weakref.ref(payload))
        with suppress(error):
            add("a", payload, **options)

    gc.disable()
    try:
        refused(pool.add, TimeoutError, timeout=0)
        refused(pool.add_nowait, PoolFull)
        refused(lambda key, payload: pool.add_many([(key, payload)], timeout=0), TimeoutError)
        refused(lambda key, payload: pool.add_many([payload, (key, payload)]), TypeError)
        waiting = in_thread(partial(refused, pool.add, PoolClosed))
        eventually(partial(has_adders, pool))
        stopped = begin(pool, "stop", PATIENCE)
        waiting()
        refused(pool.add, PoolClosed)
        eventually(lambda: all(ref() is None for ref in payloads))
    finally:
        gc.enable()
        gate.open.set()
    assert stopped() == [("a", "waits")]


def test_an_idle_key_is_released(driver: Driver) -> None:
    class Key:
        pass

    pool = driver.pool(lambda event: None, workers=2).start()
    keys = []
    for _ in range(50):
        key = Key()
        keys.append(weakref.ref(key))
        pool.add(key, 1)
        pool.add(key, 2)
        del key
    eventually(lambda: pool.stats().keys == 0)
    eventually(lambda: all(ref() is None for ref in keys))
    pool.drain(PATIENCE)


@pytest.mark.parametrize("events_per_key", [1, 2])
def test_many_keys_at_once_leave_the_pool_as_it_was(driver: Driver, events_per_key: int) -> None:
    """What grew to hold them is released as soon as the pool is idle, not only when it ends."""
    pool = driver.pool(lambda event: None, workers=4, max_backlog=None).start()
    for keys in (10, 5_000):  # The first round makes what is made once.
        gc.collect()
        tracemalloc.start()
        try:
            before = tracemalloc.get_traced_memory()[0]
            for number in range(keys):
                for _ in range(events_per_key):
                    pool.add((keys, number), None)
            eventually(lambda: pool.stats().keys == 0)
            gc.collect()
            grown = tracemalloc.get_traced_memory()[0] - before
        finally:
            tracemalloc.stop()
    assert grown < 20_000, f"{grown} bytes are left of 5,000 keys"
    pool.drain(PATIENCE)


def test_a_pool_that_has_ended_holds_nothing(driver: Driver) -> None:
    gate = Gate()
    pool = driver.pool(gate, workers=1).start()
    pool.add("a", Payload())
    gate.wait_inside()
    waiting = Payload()
    ref = weakref.ref(waiting)
    pool.add("a", waiting)
    del waiting
    gate.open.set()
    left = pool.stop(PATIENCE)
    assert pool.stats().keys == 0
    left.clear()
    gc.collect()
    assert ref() is None
