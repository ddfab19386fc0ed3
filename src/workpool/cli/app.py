"""What the command takes, and its help."""

from __future__ import annotations

import atexit
import signal
from enum import StrEnum
from importlib.metadata import version
from pathlib import Path
from typing import IO, Annotated

import typer

from workpool.cli.handlers import load_handler
from workpool.cli.keys import KeyExpression
from workpool.cli.live import LiveLine
from workpool.cli.output import Complaint, flush_last, leave_now, open_closed_streams, put, restore_signals, say
from workpool.cli.reader import BadLines
from workpool.cli.run import Run
from workpool.sources.ndjson import NdjsonSource

__all__ = ["app"]

_MAIN_HELP = "Handle events concurrently, each exactly once, in order per key, with no key blocking another."
_EPILOG = """\b
Examples:
  workpool run pods.py:follow --source pods.gz --key object.metadata.uid
  tail -f log | workpool run shop.orders:book --source - --key customer,item

\b
Exit codes:
  0    all was handled
  1    a handler raised, a line was bad, or the source broke
  2    an argument was wrong, and nothing was started
  130  Ctrl-C (and 143 SIGTERM)
  141  standard output was closed early
"""

app: typer.Typer = typer.Typer(
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


class OnBadLine(StrEnum):
    """What a line that is no event, or has no key, does to the run."""

    stop = "stop"
    skip = "skip"


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"workpool {version('workpool')}")
        raise typer.Exit


@app.callback(help=_MAIN_HELP)
def _main(
    _version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None: ...


@app.command(epilog=_EPILOG)
def run(
    handlers: Annotated[
        str,
        typer.Argument(metavar="HANDLERS", help="file.py:function or package.module:function, called once an event."),
    ],
    *,
    source: Annotated[
        str,
        typer.Option(metavar="SOURCE", help="Newline-delimited JSON: a file, plain or .gz, or '-', standard input."),
    ],
    key: Annotated[
        str,
        typer.Option(
            metavar="EXPR",
            help="Where an event has its key, in JMESPath: object.metadata.uid; with commas, a key of several parts.",
        ),
    ],
    workers: Annotated[
        int | None,
        typer.Option(
            metavar="N", min=1, show_default="processors + 4, at most 32", help="How many events are handled at once."
        ),
    ] = None,
    max_backlog: Annotated[
        int, typer.Option(metavar="N", min=0, help="How many events may wait before reading does; 0 for no bound.")
    ] = 10_000,
    on_bad_line: Annotated[
        OnBadLine,
        typer.Option(
            help="After a line that is not JSON or has no key: stop reading, handle what came before and exit with 1; "
            "or skip it and count it."
        ),
    ] = OnBadLine.stop,
    bad_lines: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="With skip: write the bad lines here, as they were. The file is replaced."),
    ] = None,
    json: Annotated[
        bool, typer.Option("--json", help="Print the summary as one JSON object on standard output.")
    ] = False,
) -> None:
    """Handle a stream of events: concurrently, in order per key.

    Ctrl-C once stops reading and handles what was read; twice stops, and says what is left.
    """
    open_closed_streams()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # A shell starts background jobs deaf to it.
    atexit.register(flush_last)  # Before the handlers register theirs, so that it comes after them.
    try:
        with LiveLine() as line:
            job = Run(
                load_handler(handlers),
                _open(source),
                KeyExpression(key),
                BadLines(on_bad_line is OnBadLine.skip, _open_kept(bad_lines, on_bad_line, source)),
                workers=workers,
                max_backlog=max_backlog or None,
            )
            summary = job(line)
    except Complaint as complaint:
        say(str(complaint))
        raise typer.Exit(2) from None
    except KeyboardInterrupt:  # While the handlers were imported; after that it is the run's.
        raise typer.Exit(130) from None
    code = job.exit_code
    restore_signals()
    if not json:
        say(summary.to_text(), prefix="")
    elif not put(summary.to_json() + "\n"):
        code = code or 1
    if job.in_flight:
        leave_now(code)
    raise typer.Exit(code)


def _open(source: str) -> NdjsonSource:
    try:
        return NdjsonSource(source)
    except OSError as error:
        raise Complaint(f"cannot read {source}: {error.strerror}") from error


def _open_kept(path: Path | None, on_bad_line: OnBadLine, source: str) -> IO[bytes] | None:
    if path is None:
        return None
    if on_bad_line is not OnBadLine.skip:
        raise Complaint("--bad-lines keeps what --on-bad-line skip skips, and without that nothing is")
    try:
        if source != "-" and path.exists() and path.samefile(source):
            raise Complaint(f"--bad-lines would replace the source {source}")
        return path.open("wb")
    except OSError as error:
        raise Complaint(f"cannot write {path}: {error.strerror}") from error
