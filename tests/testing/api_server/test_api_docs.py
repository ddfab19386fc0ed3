"""The page's example, as it stands there."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from support import PATIENCE
from testing.api_server.client import names, pod
from workpool.testing.kubernetes import ApiServer

BLOCKS = re.findall(
    r"^```python\n(.*?)^```$",
    (Path(__file__).parents[3] / "docs" / "api-server.md").read_text(),
    re.MULTILINE | re.DOTALL,
)


def run(text: str, folder: Path) -> subprocess.CompletedProcess[str]:
    (folder / "test_page.py").write_text(text)
    command = [sys.executable, "-m", "pytest", "-q", "-W", "error", "-p", "no:cacheprovider", "test_page.py"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=PATIENCE, check=False)


def test_the_first_example_passes(tmp_path: Path) -> None:
    done = run(BLOCKS[0], tmp_path)
    assert done.returncode == 0, done.stdout


def test_the_first_example_finds_what_the_page_says(tmp_path: Path) -> None:
    seen = "    seen = list("
    assert seen in BLOCKS[0]
    done = run(BLOCKS[0].replace(seen, f"    kubernetes_api.compact()\n{seen}"), tmp_path)
    assert "KeyError: 'resourceVersion'" in done.stdout


def test_the_calls_on_objects_are_those_of_the_server(kubernetes_api: ApiServer) -> None:
    text = BLOCKS[1].replace("{...}", '{"metadata": {"name": "a", "namespace": "x"}}')
    exec(text, {"server": kubernetes_api})
    assert names(kubernetes_api) == []
    kubernetes_api.create("v1/pods", {**pod("a"), "metadata": {"name": "a", "annotations": {"seen": "yes"}}})
    exec(BLOCKS[2], {"server": kubernetes_api})
