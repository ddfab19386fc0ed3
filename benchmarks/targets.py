"""What workpool should reach, and whether it did. Said, never asserted: a busy machine is not a fault."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from benchmarks.measure import Table
from benchmarks.subjects import OURS, UNBOUNDED
from benchmarks.workloads.memory import NEEDED


@dataclass(frozen=True, slots=True)
class Target:
    """A limit for the worst of some figures."""

    what: str
    limit: float
    figures: dict[str, float]
    """By where they were taken; empty where they were not."""

    def __str__(self) -> str:
        if not self.figures:
            return f"not measured: {self.what}"
        where, worst = max(self.figures.items(), key=lambda item: item[1])
        verdict = "met" if worst <= self.limit else "short"
        return f"{verdict}: {self.what}: {worst:.2f}x, at most {self.limit:g}x ({where})"


def list_targets(tables: Mapping[str, Table]) -> list[Target]:
    """All targets, each with the figures that these tables have for it."""

    def scores(name: str, rows: Iterable[str] = OURS) -> dict[str, list[float]]:
        table = tables.get(name)
        return {f"{name}, {row}": [cell.score for cell in table.series(row).values()] for row in rows} if table else {}

    def range_of(found: dict[str, list[float]]) -> dict[str, float]:
        return {where: max(each) / min(each) for where, each in found.items()}

    backlog = range_of(scores("backlog"))
    noops = range_of(scores("spread") | scores("one-key") | scores("new-keys"))
    spread = {where: max(each) for where, each in scores("spread").items()}
    retries = {where: max(each) for where, each in scores("retries", [UNBOUNDED]).items()}
    after = {where: each[-1] for where, each in scores("residue", [NEEDED]).items()}
    return [
        Target("flat in the workers, the dearest of 1 to 256 to the cheapest", 1.5, noops),
        Target("flat in the backlog, the dearest of B = 0 to 100,000 to the cheapest", 1.3, backlog),
        Target("an event over 1,000 keys to the bare loop", 50, spread),
        Target("healthy events beside 100,000 keys that back off to the same without them", 1.1, retries),
        Target("memory needed after all keys to memory needed at the start", 1.05, after),
    ]
