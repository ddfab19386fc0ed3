"""Delays, in the core: what a note tells of them, and that a call which is cut has accepted its event whole, or not."""

from __future__ import annotations

import math
import sys
from collections import deque
from typing import Any

import pytest

from tracer import cut_calls
from workpool.dispatch import Dispatch
from workpool.notes import Note

Core = Dispatch[Any, Any]


def core_with(*events: str) -> Core:
    """A core with some events, each of the key that is its first letter, and the first of them in flight."""
    core = Core()
    core.start(1)
    for event in events:
        core.submit(sys.intern(event[0]), event)
    core.take(0)
    core.wake()
    return core


def test_an_idle_key_is_held_at_once_and_nobody_is_woken() -> None:
    core = core_with()
    assert core.accept("a", 1, (10.0, 15.0)) is False
    assert (core.delayed["a"].since, core.delayed["a"].due, core.alarm) == (10.0, 15.0, 15.0)
    assert (core.waiting, core.added, len(core.ready)) == (1, 1, 0)
    core.check_invariants()
    assert core.release(14.0) is False
    assert core.release(15.0) is True
    assert core.take(0) == ("a", 1)
    assert core.alarm == math.inf


def test_nothing_is_accepted_over_the_limit_but_by_force() -> None:
    core = core_with()
    core.limit = 0
    assert core.accept("a", 1, (0.0, 5.0)) is None
    assert core.accept("a", 1, (0.0, 5.0), True) is False
    assert core.accept("a", 2, (0.0, 5.0)) is None
    assert core.unhandled() == [("a", 1)]


def test_what_is_behind_is_noted_and_held_when_it_is_first() -> None:
    core = core_with("a0")
    core.accept("a", "a1", (0.0, 5.0))
    core.accept("a", "a2", None)
    assert core.notes["a"].delays == deque([(1, 5.0)])
    item = core.next(0, "a")
    core.heed("a")
    assert item == ("a", "a1")
    assert core.put_off(0, item, 4.0)
    core.wake()
    core.check_invariants()
    assert (core.explain("a").state, core.explain("a").due, core.stats().delayed) == ("delayed", 5.0, 1)
    core.release(5.0)
    assert core.take(0) == ("a", "a1")
    assert not core.put_off(0, ("a", "a1"), 5.0)


def test_what_is_over_when_its_turn_comes_is_not_held() -> None:
    core = core_with("a0")
    core.accept("a", "a1", (0.0, 5.0))
    item = core.next(0, "a")
    core.heed("a")
    assert not core.put_off(0, ("a", "a1"), 5.0)
    assert item == ("a", "a1")
    core.next(0, "a")
    core.heed("a")
    assert core.notes == {}


def test_a_cancel_moves_the_delays_behind_it_up() -> None:
    core = core_with("a0", "a1", "a2")
    core.accept("a", "a3", (0.0, 5.0))
    core.accept("a", "a4", (0.0, 6.0))
    assert core.notes["a"].delays == deque([(3, 5.0), (4, 6.0)])
    core.cancel("a", "a1")
    assert core.notes["a"].delays == deque([(2, 5.0), (3, 6.0)])
    core.cancel("a", "a3")
    assert core.notes["a"].delays == deque([(2, 6.0)])
    core.cancel("a", "a4")
    assert core.notes == {}


def test_a_note_says_when_its_head_may_start() -> None:
    note: Note[int] = Note()
    assert (note.due(), note.is_blank()) == (0.0, True)
    note.delays = deque([(0, 5.0), (1, 7.0)])
    assert (note.due(), note.is_blank()) == (5.0, False)
    note.marks, note.passed, note.delays = note.without(0)
    assert (note.due(), note.passed) == (7.0, 1)
    note.marks, note.passed, note.delays = note.without(0)
    assert (note.due(), note.is_blank(), note.passed) == (0.0, True, 2)


@pytest.mark.parametrize("place", ["idle", "in flight", "noted", "held"])
def test_one_that_is_cut_at_any_line_is_accepted_with_its_delay_or_not(place: str) -> None:
    at = 0
    while True:
        at += 1
        core = core_with(*(["a0"] if place != "idle" else []))
        if place == "noted":
            core.mark("a", "gate")
        if place == "held":
            core.failed(0, ("a", "a0"), 5.0, "no", 0.0)
        before = core.added
        cut, where = cut_calls(lambda: core.accept("a", "late", (0.0, 9.0)), at)  # noqa: B023
        core.wake()
        core.check_invariants()
        note = core.noted("a")
        delayed = "a" in core.delayed or bool(note and note.delays)
        assert (core.added - before, ("a", "late") in core.unhandled()) == (delayed, delayed), where
        if not cut:
            return


@pytest.mark.parametrize("after", [False, True])
def test_one_that_is_cut_in_the_submit_is_accepted_with_its_delay_or_not(after: bool) -> None:
    class Interrupted(Dispatch[Any, Any]):
        def submit(self, key: Any, event: Any, force: bool = False) -> bool | None:
            if event == "late" and not after:
                raise KeyboardInterrupt
            answer = super().submit(key, event, force)
            if event == "late":
                raise KeyboardInterrupt
            return answer

    core = Interrupted()
    core.submit("a", "first")
    with pytest.raises(KeyboardInterrupt):
        core.accept("a", "late", (0.0, 5.0))
    note = core.noted("a")
    assert (core.added == 2, bool(note and note.delays)) == (after, after)
    core.check_invariants()


def test_one_that_is_cut_once_its_key_is_held_is_counted() -> None:
    class Interrupted(dict[Any, Any]):
        def __setitem__(self, key: Any, held: Any) -> None:
            super().__setitem__(key, held)
            raise KeyboardInterrupt

    core = core_with()
    core.delayed = Interrupted()
    with pytest.raises(KeyboardInterrupt):
        core.accept("a", "late", (0.0, 5.0))
    assert (core.waiting, core.added) == (1, 1)
    core.check_invariants()


def test_to_note_a_delay_twice_notes_it_once() -> None:
    core = core_with("a0")
    core.accept("a", "a1", (0.0, 5.0))
    core._put_behind("a", 5.0)
    assert core.notes["a"].delays == deque([(1, 5.0)])


class Broken:
    """A key that cannot be looked up at the nth time."""

    def __init__(self, at: int) -> None:
        self.left = at

    def __hash__(self) -> int:
        self.left -= 1
        if self.left == 0:
            raise OSError("no hash")
        return 1


def test_a_key_that_breaks_at_any_look_is_entered_or_not() -> None:
    for at in range(1, 30):
        core = core_with()
        key = Broken(at)
        try:
            core.accept(key, 1, (0.0, 5.0))
        except OSError:
            accepted = core.added
        else:
            accepted = 1
        key.left = 0
        core.check_invariants()
        assert len(core.unhandled()) == core.added == accepted
        if key.left < at - 1 and accepted and at > 10:
            break


def test_the_invariants_see_a_delay_of_no_event() -> None:
    core = core_with("a0")
    core.accept("a", "a1", (0.0, 5.0))
    delays = core.notes["a"].delays
    assert delays
    delays.append((7, 9.0))
    with pytest.raises(AssertionError, match="a delay is of no event"):
        core.check_invariants()
