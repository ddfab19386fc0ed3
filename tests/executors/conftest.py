"""What the tests on executors share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from executors.remote import Folder


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Folder]:
    """Where handlers in other processes write down what they do."""
    found = Folder(tmp_path)
    yield found
    found.close()
