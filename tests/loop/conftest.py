"""What the tests on event loops share."""

from __future__ import annotations

import asyncio

import pytest

import on_loop


@pytest.fixture(params=["asyncio", "uvloop"])
def each_loop(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run the test on each loop in turn."""
    if request.param == "uvloop":
        uvloop = pytest.importorskip("uvloop")
        monkeypatch.setattr(on_loop, "factory", uvloop.new_event_loop)
    else:
        monkeypatch.setattr(on_loop, "factory", asyncio.new_event_loop)
