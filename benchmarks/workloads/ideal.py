"""Handlers that take time, against what as many workers could do at best."""

from __future__ import annotations

import threading
import time
from functools import partial
from statistics import fmean

from benchmarks.measure import Run, Sample, Table, in_rounds, time_bare
from benchmarks.subjects import THREADED, Make
from benchmarks.workloads.common import Scale, Tally, spread_keys

SECONDS = 0.001
WORKERS = (32, 256)
ALONE = "threads alone"


def as_slept(workers: int) -> str:
    """The column whose ideal takes the sleep as long as it was in the handlers."""
    return f"workers {workers}, as slept"


def measure(scale: Scale) -> Table:
    events = [(key, SECONDS) for key in spread_keys(scale.sleeps)]

    def time_ideal(workers: int) -> float:
        return time_bare(time.sleep, events[:200], passes=1) / workers / 1e3

    def run(row: str, make: Make, workers: int) -> list[Sample]:
        base = time_ideal(workers)
        tally = Tally(len(events))
        slept: list[int] = []

        def handle(seconds: float) -> None:
            begin = time.perf_counter_ns()
            time.sleep(seconds)
            slept.append(time.perf_counter_ns() - begin)
            tally.count(seconds)

        subject = make(handle, workers)
        begin = time.perf_counter_ns()
        for key, event in events:
            subject.add(key, event)
        tally.await_all()
        elapsed = time.perf_counter_ns() - begin
        subject.drain()
        return sample(row, workers, elapsed / len(events), base, slept)

    def sample(row: str, workers: int, elapsed: float, base: float, slept: list[int]) -> list[Sample]:
        return [
            Sample(row, workers, elapsed / 1e3, base),
            Sample(row, as_slept(workers), elapsed / 1e3, fmean(slept) / workers / 1e3),
        ]

    def run_alone(workers: int) -> list[Sample]:
        base = time_ideal(workers)
        share = len(events) // workers
        barrier = threading.Barrier(workers + 1)
        slept: list[int] = []

        def work() -> None:
            barrier.wait()
            for _ in range(share):
                begin = time.perf_counter_ns()
                time.sleep(SECONDS)
                slept.append(time.perf_counter_ns() - begin)
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
        return sample(ALONE, workers, elapsed / (share * workers), base, slept)

    runs: list[Run] = [partial(run, row, make, workers) for row, make in THREADED.items() for workers in WORKERS]
    runs += [partial(run_alone, workers) for workers in WORKERS]
    about = (
        f"{len(events):,} handlers that sleep 1 ms, over 1,000 keys. The ideal is what such a sleep takes in a loop of "
        f"its own, measured each time, divided by the workers. It knows no processor time, so the interpreter's own "
        f"switching between threads is on top, and shows the more the more workers there are: {ALONE} are as many "
        f"threads that each sleep their share and are handed nothing. As slept, the ideal has the sleep as long as it "
        f"was in the handlers of the same run, the interpreter's switching included: over 1 is what handing over "
        f"takes, and workers without work."
    )
    cells = in_rounds("ideal", runs, scale.rounds)
    return Table("ideal", "Handlers that take time", about, "µs an event", "workers", "ideal", cells)
