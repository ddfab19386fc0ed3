"""What the tests of the command share."""

from __future__ import annotations

from pathlib import Path

import pytest

from cli.command import HANDLERS


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder: `h.py` with handlers, and `five.ndjson` with the events 1 to 5."""
    (tmp_path / "h.py").write_text(HANDLERS)
    (tmp_path / "five.ndjson").write_text(
        "".join(f'{{"n": {n}, "odd": {"true" if n % 2 else "false"}}}\n' for n in range(1, 6))
    )
    monkeypatch.chdir(tmp_path)
    return tmp_path
