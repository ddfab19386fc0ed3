"""The examples, run as their pages say: by the command and by the library."""

from __future__ import annotations

import gzip
import subprocess
import sys
from pathlib import Path

import pytest

import workpool as library
from cli.command import PODS, ROOT, counts, environment, workpool
from support import PATIENCE

PODS_PY = ROOT / "examples" / "pods.py"
LEDGER = ROOT / "examples" / "ledger.py"
LEDGER_RACE = ROOT / "examples" / "ledger_race.py"


def python(*args: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *map(str, args)],
        capture_output=True, text=True, timeout=PATIENCE, check=False, env=environment(),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("handler", "options"),
    [("handle(event)", ["--allow-untyped-defs"]), ("handle(event: dict[str, str]) -> None", [])],
    ids=["as it stands", "with a handler that is typed"],
)
def test_the_ten_lines_of_the_readme_are_well_typed(
    handler: str, options: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("mypy")
    monkeypatch.setenv("MYPYPATH", str(Path(library.__file__).parent.parent))
    block = (ROOT / "README.md").read_text().split("```python\n")[1].split("```")[0]
    assert "handle(event)" in block
    example = tmp_path / "example.py"
    example.write_text("stream: list[dict[str, str]] = []\n" + block.replace("handle(event)", handler))
    done = python("-m", "mypy", "--strict", "--config-file=", "--cache-dir", tmp_path / "cache", *options, example)
    assert done.returncode == 0, done.stdout + done.stderr


def check_table(text: str) -> None:
    lines = text.splitlines()
    assert lines[1].startswith("The 20 slowest of 55 workspaces")
    assert len([line for line in lines if line.startswith("ws-")]) == 20
    assert lines[-1].startswith("mean of all")
    assert max(map(len, lines)) <= 80


def test_pods_by_the_command() -> None:
    done = workpool("run", f"{PODS_PY}:follow", "--source", PODS, "--key", "object.metadata.labels.workspace")
    assert done.returncode == 0
    check_table(done.stdout)
    found = counts(done.stderr)
    assert (found["events"], found["keys"]) == ("806", "55")
    assert int(found["overtakes"]) > 0


def test_pods_by_the_library() -> None:
    done = python(PODS_PY)
    assert (done.returncode, done.stderr) == (0, "")
    check_table(done.stdout)


def test_pods_notices_changes_that_come_out_of_order(tmp_path: Path) -> None:
    changes = gzip.decompress(PODS.read_bytes()).splitlines(keepends=True)
    (tmp_path / "back").write_bytes(b"".join(reversed(changes)))
    done = workpool(
        "run", f"{PODS_PY}:follow", "--source", tmp_path / "back", "--key", "object.metadata.labels.workspace"
    )
    assert done.returncode == 1
    assert "RuntimeError: " in done.stderr
    assert " is at revision " in done.stderr


def test_pods_prints_no_table_without_events(tmp_path: Path) -> None:
    (tmp_path / "empty").write_text("")
    done = workpool("run", f"{PODS_PY}:follow", "--source", tmp_path / "empty", "--key", "a")
    assert (done.returncode, done.stdout) == (0, "")


def test_the_ledger_holds_in_order() -> None:
    done = python(LEDGER)
    assert (done.returncode, done.stderr) == (0, "")
    assert "never one overdrawn" in done.stdout


def test_the_ledger_breaks_visibly_without_order() -> None:
    done = python(LEDGER, "--unordered")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("order broke: entry ")


@pytest.mark.parametrize(("key", "code"), [("account", 0), ("number", 1)])
def test_the_ledger_by_the_command_holds_with_the_right_key_only(key: str, code: int) -> None:
    entries = python(LEDGER, "--entries").stdout
    done = workpool("run", f"{LEDGER}:book", "--source", "-", "--key", key, "--workers", 8, input=entries)
    assert done.returncode == code
    assert ("Overdrawn: entry" in done.stderr) == bool(code)
    if not code:
        assert (counts(done.stderr)["events"], counts(done.stderr)["keys"]) == ("400", "20")


@pytest.mark.parametrize("how", [[], ["--plain"]], ids=["a coroutine", "a plain function"])
def test_the_race_of_the_ledger_is_found(how: list[str]) -> None:
    done = python(LEDGER_RACE, *how)
    assert (done.returncode, done.stdout) == (1, "")
    assert "fails with AssertionError: money was lost or made" in done.stderr
    assert done.stderr.count("    ('") == 2, "two transfers are enough"
    assert "explore(Ledger.transfer" in done.stderr


def test_the_ledger_without_the_race_passes() -> None:
    done = python(LEDGER_RACE, "--fixed")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("Explored(runs=100, ")
