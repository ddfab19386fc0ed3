"""A server for each test, by the fixture that users load too."""

from __future__ import annotations

from workpool.testing.kubernetes.fixture import kubernetes_api

__all__ = ["kubernetes_api"]
