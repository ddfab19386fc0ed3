"""Runs tests against one copy of the code after another, each time in a fork of this process, which has pytest already.

A run is a line of JSON on the standard input, and its exit code the answer. This process has one thread, so that a fork
finds no lock taken, and does not import `workpool`: each fork imports the copy that it is to test.
"""

from __future__ import annotations

import concurrent.futures.process  # noqa: F401 - here and below: what the tests import, so that no fork has to
import gc
import json
import multiprocessing.connection  # noqa: F401
import os
import signal
import sys
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

import hypothesis  # noqa: F401
import pytest

LIMIT = 300
"""Seconds after which a run is ended, with all its processes: then the bounds that the tests have did not hold."""

FAULT = 70
"""The exit code of a run that pytest itself did not survive."""


def run(copy: str, patience: float, tests: list[str]) -> NoReturn:
    """Run tests here, in a session of its own; what they print is in `output`, beside the copy."""
    code = FAULT
    try:
        os.setsid()
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(os.open(Path(copy, "output"), os.O_WRONLY | os.O_CREAT), 1)
        os.dup2(1, 2)
        os.environ |= {"PYTHONPATH": copy, "WORKPOOL_TEST_COPY": copy, "WORKPOOL_TEST_PATIENCE": str(patience)}
        sys.path.insert(0, copy)
        code = pytest.main(["-x", "-q", "-p", "no:cacheprovider", *tests])
        sys.stdout.flush()
    finally:
        os._exit(code)  # What a bug has left behind may never let a process end in order.


def main() -> None:
    gc.freeze()
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            run(*json.loads(line))
        signal.signal(signal.SIGALRM, lambda *_, child=child: os.killpg(child, signal.SIGKILL))
        signal.alarm(LIMIT)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        signal.alarm(0)
        with suppress(ProcessLookupError):
            os.killpg(child, signal.SIGKILL)  # The processes that it has left behind.
        print(code, flush=True)


if __name__ == "__main__":
    main()
