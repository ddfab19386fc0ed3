"""The process whose size is measured, with live objects or after many that have come and gone."""

from __future__ import annotations

import gc
import json
import os
import sys
import threading
import time
from importlib import import_module
from itertools import count
from typing import Any

from benchmarks.workloads.kubernetes.firehose import Firehose
from benchmarks.workloads.kubernetes.watchers import JSON, KOPF, MODULES, WATCHERS
from benchmarks.workloads.residue import STATM, TRIM

DICT = "dict of objects"
_SETTLING = {KOPF: 7.0}
"""Seconds in which a subject puts away what it has handled, where one is not enough: after five, kopf ends tasks."""


class Count:
    """A handler that knows how many it was given, and drops them."""

    def __init__(self) -> None:
        self._next = count(1).__next__
        self.handled = 0

    def __call__(self, event: Any) -> None:  # noqa: ARG002
        self.handled = max(self.handled, self._next())


class Keep(Count):
    """One that keeps the last of each object, decoded."""

    def __init__(self) -> None:
        super().__init__()
        self.objects: dict[str, dict[str, Any]] = {}

    def __call__(self, event: Any) -> None:
        metadata = event["object"]["metadata"]
        self.objects[f"{metadata['namespace']}/{metadata['name']}"] = event["object"]
        super().__call__(event)


def measure_live(row: str, address: str, objects: int) -> int:
    """Bytes resident when all objects were handled."""
    handler = Keep() if row == DICT else Count()
    _start(JSON if row == DICT else row, address, handler)
    _await(handler, objects)
    time.sleep(_SETTLING.get(row, 1.0))
    return _resident()


def measure_gone(row: str, address: str, pairs: int) -> list[tuple[int, int]]:
    """How many pods have come and gone, and the bytes resident: three times."""
    handler = Count()
    server = Firehose(address, {})
    _start(row, address, handler)
    sizes = []
    time.sleep(1.0)
    for step in (0, pairs // 100, pairs):
        server.release(step)
        _await(handler, 2 * step)
        sizes.append((step, _resident()))
    return sizes


def _start(row: str, address: str, handler: Count) -> None:
    threading.Thread(target=WATCHERS[row], args=(address, handler), daemon=True).start()


def _await(handler: Count, events: int) -> None:
    while handler.handled < events:
        time.sleep(0.01)


def _resident() -> int:
    gc.collect()
    if TRIM is not None:
        TRIM(0)
    return int(STATM.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


if __name__ == "__main__":
    _, what, subject, its_address, amount = sys.argv
    try:
        for module in MODULES[JSON if subject == DICT else subject]:
            import_module(module)
    except ImportError:
        print("null")
    else:
        print(
            json.dumps((measure_live if what == "live" else measure_gone)(subject, its_address, int(amount))),
            flush=True,
        )
    os._exit(0)
