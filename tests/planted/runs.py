"""The runs of planted bugs, in a process beside the tests."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import workpool
from support import PATIENCE

HERE = Path(__file__).parent
NONE = "no bug"


@dataclass(frozen=True)
class Bug:
    """A fault to plant, and the test that has to see it."""

    name: str
    file: str
    old: str
    new: str
    aim: str


class Runs:
    """The runs of bugs, and one of all their tests without any: two for each processor at once, for some only wait."""

    def __init__(self, bugs: list[Bug]) -> None:
        self.temporary = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        self.folder = folder = Path(self.temporary.name)
        self.codes: dict[str, int] = {}
        aims = {bug.name: str(HERE.parent / bug.aim) for bug in bugs}
        asked: list[dict[str, Any]] = [
            {"name": NONE, "planted": {}, "tests": sorted(set(aims.values())), "patience": PATIENCE}
        ]
        for bug in bugs:
            planted = {name: value for name, value in asdict(bug).items() if name in ("file", "old", "new")}
            asked.append({"name": bug.name, "planted": planted, "tests": [aims[bug.name]], "patience": 2})
        self.process = subprocess.Popen(
            [
                sys.executable,
                HERE / "runner.py",
                Path(workpool.__file__).parent,
                folder,
                str(2 * (os.cpu_count() or 1)),
            ],
            env=os.environ | {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
            cwd=HERE.parent.parent,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdin is not None
        with self.process.stdin as pipe:
            json.dump(asked, pipe)

    def result(self, name: str) -> tuple[int, str]:
        """Wait for a run: its exit code, and what it printed."""
        assert self.process.stdout is not None
        while name not in self.codes:
            line = self.process.stdout.readline()
            assert line, "the runner has ended before its time"
            done, self.codes[done] = json.loads(line)
        output = self.folder / name.replace(" ", "-") / "output"
        return self.codes[name], output.read_text(errors="replace") if output.exists() else ""

    def close(self) -> None:
        self.process.terminate()
        self.process.wait()
        if self.process.stdout is not None:
            self.process.stdout.close()
        self.temporary.cleanup()
