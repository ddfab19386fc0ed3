"""The clock for tests: it stands still, and wakes whoever waits for a time that has come, and nobody else."""

from __future__ import annotations

from functools import partial

from workpool.testing import FakeClock


def test_it_shows_what_it_is_told() -> None:
    clock = FakeClock(100.0)
    clock.advance(2.5)
    clock.advance(0)
    assert clock.now() == 102.5


def test_a_time_that_has_come_is_not_waited_for() -> None:
    clock, rung = FakeClock(100.0), []
    assert clock.pause(100.0, lambda: rung.append(1)) == clock.pause(99.0, lambda: rung.append(2)) == 0
    clock.advance(1)
    assert rung == []


def test_whoever_waits_is_called_at_the_time_and_not_before() -> None:
    clock, rung = FakeClock(), list[float]()
    for until in (5.0, 10.0):
        assert clock.pause(until, partial(rung.append, until)) is None
    clock.advance(4.9)
    assert rung == []
    clock.advance(0.1)
    assert rung == [5]
    clock.advance(100)
    assert rung == [5, 10]
