"""Runs the Python blocks of a page as a reader would who types them in: in order, in one namespace, until one fails.

    python run_page.py PAGE [GIVEN]

GIVEN is code that runs before, for a page that speaks of names which its reader has (`handle`, `stream`). Beside that:

- a function `test_...` that a block defines is called after it, as pytest would do;
- a block that begins with a comment `# name.py` is not run but written, as that file, for later blocks to import;
- a block may await, as in `python -m asyncio`;
- a block of `text` right after one of Python is what that one prints;
- `<!-- raises: Name -->` before a block says what it ends with, and `<!-- not run: reason -->` that it is not run.

A block that fails is told as PAGE:LINE, and the process ends with 1.
"""

from __future__ import annotations

import ast
import asyncio
import contextlib
import inspect
import io
import re
import sys
import textwrap
import traceback
from dataclasses import dataclass
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

__all__ = ["Block", "blocks"]

FENCE = re.compile(
    r"(?:^<!-- (?P<mark>raises|not run): (?P<what>[^\n]*?) -->\n\s*)?"
    r"^(?P<indent> *)```python\n(?P<code>.*?)^(?P=indent)```$"
    r"(?:\s*^(?P=indent)```text\n(?P<prints>.*?)^(?P=indent)```$)?",
    re.MULTILINE | re.DOTALL,
)


@dataclass(frozen=True)
class Block:
    """A block of Python of a page."""

    line: int
    """The number of its first line in the page."""
    code: str
    prints: str | None
    raises: str | None
    not_run: str | None


def blocks(text: str) -> list[Block]:
    """The blocks of Python of a page."""
    return [
        Block(
            line=text.count("\n", 0, found.start("code")) + 1,
            code=textwrap.dedent(found["code"]),
            prints=None if found["prints"] is None else textwrap.dedent(found["prints"]),
            raises=found["what"] if found["mark"] == "raises" else None,
            not_run=found["what"] if found["mark"] == "not run" else None,
        )
        for found in FENCE.finditer(text)
    ]


class Page:
    """The run of a page's blocks. They share the names of a new `__main__`, where a forked process finds them."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.loop = asyncio.Runner()
        sys.modules["__main__"] = ModuleType("__main__")
        self.names: dict[str, Any] = vars(sys.modules["__main__"])

    def run(self, given: str) -> str | None:
        """Run what is given, then each block.

        Returns:
            What is wrong with the first that fails; None where none does.
        """
        self.names["loop"] = self.loop.get_loop()
        self._execute(compile(given, "given", "exec"))
        for block in blocks(self.path.read_text("utf-8")):
            if block.not_run is None and (wrong := self._try(block)):
                return wrong
        return None

    def _try(self, block: Block) -> str | None:
        printed = io.StringIO()
        try:
            with contextlib.redirect_stdout(printed):
                self._run(block)
        except Exception as error:
            if type(error).__name__ == block.raises:
                return None
            return f"{self.path}:{self._line(error, block)}: {type(error).__name__}: {error}"
        if block.raises is not None:
            return f"{self.path}:{block.line}: it should raise {block.raises}, and does not"
        if block.prints is not None and printed.getvalue() != block.prints:
            return f"{self.path}:{block.line}: it prints\n{printed.getvalue()}and the page says\n{block.prints}"
        return None

    def _run(self, block: Block) -> None:
        code = "\n" * (block.line - 1) + block.code  # So that each line has the number that it has in the page.
        if file := re.match(r"# (\w+\.py)\n", block.code):
            Path(file[1]).write_text(code, "utf-8")
            return
        before = dict(self.names)
        self._execute(compile(code, str(self.path), "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT))
        for name, value in list(self.names.items()):
            if name.startswith("test_") and before.get(name) is not value:
                value()

    def _execute(self, code: CodeType) -> None:
        if not code.co_flags & inspect.CO_COROUTINE:
            exec(code, self.names)
            return

        async def run() -> None:
            await eval(code, self.names)

        self.loop.run(run())

    def _line(self, error: Exception, block: Block) -> int:
        if isinstance(error, SyntaxError) and error.filename == str(self.path):
            return error.lineno or block.line
        frames = traceback.extract_tb(error.__traceback__)
        return next((frame.lineno for frame in frames if frame.filename == str(self.path) and frame.lineno), block.line)


if __name__ == "__main__":
    sys.path.insert(0, str(Path.cwd()))
    sys.exit(Page(Path(sys.argv[1])).run("".join(sys.argv[2:])))
