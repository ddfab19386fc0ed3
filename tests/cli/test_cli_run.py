"""`workpool run` over files and pipes: what it prints, where, and its exit codes."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from pathlib import Path

import pytest

from cli.command import COMMAND, PODS, counts, environment, feed, gated, wait_for, workpool
from support import PATIENCE


def test_a_real_stream_is_handled_whole_and_summed_up_on_standard_error(folder: Path) -> None:
    done = workpool("run", "h.py:quiet", "--source", PODS, "--key", "object.metadata.labels.workspace")
    assert (done.returncode, done.stdout) == (0, "")
    found = counts(done.stderr)
    assert (found["events"], found["keys"]) == ("806", "55")
    assert list(found) == ["events", "keys", "seconds", "events/s", "deepest lane", "overtakes"]


def test_off_a_terminal_nothing_moves(folder: Path) -> None:
    done = workpool(
        "run", "h.py:quiet", "--source", PODS, "--key", "object.metadata.uid", env=environment(FORCE_COLOR="1")
    )
    assert "\x1b" not in done.stderr
    assert "\r" not in done.stderr
    assert "waiting" not in done.stderr


def test_json_is_one_object_on_standard_output(folder: Path) -> None:
    key = "object.metadata.labels.workspace,type"
    done = workpool("run", "h:quiet", "--source", PODS, "--key", key, "--json", "--workers", 3)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count("\n") == 1
    found = json.loads(done.stdout)
    assert (found["events"], found["keys"]) == (806, 163)
    assert found["deepest_lane"] >= 1
    assert found["overtakes"] >= 0
    assert found["seconds"] > 0
    assert found["events_per_second"] > 0
    assert [found[name] for name in ("bad_lines", "failed", "left", "in_flight")] == [0, 0, 0, 0]


def test_events_of_one_key_come_in_order_and_handlers_may_ask_for_the_delivery(folder: Path) -> None:
    done = workpool("run", "h.py:told", "--source", "five.ndjson", "--key", "n, odd", "--workers", 1)
    assert done.stdout == "".join(f"({n}, {n % 2 == 1}) 1\n" for n in range(1, 6))


def test_a_gz_and_standard_input_give_the_same(folder: Path) -> None:
    events = (folder / "five.ndjson").read_text()
    (folder / "five.gz").write_bytes(gzip.compress(events.encode()))
    for source, piped in (("five.gz", None), ("-", events)):
        done = workpool("run", "h.py:echo", "--source", source, "--key", "odd", "--workers", 1, input=piped)
        assert (done.returncode, sorted(done.stdout.split())) == (0, ["1", "2", "3", "4", "5"])


@pytest.mark.parametrize("backlog", [1, 2, 0])
def test_the_backlog_may_be_tiny_or_without_a_bound(folder: Path, backlog: int) -> None:
    done = workpool(
        "run", "h.py:quiet", "--source", PODS, "--key", "object.metadata.uid", "--max-backlog", backlog, "--workers", 2
    )
    assert (done.returncode, counts(done.stderr)["events"]) == (0, "806")


def test_standard_input_that_is_empty_or_closed_ends_cleanly(folder: Path) -> None:
    done = workpool("run", "h.py:quiet", "--source", "-", "--key", "n", input="")
    assert (done.returncode, counts(done.stderr)["events"]) == (0, "0")
    done = shell(f"{' '.join(COMMAND)} run h.py:quiet --source - --key n <&-")
    assert (done.returncode, counts(done.stderr)["events"]) == (0, "0")


# Bad lines.


BAD = '{"n": 1}\nnope\n{"m": 2}\n\n{"n": {"x": 1}}\n{"n": 3}\n'


def test_a_bad_line_stops_the_reading_and_what_came_before_is_handled(folder: Path) -> None:
    (folder / "bad.ndjson").write_text(BAD)
    done = workpool("run", "h.py:echo", "--source", "bad.ndjson", "--key", "n")
    assert (done.returncode, done.stdout) == (1, "1\n")
    assert done.stderr.startswith("workpool: bad.ndjson:2: not JSON: Expecting value at column 1\n")
    assert counts(done.stderr)["events"] == "1"
    assert counts(done.stderr)["bad lines"] == "1"


def test_bad_lines_are_skipped_counted_told_and_kept(folder: Path) -> None:
    (folder / "kept").write_text("from an earlier run\n")
    done = workpool(
        "run", "h.py:echo", "--source", "-", "--key", "n", "--on-bad-line", "skip", "--bad-lines", "kept", input=BAD
    )
    assert (done.returncode, sorted(done.stdout.split())) == (0, ["1", "3"])
    assert done.stderr.splitlines()[:3] == [
        "workpool: <stdin>:2: not JSON: Expecting value at column 1",
        "workpool: <stdin>:3: no key: n is null or missing",
        "workpool: <stdin>:5: no key: n is an object, and cannot be a key",
    ]
    assert counts(done.stderr)["bad lines"] == "3"
    assert (folder / "kept").read_text() == 'nope\n{"m": 2}\n{"n": {"x": 1}}\n'


def test_only_the_first_bad_lines_are_shown(folder: Path) -> None:
    done = workpool("run", "h.py:echo", "--source", "-", "--key", "n", "--on-bad-line", "skip", input="nope\n" * 1000)
    assert done.stderr.count("not JSON") == 10
    assert "more bad lines follow" in done.stderr
    assert counts(done.stderr)["bad lines"] == "1,000"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_full_disk_under_the_bad_lines_ends_the_run(folder: Path) -> None:
    done = workpool(
        "run",
        "h.py:echo",
        "--source",
        "-",
        "--key",
        "n",
        "--on-bad-line",
        "skip",
        "--bad-lines",
        "/dev/full",
        input=BAD,
    )
    assert (done.returncode, done.stdout) == (1, "1\n")
    assert done.stderr.startswith("workpool: cannot keep bad lines in /dev/full: No space left on device\n")


def test_a_truncated_gz_is_told_even_where_bad_lines_are_skipped(folder: Path) -> None:
    (folder / "cut.gz").write_bytes(PODS.read_bytes()[:20_000])
    done = workpool("run", "h.py:quiet", "--source", "cut.gz", "--key", "object.metadata.uid", "--on-bad-line", "skip")
    events = int(counts(done.stderr)["events"])
    assert (done.returncode, 0 < events < 806) == (1, True)
    assert done.stderr.startswith(f"workpool: cut.gz:{events + 1}: cannot be read on: Compressed file ended")
    assert "Traceback" not in done.stderr


# Wrong arguments: one line, exit 2, nothing started.


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("h.py:echo --source none --key n", "cannot read none: No such file or directory"),
        ("h.py:echo --source . --key n", "cannot read .: Is a directory"),
        ("none.py:echo --source five.ndjson --key n", "there is no file none.py"),
        ("h.py:ecko --source five.ndjson --key n", "h.py has no 'ecko'; did you mean 'echo'?"),
        ("h.py:echo --source five.ndjson --key n.", "the key 'n.' is not JMESPath: Expecting: "),
        (
            f"h.py:echo --source five.ndjson --key n --workers {10**20}",
            "cannot start 100,000,000,000,000,000,000 workers",
        ),
        (
            "h.py:echo --source five.ndjson --key n --bad-lines kept",
            "--bad-lines keeps what --on-bad-line skip skips, and without that nothing is",
        ),
        (
            "h.py:echo --source five.ndjson --key n --on-bad-line skip --bad-lines none/kept",
            "cannot write none/kept: No such file or directory",
        ),
        (
            "h.py:echo --source five.ndjson --key n --on-bad-line skip --bad-lines ./five.ndjson",
            "--bad-lines would replace the source five.ndjson",
        ),
    ],
)
def test_a_wrong_argument_is_one_line(folder: Path, arguments: str, message: str) -> None:
    done = workpool("run", *arguments.split())
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert done.stderr.startswith(f"workpool: {message}")
    assert not (folder / "kept").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("h.py:echo --source none --key n", "cannot read none: No such file or directory"),
        ("h.py:echo --source five.ndjson --key n.", "the key 'n.' is not JMESPath: Expecting: "),
        ("h.py:echo --source five.ndjson --key n -n shop", "--namespace is for a source of Kubernetes"),
    ],
)
def test_a_wrong_argument_leaves_the_bad_lines_of_an_earlier_run(folder: Path, arguments: str, message: str) -> None:
    (folder / "kept").write_text("from an earlier run\n")
    done = workpool("run", *arguments.split(), "--on-bad-line", "skip", "--bad-lines", "kept")
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert done.stderr.startswith(f"workpool: {message}")
    assert (folder / "kept").read_text() == "from an earlier run\n"


def test_bad_lines_do_not_replace_what_standard_input_comes_from(folder: Path) -> None:
    events = (folder / "five.ndjson").read_text()
    options = ["--source", "-", "--key", "n", "--on-bad-line", "skip", "--bad-lines", "five.ndjson"]
    with (folder / "five.ndjson").open() as stdin:
        done = workpool("run", "h.py:echo", *options, stdin=stdin)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "workpool: --bad-lines would replace the source -\n"
    assert (folder / "five.ndjson").read_text() == events


@pytest.mark.parametrize("wrong", [["--workers", "0"], ["--max-backlog", "-1"], ["--on-bad-line", "ask"], ["--nope"]])
def test_usage_errors_are_plain(folder: Path, wrong: list[str]) -> None:
    done = workpool("run", "h.py:echo", "--source", "five.ndjson", "--key", "n", *wrong)
    assert (done.returncode, done.stdout) == (2, "")
    assert "Error: " in done.stderr
    assert wrong[0] in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stderr.isascii()


def test_help_shows_examples_line_by_line() -> None:
    done = workpool("run", "--help")
    assert done.returncode == 0
    lines = [line.strip() for line in done.stdout.splitlines()]
    assert "workpool run pods.py:follow --source pods.gz --key object.metadata.uid" in lines
    assert max(map(len, done.stdout.splitlines())) <= 80


def test_without_arguments_there_is_help_and_a_version_can_be_asked_for() -> None:
    done = workpool()
    assert "Usage: workpool" in done.stdout + done.stderr
    assert "run" in done.stdout + done.stderr
    done = workpool("--version")
    assert (done.returncode, done.stdout.split()[0]) == (0, "workpool")


@pytest.mark.parametrize("package", ["typer", "jmespath", "rich"])
def test_without_the_extra_there_is_one_line(package: str) -> None:
    script = f"import sys; sys.modules[{package!r}] = None; import workpool.cli; workpool.cli.main()"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert package in done.stderr
    assert "pip install 'workpool[cli]'" in done.stderr


# Handlers that raise.


def test_a_handler_that_raises_is_told_once_and_what_is_left_is_counted(folder: Path) -> None:
    done = workpool("run", "h.py:fail", "--source", "five.ndjson", "--key", "n", "--workers", 1)
    assert (done.returncode, done.stdout) == (1, "")
    lines = done.stderr.splitlines()
    assert lines[:2] == ["workpool: the handler of key 3 raised at attempt 1", "Traceback (most recent call last):"]
    assert 'h.py"' in lines[2]
    assert done.stderr.count("Traceback") == 1
    assert done.stderr.count("ValueError: three") == 1
    assert "left, by key: 3 (1), 4 (1), 5 (1)" in done.stderr or "left, by key: 3 (1)" in done.stderr
    found = counts(done.stderr)
    assert (found["events"], found["failed"]) == ("2", "1")
    assert 1 <= int(found["left"]) <= 3


def test_logging_that_the_handlers_set_up_has_the_failure_and_its_traceback(folder: Path) -> None:
    (folder / "logged.py").write_text("import logging\nlogging.basicConfig()\n" + (folder / "h.py").read_text())
    done = workpool("run", "logged.py:fail", "--source", "five.ndjson", "--key", "n")
    assert done.returncode == 1
    assert "ERROR:workpool:" in done.stderr
    assert done.stderr.count("Traceback") == 1
    assert "the handler of key 3 raised at attempt 1\nValueError: three\n" in done.stderr


def test_the_pool_still_warns_where_nobody_set_up_logging(folder: Path) -> None:
    with gated("h.py:stuck", "--max-backlog", 4) as (process, gate):
        feed(process, 1)
        wait_for(process.stdout, "in 1")
        feed(process, 1, 1, 1)
        assert wait_for(process.stderr, "half of max_backlog").startswith("pool 'run': ")
        gate.close()
        feed(process)
        process.communicate()
        assert process.returncode == 0


def shell(script: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", "-c", script], capture_output=True, text=True, timeout=PATIENCE, check=False, env=environment()
    )


# Streams that close or fill up.


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_standard_output_closed_early_is_no_traceback(folder: Path, unbuffered: str) -> None:
    command = f"{' '.join(COMMAND)} run h.py:loud --workers 1 --source {PODS} --key object.metadata.uid"
    done = shell(f"export PYTHONUNBUFFERED={unbuffered}; {command} | head -1; exit ${{PIPESTATUS[0]}}")
    assert (done.returncode, len(done.stdout)) == (141, 1001)
    assert done.stderr.startswith("workpool: standard output was closed\n")
    assert "Traceback" not in done.stderr
    assert "left" in counts(done.stderr)


@pytest.mark.parametrize("rows", [1, 100_000])
def test_a_table_at_exit_into_a_closed_pipe_is_no_traceback(folder: Path, rows: int) -> None:
    command = f"{' '.join(COMMAND)} run h.py:table --source five.ndjson --key n"
    done = shell(f"export TABLE={rows}; {command} | head -0; exit ${{PIPESTATUS[0]}}")
    assert done.returncode in (0, 141)
    assert "Traceback" not in done.stderr
    assert "Broken" not in done.stderr
    assert counts(done.stderr)["events"] == "5"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("what", ["h.py:table --json", "h.py:echo"])
def test_a_full_disk_under_standard_output_is_told_in_one_line(folder: Path, what: str, unbuffered: str) -> None:
    script = f"{' '.join(COMMAND)} run {what} --source five.ndjson --key n >/dev/full"
    done = shell(f"export PYTHONUNBUFFERED={unbuffered}; {script}")
    assert done.returncode == 1
    assert "No space left on device" in done.stderr
    assert "Exception ignored" not in done.stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_full_disk_under_a_table_at_exit_is_told_in_one_line(folder: Path) -> None:
    done = shell(f"export TABLE=3; {' '.join(COMMAND)} run h.py:table --source five.ndjson --key n >/dev/full")
    assert done.returncode == 1
    assert done.stderr.endswith("workpool: cannot write to standard output: No space left on device\n")


@pytest.mark.parametrize("streams", ["2>&-", ">&- 2>&-", "2>/dev/full", "<&- >&- 2>&-"])
def test_closed_or_full_streams_do_not_change_the_run(folder: Path, streams: str) -> None:
    done = shell(f"{' '.join(COMMAND)} run h.py:quiet --source five.ndjson --key n {streams}")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
