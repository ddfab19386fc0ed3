"""Events that take nothing to handle, so that all the time is the subject's own."""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import partial
from typing import Any

from benchmarks.measure import Run, Sample, Table, in_rounds, time_bare
from benchmarks.subjects import BOUNDED, EXECUTOR, KEY_TASKS, THREADED, KeyTasks, Make
from benchmarks.workloads.common import KEYS, Scale, spread_keys

WORKERS = (1, 2, 8, 32, 256)


def measure_spread(scale: Scale) -> Table:
    about = f"{scale.events:,} events over {len(KEYS):,} keys, in turn: the usual case."
    return _measure("spread", "Events spread over 1,000 keys", about, spread_keys(scale.events), scale.rounds)


def measure_one_key(scale: Scale) -> Table:
    about = f"{scale.events:,} events on one key, where order forbids that two workers help each other."
    return _measure("one-key", "All events on one key", about, KEYS[:1] * scale.events, scale.rounds)


def measure_new_keys(scale: Scale) -> Table:
    keys = [f"new-{number}" for number in range(scale.events)]
    about = f"{scale.events:,} events, each on a key that was never seen before and never comes again."
    return _measure("new-keys", "A new key for each event", about, keys, scale.rounds)


def _measure(name: str, title: str, about: str, keys: Sequence[str], rounds: int) -> Table:
    events = [(key, number) for number, key in enumerate(keys)]
    tenth = events[: len(events) // 10]

    def run(row: str, make: Make, workers: int) -> list[Sample]:
        share = tenth if row == EXECUTOR else events
        base = time_bare(_do_nothing, share)
        subject = make(_do_nothing, workers)
        begin = time.perf_counter_ns()
        add = subject.add
        for key, event in share:
            add(key, event)
        subject.drain()
        return [Sample(row, workers, (time.perf_counter_ns() - begin) / len(share), base)]

    runs: list[Run] = [partial(run, row, make, workers) for row, make in THREADED.items() for workers in WORKERS]
    runs.append(partial(run, KEY_TASKS, lambda _handler, _workers: KeyTasks(_do_nothing_async), 1))
    about += (
        f" The handler does nothing. A flat row means that more workers cost nothing. {EXECUTOR} gets a tenth of "
        f"the events, for the sake of time. {KEY_TASKS} has one loop in place of workers, and stands under 1; its loop "
        f"runs after each 10,000 events, as many as may wait in a {BOUNDED} with the default bound."
    )
    return Table(name, title, about, "ns an event", "workers", "bare loop", in_rounds(name, runs, rounds))


def _do_nothing(event: Any) -> None:
    pass


async def _do_nothing_async(event: Any) -> None:
    pass
