"""What a watch takes: each subject in a process of its own, beside a bare loop over urllib3 in another."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from functools import partial
from typing import Any

from benchmarks.measure import Column, Run, Sample, Table, in_rounds
from benchmarks.subjects import BOUNDED
from benchmarks.workloads.common import Scale
from benchmarks.workloads.kubernetes.firehose import Firehose, firehose
from benchmarks.workloads.kubernetes.sizes import DICT
from benchmarks.workloads.kubernetes.watchers import (
    ASYNCIO,
    INFORMER,
    JSON,
    KOPF,
    LIGHTKUBE,
    OFFICIAL,
    ON_LOOP,
    ORJSON,
    WITHOUT_OLD,
)

ROWS = (BOUNDED, WITHOUT_OLD, ON_LOOP, ORJSON, OFFICIAL, INFORMER, ASYNCIO, LIGHTKUBE, KOPF)
KEEPING = (BOUNDED, WITHOUT_OLD, INFORMER, KOPF)
SHARES = {OFFICIAL: 5, INFORMER: 5, ASYNCIO: 5, KOPF: 10}
"""What is dear gets one event in so many, for the sake of time."""
NEEDED = "workpool: MiB needed"
CLOCK, PROCESSOR = "on the clock", "of the processor"
LIVE, WARMING, LISTED = 200, 1_000, 1_000
_PATIENCE = 900


def measure_events(scale: Scale) -> Table:
    def time_it(row: str, server: Firehose) -> list[float] | None:
        events = scale.watched_events // SHARES.get(row, 1)
        marks = _run("watchers", row, server, WARMING, WARMING + events)
        if marks is None:
            return None
        return [(last - first) / events / 1e3 for first, last in zip(*marks, strict=True)]

    about = (
        f"{scale.watched_events:,} changes of {LIVE} pods of about 2.4 KB, in turn, sent as fast as they are read over "
        f"one connection without TLS, each line a chunk of its own; the handler counts them. Each subject is a process "
        f"of its own, and so are its baseline, just before, and the server. The clock runs from event {WARMING:,} to "
        f"the last; beside it, the processor's time of the whole process. The baseline decodes each line with `json`, "
        f"and that is all it does: it knows no versions, no objects and no keys, and ends when the connection does. "
        f"{BOUNDED} has the default bound and workers, and keeps each object as JSON for `old`; {WITHOUT_OLD} keeps "
        f"its metadata only; their handlers ask each event for its object, which decodes it. For the sake of time the "
        f"clients that make objects of their own, {OFFICIAL}, {INFORMER} and {ASYNCIO}, get a fifth of the events, and "
        f"{KOPF}, in an `on.event` handler, a tenth. {OFFICIAL}, {ASYNCIO} and {LIGHTKUBE} are iterated over and hand "
        f"nothing to other threads."
    )
    with firehose(LIVE, "changes") as server:
        runs: list[Run] = [partial(_compare, row, (CLOCK, PROCESSOR), partial(time_it, server=server)) for row in ROWS]
        cells = in_rounds("kubernetes/events", runs, scale.watched_rounds)
    return Table("kubernetes/events", "A watch of Kubernetes", about, "µs an event", "", f"loop of {JSON}", cells)


def measure_start(scale: Scale) -> Table:
    def time_it(row: str, server: Firehose) -> list[float] | None:
        marks = _run("watchers", row, server, 1, LISTED)
        return None if marks is None else [clock / 1e6 for clock, _ in marks]

    about = (
        f"From the call that begins to watch, with everything imported, until the handler has the first of {LISTED:,} "
        f"pods that are there, and until it has all of them. A kubeconfig is read in that time, except in the bare "
        f"loops. {BOUNDED}, {INFORMER}, {KOPF} and the bare loops list, {BOUNDED} 500 to a page and all pages before "
        f"the first event, so that no part of a list is ever told. {OFFICIAL}, {ASYNCIO} and {LIGHTKUBE} watch "
        f"at once, and are told of each pod by a line: their first event does not wait for the others, and they do not "
        f"know when they have had all. {KOPF} asks for the resources of the cluster first, and waits a little for more "
        f"events of an object before it handles one."
    )
    with firehose(LISTED) as server:
        columns = ("first", f"all {LISTED:,}")
        runs: list[Run] = [partial(_compare, row, columns, partial(time_it, server=server)) for row in ROWS]
        cells = in_rounds("kubernetes/start", runs, scale.watched_rounds)
    return Table("kubernetes/start", "The first events of a watch", about, "ms", "", f"loop of {JSON}", cells)


def measure_memory(scale: Scale) -> Table:
    objects = scale.live_objects

    def size(row: str, servers: Sequence[Firehose]) -> list[float] | None:
        without, within = [
            _run("sizes", "live", row, server, count) for server, count in zip(servers, (0, objects), strict=True)
        ]
        return None if within is None else [(within - without) / objects]

    about = (
        f"Bytes for each of {objects:,} live pods, of about 2.4 KB as JSON, that were listed, and handled by a handler "
        f"that drops them: what is resident a second after the last event, or seven with {KOPF}, less what is in "
        f"another process that has listed none; in both all memory comes from C's allocator, which gives its free "
        f"pages back, and a page that is in use for a small part counts in full. The baseline keeps each object, "
        f"decoded by `json`, in a dict. "
        f"{INFORMER} keeps objects of the client's own classes for its users to look at, which {BOUNDED} does not "
        f"offer; {KOPF} keeps a memory of each object for its handlers. The other clients keep nothing."
    )
    with firehose(0) as none, firehose(objects) as all_of_them:
        servers = (none, all_of_them)
        runs: list[Run] = [
            partial(_compare, row, ("an object",), partial(size, servers=servers), DICT) for row in KEEPING
        ]
        cells = in_rounds("kubernetes/memory", runs, 1)
    return Table("kubernetes/memory", "Memory of a live object", about, "bytes", "", DICT, cells)


def measure_residue(scale: Scale) -> Table:
    pairs = scale.gone_objects

    def run() -> list[Sample]:
        with firehose(0, "churn") as server:
            sizes: list[tuple[int, int]] | None = _run("sizes", "gone", BOUNDED, server, pairs)
        if sizes is None:
            return [_missing(NEEDED, pairs)]
        start = sizes[0][1]
        return [Sample(NEEDED, gone, size / 2**20, start / 2**20) for gone, size in sizes]

    about = (
        f"A process with a watch through the whole source into a pool of the default bound, before and after {pairs:,} "
        f"pods were created and deleted, each with a name and a uid of its own. Needed is as above: resident, where "
        f"all memory comes from C's allocator."
    )
    cells = in_rounds("kubernetes/residue", [run], 1)
    return Table("kubernetes/residue", "What objects leave behind", about, "MiB", "pods", "start", cells)


def _compare(row: str, columns: Sequence[Column], measure: Any, baseline: str = JSON) -> list[Sample]:
    """The figures of a subject, one a column, and those of the baseline just before."""
    bases, values = measure(baseline), measure(row)
    if values is None:
        return [_missing(row, column) for column in columns]
    bases = bases or [None] * len(columns)
    return [Sample(row, *each) for each in zip(columns, values, bases, strict=True)]


def _missing(row: str, column: Column) -> Sample:
    return Sample(row, column, 0.0, stuck="not installed")


def _run(module: str, *arguments: str | int | Firehose) -> Any:
    """What a process prints: None where it lacks a library."""
    server = next(each for each in arguments if isinstance(each, Firehose))
    words = [each.address if each is server else str(each) for each in arguments]
    command = [sys.executable, "-m", f"{__package__}.{module}", *words]
    environment = server.environment | ({"PYTHONMALLOC": "malloc"} if module == "sizes" else {})
    printed = subprocess.run(command, capture_output=True, check=False, env=environment, timeout=_PATIENCE, text=True)
    if not printed.stdout:
        raise RuntimeError(f"{' '.join(words)} printed nothing: {printed.stderr[-2000:]}")
    return json.loads(printed.stdout.splitlines()[-1])
