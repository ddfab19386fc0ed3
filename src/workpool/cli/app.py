"""What the command takes, and its help."""

from __future__ import annotations

import atexit
import os
import signal
from collections.abc import Callable
from dataclasses import asdict, dataclass
from enum import StrEnum
from importlib.metadata import version
from pathlib import Path
from typing import IO, Annotated, NoReturn

import typer

from workpool.cli.handlers import load_handler
from workpool.cli.keys import KeyExpression
from workpool.cli.live import LiveLine
from workpool.cli.output import Complaint, flush_last, leave_now, open_closed_streams, put, restore_signals, say
from workpool.cli.reader import BadLines, NdjsonReader, Reader
from workpool.cli.run import Run
from workpool.cli.summary import Summary
from workpool.sources.ndjson import NdjsonSource

__all__ = ["app"]

_MAIN_HELP = "Handle events concurrently, each exactly once, in order per key, with no key blocking another."
_EPILOG = """\b
Examples:
  workpool run pods.py:follow --source pods.gz --key object.metadata.uid
  tail -f log | workpool run shop.orders:book --source - --key customer,item
  workpool run pods.py:follow --source k8s:v1/pods -n shop --key label:app

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


class Missing(StrEnum):
    """What an object of Kubernetes without its key does."""

    by_name = "namespace/name"
    skip = "skip"
    fail = "fail"


Namespace = Annotated[str | None, typer.Option("-n", "--namespace", metavar="NAME", help="Only in this namespace.")]
Selector = Annotated[
    str | None, typer.Option("-l", "--selector", metavar="LABELS", help="Only with such labels: app=web,tier!=cache.")
]
FieldSelector = Annotated[
    str | None, typer.Option(metavar="FIELDS", help="Only with such fields: spec.nodeName=node-1.")
]
Kubeconfig = Annotated[
    str | None, typer.Option(metavar="FILE", help="Where the cluster is, if not in $KUBECONFIG or ~/.kube/config.")
]
Context = Annotated[str | None, typer.Option(metavar="NAME", help="Another context than the current one.")]


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"workpool {version('workpool')}")
        raise typer.Exit


kubernetes: typer.Typer = typer.Typer(
    help="What there is to do with Kubernetes beside reading it.", no_args_is_help=True, rich_markup_mode=None
)
app.add_typer(kubernetes, name="kubernetes")


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
        typer.Option(
            metavar="SOURCE",
            help="Newline-delimited JSON: a file, plain or .gz, or '-', standard input. Or k8s:RESOURCE, a watch of "
            "Kubernetes: k8s:v1/pods, k8s:apps/v1/deployments.",
        ),
    ],
    key: Annotated[
        str | None,
        typer.Option(
            metavar="EXPR",
            help="Where an event has its key, in JMESPath: object.metadata.uid; with commas, a key of several parts. "
            "Of Kubernetes also label:NAME, annotation:NAME, uid, or namespace/name, which it is if none is given.",
        ),
    ] = None,
    namespace: Namespace = None,
    selector: Selector = None,
    field_selector: FieldSelector = None,
    kubeconfig: Kubeconfig = None,
    context: Context = None,
    missing: Annotated[
        Missing | None,
        typer.Option(
            show_default="namespace/name",
            help="An object of Kubernetes without the key: goes by its name, is left out, or ends the run.",
        ),
    ] = None,
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

    def prepare() -> Run:
        handler = load_handler(handlers)
        bad = BadLines(on_bad_line is OnBadLine.skip)
        reader = _open(source, key, bad, _Place(namespace, selector, field_selector, kubeconfig, context, missing))
        bad.keep_in(_open_kept(bad_lines, on_bad_line, source))  # The last, for it empties the file.
        return Run(handler, reader, bad, workers=workers, max_backlog=max_backlog or None)

    _perform(prepare, lambda summary: put(summary.to_json() + "\n") if json else _show(summary))


@kubernetes.command()
def record(
    source: Annotated[str, typer.Argument(metavar="SOURCE", help="k8s:RESOURCE, as k8s:v1/pods.")],
    *,
    namespace: Namespace = None,
    selector: Selector = None,
    field_selector: FieldSelector = None,
    kubeconfig: Kubeconfig = None,
    context: Context = None,
) -> None:
    """Print every change of a resource, one JSON object a line, until Ctrl-C: a stream that `run` can replay.

    First all objects that are there, then what becomes of them.
    """

    def prepare() -> Run:
        from workpool.cli.kubernetes import record_all, write_event  # noqa: PLC0415

        place = _Place(namespace, selector, field_selector, kubeconfig, context)
        reader = record_all(source, **place.options())
        return Run(write_event, reader, BadLines(skip=False), workers=1, max_backlog=10_000)

    _perform(prepare, _show)


@kubernetes.command()
def rbac(
    sources: Annotated[list[str], typer.Argument(metavar="SOURCE", help="k8s:RESOURCE, as k8s:v1/pods.")],
    *,
    namespace: Namespace = None,
    kubeconfig: Kubeconfig = None,
    context: Context = None,
) -> None:
    """Print the Role and its binding that reading some resources needs; without -n, for all namespaces.

    A resource in full, as k8s:apps/v1/deployments, needs no cluster to be asked.
    """
    try:
        from workpool.cli.kubernetes import print_rbac  # noqa: PLC0415

        text = print_rbac(sources, namespace, kubeconfig, context)
    except Complaint as complaint:
        say(str(complaint))
        raise typer.Exit(2) from None
    raise typer.Exit(0 if put(text) else 1)


def _perform(prepare: Callable[[], Run], tell: Callable[[Summary], bool]) -> NoReturn:
    """Run to the end, tell what it came to, and leave."""
    open_closed_streams()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # A shell starts background jobs deaf to it.
    atexit.register(flush_last)  # Before the handlers register theirs, so that it comes after them.
    try:
        with LiveLine() as line:
            job = prepare()
            summary = job(line)
    except Complaint as complaint:
        say(str(complaint))
        raise typer.Exit(2) from None
    except KeyboardInterrupt:  # While the handlers were imported; after that it is the run's.
        raise typer.Exit(130) from None
    code = job.exit_code
    restore_signals()
    if not tell(summary):
        code = code or 1
    if job.in_flight:
        leave_now(code)
    raise typer.Exit(code)


def _show(summary: Summary) -> bool:
    say(summary.to_text(), prefix="")
    return True


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a resource of Kubernetes is, and which of its objects."""

    namespace: str | None
    selector: str | None
    field_selector: str | None
    kubeconfig: str | None
    context: str | None
    missing: Missing | None = None

    def options(self) -> dict[str, str]:
        """Those that were given."""
        return {name: str(value) for name, value in asdict(self).items() if value is not None}


def _open(source: str, key: str | None, bad_lines: BadLines, place: _Place) -> Reader:
    if source.startswith("k8s:"):
        from workpool.cli.kubernetes import open_watch  # noqa: PLC0415

        return open_watch(source, key, **place.options())
    for name in place.options():
        raise Complaint(f"--{name.replace('_', '-')} is for a source of Kubernetes, as k8s:v1/pods")
    if key is None:
        raise Complaint("--key is needed: where an event has its key, in JMESPath, as object.metadata.uid")
    find = KeyExpression(key)
    try:
        return NdjsonReader(NdjsonSource(source), find, bad_lines)
    except OSError as error:
        raise Complaint(f"cannot read {source}: {error.strerror}") from error


def _open_kept(path: Path | None, on_bad_line: OnBadLine, source: str) -> IO[bytes] | None:
    if path is None:
        return None
    if on_bad_line is not OnBadLine.skip:
        raise Complaint("--bad-lines keeps what --on-bad-line skip skips, and without that nothing is")
    try:
        if path.is_file() and not source.startswith("k8s:"):
            read = os.fstat(0) if source == "-" else Path(source).stat()
            if os.path.samestat(path.stat(), read):
                raise Complaint(f"--bad-lines would replace the source {source}")
        return path.open("wb")
    except OSError as error:
        raise Complaint(f"cannot write {path}: {error.strerror}") from error
