"""The picture of the page."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping
from itertools import chain
from pathlib import Path

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.measure import Cell, Table
from benchmarks.subjects import BOUNDED, EXECUTOR, HASHED, KEY_TASKS, REFERENCE, SCANNED, UNBOUNDED

# Colours that stay apart for colour-blind readers (Okabe and Ito), a marker each for readers without colour.
_STYLES = {
    BOUNDED: ("#0072B2", "o"),
    UNBOUNDED: ("#56B4E9", "s"),
    REFERENCE: ("#000000", "P"),
    EXECUTOR: ("#D55E00", "^"),
    HASHED: ("#009E73", "v"),
    KEY_TASKS: ("#CC79A7", "D"),
    SCANNED: ("#7F7F7F", "X"),
}


def draw(path: Path, tables: Mapping[str, Table]) -> None:
    """Draw cost over workers, and cost over a backlog."""
    with mpl.rc_context({"font.size": 11, "axes.spines.top": False, "axes.spines.right": False}):
        figure = Figure(figsize=(11, 5.5), layout="constrained")
        left, right = figure.subplots(1, 2)
        _plot(left, tables["spread"], lambda cell: cell.ratios)
        left.set(title="A no-op event, over 1,000 keys", xlabel="workers", ylabel="times the bare loop")
        _plot(right, tables["backlog"], lambda cell: cell.values)
        right.set(title="An event beside a stuck key", xlabel="events behind the stuck key", ylabel="ns an event")
        handles = {
            label: handle
            for axes in (left, right)
            for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)
        }
        figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=3, frameon=False)
        figure.savefig(path, dpi=150)


def _plot(axes: Axes, table: Table, values: Callable[[Cell], list[float]]) -> None:
    """A line for each row through the medians, with a bar from the least to the greatest."""
    columns = table.columns
    drawn: list[float] = []
    for row in table.rows:
        if series := table.series(row):
            colour, marker = _STYLES[row]
            spots = [columns.index(column) for column in series]
            figures = [sorted(values(cell)) for cell in series.values()]
            middles = [statistics.median(each) for each in figures]
            below = [middle - each[0] for middle, each in zip(middles, figures, strict=True)]
            above = [each[-1] - middle for middle, each in zip(middles, figures, strict=True)]
            axes.errorbar(spots, middles, (below, above), label=row, color=colour, marker=marker, capsize=2)
            drawn += chain.from_iterable(figures)
    axes.set_yscale("log")
    axes.set_ylim(10 ** math.floor(math.log10(min(drawn))), 10 ** math.ceil(math.log10(max(drawn))))
    axes.minorticks_off()
    axes.yaxis.set_major_formatter("{x:,.0f}")
    axes.set_xticks(range(len(columns)), [f"{column:,}" for column in columns])
    axes.grid(axis="y", color="#DDDDDD")
    axes.set_axisbelow(True)
