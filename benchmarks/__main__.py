"""The command: `python -m benchmarks`."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from benchmarks.measure import Table
from benchmarks.report import describe_twin, format_table, write_page
from benchmarks.targets import list_targets, summarize
from benchmarks.workloads import adding, backlog, features, ideal, latency, loop, memory, noop, retries
from benchmarks.workloads.common import FULL, QUICK
from benchmarks.workloads.kubernetes import tables as kubernetes
from benchmarks.workloads.residue import STATM

WORKLOADS = {
    "spread": noop.measure_spread,
    "one-key": noop.measure_one_key,
    "new-keys": noop.measure_new_keys,
    "add": adding.measure_alone,
    "add-many": adding.measure_many,
    "asyncio": loop.measure,
    "features": features.measure,
    "backlog": backlog.measure,
    "retries": retries.measure,
    "latency": latency.measure,
    "ideal": ideal.measure,
    "memory": memory.measure_waiting,
    "residue": memory.measure_residue,
    "kubernetes/events": kubernetes.measure_events,
    "kubernetes/start": kubernetes.measure_start,
    "kubernetes/memory": kubernetes.measure_memory,
    "kubernetes/residue": kubernetes.measure_residue,
}
SIZES = ("residue", "kubernetes/memory", "kubernetes/residue")
"""What they measure is the size of a process."""
DOCS = Path(__file__).parent.parent / "docs"

_EXAMPLES = f"""\
workloads: {", ".join(WORKLOADS)}

examples:
  python -m benchmarks                        all of it, about 20 minutes; writes docs/benchmarks.md and .png
  python -m benchmarks --quick --check        in three minutes: roughly where the targets stand
  python -m benchmarks --only backlog         one workload, its table on standard output
  python -m benchmarks --only kubernetes      all whose names begin so, up to the slash
"""


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Measure what an event costs in workpool, beside a bare loop and beside the usual ways.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--quick", action="store_true", help="less of everything: three minutes, and coarser figures")
    parser.add_argument("--only", metavar="NAME[,NAME]", help="these workloads only")
    parser.add_argument("--check", action="store_true", help="say of each target whether it is met; always exits 0")
    options = parser.parse_args()
    names: list[str] = []
    for only in options.only.split(",") if options.only else WORKLOADS:
        found = [name for name in WORKLOADS if only in (name, name.partition("/")[0])]
        if not found:
            parser.error(f"there is no workload {only!r}; there are {', '.join(WORKLOADS)}")
        names += found
    if (unreadable := [name for name in names if name in SIZES]) and not STATM.exists():
        parser.error(f"{unreadable[0]} reads {STATM}, which this system does not have; name the others with --only")
    partly = options.quick or options.only
    if not partly:
        try:
            from benchmarks.plot import draw  # noqa: PLC0415 - only the page needs matplotlib
        except ImportError as error:
            parser.error(f"the page needs a plot ({error}): install workpool[bench], or name workloads with --only")

    begin = time.monotonic()
    print(describe_twin(), file=sys.stderr, flush=True)
    scale = QUICK if options.quick else FULL
    tables: dict[str, Table] = {}
    took: dict[str, float] = {}
    for name in names:
        since = time.monotonic()
        tables[name] = WORKLOADS[name](scale)
        took[name] = time.monotonic() - since
    if partly:
        print("\n".join(format_table(table) for table in tables.values()))
        print("No page was written: only a full run, without --quick and --only, writes it.")
    else:
        DOCS.mkdir(exist_ok=True)
        draw(DOCS / "benchmarks.png", tables)
        write_page(DOCS / "benchmarks.md", tables, "python -m benchmarks")
        print(f"Wrote {DOCS / 'benchmarks.md'} and its plot.")
    if options.check:
        targets = list_targets(tables)
        print(f"Targets: {summarize(targets)}.", *targets, sep="\n")
    each = ", ".join(f"{name} {seconds:.0f} s" for name, seconds in took.items())
    print(f"Took {time.monotonic() - begin:.0f} s: {each}.", file=sys.stderr)


if __name__ == "__main__":
    main()
