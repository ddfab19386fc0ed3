"""Each feature with each failure policy and each ending: one place for each event, in order, and counts that add up."""

from __future__ import annotations

import threading
from collections import Counter
from contextlib import suppress
from contextvars import ContextVar, copy_context
from typing import Any

import pytest

from support import PATIENCE, Driver, Heard, adds_up, eventually, in_thread
from workpool import DrainIncomplete, Fail, FlushIncomplete, HandlerError, Park, PoolClosed, Retry, Skip
from workpool.handlers import Delivery

FEATURES: dict[str, dict[str, Any]] = {
    "delay": {}, "flush": {}, "hooks": {}, "coalesce": {"coalesce": "latest"}, "max_burst": {"max_burst": 2},
    "batch": {"batch": 2}, "timing": {"timing": True}, "contextvars": {"contextvars": True},
}  # fmt: skip
POLICIES = {
    "fail": Fail(), "skip": Skip(), "park": Park(), "retry-skip": Retry(attempts=2, base=0, then=Skip()),
    "retry-park": Retry(attempts=2, base=0, then=Park()),
}  # fmt: skip
ENDINGS = ["drain", "stop", "stop in a handler", "error in a block"]
LAST = 3
WHOSE: ContextVar[str] = ContextVar("WHOSE", default="nobody's")

pytestmark = [pytest.mark.parametrize(name, values) for name, values in [
    ("ending", ENDINGS), ("policy", POLICIES), ("feature", FEATURES),
]]  # fmt: skip


class Play:
    """Three keys with four events each, of which the last fails: of "a" always, of "b" once; that of "c" stands still.

    Meanwhile one more is added to each.
    """

    def __init__(self, driver: Driver, feature: str, policy: str, ending: str) -> None:
        self.feature, self.policy, self.ending = feature, policy, ending
        self.heard = Heard()
        self.handled: list[tuple[str, int]] = []
        self.inside, self.open = threading.Event(), threading.Event()
        hooks = self.heard if feature == "hooks" else None
        self.pool = driver.pool(self.handle, workers=2, on_failure=POLICIES[policy], hooks=hooks, **FEATURES[feature])
        self.accepted: list[tuple[str, int]] = []
        for event in range(LAST + 1):
            self.add(event)

    def add(self, event: int) -> None:
        delay = {"delay": 0.001} if self.feature == "delay" and event in (1, LAST + 1) else {}
        for key in "abc":
            context = copy_context()
            context.run(WHOSE.set, key)
            context.run(self.pool.add, key, event, **delay)
            self.accepted.append((key, event))

    def handle(self, given: Any, delivery: Delivery) -> int | None:
        assert (delivery.age is not None) == (self.feature == "timing")
        assert (WHOSE.get() == delivery.key) == (self.feature == "contextvars")
        events = given if isinstance(given, list) else [given]
        if delivery.key == "a" and LAST in events:
            raise ValueError
        for done, event in enumerate(events):
            if delivery.key == "b" and event == LAST and delivery.attempt == 1:
                if self.feature == "batch":
                    return done
                raise ValueError
            if delivery.key == "c" and event == LAST:
                self.stand_still()
            self.handled.append((str(delivery.key), event))
        return None

    def stand_still(self) -> None:
        if self.ending == "stop in a handler":
            self.pool.stop()
        self.inside.set()
        assert self.open.wait(PATIENCE)

    def wait(self) -> None:
        """Until the handler of "c" stands still, or the pool has failed."""
        eventually(lambda: self.inside.is_set() or "open" not in repr(self.pool))

    def add_more(self) -> None:
        self.wait()
        with suppress(PoolClosed, HandlerError):
            self.add(LAST + 1)

    def end(self) -> BaseException | None:
        """What the ending has raised."""
        try:
            if self.ending == "error in a block":
                with suppress(KeyError), self.pool:
                    self.add_more()
                    self.open.set()
                    raise KeyError
                return None
            self.pool.start()
            self.add_more()
            ended = in_thread(lambda: (self.pool.stop if self.ending == "stop" else self.pool.drain)(PATIENCE))
            self.open.set()
            ended()
        except (DrainIncomplete, HandlerError) as error:
            return error
        return None

    def run(self) -> BaseException | None:
        flushed = in_thread(self.flush) if self.feature == "flush" else None
        raised = self.end()
        if flushed:
            flushed()
        return raised

    def flush(self) -> None:
        self.wait()
        with suppress(FlushIncomplete, PoolClosed, HandlerError):  # As its page says; and it is over by the ending.
            self.pool.flush(timeout=PATIENCE)


def test_each_event_is_in_one_place_and_in_order(driver: Driver, feature: str, policy: str, ending: str) -> None:
    play = Play(driver, feature, policy, ending)
    raised = play.run()
    pool, stats = play.pool, play.pool.stats()
    dead, left = [(dead.key, dead.event) for dead in pool.dead()], list(pool.left)

    places = Counter([*play.handled, *dead, *left])
    merged = [each for each in play.accepted if each not in places]
    assert max(places.values()) == 1
    assert len(play.accepted) == stats.added
    assert len(merged) == stats.merged <= (12 if feature == "coalesce" else 0)
    assert not set(dict(play.accepted).items()) & set(merged), "the newest is never merged"
    assert adds_up(stats)
    assert (stats.in_flight, stats.waiting, stats.keys) == (0, 0, 0)
    for key in "abc":
        told = [event for its, event in [*play.handled, *left] if its == key]
        assert told == sorted(told), "what was handled, and then what is left, is in order"

    if ending == "drain" and policy != "fail":
        parked = {"a": policy.endswith("park"), "b": policy == "park", "c": False}
        held = {key for key, _ in left}
        # A newer event takes the place of one that would have failed, or is to be retried.
        assert all(key in held or feature == "coalesce" for key in "abc" if parked[key])
        assert all(parked[key] for key in held)
        assert isinstance(raised, DrainIncomplete) == bool(left)
    if policy == "fail" and ending == "drain":
        assert isinstance(raised, HandlerError)
    if feature == "hooks":
        names = Counter(play.heard.names())
        assert names["started"] == names["succeeded"] + names["failed"]
        assert (names["succeeded"], names["dead"]) == (stats.handled, stats.dead)
        assert play.heard.last == [stats]
