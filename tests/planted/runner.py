"""Plants bugs and runs the tests that they are aimed at, each in a fork of this process, which has pytest already.

The standard input is a JSON list of bugs; for each that was run there is a line with its name and the exit code of its
run, whose output is in the bug's folder. This process has one thread, so that a fork finds no lock taken, and does not
import `workpool`: each fork imports the copy that it is to test.
"""

from __future__ import annotations

import concurrent.futures.process  # noqa: F401 - here and below: what the tests import, so that no fork has to
import gc
import json
import multiprocessing.connection  # noqa: F401
import os
import shutil
import signal
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

import hypothesis  # noqa: F401
import pytest

LIMIT = 600
"""Seconds without a new run after which those that go on are ended: then the bounds that the tests have did not hold."""

FAULT = 70
"""The exit code of a run that pytest itself did not survive, or whose bug has no place in the code."""


def run(source: str, folder: Path, bug: dict[str, Any]) -> NoReturn:
    """Be the process that a bug is run in: a session of its own."""
    code = FAULT
    try:
        os.setsid()
        for number in (signal.SIGALRM, signal.SIGTERM):
            signal.signal(number, signal.SIG_DFL)
        shutil.copytree(source, folder / "workpool", copy_function=os.symlink, ignore=lambda *_: {"__pycache__"})
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(os.open(folder / "output", os.O_WRONLY | os.O_CREAT), 1)
        os.dup2(1, 2)
        plant(folder / "workpool", **bug["planted"])
        os.environ |= {"PYTHONPATH": str(folder), "WORKPOOL_TEST_COPY": str(folder)}
        os.environ |= {"WORKPOOL_TEST_PATIENCE": str(bug["patience"])}
        os.environ["WORKPOOL_PURE"] = "1"  # The bugs are in the reference: those of the twin have a test of their own.
        sys.path.insert(0, str(folder))
        code = pytest.main(["-x", "-q", "-p", "no:cacheprovider", *bug["tests"]])
    except BaseException as error:
        print(f"{error!r}")
    finally:
        sys.stdout.flush()
        os._exit(code)  # What a bug has left behind may never let a process end in order.


def place(folder: str, name: str) -> Path:
    return Path(folder, name.replace(" ", "-"))


def plant(package: Path, file: str = "", old: str = "", new: str = "") -> None:
    """Replace the one place of a bug in a copy of the code, or nothing."""
    if file:
        text = (package / file).read_text()
        assert text.count(old) == 1, f"its place occurs {text.count(old)} times in {file}"
        (package / file).unlink()  # A link to the code, which stays as it is.
        (package / file).write_text(text.replace(old, new))


def main(source: str, folder: str, at_once: int) -> None:
    waiting = json.load(sys.stdin)[::-1]
    running: dict[int, str] = {}
    signal.signal(signal.SIGALRM, lambda *_: end(*running))
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    sys.dont_write_bytecode = True
    gc.freeze()
    try:
        while waiting or running:
            if waiting and len(running) < at_once:
                bug = waiting.pop()
                if (child := os.fork()) == 0:
                    run(source, place(folder, bug["name"]), bug)
                running[child] = bug["name"]
                signal.alarm(LIMIT)
            else:
                child, status = os.wait()
                end(child)
                name = running.pop(child)
                shutil.rmtree(place(folder, name) / "workpool", ignore_errors=True)
                print(json.dumps([name, os.waitstatus_to_exitcode(status)]), flush=True)
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        end(*running)


def end(*runs: int) -> None:
    """End runs, with the processes that they have left behind."""
    for child in runs:
        with suppress(ProcessLookupError):
            os.killpg(child, signal.SIGKILL)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
