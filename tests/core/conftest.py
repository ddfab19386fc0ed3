"""What the tests of the core share."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def tracing_as_before() -> Iterator[None]:
    """Take back what a test traces: some cut what they call at each of its lines."""
    before = sys.gettrace()
    yield
    sys.settrace(before)
