"""The core as scripts: one event, then the whole state."""

from __future__ import annotations

from collections import deque
from typing import Any

import pytest

from workpool.lanes import NOTHING, Lanes


def lanes_with(*events: tuple[str, int], workers: int = 0) -> Lanes[str, int]:
    lanes: Lanes[str, int] = Lanes()
    lanes.start(workers)
    for key, event in events:
        lanes.submit(key, event)
    return lanes


def state(lanes: Lanes[Any, Any]) -> tuple[dict[Any, list[Any] | None], list[Any], list[Any]]:
    lanes.check_invariants()
    behind = {key: None if events is None else list(events) for key, events in lanes.lanes.items()}
    return behind, list(lanes.ready), [None if key is NOTHING else key for key in lanes.holds]


def test_the_first_event_of_a_key_is_ready_and_needs_no_container() -> None:
    lanes = lanes_with(("a", 1))
    assert state(lanes) == ({"a": None}, [("a", 1)], [])
    assert (lanes.added, lanes.waiting) == (1, 1)


def test_later_events_of_a_key_wait_behind_its_head() -> None:
    lanes = lanes_with(("a", 1), ("a", 2), ("a", 3), ("b", 4))
    assert state(lanes) == ({"a": [2, 3], "b": None}, [("a", 1), ("b", 4)], [])
    assert (lanes.added, lanes.waiting) == (4, 4)


def test_a_key_in_flight_is_not_ready_however_many_wait_behind() -> None:
    lanes = lanes_with(("a", 1), ("a", 2), ("b", 3), workers=2)
    assert lanes.take(0) == ("a", 1)
    lanes.wake()
    assert state(lanes) == ({"a": [2], "b": None}, [("b", 3)], ["a", None])
    assert (lanes.waiting, lanes.in_flight) == (2, 1)


def test_next_moves_the_lane_to_the_end_of_the_ring_and_takes_its_front() -> None:
    """Round-robin: one event a turn."""
    lanes = lanes_with(("a", 1), ("a", 2), ("b", 3), workers=1)
    lanes.take(0)
    assert lanes.next(0, "a") == ("b", 3)
    assert state(lanes) == ({"a": [], "b": None}, [("a", 2)], ["b"])
    assert lanes.next(0, "b") == ("a", 2)
    assert state(lanes) == ({"a": []}, [], ["a"])
    assert (lanes.added, lanes.handled, lanes.in_flight, lanes.waiting) == (3, 2, 1, 0)


def test_an_idle_key_is_in_no_structure() -> None:
    lanes = lanes_with(("a", 1), workers=1)
    lanes.take(0)
    assert lanes.next(0, "a") is None
    assert state(lanes) == ({}, [], [None])
    assert (lanes.added, lanes.handled, lanes.in_flight, lanes.waiting, lanes.asleep) == (1, 1, 0, 0, 1)


def test_a_dict_that_grew_is_released_when_the_last_key_is_idle() -> None:
    lanes = lanes_with(*((f"k{i}", i) for i in range(1000)), workers=1)
    grown = lanes.lanes
    item = lanes.take(0)
    while item:
        item = lanes.next(0, item[0])
    assert lanes.lanes == {}
    assert lanes.lanes is not grown


def test_none_is_a_key_like_any_other() -> None:
    lanes: Lanes[Any, str] = Lanes()
    lanes.start(1)
    lanes.submit(None, "x")
    lanes.submit(None, "y")
    assert lanes.take(0) == (None, "x")
    assert lanes.keys_in_flight() == [None]
    assert lanes.next(0, None) == (None, "y")


def test_at_its_limit_submit_accepts_nothing_unless_it_is_forced() -> None:
    lanes: Lanes[str, int] = Lanes(limit=1)
    assert lanes.submit("a", 1) is False
    assert lanes.submit("a", 2) is None
    assert lanes.submit("b", 3) is None
    assert state(lanes) == ({"a": None}, [("a", 1)], [])
    assert lanes.submit("b", 3, force=True) is False
    assert lanes.waiting == 2


def test_a_wake_up_is_asked_for_once_until_the_woken_worker_looks() -> None:
    lanes = lanes_with(workers=2)
    assert lanes.submit("a", 1) is True
    assert lanes.submit("b", 2) is False
    assert lanes.take(0) == ("a", 1)
    assert lanes.wake() is True, "more is ready, and another worker sleeps"
    assert lanes.take(1) == ("b", 2)
    assert lanes.wake() is False
    assert lanes.submit("c", 3) is False, "nobody sleeps"


def test_a_second_event_of_an_active_key_wakes_nobody() -> None:
    lanes = lanes_with(workers=2)
    lanes.submit("a", 1)
    lanes.take(0)
    assert lanes.submit("a", 2) is False
    lanes.check_invariants()


def test_a_worker_that_wakes_for_nothing_goes_back_to_sleep() -> None:
    lanes = lanes_with(workers=2)
    lanes.submit("a", 1)
    assert lanes.take(0) == ("a", 1)
    assert lanes.take(1) is None
    assert lanes.asleep == 1
    lanes.check_invariants()


def test_once_it_serves_no_more_nothing_is_chosen_and_what_waits_stays() -> None:
    lanes = lanes_with(("a", 1), ("a", 2), ("b", 3), workers=2)
    lanes.take(0)
    lanes.wake()
    lanes.serving = False
    assert lanes.take(1) is None
    assert lanes.next(0, "a") is None
    assert state(lanes)[1] == [("b", 3), ("a", 2)]
    assert lanes.wake() is False


class Awkward:
    """A key whose hash or comparison raises when it is told to. All are one hash, so that dicts must compare."""

    def __init__(self, name: str) -> None:
        self.name, self.broken = name, False

    def __hash__(self) -> int:
        if self.broken:
            raise OSError(self.name)
        return 1

    def __eq__(self, other: object) -> bool:
        if self.broken or getattr(other, "broken", False):
            raise OSError(self.name)
        return self is other


def test_a_key_that_cannot_be_hashed_is_not_accepted_and_harms_nothing() -> None:
    lanes: Lanes[Any, int] = Lanes()
    with pytest.raises(TypeError):
        lanes.submit([], 1)
    assert state(lanes) == ({}, [], [])
    assert lanes.added == 0


@pytest.mark.parametrize("accepted_before", [0, 1, 2])
def test_a_key_that_raises_in_submit_is_not_accepted(accepted_before: int) -> None:
    lanes: Lanes[Any, int] = Lanes()
    other, key = Awkward("other"), Awkward("key")
    lanes.submit(other, 0)
    for event in range(accepted_before):
        lanes.submit(key, event)
    key.broken = True
    with pytest.raises(OSError, match="key"):
        lanes.submit(key, 9)
    key.broken = False
    lanes.check_invariants()
    assert lanes.added == lanes.waiting == 1 + accepted_before


def test_a_key_that_raises_at_its_second_event_is_not_accepted_twice() -> None:
    """The second event stores the key again: the dict compares it again, and that may be what raises."""

    class Second(Awkward):
        looks = 0

        def __hash__(self) -> int:
            self.looks += 1
            if self.looks == 3:
                raise OSError(self.name)
            return 1

    lanes: Lanes[Any, int] = Lanes()
    key = Second("key")
    lanes.submit(key, 1)
    with pytest.raises(OSError, match="key"):
        lanes.submit(key, 2)
    lanes.check_invariants()
    assert lanes.added == 1


class FailingDeque(deque[Any]):
    """A ring that raises at one of its calls, as one does that finds no memory or is interrupted."""

    fail = ""

    def append(self, item: object) -> None:
        if self.fail == "append":
            raise MemoryError
        super().append(item)

    def popleft(self) -> Any:
        if self.fail == "popleft":
            raise MemoryError
        return super().popleft()


def test_a_ring_that_cannot_take_the_first_event_leaves_the_key_idle() -> None:
    lanes: Lanes[str, int] = Lanes()
    lanes.submit("a", 1)
    ring = lanes.ready = FailingDeque(lanes.ready)
    ring.fail = "append"
    with pytest.raises(MemoryError):
        lanes.submit("b", 2)
    ring.fail = ""
    assert state(lanes) == ({"a": None}, [("a", 1)], [])
    lanes.submit("b", 3)
    assert state(lanes)[1] == [("a", 1), ("b", 3)]


def test_a_key_that_raises_in_next_leaves_the_counts_and_the_waiting_events() -> None:
    lanes: Lanes[Any, int] = Lanes()
    lanes.start(1)
    key = Awkward("key")
    lanes.submit(key, 1)
    lanes.submit(key, 2)
    lanes.take(0)
    key.broken = True
    with pytest.raises(OSError, match="key"):
        lanes.next(0, key)
    key.broken = False
    assert (lanes.handled, lanes.in_flight, lanes.waiting) == (0, 1, 1)
    lanes.check_invariants()


def test_a_worker_that_is_interrupted_before_it_chose_has_taken_nothing() -> None:
    lanes = lanes_with(("a", 1), workers=1)
    ring = lanes.ready = FailingDeque(lanes.ready)
    ring.fail = "popleft"
    with pytest.raises(MemoryError):
        lanes.take(0)
    assert (list(lanes.ready), lanes.keys_in_flight()) == ([("a", 1)], [])
    assert (lanes.waiting, lanes.in_flight) == (1, 0)


@pytest.mark.parametrize("holds_nothing", [True, False])
def test_an_item_that_was_chosen_and_not_handed_over_goes_back(holds_nothing: bool) -> None:
    """Whatever raises between the choice and the return: here, a worker of a wrong number."""
    lanes = lanes_with(("a", 1), ("b", 2), workers=1)
    if holds_nothing:
        with pytest.raises(IndexError):
            lanes.take(7)
        assert list(lanes.ready) == [("a", 1), ("b", 2)]
    else:
        lanes.take(0)
        with pytest.raises(IndexError):
            lanes.next(7, "a")
        assert list(lanes.ready) == [("b", 2)]
        assert (lanes.handled, lanes.in_flight) == (0, 1)
    assert lanes.waiting == len(lanes.ready)


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (lambda lanes: lanes.ready.append(("a", 9)), "two places"),
        (lambda lanes: lanes.lanes.pop("b"), "no place, or idle"),
        (lambda lanes: lanes.lanes.setdefault("x"), "no place, or idle"),
        (lambda lanes: setattr(lanes, "in_flight", 2), "in_flight is miscounted"),
        (lambda lanes: setattr(lanes, "waiting", 7), "waiting is miscounted"),
        (lambda lanes: setattr(lanes, "asleep", -1), "asleep is miscounted"),
        (lambda lanes: setattr(lanes, "waking", False), "nobody wakes it"),
    ],
)
def test_the_invariants_see_what_is_wrong(harm: Any, message: str) -> None:
    lanes = lanes_with(("a", 1), ("a", 2), ("b", 3), ("c", 4), workers=2)
    lanes.take(0)
    lanes.wake()
    lanes.check_invariants()
    harm(lanes)
    with pytest.raises(AssertionError, match=message):
        lanes.check_invariants()
