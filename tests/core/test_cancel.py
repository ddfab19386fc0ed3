"""Cancel, in the core: one event is taken out of its lane, then the whole state."""

from __future__ import annotations

import random
import sys
from collections import deque
from collections.abc import Callable
from types import FrameType
from typing import Any

import pytest

from workpool import held, notes, steered
from workpool.dispatch import Dispatch
from workpool.notes import Note
from workpool.policy import Park

Core = Dispatch[Any, Any]


def core_with(*events: str, workers: int = 1, **options: Any) -> Core:
    """A core with some events, each of the key that is its first letter; the first is in flight at worker 0."""
    core = Core(**options)
    core.start(workers)
    for event in events:
        assert core.submit(event[0], event, True) is not None
    assert core.take(0) == (events[0][0], events[0])
    core.wake()
    return core


def places(core: Core) -> tuple[list[str], dict[str, list[str]], int]:
    """What is ready, what waits behind, and how many were cancelled, after the wake-up that ends each step."""
    core.wake()
    core.check_invariants()
    return [event for _, event in core.ready], {k: list(v) for k, v in core.all_lanes() if v}, core.cancelled


def lines_of(call: Callable[[], object], cut: int = 0) -> int:
    """How many lines of the core a call runs; it is cut at one of them."""
    lines = 0

    def trace(frame: FrameType, event: str, argument: Any) -> Any:
        nonlocal lines
        if frame.f_code.co_filename not in (held.__file__, notes.__file__, steered.__file__):
            return None
        if event == "line":
            lines += 1
            if lines == cut:
                raise KeyboardInterrupt
        return trace

    sys.settrace(trace)
    try:
        call()
    finally:
        sys.settrace(None)
    return lines


@pytest.mark.parametrize(("event", "rest"), [("a1", ["a2", "a3"]), ("a2", ["a1", "a3"]), ("a3", ["a1", "a2"])])
def test_one_that_waits_behind_another_goes_and_the_rest_keep_their_order(event: str, rest: list[str]) -> None:
    core = core_with("a0", "a1", "a2", "a3")
    assert core.cancel("a", event)
    assert places(core) == ([], {"a": rest}, 1)


def test_where_a_head_goes_the_next_of_its_key_takes_a_new_turn() -> None:
    core = core_with("x0", "a0", "a1", "b0")
    assert core.cancel("a", "a0")
    assert places(core) == (["b0", "a1"], {}, 1)


def test_a_key_whose_only_event_goes_is_idle() -> None:
    core = core_with("x0", "a0")
    assert core.cancel("a", "a0")
    assert places(core) == ([], {}, 1)
    assert list(core.lanes) == ["x"]


def test_what_does_not_wait_is_not_there() -> None:
    core = core_with("a0", "a1")
    assert not core.cancel("a", "a0"), "it is in flight"
    assert core.next(0, "a") == ("a", "a1")
    assert not core.cancel("a", "a0"), "it was handled"
    assert not core.cancel("b", "b0"), "it never came"
    assert places(core) == ([], {}, 0)


def test_none_goes_twice() -> None:
    core = core_with("a0", "a1", "a2")
    assert core.cancel("a", "a1")
    assert not core.cancel("a", "a1")
    assert places(core) == ([], {"a": ["a2"]}, 1)


def test_it_is_found_by_what_it_is_and_not_by_what_it_equals() -> None:
    core = core_with("x0")
    twins: list[list[int]] = [[], [], []]
    for twin in twins:
        core.submit("a", twin)
    for at in (1, 0):
        assert core.cancel("a", twins[at])
    assert not core.cancel("a", [])
    assert core.ready[0][1] is twins[2]


@pytest.mark.parametrize("decision", [5.0, Park()])
def test_what_waits_behind_a_held_head_can_go_and_the_head_cannot(decision: float | Park) -> None:
    core = core_with("a0", "a1", "a2")
    core.failed(0, ("a", "a0"), decision, "", 0.0)
    assert not core.cancel("a", "a0")
    assert core.cancel("a", "a1")
    assert places(core) == ([], {"a": ["a2"]}, 1)
    assert core.attempt("a") == 1
    assert core.resume("a")
    assert core.attempt("a") == 2


def test_the_attempts_of_a_head_count_on_unless_it_is_the_head_that_goes() -> None:
    core = core_with("a0", "a1", "a2")
    core.failed(0, ("a", "a0"), 0.0, "boom", 0.0)
    assert core.cancel("a", "a1")
    assert (core.attempt("a"), core.explain("a").error) == (2, "boom")
    assert core.cancel("a", "a0")
    assert (core.attempt("a"), core.explain("a").error) == (1, "")
    assert places(core) == (["a2"], {}, 2)


def test_a_key_that_is_to_be_parked_still_is() -> None:
    core = core_with("x0", "a0", "a1")
    core.park("a", 0.0)
    assert core.cancel("a", "a0")
    assert core.is_to_park("a")


def test_what_was_added_under_an_equal_key_is_left_to_a_stop_all_the_same() -> None:
    """A lane knows its key as the object that came first."""
    core = core_with("x0")
    for key, event in ((1, "first"), (1.0, "second"), (True, "third")):
        core.submit(key, event)
    assert core.next(0, "x") == (1, "first")
    core.submit("y", "y0")
    assert core.next(0, 1) == ("y", "y0")
    assert core.cancel(1.0, "second")
    assert places(core) == (["third"], {}, 1)
    assert core.unhandled() == [(1, "third")]


@pytest.mark.parametrize("where", ["in flight", "ready", "retrying", "parked"])
def test_who_waits_for_room_in_the_lane_comes_in(where: str) -> None:
    core = core_with("x0" if where == "ready" else "a0", "a0" if where == "ready" else "a1", "a1", max_lane=1)
    if where == "ready":
        assert core.lanes["a"], "a1 waits behind a0"
    else:
        core.cancel("a", "a1")  # The second one that was forced in.
    if where in ("retrying", "parked"):
        core.failed(0, ("a", "a0"), 5.0 if where == "retrying" else Park(), "", 0.0)
    assert core.offer("a", "a2", adder="me") is None
    assert core.cancel("a", "a1")
    assert core.admitted == ["me"]
    assert places(core)[1] == {"a": ["a2"]}


def test_the_last_that_waits_settles_a_pool_that_drains() -> None:
    core = core_with("x0", "a0")
    core.drain()
    core.again(0, ("x", "x0"))
    assert core.cancel("a", "a0")
    assert not core.settle()
    assert core.cancel("x", "x0")
    assert core.settle()


def test_a_wake_up_for_what_has_gone_finds_nothing_and_the_next_is_sent() -> None:
    core = core_with("x0", workers=2)
    assert core.submit("a", "a0") is True
    assert core.cancel("a", "a0")
    assert core.take(1) is None
    assert core.submit("a", "a1") is True
    core.check_invariants()


def test_the_key_is_dropped_when_nobody_is_inside() -> None:
    """Its `__del__` is the user's code."""
    core = core_with("x0", "a0")
    key = core.ready[0][0]
    core.cancel("a", "a0")
    assert core.rubbish == [key]


@pytest.mark.parametrize("backwards", [False, True])
@pytest.mark.parametrize("lanes", ["one in flight", "one ready", "many", "many in turn"])
def test_many_in_a_row_are_found_without_a_search(lanes: str, backwards: bool) -> None:
    """Counted, not timed: in the order in which they came, or in reverse, each costs the same however many wait."""
    lines = []
    for number in (50, 100):
        core = core_with("x0")
        keys: Any = {"one in flight": ["x"], "one ready": ["a"], "many": list(range(number))}.get(
            lanes, list("abcdefghij")
        )
        events = [(keys[at % len(keys)], f"event {at}") for at in range(number)]
        for key, event in events:
            core.submit(key, event)
        each = iter(events[::-1] if backwards else events)
        lines.append([lines_of(lambda: core.cancel(*next(each))) for _ in events])  # noqa: B023
        assert places(core) == ([], {}, number)
    assert max(lines[0]) == max(lines[1]) < 60


@pytest.mark.parametrize("event", ["a1", "b0", "c0"])
def test_one_that_is_cut_at_any_line_is_made_or_not(event: str) -> None:
    for cut in range(1, 1000):
        core = core_with("a0", "a1", "a2", "b0", "b1", "c0")
        try:
            lines_of(lambda: core.cancel(event[0], event), cut)  # noqa: B023
        except KeyboardInterrupt:
            was_cut = True
        else:
            was_cut = False
        core.check_invariants()
        left = [each for _, each in core.unhandled()]
        assert core.cancelled == (event not in left)
        assert sorted([*left, *[event] * core.cancelled]) == ["a1", "a2", "b0", "b1", "c0"]
        if not was_cut:
            assert cut > 10
            return
    raise AssertionError("there is no end of lines")


@pytest.mark.parametrize("seed", range(20))
def test_at_random_it_does_what_it_does_to_a_list_per_key(seed: int) -> None:
    chance = random.Random(seed)
    core = Core()
    core.start(3)
    model: dict[int, list[str]] = {}
    held: list[tuple[int, str] | None] = [None, None, None]
    for step in range(300):
        key, worker = chance.randrange(4), chance.randrange(3)
        lane = model.setdefault(key, [])
        at = held[worker]
        match chance.randrange(3):
            case 0:
                lane.append(f"event {step}")
                core.submit(key, lane[-1])
            case 1:
                if lane:
                    event = chance.choice(lane)
                    assert core.cancel(key, event), seed
                    lane.remove(event)
            case _:
                held[worker] = item = core.take(worker) if at is None else core.next(worker, at[0])
                if item is not None:
                    assert model[item[0]].pop(0) == item[1], seed
        core.wake()
        core.check_invariants()
        left: dict[int, list[str]] = {}
        for name, event in core.unhandled():
            left.setdefault(name, []).append(event)
        assert left == {name: events for name, events in model.items() if events}, seed


@pytest.mark.parametrize("event", ["a1", "a2"])
def test_one_that_is_interrupted_when_it_is_made_is_made_once(event: str) -> None:
    """The same without a tracer, which would keep the coverage from being seen."""

    class Interrupted(Dispatch[str, str]):
        def _close_up(self, key: str, note: Note[str], place: int, cancelled: int) -> None:
            first = self.cancelled < cancelled
            super()._close_up(key, note, place, cancelled)
            if first:
                raise KeyboardInterrupt

    core = Interrupted()
    for each in ("a1", "a2", "b1"):
        core.submit(each[0], each)
    with pytest.raises(KeyboardInterrupt):
        core.cancel("a", event)
    core.check_invariants()
    assert core.cancelled == 1
    assert event not in [each for _, each in core.unhandled()]


def test_a_key_that_cannot_be_looked_up_any_more_counts_as_new() -> None:
    class Key:
        def __hash__(self) -> int:
            raise OSError

    core: Dispatch[Any, Any] = Dispatch()
    assert core.attempt(Key()) == 1


def test_one_that_is_interrupted_before_it_is_made_is_not_made() -> None:
    class Interrupted(deque[str]):
        def __delitem__(self, at: Any) -> None:
            raise KeyboardInterrupt

    core: Dispatch[str, str] = Dispatch()
    core.submit("a", "a1")
    core.submit("a", "a2")
    core.lanes["a"] = Interrupted(["a2"])
    with pytest.raises(KeyboardInterrupt):
        core.cancel("a", "a2")
    core.check_invariants()
    assert (core.cancelled, core.waiting) == (0, 2)
