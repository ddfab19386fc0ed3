"""The API server as a fixture for pytest, which `workpool.testing.plugin` offers with all others.

pytest_plugins = ["workpool.testing.plugin"]

PYTEST_DONT_REWRITE: nothing asserts here, and it may be loaded by both names.
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
