"""What a waiting event takes, and what ten million keys leave behind."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import tracemalloc
from collections.abc import Callable, Mapping
from functools import partial

from benchmarks.measure import Column, Sample, Table, in_rounds
from benchmarks.reference import COMPILED, PURE
from benchmarks.subjects import (
    EXECUTOR,
    HASHED,
    KEY_TASKS,
    REFERENCE,
    UNBOUNDED,
    Executor,
    HashedQueues,
    KeyTasks,
    Subject,
    make_reference,
    make_unbounded,
)
from benchmarks.workloads.common import KEYS, Scale, spread_keys

NEEDED = "workpool: MiB needed"
NEEDED_BY_REFERENCE = f"{REFERENCE}: MiB needed"


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
    if COMPILED:
        makes[REFERENCE] = lambda: make_reference(threading.Event.wait, 1)

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
    def run(subject: str, name: str, allocator: str, choice: Mapping[str, str]) -> list[Sample]:
        row = f"{name}: MiB {'needed' if allocator == 'malloc' else 'resident'}"
        command = [sys.executable, "-m", "benchmarks.workloads.residue", str(scale.distinct_keys), subject]
        steps: list[tuple[int, int, int]] = json.loads(
            subprocess.check_output(command, env={**os.environ, **choice, "PYTHONMALLOC": allocator})
        )
        _, resident, blocks = steps[0]
        return [
            sample
            for keys, *sizes in steps
            for sample in (
                Sample(row, keys, sizes[0] / 2**20, resident / 2**20),
                Sample(f"{name}: thousand blocks", keys, sizes[1] / 1e3, blocks / 1e3),
            )
            if allocator == "pymalloc" or "MiB" in sample.row
        ]

    about = (
        f"A process with an idle pool of the default bound, before and after {scale.distinct_keys:,} events, each on a "
        f"key of its own, all handled. Resident is what the process holds, with the pages that the allocators keep for "
        f"later; needed is the same in a process where all memory comes from C's allocator, which gives its free pages "
        f"back before the process is measured; blocks are what Python has allocated and not freed. For comparison, a "
        f"process that has as many keys in plain dicts, 10,000 at a time, and drops them."
    )
    runs = [
        partial(run, subject, name, allocator, {})
        for subject, name in (("pool", "workpool"), ("dict", "dict"))
        for allocator in ("malloc", "pymalloc")
    ]
    if COMPILED:
        runs.insert(2, partial(run, "pool", REFERENCE, "malloc", PURE))
    cells = in_rounds("residue", runs, 1)
    return Table("residue", "What keys leave behind", about, "MiB or thousand blocks", "keys", "start", cells)
