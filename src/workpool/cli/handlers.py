"""HANDLERS on the command line: `file.py:function` or `package.module:function`."""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from workpool.cli.output import Complaint
from workpool.handlers import takes_delivery

__all__ = ["load_handler"]


def load_handler(spec: str) -> Callable[..., object]:
    """Import the module and find the handler in it.

    Raises:
        Complaint: There is none, or it cannot be called as a handler.
    """
    where, colon, name = spec.rpartition(":")
    if not (where and colon and name):
        raise Complaint(f"HANDLERS is file.py:function or package.module:function, and {spec!r} is neither")
    found: Any = _import(where)
    for part in name.split("."):
        if not hasattr(found, part):
            close = difflib.get_close_matches(part, [each for each in dir(found) if each[0] != "_"], 1)
            raise Complaint(f"{where} has no {part!r}" + "".join(f"; did you mean {each!r}?" for each in close))
        found = getattr(found, part)
    try:
        takes_delivery(found)
    except TypeError as error:
        raise Complaint(f"{spec}: {error}") from error
    return found  # type: ignore[no-any-return]


def _import(where: str) -> ModuleType:
    is_file = where.endswith(".py")
    if is_file and not Path(where).is_file():
        raise Complaint(f"there is no file {where}")
    try:
        if is_file:
            return _import_file(Path(where))
        # The console script has its own folder there, where `python -m` has the current one.
        sys.path.insert(0, str(Path.cwd()))
        return importlib.import_module(where)
    except (Exception, SystemExit) as error:
        raise Complaint(f"cannot import {where}: {_describe(error)}") from error


def _import_file(path: Path) -> ModuleType:
    """Import a file under its own name, its folder first on the path, as `python file.py` would run it."""
    path = path.resolve()
    sys.path.insert(0, str(path.parent))
    name = path.stem
    while name in sys.modules:
        name += "_"  # json.py is a fair name for a file, but others want theirs.
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # Dataclasses and pickles look a class's module up here.
    spec.loader.exec_module(module)
    return module


def _describe(error: BaseException) -> str:
    """One line: what was raised and, unless it says so itself, where."""
    text = " ".join(f"{type(error).__name__}: {error}".split())
    frames = [each for each in traceback.extract_tb(error.__traceback__) if "importlib" not in each.filename]
    if isinstance(error, SyntaxError) or not frames or frames[-1].filename == __file__:
        return text
    return f"{text} ({frames[-1].filename}:{frames[-1].lineno})"
