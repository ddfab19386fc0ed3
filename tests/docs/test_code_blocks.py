"""The Python of the pages runs as it stands there. What counts as a block, and how it is run: `run_page.py`."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from docs.run_page import blocks
from support import PATIENCE

ROOT = Path(__file__).parents[2]
RUNNER = Path(__file__).with_name("run_page.py")
DOCS = ROOT / "docs"

GIVEN = {
    "README.md": 'stream = [{"account": "a"}, {"account": "b"}]',
    "docs/drivers.md": "handle = book = print\nentry = 1",
    "docs/failures.md": (
        "from workpool import EventWorkerPool\nhandle = print\npool = EventWorkerPool(handle).start()\n"
        "for key in ('account-7', 'account-8'):\n    pool.park(key)\n    pool.add(key, 1)\n"
        "while pool.stats().parked < 2:\n    pass"
    ),
    "docs/simulation.md": (
        "import asyncio, sys\nfrom collections import Counter\n"
        f"sys.path.append({str(ROOT / 'examples')!r})\nfrom ledger_race import TRANSFERS\n"
        "account, amount, balances = 'a', 1, {'a': 1}\nread, write = balances.get, balances.__setitem__"
    ),
}
"""What the readers of a page have, that its blocks only name."""

ELSEWHERE = {"docs/kubernetes.md", "docs/api-server.md", "docs/pytest.md"}
"""Pages whose blocks need a server, and have tests of their own beside those of the server."""

PAGES = [
    name
    for path in [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]
    if (name := path.relative_to(ROOT).as_posix()) not in ELSEWHERE and blocks(path.read_text("utf-8"))
]


def run(page: Path, folder: Path, given: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "error", RUNNER, page, given],
        cwd=folder, capture_output=True, text=True, timeout=PATIENCE, check=False,
        env=os.environ | {"PYTHONDONTWRITEBYTECODE": "1"},
    )  # fmt: skip


@pytest.mark.parametrize("name", PAGES)
def test_the_blocks_of_a_page_run_in_order(name: str, tmp_path: Path) -> None:
    done = run(ROOT / name, tmp_path, GIVEN.get(name, ""))
    assert done.returncode == 0, done.stderr


def test_what_is_given_is_given_to_a_page_that_there_is() -> None:
    assert set(GIVEN) <= set(PAGES)


def test_a_page_for_its_own_sake_is_given_nothing() -> None:
    """A tutorial and a how-to are whole."""
    assert not [name for name in GIVEN if "tutorial" in name or "how-to" in name or "index" in name]


def test_few_blocks_are_not_run_and_each_says_why() -> None:
    found = [block for name in PAGES for block in blocks((ROOT / name).read_text("utf-8"))]
    reasons = [block.not_run for block in found if block.not_run is not None]
    assert all(reasons)
    assert len(reasons) <= 2, reasons


@pytest.mark.parametrize(
    ("block", "told"),
    [
        ("```python\nright = 1\n\nraise ValueError('wrong')\n```", "7: ValueError: wrong"),
        ("- In a list:\n\n  ```python\n  right = (\n  ```", "7: SyntaxError"),
        ("```python\ndef test_wrong():\n    assert made == 2\n```", "6: AssertionError"),
        ("```python\nprint(made)\n```\n\n```text\n2\n```", "5: it prints\n1\nand the page says\n2"),
        ("<!-- raises: KeyError -->\n```python\nmade\n```", "6: it should raise KeyError, and does not"),
        ("```python\nimport asyncio\n\nawait asyncio.sleep(0)\n\nmissing\n```", "9: NameError"),
        ("```python\n# module.py\nraise OSError\n```\n\n```python\nimport module\n```", "10: OSError"),
    ],
)
def test_a_wrong_block_is_told_with_its_page_and_line(block: str, told: str, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"```python\nmade = 1\n```\n{block}\n", "utf-8")
    done = run(page, tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith(f"{page}:{told}"), done.stderr


def test_a_block_that_is_marked_is_not_run(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("<!-- not run: it is wrong -->\n```python\nmissing\n```\n", "utf-8")
    assert run(page, tmp_path).returncode == 0


def test_every_how_to_is_linked_from_the_front_page() -> None:
    front = (DOCS / "index.md").read_text("utf-8")
    linked = set(re.findall(r"\]\(([^)#]+\.md)", front))
    guides = {path.relative_to(DOCS).as_posix() for path in (DOCS / "how-to").glob("*.md")}
    assert guides
    assert guides <= linked
