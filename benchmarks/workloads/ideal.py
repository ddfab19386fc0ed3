"""Handlers that take time, against what as many workers could do at best."""

from __future__ import annotations

import threading
import time
from functools import partial

from benchmarks.measure import Run, Sample, Table, in_rounds, time_bare
from benchmarks.subjects import THREADED, Make
from benchmarks.workloads.common import Scale, Tally, spread_keys

SECONDS = 0.001
WORKERS = (32, 256)
ALONE = "threads alone"


def measure(scale: Scale) -> Table:
    events = [(key, SECONDS) for key in spread_keys(scale.sleeps)]

    def time_ideal(workers: int) -> float:
        return time_bare(time.sleep, events[:200], passes=1) / workers / 1e3

    def run(row: str, make: Make, workers: int) -> list[Sample]:
        base = time_ideal(workers)
        tally = Tally(len(events))

        def handle(seconds: float) -> None:
            time.sleep(seconds)
            tally.count(seconds)

        subject = make(handle, workers)
        begin = time.perf_counter_ns()
        for key, event in events:
            subject.add(key, event)
        tally.await_all()
        elapsed = time.perf_counter_ns() - begin
        subject.drain()
        return [Sample(row, workers, elapsed / len(events) / 1e3, base)]

    def run_alone(workers: int) -> list[Sample]:
        base = time_ideal(workers)
        share = len(events) // workers
        barrier = threading.Barrier(workers + 1)

        def work() -> None:
            barrier.wait()
            for _ in range(share):
                time.sleep(SECONDS)
            barrier.wait()

        threads = [threading.Thread(target=work) for _ in range(workers)]
        for thread in threads:
            thread.start()
        barrier.wait()
        begin = time.perf_counter_ns()
        barrier.wait()
        elapsed = time.perf_counter_ns() - begin
        for thread in threads:
            thread.join()
        return [Sample(ALONE, workers, elapsed / (share * workers) / 1e3, base)]

    runs: list[Run] = [partial(run, row, make, workers) for row, make in THREADED.items() for workers in WORKERS]
    runs += [partial(run_alone, workers) for workers in WORKERS]
    about = (
        f"{len(events):,} handlers that sleep 1 ms, over 1,000 keys. The ideal is what such a sleep takes in a loop of "
        f"its own, measured each time, divided by the workers. It knows no processor time, so the interpreter's own "
        f"switching between threads is on top, and shows the more the more workers there are: {ALONE} are as many "
        f"threads that each sleep their share and are handed nothing."
    )
    cells = in_rounds("ideal", runs, scale.rounds)
    return Table("ideal", "Handlers that take time", about, "µs an event", "workers", "ideal", cells)
