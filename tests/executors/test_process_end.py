"""P12 on executors: the end of the process, forks and copies."""

from __future__ import annotations

import copy
import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from executors.fakes import Inline
from support import PATIENCE, run_python
from workpool.executors import EventWorkerPool

STARTS_NOTHING = (3, 12) <= sys.version_info[:2] < (3, 13) and sys.version_info < (3, 12, 2)
"""No thread and no process can be started when the main thread has ended, and an executor of processes that has not
begun hangs: so it is from Python 3.12.0 up to 3.12.1."""

SCRIPT = """
import multiprocessing, sys, threading
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from functools import partial
from {module} import handle
from workpool.executors import EventWorkerPool

both = threading.Barrier(2)

def local(event):
    if event < 2 and sys.argv[1] == "thread":
        both.wait()  # An executor of threads starts the second while the first is busy.
    handle(event)

def main():
    global pool
    kind, given, function, busy = sys.argv[1:]
    if kind == "thread":
        make = partial(ThreadPoolExecutor, 2)
    else:
        make = partial(ProcessPoolExecutor, 2, mp_context=multiprocessing.get_context(kind))
    executor = make if given == "factory" else make()
    pool = EventWorkerPool(local if function == "local" else handle, executor=executor, workers=2).start()
    if busy == "busy":
        for event in range(2):
            pool.add(event, event)
        while pool.stats().handled < 2:
            threading.Event().wait(0.001)
    for event in range(2, 20):
        pool.add(event % 2, event)

if __name__ == "__main__":
    main()
"""


def run_script(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a script that forgets its pool; what it prints are the events, in the order in which they were handled."""
    (folder / "handlers.py").write_text("import os\n\ndef handle(event):\n    os.write(1, b'%d ' % event)\n")
    (folder / "script.py").write_text(SCRIPT.format(module="handlers"))
    return subprocess.run(
        [sys.executable, "-W", "error", "script.py", *arguments],
        cwd=folder, capture_output=True, text=True, timeout=PATIENCE, check=False,
    )  # fmt: skip


def check_drained(result: subprocess.CompletedProcess[str], first: int) -> None:
    assert (result.returncode, result.stderr) == (0, "")
    handled = list(map(int, result.stdout.split()))
    assert sorted(handled) == list(range(first, 20))
    for key in (0, 1):
        events = [event for event in handled if event % 2 == key]
        assert events == sorted(events)


@pytest.mark.parametrize("given", ["factory", "instance"])
@pytest.mark.parametrize("kind", ["thread", "spawn", "forkserver"])
def test_a_pool_that_is_forgotten_is_drained_where_its_executor_has_begun(
    kind: str, given: str, tmp_path: Path
) -> None:
    check_drained(run_script(tmp_path, kind, given, "local", "busy"), 0)


@pytest.mark.skipif(STARTS_NOTHING, reason="this Python can start nothing then")
@pytest.mark.parametrize(("kind", "function"), [("thread", "local"), ("spawn", "imported"), ("forkserver", "imported")])
def test_so_it_is_where_it_has_not_and_the_handler_can_be_imported(kind: str, function: str, tmp_path: Path) -> None:
    check_drained(run_script(tmp_path, kind, "factory", function, "idle"), 2)


@pytest.mark.skipif(STARTS_NOTHING, reason="this Python can start nothing then")
def test_a_process_that_is_started_then_does_not_find_the_functions_of_the_script(tmp_path: Path) -> None:
    """The interpreter has forgotten by then where the script is."""
    result = run_script(tmp_path, "spawn", "factory", "local", "idle")
    assert result.stdout == ""
    assert "Can't get attribute 'local'" in result.stderr
    assert "the executor has lost the event 3 times" in result.stderr
    assert "pool 'default' was not drained when the process ended" in result.stderr


@pytest.mark.skipif(not STARTS_NOTHING, reason="this Python can start threads then")
def test_where_no_thread_can_be_started_then_it_fails_loudly(tmp_path: Path) -> None:
    result = run_script(tmp_path, "thread", "factory", "local", "idle")
    if not result.stderr:  # The threads were started before the main thread had ended.
        check_drained(result, 2)
        return
    assert "can't create new thread at interpreter shutdown" in result.stderr
    assert "pool 'default' was not drained when the process ended" in result.stderr


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this platform")
def test_in_a_forked_child_every_call_raises_and_the_parent_goes_on() -> None:
    result = run_python(
        """
        import os, sys, threading, warnings
        warnings.simplefilter("ignore", DeprecationWarning)
        from concurrent.futures import ThreadPoolExecutor
        from functools import partial
        from workpool.executors import EventWorkerPool

        gate = threading.Event()
        pool = EventWorkerPool(lambda event: gate.wait(20), executor=partial(ThreadPoolExecutor, 2), workers=2).start()
        for event in range(5):
            pool.add(event, event)
        child = os.fork()
        if child == 0:
            refused = 0
            for call in (lambda: pool.add("a", 1), pool.drain, pool.stop, pool.stats, lambda: pool.left):
                try:
                    call()
                except RuntimeError as error:
                    assert "parent process" in str(error), error
                    refused += 1
            os._exit(refused)
        _, status = os.waitpid(child, 0)
        gate.set()
        pool.drain(20)
        print(os.waitstatus_to_exitcode(status), pool.stats().handled)
        """
    )
    assert (result.returncode, result.stderr, result.stdout) == (0, "", "5 5\n")


def test_a_pool_does_not_pickle_and_is_not_copied() -> None:
    pool: EventWorkerPool[Any, Any] = EventWorkerPool(print, executor=Inline(), name="orders")
    for attempt in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match="pool 'orders' holds workers and cannot be pickled or copied"):
            attempt(pool)
