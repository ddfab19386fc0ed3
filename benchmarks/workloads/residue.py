"""The process whose size is measured. It imports nothing that it does not need, so that little hides a residue."""

from __future__ import annotations

import ctypes
import gc
import json
import os
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from workpool import EventWorkerPool

STATM = Path("/proc/self/statm")
TRIM = getattr(ctypes.CDLL(None), "malloc_trim", None) if os.environ.get("PYTHONMALLOC") == "malloc" else None
"""Gives the free pages of the C allocator back, where all of Python's memory comes from it."""


def report_sizes(count: int, subject: str) -> None:
    """Print, as JSON, how many keys were handled, the bytes resident and the blocks allocated: three times."""
    steps = (0, count // 100, count)
    if subject == "pool":
        with EventWorkerPool[str, int](_ignore) as pool:
            sizes = _measure_steps(steps, lambda keys: _handle(pool, keys))
    else:
        sizes = _measure_steps(steps, _fill_dicts)
    print(json.dumps(sizes))


def _measure_steps(steps: Iterable[int], use: Callable[[range], None]) -> list[tuple[int, int, int]]:
    sizes = []
    done = 0
    for step in steps:
        use(range(done, step))
        done = step
        gc.collect()
        if TRIM is not None:
            TRIM(0)
        resident = int(STATM.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        sizes.append((step, resident, sys.getallocatedblocks()))
    return sizes


def _handle(pool: EventWorkerPool[str, int], keys: range) -> None:
    for number in keys:
        pool.add(f"key-{number}", number)
    while pool.stats().handled < keys.stop:
        time.sleep(0.01)


def _fill_dicts(keys: range) -> None:
    """Keep 10,000 keys at a time in a dict, as many as wait in a full pool, then drop it."""
    for begin in range(0, len(keys), 10_000):
        _ignore({f"key-{number}": (number,) for number in keys[begin : begin + 10_000]})


def _ignore(event: object) -> None:
    pass


if __name__ == "__main__":
    report_sizes(int(sys.argv[1]), sys.argv[2])
