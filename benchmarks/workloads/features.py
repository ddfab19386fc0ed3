"""What each feature costs, where it is used and where it is not."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from benchmarks.measure import Sample, Table, in_rounds
from benchmarks.workloads.common import Scale, do_nothing, spread_keys
from workpool import Delivery, EventWorkerPool, Hooks, Retry, RetryAfter

Pool = EventWorkerPool[str, Any]
Make = Callable[[], Pool]

UNUSED = "`on_failure=Retry()`, nothing fails"
PARKED = "another key is parked"
RETRYING = "another key waits for its retry"
BESIDE = (UNUSED, PARKED, RETRYING)
"""The features of which no event that is measured makes use."""

_HELD = "held"


class _Nothing(Hooks):
    pass


@dataclass(frozen=True, slots=True)
class Feature:
    """A pool with a feature, and what it is compared to."""

    make: Make
    plain: Make
    retrying: int = 0
    """How many keys wait for a retry before the clock starts."""
    share: int = 1
    """One event in so many is added from outside, and the rest by the handler."""


def measure(scale: Scale) -> Table:
    events = [(key, key) for key in spread_keys(scale.events // 4)]

    def run(row: str, feature: Feature) -> list[Sample]:
        base = _time(feature.plain, events)
        return [Sample(row, "an event", _time(feature.make, events, feature.retrying, feature.share), base)]

    logging.getLogger("workpool").setLevel(logging.CRITICAL)  # The failure that is retried would be logged.
    cells = in_rounds("features", [partial(run, *each) for each in _list_features().items()], scale.short_rounds)
    about = (
        f"{len(events):,} events over 1,000 keys, in turn, added one by one to a pool with 8 workers and the default "
        f"bound, which differs from a plain one in this alone. The baseline is a plain pool, measured just before. Its "
        f"handler does nothing; beside a retry it compares the event first, as the other's has to. How far the first "
        f"row is from 1 is how far any may be by chance; under 1 is cheaper than plain."
    )
    return Table("features", "What each feature costs", about, "ns an event", "", "plain pool", cells)


def _list_features() -> dict[str, Feature]:
    plain = partial(_make, do_nothing)
    return {
        "nothing, once more": Feature(plain, plain),
        "the handler takes the delivery": Feature(partial(_make, _take_delivery), plain),
        "the handler is C: `deque(maxlen=0).append`": Feature(partial(_make, deque[Any](maxlen=0).append), plain),
        "the handler adds every second event": Feature(_make_following, plain, share=2),
        UNUSED: Feature(partial(_make, do_nothing, on_failure=Retry()), plain),
        PARKED: Feature(_make_parked, plain),
        RETRYING: Feature(_make_retrying, partial(_make, _retry_held), retrying=1),
        "`max_lane=1000`, not reached": Feature(partial(_make, do_nothing, max_lane=1000), plain),
        "`warn_after=None`": Feature(partial(_make, do_nothing, warn_after=None), plain),
        "`hooks=`, of which none is defined": Feature(partial(_make, do_nothing, hooks=_Nothing()), plain),
        '`coalesce="latest"`': Feature(partial(_make, do_nothing, coalesce="latest"), plain),
        "`batch=100`": Feature(partial(_make, do_nothing, batch=100), plain),
        "`max_burst=100`": Feature(partial(_make, do_nothing, max_burst=100), plain),
        "`timing=True`": Feature(partial(_make, do_nothing, timing=True), plain),
        "`contextvars=True`": Feature(partial(_make, do_nothing, contextvars=True), plain),
    }


def _time(make: Make, events: Sequence[tuple[str, str]], retrying: int = 0, share: int = 1) -> float:
    pool = make().start()
    while pool.stats().retrying < retrying:
        time.sleep(0.001)
    begin = time.perf_counter_ns()
    add = pool.add
    for key, event in events[: len(events) // share]:
        add(key, event)
    while (stats := pool.stats()).handled + stats.merged < len(events):
        time.sleep(0.0002)
    elapsed = time.perf_counter_ns() - begin
    pool.stop()
    return elapsed / len(events)


def _make(handler: Callable[..., object], **arguments: Any) -> Pool:
    return EventWorkerPool(handler, workers=8, **arguments)


def _make_following() -> Pool:
    def follow(event: str | None) -> None:
        if event is not None:
            add(event, None)

    pool = _make(follow)
    add = pool.add
    return pool


def _make_parked() -> Pool:
    pool = _make(do_nothing)
    pool.add(_HELD, _HELD)
    pool.park(_HELD)
    return pool


def _make_retrying() -> Pool:
    pool = _make(_retry_held)
    pool.add(_HELD, _HELD)
    return pool


def _take_delivery(event: str, delivery: Delivery) -> None:
    pass


def _retry_held(event: str) -> None:
    if event is _HELD:
        raise RetryAfter(3600)
