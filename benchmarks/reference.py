"""The reference: the package once more, as it is without its compiled twin, in the same process and so the same run."""

from __future__ import annotations

import importlib
import os
import sys
from types import ModuleType
from typing import Any

from workpool.twin import COMPILED

__all__ = ["COMPILED", "PURE", "PureLoopPool", "PurePool"]

_SWITCH = "WORKPOOL_PURE"
PURE = {_SWITCH: "1"}
"""What chooses the reference, in the environment of a process of its own."""


def _load(*names: str) -> list[ModuleType]:
    """Import modules of the package a second time, and leave the first copy to whoever imports it next."""
    ours = {name: sys.modules.pop(name) for name in _list_loaded()}
    before = os.environ.get(_SWITCH)
    os.environ |= PURE
    try:
        return [importlib.import_module(name) for name in names]
    finally:
        if before is None:
            del os.environ[_SWITCH]
        else:
            os.environ[_SWITCH] = before
        for name in _list_loaded():
            del sys.modules[name]
        sys.modules.update(ours)


def _list_loaded() -> list[str]:
    return [name for name in sys.modules if name.partition(".")[0] == "workpool"]


_threads, _asyncio = _load("workpool.threads", "workpool.asyncio")
PurePool: Any = _threads.EventWorkerPool
PureLoopPool: Any = _asyncio.EventWorkerPool
