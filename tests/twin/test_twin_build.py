"""How the twin is built, and what is in use where it is not."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import workpool
from support import PATIENCE

ROOT = Path(workpool.__file__).parents[2]

pytestmark = pytest.mark.skipif(not (ROOT / "src/twin").is_dir(), reason="this is not the source tree")


def test_where_there_is_no_compiler_the_reference_is_installed(tmp_path: Path) -> None:
    shutil.copytree(
        ROOT / "src", tmp_path / "src", ignore=shutil.ignore_patterns("__pycache__", "_twin.*", "*.egg-info")
    )
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tmp_path)
    build = [sys.executable, "setup.py", "-q", "build_ext", "--inplace"]
    environment = os.environ | {"CC": "no-such-compiler", "PYTHONPATH": str(tmp_path / "src")}
    built = subprocess.run(build, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    assert "no-such-compiler" in built.stderr, "the reason is told"
    program = "import workpool; print(workpool.COMPILED, workpool.__file__)"
    found = subprocess.check_output([sys.executable, "-c", program], env=environment, text=True, timeout=PATIENCE)
    assert found.split() == ["False", str(tmp_path / "src/workpool/__init__.py")]


@pytest.mark.parametrize(("value", "compiled"), [("1", False), ("0", True), ("", True), ("yes", False)])
def test_the_environment_chooses_the_reference(value: str, compiled: bool) -> None:
    program = "import workpool; print(workpool.COMPILED)"
    environment = os.environ | {"WORKPOOL_PURE": value}
    found = subprocess.check_output([sys.executable, "-c", program], env=environment, text=True, timeout=PATIENCE)
    assert found.strip() == str(compiled)
