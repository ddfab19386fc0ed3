"""Marks of a key, in the core: one event ends, then the whole state."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from tracer import cut_calls
from workpool.dispatch import Dispatch
from workpool.notes import Note
from workpool.policy import Park, Skip

Core = Dispatch[Any, Any]
PLACES = ["ready", "in flight", "retrying", "parked"]


def core_with(*events: str, where: str = "in flight", **options: Any) -> Core:
    """A core with some events, each of the key that is its first letter, and the first of them in a place.

    A worker is at work on x0 meanwhile, unless it has the first event.
    """
    core = Core(**options)
    core.start(1)
    for event in (*(["x0"] if where == "ready" else []), *events):
        assert core.submit(sys.intern(event[0]), event, True) is not None  # The key is the object that tests name.
    item = core.take(0)
    if where in ("retrying", "parked"):
        assert item == (events[0][0], events[0])
        core.failed(0, item, 5.0 if where == "retrying" else Park(), "no", 0.0)
    core.wake()
    return core


def marks(core: Core) -> dict[Any, dict[Any, int]]:
    """How many events each mark waits for, by key, after the wake-up that ends each step."""
    core.wake()
    core.check_invariants()
    notes = [*core.notes.items(), *((held.key, held.note) for held in core.held())]
    return {key: note.marks for key, note in notes if note.marks}


def end(core: Core, key: Any) -> Any:
    """Let the worker's event be handled, as a driver does; what it goes on with."""
    item = core.next(0, key)
    core.heed(key)
    return item


class TestMark:
    def test_a_key_without_an_event_has_none_and_nothing_is_noted(self) -> None:
        core = core_with("a0")
        core.park("idle", 0.0)
        assert end(core, "a") is None
        assert not any(core.mark(key, "gate") for key in ("a", "idle", "never seen"))
        assert (marks(core), core.admitted) == ({}, [])
        assert list(core.notes) == ["idle"]

    @pytest.mark.parametrize("where", PLACES)
    @pytest.mark.parametrize("behind", [0, 1, 2])
    def test_it_waits_for_the_head_wherever_that_is_and_for_all_behind_it(self, where: str, behind: int) -> None:
        core = core_with(*(f"a{number}" for number in range(1 + behind)), where=where)
        assert core.mark("a", "gate")
        assert (marks(core), core.admitted) == ({"a": {"gate": 1 + behind}}, [])

    def test_it_is_told_when_the_last_has_ended_and_not_before(self) -> None:
        core = core_with("a0", "a1", "a2")
        core.mark("a", "gate")
        assert end(core, "a") == ("a", "a1")
        assert (marks(core), core.admitted) == ({"a": {"gate": 2}}, [])
        assert end(core, "a") == ("a", "a2")
        assert (marks(core), core.admitted) == ({"a": {"gate": 1}}, [])
        assert end(core, "a") is None
        assert (marks(core), core.admitted, core.notes) == ({}, ["gate"], {})

    @pytest.mark.parametrize("where", PLACES)
    def test_what_is_added_after_it_is_not_waited_for(self, where: str) -> None:
        core = core_with("a0", where=where)
        core.mark("a", "gate")
        core.submit("a", "a1")
        assert marks(core) == {"a": {"gate": 1}}

    def test_what_was_added_after_it_starts_when_it_has_been_told(self) -> None:
        core = core_with("a0")
        core.mark("a", "gate")
        core.submit("a", "a1")
        assert end(core, "a") == ("a", "a1")
        assert (marks(core), core.admitted, core.notes) == ({}, ["gate"], {})

    def test_events_of_other_keys_are_nothing_to_it(self) -> None:
        core = core_with("a0", "b0", "b1")
        core.mark("b", "gate")
        assert end(core, "a") == ("b", "b0")
        assert (marks(core), core.admitted) == ({"b": {"gate": 2}}, [])

    def test_each_of_many_waits_for_what_there_was_at_its_own_time(self) -> None:
        core = core_with("a0")
        core.mark("a", "first")
        core.mark("a", "like it")
        core.submit("a", "a1")
        core.mark("a", "second")
        assert marks(core) == {"a": {"first": 1, "like it": 1, "second": 2}}
        assert end(core, "a") == ("a", "a1")
        assert (marks(core), core.admitted) == ({"a": {"second": 1}}, ["first", "like it"])
        assert end(core, "a") is None
        assert (marks(core), core.admitted, core.notes) == ({}, ["first", "like it", "second"], {})

    def test_a_gate_that_marks_a_key_again_waits_for_what_there_is_then(self) -> None:
        core = core_with("a0")
        core.mark("a", "gate")
        core.submit("a", "a1")
        core.mark("a", "gate")
        assert marks(core) == {"a": {"gate": 2}}

    def test_a_gate_can_mark_several_keys(self) -> None:
        core = core_with("a0", "b0")
        core.mark("a", "gate")
        core.mark("b", "gate")
        end(core, "a")
        assert (marks(core), core.admitted) == ({"b": {"gate": 1}}, ["gate"])

    def test_equal_keys_are_one_key(self) -> None:
        core: Core = Core()
        core.start(1)
        core.submit(1, "first")
        core.take(0)
        assert core.mark(1.0, "gate")
        end(core, 1)
        assert (core.admitted, core.notes) == (["gate"], {})


class TestHeld:
    """A retry or a park is no end."""

    def test_an_event_that_is_delivered_again_at_once_has_not_ended(self) -> None:
        core = core_with("a0", "a1")
        core.mark("a", "gate")
        core.failed(0, ("a", "a0"), 0.0, "no", 0.0)
        assert (marks(core), core.admitted) == ({"a": {"gate": 2}}, [])
        assert core.take(0) == ("a", "a0")
        end(core, "a")
        assert (marks(core), core.admitted) == ({"a": {"gate": 1}}, [])

    @pytest.mark.parametrize("where", ["retrying", "parked"])
    def test_it_goes_with_its_key_while_that_is_held_and_back(self, where: str) -> None:
        core = core_with("a0", "a1")
        core.mark("a", "gate")
        core.failed(0, ("a", "a0"), 5.0 if where == "retrying" else Park(), "no", 0.0)
        assert (marks(core), core.admitted, core.notes) == ({"a": {"gate": 2}}, [], {})
        core.release(5.0) if where == "retrying" else core.resume("a")
        assert (marks(core), core.admitted, list(core.notes)) == ({"a": {"gate": 2}}, [], ["a"])
        assert core.take(0) == ("a", "a0")
        assert end(core, "a") == ("a", "a1")
        assert end(core, "a") is None
        assert (marks(core), core.admitted, core.notes) == ({}, ["gate"], {})

    def test_one_of_a_held_key_of_which_nothing_else_is_known_goes_back_with_it(self) -> None:
        core = core_with("a0")
        core.park("a", 0.0)
        core.park_head(0, ("a", "a0"), 0.0)
        core.mark("a", "gate")
        core.resume("a")
        assert (marks(core), core.admitted) == ({"a": {"gate": 1}}, [])

    def test_a_retry_that_is_parked_keeps_it(self) -> None:
        core = core_with("a0", where="retrying")
        core.mark("a", "gate")
        core.park("a", 1.0)
        assert (marks(core), core.admitted) == ({"a": {"gate": 1}}, [])

    def test_a_key_that_is_to_be_parked_keeps_it_and_is_parked(self) -> None:
        core = core_with("a0", "a1", where="ready")
        core.park("a", 0.0)
        core.mark("a", "gate")
        item = end(core, "x")
        assert core.is_to_park("a")
        core.park_head(0, item, 0.0)
        assert (marks(core), core.admitted) == ({"a": {"gate": 2}}, [])


class TestDead:
    def test_an_event_that_is_skipped_has_ended(self) -> None:
        core = core_with("a0", "a1")
        core.mark("a", "gate")
        core.failed(0, ("a", "a0"), Skip(), "no", 0.0)
        assert (marks(core), core.admitted) == ({"a": {"gate": 1}}, [])
        core.failed(0, core.take(0), Skip(), "no", 0.0)  # type: ignore[arg-type]
        assert (marks(core), core.admitted, core.notes) == ({}, ["gate"], {})

    @pytest.mark.parametrize("where", ["retrying", "parked"])
    def test_the_head_of_a_held_key_that_is_skipped_by_hand_has_ended(self, where: str) -> None:
        core = core_with("a0", "a1", where=where)
        core.mark("a", "gate")
        core.submit("a", "a2")
        assert core.skip_head("a", 1.0)
        assert (marks(core), core.admitted) == ({"a": {"gate": 1}}, [])
        assert core.take(0) == ("a", "a1")
        assert end(core, "a") == ("a", "a2")
        assert (marks(core), core.admitted, core.notes) == ({}, ["gate"], {})

    def test_the_only_event_of_a_held_key_that_is_skipped_by_hand_tells_it(self) -> None:
        core = core_with("a0", where="parked")
        core.mark("a", "gate")
        core.skip_head("a", 1.0)
        assert (marks(core), core.admitted, core.notes) == ({}, ["gate"], {})

    def test_a_dead_event_that_is_replayed_is_a_new_one(self) -> None:
        core = core_with("a0", "a1")
        core.mark("a", "gate")
        core.failed(0, ("a", "a0"), Skip(), "no", 0.0)
        core.replay(next(iter(core.buried)))
        assert marks(core) == {"a": {"gate": 1}}
        assert core.take(0) == ("a", "a1")
        assert end(core, "a") == ("a", "a0")
        assert (marks(core), core.admitted, core.notes) == ({}, ["gate"], {})


class TestCancelled:
    @pytest.mark.parametrize("where", PLACES)
    @pytest.mark.parametrize("event", ["a1", "a2", "a3", "a4", "a5"])
    def test_one_that_is_cancelled_has_ended_for_the_marks_behind_it_only(self, where: str, event: str) -> None:
        """It is looked for from both ends of the lane."""
        core = core_with("a0", "a1", "a2", where=where)
        core.mark("a", "at 3")
        core.submit("a", "a3")
        core.mark("a", "at 4")
        core.submit("a", "a4")
        core.submit("a", "a5")
        assert core.cancel("a", event)
        before = {"at 3": 3 - (event < "a3"), "at 4": 4 - (event < "a4")}
        assert (marks(core), core.admitted) == ({"a": before}, [])

    def test_the_head_that_is_cancelled_has_ended(self) -> None:
        core = core_with("a0", "a1", where="ready")
        core.mark("a", "gate")
        core.cancel("a", "a0")
        assert (marks(core), core.admitted) == ({"a": {"gate": 1}}, [])
        core.cancel("a", "a1")
        assert (marks(core), core.admitted, core.notes) == ({}, ["gate"], {})

    def test_a_mark_is_told_when_what_it_still_waited_for_is_cancelled(self) -> None:
        core = core_with("a0", "a1")
        core.mark("a", "gate")
        core.submit("a", "a2")
        core.cancel("a", "a1")
        assert (marks(core), core.admitted) == ({"a": {"gate": 1}}, [])
        assert end(core, "a") == ("a", "a2")
        assert (marks(core), core.admitted) == ({}, ["gate"])

    def test_what_is_known_of_the_head_stays_where_another_is_cancelled(self) -> None:
        core = core_with("a0", "a1")
        core.fail_once("a", "no", 0.0)
        core.mark("a", "gate")
        core.cancel("a", "a1")
        assert (marks(core), core.attempt("a")) == ({"a": {"gate": 1}}, 2)


class TestUnmark:
    @pytest.mark.parametrize("where", PLACES)
    def test_one_that_waits_is_taken_back_once_and_leaves_nothing(self, where: str) -> None:
        core = core_with("a0", where=where)
        core.mark("a", "gate")
        assert core.unmark("a", "gate") is True
        assert core.unmark("a", "gate") is False
        assert (marks(core), core.admitted, core.notes) == ({}, [], {})

    def test_one_that_was_told_or_never_made_does_not_wait(self) -> None:
        core = core_with("a0", "b0")
        core.mark("a", "gate")
        end(core, "a")
        core.fail_once("b", "no", 0.0)
        assert [core.unmark(key, "gate") for key in ("a", "b", "never seen")] == [False] * 3
        assert core.admitted == ["gate"]

    def test_the_others_and_what_else_is_known_stay(self) -> None:
        core = core_with("a0", "a1")
        core.fail_once("a", "no", 0.0)
        core.mark("a", "gate")
        core.mark("a", "other")
        assert not core.unmark("a", "another")
        assert core.unmark("a", "gate")
        assert (marks(core), core.attempt("a")) == ({"a": {"other": 2}}, 2)
        assert core.unmark("a", "other")
        assert (marks(core), core.attempt("a")) == ({}, 2)


class TestAround:
    @pytest.mark.parametrize("how", ["handled", "cancelled"])
    def test_who_waits_for_room_in_the_lane_comes_in_behind_it(self, how: str) -> None:
        core = core_with("a0", "a1", max_lane=1)
        assert core.offer("a", "a2", adder="adder") is None
        core.mark("a", "gate")
        end(core, "a") if how == "handled" else core.cancel("a", "a1")
        assert (marks(core), core.admitted) == ({"a": {"gate": 1}}, ["adder"])
        assert list(core.behind("a")) == ["a2"]

    def test_an_adder_that_gives_up_takes_no_mark_with_it(self) -> None:
        core = core_with("a0", "a1", max_lane=1)
        core.mark("a", "gate")
        core.offer("a", "a2", adder="adder")
        assert core.withdraw("adder", "a")
        assert marks(core) == {"a": {"gate": 2}}

    def test_a_drain_tells_it_as_ever(self) -> None:
        core = core_with("a0")
        core.mark("a", "gate")
        core.drain()
        assert (marks(core), core.admitted) == ({"a": {"gate": 1}}, [])
        end(core, "a")
        assert (marks(core), core.admitted) == ({}, ["gate"])

    @pytest.mark.parametrize("where", ["in flight", "parked"])
    @pytest.mark.parametrize("fails", [False, True])
    def test_where_the_pool_ends_first_it_is_dropped_and_not_told(self, where: str, fails: bool) -> None:
        core = core_with("a0", "a1", where=where)
        core.mark("a", "gate")
        if fails:
            assert core.fail(0, ("a", "a0") if where == "in flight" else None, ValueError()) == []
        else:
            assert core.stop() == []
            if where == "in flight":
                end(core, "a")
        core.leave(0)
        core.end()
        assert (marks(core), core.admitted, core.notes) == ({}, [], {})
        assert not core.mark("a", "gate")

    def test_one_that_is_reached_and_not_told_yet_is_told_by_the_ending(self) -> None:
        core = core_with("a0")
        core.mark("a", "gate")
        end(core, "a")
        assert core.stop() == ["gate"]


CALLS: dict[str, Callable[[Core], object]] = {
    "mark": lambda core: core.mark("a", "late"),
    "unmark": lambda core: core.unmark("a", "early"),
    "cancel": lambda core: core.cancel("a", "a2"),
    "cancel the head": lambda core: core.cancel("a", "a1"),
    "skip the head": lambda core: core.skip_head("a", 1.0),
    "resume": lambda core: core.resume("a"),
    "park": lambda core: core.park("a", 1.0),
}


@pytest.mark.parametrize("noted", [0, 1, 2], ids=lambda noted: f"{noted} ahead of a mark")
@pytest.mark.parametrize("where", PLACES)
@pytest.mark.parametrize("call", CALLS)
def test_a_call_that_is_cut_at_any_line_loses_no_mark_and_tells_none_early(call: str, where: str, noted: int) -> None:
    """P11. An interrupted mark, or unmark, is made or not; and what is told twice is no matter."""
    for at in range(1, 1000):
        events = ["a1", "a2", "a3"]
        core = core_with(*events[: noted or 1], where=where)
        if noted:
            core.mark("a", "early")
        for event in events[noted or 1 :]:
            core.submit("a", event)
        was_cut, line = cut_calls(partial(CALLS[call], core), at)
        found = marks(core).get("a", {})
        waits_for = {"early": {*events[:noted]}} if noted else {}
        if call == "mark" and ("late" in found or not was_cut):
            waits_for["late"] = {*events}
        if call == "unmark" and ("early" not in found or not was_cut):
            waits_for.clear()
        lane = {*["a1"] * (where == "in flight"), *(event for _, event in core.unhandled())}
        ahead = {gate: len(waited_for & lane) for gate, waited_for in waits_for.items()}
        assert found == {gate: number for gate, number in ahead.items() if number}, line
        assert set(core.admitted) == {gate for gate, number in ahead.items() if not number}, line
        if not was_cut:
            assert at > 1, "the tracer has seen no lines"
            return
    raise AssertionError("there is no end of lines")


def test_an_unmark_that_is_interrupted_when_it_is_made_leaves_no_blank_note() -> None:
    """The same without a tracer, which would keep the coverage from being seen."""

    class Interrupted(Dispatch[Any, Any]):
        struck = 0

        def strike_blank(self, key: Any, note: Note[Any]) -> None:
            Interrupted.struck += 1
            if Interrupted.struck == 1:
                raise KeyboardInterrupt
            super().strike_blank(key, note)

    core = Interrupted()
    core.submit("a", "a0")
    core.mark("a", "gate")
    with pytest.raises(KeyboardInterrupt):
        core.unmark("a", "gate")
    assert (marks(core), core.notes) == ({}, {})


@pytest.mark.parametrize("ahead", [0, 3])
@pytest.mark.parametrize("where", PLACES)
def test_the_invariants_see_a_mark_that_is_miscounted(where: str, ahead: int) -> None:
    core = core_with("a0", "a1", where=where)
    core.mark("a", "gate")
    core.check_invariants()
    core.note("a").marks = {"gate": ahead}
    with pytest.raises(AssertionError, match="a mark is miscounted"):
        core.check_invariants()


def test_the_invariants_see_a_mark_of_a_key_without_an_event() -> None:
    core = core_with("x0")
    core.note("a").marks = {"gate": 1}
    with pytest.raises(AssertionError, match="a mark is miscounted"):
        core.check_invariants()
