"""Events of one key that are handled together, and those that a worker takes out of turn."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import pytest

from workpool.dispatch import Dispatch
from workpool.policy import Park, Skip

Core = Dispatch[str, Any]


class InHand:
    """What a worker holds."""

    def __init__(self, item: tuple[str, Any]) -> None:
        self.item, self.ended = item, True


def make(*events: Any) -> tuple[Core, InHand]:
    """A core whose worker holds the first of some events of a key."""
    core = Core()
    core.start(1)
    for event in events:
        core.submit("a", event)
    item = core.take(0)
    assert item is not None
    return core, InHand(item)


class TestWhatIsHandledTogether:
    @pytest.mark.parametrize(("most", "batch"), [(1, [0]), (2, [0, 1]), (3, [0, 1, 2]), (9, [0, 1, 2])])
    def test_up_to_so_many(self, most: int, batch: list[int]) -> None:
        core, hand = make(0, 1, 2)
        assert core.batch(*hand.item, most) == batch
        assert core.unhandled() == [("a", 1), ("a", 2)]

    def test_none_with_a_delay(self) -> None:
        core, hand = make(0, 1)
        core.submit_late("a", 2, 0.0, 5.0)
        core.submit("a", 3)
        assert core.batch(*hand.item, 9) == [0, 1]

    def test_that_of_the_first_is_over(self) -> None:
        core = Core()
        core.start(1)
        core.submit_late("b", 0, 0.0, 5.0)
        core.submit_late("b", 1, 0.0, 4.0)
        core.submit("b", 2)
        core.release(5.0)
        item = core.take(0)
        assert item is not None
        assert core.batch(*item, 9) == [0]
        found = core.next(0, "b")
        core.heed("b")
        assert found is not None
        assert not core.put_off(0, found, 5.0)
        assert core.batch(*found, 9) == [1, 2]

    def test_what_has_failed_together(self) -> None:
        core, hand = make(0, 1)
        core.note("a").batch = 2
        core.submit("a", 2)
        assert core.batch(*hand.item, 9) == [0, 1]
        core.note("a").batch = 1
        assert core.batch(*hand.item, 9) == [0]


class TestGoingOn:
    def test_the_event_has_ended_and_the_next_is_in_hand(self) -> None:
        core, hand = make(0, 1, 2)
        assert core.go_on(0, hand, ended=False) == ("a", 0)
        assert (hand.item, hand.ended) == (("a", 1), False)
        assert (core.handled, core.in_flight, core.waiting) == (1, 1, 1)
        core.check_invariants()

    def test_which_may_have_ended_with_it(self) -> None:
        core, hand = make(0, 1)
        core.go_on(0, hand, ended=True)
        assert hand.ended

    def test_its_lane_may_be_empty_then(self) -> None:
        core, hand = make(0, 1)
        core.go_on(0, hand, ended=False)
        core.submit("a", 2)
        core.check_invariants()
        assert core.next(0, "a") == ("a", 2)
        core.check_invariants()
        assert core.next(0, "a") is None
        core.check_invariants()
        assert core.lanes == {}

    def test_a_mark_is_counted_down(self) -> None:
        core, hand = make(0, 1)
        core.mark("a", "gate")
        core.go_on(0, hand, ended=False)
        assert core.notes["a"].marks == {"gate": 1}

    def test_what_is_known_of_the_head_is_over(self) -> None:
        core, hand = make(0, 1)
        core.fail_once("a", "no", 1.0)
        core.note("a").batch = 2
        core.go_on(0, hand, ended=False)
        assert (core.notes, core.attempt("a")) == ({}, 1)

    def test_it_may_while_there_is_one_that_may_start(self) -> None:
        core, hand = make(0, 1)
        assert core.may_go_on("a")
        core.park("a", 0.0)
        assert not core.may_go_on("a")
        core.resume("a")
        assert core.may_go_on("a")
        core.go_on(0, hand, ended=False)
        assert not core.may_go_on("a")
        core.submit_late("a", 2, 0.0, 5.0)
        assert not core.may_go_on("a")

    def test_it_may_in_a_drain_and_not_in_a_stop(self) -> None:
        core, _ = make(0, 1)
        core.drain()
        assert core.may_go_on("a")
        core.stop()
        assert not core.may_go_on("a")


class TestFailingTogether:
    def test_all_are_dead(self) -> None:
        core, hand = make(0, 1, 2)
        core.mark("a", "gate")
        core.note("a").batch = 2
        core.failed(0, hand.item, Skip(), "no", 3.0)
        assert core.wake()
        core.check_invariants()
        assert [(dead.event, dead.attempts, dead.error) for dead in core.buried] == [(0, 1, "no"), (1, 1, "no")]
        assert (core.dead, core.waiting, core.unhandled()) == (2, 1, [("a", 2)])
        assert core.notes["a"].marks == {"gate": 1}

    def test_who_comes_into_a_lane_that_is_empty_then_is_woken_for(self) -> None:
        """The adder waited behind all that there was, and its event is the first of an idle key."""
        core, hand = make(0, 1)
        core.max_lane = 1
        core.note("a").line = OrderedDict({"adder": ("a", 2, None)})
        core.note("a").batch = 2
        core.failed(0, hand.item, Skip(), "no", 3.0)
        assert core.admitted == ["adder"]
        assert core.unhandled() == [("a", 2)]
        assert core.wake()
        core.check_invariants()

    def test_or_parked_and_one_is_skipped_by_hand(self) -> None:
        core, hand = make(0, 1, 2)
        core.note("a").batch = 3
        core.failed(0, hand.item, Park(), "no", 3.0)
        dead = core.skip_head("a", 4.0)
        assert dead is not None
        assert dead.event == 0
        assert core.wake()
        core.check_invariants()
        item = core.take(0)
        assert item is not None
        assert core.batch(*item, 9) == [1, 2]
        assert core.notes == {}

    def test_or_retried(self) -> None:
        core, hand = make(0, 1)
        core.note("a").batch = 2
        core.failed(0, hand.item, 5.0, "no", 0.0)
        core.submit("a", 2)
        core.release(5.0)
        core.check_invariants()
        item = core.take(0)
        assert item is not None
        assert core.batch(*item, 9) == [0, 1]
        assert core.attempt("a") == 2
