"""What a waiting event takes, and what ten million keys leave behind."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import tracemalloc
from collections.abc import Callable
from functools import partial

from benchmarks.measure import Column, Sample, Table, in_rounds
from benchmarks.subjects import (
    EXECUTOR,
    HASHED,
    KEY_TASKS,
    UNBOUNDED,
    Executor,
    HashedQueues,
    KeyTasks,
    Subject,
    make_unbounded,
)
from benchmarks.workloads.common import KEYS, Scale, spread_keys

RESIDENT = "workpool: MiB resident"
BLOCKS = "workpool: thousand blocks"


def measure_waiting(scale: Scale) -> Table:
    count = scale.waiting_events
    keys: dict[Column, list[str]] = {
        "a key each": [f"new-{number}" for number in range(count)],
        "1,000 keys": spread_keys(count),
        "one key": KEYS[:1] * count,
    }
    makes: dict[str, Callable[[], Subject]] = {
        UNBOUNDED: lambda: make_unbounded(threading.Event.wait, 1),
        EXECUTOR: lambda: Executor(threading.Event.wait, 1),
        HASHED: lambda: HashedQueues(threading.Event.wait, 1),
        KEY_TASKS: lambda: KeyTasks(_pass, bound=sys.maxsize),
    }

    def run(row: str, column: Column) -> list[Sample]:
        gate = threading.Event()
        subject = makes[row]()
        subject.add("first", gate)
        tracemalloc.start()
        try:
            for key in keys[column]:
                subject.add(key, gate)
            taken, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        gate.set()
        subject.drain()
        return [Sample(row, column, taken / count)]

    about = (
        f"Bytes for each of {count:,} waiting events, beside the event and its key themselves, as `tracemalloc` counts "
        f"them. A {HASHED} keeps no key; a {EXECUTOR} keeps a future with a lock of its own for each."
    )
    cells = in_rounds("memory", [partial(run, row, column) for row in makes for column in keys], 1)
    return Table("memory", "Memory of a waiting event", about, "bytes an event", "", None, cells)


async def _pass(event: threading.Event) -> None:
    pass


def measure_residue(scale: Scale) -> Table:
    def run(row: str, blocks_row: str, subject: str) -> list[Sample]:
        command = [sys.executable, "-m", "benchmarks.workloads.residue", str(scale.distinct_keys), subject]
        steps: list[tuple[int, int, int]] = json.loads(subprocess.check_output(command))
        _, resident, blocks = steps[0]
        return [
            sample
            for keys, *sizes in steps
            for sample in (
                Sample(row, keys, sizes[0] / 2**20, resident / 2**20),
                Sample(blocks_row, keys, sizes[1] / 1e3, blocks / 1e3),
            )
        ]

    about = (
        f"A process with an idle pool of the default bound, before and after {scale.distinct_keys:,} events, each on a "
        f"key of its own, all handled: how many MiB of it are resident, and how many thousand blocks Python has "
        f"allocated in it. The blocks are what is left behind; the difference is pages that the allocators keep for "
        f"later. For comparison, a process that has as many keys in plain dicts, 10,000 at a time, and drops them."
    )
    runs = [partial(run, RESIDENT, BLOCKS, "pool"), partial(run, "dict: MiB resident", "dict: thousand blocks", "dict")]
    cells = in_rounds("residue", runs, 1)
    return Table("residue", "What keys leave behind", about, "MiB or thousand blocks", "keys", "start", cells)
