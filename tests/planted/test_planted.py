"""The suite is proven by planted bugs: each, in a copy of the code, fails the tests that it is aimed at.

A bug is one replacement of a text that occurs just once, so that a change of the code that leaves a bug without its
place is seen here too.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

import workpool

TESTS = Path(__file__).parent.parent
SOURCE = Path(workpool.__file__).parent


@dataclass(frozen=True)
class Bug:
    """A fault to plant, and the tests that have to see it."""

    name: str
    file: str
    old: str
    new: str
    aim: str


BUGS = [
    Bug("LIFO lane", "lanes.py", "behind.popleft()", "behind.pop()", "conformance/test_p02_order.py"),
    Bug("lane claimed twice", "lanes.py", "idle = len(lanes) > keys", "idle = True", "conformance/test_p02_order.py"),
    Bug("wake-up lost", "lanes.py", "return idle and self.wake()", "return False", "conformance/test_p05_wakeup.py"),
    Bug(
        "wake-up not passed on",
        "threads.py",
        "                if core.wake():\n                    wakeups.put(None)\n",
        "",
        "conformance/test_p05_wakeup.py",
    ),
    Bug(
        "wake-up of an add that was cut lost",
        "threads.py",
        "if core.waking or core.wake():",
        "if False:",
        "threads/test_p11_reentry.py",
    ),
    Bug(
        "lane kept after a raise",
        "threads.py",
        "self._tell(core.fail(worker, None if ended else item, error, ended))",
        "pass",
        "conformance/test_p06_failure.py",
    ),
    Bug(
        "failure not told",
        "threads.py",
        '_log.error(\n                "pool %r: the handler',
        '_log.debug(\n                "pool %r: the handler',
        "conformance/test_p06_failure.py",
    ),
    Bug(
        "failed event lost",
        "lanes.py",
        "        self.ready.append(item)\n        self.holds",
        "        self.holds",
        "conformance/test_p06_failure.py",
    ),
    Bug(
        "event dropped at stop",
        "lanes.py",
        "found.extend((key, event) for event in behind or ())",
        "pass",
        "conformance/test_p08_endings.py",
    ),
    Bug(
        "stop forgets the heads",
        "lanes.py",
        "found.append(heads[id(key)])",
        "pass",
        "conformance/test_p01_exactly_once.py",
    ),
    Bug(
        "add accepted after the end",
        "dispatch.py",
        "        self.limit = 0\n        return [",
        "        return [",
        "conformance/test_p08_endings.py",
    ),
    Bug(
        "bound ignored",
        "lanes.py",
        "if waiting >= self.limit and not force:",
        "if self.limit == 0 and not force:",
        "conformance/test_p07_backpressure.py",
    ),
    Bug(
        "waiting adders passed by",
        "dispatch.py",
        "        self.limit = 0  # Until",
        "        # Until",
        "core/test_dispatch.py",
    ),
    Bug(
        "waiting adder forgotten",
        "threads.py",
        "        self._tell(self._core.admitted)\n",
        "",
        "conformance/test_p07_backpressure.py",
    ),
    Bug(
        "handler waits for itself",
        "dispatch.py",
        "        if inside:\n            return self.submit(key, event, True)\n",
        "",
        "conformance/test_p07_backpressure.py",
    ),
    Bug(
        "head-of-line scan",
        "lanes.py",
        "item = ready.popleft()\n                self.holds",
        "item = min(ready, key=len)\n                ready.remove(item)\n                self.holds",
        "conformance/test_original_faults.py",
    ),
    Bug(
        "head-of-line blocking",
        "lanes.py",
        "if not ready or not self.serving:",
        "if not ready or not self.serving or in_flight:",
        "conformance/test_p03_isolation.py",
    ),
    Bug(
        "a key keeps its worker",
        "lanes.py",
        "                ready.append((key, behind.popleft()))\n",
        "                ready.appendleft((key, behind.popleft()))\n",
        "conformance/test_p03_isolation.py",
    ),
    Bug(
        "handled event kept alive",
        "threads.py",
        "key, item, _result = item[0], None, None",
        "key, item = item[0], None",
        "conformance/test_p04_residue.py",
    ),
    Bug("idle key kept", "threads.py", "del key  #", "#", "conformance/test_p04_residue.py"),
    Bug("idle lane kept", "lanes.py", "del lanes[key]", "pass", "conformance/test_p04_residue.py"),
    Bug(
        "dict that grew kept",
        "lanes.py",
        "                self.lanes = {}  #",
        "                pass  #",
        "conformance/test_p04_residue.py",
    ),
    Bug(
        "thread left behind",
        "threads.py",
        "            thread.join()\n",
        "            pass\n",
        "threads/test_p08_threads.py",
    ),
    Bug(
        "sleeping worker left behind",
        "threads.py",
        "        self._wakeups.put(None)  # The next that sleeps may leave too.\n",
        "",
        "conformance/test_p08_endings.py",
    ),
    Bug(
        "miscounted",
        "lanes.py",
        "            self.handled = handled + 1\n",
        "            self.handled += bool(behind)\n",
        "conformance/test_p10_stats.py",
    ),
    Bug(
        "half an add",
        "lanes.py",
        "                lanes.popitem()  #",
        "                pass  #",
        "threads/test_p11_reentry.py",
    ),
    Bug(
        "an add inside the pool let in",
        "threads.py",
        "        require_outside(mutex)\n        gate = None\n",
        "        gate = None\n",
        "threads/test_p11_reentry.py",
    ),
    Bug(
        "handled and returned",
        "threads.py",
        "core.fail(worker, None if ended else item, error, ended)",
        "core.fail(worker, item, error, ended)",
        "threads/test_p11_reentry.py",
    ),
    Bug("dropped at exit", "threads.py", "atexit.register(_drain_all)\n", "", "threads/test_p12_process.py"),
    Bug(
        "usable after a fork",
        "threads.py",
        "        pool._mutex = Forked()\n",
        "        pass\n",
        "threads/test_p12_process.py",
    ),
]  # fmt: skip


def run_with(bug: Bug, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run the tests that a bug is aimed at, against a copy of the code with the bug in it."""
    copy = folder / bug.name.replace(" ", "-")
    shutil.copytree(SOURCE, copy / "workpool", ignore=shutil.ignore_patterns("__pycache__"))
    path = copy / "workpool" / bug.file
    text = path.read_text()
    assert text.count(bug.old) == 1, f"the place of {bug.name!r} occurs {text.count(bug.old)} times in {bug.file}"
    path.write_text(text.replace(bug.old, bug.new))
    environment = os.environ | {"PYTHONPATH": str(copy), "WORKPOOL_TEST_COPY": str(copy), "WORKPOOL_TEST_PATIENCE": "2"}
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", str(TESTS / bug.aim)],
        env=environment,
        cwd=TESTS.parent,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Future[subprocess.CompletedProcess[str]]]]:
    """All runs, started at once on as many threads as there are processors."""
    folder = tmp_path_factory.mktemp("planted")
    with ThreadPoolExecutor(os.cpu_count()) as executor:
        yield {bug.name: executor.submit(run_with, bug, folder) for bug in BUGS}


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.name)
def test_a_planted_bug_is_caught(bug: Bug, runs: dict[str, Future[subprocess.CompletedProcess[str]]]) -> None:
    result = runs[bug.name].result()
    assert result.returncode == 1, f"{bug.name} passed {bug.aim}\n{result.stdout}{result.stderr}"
