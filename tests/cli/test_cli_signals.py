"""Ctrl-C and SIGTERM, whatever the threads of the command are waiting for."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from cli.command import counts, feed, gated, started, wait_for

SIGNALS = pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])


@SIGNALS
def test_a_signal_is_heard_while_standard_input_is_read(folder: Path, number: int, code: int) -> None:
    with started("run", "h.py:echo", "--source", "-", "--key", "n") as process:
        feed(process, 1, 2)
        wait_for(process.stdout, "2")
        process.send_signal(number)
        assert process.wait() == code
        stderr = process.stderr.read()  # type: ignore[union-attr]
    assert stderr.startswith("workpool: draining 0 events; Ctrl-C again to stop\n")
    assert counts(stderr)["events"] == "2"
    assert "Traceback" not in stderr


@SIGNALS
def test_a_signal_drains_what_was_accepted_though_the_pool_is_full(folder: Path, number: int, code: int) -> None:
    with gated("h.py:stuck", "--workers", 1, "--max-backlog", 2) as (process, gate):
        feed(process, *range(100))
        wait_for(process.stdout, "in 0")
        process.send_signal(number)
        told = wait_for(process.stderr, "draining")
        gate.close()
        assert process.wait() == code
        stderr = process.stderr.read()  # type: ignore[union-attr]
    assert told in [f"workpool: draining {n} events; Ctrl-C again to stop\n" for n in (1, 2, 3)]
    assert 1 <= int(counts(stderr)["events"]) <= 3
    assert "left" not in counts(stderr)


def test_a_second_signal_stops_and_says_what_is_left(folder: Path) -> None:
    with gated("h.py:stuck", "--workers", 1, "--on-bad-line", "skip") as (process, gate):
        feed(process, 1, 2, 2, 3)
        process.stdin.write("so far\n")  # type: ignore[union-attr]
        process.stdin.flush()  # type: ignore[union-attr]
        wait_for(process.stderr, "not JSON")  # Whatever came before it has been added.
        wait_for(process.stdout, "in 1")
        process.send_signal(signal.SIGINT)
        wait_for(process.stderr, "draining")
        process.send_signal(signal.SIGINT)
        wait_for(process.stderr, "workpool: stopping: up to 5 s for 1 in flight")
        gate.close()
        assert process.wait() == 130
        stderr = process.stderr.read()  # type: ignore[union-attr]
    assert stderr.startswith("workpool: left, by key: 2 (2), 3 (1)\n")
    assert (counts(stderr)["events"], counts(stderr)["left"]) == ("1", "3")


def test_a_third_signal_leaves_a_stuck_handler_behind(folder: Path) -> None:
    with gated("h.py:stuck", "--workers", 1) as (process, _):
        feed(process, 1, 2)
        wait_for(process.stdout, "in 1")
        for answer in ("draining", "stopping"):
            process.send_signal(signal.SIGINT)
            wait_for(process.stderr, answer)
        process.send_signal(signal.SIGINT)
        assert process.wait() == 130
        stderr = process.stderr.read()  # type: ignore[union-attr]
    assert "workpool: given up, for their handlers have not returned, by key: 1 (1)\n" in stderr
    assert counts(stderr)["in flight"] == "1"
    assert "Traceback" not in stderr


def test_a_stuck_handler_is_left_behind_after_a_while_too(folder: Path) -> None:
    main = "import workpool.cli.run as run; run._PATIENCE = 0.0; import workpool.cli; workpool.cli.main()"
    with gated("h.py:stuck", "--workers", 1, command=[sys.executable, "-c", main]) as (process, _):
        feed(process, 1)
        wait_for(process.stdout, "in 1")
        for answer in ("draining", "stopping"):
            process.send_signal(signal.SIGINT)
            wait_for(process.stderr, answer)
        assert process.wait() == 130
        assert "given up" in process.stderr.read()  # type: ignore[union-attr]


def test_a_handler_that_is_stuck_in_a_full_pipe_does_not_hold_the_command(folder: Path) -> None:
    (folder / "full.py").write_text("def fill(event): print('x' * 1_000_000)\n")
    with started("run", "full.py:fill", "--source", "-", "--key", "n") as process:
        feed(process, *range(9))
        assert process.stdout.read(10) == "x" * 10  # type: ignore[union-attr]
        for answer in ("draining", "stopping"):
            process.send_signal(signal.SIGINT)
            wait_for(process.stderr, answer)
        process.send_signal(signal.SIGINT)
        assert process.wait() == 130
        assert "Fatal" not in process.stderr.read()  # type: ignore[union-attr]


def test_a_failure_is_told_while_another_handler_is_still_running(folder: Path) -> None:
    with (folder / "h.py").open("a") as more:
        more.write("def either(event): fail(event) if event['n'] == 3 else stuck(event)\n")
    with gated("h.py:either") as (process, gate):
        feed(process, 1)
        wait_for(process.stdout, "in 1")
        feed(process, 3)
        wait_for(process.stderr, "ValueError: three")
        gate.close()
        assert process.wait() == 1


def test_ctrl_c_while_the_handlers_are_imported_is_no_traceback(folder: Path) -> None:
    (folder / "slow.py").write_text("import threading\nprint('here', flush=True)\nthreading.Event().wait()\n")
    with started("run", "slow.py:f", "--source", "-", "--key", "n", stdin=subprocess.DEVNULL) as process:
        wait_for(process.stdout, "here")
        process.send_signal(signal.SIGINT)
        assert process.wait() == 130
        assert process.stderr.read() == ""  # type: ignore[union-attr]
