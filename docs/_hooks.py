"""What the site needs beside mkdocs itself: the files that pages link outside docs/ are pages of it.

A page links a test as `../tests/x.py`, which leads there in a checkout and wherever that is shown. In the site such a
file is a page under `code/`, made here, so the link leads there too: without a network, and to the very code that the
page was written for. Where the link has the name of a test as its title, it leads to that test's line.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import get_lexer_for_filename

LINK = re.compile(r'(\]\(|^\[[^\]]+\]: )((?:\.\./)+[^\s)#]+)( "(\w+)")?', re.MULTILINE)
"""A link upward, inline or as a definition: how it begins, where it leads, and its title."""

ROOT = Path(__file__).parent.parent


def outside(page: str, target: str) -> str | None:
    """Where a link of a page leads, from the root of the repository; None where that is in docs/ or nowhere."""
    path = posixpath.normpath(posixpath.join("docs", posixpath.dirname(page), target))
    return path if not path.startswith(("docs/", "..")) and (ROOT / path).is_file() else None


def on_files(files: Files, config: Any) -> Files:
    """Make a page of each file outside docs/ that a page links."""
    linked = {
        outside(page.src_uri, target)
        for page in files.documentation_pages()
        for _, target, *_ in LINK.findall(page.content_string)
    }
    for path in sorted(filter(None, linked)):
        look = HtmlFormatter(wrapcode=True, lineanchors="line")
        shown = highlight((ROOT / path).read_text("utf-8"), get_lexer_for_filename(path, stripnl=False), look)
        text = f"---\nsearch: {{exclude: true}}\nhide: [toc]\n---\n\n# {path}\n\n{shown}"
        files.append(File.generated(config, f"code/{path}.md", content=text))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Lead each link that leaves docs/ to the page that stands for its file."""

    def lead(link: re.Match[str]) -> str:
        begin, target, title, test = link.groups(default="")
        path = outside(page.file.src_uri, target)
        if path is None:
            return link[0]
        before = re.split(rf"^ *(?:async )?def {test}\(", (ROOT / path).read_text("utf-8"), flags=re.MULTILINE)[0]
        line = f"#line-{before.count(chr(10)) + 1}" if test else ""
        up = "../" * page.file.src_uri.count("/")
        return f"{begin}{up}code/{path}.md{line}{title}"

    return LINK.sub(lead, markdown)
