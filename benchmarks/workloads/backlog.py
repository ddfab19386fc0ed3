"""Events beside a key that is stuck, with many more behind it."""

from __future__ import annotations

import gc
import threading
import time
from functools import partial

from benchmarks.measure import Sample, Table, in_rounds, time_bare
from benchmarks.subjects import (
    BOUNDED,
    EXECUTOR,
    HASHED,
    OURS,
    REFERENCE,
    REFERENCES,
    SCANNED,
    THREADED,
    Make,
    ScannedJournal,
)
from benchmarks.workloads.common import Scale, Tally, spread_keys

# Beyond these the default bound is full, an executor is as stuck as it can be, and all others take too long.
MOST = {BOUNDED: 1_000, REFERENCE: 100_000, EXECUTOR: 1_000, HASHED: 100_000, SCANNED: 10_000}
STUCK = -1


def measure(scale: Scale) -> Table:
    all_events = [(key, number) for number, key in enumerate(spread_keys(scale.free_events))]

    def run(row: str, make: Make, backlog: int) -> list[Sample]:
        events = all_events if row in OURS | REFERENCES else all_events[: scale.peers_free_events]
        base = time_bare(Tally(len(events)).count, events)
        tally, met, gone = Tally(len(events)), threading.Event(), threading.Event()

        def handle(event: int) -> None:
            if event != STUCK:
                tally.count(event)
            else:
                met.set()
                gone.wait()

        subject = make(handle, 8)
        subject.add("stuck", STUCK)
        met.wait()
        for _ in range(backlog):
            subject.add("stuck", STUCK)
        gc.collect()
        begin = time.perf_counter_ns()
        for key, event in events:
            subject.add(key, event)
        missing = tally.await_all()
        elapsed = time.perf_counter_ns() - begin
        gone.set()
        subject.drain()
        stuck = f"{missing:,} of {len(events):,} stuck" if missing else ""
        return [Sample(row, backlog, elapsed / len(events), base, stuck)]

    makes: dict[str, Make] = {**THREADED, SCANNED: ScannedJournal}
    runs = [
        partial(run, row, make, backlog)
        for row, make in makes.items()
        for backlog in scale.backlogs
        if backlog <= MOST.get(row, backlog)
    ]
    about = (
        f"The handler of one key is stuck, B more events wait behind it, and {scale.free_events:,} events on 1,000 "
        f"other keys are added, and handled by 8 workers; for the sake of time the peers of workpool get "
        f"{scale.peers_free_events:,}. Garbage is collected before: Python's collector looks once or twice at what is "
        f"new, here the backlog, and that is no part of choosing an event. A flat row means that the backlog costs the "
        f"others nothing. With a {HASHED}, events that share the stuck worker are not handled at all while it is "
        f"stuck. In a {EXECUTOR}, "
        f"which knows no keys, the stuck events occupy the workers one by one. A {SCANNED} is one list that each "
        f"worker searches from the front for the first key that is free. Some rows end early: the default bound of "
        f"{BOUNDED} keeps larger backlogs out, a scan takes minutes, an executor cannot be more than stuck, and only "
        f"the twin is to be flat up to a million."
    )
    cells = in_rounds("backlog", runs, scale.backlog_rounds)
    return Table("backlog", "Free keys beside a backlog of B events", about, "ns an event", "B =", "bare loop", cells)
