"""One call at a time, on a dispatch that keeps at most one waiting event of a key."""

from __future__ import annotations

from typing import Any

import pytest

from workpool.coalescing import Coalescing
from workpool.envelope import Envelope, opened
from workpool.errors import PoolClosed
from workpool.policy import Park, Skip

Core = Coalescing[Any, Any]


def make(*events: tuple[Any, Any], workers: int = 1, **options: Any) -> Core:
    """A core that was started, with events."""
    core = Core(asked=True, heard=True, **options)
    core.start(workers)
    for key, event in events:
        add(core, key, event)
    return core


def add(core: Core, key: Any, event: Any, late: Any = None) -> bool | None:
    """Add as a driver does."""
    envelope = Envelope(event)
    wake = core.accept(key, envelope, late)
    if wake is None:
        wake = core.offer(key, envelope, "adder", False, late)
    core.check_invariants()
    return wake


def start(core: Core) -> tuple[Any, Any]:
    """Let the worker take an event and begin to handle it."""
    item = core.take(0)
    assert item is not None
    core.open(*item)
    core.check_invariants()
    return item


def fail(core: Core, item: Any, decision: Any) -> None:
    core.failed(0, item, decision, "no", 1.0)
    core.wake()
    core.check_invariants()


def waiting(core: Core) -> list[tuple[Any, Any]]:
    return core.unhandled()


class TestAdding:
    def test_the_first_event_of_a_key_waits(self) -> None:
        core = make(("a", 1))
        assert (core.added, core.merged, core.waiting) == (1, 0, 1)
        assert {key: opened(event) for key, event in core.latest.items()} == {"a": 1}

    def test_a_newer_one_is_put_into_its_envelope(self) -> None:
        core = make(("a", 1), ("b", 2), ("a", 3))
        assert waiting(core) == [("a", 3), ("b", 2)]
        assert (core.added, core.merged, core.waiting) == (3, 1, 2)
        assert [opened(each) for each in core.rubbish] == [1]
        assert list(core.news or ()) == [("merged", "a", 1)]

    def test_nothing_is_put_into_one_that_was_opened(self) -> None:
        core = make(("a", 1))
        item = start(core)
        assert core.latest == {}
        add(core, "a", 2)
        add(core, "a", 3)
        assert opened(item[1]) == 1
        assert waiting(core) == [("a", 3)]

    def test_one_that_was_chosen_and_not_opened_is_still_in_time(self) -> None:
        core = make(("a", 1))
        item = core.take(0)
        assert item is not None
        add(core, "a", 2)
        assert waiting(core) == []
        core.open(*item)
        assert opened(item[1]) == 2

    def test_but_not_for_a_delay(self) -> None:
        core = make(("a", 1))
        item = core.take(0)
        assert item is not None
        add(core, "a", 2, (0.0, 5.0))
        core.open(*item)
        core.check_invariants()
        assert (opened(item[1]), waiting(core)) == (1, [("a", 2)])
        assert core.latest["a"].event == 2

    def test_a_full_pool_takes_it(self) -> None:
        core = make(("a", 1), max_backlog=1)
        assert add(core, "b", 2) is None
        assert add(core, "a", 3) is False
        assert waiting(core) == [("a", 3)]

    def test_who_waits_for_room_waits_for_no_lane(self) -> None:
        """One that could merge at once does not wait until the event in flight has ended."""
        core = make(("a", 1), max_backlog=2, max_lane=1, workers=2)
        start(core)
        add(core, "b", 2)
        add(core, "c", 3)
        assert add(core, "a", 4) is None
        core.offer("a", Envelope(5), "inside", True)
        item = core.take(1)
        assert item is not None
        core.open(*item)
        assert core.next(1, "b") is not None
        core.wake()
        core.admit()
        assert core.admitted == ["adder"]
        assert waiting(core) == [("a", 4)]
        core.check_invariants()

    def test_a_closed_pool_does_not_but_from_inside_a_drain(self) -> None:
        core = make(("a", 1))
        core.drain()
        with pytest.raises(PoolClosed):
            add(core, "a", 2)
        assert core.offer("a", Envelope(3), None, True) is False
        core.stop()
        with pytest.raises(PoolClosed):
            core.offer("a", Envelope(4), None, True)
        assert waiting(core) == [("a", 3)]

    def test_what_is_told_is_whether_to_wake(self) -> None:
        core = make(("a", 1))
        item = start(core)
        fail(core, item, 5.0)
        assert core.waking is False
        assert add(core, "a", 2) is True


class Hostile:
    """A key that cannot be compared."""

    def __hash__(self) -> int:
        return 1

    def __eq__(self, other: object) -> bool:
        raise OSError("not to be compared")


class TestAKeyThatRaises:
    def test_it_is_not_accepted(self) -> None:
        core = make((1, 1))
        with pytest.raises(OSError, match="compared"):
            core.accept(Hostile(), Envelope(2), None, True)
        core.check_invariants()
        assert waiting(core) == [(1, 1)]

    def test_an_event_that_came_in_is_kept(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Cut after it was accepted, and before its envelope is entered."""
        core = make()

        class Cut(Core):
            __slots__ = ()

            def submit(self, key: Any, event: Any, force: bool = False) -> bool | None:
                super().submit(key, event, force)
                raise KeyboardInterrupt

        core.__class__ = Cut
        with pytest.raises(KeyboardInterrupt):
            core.accept("a", Envelope(1), None, True)
        core.__class__ = Coalescing
        core.check_invariants()
        add(core, "a", 2)
        assert waiting(core) == [("a", 2)]

    def test_one_that_did_not_come_in_is_not(self) -> None:
        core = make()

        class Cut(Core):
            __slots__ = ()

            def submit(self, key: Any, event: Any, force: bool = False) -> bool | None:
                raise KeyboardInterrupt

        core.__class__ = Cut
        with pytest.raises(KeyboardInterrupt):
            core.accept("a", Envelope(1), None, True)
        assert core.latest == {}

    @pytest.mark.parametrize("where", ["it is told", "the key is let go"])
    def test_a_merge_that_is_cut_is_whole(self, where: str) -> None:
        core = make(("a", 1))
        fail(core, start(core), 5.0)
        cuts: list[Any] = []

        class Cut(Core):
            __slots__ = ()

            def _say(self, hook: str, *what: Any) -> None:
                if where == "it is told":
                    raise KeyboardInterrupt

            def _let_go(self, held: Any) -> None:
                if where == "the key is let go" and not cuts:
                    cuts.append(held)
                    raise KeyboardInterrupt
                super()._let_go(held)

        core.__class__ = Cut
        with pytest.raises(KeyboardInterrupt):
            core.accept("a", Envelope(2), None, True)
        core.__class__ = Coalescing
        assert core.wake()
        core.check_invariants()
        assert (waiting(core), core.retrying, core.merged) == ([("a", 2)], {}, 1)


class TestWhatTheOlderWaitedFor:
    def test_a_retry(self) -> None:
        core = make(("a", 1))
        fail(core, start(core), 5.0)
        assert (core.attempt("a"), list(core.retrying)) == (1, ["a"])
        add(core, "a", 2)
        told = core.explain("a")
        assert (told.state, told.attempt, told.error) == ("ready", 1, "")
        assert core.notes == {}

    def test_a_retry_whose_turn_has_come(self) -> None:
        core = make(("a", 1))
        fail(core, start(core), 5.0)
        core.release(6.0)
        assert core.attempt("a") == 2
        add(core, "a", 2)
        assert core.attempt("a") == 1

    def test_a_retry_for_a_newer_one_with_a_delay(self) -> None:
        core = make(("a", 1))
        fail(core, start(core), 5.0)
        add(core, "a", 2, (1.0, 3.0))
        assert (list(core.retrying), list(core.delayed)) == ([], ["a"])
        assert core.alarm == 3.0
        core.release(3.0)
        assert opened(start(core)[1]) == 2

    def test_a_delay(self) -> None:
        core = make()
        add(core, "a", 1, (0.0, 5.0))
        add(core, "a", 2)
        assert core.delayed == {}
        assert opened(start(core)[1]) == 2

    def test_a_delay_for_another(self) -> None:
        core = make()
        for event in range(100):
            add(core, "a", event, (0.0, 5.0 + event))
        assert (core.merged, core.delayed["a"].due) == (99, 104.0)
        assert len(core.timers) < 30
        core.release(103.0)
        assert core.take(0) is None
        core.release(104.0)
        core.asleep = 1
        assert opened(start(core)[1]) == 99

    def test_a_delay_behind_one_in_flight(self) -> None:
        core = make(("a", 1))
        item = start(core)
        add(core, "a", 2, (0.0, 50.0))
        add(core, "a", 3)
        assert core.notes == {}
        add(core, "a", 4, (0.0, 60.0))
        found = core.next(0, item[0])
        core.heed("a")
        assert found is not None
        assert core.put_off(0, found, 1.0)
        assert core.delayed["a"].due == 60.0

    def test_a_park(self) -> None:
        core = make(("a", 1))
        fail(core, start(core), Park())
        add(core, "a", 2)
        told = core.explain("a")
        assert (told.state, told.attempt) == ("parked", 1)
        add(core, "a", 3, (0.0, 9.0))
        core.resume("a")
        found = core.take(0)
        assert found is not None
        assert core.put_off(0, found, 1.0)
        core.check_invariants()

    def test_a_park_with_a_delay_that_is_over_for_a_newer_one(self) -> None:
        core = make(("a", 1))
        fail(core, start(core), Park())
        add(core, "a", 2, (0.0, 9.0))
        add(core, "a", 3)
        core.resume("a")
        assert opened(start(core)[1]) == 3


class TestFailing:
    def test_it_waits_again(self) -> None:
        core = make(("a", 1))
        fail(core, start(core), 0.0)
        assert core.latest["a"].event == 1
        assert core.attempt("a") == 2

    def test_with_a_newer_one_behind_it_is_merged(self) -> None:
        core = make(("a", 1))
        item = start(core)
        core.mark("a", "of the first")
        add(core, "a", 2)
        core.mark("a", "of both")
        fail(core, item, 5.0)
        assert (waiting(core), core.merged, core.retrying) == ([("a", 2)], 1, {})
        assert core.notes["a"].marks == {"of the first": 1, "of both": 1}
        assert core.attempt("a") == 1

    def test_or_skipped(self) -> None:
        core = make(("a", 1))
        item = start(core)
        add(core, "a", 2)
        fail(core, item, Skip())
        assert [dead.event for dead in core.buried] == [1]
        assert (waiting(core), core.merged) == ([("a", 2)], 0)

    def test_or_the_newer_one_is_parked(self) -> None:
        core = make(("a", 1))
        item = start(core)
        add(core, "a", 2)
        fail(core, item, Park())
        assert core.is_to_park("a")

    @pytest.mark.parametrize("decision", [5.0, 0.0, Skip(), Park()])
    def test_in_a_stop_the_newest_is_left(self, decision: Any) -> None:
        core = make(("a", 1), ("b", 9))
        item = start(core)
        add(core, "a", 2)
        core.stop()
        fail(core, item, decision)
        core.end()
        assert sorted(core.left) == [("a", 2), ("b", 9)]
        assert core.latest == {}
        core.check_invariants()


class TestSkippingByHand:
    def test_what_was_skipped_takes_nothing_more(self) -> None:
        core = make(("a", 1))
        fail(core, start(core), Park())
        dead = core.skip_head("a", 2.0)
        assert dead is not None
        assert dead.event == 1
        assert core.latest == {}
        add(core, "a", 2)
        assert waiting(core) == [("a", 2)]

    def test_a_key_that_is_not_held_is_not_skipped(self) -> None:
        core = make(("a", 1))
        assert core.skip_head("a", 2.0) is None
        add(core, "a", 2)
        assert waiting(core) == [("a", 2)]

    @pytest.mark.parametrize("gone", [False, True])
    def test_cut_it_is_as_before_or_gone(self, gone: bool) -> None:
        core = make(("a", 1))
        fail(core, start(core), Park())

        class Cut(Core):
            __slots__ = ()

            def _where(self, held: Any) -> Any:
                if not gone:
                    raise KeyboardInterrupt
                return super()._where(held)

            def _say(self, hook: str, *what: Any) -> None:
                raise KeyboardInterrupt

        core.__class__ = Cut
        with pytest.raises(KeyboardInterrupt):
            core.skip_head("a", 2.0)
        core.__class__ = Coalescing
        core.check_invariants()
        add(core, "a", 2)
        assert waiting(core) == [("a", 2)]
        assert core.merged == (not gone)


def test_when_nothing_waits_any_more_the_dict_shrinks() -> None:
    core = make(*((key, 0) for key in range(1000)))
    large = core.latest
    for _ in range(1000):
        item = start(core)
        core.finish(0)
        core.asleep = 1
        del core.lanes[item[0]]
    assert core.latest == {}
    assert core.latest is not large
