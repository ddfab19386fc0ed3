"""Whatever Python does to the twin raises, and never crashes."""

from __future__ import annotations

import copy
import gc
import pickle
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from operator import methodcaller
from types import ModuleType
from typing import Any

import pytest

from support import Gate, in_thread
from workpool import EventWorkerPool
from workpool.lanes import NOTHING
from workpool.twin import Hand, Lanes, Seat, _twin

LANES: Any = Lanes
HAND: Any = Hand
SEAT: Any = Seat


def hand_of(pool: Any, handler: Any) -> Any:
    return HAND(pool, 0, handler, False)


def pool_with(*events: tuple[Any, Any]) -> Any:
    """A pool without threads, with one worker that the test is."""
    pool: Any = EventWorkerPool(print, workers=1)
    pool._core.start(1)
    for key, event in events:
        pool.add(key, event)
    return pool


def test_a_hand_that_is_entered_again_from_its_handler_raises() -> None:
    errors: list[Exception] = []

    def handle(event: object) -> None:
        for act in (hand.run, partial(setattr, hand, "item", None), partial(setattr, hand, "item", ("x", 1))):
            with pytest.raises(RuntimeError, match="at work") as info:
                act()
            errors.append(info.value)

    pool = pool_with(("a", 1), ("a", 2))
    hand = hand_of(pool, handle)
    hand.item = pool._core.take(0)
    assert hand.run() is None
    assert len(errors) == 6
    assert (hand.item, hand.ended) == (None, False)
    pool._core.check_invariants()


def test_a_hand_that_is_its_own_event_raises() -> None:
    pool = pool_with()
    hand = hand_of(pool, methodcaller("run"))
    pool.add("a", hand)
    hand.item = pool._core.take(0)
    assert isinstance(hand.run(), RuntimeError)
    hand.item = None


def test_a_hand_of_two_threads_raises_in_the_second() -> None:
    gate = Gate()
    pool = pool_with(("a", 1))
    hand = hand_of(pool, gate)
    hand.item = pool._core.take(0)
    first = in_thread(hand.run)
    gate.wait_inside()
    with pytest.raises(RuntimeError, match="at work"):
        hand.run()
    gate.open.set()
    assert first() is None


def test_an_event_whose_release_takes_the_hand_raises_there() -> None:
    seen: list[str] = []

    class Event:
        def __del__(self) -> None:
            try:
                hand.item = ("x", 1)
            except RuntimeError as error:
                seen.append(str(error))
            pool.add("b", 2)

    pool = pool_with(("a", Event()))
    hand = hand_of(pool, bool)
    hand.item = pool._core.take(0)
    assert hand.run() is None
    assert seen == ["this hand is at work"]
    assert pool._core.handled == 2
    pool._core.check_invariants()


def test_a_hand_outlives_the_core_and_the_mutex_of_its_pool() -> None:
    def handle(event: object) -> None:
        pool._core = EventWorkerPool(print)._core
        pool._mutex = _twin.Mutex()
        gc.collect()

    pool = pool_with(("a", 1), ("b", 2))
    hand = hand_of(pool, handle)
    hand.item = pool._core.take(0)
    assert hand.run() is False
    assert hand.ended


@pytest.mark.parametrize(
    "make",
    [
        partial(HAND),
        partial(HAND, None, 0, print, False),
        partial(HAND, Seat(), 0, print, False),
        partial(HAND, EventWorkerPool(print), "0", print, False),
        partial(HAND, EventWorkerPool(print), 10**30, print, False),
        partial(_twin.Ring, "x"),
        partial(_twin.Ring, 3),
        partial(_twin.Ring, 0),
        partial(_twin.Lanes, "x"),
        partial(_twin.Lanes, 10**30),
        partial(_twin.Entrance),
        partial(_twin.Mutex().acquire, 1, 2),
        partial(_twin.Mutex().release),
        partial(LANES().submit, "a"),
        partial(LANES().submit, "a", 1, False, 2),
        partial(LANES().submit, "a", 1, strange=True),
        partial(LANES().submit, [], 1),
        partial(LANES().submit, _twin.Ring(1), 1),
        partial(LANES().take, "x"),
        partial(LANES().take, 0),
        partial(LANES().take, -1),
        partial(LANES().next, 0),
        partial(LANES().next, 0, "a"),
        partial(_twin.Ring(2).append, 1),
        partial(_twin.Ring(2).appendleft, (1, 2, 3)),
        partial(_twin.Ring(2).append, (_twin.Ring(1), 1)),
        partial(_twin.Ring(2).appendleft, (_twin.Ring(2), 1)),
        partial(hash, _twin.Ring(1)),
        partial(_twin.Ring(1).__delitem__, 0),
        partial(_twin.Ring(1).__setitem__, 0, 1),
        partial(pickle.dumps, _twin.Ring(1)),
        partial(pickle.dumps, _twin.Mutex()),
        partial(pickle.dumps, LANES()),
        partial(copy.copy, _twin.Mutex()),
        partial(SEAT()._enter_some, [("a", 1)]),
    ],
)
def test_wrong_arguments_raise(make: Callable[[], object]) -> None:
    with pytest.raises((TypeError, ValueError, IndexError, KeyError, OverflowError, RuntimeError)):
        make()


@pytest.mark.parametrize("name", ["lanes", "ready", "holds", "limit", "serving", "added"])
@pytest.mark.parametrize("value", [None, [], (), "x", 1.5, 10**30, _twin.Ring(1)])
def test_a_core_takes_only_what_fits(name: str, value: object) -> None:
    core: Any = Lanes()
    before = getattr(core, name)
    if type(value) is type(before) and not isinstance(value, _twin.Ring):
        return
    with pytest.raises((TypeError, OverflowError)):
        setattr(core, name, value)
    with pytest.raises((TypeError, AttributeError)):
        delattr(core, name)
    core.submit("a", 1)  # A number that was refused is -1 now, as CPython leaves it: wrong, and no crash.


@pytest.mark.parametrize("name", ["_core", "_mutex"])
def test_a_seat_lacks_what_it_was_not_given_and_keeps_what_it_was(name: str) -> None:
    with pytest.raises(AttributeError, match="never made"):
        getattr(Seat(), name)
    pool = pool_with()
    with pytest.raises(TypeError, match="stand"):
        delattr(pool, name)
    with pytest.raises(TypeError, match="stand"):
        pool._core = 1
    pool.add("a", 1)


def test_a_pool_whose_init_never_ran_raises() -> None:
    pool: Any = EventWorkerPool.__new__(EventWorkerPool)
    with pytest.raises(AttributeError, match="never made"):
        pool.add("a", 1)
    with pytest.raises(AttributeError, match="never made"):
        pool.add_many([("a", 1)])
    with pytest.raises(RuntimeError, match="no core"):
        HAND(Seat(), 0, print, False)


@pytest.mark.parametrize("lane", [[1], (1,), "x", _twin.Ring(2)])
def test_a_lane_that_is_none_raises(lane: object) -> None:
    core: Any = Lanes()
    core.start(1)
    core.submit("a", 1)
    core.take(0)
    core.lanes["a"] = lane
    with pytest.raises(TypeError, match="a lane is"):
        core.submit("a", 2)
    with pytest.raises(TypeError, match="a lane is"):
        core.next(0, "a")
    assert (core.added, core.in_flight) == (1, 1)


class Meddler:
    """A key that does something when it is compared."""

    def __init__(self, act: Callable[[], object]) -> None:
        self.act = act

    def __hash__(self) -> int:
        return 1

    def __eq__(self, other: object) -> bool:
        self.act()
        return isinstance(other, Meddler)


@pytest.mark.parametrize(
    "meddle",
    [
        lambda core: setattr(core, "lanes", {}),
        lambda core: core.lanes.clear(),
        lambda core: setattr(core, "ready", _twin.Ring(2)),
        lambda core: setattr(core, "holds", []),
        lambda core: core.holds.clear(),
        lambda core: [core.ready.popleft() for _ in core.ready],
        lambda core: core.__init__(3),
        lambda core: gc.collect(),
        lambda core: core.submit("other", 1, True),
        lambda core: core.take(0),
    ],
)
@pytest.mark.parametrize("events", [1, 2, 3])
def test_a_key_that_meddles_with_the_core_when_compared_crashes_nothing(meddle: Any, events: int) -> None:
    core: Any = Lanes()
    core.start(1)
    acts: list[Callable[[], object]] = []

    def act() -> None:
        if acts:
            acts.pop()()

    for _ in range(events):
        core.submit(Meddler(act), object())
    core.take(0)
    for call in (
        partial(core.submit, Meddler(act), object()),
        partial(core.next, 0, Meddler(act)),
        partial(core.take, 0),
    ):
        acts.append(partial(meddle, core))
        with suppress(IndexError, KeyError, RuntimeError, TypeError):
            call()
    acts.clear()
    list(core.ready)
    gc.collect()


def test_a_ring_that_its_items_meddle_with_crashes_nothing() -> None:
    class Item:
        def __del__(self) -> None:
            if len(ring) < 50:
                ring.append(1)
            if len(ring) > 1:
                del ring[-1]

    for width in (1, 2):
        ring = _twin.Ring(1)
        for _ in range(200):
            ring.append(Item())
        for item in ring:
            ring.popleft()
            del item
        other = _twin.Ring(width)
        other.append((1, other) if width == 2 else other)
        del ring[0], other
        gc.collect()


def test_rings_nested_deeply_are_released() -> None:
    ring = _twin.Ring(1)
    for _ in range(300_000):
        outer = _twin.Ring(1)
        outer.append(ring)
        ring = outer
    del outer, ring


def core_whose_lanes_travel(kind: Any, *keys: object) -> Any:
    """Its worker holds the first key, and the others are ready: all with their second event, and two behind it."""
    core = kind()
    core.start(1)
    for event in range(4 * len(keys)):
        core.submit(keys[event % len(keys)], event)
    core.take(0)
    for key in keys:
        core.next(0, key)
    return core


def test_python_sees_a_key_where_its_lane_stands() -> None:
    keys = [object() for _ in range(5)]
    core = core_whose_lanes_travel(LANES, *keys)
    items = list(zip(keys[1:], range(6, 10), strict=True))
    for ready in (core.ready, copy.copy(core.ready)):
        assert list(ready) == list(reversed(ready))[::-1] == items
        del ready[1], ready[-1]
        assert [ready.popleft(), *ready] == [items[0], items[2]]
        ready.append(items[3])
        ready.appendleft(items[1])
        ready.appendleft(items[0])
        assert list(ready) == items
    core.check_invariants()
    assert [key for key, _ in core.unhandled()] == [key for key in keys for _ in range(2 + (key is not keys[0]))]
    handled = []
    while (key := core.holds[0]) is not NOTHING:
        handled.append(key)
        core.next(0, key)
    assert handled == 3 * keys
    assert core.handled == 20


def test_a_lane_does_not_stand_for_another_key_that_equals_its_own(pure: dict[str, ModuleType]) -> None:
    for kind in (LANES, pure["lanes"].Lanes):
        core = core_whose_lanes_travel(kind, 1, 2)
        core.next(0, 1.0)
        assert repr(list(core.ready)) == "[(1.0, 4)]"


def test_a_lane_is_no_key() -> None:
    pool = pool_with(("a", 1), ("a", 2))
    core = pool._core
    core.next(0, core.take(0)[0])
    lane = core.lanes["a"]
    for call in (
        partial(pool.add, lane, 1),
        partial(core.submit, lane, 1),
        partial(core.next, 0, lane),
        partial(core.ready.append, (lane, 1)),
    ):
        with pytest.raises(TypeError):
            call()
    hand = hand_of(pool, print)
    hand.item = (lane, 1)
    with pytest.raises(TypeError, match="unhashable"):
        hand.pass_on()
    assert core.lanes == {"a": lane}


def test_a_tuple_as_a_key_that_is_not_there_is_named_whole() -> None:
    core: Any = Lanes()
    core.start(1)
    with pytest.raises(KeyError) as info:
        core.next(0, (1, 2))
    assert info.value.args == ((1, 2),)


def test_a_mutex_knows_its_owner() -> None:
    mutex = _twin.Mutex()
    assert not mutex._is_owned()
    assert mutex.acquire(False)
    assert mutex._is_owned()
    assert not mutex.acquire(False)
    with pytest.raises(RuntimeError, match="inside already"):
        mutex.acquire()
    assert not in_thread(lambda: mutex.acquire(False))()
    assert not in_thread(mutex._is_owned)()
    with pytest.raises(RuntimeError, match="not taken"):
        in_thread(mutex.release)()
    waiting = in_thread(lambda: (mutex.acquire(), mutex._is_owned(), mutex.release()))
    mutex.release()
    assert waiting() == (True, True, None)


def test_a_bound_beyond_any_number_of_events_is_none() -> None:
    handled: list[int] = []
    with EventWorkerPool[str, int](handled.append, workers=1, max_backlog=10**30) as pool:
        assert pool.add_many(("a", event) for event in range(10)) == 10
    assert handled == list(range(10))


def test_what_holds_nothing_is_nothing() -> None:
    core: Any = Lanes()
    core.start(2)
    assert core.holds == [NOTHING, NOTHING]
    pool = pool_with()
    hand = hand_of(pool, print)
    assert hand.last is None
    with pytest.raises(TypeError, match="pair"):
        hand.item = (1, 2, 3)
    with pytest.raises(TypeError, match="pair"):
        del hand.item
    assert hand.run() is None
