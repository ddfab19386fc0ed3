"""Keys that may not start: one transition, then the whole state."""

from __future__ import annotations

import math
from collections.abc import Callable
from sys import getsizeof
from typing import Any

import pytest

from support import reference_only
from workpool.notes import Held, Note
from workpool.records import Dead, Explanation
from workpool.steered import SteeredLanes

Core = SteeredLanes[Any, Any]


def lanes_with(*events: tuple[str, int], workers: int = 1, max_dead: int = 10) -> Core:
    """Lanes with some events, the first of them in flight at worker 0."""
    lanes = Core(10**6, max_dead)
    lanes.start(workers)
    for key, event in events:
        lanes.submit(key, event)
    if events:
        assert lanes.take(0) == events[0]
        lanes.wake()
    return lanes


def state(lanes: Core) -> dict[str, Any]:
    """Where everything is, but for what is empty; after the wake-up that a driver asks for at the end of each step."""
    lanes.wake()
    lanes.check_invariants()
    places = {
        "behind": {key: list(events) for key, events in lanes.all_lanes() if events},
        "ready": list(lanes.ready),
        "in flight": lanes.keys_in_flight(),
        "retrying": {key: (held.event, held.due) for key, held in lanes.retrying.items()},
        "parked": {key: held.event for key, held in lanes.parked.items()},
        "noted": {key: (note.failures, note.parking) for key, note in lanes.notes.items()},
        "dead": [dead.event for dead in lanes.buried],
    }
    return {place: found for place, found in places.items() if found}


def turn(lanes: Core, worker: int = 0) -> Any:
    """What the next turn of a worker that sleeps gives it: it parks what is to be parked."""
    while item := lanes.take(worker):
        lanes.wake()
        if not lanes.is_to_park(item[0]):
            return item
        lanes.park_head(worker, item, 0.0)
    return None


def end(lanes: Core, key: str, worker: int = 0) -> Any:
    item = lanes.next(worker, key)
    lanes.heed(key)
    return item


class TestRetry:
    def test_a_key_that_is_to_be_retried_is_in_no_place_that_a_worker_looks_at(self) -> None:
        lanes = lanes_with(("a", 1), ("a", 2), ("b", 3))
        lanes.fail_once("a", "no", 100.0)
        assert lanes.retry(0, ("a", 1), 100.0, 105.0) is True
        assert state(lanes) == {"behind": {"a": [2]}, "ready": [("b", 3)], "retrying": {"a": (1, 105.0)}}
        assert (lanes.added, lanes.waiting, lanes.in_flight, lanes.asleep) == (3, 3, 0, 1)
        assert lanes.waking, "b can start"
        assert turn(lanes) == ("b", 3)
        assert end(lanes, "b") is None

    def test_what_is_added_meanwhile_comes_after_it(self) -> None:
        lanes = lanes_with(("a", 1))
        lanes.retry(0, ("a", 1), 100.0, 105.0)
        assert lanes.submit("a", 2) is False
        assert state(lanes) == {"behind": {"a": [2]}, "retrying": {"a": (1, 105.0)}}

    def test_it_takes_its_turn_when_it_is_due_and_not_before(self) -> None:
        lanes = lanes_with(("a", 1), ("a", 2))
        lanes.fail_once("a", "no", 100.0)
        lanes.retry(0, ("a", 1), 100.0, 105.0)
        lanes.check_invariants()
        lanes.waking = False
        assert lanes.release(104.9) is False
        assert lanes.alarm == 105.0
        assert lanes.release(105.0) is True
        assert state(lanes) == {"behind": {"a": [2]}, "ready": [("a", 1)], "noted": {"a": (1, False)}}
        assert lanes.alarm == math.inf
        assert turn(lanes) == ("a", 1)
        assert lanes.attempt("a") == 2
        assert end(lanes, "a") == ("a", 2)
        assert lanes.attempt("a") == 1, "the next event has not failed"
        assert state(lanes) == {"in flight": ["a"]}

    def test_those_that_are_due_take_turns_in_the_order_of_their_times(self) -> None:
        lanes = lanes_with(("a", 1), ("b", 2), ("c", 3))
        for key, event, due in (("a", 1, 9.0), ("b", 2, 7.0), ("c", 3, 8.0)):
            lanes.retry(0, (key, event), 0.0, due)
            if key != "c":
                assert turn(lanes) is not None
        lanes.release(8.5)
        assert state(lanes) == {"ready": [("b", 2), ("c", 3)], "retrying": {"a": (1, 9.0)}}
        assert lanes.alarm == 9.0

    def test_the_driver_is_told_of_an_earlier_time_once(self) -> None:
        lanes = lanes_with(("a", 1), ("b", 2), ("c", 3))
        answers = []
        for key, event, due in (("a", 1, 9.0), ("b", 2, 9.0), ("c", 3, 7.0)):
            answers.append(lanes.retry(0, (key, event), 0.0, due))
            turn(lanes)
        assert answers == [True, False, True]

    def test_at_once_means_the_next_turn(self) -> None:
        lanes = lanes_with(("a", 1), ("a", 2), ("b", 3))
        lanes.fail_once("a", "no", 100.0)
        lanes.again(0, ("a", 1))
        assert state(lanes) == {
            "behind": {"a": [2]}, "ready": [("b", 3), ("a", 1)], "noted": {"a": (1, False)},
        }  # fmt: skip
        assert (lanes.waiting, lanes.in_flight, lanes.asleep) == (3, 0, 1)


class TestPark:
    def test_an_event_that_failed_heads_its_parked_key(self) -> None:
        lanes = lanes_with(("a", 1), ("a", 2))
        lanes.fail_once("a", "no", 100.0)
        lanes.park_head(0, ("a", 1), 100.0)
        lanes.submit("a", 3)
        assert state(lanes) == {"behind": {"a": [2, 3]}, "parked": {"a": 1}}
        assert lanes.parked_keys() == ["a"]
        assert lanes.release(math.inf) is False, "no time lets it go"
        assert (lanes.waiting, lanes.in_flight, lanes.asleep) == (3, 0, 1)

    def test_an_idle_key_is_parked_with_its_first_event(self) -> None:
        lanes = lanes_with()
        lanes.park("a", 100.0)
        assert state(lanes) == {"noted": {"a": (0, True)}}
        assert lanes.explain("a") == Explanation("a", "parked", 0, 1, "")
        assert lanes.submit("a", 1) is True
        assert turn(lanes) is None
        assert state(lanes) == {"parked": {"a": 1}}

    def test_a_ready_key_is_parked_when_its_turn_comes_and_delays_no_other(self) -> None:
        lanes = lanes_with(("x", 0), ("a", 1), ("a", 2), ("b", 3))
        lanes.park("a", 100.0)
        assert lanes.parked_keys() == ["a"]
        item = end(lanes, "x")
        assert item == ("a", 1)
        assert lanes.is_to_park("a")
        lanes.park_head(0, item, 100.0)
        assert state(lanes) == {"behind": {"a": [2]}, "ready": [("b", 3)], "parked": {"a": 1}}
        assert lanes.waking

    def test_a_key_in_flight_is_parked_with_the_next_event(self) -> None:
        lanes = lanes_with(("a", 1), ("a", 2))
        lanes.park("a", 100.0)
        assert state(lanes) == {"behind": {"a": [2]}, "in flight": ["a"], "noted": {"a": (0, True)}}
        item = end(lanes, "a")
        assert item == ("a", 2)
        lanes.park_head(0, item, 101.0)
        assert state(lanes) == {"parked": {"a": 2}}
        assert lanes.parked["a"].since == 101.0

    def test_a_key_in_flight_without_more_is_parked_when_it_has_become_idle(self) -> None:
        lanes = lanes_with(("a", 1))
        lanes.park("a", 100.0)
        assert end(lanes, "a") is None
        assert state(lanes) == {"noted": {"a": (0, True)}}

    def test_a_key_that_waits_for_its_retry_is_parked_and_is_never_due(self) -> None:
        lanes = lanes_with(("a", 1), ("a", 2))
        lanes.fail_once("a", "no", 100.0)
        lanes.retry(0, ("a", 1), 100.0, 105.0)
        lanes.park("a", 101.0)
        assert state(lanes) == {"behind": {"a": [2]}, "parked": {"a": 1}}
        assert lanes.parked["a"] == Held("a", 1, Note(1, "no", 100.0), 101.0, "parked")
        lanes.release(200.0)
        assert state(lanes) == {"behind": {"a": [2]}, "parked": {"a": 1}}

    def test_a_parked_key_stays_as_it_is(self) -> None:
        lanes = lanes_with(("a", 1))
        lanes.park_head(0, ("a", 1), 100.0)
        lanes.park("a", 200.0)
        assert lanes.parked["a"].since == 100.0

    def test_a_park_that_is_cut_leaves_the_key_in_one_place(self) -> None:
        class Cut(dict[Any, Any]):
            def __delitem__(self, key: Any) -> None:
                if not done:
                    raise KeyboardInterrupt
                super().__delitem__(key)
                raise KeyboardInterrupt

        for done in (False, True):
            lanes = lanes_with(("a", 1))
            lanes.retry(0, ("a", 1), 100.0, 105.0)
            lanes.retrying = Cut(lanes.retrying)
            with pytest.raises(KeyboardInterrupt):
                lanes.park("a", 101.0)
            lanes.check_invariants()
            assert lanes.parked_keys() == ["a"] * done


class TestResume:
    def test_a_parked_key_takes_its_turn_with_its_head_and_the_count_of_its_attempts(self) -> None:
        lanes = lanes_with(("a", 1), ("a", 2), ("b", 3))
        lanes.fail_once("a", "no", 100.0)
        lanes.park_head(0, ("a", 1), 100.0)
        assert lanes.resume("a") is True
        assert state(lanes) == {
            "behind": {"a": [2]}, "ready": [("b", 3), ("a", 1)], "noted": {"a": (1, False)},
        }  # fmt: skip
        assert lanes.attempt("a") == 2
        assert lanes.waking

    def test_a_key_that_waits_for_its_retry_is_retried_now_and_once(self) -> None:
        lanes = lanes_with(("a", 1))
        lanes.retry(0, ("a", 1), 100.0, 105.0)
        assert lanes.resume("a") is True
        assert state(lanes) == {"ready": [("a", 1)]}
        lanes.release(200.0)
        assert state(lanes) == {"ready": [("a", 1)]}

    def test_a_void_timer_does_not_let_go_what_waits_for_a_later_one(self) -> None:
        lanes = lanes_with(("a", 1))
        lanes.retry(0, ("a", 1), 100.0, 105.0)
        lanes.resume("a")
        assert turn(lanes) == ("a", 1)
        lanes.retry(0, ("a", 1), 101.0, 110.0)
        lanes.release(105.0)
        assert state(lanes) == {"retrying": {"a": (1, 110.0)}}
        lanes.release(110.0)
        assert state(lanes) == {"ready": [("a", 1)]}

    @pytest.mark.parametrize("events", [[], [("x", 0), ("a", 1)], [("a", 1)]], ids=["idle", "ready", "in flight"])
    def test_a_key_that_is_to_be_parked_is_not(self, events: list[tuple[str, int]]) -> None:
        lanes = lanes_with(*events)
        before = state(lanes)
        lanes.park("a", 100.0)
        assert lanes.resume("a") is True
        assert state(lanes) == before

    def test_a_key_that_is_to_be_parked_keeps_what_is_known_of_its_head(self) -> None:
        lanes = lanes_with(("a", 1))
        lanes.fail_once("a", "no", 100.0)
        lanes.park("a", 100.0)
        lanes.resume("a")
        assert state(lanes) == {"in flight": ["a"], "noted": {"a": (1, False)}}

    def test_a_key_that_is_not_held_is_none(self) -> None:
        lanes = lanes_with(("a", 1))
        lanes.fail_once("a", "no", 100.0)
        assert lanes.resume("a") is False
        assert lanes.resume("b") is False

    @pytest.mark.parametrize("done", [False, True])
    def test_one_that_is_cut_leaves_the_key_in_one_place(self, done: bool) -> None:
        class Cut(dict[Any, Any]):
            def __delitem__(self, key: Any) -> None:
                if done:
                    super().__delitem__(key)
                raise KeyboardInterrupt

        lanes = lanes_with(("a", 1))
        lanes.park_head(0, ("a", 1), 100.0)
        lanes.parked = Cut(lanes.parked)
        with pytest.raises(KeyboardInterrupt):
            lanes.resume("a")
        assert state(lanes) == {"ready": [("a", 1)]}

    @reference_only
    def test_one_that_is_cut_before_it_did_anything_leaves_the_key_parked(self) -> None:
        lanes = lanes_with(("a", 1), ("b", 2))
        lanes.park_head(0, ("a", 1), 100.0)

        class Full(type(lanes.ready)):  # type: ignore[misc]
            def append(self, item: Any) -> None:
                raise MemoryError

        for ready in (Full(lanes.ready), Full()):
            lanes.ready = ready
            with pytest.raises(MemoryError):
                lanes.resume("a")
            assert lanes.parked_keys() == ["a"]


class TestPlace:
    def test_the_lanes_of_held_keys_are_no_part_of_the_dict_that_others_come_and_go_in(self) -> None:
        lanes = lanes_with(("a", 1), ("a", 2), ("b", 3), workers=2)
        lanes.retry(0, ("a", 1), 100.0, 105.0)
        assert turn(lanes) == ("b", 3)
        lanes.park_head(0, ("b", 3), 100.0)
        assert (list(lanes.lanes), list(lanes.aside)) == ([], ["a", "b"])
        lanes.submit("a", 4)
        lanes.submit("b", 5)
        assert state(lanes)["behind"] == {"a": [2, 4], "b": [5]}
        lanes.release(105.0)
        lanes.resume("b")
        assert (list(lanes.lanes), list(lanes.aside)) == (["a", "b"], [])

    def test_a_dict_that_grew_is_given_back(self) -> None:
        lanes = lanes_with()
        grown = lanes.aside
        for key in range(100):
            lanes.submit(key, 1)
            lanes.retry(0, turn(lanes), 100.0, 105.0)
        lanes.release(105.0)
        assert getsizeof(lanes.aside) <= getsizeof(grown)

    @reference_only
    @pytest.mark.parametrize("done", [False, True])
    def test_a_hold_that_is_cut_is_made(self, done: bool) -> None:
        class Cut(dict[Any, Any]):
            def __delitem__(self, key: Any) -> None:
                if done:
                    super().__delitem__(key)
                raise KeyboardInterrupt

        lanes = lanes_with(("a", 1), ("a", 2))
        lanes.lanes = Cut(lanes.lanes)
        with pytest.raises(KeyboardInterrupt):
            lanes.park_head(0, ("a", 1), 100.0)
        assert state(lanes) == {"behind": {"a": [2]}, "parked": {"a": 1}}

    @reference_only
    def test_a_hold_without_memory_for_it_is_not_made(self) -> None:
        class Full(dict[Any, Any]):
            def __setitem__(self, key: Any, value: Any) -> None:
                raise MemoryError

        for place in ("aside", "parked"):
            lanes = lanes_with(("a", 1), ("a", 2))
            setattr(lanes, place, Full())
            with pytest.raises(MemoryError):
                lanes.park_head(0, ("a", 1), 100.0)
            assert state(lanes) == {"behind": {"a": [2]}, "in flight": ["a"]}


class TestDead:
    def test_an_event_that_is_skipped_is_dead_and_its_lane_moves_up(self) -> None:
        lanes = lanes_with(("a", 1), ("a", 2), ("b", 3))
        lanes.fail_once("a", "no", 100.0)
        lanes.fail_once("a", "no again", 101.0)
        lanes.bury(0, ("a", 1), 102.0)
        assert state(lanes) == {"ready": [("b", 3), ("a", 2)], "dead": [1]}
        [dead] = lanes.buried
        facts = (dead.key, dead.event, dead.attempts, dead.error, dead.failed, dead.died)
        assert facts == ("a", 1, 2, "no again", 100.0, 102.0)
        assert (lanes.dead, lanes.in_flight, lanes.waiting, lanes.asleep) == (1, 0, 2, 1)

    def test_the_last_one_leaves_its_key_idle(self) -> None:
        lanes = lanes_with(("a", 1))
        grown = lanes.lanes
        lanes.bury(0, ("a", 1), 100.0)
        assert state(lanes) == {"dead": [1]}
        assert lanes.lanes == {}
        assert lanes.lanes is not grown

    def test_one_of_many_leaves_the_others(self) -> None:
        lanes = lanes_with(("a", 1), ("b", 2))
        lanes.bury(0, ("a", 1), 100.0)
        assert state(lanes) == {"ready": [("b", 2)], "dead": [1]}

    def test_a_key_that_is_to_be_parked_is_parked_with_the_event_after_the_dead_one(self) -> None:
        lanes = lanes_with(("a", 1), ("a", 2))
        lanes.fail_once("a", "no", 100.0)
        lanes.park("a", 100.0)
        lanes.bury(0, ("a", 1), 100.0)
        assert state(lanes) == {"ready": [("a", 2)], "noted": {"a": (0, True)}, "dead": [1]}

    def test_the_newest_are_kept_and_the_others_counted_and_handed_out_to_be_dropped(self) -> None:
        lanes = lanes_with(*(("a", event) for event in range(5)), max_dead=2)
        for event in range(5):
            lanes.bury(0, ("a", event), 100.0)
            lanes.take(0)
        assert state(lanes) == {"dead": [3, 4]}
        assert (lanes.dead, lanes.dead_forgotten) == (5, 3)
        assert [each.event for each in lanes.rubbish if isinstance(each, Dead)] == [0, 1, 2]

    def test_none_is_kept_where_none_may_be(self) -> None:
        lanes = lanes_with(("a", 1), max_dead=0)
        lanes.bury(0, ("a", 1), 100.0)
        assert state(lanes) == {}
        assert (lanes.dead, lanes.dead_forgotten) == (1, 1)

    @pytest.mark.parametrize("how", ["parked", "retrying"])
    def test_the_head_of_a_held_key_is_skipped_by_hand_and_the_rest_goes_on(self, how: str) -> None:
        lanes = lanes_with(("a", 1), ("a", 2))
        lanes.fail_once("a", "no", 100.0)
        hold(lanes, how)
        dead = lanes.skip_head("a", 103.0)
        assert dead is not None
        assert (dead.event, dead.attempts, dead.error, dead.failed, dead.died) == (1, 1, "no", 100.0, 103.0)
        assert state(lanes) == {"ready": [("a", 2)], "dead": [1]}
        assert (lanes.waiting, lanes.dead) == (1, 1)
        assert lanes.attempt("a") == 1

    def test_skipping_the_only_event_leaves_the_key_idle(self) -> None:
        lanes = lanes_with(("a", 1))
        hold(lanes, "parked")
        lanes.skip_head("a", 103.0)
        assert state(lanes) == {"dead": [1]}
        assert lanes.release(200.0) is False

    def test_a_skip_that_is_cut_is_made_or_not(self) -> None:
        class Cut(dict[Any, Any]):
            def pop(self, *arguments: Any) -> Any:
                raise KeyboardInterrupt

        class Once(SteeredLanes[Any, Any]):
            cuts = 1

            def _act_on(self, key: Any, note: Note[Any], place: int = 0) -> None:
                super()._act_on(key, note, place)
                Once.cuts -= 1
                if not Once.cuts:
                    raise KeyboardInterrupt

        lanes = lanes_with(("a", 1), ("a", 2))
        hold(lanes, "parked")
        whole, lanes.parked = lanes.parked, Cut(lanes.parked)
        with pytest.raises(KeyboardInterrupt):
            lanes.skip_head("a", 103.0)
        lanes.parked = whole
        assert state(lanes) == {"behind": {"a": [2]}, "parked": {"a": 1}}

        once = Once(10, 10)
        once.start(1)
        once.submit("a", 1)
        once.submit("a", 2)
        once.take(0)
        hold(once, "parked")
        with pytest.raises(KeyboardInterrupt):
            once.skip_head("a", 103.0)
        assert state(once) == {"ready": [("a", 2)], "dead": [1]}

    def test_there_is_nothing_to_skip_of_a_key_that_is_not_held(self) -> None:
        lanes = lanes_with(("a", 1), ("b", 2))
        lanes.park("c", 100.0)
        assert [lanes.skip_head(key, 100.0) for key in "abcd"] == [None] * 4


def hold(lanes: Core, how: str) -> None:
    if how == "parked":
        lanes.park_head(0, ("a", 1), 100.0)
    else:
        lanes.retry(0, ("a", 1), 100.0, 105.0)


class TestResidue:
    """P4."""

    def test_what_grew_is_released_when_all_is_idle(self) -> None:
        lanes = lanes_with(*((f"k{n}", n) for n in range(1000)))
        item: Any = ("k0", 0)
        while item:
            lanes.fail_once(item[0], "no", 100.0)
            if item[1] % 2:
                lanes.retry(0, item, 100.0, 105.0)
            else:
                lanes.park_head(0, item, 100.0)
            item = turn(lanes)
        grown: list[Any] = [lanes.retrying, lanes.parked]
        for number in range(0, 1000, 2):
            lanes.resume(f"k{number}")
        lanes.release(105.0)
        assert len(lanes.notes) == 1000
        item = turn(lanes)
        while item:
            item = end(lanes, item[0])
        assert state(lanes) == {}
        for structure in (lanes.retrying, lanes.parked):
            assert structure == {}
            assert not any(structure is each for each in grown)
        assert lanes.notes == {}
        assert getsizeof(lanes.notes) == getsizeof({})  # The same one, which workers look at.
        assert lanes.timers == []

    def test_void_timers_are_dropped_when_there_are_many(self) -> None:
        lanes = lanes_with(("a", 1), ("b", 2))
        lanes.retry(0, ("a", 1), 0.0, 10.0**6)
        for _ in range(1000):
            item = turn(lanes)
            assert item == ("b", 2)
            lanes.retry(0, item, 0.0, 10.0**5)
            lanes.resume("b")
            state(lanes)
        assert len(lanes.timers) <= 2 * 2 + 16
        lanes.release(10.0**6)
        assert state(lanes) == {"ready": [("b", 2), ("a", 1)]}

    def test_a_note_that_says_nothing_is_dropped(self) -> None:
        lanes = lanes_with(("a", 1), ("b", 2))
        lanes.fail_once("a", "no", 100.0)
        lanes.park("b", 100.0)
        end(lanes, "a")
        assert state(lanes) == {"in flight": ["b"], "noted": {"b": (0, True)}}
        assert lanes.note("c").is_blank()
        assert "c" in lanes.notes
        lanes.strike_blank("c", lanes.note("c"))
        lanes.check_invariants()

    def test_the_note_of_a_held_key_goes_with_it(self) -> None:
        lanes = lanes_with(("a", 1))
        lanes.fail_once("a", "no", 100.0)
        note = lanes.note("a")
        hold(lanes, "parked")
        assert lanes.notes == {}
        assert lanes.note("a") is note


class TestExplain:
    def test_each_state_says_what_the_key_waits_for(self) -> None:
        lanes = lanes_with(("a", 1), ("a", 2), ("b", 3), workers=2)
        assert lanes.explain("a") == Explanation("a", "in flight", 1, 1, "")
        assert lanes.explain("b") == Explanation("b", "ready", 1, 1, "")
        assert lanes.explain("c") == Explanation("c", "idle", 0, 1, "")
        lanes.fail_once("a", "no", 99.0)
        lanes.retry(0, ("a", 1), 100.0, 105.0)
        assert lanes.explain("a") == Explanation("a", "retrying", 2, 2, "no", since=100.0, due=105.0)
        lanes.park("a", 101.0)
        assert lanes.explain("a") == Explanation("a", "parked", 2, 2, "no", since=101.0)
        lanes.resume("a")
        assert lanes.explain("a") == Explanation("a", "ready", 2, 2, "no")

    def test_a_key_is_found_by_another_that_equals_it(self) -> None:
        lanes: Core = Core(10, 10)
        lanes.start(1)
        lanes.submit(1, "one")
        lanes.take(0)
        assert lanes.explain(1.0).state == "in flight"
        lanes.retry(0, (1, "one"), 100.0, 105.0)
        assert lanes.explain(1.0).state == "retrying"
        lanes.park(1.0, 100.0)
        assert lanes.unhandled() == [(1, "one")]


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (lambda lanes: lanes.timers.clear(), "a held key is never due"),
        (lambda lanes: lanes.timers.extend([(1.0, -n, "x") for n in range(99)]), "void timers are kept"),
        (lambda lanes: lanes.buried.update({object(): None, 1: None}), "more dead events"),
        (lambda lanes: lanes.notes.update(x=Note()), "a note that says nothing is kept"),
        (lambda lanes: lanes.notes.update(a=Note(1)), "a second note"),
        (lambda lanes: lanes.parked.update(lanes.retrying), "two places"),
        (lambda lanes: lanes.parked.clear(), "in no place"),
    ],
)
def test_the_invariants_see_what_is_wrong(harm: Callable[[Core], None], message: str) -> None:
    lanes = lanes_with(("a", 1), ("b", 2), max_dead=1)
    hold(lanes, "retrying")
    lanes.park_head(0, turn(lanes), 100.0)
    lanes.check_invariants()
    harm(lanes)
    with pytest.raises(AssertionError, match=message):
        lanes.check_invariants()
