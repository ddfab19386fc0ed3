"""What workpool should reach, and whether it did. Said, never asserted: a busy machine is not a fault."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from benchmarks.measure import Column, Table
from benchmarks.reference import COMPILED
from benchmarks.subjects import BOUNDED, MANY, OURS, REFERENCE, TASKS, UNBOUNDED
from benchmarks.workloads.features import BESIDE
from benchmarks.workloads.ideal import as_slept
from benchmarks.workloads.kubernetes.tables import CLOCK
from benchmarks.workloads.kubernetes.tables import NEEDED as NEEDED_BY_WATCH
from benchmarks.workloads.kubernetes.watchers import JSON
from benchmarks.workloads.memory import NEEDED, NEEDED_BY_REFERENCE

Figures = dict[str, float]
"""By where they were taken."""


@dataclass(frozen=True, slots=True)
class Target:
    """A limit for the worst of some figures."""

    what: str
    limit: float
    figures: Figures
    """Empty where nothing was measured."""
    unit: str = "x"

    @property
    def verdict(self) -> str:
        if not self.figures:
            return "not measured"
        return "met" if max(self.figures.values()) <= self.limit else "short"

    @property
    def cells(self) -> tuple[str, str, str, str, str]:
        """The verdict, the target, its limit, the worst figure, and where that was taken."""
        limit = f"{self.limit:g}{self.unit}"
        if not self.figures:
            return self.verdict, self.what, limit, "", ""
        where, worst = max(self.figures.items(), key=lambda item: item[1])
        return self.verdict, self.what, limit, f"{worst:.2f}{self.unit}", where

    def __str__(self) -> str:
        verdict, what, limit, worst, where = self.cells
        return f"{verdict}: {what}: " + (f"{worst}, at most {limit} ({where})" if worst else f"at most {limit}")


@dataclass(frozen=True, slots=True)
class Found:
    """The figures of some tables. Each is a median over the rounds."""

    tables: Mapping[str, Table]

    def at(self, name: str, rows: Iterable[str] = OURS, columns: Iterable[Column] | None = None) -> Figures:
        """The ratios to the baseline, or the values where there is none."""
        return {
            _name(table, row, column): cell.score
            for table in self._tables(name)
            for row in rows
            for column, cell in table.series(row).items()
            if columns is None or column in columns
        }

    def last(self, name: str, row: str) -> Figures:
        """The ratio in the last column."""
        return dict(list(self.at(name, [row]).items())[-1:])

    def flat(self, name: str, rows: Iterable[str] = OURS) -> Figures:
        """How far apart a row's dearest and cheapest columns are, each as a ratio to the first in the same round."""
        found = {}
        for table in self._tables(name):
            for row in rows:
                series = list(table.series(row).values())
                scores = [_compare(each.values, series[0].values) for each in series]
                if scores:
                    found[_name(table, row)] = max(scores) / min(scores)
        return found

    def beside(self, name: str, row: str, other: str) -> Figures:
        """The ratios of a row to the first column of another, in the same round."""
        return {
            _name(table, row, column): _compare(cell.values, base.values)
            for table in self._tables(name)
            for base in list(table.series(other).values())[:1]
            for column, cell in table.series(row).items()
        }

    def _tables(self, name: str) -> list[Table]:
        return [self.tables[name]] if name in self.tables else []


def list_targets(tables: Mapping[str, Table]) -> list[Target]:
    """All targets, each with the figures that these tables have for it."""
    found = Found(tables)
    compiled = found if COMPILED else Found({})
    return [*_list_twins(compiled), *_list_references(found), *_list_either(found)]


def summarize(targets: Iterable[Target]) -> str:
    """How many are met, short and not measured."""
    verdicts = [target.verdict for target in targets]
    return ", ".join(f"{verdicts.count(verdict)} {verdict}" for verdict in ("met", "short", "not measured"))


def _list_twins(found: Found) -> list[Target]:
    workers = found.flat("spread") | found.flat("one-key") | found.flat("new-keys")
    many = found.at("add-many") | found.at("asyncio", [MANY])
    asleep, slept = found.at("ideal", columns=[256]), found.at("ideal", columns=[as_slept(256)])
    targets = [
        Target("an event over 1,000 keys to the bare loop", 4, found.at("spread")),
        Target("an event on one key to the bare loop", 4, found.at("one-key")),
        Target("an event on a new key to the bare loop", 7, found.at("new-keys")),
        Target("flat in the workers, the dearest of 1 to 256 to the cheapest", 1.2, workers),
        Target("flat in the backlog, the dearest of B = 0 to 1,000,000 to the cheapest", 1.1, found.flat("backlog")),
        Target("add alone to `SimpleQueue.put`", 2, found.at("add")),
        Target("add_many to the bare loop", 3, many),
        Target("a waiting event, beside the event and its key", 64, found.at("memory", [UNBOUNDED]), " bytes"),
        Target("memory needed after all keys to memory needed at the start", 1.02, found.last("residue", NEEDED)),
        Target("latency, p50 to a bare hand-over", 1.3, found.at("latency", columns=["p50"])),
        Target("latency, p99 to a bare hand-over", 2, found.at("latency", columns=["p99"])),
        Target("1 ms handlers over 256 workers to the ideal, of a sleep in a loop of its own", 1.03, asleep),
        Target("1 ms handlers over 256 workers to the ideal, of the sleep in those handlers", 1.03, slept),
        Target("asyncio to the bare await loop", 8, found.at("asyncio", [BOUNDED])),
        Target("asyncio to a task per event", 1, found.beside("asyncio", BOUNDED, TASKS)),
        Target("what a feature that is not used costs", 1.1, found.at("features", BESIDE)),
    ]
    return [_of("twin", target) for target in targets]


def _list_references(found: Found) -> list[Target]:
    rows, needed = ([REFERENCE], NEEDED_BY_REFERENCE) if COMPILED else (list(OURS), NEEDED)
    workers = found.flat("spread", rows) | found.flat("one-key", rows) | found.flat("new-keys", rows)
    backlog = found.flat("backlog", rows)
    targets = [
        Target("flat in the workers, the dearest of 1 to 256 to the cheapest", 1.5, workers),
        Target("flat in the backlog, the dearest of all B to the cheapest", 1.3, backlog),
        Target("an event over 1,000 keys to the bare loop", 50, found.at("spread", rows)),
        Target("memory needed after all keys to memory needed at the start", 1.05, found.last("residue", needed)),
    ]
    return [_of("reference", target) for target in targets]


def _list_either(found: Found) -> list[Target]:
    backing = "healthy events beside 100,000 keys that back off to the same without them"
    watched = found.at("kubernetes/events", [BOUNDED], [CLOCK])
    gone = found.last("kubernetes/residue", NEEDED_BY_WATCH)
    targets = [
        Target(backing, 1.1, found.at("retries", [UNBOUNDED])),
        Target(f"an event of a watch of Kubernetes to a loop of {JSON}", 1.25, watched),
        Target("memory needed after all objects of a watch to memory needed at the start", 1.05, gone),
    ]
    return [_of("twin" if COMPILED else "reference", target) for target in targets]


def _of(whose: str, target: Target) -> Target:
    return Target(f"{whose}, {target.what}", target.limit, target.figures, target.unit)


def _name(table: Table, row: str, column: Column | None = None) -> str:
    where = "" if column is None else f", {f'{table.axis} {column:,}' if isinstance(column, int) else column}"
    return f"{table.name}, {row}{where}"


def _compare(values: list[float], bases: list[float]) -> float:
    return statistics.median(value / base for value, base in zip(values, bases, strict=True))
