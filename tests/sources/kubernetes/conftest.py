"""A server for each test, a client of it, and certificates that nobody else trusts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import trustme
from kubernetes.client import Configuration

from workpool.sources.kubernetes import backoff
from workpool.sources.kubernetes.client import Client
from workpool.testing.kubernetes import ApiServer
from workpool.testing.kubernetes.fixture import kubernetes_api

__all__ = ["kubernetes_api"]


@pytest.fixture(autouse=True)
def no_other_cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of the machine's own leads to a cluster."""
    for name in (
        "KUBECONFIG", "KUBERNETES_SERVICE_HOST", "KUBERNETES_SERVICE_PORT", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY",
        "NO_PROXY",
    ):  # fmt: skip
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "nobody"))


@pytest.fixture
def keep() -> Iterator[Callable[[Client], Client]]:
    """Closes the clients that it is given when the test is over, and finds none of their sockets open."""
    kept: list[Client] = []

    def keep(client: Client) -> Client:
        kept.append(client)
        return client

    yield keep
    for client in kept:
        client.close()
        assert [each for each in [*client._sockets._open] if each.fileno() != -1] == []


@pytest.fixture
def client(kubernetes_api: ApiServer, keep: Callable[[Client], Client]) -> Client:
    """Of the server."""
    return keep(Client(Configuration(host=kubernetes_api.url)))


@pytest.fixture(scope="session")
def authority() -> trustme.CA:
    """Signs the certificates of a test."""
    return trustme.CA()


@pytest.fixture
def ca_file(authority: trustme.CA, tmp_path: Path) -> str:
    """The certificate of the authority."""
    path = tmp_path / "authority.pem"
    authority.cert_pem.write_to_path(str(path))
    return str(path)


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """A failure is followed by a wait of milliseconds: what waits come to is a test of the reflector."""
    monkeypatch.setattr(backoff, "LEAST", 0.0008)
    monkeypatch.setattr(backoff, "MOST", 0.03)
