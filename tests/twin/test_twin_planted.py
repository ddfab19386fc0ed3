"""The tests of the twin are proven by planted bugs too: each, in a copy of the C, fails the test that it is aimed at.

A bug is one replacement of a text that occurs just once, as in `test_planted.py`. To crash, or to hang until the run is
ended, is to fail.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

import workpool
from planted.runs import Bug
from workpool.twin import COMPILED

TESTS = Path(__file__).parent.parent
ROOT = TESTS.parent
PACKAGE = Path(workpool.__file__).parent
PASSED = (0, 5)
"""What pytest ends with where no test failed, or none was found."""

pytestmark = pytest.mark.skipif(
    not COMPILED or not (ROOT / "src/twin").is_dir(), reason="the twin is not built, or WORKPOOL_PURE=1"
)


BUGS = [
    Bug(
        "result never released",
        "hand.c",
        "        self->ended = 1;\n        Py_DECREF(result);\n",
        "        self->ended = 1;\n",
        "twin/test_twin_memory.py::test_a_handled_event_a_result_and_an_idle_key_are_released",
    ),
    Bug(
        "key not counted in the ring",
        "lanes.c",
        "ring_push_pair(self->ready, Py_NewRef(key), ",
        "ring_push_pair(self->ready, key, ",
        "twin/test_twin_memory.py::test_each_reference",
    ),
    Bug(
        "key not counted by its lane",
        "lanes.c",
        "ring->key = Py_NewRef(key);",
        "ring->key = key;",
        "twin/test_twin_memory.py::test_each_reference",
    ),
    Bug(
        "key of a lane handed over and not counted",
        "ring.h",
        "*key = Py_NewRef(((Ring *)first)->key);",
        "*key = ((Ring *)first)->key;",
        "twin/test_twin_memory.py::test_each_reference",
    ),
    Bug(
        "key kept by a lane that is gone",
        "ring.c",
        "    Py_XDECREF(ring->key);\n",
        "",
        "twin/test_twin_memory.py::test_each_reference",
    ),
    Bug(
        "key of a lane unseen by the collector",
        "ring.c",
        "    Py_VISIT(ring->key);\n",
        "",
        "twin/test_twin_memory.py::test_what_comes_and_goes_leaves_nothing",
    ),
    Bug(
        "lane in the place of another key",
        "lanes.c",
        "Py_NewRef(ring->key == key ? lane : key)",
        "Py_NewRef(lane)",
        "twin/test_twin_misuse.py::test_a_lane_does_not_stand_for_another_key",
    ),
    Bug(
        "lane seen by Python",
        "ring.c",
        "ring_has_lane(ring, first) ? ((Ring *)first)->key : first",
        "first",
        "twin/test_twin_equals_reference.py::test_lanes",
    ),
    Bug(
        "ring as a key",
        "ring.c",
        "    {Py_tp_hash, PyObject_HashNotImplemented},\n",
        "",
        "twin/test_twin_misuse.py::test_a_lane_is_no_key",
    ),
    Bug(
        "event released inside the mutex",
        "hand.c",
        "    Py_CLEAR(self->held.event);\n    if (",
        "    mutex_try(mutex, PyThread_get_thread_ident());\n    Py_CLEAR(self->held.event);\n    mutex_leave(mutex);\n"
        "    if (",
        "twin/test_twin_reentry.py::test_a_finaliser_of_an_event_may_add",
    ),
    Bug(
        "wake-up never over",
        "lanes.c",
        "    self->waking = 0;\n",
        "",
        "twin/test_twin_equals_reference.py::test_lanes",
    ),
    Bug(
        "bound ignored",
        "lanes.c",
        "if (self->waiting >= self->limit && !force)",
        "if (self->limit == 0 && !force)",
        "twin/test_twin_equals_reference.py::test_lanes",
    ),
    Bug(
        "LIFO ring",
        "ring.h",
        "    *ring_slot(ring, ring->used++) = object;\n",
        "    ring->head = (ring->head - 1) & (ring->size - 1);\n    *ring_slot(ring, 0) = object;\n    ring->used++;\n",
        "twin/test_twin_equals_reference.py::test_rings",
    ),
    Bug(
        "lane never released",
        "hand.c",
        "    self->ended = 0;\n    Py_XDECREF(lane);\n",
        "    self->ended = 0;\n",
        "twin/test_twin_memory.py::test_the_lanes_of_keys_are_released_when_they_are_idle",
    ),
    Bug(
        "ring never shrunk",
        "ring.h",
        "if (ring->size > 64 && ring->used < ring->size / 8)",
        "if (0)",
        "twin/test_twin_equals_reference.py::test_rings",
    ),
    Bug(
        "longer side moved",
        "ring.c",
        "if (to < ring->used / 2)",
        "if (to > ring->used)",
        "twin/test_twin_equals_reference.py::test_a_ring_that_is_emptied_by_deleting",
    ),
    Bug(
        "dict never shrunk",
        "lanes.c",
        "if (self->widest > SMALL &&",
        "if (0 &&",
        "twin/test_twin_memory.py::test_ten_thousand_keys",
    ),
    Bug(
        "signals unheeded in add_many",
        "seat.c",
        "if (++count % STRIDE == 0 && give_turn(state) < 0)",
        "if (++count < 0 && give_turn(state) < 0)",
        "twin/test_twin_reentry.py::test_an_endless_add_many_ends",
    ),
    Bug(
        "turn never given",
        "hand.c",
        "if (!self->is_python && give_turn(self->state) < 0)",
        "if (0 && give_turn(self->state) < 0)",
        "twin/test_twin_reentry.py::test_an_endless_flood_in_c_ends",
    ),
    Bug(
        "mutex kept by an add that raised",
        "seat.c",
        "    mutex_leave(mutex);\n    Py_DECREF(mutex);\n",
        "    if (found != FAILED) {\n        mutex_leave(mutex);\n    }\n    Py_DECREF(mutex);\n",
        "twin/test_twin_reentry.py::test_a_key_that_calls_its_pool",
    ),
    Bug(
        "error of a wake-up raised anew",
        "seat.c",
        "        PyErr_SetRaisedException(error);\n        return -1;\n",
        "        PyErr_SetObject((PyObject *)Py_TYPE(error), error);\n        Py_DECREF(error);\n        return -1;\n",
        "twin/test_twin_reentry.py::test_a_wake_up_that_raises",
    ),
    Bug(
        "fork unheeded",
        "hand.c",
        "    if (self->seat->own != mutex) {\n",
        "    if (0) {\n",
        "threads/test_p12_process.py",
    ),
    Bug(
        "end of an event lost",
        "hand.c",
        "        self->ended = 1;\n",
        "",
        "twin/test_twin_reentry.py::test_a_key_that_raises_in_a_worker",
    ),
    Bug(
        "hand entered twice",
        "hand.c",
        "    self->running = 1;\n",
        "",
        "twin/test_twin_misuse.py::test_a_hand_that_is_entered_again",
    ),
    Bug(
        "waiting adders unheeded",
        "hand.c",
        "(PyDict_GET_SIZE(self->adders) &&",
        "(0 &&",
        "conformance/test_p07_backpressure.py",
    ),
    Bug(
        "event of a held key taken for the first of an idle one",
        "lanes.c",
        "        idle = !held;\n",
        "",
        "twin/test_twin_equals_reference.py",
    ),
    Bug(
        "key without its event",
        "lanes.c",
        "            forget_last(lanes);\n",
        "",
        "twin/test_twin_memory.py::test_an_allocation_that_fails",
    ),
]


def run_with(bug: Bug, folder: Path) -> subprocess.CompletedProcess[str]:
    """Build a copy with the bug in it, and run the test that it is aimed at."""
    copy = folder / bug.name.replace(" ", "-")
    shutil.copytree(ROOT / "src/twin", copy / "src/twin")
    shutil.copytree(PACKAGE, copy / "src/workpool", ignore=shutil.ignore_patterns("__pycache__", "_twin.*"))
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy)
    path = copy / "src/twin" / bug.file
    text = path.read_text()
    assert text.count(bug.old) == 1, f"the place of {bug.name!r} occurs {text.count(bug.old)} times in {bug.file}"
    path.write_text(text.replace(bug.old, bug.new))
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST", "WORKPOOL"))}
    subprocess.run(
        [sys.executable, "setup.py", "-q", "build_ext", "--inplace"],
        env=environment | {"CFLAGS": "-O0"}, cwd=copy, capture_output=True, check=True,
    )  # fmt: skip
    assert list((copy / "src/workpool").glob("_twin.*")), f"the twin with {bug.name!r} was not built"
    source = str(copy / "src")
    file, _, name = bug.aim.partition("::")
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", str(TESTS / file), "-k", name],
        env=environment | {"PYTHONPATH": source, "WORKPOOL_TEST_COPY": source, "WORKPOOL_TEST_PATIENCE": "1"},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Future[subprocess.CompletedProcess[str]]]]:
    """All runs, started at once on as many threads as there are processors."""
    folder = tmp_path_factory.mktemp("planted-twin")
    with ThreadPoolExecutor(os.cpu_count()) as executor:
        yield {bug.name: executor.submit(run_with, bug, folder) for bug in BUGS}


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.name)
def test_a_planted_bug_is_caught(bug: Bug, runs: dict[str, Future[subprocess.CompletedProcess[str]]]) -> None:
    result = runs[bug.name].result()
    if result.returncode == 0 and " passed" not in result.stdout:
        pytest.skip(f"{bug.aim} is skipped here")
    assert result.returncode not in PASSED, f"{bug.name} passed {bug.aim}\n{result.stdout}{result.stderr}"
    assert result.returncode != 4, f"{bug.aim} is no test\n{result.stdout}{result.stderr}"
