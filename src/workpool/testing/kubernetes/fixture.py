"""The fixture for pytest, which a test module or the topmost `conftest.py` loads.

pytest_plugins = ["workpool.testing.kubernetes.fixture"]
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from workpool.testing.kubernetes.server import ApiServer

__all__ = ["kubernetes_api"]


@pytest.fixture
def kubernetes_api() -> Iterator[ApiServer]:
    """A Kubernetes API server, empty, for one test."""
    with ApiServer() as server:
        yield server
