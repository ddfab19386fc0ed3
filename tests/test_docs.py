"""The pages: what they link is there, and what they say that a test holds, a test of that name is there for."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from planted.test_planted import BUGS

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]

CODE = re.compile(r"^ *```.*?^ *```$", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"\]\(([^)\s]+)\)")
REFERENCE = re.compile(r"\]\[([^\]]+)\]")
DEFINITION = re.compile(r"^\[([^\]]+)\]: (\S+)(?: \"(.*)\")?$", re.MULTILINE)
HEADING = re.compile(r"^#+ (.*)$", re.MULTILINE)


def prose(page: Path) -> str:
    """A page without its blocks of code."""
    return CODE.sub("", page.read_text())


def anchors(page: Path) -> set[str]:
    """What a link can name in a page, made of its headings."""
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in HEADING.findall(prose(page))}


@pytest.fixture(params=PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def page(request: pytest.FixtureRequest) -> Path:
    found: Path = request.param
    return found


def test_every_link_leads_to_a_file_and_to_a_heading_of_it(page: Path) -> None:
    targets = INLINE.findall(prose(page)) + [target for _, target, _ in DEFINITION.findall(prose(page))]
    for target in targets:
        if target.startswith(("http://", "https://")):
            continue
        path, _, anchor = target.partition("#")
        found = (page.parent / path) if path else page
        assert found.exists(), target
        assert not anchor or anchor in anchors(found), target


def test_every_name_of_a_link_is_defined_once_and_used(page: Path) -> None:
    defined = [name for name, _, _ in DEFINITION.findall(prose(page))]
    assert sorted(defined) == sorted(set(REFERENCE.findall(prose(page))))


def test_a_block_in_a_list_is_indented_as_the_site_reads_it(page: Path) -> None:
    """By four: with less it ends the list there, and the items after it run together."""
    assert not re.findall(r"^ {1,3}```.*$", page.read_text(), re.MULTILINE)


def test_every_test_that_a_link_names_is_in_its_file(page: Path) -> None:
    for _, target, title in DEFINITION.findall(prose(page)):
        if title:
            assert re.search(rf"^ *(async )?def {title}\(", (page.parent / target).read_text(), re.MULTILINE), title


def test_every_cell_of_what_drivers_can_do_names_a_test_or_says_why_there_is_none() -> None:
    text = prose(ROOT / "docs" / "drivers.md")
    table = text.split("## What each can and cannot do")[1].split("\n\n")[2].splitlines()
    tests = {name for name, _, title in DEFINITION.findall(text) if title.startswith("test_")}
    for row in table[2:]:
        first, *cells = row.strip("|").split(" | ")
        assert len(cells) == 4, row
        for cell in cells:
            held = REFERENCE.findall(cell)
            assert set(held) <= tests, (first, cell)
            assert held or re.match(r"(yes|no): ", cell.strip()), (first, cell)
    assert len(table) > 10


def test_each_promise_names_a_planted_bug_that_the_test_beside_it_is_aimed_at() -> None:
    text = prose(ROOT / "docs" / "promises.md")
    links = {name: f"{target.removeprefix('../tests/')}::{title}" for name, target, title in DEFINITION.findall(text)}
    aims = {bug.name: re.sub(r"::\w+(?=::)", "", bug.aim) for bug in BUGS}  # Without the class of a test.
    promises = re.split(r"^## P\d+: ", text, flags=re.MULTILINE)[1:]
    assert len(promises) == 12
    for promise in promises:
        ((bug, link),) = re.findall(r'\*\*Planted:\*\* "([^"]+)".*?\]\[([^\]]+)\]', promise, re.DOTALL)
        assert links[link] == aims[bug], bug
