"""How a figure is taken: in pairs, in rounds, and kept with its spread.

The machine is taken to be shared and noisy. So a figure is a ratio to a baseline that was measured just before it, the
rounds go through all figures of a table before any is taken again, and the median is shown beside the extremes.
"""

from __future__ import annotations

import gc
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from benchmarks.subjects import Handler, Make

Column = int | str


class Sample(NamedTuple):
    """One measurement of one figure."""

    row: str
    column: Column
    value: float
    base: float | None = None
    """The baseline, in the same unit and measured just before; None where there is nothing to compare to."""
    stuck: str = ""
    """Set where events were never handled, and says how many; the value means nothing then."""


@dataclass(slots=True)
class Cell:
    """All measurements of one figure, one a round."""

    values: list[float] = field(default_factory=list)
    bases: list[float] = field(default_factory=list)
    stuck: str = ""

    @property
    def value(self) -> float:
        return statistics.median(self.values)

    @property
    def ratios(self) -> list[float]:
        return [value / base for value, base in zip(self.values, self.bases, strict=True)] if self.bases else []

    @property
    def score(self) -> float:
        """What cells are compared by: the median ratio, or the median value where there is no baseline."""
        return statistics.median(self.ratios or self.values)


@dataclass(frozen=True, slots=True)
class Table:
    """The figures of one workload. Lower is better in all of them."""

    name: str
    title: str
    about: str
    """What was done, and how to read it; true whatever the figures are."""
    unit: str
    axis: str
    base: str | None
    """What the ratios are to."""
    cells: dict[tuple[str, Column], Cell]

    @property
    def rows(self) -> list[str]:
        return list(dict.fromkeys(row for row, _ in self.cells))

    @property
    def columns(self) -> list[Column]:
        return list(dict.fromkeys(column for _, column in self.cells))

    def series(self, row: str) -> dict[Column, Cell]:
        """The figures of one row that mean something, by column."""
        return {column: cell for (each, column), cell in self.cells.items() if each == row and not cell.stuck}


Run = Callable[[], Iterable[Sample]]


def in_rounds(name: str, runs: Sequence[Run], rounds: int) -> dict[tuple[str, Column], Cell]:
    """Go through all runs, `rounds` times. Writes a line on standard error for each."""
    cells: dict[tuple[str, Column], Cell] = {}
    for number in range(rounds):
        for run in runs:
            gc.collect()  # The garbage of the run before is not this one's cost. The collector itself stays on.
            for row, column, value, base, stuck in run():
                cell = cells.setdefault((row, column), Cell())
                cell.values.append(value)
                cell.stuck = stuck or cell.stuck
                ratio = ""
                if base is not None:
                    cell.bases.append(base)
                    ratio = f" ({value / base:.2f}x)"
                figure = stuck or f"{value:,.1f}{ratio}"
                print(f"{name} {number + 1}/{rounds}: {row} [{column}] {figure}", file=sys.stderr, flush=True)
    return cells


def time_ending(make: Make, handler: Handler, workers: int) -> int:
    """Nanoseconds that workers take to end who have had nothing to do: it is no event's cost.

    It is the least of three: a pause of the machine in here would be taken off what is measured.
    """
    endings = []
    for _ in range(3):
        subject = make(handler, workers)
        begin = time.perf_counter_ns()
        subject.drain()
        endings.append(time.perf_counter_ns() - begin)
    return min(endings)


def time_bare(handler: Handler, events: Sequence[tuple[str, Any]], passes: int | None = None) -> float:
    """Nanoseconds an event of a loop that only calls the handler.

    Args:
        handler: What to call.
        events: What to call it with, beside their keys.
        passes: How many times to go through them; None for half a million calls in all, for fewer are over too soon.
    """
    passes = passes or max(1, 500_000 // len(events))
    begin = time.perf_counter_ns()
    for _ in range(passes):
        for _key, event in events:
            handler(event)
    return (time.perf_counter_ns() - begin) / (passes * len(events))
