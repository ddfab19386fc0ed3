"""The meter counts what a look at the whole history would count."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workpool.cli import meter as module
from workpool.cli.meter import Meter


def test_an_event_overtakes_while_an_earlier_one_has_not_started() -> None:
    meter = Meter()
    first, second, third = meter.add("a"), meter.add("a"), meter.add("b")
    meter.start("a", first)
    assert meter.overtakes == 0
    meter.start("b", third)
    assert meter.overtakes == 1
    meter.start("a", second)
    assert meter.overtakes == 1


def test_the_deepest_lane_is_remembered_and_seen_now() -> None:
    meter = Meter()
    for _ in range(3):
        meter.add("a")
    meter.add("b")
    assert (meter.deepest, meter.deepest_now()) == (3, 3)
    meter.end("a")
    meter.end("a")
    assert (meter.deepest, meter.deepest_now()) == (3, 1)
    meter.end("a")
    meter.end("b")
    assert (meter.deepest, meter.deepest_now()) == (3, 0)


def test_distinct_keys_are_counted_up_to_the_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_KEYS", 3)
    meter = Meter()
    for key in "aabbccddee":
        meter.start(key, meter.add(key))
        meter.end(key)
    assert meter.keys == 3


@given(st.lists(st.tuples(st.sampled_from("abc"), st.booleans()), max_size=60))
def test_it_counts_as_the_history_does(steps: list[tuple[str, bool]]) -> None:
    meter, waiting, deepest, overtakes = Meter(), list[tuple[int, str]](), 0, 0
    for key, adds in steps:
        mine = [each for each in waiting if each[1] == key]
        if adds:
            waiting.append((meter.add(key), key))
            deepest = max(deepest, len(mine) + 1)
        elif mine:
            overtakes += mine[0] != min(waiting)
            waiting.remove(mine[0])
            meter.start(key, mine[0][0])
            meter.end(key)
    assert (meter.overtakes, meter.deepest) == (overtakes, deepest)
