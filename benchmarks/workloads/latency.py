"""How long an event waits for its handler when the pool has nothing else to do."""

from __future__ import annotations

import statistics
import time
from functools import partial

from benchmarks.measure import Sample, Table, in_rounds
from benchmarks.subjects import THREADED, HashedQueues, Make
from benchmarks.workloads.common import Scale, spread_keys

PACE_NS = 100_000


def measure(scale: Scale) -> Table:
    keys = spread_keys(scale.paced_events)

    def wait(make: Make, workers: int) -> dict[str, float]:
        waits: list[int] = []
        subject = make(lambda added: waits.append(time.perf_counter_ns() - added), workers)
        due = time.perf_counter_ns()
        for key in keys:
            due += PACE_NS
            time.sleep(max(0, due - time.perf_counter_ns()) / 1e9)
            subject.add(key, time.perf_counter_ns())
        subject.drain()
        cuts = statistics.quantiles(waits, n=1000)
        return {"p50": cuts[499] / 1e3, "p99": cuts[989] / 1e3, "p99.9": cuts[998] / 1e3}

    def run(row: str, make: Make) -> list[Sample]:
        bases = wait(HashedQueues, 1)
        return [Sample(row, cut, value, bases[cut]) for cut, value in wait(make, 8).items()]

    about = (
        f"From the call of `add` to the start of the handler: 8 workers, {len(keys):,} events, one each 100 µs. The "
        f"baseline is handed from one thread to one other through a bare `SimpleQueue`, and is mostly the time to wake "
        f"a thread. Between events the adder sleeps, as one does that reads from a socket. An adder that computes "
        f"keeps the interpreter from the workers for up to `sys.getswitchinterval()`, 5 ms by default, whatever hands "
        f"over."
    )
    cells = in_rounds("latency", [partial(run, row, make) for row, make in THREADED.items()], scale.latency_rounds)
    return Table("latency", "Latency", about, "µs", "", "bare hand-over", cells)
