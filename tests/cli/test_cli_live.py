"""The live line: only on a terminal, always below what is printed, and gone at the end."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from cli.command import COMMAND, environment, feed, gated, wait_for
from support import PATIENCE
from workpool.cli.live import LiveLine

fcntl = pytest.importorskip("fcntl")
termios = pytest.importorskip("termios")


@dataclass
class Terminal:
    """The far end of a terminal of 80 columns: what was written there, and a way to wait for more."""

    inner: int
    outer: int
    text: str = ""
    seen: threading.Condition = field(default_factory=threading.Condition)

    def read(self) -> None:
        while True:
            try:
                more = os.read(self.outer, 4096)
            except OSError:
                return  # No process has the terminal open any more.
            with self.seen:
                self.text += more.decode()
                self.seen.notify_all()

    def wait_for(self, *texts: str) -> None:
        with self.seen:
            assert self.seen.wait_for(lambda: all(text in self.text for text in texts), PATIENCE), self.text

    @property
    def screen(self) -> list[str]:
        """The lines as they stand there, for the little that is done with the cursor here."""
        lines = [""]
        for part in self.text.replace("\r\n", "\n").replace("\r\x1b[2K", "\x00").split("\n"):
            lines[-1] = part.rpartition("\x00")[2]
            lines.append("")
        return lines[:-1]


@contextmanager
def terminal() -> Iterator[Terminal]:
    outer, inner = os.openpty()
    fcntl.ioctl(inner, termios.TIOCSWINSZ, b"\x18\x00\x50\x00\x00\x00\x00\x00")  # 24 lines of 80 columns.
    found = Terminal(inner, outer)
    thread = threading.Thread(target=found.read, daemon=True)
    thread.start()
    try:
        yield found
    finally:
        os.close(inner)
        thread.join(PATIENCE)
        os.close(outer)


def test_it_shows_rate_total_and_lanes_and_goes_away(folder: Path) -> None:
    with terminal() as screen, gated("h.py:stuck", "--workers", 2, stderr=screen.inner) as (process, gate):
        feed(process, 1, 2, 2, 2, 3)
        screen.wait_for("/s  0 handled  2 in flight  3 waiting  3 keys  deepest 3")
        process.stdin.close()  # type: ignore[union-attr]
        screen.wait_for("/s  0 of 5 handled  2 in flight  3 waiting  3 keys  deepest 3")
        gate.close()
        process.wait()
        screen.wait_for("overtakes")
    assert screen.screen[0].startswith("      events  5")
    assert "waiting" not in "\n".join(screen.screen)


def test_how_much_of_a_file_was_read_is_shown_until_the_total_is_known(folder: Path) -> None:
    (folder / "many.ndjson").write_text('{"n": 1}\n' * 50_000)
    inner, gate = os.pipe()
    command = [*COMMAND, *["run", "h.py:stuck", "--source", "many.ndjson", "--key", "n", "--max-backlog", "100"]]
    with terminal() as screen:
        process = subprocess.Popen(
            command, stderr=screen.inner, stdout=subprocess.PIPE, env=environment(GATE=str(inner)), pass_fds=[inner]
        )
        screen.wait_for("handled (", "% read)")
        process.kill()
        process.communicate()
    os.close(inner)
    os.close(gate)


def test_what_handlers_print_on_the_same_terminal_stands_above_it_byte_for_byte(folder: Path) -> None:
    (folder / "prints.py").write_text(
        "import logging, os, sys\n"
        "logging.basicConfig(format='%(message)s')\n"
        "def show(event):\n"
        "    print('[bold]markup[/] ' + 'x' * 100)\n"
        "    print('one,', end=' ', flush=True); print('two')\n"
        "    logging.warning('logged')\n"
        "    os.read(int(os.environ['GATE']), 1)\n"
    )
    with terminal() as screen, gated("prints.py:show", stderr=screen.inner, stdout=screen.inner) as (process, gate):
        feed(process, 1)
        screen.wait_for("1 in flight")
        gate.close()
        process.stdin.close()  # type: ignore[union-attr]
        process.wait()
        screen.wait_for("overtakes")
    assert screen.screen[:3] == ["[bold]markup[/] " + "x" * 100, "one, two", "logged"]


def test_a_failure_is_told_once_and_ungarbled(folder: Path) -> None:
    with terminal() as screen, gated("h.py:fail", stderr=screen.inner) as (process, _):
        screen.wait_for("0 in flight")
        feed(process, 3)
        process.wait()
        screen.wait_for("left")
    assert screen.screen[:2] == [
        "workpool: the handler of key 3 raised at attempt 1",
        "Traceback (most recent call last):",
    ]
    assert screen.text.count("Traceback") == 1
    assert process.returncode == 1


@pytest.mark.parametrize("changes", [{"TERM": "dumb"}, {"TERM": "unknown"}])
def test_a_dumb_terminal_gets_the_summary_only(folder: Path, changes: dict[str, str]) -> None:
    with terminal() as screen:
        subprocess.run(
            [*COMMAND, *["run", "h.py:quiet", "--source", "five.ndjson", "--key", "n"]],
            stderr=screen.inner, env=environment(**changes), timeout=PATIENCE, check=True,
        )  # fmt: skip
        screen.wait_for("overtakes")
    assert screen.text.startswith("      events  5")
    assert "\x1b" not in screen.text


def test_standard_output_is_left_alone_where_it_is_no_terminal(folder: Path) -> None:
    with terminal() as screen, gated("h.py:stuck", stderr=screen.inner) as (process, gate):
        feed(process, 1)
        wait_for(process.stdout, "in 1")
        screen.wait_for("1 in flight")
        gate.close()
        stdout, _ = process.communicate()
    assert stdout == ""


@contextmanager
def terminal_here() -> Iterator[Terminal]:
    """A terminal that is this process's standard error; as a fixture, pytest's own capture would undo it."""
    with terminal() as screen, os.fdopen(os.dup(screen.inner), "w") as stderr, pytest.MonkeyPatch.context() as patch:
        patch.setenv("TERM", "xterm")
        patch.delenv("COLUMNS", raising=False)
        patch.setattr(sys, "stderr", stderr)
        yield screen


def test_a_line_that_is_too_long_is_cut() -> None:
    with terminal_here() as screen, LiveLine() as line:
        line.draw("x" * 200 + "[b]")
        screen.wait_for("…")
    assert screen.text.startswith("\r\x1b[2K" + "x" * 79 + "…")


def test_it_is_not_drawn_into_an_unfinished_line() -> None:
    with terminal_here() as screen, LiveLine() as line:
        line.draw("before")
        print("one, ", end="", file=sys.stderr, flush=True)
        line.draw("between")
        print("two", file=sys.stderr)
        line.draw("after")
        screen.wait_for("after")
        assert screen.screen == ["one, two", "after"]
    assert "between" not in screen.text
