"""The reference has every public name, once."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest

PAGES = sorted((Path(__file__).parents[2] / "docs" / "reference").glob("*.md"))
SHOWN = [name for page in PAGES for name in re.findall(r"^::: (\S+)$", page.read_text("utf-8"), re.MULTILINE)]


@pytest.mark.parametrize(
    "module",
    [
        "workpool", "workpool.asyncio", "workpool.executors", "workpool.testing", "workpool.sources.kubernetes",
        "workpool.testing.kubernetes",
    ],
)  # fmt: skip
def test_it_has_what_a_module_offers(module: str) -> None:
    offered = importlib.import_module(module).__all__
    if module == "workpool":
        offered = [name for name in offered if name != "Policy"]  # An alias of four that are there.
    assert sorted(f"{module}.{name}" for name in offered) == sorted(
        name for name in SHOWN if name.rpartition(".")[0] == module
    )


def test_it_has_each_name_once() -> None:
    assert sorted(set(SHOWN)) == sorted(SHOWN)
