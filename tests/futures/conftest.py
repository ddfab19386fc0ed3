"""What the tests on futures share."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest


@pytest.fixture
def no_collector() -> Iterator[None]:
    """Whatever is released is released without it."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()
