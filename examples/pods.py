"""Follow the workspaces of a Kubernetes cluster through their phases.

    workpool run examples/pods.py:follow --source examples/data/pods-small.ndjson.gz \\
        --key object.metadata.labels.workspace

The stream is what an API server sent for `GET /api/v1/pods?watch=true`. Two pods make a workspace, and their changes
come mixed with those of all the others. With the workspace as the key, one workspace is followed by one worker at a
time, in the order of the stream, while others go on: so `follow` needs no lock, and may rely on what it saw last.
"""

from __future__ import annotations

import atexit
import time
from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any

from workpool import EventWorkerPool

PHASES = ("Pending", "Running", "Failed", "Succeeded")


@dataclass
class Workspace:
    pods: dict[str, str] = field(default_factory=dict)
    """The phase of each pod."""
    revisions: dict[str, int] = field(default_factory=dict)
    """The last revision of each pod."""
    history: list[tuple[int, float, str]] = field(default_factory=list)
    """After each event: the server's revision, its clock in whole seconds, and the phase of the workspace."""


workspaces: dict[str, Workspace] = {}


def follow(event: dict[str, Any]) -> None:
    """Take one change of one pod."""
    pod = event["object"]
    meta = pod["metadata"]
    name, revision = meta["name"], int(meta["resourceVersion"])
    workspace = workspaces.setdefault(meta["labels"]["workspace"], Workspace())
    if revision <= workspace.revisions.get(name, 0):
        raise RuntimeError(f"{name}: revision {revision} came after {workspace.revisions[name]}")
    workspace.revisions[name] = revision

    time.sleep(0.003)  # Stands in for the work: a controller would call an API or a database here.

    workspace.pods[name] = "Deleted" if event["type"] == "DELETED" else pod["status"]["phase"]
    # A workspace is as far as the pod that is least far, of those that are still there.
    phase = min(set(workspace.pods.values()) - {"Deleted"}, key=PHASES.index, default="Deleted")
    stamps = [meta["creationTimestamp"], *(each["time"] for each in meta["managedFields"])]
    second = max(datetime.fromisoformat(stamp).timestamp() for stamp in stamps)
    workspace.history.append((revision, second, phase))


def clock() -> dict[int, float]:
    """When each revision was written, in seconds.

    The server stamps whole seconds, but counts every write. So a write is placed by its number, at the mean rate of
    the recording, and never outside the second of its stamp.
    """
    stamps = sorted((revision, second) for each in workspaces.values() for revision, second, _ in each.history)
    seconds = list(accumulate((second for _, second in stamps), max))
    ticks = [(revision, now) for (revision, _), (before, now) in zip(stamps[1:], pairwise(seconds), strict=True) if now > before]
    if len(ticks) < 2:
        return {revision: second for (revision, _), second in zip(stamps, seconds, strict=True)}
    (first, start), (last, end) = ticks[0], ticks[-1]
    rate = (end - start) / (last - first)
    return {
        revision: min(max(start + (revision - first) * rate, second), second + 1)
        for (revision, _), second in zip(stamps, seconds, strict=True)
    }


def print_table() -> None:
    """Print how long each workspace took in each phase: the slowest ones, and the means of all."""
    if not workspaces:
        return
    when = clock()
    begin, end = min(when.values()), max(when.values())
    rows = []
    for name, workspace in workspaces.items():
        spent: Counter[str] = Counter()
        bar = [" "] * 28
        for (revision, _, phase), (following, _, _) in pairwise(workspace.history):
            spent[phase] += when[following] - when[revision]
            
    rows.sort()
