"""Follow the workspaces of a Kubernetes cluster through their phases, by the library or by the command.

    python examples/pods.py

    stream=examples/data/pods-small.ndjson.gz
    workpool run examples/pods.py:follow --source $stream --key object.metadata.labels.workspace

The stream is what an API server sent for `GET /api/v1/pods?watch=true`. Two pods make a workspace, and their changes
come mixed with those of all the others. With the workspace as the key, one worker at a time follows it, in the order
of the stream, while other workspaces go on: so `follow` needs no lock, and may rely on what it saw last.
"""

from __future__ import annotations

import atexit
import gzip
import json
import sys
import time
from collections import defaultdict
from dataclasses import dataclass, field
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from statistics import fmean
from typing import Any

from workpool import EventWorkerPool

PHASES = {"Pending": ".", "Running": "#", "Failed": "-", "Succeeded": "-", "Deleted": " "}
"""In the order of a pod's life, and how each is drawn."""
SHOWN = 20
WIDTH = 26


@dataclass
class Workspace:
    phases: dict[str, str] = field(default_factory=dict)
    """The phase of each of its pods."""
    revisions: dict[str, int] = field(default_factory=dict)
    """The revision that each of its pods was last seen at."""
    history: list[tuple[int, float, str]] = field(default_factory=list)
    """After each change: the server's revision, its clock in whole seconds, the phase of the workspace."""


workspaces: dict[str, Workspace] = {}


def follow(event: dict[str, Any]) -> None:
    """Take in one change of one pod."""
    pod, meta = event["object"], event["object"]["metadata"]
    name, revision = meta["name"], int(meta["resourceVersion"])
    workspace = workspaces.setdefault(meta["labels"]["workspace"], Workspace())
    if revision <= workspace.revisions.get(name, 0):
        raise RuntimeError(f"{name} is at revision {revision}, and was at {workspace.revisions[name]} before")
    workspace.revisions[name] = revision

    time.sleep(0.003)  # Stands in for the work: a controller would ask an API or write to a database here.

    workspace.phases[name] = "Deleted" if event["type"] == "DELETED" else pod["status"]["phase"]
    phase = min(workspace.phases.values(), key=list(PHASES).index)  # As far as the pod that is least far.
    stamps = [meta["creationTimestamp"], *(each["time"] for each in meta["managedFields"])]
    second = max(datetime.fromisoformat(stamp).timestamp() for stamp in stamps)
    workspace.history.append((revision, second, phase))


def clock() -> dict[int, float]:
    """When each revision was written, in seconds.

    The server stamps whole seconds, but it numbers every write: so the writes of one second are spread over it. The
    recording began and ended within a second, and there they come as close to one another as in the fullest one.
    """
    seconds: defaultdict[float, list[int]] = defaultdict(list)
    now = 0.0
    for revision, second, _ in sorted(change for each in workspaces.values() for change in each.history):
        now = max(now, second)
        seconds[now].append(revision)
    fullest = max(map(len, seconds.values()))
    when = {}
    for number, (second, revisions) in enumerate(seconds.items()):
        pace = 1 / (len(revisions) if 0 < number < len(seconds) - 1 else fullest)
        start = second if number else second + 1 - len(revisions) * pace
        when.update({revision: start + place * pace for place, revision in enumerate(revisions)})
    return when


@atexit.register
def print_table() -> None:
    """Print how long each workspace took in each phase: the slowest ones, and the mean of all."""
    if not workspaces:
        return
    when = clock()
    begin, end = min(when.values()), max(when.values())
    scale = WIDTH / ((end - begin) or 1)
    rows = []
    for name, workspace in workspaces.items():
        spent: dict[str, float] = dict.fromkeys(PHASES.values(), 0.0)
        line = [" "] * (WIDTH + 1)
        for (revision, _, phase), (following, _, _) in pairwise(workspace.history):
            spent[PHASES[phase]] += when[following] - when[revision]
            for column in range(int((when[revision] - begin) * scale), int((when[following] - begin) * scale) + 1):
                line[column] = PHASES[phase]
        rows.append((sum(spent.values()), workspace.history[0][0], name, len(workspace.history), spent, "".join(line)))
    slowest = sorted(sorted(rows)[-SHOWN:], key=lambda row: row[1])

    print(f"\nThe {len(slowest)} slowest of {len(rows)} workspaces, in the order they began, over {end - begin:.1f} s")
    print(f"\n{'workspace':<12}{'changes':>8}{'pending .':>11}{'running #':>11}{'ended -':>9}   when")
    for _, _, name, changes, spent, drawn in slowest:
        print(f"{name:<12}{changes:>8}{spent['.']:>9.2f} s{spent['#']:>9.2f} s{spent['-']:>7.2f} s   {drawn.rstrip()}")
    mean = {mark: fmean(row[4][mark] for row in rows) for mark in ".#-"}
    print(f"{'mean of all':<20}{mean['.']:>9.2f} s{mean['#']:>9.2f} s{mean['-']:>7.2f} s")


if __name__ == "__main__":
    source = sys.argv[1] if len(sys.argv) > 1 else Path(__file__).parent / "data" / "pods-small.ndjson.gz"
    pool: EventWorkerPool[str, dict[str, Any]] = EventWorkerPool(follow)
    with pool, gzip.open(source) as stream:
        for each in stream:
            event = json.loads(each)
            pool.add(event["object"]["metadata"]["labels"]["workspace"], event)
