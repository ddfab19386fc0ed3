"""Healthy events beside keys that back off."""

from __future__ import annotations

import logging
import time
from functools import partial
from typing import Any

from benchmarks.measure import Sample, Table, in_rounds
from benchmarks.subjects import UNBOUNDED
from benchmarks.workloads.common import Scale, spread_keys
from workpool import EventWorkerPool, RetryAfter

BACKING_OFF = (0, 1_000, 10_000, 100_000)
RETRIED = -1
_HOUR = 3600


def measure(scale: Scale) -> Table:
    events = [(key, number) for number, key in enumerate(spread_keys(scale.events))]

    def time_healthy(backing_off: int) -> float:
        pool = EventWorkerPool[str, int](_handle, workers=8, max_backlog=None).start()
        for number in range(backing_off):
            pool.add(f"failing-{number}", RETRIED)
        while pool.stats().retrying < backing_off:
            time.sleep(0.01)
        begin = time.perf_counter_ns()
        for key, event in events:
            pool.add(key, event)
        while pool.stats().handled < len(events):
            time.sleep(0.001)
        elapsed = time.perf_counter_ns() - begin
        assert len(pool.stop()) == backing_off
        return elapsed / len(events)

    def run(backing_off: int) -> list[Sample]:
        base = time_healthy(0)
        return [Sample(UNBOUNDED, backing_off, time_healthy(backing_off), base)]

    logging.getLogger("workpool").setLevel(logging.CRITICAL)  # Each failure would be logged.
    about = (
        f"{len(events):,} events over 1,000 healthy keys, handled by 8 workers, while N other keys wait an hour for "
        f"the retry of their event. The baseline is the same without them: a ratio of 1.1 is a cost of a tenth."
    )
    cells = in_rounds("retries", [partial(run, number) for number in BACKING_OFF], scale.backlog_rounds)
    return Table("retries", "Healthy keys beside keys that back off", about, "ns an event", "N =", "N = 0", cells)


def _handle(event: Any) -> None:
    if event == RETRIED:
        raise RetryAfter(_HOUR)
