"""HANDLERS: files and modules, and each way in which there is no handler."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from workpool.cli.handlers import load_handler
from workpool.cli.output import Complaint


@pytest.fixture(autouse=True)
def modules_as_before() -> Iterator[None]:
    modules, path = set(sys.modules), list(sys.path)
    yield
    sys.path[:] = path
    for name in set(sys.modules) - modules:
        del sys.modules[name]


def complaint(spec: str) -> str:
    with pytest.raises(Complaint) as caught:
        load_handler(spec)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_file_is_imported_under_its_name_with_its_folder_on_the_path(folder: Path) -> None:
    (folder / "inner").mkdir()
    (folder / "inner" / "beside.py").write_text("def f(event): pass\n")
    (folder / "inner" / "mine.py").write_text("import beside\nf = beside.f\nname = __name__\n")
    handler = load_handler("inner/mine.py:f")
    assert sys.modules["mine"].f is handler
    assert sys.modules["mine"].name == "mine"
    assert sys.modules["beside"].f is handler


def test_a_file_may_have_the_name_of_a_module_that_is_there(folder: Path) -> None:
    (folder / "json.py").write_text("def f(event): pass\n")
    json = sys.modules["json"]
    handler = load_handler("json.py:f")
    assert handler.__module__ == "json_"
    assert sys.modules["json"] is json


def test_a_module_is_found_from_the_current_folder(folder: Path) -> None:
    (folder / "shop").mkdir()
    (folder / "shop" / "orders.py").write_text("def f(event): pass\n")
    assert load_handler("shop.orders:f").__module__ == "shop.orders"


def test_a_name_may_have_dots(folder: Path) -> None:
    assert load_handler("h.py:Shop.sell").__name__ == "sell"


@pytest.mark.parametrize(
    ("spec", "text"),
    [
        ("h.py", "HANDLERS is file.py:function or package.module:function, and 'h.py' is neither"),
        (":f", "HANDLERS is file.py:function or package.module:function, and ':f' is neither"),
        ("h.py:", "HANDLERS is file.py:function or package.module:function, and 'h.py:' is neither"),
        ("none.py:f", "there is no file none.py"),
        ("none:f", "cannot import none: ModuleNotFoundError: No module named 'none'"),
        ("a/b:f", "cannot import a/b: ModuleNotFoundError: No module named 'a/b'"),
        (".h:f", "cannot import .h: TypeError: "),
        ("h.py:nobody", "h.py has no 'nobody'"),
        ("h.py:quit", "h.py has no 'quit'; did you mean 'quiet'?"),
        ("h.py:Shop.sel", "h.py has no 'sel'; did you mean 'sell'?"),
        ("h.py:number", "h.py:number: the handler must be callable, and 3 is not"),
        ("h.py:later", "h.py:later: the handler <function later at "),
    ],
)
def test_each_fault_is_one_line(folder: Path, spec: str, text: str) -> None:
    assert complaint(spec).startswith(text)


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ("def f(:\n", "SyntaxError: invalid syntax (bad.py, line 1)"),
        ("import none_of_these\n", "ModuleNotFoundError: No module named 'none_of_these' ({path}:1)"),
        ("\n\nraise ValueError('a\\nb')\n", "ValueError: a b ({path}:3)"),
        ("import sys\nsys.exit('no')\n", "SystemExit: no ({path}:2)"),
    ],
)
def test_what_a_module_raises_is_one_line_and_says_where(folder: Path, content: str, text: str) -> None:
    (folder / "bad.py").write_text(content)
    assert complaint("bad.py:f") == "cannot import bad.py: " + text.format(path=folder / "bad.py")
