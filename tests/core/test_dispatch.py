"""What the dispatch adds to the lanes: the bound and its adders, the endings, the failure."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import pytest

from workpool.dispatch import Crowd, Dispatch, State
from workpool.errors import HandlerError, PoolClosed, PoolFull


def add(core: Dispatch[Any, Any], key: Any, event: Any, adder: object = None, inside: bool = False) -> bool | None:
    """The two calls of a driver."""
    wake = core.submit(key, event)
    return core.offer(key, event, adder, inside) if wake is None else wake


def started(bound: int | None = None, workers: int = 1) -> Dispatch[Any, Any]:
    core: Dispatch[Any, Any] = Dispatch(bound, "p")
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
        with pytest.raises(PoolFull, match=r"2 of those that wait are behind key 'b', which is in flight") as caught:
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
        core.adders.update(first=("b", 3), second=("c", 4))
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
        core.adders["me"] = ("a", 2)
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


class TestEndings:
    def test_a_draining_pool_refuses_outside_and_accepts_from_handlers(self) -> None:
        core = started(2)
        add(core, "a", 1)
        core.take(0)
        assert core.drain() == []
        assert not core.finished, "its handler may still add"
        with pytest.raises(PoolClosed, match="pool 'p' takes no more events: it is draining"):
            add(core, "a", 2)
        assert add(core, "a", 3, inside=True) is False
        assert add(core, "a", 4, adder="me", inside=True) is False
        assert not core.finished
        assert core.next(0, "a") == ("a", 3)
        assert core.next(0, "a") == ("a", 4)
        assert core.next(0, "a") is None
        assert core.finished

    def test_the_adders_that_wait_are_told_and_have_added_nothing(self) -> None:
        for ending in (Dispatch.drain, Dispatch.stop):
            core = started(1)
            add(core, "a", 1)
            add(core, "a", 2, adder="me")
            assert ending(core) == ["me"]
            assert core.withdraw("me") is True
            assert core.limit == 0
            core.check_invariants()

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
        assert core.finished
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
        assert not core.finished
        core.drain()
        assert core.finished


class TestFailure:
    def test_the_event_that_failed_heads_its_key_and_the_pool_stops(self) -> None:
        core = started()
        for event in (1, 2, 3):
            add(core, "a", event)
        item = core.take(0)
        cause = ValueError("no")
        assert core.fail(0, item, cause) == []
        core.check_invariants()
        assert core.finished
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
