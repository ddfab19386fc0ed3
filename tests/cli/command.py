"""Runs the command in a process of its own, as a user does."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from support import PATIENCE

ROOT = Path(__file__).parents[2]
PODS = ROOT / "examples" / "data" / "pods-small.ndjson.gz"
COMMAND = [sys.executable, "-m", "workpool"]

HANDLERS = '''
import atexit, os, sys

def quiet(event): pass

def echo(event): print(event["n"], flush=True)

def loud(event): print("x" * 1000)

def stuck(event):
    """Says that it is in, and waits until the other end of a pipe is closed."""
    print("in", event["n"], flush=True)
    os.read(int(os.environ["GATE"]), 1)

def fail(event):
    if event["n"] == 3:
        raise ValueError("three")

def told(event, delivery): print(delivery.key, delivery.attempt)

number = 3

async def later(event): pass

class Shop:
    @staticmethod
    def sell(event): pass

def table(event): pass

if "TABLE" in os.environ:
    atexit.register(lambda: print("row\\n" * int(os.environ["TABLE"])))
'''


def environment(**changes: str) -> dict[str, str]:
    """The environment, without what changes how output is written."""
    plain = {
        name: value for name, value in os.environ.items() if name not in {"PYTHONUNBUFFERED", "NO_COLOR", "COLUMNS"}
    }
    return plain | {"TERM": "xterm"} | changes


def workpool(*args: object, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run the command to its end."""
    options.setdefault("env", environment())
    return subprocess.run(
        [*COMMAND, *map(str, args)], capture_output=True, text=True, timeout=PATIENCE, check=False, **options
    )


@contextmanager
def started(*args: object, **options: Any) -> Iterator[subprocess.Popen[str]]:
    """Start the command with pipes; it is killed after the block, or when patience ends, so that no read hangs."""
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    options = {"env": environment(), **pipes, **options}
    command = options.pop("command", COMMAND)
    process = subprocess.Popen([*command, *map(str, args)], text=True, **options)
    watch = threading.Timer(PATIENCE, process.kill)
    watch.start()
    try:
        yield process
    finally:
        watch.cancel()
        process.kill()
        for stream in (process.stdin, process.stdout, process.stderr):
            if stream is not None:
                stream.close()
        process.wait()


@contextmanager
def gated(handlers: str, *args: object, **options: Any) -> Iterator[tuple[subprocess.Popen[str], IO[bytes]]]:
    """Start the command on standard input, with the gate at which the handler `stuck` waits until it is closed."""
    inner, outer = os.pipe()
    gate = os.fdopen(outer, "wb")
    try:
        options |= {"env": environment(GATE=str(inner)), "pass_fds": [inner]}
        with started("run", handlers, "--source", "-", "--key", "n", *args, **options) as process:
            yield process, gate
    finally:
        gate.close()
        os.close(inner)


def feed(process: subprocess.Popen[str], *numbers: int) -> None:
    """Write events to standard input."""
    assert process.stdin is not None
    process.stdin.write("".join(f'{{"n": {number}}}\n' for number in numbers))
    process.stdin.flush()


def wait_for(stream: IO[str] | None, text: str) -> str:
    """Read lines until one has the text; returns all of them."""
    assert stream is not None
    lines = []
    for line in stream:
        lines.append(line)
        if text in line:
            return "".join(lines)
    raise AssertionError(f"{text!r} never came, but: {''.join(lines)}")


def counts(stderr: str) -> dict[str, str]:
    """The summary, by its names."""
    return dict(re.findall(r"^ *([a-z/ ]+)  (\S+)", stderr, re.MULTILINE))
