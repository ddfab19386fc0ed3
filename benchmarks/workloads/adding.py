"""What adding takes: alone, while nobody handles, and many at once."""

from __future__ import annotations

import time
from functools import partial
from queue import SimpleQueue
from typing import Any

from benchmarks.measure import Run, Sample, Table, in_rounds, time_bare, time_ending
from benchmarks.reference import COMPILED, PurePool
from benchmarks.subjects import BOUNDED, OURS, REFERENCE, REFERENCES, UNBOUNDED
from benchmarks.workloads.common import Scale, do_nothing, spread_keys
from workpool import EventWorkerPool

WORKERS = (1, 8, 256)


def measure_alone(scale: Scale) -> Table:
    keys = {"1,000 keys": spread_keys(scale.events), "a new key each": [f"new-{n}" for n in range(scale.events)]}
    events = {column: [(key, number) for number, key in enumerate(each)] for column, each in keys.items()}
    pools: dict[str, Any] = {UNBOUNDED: EventWorkerPool} | ({REFERENCE: PurePool} if COMPILED else {})

    def run(row: str, column: str) -> list[Sample]:
        base = _time_put(events[column])
        pool = pools[row](do_nothing, max_backlog=None)
        begin = time.perf_counter_ns()
        add = pool.add
        for key, event in events[column]:
            add(key, event)
        elapsed = time.perf_counter_ns() - begin
        assert len(pool.stop()) == scale.events
        return [Sample(row, column, elapsed / scale.events, base)]

    about = (
        f"{scale.events:,} events are added to a pool that is not started and has no bound: nobody handles, and nobody "
        f"waits. The baseline puts the same events, without their keys, into a `SimpleQueue` that nobody reads."
    )
    cells = in_rounds("add", [partial(run, row, column) for row in pools for column in events], scale.rounds)
    return Table("add", "Adding alone", about, "ns an event", "", "bare `SimpleQueue.put`", cells)


def _time_put(events: list[tuple[str, int]]) -> float:
    put = SimpleQueue[int]().put
    begin = time.perf_counter_ns()
    for _key, event in events:
        put(event)
    return (time.perf_counter_ns() - begin) / len(events)


def measure_many(scale: Scale) -> Table:
    events = [(key, number) for number, key in enumerate(spread_keys(scale.events))]
    pools: dict[str, Any] = OURS | REFERENCES

    def run(row: str, workers: int) -> list[Sample]:
        ending = time_ending(pools[row], do_nothing, workers)
        base = time_bare(do_nothing, events)
        pool = pools[row](do_nothing, workers)
        begin = time.perf_counter_ns()
        pool.add_many(events)
        pool.drain()
        return [Sample(row, workers, (time.perf_counter_ns() - begin - ending) / len(events), base)]

    about = (
        f"{scale.events:,} events over 1,000 keys, in turn, in one call of `add_many`, and handled: otherwise as where "
        f"each is added by itself. {BOUNDED} lets 10,000 wait. None of the peers has such a call."
    )
    runs: list[Run] = [partial(run, row, workers) for row in pools for workers in WORKERS]
    cells = in_rounds("add-many", runs, scale.rounds)
    return Table("add-many", "Adding many at once", about, "ns an event", "workers", "bare loop", cells)
