"""Events that take nothing to handle, so that all the time is the subject's own."""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import partial

from benchmarks.measure import Run, Sample, Table, in_rounds, time_bare, time_ending
from benchmarks.subjects import BOUNDED, EXECUTOR, KEY_TASKS, REFERENCE, THREADED, KeyTasks, Make
from benchmarks.workloads.common import KEYS, Scale, do_nothing, do_nothing_async, spread_keys

# What is dear gets one event in so many, for the sake of time: an event costs the same then.
SHARES = {EXECUTOR: 40, REFERENCE: 5, KEY_TASKS: 5}


def measure_spread(scale: Scale) -> Table:
    about = f"{scale.events:,} events over {len(KEYS):,} keys, in turn: the usual case."
    return _measure("spread", "Events spread over 1,000 keys", about, spread_keys(scale.events), scale)


def measure_one_key(scale: Scale) -> Table:
    about = f"{scale.events:,} events on one key, where order forbids that two workers help each other."
    return _measure("one-key", "All events on one key", about, KEYS[:1] * scale.events, scale)


def measure_new_keys(scale: Scale) -> Table:
    keys = [f"new-{number}" for number in range(scale.events)]
    about = f"{scale.events:,} events, each on a key that was never seen before and never comes again."
    return _measure("new-keys", "A new key for each event", about, keys, scale)


def _measure(name: str, title: str, about: str, keys: Sequence[str], scale: Scale) -> Table:
    events = [(key, number) for number, key in enumerate(keys)]

    def run(row: str, make: Make, workers: int) -> list[Sample]:
        share = events[: len(events) // SHARES.get(row, 1)]
        ending = time_ending(make, do_nothing, workers)
        base = time_bare(do_nothing, share)
        subject = make(do_nothing, workers)
        begin = time.perf_counter_ns()
        add = subject.add
        for key, event in share:
            add(key, event)
        subject.drain()
        return [Sample(row, workers, (time.perf_counter_ns() - begin - ending) / len(share), base)]

    runs: list[Run] = [partial(run, row, make, workers) for row, make in THREADED.items() for workers in scale.workers]
    runs.append(partial(run, KEY_TASKS, lambda _handler, _workers: KeyTasks(do_nothing_async), 1))
    about += (
        f" The handler does nothing. A flat row means that more workers cost nothing. For the sake of time "
        f"{REFERENCE} and {KEY_TASKS} get a fifth of the events, {EXECUTOR} a fortieth. {KEY_TASKS} has one loop in "
        f"place of workers, and stands under 1; its loop runs after each 10,000 events, as many as may wait in a "
        f"{BOUNDED} with the default bound."
    )
    return Table(name, title, about, "ns an event", "workers", "bare loop", in_rounds(name, runs, scale.rounds))
