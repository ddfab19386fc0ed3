"""The page: tables in Markdown, and only sentences that follow from the figures or hold whatever they are."""

from __future__ import annotations

import datetime
import os
import platform
import statistics
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path

from benchmarks.measure import Cell, Column, Table
from benchmarks.reference import COMPILED
from benchmarks.subjects import BOUNDED, MANY, OURS, REFERENCE
from benchmarks.targets import Target, list_targets, summarize

_PAGE = """\
# Benchmarks

What an event costs in workpool, beside a plain loop that calls the handler and beside the usual ways to do without
workpool. Written by a full run of

```sh
{command}
```

from the root of the repository with `workpool[bench]` installed, on {machine}, Python {python}, workpool {version}, on
{date}. {twin}

![Cost over workers, and cost over a backlog](benchmarks.png)

## How to read it

A figure is the **median ratio** to the baseline of its table; then, in parentheses, the least and the greatest ratio;
then the median itself, in the unit that the corner names. Lower is better everywhere. The machine is taken to be shared
and noisy: each measurement comes right after one of its baseline, the ratio is taken within such a pair, and every
figure of a table is taken once before any is taken again. Workers are started before the clock. Where the handler does
nothing, the clock stops when they have ended, and what as many idle ones took to end just before, the least of three
times, is taken off. The garbage collector is on, as users have it. Beside a handler that does nothing, the whole cost
of handing over shows; beside one that does something, the same cost is a smaller ratio.

Workpool keeps order (events of one key one after another) and isolation (no key waits for another's); it is measured
with its default bound and with none, and its reference, which is the same in Python alone, with none where nothing else
is said. Beside it: `ThreadPoolExecutor.submit`, which keeps neither; a **queue per worker**, with keys hashed onto the
queues, which keeps order; an **asyncio task per key**, which keeps both, and an **asyncio task per event**, which keeps
neither, for coroutines on one loop. None of these bounds its backlog by itself.

## Targets

A target holds for several figures, and the worst of them decides. A ratio between two figures of one table is taken
within a round too. Of {count}: {summary}. `python -m benchmarks --check` prints the same.

{targets}

{tables}"""


def write_page(path: Path, tables: Mapping[str, Table], command: str) -> None:
    """Write the page of a full run."""
    targets = list_targets(tables)
    page = _PAGE.format(
        command=command,
        machine=_describe_machine(),
        python=platform.python_version(),
        version=_read_version(),
        twin=describe_twin(),
        date=datetime.date.today().isoformat(),
        count=len(targets),
        summary=summarize(targets),
        targets=_format_targets(targets),
        tables="\n".join(format_table(table) for table in tables.values()),
    )
    path.write_text(page, encoding="utf-8")


def describe_twin() -> str:
    """Which rows are the compiled twin."""
    if COMPILED:
        return f"The rows '{BOUNDED}' are the compiled twin, and '{REFERENCE}' is the reference."
    return (
        f"The twin is not compiled here, or WORKPOOL_PURE is set: the rows '{BOUNDED}' are the reference, and nothing "
        f"is said of the twin."
    )


def format_table(table: Table) -> str:
    """A section of the page."""
    heads = [f"{table.axis} {column:,}" if isinstance(column, int) else column for column in table.columns]
    corner = f"ratio to the {table.base}, and {table.unit}" if table.base else table.unit
    lines = [[corner, *heads], ["---"] * (1 + len(heads))]
    lines += [[row, *(_format_cell(table.cells.get((row, column))) for column in table.columns)] for row in table.rows]
    grid = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    parts = [f"## {table.title}", table.about, grid, *_compare(table)]
    return "\n\n".join(parts) + "\n"


def _format_targets(targets: Iterable[Target]) -> str:
    lines = [["target", "at most", "worst", "", "taken at"], ["---"] * 5]
    for verdict, what, limit, worst, where in (target.cells for target in targets):
        lines.append([what, limit, worst, verdict if verdict == "met" else f"**{verdict}**", where])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _format_cell(cell: Cell | None) -> str:
    if cell is None:
        return ""
    if cell.stuck:
        return cell.stuck
    if not cell.ratios:
        return f"**{_round(cell.value)}**"
    spread = f" ({_round(min(cell.ratios))} to {_round(max(cell.ratios))})" if len(cell.ratios) > 1 else ""
    return f"**{_round(cell.score)}x**{spread}, {_round(cell.value)}"


def _round(figure: float) -> str:
    return f"{figure:.2f}" if figure < 10 else f"{figure:.1f}" if figure < 100 else f"{figure:,.0f}"


def _compare(table: Table) -> list[str]:
    """Where workpool stands in a table, and what is cheaper than it."""
    unit = "x" if table.base else f" {table.unit}"
    ours = {row: table.series(row) for row in table.rows if row in (*OURS, MANY)}
    parts = [
        f"{row}: {_round(min(scores))} to {_round(max(scores))}{unit}."
        for row, series in ours.items()
        for scores in [[cell.score for cell in series.values()]]
        if scores
    ]
    if ours:
        cheaper = {row: _list_cheaper(table.series(row), ours.values()) for row in table.rows if row not in ours}
        named = "; ".join(f"{row} ({', '.join(columns)})" for row, columns in cheaper.items() if columns)
        parts.append(f"Cheaper than workpool: {named}." if named else "Nothing here is cheaper than workpool.")
    if table.base == "bare loop":
        bases = [base for cell in table.cells.values() for base in cell.bases]
        spread = f"{_round(statistics.median(bases))} ({_round(min(bases))} to {_round(max(bases))})"
        parts.append(f"The bare loop took {spread} ns an event.")
    return [" ".join(parts)] if parts else []


def _list_cheaper(series: Mapping[Column, Cell], ours: Iterable[Mapping[Column, Cell]]) -> list[str]:
    """The columns in which a row is cheaper than each of ours."""
    return [
        f"{column:,}" if isinstance(column, int) else column
        for column, cell in series.items()
        if all(cell.score < own[column].score for own in ours if column in own)
    ]


def _read_version() -> str:
    project = tomllib.loads((Path(__file__).parent.parent / "pyproject.toml").read_text(encoding="utf-8"))
    return str(project["project"]["version"])


def _describe_machine() -> str:
    model = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [line.partition(":")[2].strip() for line in info.read_text().splitlines() if line[:10] == "model name"]
        model = names[0] if names else model
    return f"{os.cpu_count()} processors ({model}), {platform.system()}"
