"""What the dispatch adds to the lanes: the bound and its adders, the endings, the failure."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import pytest

from workpool.dispatch import Dispatch
from workpool.errors import HandlerError, PoolClosed, PoolFull
from workpool.lanes import NOTHING
from workpool.policy import Fail, Park, Skip
from workpool.records import Crowd, Dead, State


def add(core: Dispatch[Any, Any], key: Any, event: Any, adder: object = None, inside: bool = False) -> bool | None:
    """The two calls of a driver."""
    wake = core.submit(key, event)
    return core.offer(key, event, adder, inside) if wake is None else wake


def started(bound: int | None = None, workers: int = 1, max_lane: int | None = None) -> Dispatch[Any, Any]:
    core: Dispatch[Any, Any] = Dispatch(bound, "p", max_lane=max_lane)
    core.start(workers)
    return core


def run(core: Dispatch[Any, Any], worker: int = 0) -> list[Any]:
    """Let one worker handle all there is."""
    handled = []
    item = core.take(worker)
    core.wake()
    while item:
        core.check_invariants()
        handled.append(item[1])
        item = core.next(worker, item[0])
        if core.adders:
            core.admit()
    core.check_invariants()
    return handled


class TestBackPressure:
    def test_up_to_the_bound_events_are_accepted_and_then_none(self) -> None:
        core = started(3)
        for event in range(3):
            assert add(core, "a", event) is not None
        with pytest.raises(PoolFull) as caught:
            add(core, "a", 3)
        assert str(caught.value) == "pool 'p' is full: 3 events wait (max_backlog=3); the event was not added"
        assert core.added == core.waiting == 3
        core.check_invariants()

    def test_a_full_pool_names_the_deepest_key_in_flight(self) -> None:
        core = started(5, workers=2)
        for key in ("a", "a", "b", "b", "b", "c", "c"):
            if key == "c" and core.in_flight == 0:
                core.take(0), core.take(1)
            add(core, key, 0)
        with pytest.raises(PoolFull, match=r"2 of those that wait are of key 'b', which is in flight") as caught:
            add(core, "d", 0)
        assert (caught.value.key, caught.value.depth) == ("b", 2)

    def test_no_bound_is_never_reached(self) -> None:
        core = started(None)
        for event in range(1000):
            assert core.submit("a", event) is not None

    def test_an_adder_waits_and_is_let_in_at_half_of_the_bound(self) -> None:
        core = started(4)
        for event in range(4):
            add(core, event, event)
        assert add(core, "x", "x", adder="me") is None
        core.check_invariants()
        item = core.take(0)
        core.wake()
        assert core.waiting == 3 > core.half == 2
        core.check_invariants()
        assert item
        core.next(0, item[0])
        assert core.waiting <= core.half
        assert core.admit() is False
        assert core.admitted == ["me"]
        assert core.withdraw("me") is False, "it was let in"
        assert core.waiting == 3
        core.check_invariants()

    def test_adders_are_let_in_first_come_first_served_and_nobody_passes_them(self) -> None:
        core = started(2)
        add(core, "a", 1)
        add(core, "a", 2)
        for name in ("first", "second", "third"):
            assert add(core, name, name, adder=name) is None
        core.take(0)
        core.wake()
        with pytest.raises(PoolFull):
            add(core, "b", "nowait")
        assert add(core, "b", "late", adder="late") is None
        core.admit()
        assert core.admitted == ["first"]
        assert list(core.adders) == ["second", "third", "late"]
        core.check_invariants()

    def test_adders_are_let_in_together(self) -> None:
        core = started(4)
        for event in range(4):
            add(core, "a", event)
        for name in ("first", "second", "third"):
            add(core, name, name, adder=name)
        core.take(0)
        core.next(0, "a")
        assert core.waiting == core.half == 2
        core.admit()
        assert core.admitted == ["first", "second"]
        core.check_invariants()

    def test_an_adder_that_gives_up_has_added_nothing(self) -> None:
        core = started(1)
        add(core, "a", 1)
        add(core, "a", 2, adder="one")
        add(core, "a", 3, adder="two")
        assert core.withdraw("one") is True
        assert core.limit == 0, "two still waits"
        assert core.withdraw("two") is True
        assert core.withdraw("two") is False
        core.check_invariants()
        assert run(core) == [1]
        assert add(core, "a", 4) is True

    def test_a_handler_is_let_in_over_the_bound(self) -> None:
        core = started(1)
        add(core, "a", 1)
        assert add(core, "a", 2, adder="me", inside=True) is False
        assert core.waiting == 2
        assert add(core, "a", 3, adder="other") is None
        assert add(core, "a", 4, adder="me", inside=True) is False
        core.check_invariants()

    def test_nowait_from_a_handler_says_full_too(self) -> None:
        core = started(1)
        add(core, "a", 1)
        with pytest.raises(PoolFull):
            add(core, "a", 2, inside=True)

    def test_letting_in_wakes_a_worker_that_sleeps(self) -> None:
        core = started(1, workers=2)
        add(core, "a", 1)
        add(core, "b", 2, adder="me")
        assert core.take(0) == ("a", 1)
        assert core.admit() is True
        core.check_invariants()

    def test_who_waits_with_a_key_that_cannot_be_hashed_hears_of_it_at_once(self) -> None:
        core = started(1)
        add(core, "a", 1)
        for adder in ("me", None):
            with pytest.raises(TypeError, match="unhashable"):
                add(core, [], 2, adder=adder)
        assert not core.adders

    def test_an_adder_whose_key_raises_is_refused_and_harms_no_other(self) -> None:
        class Key:
            broken = False

            def __hash__(self) -> int:
                if self.broken:
                    raise OSError("broken")
                return 1

        core = started(2)
        add(core, "a", 1)
        add(core, "a", 2)
        key = Key()
        add(core, key, 3, adder="broken")
        add(core, "b", 4, adder="other")
        key.broken = True
        core.take(0)
        core.admit()
        assert core.admitted == ["broken", "other"]
        assert core.withdraw("broken") is False
        assert isinstance(core.refused["broken"], OSError)
        assert core.added == 3
        core.check_invariants()

    def test_an_adder_that_is_interrupted_goes_back_to_the_front_of_the_list(self) -> None:
        class Interrupted(Dispatch[Any, Any]):
            def submit(self, key: Any, event: Any, force: bool = False) -> bool | None:
                if event == 3:
                    raise KeyboardInterrupt
                return super().submit(key, event, force)

        core = Interrupted(2)
        core.start(1)
        add(core, "a", 1)
        add(core, "a", 2)
        core.limit = 0
        core.adders.update(first=("b", 3, None), second=("c", 4, None))
        core.take(0)
        with pytest.raises(KeyboardInterrupt):
            core.admit()
        assert list(core.adders) == ["first", "second"]
        assert core.added == 2

    def test_a_worker_that_sleeps_lets_adders_in_before_half_is_free(self) -> None:
        """P3: there is room, and a worker for their keys."""
        core = started(8, workers=2)
        add(core, "slow", 0)
        core.take(0)
        for event in range(8):
            add(core, "slow", event)
        add(core, "quick", 1, adder="me")
        core.check_invariants()
        core.next(0, "slow")
        assert core.waiting == 7 > core.half
        assert core.asleep
        with pytest.raises(AssertionError, match="there is room"):
            core.check_invariants()
        assert core.admit() is True
        core.check_invariants()

    def test_a_closed_pool_lets_nobody_in(self) -> None:
        core = started(1)
        add(core, "a", 1)
        add(core, "b", 2, adder="me")
        core.take(0)
        core.drain()
        assert core.admit() is False
        assert core.withdraw("me") is True

    def test_an_interruption_before_an_adder_is_looked_at_leaves_it_listed(self) -> None:
        class Interrupted(OrderedDict[Any, Any]):
            def popitem(self, last: bool = True) -> Any:
                raise KeyboardInterrupt

        core = started(1)
        add(core, "a", 1)
        core.adders = Interrupted()
        add(core, "a", 2, adder="me")
        core.take(0)
        with pytest.raises(KeyboardInterrupt):
            core.admit()
        assert core.withdraw("me") is True

    def test_an_adder_that_was_let_in_is_told_whatever_comes_in_between(self) -> None:
        class Interrupted(Dispatch[Any, Any]):
            def submit(self, key: Any, event: Any, force: bool = False) -> bool | None:
                super().submit(key, event, force)
                if event == 2:
                    raise KeyboardInterrupt
                return False

        core = Interrupted(1)
        core.start(1)
        add(core, "a", 1)
        core.limit = 0
        core.adders["me"] = ("a", 2, None)
        core.take(0)
        with pytest.raises(KeyboardInterrupt):
            core.admit()
        assert core.withdraw("me") is False
        assert core.stop() == ["me"], "it is still to be told"

    def test_one_warning_when_half_of_the_bound_waits_behind_keys_in_flight(self) -> None:
        core = started(8, workers=2)
        add(core, "slow", 0)
        core.take(0)
        for event in range(1, 5):
            add(core, "slow", event)
            assert core.warning is None
        add(core, "other", 5)
        assert core.warning == Crowd("slow", 4, 4)
        core.warning = None
        for event in range(6, 9):
            add(core, "slow", event)
        assert core.warning is None, "it is said once"

    def test_half_of_the_bound_may_wait_behind_several_keys(self) -> None:
        core = started(8, workers=2)
        for key in ("slow", "slower"):
            add(core, key, 0)
        core.take(0), core.take(1)
        for key in ("slow", "slower", "slower", "slow", "other"):
            add(core, key, 1)
        assert core.warning == Crowd("slow", 2, 4)

    def test_no_warning_where_events_wait_for_workers_only(self) -> None:
        core = started(8, workers=1)
        for event in range(8):
            add(core, event, event)
        assert core.warning is None

    def test_a_key_that_grows_after_half_is_seen_at_a_later_look(self) -> None:
        """Long before the pool is full: at each eighth of the bound."""
        core = started(16, workers=2)
        add(core, "slow", 0)
        core.take(0)
        for event in range(4):
            add(core, f"other{event}", event)
        for event in range(8):
            add(core, "slow", event)
        assert core.warning is None
        add(core, "slow", 8)
        assert core.warning == Crowd("slow", 8, 8)

    def test_a_key_that_grows_to_the_last_is_seen_when_the_pool_is_full(self) -> None:
        core = started(16, workers=2)
        add(core, "slow", 0)
        core.take(0)
        for event in range(7):
            add(core, f"other{event}", event)
        for event in range(9):
            add(core, "slow", event)
        with pytest.raises(PoolFull):
            add(core, "slow", 9)
        assert core.warning == Crowd("slow", 9, 9)


class TestMaxLane:
    def test_a_full_lane_takes_no_more_and_the_others_do(self) -> None:
        core = started(max_lane=2)
        for event in range(3):
            assert add(core, "a", event) is not None
        with pytest.raises(PoolFull) as caught:
            add(core, "a", 3)
        assert str(caught.value) == (
            "a lane of pool 'p' is full (max_lane=2); the event was not added; "
            "3 of those that wait are of key 'a', which is ready"
        )
        assert (caught.value.key, caught.value.depth, caught.value.why) == ("a", 3, "ready")
        assert add(core, "b", 4) is not None
        assert core.waiting == 4

    def test_an_adder_waits_in_the_line_of_its_lane_and_comes_in_when_the_lane_moves_up(self) -> None:
        core = started(max_lane=1)
        for event in range(2):
            add(core, "a", event)
        for event in (2, 3):
            assert add(core, "a", event, adder=event) is None
        assert core.is_in_line(2, "a")
        assert not started().is_in_line(2, "a")
        assert not core.is_in_line(2, "b")
        assert not core.is_in_line(9, "a")
        assert core.take(0) == ("a", 0)
        core.wake()
        core.check_invariants()
        assert core.next(0, "a") == ("a", 1)
        core.heed("a")
        assert core.admitted == [2], "the first that came, and one place only"
        assert core.withdraw(2, "a") is False, "it was let in"
        core.check_invariants()
        assert core.next(0, "a") == ("a", 2)
        core.heed("a")
        assert core.admitted == [2, 3]
        core.check_invariants()
        assert core.notes == {}

    def test_a_line_holds_up_nobody_else(self) -> None:
        core = started(10, max_lane=1)
        for event in range(2):
            add(core, "a", event)
        add(core, "a", 2, adder="me")
        assert add(core, "b", 3) is not None
        assert core.adders == {}

    def test_whoever_comes_in_takes_the_place_of_what_left_also_in_a_full_pool(self) -> None:
        core = started(2, max_lane=1)
        for event in range(2):
            add(core, "a", event)
        add(core, "a", 2, adder="behind a")
        add(core, "b", 3, adder="for room")
        assert list(core.adders) == ["for room"]
        core.take(0)
        core.next(0, "a")
        core.heed("a")
        assert core.admitted == ["behind a"]
        assert core.waiting == 1

    def test_whoever_waits_for_room_finds_a_full_lane_and_goes_into_its_line(self) -> None:
        core = started(2, max_lane=1)
        add(core, "a", 0)
        add(core, "b", 1)
        add(core, "a", 2, adder="one")
        add(core, "a", 3, adder="two")
        add(core, "c", 4, adder="three")
        assert list(core.adders) == ["one", "two", "three"]
        assert run_one(core) == ("a", 0)
        core.admit()
        assert core.admitted == ["one"]
        assert core.next(0, "a") == ("b", 1)
        core.heed("a")
        core.next(0, "b")
        core.admit()
        assert core.admitted == ["one", "two", "three"]
        core.check_invariants()

    def test_room_in_the_pool_is_none_in_a_full_lane(self) -> None:
        core = started(2, workers=2, max_lane=1)
        add(core, "a", 0)
        add(core, "b", 1)
        add(core, "a", 2, adder="one")
        add(core, "a", 3, adder="two")
        assert core.take(0) == ("a", 0)
        core.admit()
        assert core.admitted == ["one"]
        assert core.take(1) == ("b", 1)
        core.admit()
        assert core.admitted == ["one"]
        assert core.is_in_line("two", "a")
        assert core.adders == {}
        core.check_invariants()

    def test_a_handler_goes_in_over_the_bound_of_a_lane(self) -> None:
        core = started(max_lane=1)
        for event in range(2):
            add(core, "a", event)
        assert add(core, "a", 2, adder="me", inside=True) is False
        assert len(core.lanes["a"] or ()) == 2
        with pytest.raises(PoolFull):
            add(core, "a", 3, inside=True)

    def test_who_gives_up_has_added_nothing_and_leaves_no_note(self) -> None:
        core = started(1, max_lane=1)
        for event in range(2):
            add(core, "a", event) if not event else core.submit("a", event, True)
        add(core, "a", 2, adder="behind")
        add(core, "b", 3, adder="for room")
        assert not core.is_in_line("for room", "b")
        assert core.withdraw("for room", "b") is True
        assert core.withdraw("behind", "a") is True
        assert core.withdraw("behind", "a") is False
        assert core.notes == {}
        core.check_invariants()

    @pytest.mark.parametrize("how", ["parked", "retrying"])
    def test_a_held_key_keeps_its_line(self, how: str) -> None:
        core = started(max_lane=1)
        for event in range(2):
            add(core, "a", event)
        item = run_one(core)
        core.failed(0, item, Park() if how == "parked" else 5.0, "no", 0.0)
        add(core, "a", 2, adder="one")
        add(core, "a", 3, adder="two")
        assert core.notes == {}
        assert core.is_in_line("one", "a")
        assert core.withdraw("one", "a") is True
        core.check_invariants()
        core.resume("a")
        core.wake()
        core.check_invariants()
        assert core.is_in_line("two", "a")
        core.take(0)
        core.next(0, "a")
        core.heed("a")
        assert core.admitted == ["two"]

    def test_skipping_the_head_of_a_held_key_lets_the_next_in(self) -> None:
        core = started(max_lane=1)
        for event in range(2):
            add(core, "a", event)
        core.failed(0, run_one(core), Park(), "no", 0.0)
        add(core, "a", 2, adder="me")
        core.skip_head("a", 1.0)
        assert core.admitted == ["me"]
        assert core.wake() is True
        core.check_invariants()

    @pytest.mark.parametrize("ending", [Dispatch.drain, Dispatch.stop])
    @pytest.mark.parametrize("held", [False, True])
    def test_who_waits_in_a_line_when_the_ending_comes_has_added_nothing(self, ending: Any, held: bool) -> None:
        """Also where the pool has ended before it looks: it was told, and is not the last to run."""
        core = started(max_lane=1)
        for event in range(2):
            add(core, "a", event)
        if held:
            core.failed(0, run_one(core), Park(), "no", 0.0)
        add(core, "a", 2, adder="me")
        assert ending(core) == ["me"]
        core.stop()
        core.leave(0)
        core.end()
        assert core.left == [("a", 0), ("a", 1)]
        assert core.withdraw("me", "a") is True

    def test_a_lane_that_moves_up_in_a_closed_pool_lets_nobody_in(self) -> None:
        core = started(max_lane=1)
        for event in range(2):
            add(core, "a", event)
        add(core, "a", 2, adder="me")
        run_one(core)
        core.drain()
        core.next(0, "a")
        core.heed("a")
        assert core.admitted == []
        assert core.withdraw("me", "a") is True

    def test_a_key_that_raises_in_the_line_is_refused_and_harms_no_other(self) -> None:
        class Key:
            broken = False

            def __hash__(self) -> int:
                if self.broken:
                    raise OSError("broken")
                return 1

            def __eq__(self, other: object) -> bool:
                return isinstance(other, Key)

        for waits in ("for room", "in line"):
            core = started(2 if waits == "for room" else None, max_lane=1)
            whole, broken = Key(), Key()
            add(core, whole, 0)
            add(core, whole, 1)
            add(core, broken, 2, adder="broken")
            add(core, whole, 3, adder="other")
            broken.broken = True
            core.take(0)
            core.next(0, whole)
            core.heed(whole)
            if waits == "for room":
                core.admit()
            assert core.admitted == ["broken", "other"]
            assert isinstance(core.refused["broken"], OSError)
            assert core.added == 3
            core.check_invariants()

    def test_an_adder_in_a_lane_that_has_room_is_seen_as_wrong(self) -> None:
        core = started(max_lane=1)
        for event in range(2):
            add(core, "a", event)
        add(core, "a", 2, adder="me")
        core.max_lane = 5
        with pytest.raises(AssertionError, match="its lane has room"):
            core.check_invariants()


def run_one(core: Dispatch[Any, Any], worker: int = 0) -> Any:
    """Let a worker take what is next."""
    item = core.take(worker)
    core.wake()
    return item


class TestPolicies:
    def test_a_failure_is_retried_at_its_time(self) -> None:
        core = started()
        add(core, "a", 1)
        assert core.failed(0, run_one(core), 5.0, "no", 100.0) is True
        assert core.explain("a").due == 105.0
        assert core.attempt("a") == 1, "of an event that is held nothing is known here"
        assert core.release(105.0) is True
        assert core.attempt("a") == 2
        core.check_invariants()

    def test_no_time_at_all_is_the_next_turn(self) -> None:
        core = started()
        add(core, "a", 1)
        assert core.failed(0, run_one(core), 0.0, "no", 100.0) is False
        assert core.explain("a").state == "ready"
        assert core.attempt("a") == 2
        assert core.wake() is True

    def test_it_is_skipped_or_parked(self) -> None:
        core = started()
        add(core, "a", 1)
        add(core, "b", 2)
        assert core.failed(0, run_one(core), Skip(), "no", 100.0) is False
        assert core.failed(0, run_one(core), Park(), "no", 100.0) is False
        core.check_invariants()
        stats = core.stats()
        assert (stats.dead, stats.parked, stats.waiting, stats.queued, stats.keys) == (1, 1, 1, 0, 1)

    def test_a_key_that_is_to_be_parked_is_parked_rather_than_retried(self) -> None:
        core = started()
        add(core, "a", 1)
        item = run_one(core)
        core.park("a", 99.0)
        assert core.failed(0, item, 5.0, "no", 100.0) is False
        assert core.explain("a").state == "parked"
        core.check_invariants()

    @pytest.mark.parametrize("decision", [5.0, Skip(), Park(), Fail()])
    def test_during_a_stop_what_fails_heads_its_key_and_is_returned(self, decision: Any) -> None:
        core = started()
        add(core, "a", 1)
        add(core, "a", 2)
        item = run_one(core)
        core.stop()
        core.failed(0, item, decision, "no", 100.0)
        core.check_invariants()
        core.leave(0)
        core.end()
        assert core.left == [("a", 1), ("a", 2)]
        assert core.stats().dead == 0

    def test_a_stop_returns_what_is_held_in_order_within_each_key(self) -> None:
        core = started()
        for key, event in (("a", 1), ("b", 2), ("a", 3), ("c", 4), ("b", 5)):
            add(core, key, event)
        core.failed(0, run_one(core), 5.0, "no", 100.0)
        core.failed(0, run_one(core), Park(), "no", 100.0)
        add(core, "b", 6)
        core.stop()
        core.leave(0)
        core.end()
        core.check_invariants()
        assert core.left == [("a", 1), ("a", 3), ("b", 2), ("b", 5), ("b", 6), ("c", 4)]

    def test_the_attempt_that_failed_the_pool_is_told(self) -> None:
        core = started()
        add(core, "a", 1)
        core.failed(0, run_one(core), 0.0, "no", 100.0)
        core.fail(0, run_one(core), ValueError())
        refusal = core.refusal("is over")
        assert isinstance(refusal, HandlerError)
        assert refusal.attempt == 2

    def test_whoever_else_serves_the_pool_can_fail_it_too(self) -> None:
        core = started()
        add(core, "a", 1)
        item = run_one(core)
        core.fail(-1, None, OSError("no time"))
        core.check_invariants()
        core.fail(0, item, ValueError())
        core.leave(0)
        core.end()
        assert core.left == [("a", 1)]
        assert core.failure is not None
        assert (core.failure.key, str(core.failure.error)) == (None, "no time")


class TestReplay:
    def buried(self, bound: int | None = None) -> tuple[Dispatch[Any, Any], Dead]:
        core = started(bound)
        add(core, "a", 1)
        core.failed(0, run_one(core), Skip(), "no", 100.0)
        [dead] = core.buried
        return core, dead

    def test_a_dead_event_is_added_once_more_as_a_new_one_at_the_end(self) -> None:
        core, dead = self.buried()
        add(core, "a", 2)
        core.waking = False
        assert core.replay(dead) is True
        assert core.unhandled() == [("a", 2), ("a", 1)]
        assert core.attempt("a") == 1
        stats = core.stats()
        assert (stats.added, stats.dead, stats.replayed, stats.dead_forgotten, stats.waiting) == (3, 1, 1, 0, 2)
        core.wake()
        core.check_invariants()

    def test_it_is_done_once(self) -> None:
        core, dead = self.buried()
        assert core.replay(dead) is True
        assert core.replay(dead) is False
        assert core.added == 2

    def test_the_wake_up_is_asked_for(self) -> None:
        core, dead = self.buried()
        core.replay(dead)
        assert core.wake() is True

    def test_where_it_cannot_be_added_it_is_still_among_the_dead(self) -> None:
        core, dead = self.buried(1)
        add(core, "b", 2)
        with pytest.raises(PoolFull):
            core.replay(dead)
        core.drain()
        with pytest.raises(PoolClosed):
            core.replay(dead)
        assert list(core.buried) == [dead]
        core.check_invariants()

    def test_one_that_is_cut_is_made_or_not(self) -> None:
        class Cut(Dispatch[Any, Any]):
            before = False

            def submit(self, key: Any, event: Any, force: bool = False) -> bool | None:
                if self.before:
                    raise KeyboardInterrupt
                super().submit(key, event, force)
                if event == "dead":
                    raise KeyboardInterrupt
                return False

        core = Cut()
        core.start(1)
        core.buried[Dead("a", "dead", 1, "no", 0.0, 0.0)] = None
        core.added = core.dead = 1
        [dead] = core.buried
        core.before = True
        with pytest.raises(KeyboardInterrupt):
            core.replay(dead)
        assert (core.added, core.replayed, list(core.buried)) == (1, 0, [dead])
        core.before = False
        with pytest.raises(KeyboardInterrupt):
            core.replay(dead)
        assert (core.added, core.replayed, list(core.buried)) == (2, 1, [])

    def test_where_half_of_the_bound_waits_it_is_added_up_to_the_bound(self) -> None:
        core, dead = self.buried(2)
        add(core, "b", 2)
        assert core.replay(dead) is True
        assert core.waiting == 2


class TestCrowd:
    def test_a_full_pool_names_the_deepest_held_key(self) -> None:
        core = started(6)
        for key, event in (("a", 1), ("b", 2), ("b", 3)):
            add(core, key, event)
        core.failed(0, run_one(core), 5.0, "no", 100.0)
        core.failed(0, run_one(core), Park(), "no", 100.0)
        for event in range(3):
            add(core, "c", event)
        with pytest.raises(PoolFull, match="2 of those that wait are of key 'b', which is parked"):
            add(core, "d", 1)
        assert core.crowd() == Crowd("b", 2, 3, "parked")
        core.resume("b")
        assert core.crowd() == Crowd("a", 1, 1, "retrying")
        core.release(200.0)
        assert core.crowd() == Crowd(None, 0, 0)

    def test_the_deepest_of_those_in_flight_and_those_held_is_named(self) -> None:
        core = started(10)
        for event in range(4):
            add(core, "a", event)
        add(core, "b", 0)
        core.failed(0, run_one(core), Park(), "no", 100.0)
        run_one(core)
        for event in range(3):
            add(core, "b", event)
        assert core.crowd() == Crowd("a", 4, 7, "parked")
        add(core, "b", 3)
        add(core, "b", 4)
        assert core.crowd() == Crowd("b", 5, 9, "in flight")

    def test_half_of_the_bound_behind_held_keys_is_warned_of(self) -> None:
        core = started(8)
        add(core, "a", 0)
        core.failed(0, run_one(core), Park(), "no", 100.0)
        for event in range(1, 5):
            add(core, "a", event)
        assert core.warning == Crowd("a", 4, 4, "parked")

    def test_where_many_keys_are_held_they_are_looked_at_again_only_as_their_number_changes(self) -> None:
        core = started(800)
        for key in range(201):
            add(core, key, 0)
        for _ in range(101):
            core.failed(0, run_one(core), Park(), "no", 100.0)
        before = core.crowd()
        assert (before.depth, before.blocked) == (1, 101)
        core.failed(0, run_one(core), Park(), "no", 100.0)
        add(core, 7, 1)
        assert core.crowd() is not before
        assert core.crowd() == before, "an eighth of the bound has neither come nor gone"
        for _ in range(99):
            core.failed(0, run_one(core), Park(), "no", 100.0)
        assert core.crowd() == Crowd(7, 2, 202, "parked")


class TestWatch:
    def test_each_delivery_that_is_seen_for_long_is_told_once(self) -> None:
        core = started(workers=2)
        for key in ("a", "a", "b"):
            add(core, key, key)
        run_one(core, 0)
        assert core.watch(100.0, 10.0) == []
        run_one(core, 1)
        assert core.watch(105.0, 10.0) == []
        assert core.watch(110.0, 10.0) == [(0, "a", 10.0)]
        assert core.watch(115.0, 10.0) == [(1, "b", 10.0)]
        assert core.watch(999.0, 10.0) == []
        core.check_invariants()

    def test_the_next_event_of_a_worker_is_a_delivery_of_its_own(self) -> None:
        core = started()
        add(core, "a", 1)
        add(core, "a", 2)
        run_one(core)
        core.watch(100.0, 10.0)
        core.next(0, "a")
        assert core.watch(110.0, 10.0) == []
        assert core.watch(120.0, 10.0) == [(0, "a", 10.0)]

    def test_a_look_changes_nothing_that_anybody_sees(self) -> None:
        core = started(workers=2)
        add(core, "a", 1)
        add(core, "a", 2)
        run_one(core)
        core.watch(100.0, 10.0)
        assert core.keys_in_flight() == ["a"]
        assert [core.key_at(worker) for worker in (0, 1)] == ["a", NOTHING]
        assert core.explain("a").state == "in flight"
        assert core.crowd() == Crowd("a", 1, 1)
        core.check_invariants()


class TestSettle:
    def test_parked_events_are_no_work_and_are_left_by_a_drain(self) -> None:
        core = started()
        add(core, "a", 1)
        add(core, "a", 2)
        core.failed(0, run_one(core), Park(), "no", 100.0)
        core.drain()
        assert core.settle()
        core.leave(0)
        core.end()
        assert core.left == [("a", 1), ("a", 2)]
        assert not core.stopped

    def test_a_retry_is_work(self) -> None:
        core = started()
        add(core, "a", 1)
        core.failed(0, run_one(core), 5.0, "no", 100.0)
        core.drain()
        assert not core.settle()
        core.park("a", 101.0)
        assert core.settle()

    def test_what_is_ready_and_to_be_parked_is_work_until_it_is(self) -> None:
        core = started()
        add(core, "a", 1)
        core.park("a", 100.0)
        core.drain()
        assert not core.settle()
        core.park_head(0, run_one(core), 100.0)
        assert core.settle()


class TestEndings:
    def test_a_draining_pool_refuses_outside_and_accepts_from_handlers(self) -> None:
        core = started(2)
        add(core, "a", 1)
        core.take(0)
        assert core.drain() == []
        assert not core.settle(), "its handler may still add"
        with pytest.raises(PoolClosed, match="pool 'p' takes no more events: it is draining"):
            add(core, "a", 2)
        assert add(core, "a", 3, inside=True) is False
        assert add(core, "a", 4, adder="me", inside=True) is False
        assert not core.settle()
        assert core.next(0, "a") == ("a", 3)
        assert core.next(0, "a") == ("a", 4)
        assert core.next(0, "a") is None
        assert core.settle()

    def test_the_adders_that_wait_are_told_and_have_added_nothing(self) -> None:
        for ending in (Dispatch.drain, Dispatch.stop):
            core = started(1)
            add(core, "a", 1)
            add(core, "a", 2, adder="me")
            assert ending(core) == ["me"]
            assert core.withdraw("me") is True
            assert core.limit == 0
            core.check_invariants()

    def test_the_audience_is_told_when_the_pool_closes_whoever_closes_it(self) -> None:
        closes: list[Any] = [Dispatch.drain, Dispatch.stop, lambda core: core.fail(0, core.take(0), ValueError())]
        for close in closes:
            core = started(1)
            core.audience += ["one", "other"]
            add(core, "a", 1)
            add(core, "a", 2, adder="me")
            assert close(core) == ["me", "one", "other"]

    def test_the_audience_is_told_once_more_at_each_call_and_no_more_once_it_has_left(self) -> None:
        core = started()
        core.audience.append("one")
        assert core.drain() == core.stop() == core.stop() == ["one"]
        core.audience.remove("one")
        assert core.stop() == []

    def test_a_stopping_pool_chooses_nothing_and_returns_the_rest_in_order_within_each_key(self) -> None:
        core = started(workers=2)
        for key, event in (("a", 1), ("b", 2), ("a", 3), ("c", 4), ("b", 5), ("a", 6)):
            add(core, key, event)
        core.take(0)
        core.wake()
        core.stop()
        with pytest.raises(PoolClosed, match="stopping"):
            add(core, "a", 7, adder="me", inside=True)
        assert core.take(1) is None
        assert core.next(0, "a") is None
        assert core.settle()
        assert core.leave(1) is False
        assert core.leave(1) is False, "a worker is counted out once"
        assert core.leave(0) is True
        assert core.left == []
        core.end()
        assert core.left == [("a", 3), ("a", 6), ("b", 2), ("b", 5), ("c", 4)]
        assert core.state is State.ENDED
        stats = core.stats()
        assert (stats.added, stats.handled, stats.returned, stats.waiting, stats.keys) == (6, 1, 5, 0, 0)
        core.check_invariants()

    def test_a_stop_overtakes_a_drain_and_a_drain_no_stop(self) -> None:
        core = started()
        add(core, "a", 1)
        core.drain()
        core.stop()
        assert core.state is State.STOPPING
        core.drain()
        assert core.state is State.STOPPING

    def test_an_ended_pool_stays_as_it_is(self) -> None:
        core = started()
        add(core, "a", 1)
        core.stop()
        core.leave(0)
        core.end()
        left = core.left
        core.stop()
        core.drain()
        core.end()
        assert core.state is State.ENDED
        assert core.left is left == [("a", 1)]

    def test_an_open_pool_is_never_finished(self) -> None:
        core = started()
        assert not core.settle()
        core.drain()
        assert core.settle()


class TestFailure:
    def test_the_event_that_failed_heads_its_key_and_the_pool_stops(self) -> None:
        core = started()
        for event in (1, 2, 3):
            add(core, "a", event)
        item = core.take(0)
        cause = ValueError("no")
        assert core.fail(0, item, cause) == []
        core.check_invariants()
        assert core.settle()
        core.leave(0)
        core.end()
        assert core.left == [("a", 1), ("a", 2), ("a", 3)]
        assert core.stats().handled == 0

    def test_each_later_call_gets_an_error_of_its_own(self) -> None:
        core = started()
        add(core, "a", 1)
        cause = ValueError("no")
        core.fail(0, core.take(0), cause)
        errors = []
        for _ in range(2):
            with pytest.raises(HandlerError, match=r"handler of key 'a' raised ValueError: no") as caught:
                add(core, "a", 2)
            errors.append(caught.value)
        first, second = errors
        assert first is not second
        assert first.__cause__ is cause
        assert (first.key, first.event, first.attempt, first.left) == ("a", 1, 1, [("a", 1)])
        core.leave(0)
        core.end()
        refusal = core.refusal("is over")
        assert isinstance(refusal, HandlerError)
        assert refusal.left is core.left

    def test_the_first_failure_is_the_one_that_is_told(self) -> None:
        core = started(workers=2)
        add(core, "a", 1)
        add(core, "b", 2)
        one, two = core.take(0), core.take(1)
        core.fail(1, two, ValueError("first"))
        core.fail(0, one, ValueError("second"))
        assert core.failure is not None
        assert core.failure.key == "b"
        core.leave(0)
        core.leave(1)
        core.end()
        assert core.left == [("a", 1), ("b", 2)]

    def test_a_failure_during_a_stop_only_returns_its_event(self) -> None:
        core = started()
        add(core, "a", 1)
        add(core, "a", 2)
        item = core.take(0)
        core.stop()
        core.fail(0, item, ValueError("no"))
        core.leave(0)
        core.end()
        assert core.failure is None
        assert core.left == [("a", 1), ("a", 2)]
        assert isinstance(core.refusal("x"), PoolClosed)

    def test_a_worker_that_broke_after_its_event_ended_has_handled_it(self) -> None:
        core = started()
        add(core, "a", 1)
        add(core, "a", 2)
        core.take(0)
        core.fail(0, None, KeyboardInterrupt(), ended=True)
        core.leave(0)
        core.end()
        assert core.left == [("a", 2)]
        stats = core.stats()
        assert (stats.handled, stats.returned, stats.in_flight, stats.waiting) == (1, 1, 0, 0)
        assert core.failure is not None
        assert core.failure.key == "a"

    def test_a_worker_that_broke_with_nothing_in_hand_fails_the_pool_too(self) -> None:
        core = started()
        add(core, "a", 1)
        core.fail(0, None, KeyboardInterrupt())
        core.check_invariants()
        core.leave(0)
        core.end()
        assert core.left == [("a", 1)]
        assert core.failure is not None
        assert core.failure.key is None


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (lambda core: setattr(core, "handled", 3), "miscounted"),
        (lambda core: setattr(core, "limit", 5), "others may pass"),
        (lambda core: setattr(core, "max_backlog", 3), "there is room"),
        (lambda core: setattr(core, "replayed", 1), "a dead event was miscounted"),
    ],
)
def test_the_invariants_see_what_is_wrong(harm: Any, message: str) -> None:
    core = started(2)
    for event in range(2):
        add(core, event, event)
    add(core, 2, 2, adder="me")
    harm(core)
    with pytest.raises(AssertionError, match=message):
        core.check_invariants()


def test_a_core_that_is_heard_keeps_the_news_until_the_driver_tells_them() -> None:
    core: Dispatch[str, int] = Dispatch(heard=True)
    core.start(1)
    assert core.news is not None
    assert core.submit("a", 0) is None, "each event is decided about by offer"
    for event in range(4):
        core.offer("a", event)
    item = core.take(0)
    assert item == ("a", 0)
    core.failed(0, item, Skip(), "no", 0.0)
    core.failed(0, core.take(0) or item, Park(), "no", 0.0)
    core.skip_head("a", 0.0)
    core.failed(0, core.take(0) or item, 5.0, "no", 0.0)
    core.park("a", 0.0)
    told = [(name, getattr(what, "event", what)) for name, what in core.news]
    assert told == [("dead", 0), ("parked", "a"), ("dead", 1), ("parked", "a")]
    core.offer("b", 9)
    assert core.limit == 0, "and so it stays"
    unheard: Dispatch[str, int] = Dispatch()
    assert unheard.news is None
