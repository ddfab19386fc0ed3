"""Starts the runs of planted bugs when the suite begins, so that they go on beside the other tests."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import pytest

from planted.runs import Bug, Runs

STARTED = pytest.StashKey[Runs]()


def pytest_collection_finish(session: pytest.Session) -> None:
    items = [
        item
        for item in session.items
        if isinstance(item, pytest.Function) and item.path.parent == Path(__file__).parent
    ]
    bugs = [cast("Bug", item.callspec.params["bug"]) for item in items if hasattr(item, "callspec")]
    if items and not session.config.option.collectonly:
        session.config.stash[STARTED] = runs = Runs(bugs)
        session.config.add_cleanup(runs.close)


@pytest.fixture
def runs(request: pytest.FixtureRequest) -> Runs:
    return request.config.stash[STARTED]
