"""The twin is held to the reference: a second, pure copy of the package is loaded beside it."""

from __future__ import annotations

import importlib
import os
import sys
from types import ModuleType

import pytest

from workpool.twin import COMPILED

collect_ignore_glob = [] if COMPILED else ["test_*.py"]


def load_pure(*names: str) -> list[ModuleType]:
    """Import modules of the package once more, as they are without the twin."""
    ours = {name: sys.modules.pop(name) for name in list(sys.modules) if name.partition(".")[0] == "workpool"}
    before = os.environ.get("WORKPOOL_PURE")
    os.environ["WORKPOOL_PURE"] = "1"
    try:
        return [importlib.import_module(name) for name in names]
    finally:
        if before is None:
            del os.environ["WORKPOOL_PURE"]
        else:
            os.environ["WORKPOOL_PURE"] = before
        for name in [name for name in sys.modules if name.partition(".")[0] == "workpool"]:
            del sys.modules[name]
        sys.modules.update(ours)


@pytest.fixture(scope="session")
def pure() -> dict[str, ModuleType]:
    """The modules of the reference, by their last names."""
    names = ("dispatch", "lanes", "policy", "twin", "threads")
    return dict(zip(names, load_pure(*(f"workpool.{name}" for name in names)), strict=True))
