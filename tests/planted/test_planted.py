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
    Bug(
        "block drained on an error",
        "threads.py",
        "        self._step(self._close, True)\n        self._wait(None)\n",
        "        self._step(self._close, False)\n        self._wait(None)\n",
        "conformance/test_p08_endings.py",
    ),
    Bug(
        "block left at once on an error",
        "threads.py",
        "        self._wait(None)\n",
        "",
        "conformance/test_p08_endings.py",
    ),
    Bug(
        "block not stopped by Ctrl-C in its drain",
        "threads.py",
        "                self._step(self._close, True)  # An",
        "                pass  # An",
        "threads/test_p08_threads.py",
    ),
    Bug(
        "drain that was given up dropped at exit",
        "threads.py",
        "if pool._core.state in (State.OPEN, State.DRAINING):",
        "if pool._core.state is State.OPEN:",
        "threads/test_p12_process.py",
    ),
    Bug(
        "inside for ever",
        "threads.py",
        "        self._inside.discard(get_ident())\n",
        "",
        "threads/test_p08_threads.py",
    ),
    Bug(
        "finished before the last handler is",
        "dispatch.py",
        "not self.waiting and not self.in_flight)",
        "not self.waiting)",
        "core/test_dispatch.py",
    ),
    Bug(
        "wake-up that an add has asked for and not sent lost",
        "threads.py",
        "if core.waking or core.wake():",
        "if core.wake():",
        "threads/test_p11_reentry.py",
    ),
    Bug(
        "end told to one only",
        "threads.py",
        "        if over:\n            self._ended.put(None)\n",
        "",
        "conformance/test_p08_endings.py::test_endings_are_idempotent_and_may_come_from_any_thread",
    ),
    Bug(
        "end lost by one that is cut",
        "threads.py",
        "            self._pass_on()  # Once more",
        "            pass  # Once more",
        "threads/test_p11_reentry.py::test_a_call_that_is_cut_at_any_line_leaves_a_pool_that_can_be_ended",
    ),
    Bug(
        "what is left lost by an ending that is cut",
        "dispatch.py",
        "self.left = self.left or self.unhandled()",
        "self.left = self.unhandled()",
        "threads/test_p11_reentry.py::test_a_call_that_is_cut_at_any_line_leaves_a_pool_that_can_be_ended",
    ),
    Bug(
        "drain that is cut takes adds",
        "dispatch.py",
        "        adders = self._close()  # First: cut after this, an open pool only weighs again.\n"
        "        if self.state is State.OPEN:\n            self.state = State.DRAINING\n",
        "        if self.state is State.OPEN:\n            self.state = State.DRAINING\n"
        "        adders = self._close()\n",
        "threads/test_p11_reentry.py::test_a_call_that_is_cut_at_any_line_leaves_a_pool_that_can_be_ended",
    ),
    Bug(
        "worker whose leaving is cut never leaves",
        "threads.py",
        "            self._leave(worker)  # Once more",
        "            pass  # Once more",
        "threads/test_p11_reentry.py::test_a_worker_that_is_cut_at_any_line_of_its_leaving_leaves",
    ),
    Bug(
        "adders let in one by one",
        "dispatch.py",
        "                self.admitted.append(adder)\n            except",
        "                self.admitted.append(adder)\n                break\n            except",
        "core/test_dispatch.py",
    ),
    Bug(
        "adders not let in after a take",
        "threads.py",
        "                if core.adders and core.has_room():\n                    self._admit()\n"
        "                mutex.release()\n                while",
        "                mutex.release()\n                while",
        "conformance/test_p03_isolation.py",
    ),
    Bug(
        "adders wait for half although a worker sleeps",
        "dispatch.py",
        "self.waiting <= self.half or self.asleep > 0",
        "self.waiting <= self.half",
        "conformance/test_p03_isolation.py",
    ),
    Bug(
        "key of an adder not looked at",
        "dispatch.py",
        "        hash(key)  #",
        "        #",
        "conformance/test_p07_backpressure.py",
    ),
    Bug(
        "key of an adder fails the pool",
        "dispatch.py",
        "isinstance(error, Exception):\n                    self.refused",
        "False:\n                    self.refused",
        "conformance/test_p07_backpressure.py",
    ),
    Bug(
        "no look at the backlog between half and all",
        "dispatch.py",
        "return min(self.max_backlog, self.waiting + max(1, self.max_backlog // 8))",
        "return self.max_backlog",
        "core/test_dispatch.py",
    ),
    Bug(
        "only the deepest key counts as blocked",
        "dispatch.py",
        "sum(each for each, _ in depths))",
        "depth)",
        "core/test_dispatch.py",
    ),
    Bug(
        "scan of the lanes",
        "lanes.py",
        "            behind = lanes[key]\n            if behind:",
        "            behind = next(behind for name, behind in lanes.items() if name == key)\n            if behind:",
        "conformance/test_original_faults.py",
    ),
    Bug(
        "start without a thread never ends",
        "threads.py",
        "        if not self._core.workers:\n            self._all_left()\n",
        "",
        "threads/test_p08_threads.py",
    ),
    Bug(
        "thread that comes too late let in",
        "threads.py",
        "        self._complete = False\n",
        "",
        "threads/test_p08_threads.py",
    ),
    Bug(
        "backlog handled in a forked child",
        "threads.py",
        "                    if self._mutex is not mutex:\n                        return  #",
        "                    if False:\n                        return  #",
        "threads/test_p12_process.py::test_a_handler_that_forks_leaves_the_backlog_to_the_parent",
    ),
    Bug(
        "pool failed in a forked child",
        "threads.py",
        "            if self._mutex is not mutex:\n                raise",
        "            if False:\n                raise",
        "threads/test_p12_process.py::test_a_handler_that_forks_leaves_the_backlog_to_the_parent",
    ),
    Bug(
        "key of an error that cannot be told",
        "errors.py",
        "    except Exception as error:\n        return",
        "    except ImportError as error:\n        return",
        "conformance/test_p06_failure.py",
    ),
    Bug(
        "pool that has ended entered",
        "threads.py",
        '        if self._core.state is not State.OPEN:\n            raise self._core.refusal("cannot be entered")\n',
        "",
        "conformance/test_p08_endings.py",
    ),
    Bug(
        "pool that has ended kept",
        "threads.py",
        "        _running.pop(self, None)\n",
        "",
        "threads/test_p12_process.py::test_a_pool_that_has_failed_is_free_to_go",
    ),
    Bug(
        "time-out told of a pool that has ended",
        "threads.py",
        "        if state is not State.ENDED:\n            raise StopTimeout",
        "        if True:\n            raise StopTimeout",
        "threads/test_p08_threads.py::test_a_stop_that_gives_up_as_the_pool_ends_returns_what_is_left",
    ),
    Bug(
        "add raises what logging raises",
        "threads.py",
        "        except Exception:\n            traceback",
        "        except ImportError:\n            traceback",
        "conformance/test_p03_isolation.py",
    ),
    Bug(
        "key told under the mutex",
        "threads.py",
        "            key = core.holds[worker]\n",
        "            key = describe(core.holds[worker])\n",
        "conformance/test_p06_failure.py",
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
