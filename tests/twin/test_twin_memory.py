"""References, leaks, and allocations that fail."""

from __future__ import annotations

import gc
import logging
import sys
import weakref
from collections.abc import Callable
from copy import copy
from functools import partial
from typing import Any

import pytest

from support import PATIENCE, eventually, run_python
from workpool import EventWorkerPool, HandlerError, Skip
from workpool.twin import Hand, Lanes, _twin


@pytest.fixture(autouse=True)
def no_records(monkeypatch: pytest.MonkeyPatch) -> None:
    """Records of failures are kept by pytest, with all that their tracebacks hold."""
    monkeypatch.setattr(logging.getLogger("workpool"), "disabled", True)


class Thing:
    """An event, a key or a handler that can be watched."""

    def __init__(self, name: object = None) -> None:
        self.name = name

    def __call__(self, event: object) -> None:
        if isinstance(event, Thing) and event.name == "fails":
            raise OSError("no")


def lanes_come_and_go() -> None:
    core: Any = Lanes()
    core.start(2)
    for event in range(50):
        core.submit(Thing() if event % 7 else "a", Thing())
    item = core.take(0)
    while item:
        item = core.next(0, item[0])
    for event in range(20):
        core.submit("a", Thing())
        core.submit(("b", event), Thing())
    core.take(1)
    with pytest.raises(KeyError):
        core.next(1, "c")
    with pytest.raises(TypeError):
        core.submit([], 1)
    core.unhandled()


def keys_that_hold_their_lanes_come_and_go() -> None:
    """What is left of them is a cycle: a key, the core, and the lane that knows the key."""
    core: Any = Lanes()
    core.start(1)
    keys = [Thing(core) for _ in range(3)]
    for event in range(12):
        core.submit(keys[event % 3], event)
    core.take(0)
    for _ in range(4):
        core.next(0, core.holds[0])
    ready = copy(core.ready)
    del core.ready[0]
    core.ready.popleft()
    core.ready = ready


def rings_come_and_go() -> None:
    for width in (1, 2):
        ring = _twin.Ring(width)
        for number in range(300):
            ring.append((Thing(), number))
            ring.appendleft((number, Thing()))
            if number % 3 == 0:
                ring.popleft()
                del ring[len(ring) // 2]
        ring.append((width, ring))
        list(ring)


def pool_comes_and_goes(ending: str, policy: Any = None) -> None:
    pool: Any = EventWorkerPool(Thing(), workers=2, **({"on_failure": policy} if policy else {}))
    pool.add_many((number % 5, Thing()) for number in range(100))
    if policy:
        pool.add("a", Thing("fails"))
    if ending == "dropped":
        pool.stop()
        return
    pool.start()
    pool.add("b", pool)
    getattr(pool, ending)()


def hand_comes_and_goes() -> None:
    pool: Any = EventWorkerPool(Thing(), workers=1)
    pool._core.start(1)
    hand = Hand(pool, 0, Thing(), False)
    for number in range(10):
        pool.add(number % 2, Thing())
    pool.add("x", Thing("fails"))
    hand.item = pool._core.take(0)
    assert isinstance(hand.run(), OSError)
    hand.item = hand.last = (Thing(), hand)
    hand.item = None
    pool.stop()


def entrance_comes_and_goes() -> None:
    for _ in range(200):  # Python keeps some hundreds of what is free.
        entrance = _twin.Entrance(lambda *arguments: None)
        entrance.it = entrance
        entrance(1, 2, 3)


@pytest.mark.parametrize(
    "act",
    [
        lanes_come_and_go,
        keys_that_hold_their_lanes_come_and_go,
        rings_come_and_go,
        entrance_comes_and_goes,
        hand_comes_and_goes,
        partial(pool_comes_and_goes, "drain"),
        partial(pool_comes_and_goes, "stop"),
        partial(pool_comes_and_goes, "dropped"),
        partial(pool_comes_and_goes, "drain", Skip()),
    ],
)
def test_what_comes_and_goes_leaves_nothing(act: Callable[[], None]) -> None:
    def rest() -> tuple[int, int]:
        gc.collect()
        things = sum(isinstance(each, Thing | _twin.Ring | _twin.Lanes | _twin.Entrance) for each in gc.get_objects())
        return sys.getallocatedblocks(), things

    for _ in range(5):
        act()
    _, things = rest()
    grown = []
    for _ in range(4):
        before = rest()[0]
        for _ in range(50):  # Once each would be 50 or more; what Python itself keeps of what is free is less.
            act()
        grown.append(rest()[0] - before)
    assert rest()[1] == things
    assert min(grown) < 50, grown


def test_each_reference_to_a_key_and_an_event_is_given_back() -> None:
    key, event = Thing(), Thing()
    before = (sys.getrefcount(key), sys.getrefcount(event))
    core: Any = Lanes()
    core.start(2)
    for _ in range(20):
        core.submit(key, event)
    item = core.take(0)
    while item:
        item = core.next(0, item[0])
    assert (sys.getrefcount(key), sys.getrefcount(event)) == before
    pool: Any = EventWorkerPool(Thing(), workers=2).start()
    pool.add_many((key, event) for _ in range(20))
    pool.drain(PATIENCE)
    eventually(lambda: (sys.getrefcount(key), sys.getrefcount(event)) == before)


def test_a_handled_event_a_result_and_an_idle_key_are_released() -> None:
    refs: list[weakref.ref[Any]] = []

    def handle(event: object) -> object:
        result = Thing()
        refs.append(weakref.ref(result))
        return result

    pool: Any = EventWorkerPool(handle, workers=1).start()
    for _ in range(20):
        key, event = Thing(), Thing()
        refs += [weakref.ref(key), weakref.ref(event)]
        pool.add(key, event)
        del key, event
    eventually(lambda: pool.stats().handled == 20)
    eventually(lambda: not any(ref() for ref in refs))
    assert len(refs) == 60
    pool.drain(PATIENCE)


def test_a_pool_that_failed_is_released_with_all_that_it_held() -> None:
    thing, handler = Thing("fails"), Thing()
    pool: Any = EventWorkerPool(handler, workers=1).start()
    pool.add("a", thing)
    with pytest.raises(HandlerError):
        pool.drain(PATIENCE)
    refs = [weakref.ref(each) for each in (thing, handler, pool)]
    del thing, handler, pool
    gc.collect()
    assert [ref() for ref in refs] == [None] * 3


def test_the_lanes_of_keys_are_released_when_they_are_idle() -> None:
    """Of those that worker and ring hold too, each way that an event leaves: in C, through Python, and put back."""

    def rings() -> int:
        return sum(type(each) is _twin.Ring for each in gc.get_objects())

    pool: Any = EventWorkerPool(Thing(), workers=1)
    core = pool._core
    core.start(1)
    hand: Any = Hand(pool, 0, Thing(), False)
    before = rings()
    for event in range(12):
        pool.add(event % 2, event)
    assert rings() == before + 2
    hand.item = core.take(0)
    assert hand.pass_on() is None
    assert hand.pass_on() is None
    core.ready.appendleft(core.ready.popleft())
    core.cancel(1, 11)
    hand.item = core.next(0, hand.item[0])
    assert hand.run() is None
    assert (core.handled, core.waiting, core.lanes) == (11, 0, {})
    assert rings() == before


def test_a_ready_key_takes_two_places_with_its_lane_and_without() -> None:
    core: Any = Lanes()
    core.start(1)
    empty = core.ready.__sizeof__()
    for event in range(3 * 1024):
        core.submit(event % 1024, event)
    assert core.ready.__sizeof__() == empty + 2 * 8 * 1024
    core.take(0)
    for _ in range(1024):
        core.next(0, core.holds[0])
    assert core.ready.__sizeof__() == empty + 2 * 8 * 1024


def test_ten_thousand_keys_leave_the_rings_and_the_dict_small() -> None:
    core: Any = Lanes()
    core.start(1)
    for number in range(10_000):
        core.submit(number, number)
    assert core.ready.__sizeof__() > 100_000
    item = core.take(0)
    while item:
        item = core.next(0, item[0])
    assert core.ready.__sizeof__() < 1000
    assert sys.getsizeof(core.lanes) == sys.getsizeof({})


FAILING = """
import _testcapi, gc, logging
from collections import deque
from workpool import EventWorkerPool, _twin
from workpool.twin import Hand, Lanes
gc.disable()
logging.disable()

class Item:
    pass

class Calls:
    def lanes():
        core = Lanes()
        core.start(2)
        for number in range(5):
            core.submit(number, number)
            core.submit(number % 2, number)
        return core
    def submit():
        core = Calls.lanes()
        for number in range(3):
            yield core, lambda: core.submit("new", 1)
        yield core, lambda: core.submit(("a", 3), 1)
        for number in range(3):
            yield core, lambda: core.submit(1, 2)
    def take():
        core = Calls.lanes()
        yield core, lambda: core.take(0)
        yield core, lambda: core.next(0, core.holds[0])
        yield core, lambda: core.next(0, core.holds[0])
        yield core, lambda: core.take(1)
        yield core, lambda: core.next(1, core.holds[1])
    def add():
        pool = EventWorkerPool(print, workers=2)
        pool._core.start(2)
        for number in range(6):
            yield pool._core, lambda: pool.add("a", number)
            yield pool._core, lambda: pool.add(number, number)
            yield pool._core, lambda: pool.add_many([("a", 1), (object(), 2)])
    def run():
        pool = EventWorkerPool(print, workers=1)
        pool._core.start(1)
        hand = Hand(pool, 0, deque(maxlen=1).append, False)
        for number in range(20):
            pool.add(number % 3, number)
        hand.item = pool._core.take(0)
        yield pool._core, hand.run
        pool._mutex._is_owned() and pool._mutex.release()

def counts(core):
    return core.added, core.handled, core.waiting, core.in_flight

failed = 0
for calls in (Calls.submit, Calls.take, Calls.add, Calls.run):
    at = -1
    while True:
        at += 1
        raised = False
        steps = calls()
        for core, call in steps:
            before = counts(core)
            try:
                _testcapi.set_nomemory(at, at + 1)
                try:
                    call()
                finally:
                    _testcapi.remove_mem_hooks()
            except MemoryError:
                raised = True
                if calls is Calls.submit:
                    assert counts(core) == before, (calls, at)
                try:
                    core.check_invariants()
                except AssertionError as error:
                    if calls is not Calls.run or "nobody wakes" not in str(error) and "no place" not in str(error):
                        raise
        del steps
        failed += raised
        if not raised or at > 200:
            break
print("each was seen" if failed > 5 else failed)
"""


PROBE = """
import _testcapi
numbers = {number: number for number in range(5)}
_testcapi.set_nomemory(0, 1)
try:
    numbers.setdefault("new")
except MemoryError:
    pass
_testcapi.remove_mem_hooks()
"""


@pytest.fixture
def dict_without_fault() -> None:
    """`dict.setdefault` of Python 3.13.0 goes on where it found no memory, and counts a key that it has not."""
    pytest.importorskip("_testcapi")
    if run_python(PROBE).returncode:
        pytest.skip("a dict of this Python is broken once an allocation has failed")


@pytest.mark.usefixtures("dict_without_fault")
def test_an_allocation_that_fails_leaves_each_event_in_one_place() -> None:
    result = run_python(FAILING)
    assert (result.stdout, result.stderr) == ("each was seen\n", "")


@pytest.mark.usefixtures("dict_without_fault")
def test_two_allocations_that_fail_crash_nothing() -> None:
    script = FAILING.replace("set_nomemory(at, at + 1)", "set_nomemory(at, at + 3)")
    result = run_python(script)
    assert result.returncode in (0, 1), result.stderr


def test_a_ring_that_cannot_grow_refuses_and_keeps_what_it_has() -> None:
    pytest.importorskip("_testcapi")
    script = """
        import _testcapi
        from workpool import _twin
        ring = _twin.Ring(1)
        for number in range(4):
            ring.append(number)
        for act in (ring.append, ring.appendleft):
            raised = False
            _testcapi.set_nomemory(0, 1)
            try:
                act(9)
            except MemoryError:
                raised = True
            finally:
                _testcapi.remove_mem_hooks()
            assert raised
        print(list(ring))
    """
    result = run_python(script)
    assert (result.stdout, result.stderr) == ("[0, 1, 2, 3]\n", "")
