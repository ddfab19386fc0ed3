"""Where a client gets its address and its credentials from: each form of a kubeconfig, and what a pod is given."""

from __future__ import annotations

import base64
import datetime
import json
import logging
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import trustme
from kubernetes.client import Configuration
from kubernetes.config import incluster_config

from sources.kubernetes.network import Listener, Proxy, over_tls, pump_to, server_context
from support import PATIENCE
from workpool.sources.kubernetes.client import Client
from workpool.sources.kubernetes.connections import _passes_by
from workpool.sources.kubernetes.errors import BadKubeconfig, NoCluster
from workpool.sources.kubernetes.steps import Done, Failure, Page
from workpool.testing.kubernetes import ApiServer

Keep = Callable[[Client], Client]
Json = dict[str, Any]

PODS = "/api/v1/pods"


def config(server: str, user: Json, cluster: Json | None = None, name: str = "here", **context: str) -> Json:
    """A kubeconfig of one context."""
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": name, "cluster": {"server": server, **(cluster or {})}}],
        "users": [{"name": name, "user": user}],
        "contexts": [{"name": name, "context": {"cluster": name, "user": name, **context}}],
        "current-context": name,
    }


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., str]:
    """Writes a kubeconfig, as JSON, which is YAML."""

    def write(content: Any, name: str = "config") -> str:
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(content if isinstance(content, str) else json.dumps(content), "utf-8")
        return str(path)

    return write


@pytest.fixture
def secured(kubernetes_api: ApiServer, authority: trustme.CA) -> Iterator[str]:
    """The address of the server by TLS."""
    with Listener(over_tls(pump_to(kubernetes_api.port), server_context(authority))) as front:
        yield f"https://127.0.0.1:{front.port}"


def said(server: ApiServer) -> str | None:
    """The credentials of the last request."""
    return server.requests[-1].headers.get("authorization")


# Tokens.


def test_a_token(kubernetes_api: ApiServer, keep: Keep, tmp_path: Path) -> None:
    kubernetes_api.token = "secret"
    client = keep(Client.load(kubernetes_api.write_kubeconfig(tmp_path / "config", namespace="shop")))
    assert isinstance(client.list(PODS, {}, PATIENCE), Page)
    assert (client.server, client.namespace) == (kubernetes_api.url, "shop")


def test_a_token_in_a_file_beside_the_kubeconfig(
    kubernetes_api: ApiServer, keep: Keep, write: Callable[..., str]
) -> None:
    kubernetes_api.token = "secret"
    write("secret\n", "token")
    client = keep(Client.load(write(config(kubernetes_api.url, {"tokenFile": "token"}))))
    assert isinstance(client.list(PODS, {}, PATIENCE), Page)
    assert client.namespace == "default"


def test_a_name_and_a_password(kubernetes_api: ApiServer, keep: Keep, write: Callable[..., str]) -> None:
    client = keep(Client.load(write(config(kubernetes_api.url, {"username": "me", "password": "secret"}))))
    client.list(PODS, {}, PATIENCE)
    assert said(kubernetes_api) == "Basic " + base64.b64encode(b"me:secret").decode()


def test_a_token_that_no_header_can_carry(kubernetes_api: ApiServer, keep: Keep, write: Callable[..., str]) -> None:
    for token in ("sec\nret", "secret漢"):
        client = keep(Client.load(write(config(kubernetes_api.url, {"token": token}))))
        failure = client.list(PODS, {}, PATIENCE)
        assert failure == Failure(error="no credentials: the token has a character that no header can carry")


# Plug-ins.

PLUGIN = """
import json, os, sys
runs = os.path.join(os.path.dirname(__file__), "runs")
with open(runs, "a") as file:
    file.write("x")
count = os.path.getsize(runs)
if count >= {fails}:
    sys.exit("log in first")
status = {{"token": f"token {{count}}"}}
if {expires}:
    status["expirationTimestamp"] = "2001-01-01T00:00:00Z"
print(json.dumps({{"apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential", "status": status}}))
"""


@pytest.fixture
def plugin(kubernetes_api: ApiServer, write: Callable[..., str]) -> Callable[..., str]:
    """A kubeconfig with a plug-in that gives another token each time, which may have expired, until it fails."""

    def plugin(fails: int = 9, *, expires: bool = False) -> str:
        script = write(PLUGIN.format(fails=fails, expires=expires), "plugin.py")
        command = {"apiVersion": "client.authentication.k8s.io/v1", "command": sys.executable, "args": [script]}
        return write(config(kubernetes_api.url, {"exec": command}))

    return plugin


def test_r14_a_plugin_is_asked_once_and_again_by_a_refresh(
    kubernetes_api: ApiServer, keep: Keep, plugin: Callable[..., str]
) -> None:
    kubernetes_api.token = "token 1"
    client = keep(Client.load(plugin()))
    for _ in range(3):
        assert isinstance(client.list(PODS, {}, PATIENCE), Page)
    kubernetes_api.token = "token 2"
    failure = client.list(PODS, {}, PATIENCE)
    assert isinstance(failure, Failure)
    assert failure.status == 401
    assert client.refresh() == Done()
    assert isinstance(client.list(PODS, {}, PATIENCE), Page)
    assert len(client._sockets._open) == 1, "the connection with the old ones is closed"


def test_r35_a_plugin_is_asked_again_when_its_token_expires(
    kubernetes_api: ApiServer, keep: Keep, plugin: Callable[..., str]
) -> None:
    client = keep(Client.load(plugin(expires=True)))
    for count in (2, 3):
        client.list(PODS, {}, PATIENCE)
        assert said(kubernetes_api) == f"Bearer token {count}"


def test_a_plugin_that_fails_is_an_error_that_says_what_it_said(plugin: Callable[..., str]) -> None:
    handlers = [*logging.getLogger().handlers]
    with pytest.raises(BadKubeconfig, match=r"its user has no credentials: exec: process returned 1\. log in first$"):
        Client.load(plugin(fails=1))
    assert logging.getLogger().handlers == handlers


def test_r14_a_plugin_that_fails_later_is_a_failure(
    kubernetes_api: ApiServer, keep: Keep, plugin: Callable[..., str]
) -> None:
    client = keep(Client.load(plugin(fails=2)))
    failure = client.refresh()
    assert isinstance(failure, Failure)
    assert failure.error.endswith("exec: process returned 1. log in first")
    client.list(PODS, {}, PATIENCE)
    assert said(kubernetes_api) == "Bearer token 1"


def test_a_plugin_that_is_not_installed(kubernetes_api: ApiServer, write: Callable[..., str]) -> None:
    command = {"apiVersion": "client.authentication.k8s.io/v1", "command": "no-such-plugin"}
    with pytest.raises(BadKubeconfig, match=r"has no credentials: .*no-such-plugin"):
        Client.load(write(config(kubernetes_api.url, {"exec": command})))


# Certificates.


def test_a_client_certificate(
    kubernetes_api: ApiServer, authority: trustme.CA, keep: Keep, write: Callable[..., str], tmp_path: Path
) -> None:
    issued = authority.issue_cert("client@example.com")
    issued.private_key_pem.write_to_path(str(tmp_path / "client.key"))
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    certificate = b"".join(each.bytes() for each in issued.cert_chain_pems)
    user = {"client-certificate-data": base64.b64encode(certificate).decode(), "client-key": "client.key"}
    context = server_context(authority, ask_client=True)
    with Listener(over_tls(pump_to(kubernetes_api.port), context)) as front:
        address, trusted = f"https://127.0.0.1:{front.port}", {"certificate-authority": "ca.pem"}
        client = keep(Client.load(write(config(address, user, trusted))))
        assert isinstance(client.list(PODS, {}, PATIENCE), Page)
        nobody = keep(Client.load(write(config(address, {}, trusted))))
        failure = nobody.list(PODS, {}, PATIENCE)
        assert isinstance(failure, Failure)
        assert failure.status is None
        client.close()


def test_a_certificate_that_is_not_trusted(secured: str, keep: Keep) -> None:
    failure = keep(Client(Configuration(host=secured))).list(PODS, {}, PATIENCE)
    assert isinstance(failure, Failure)
    assert failure.error.startswith("certificate not trusted: ")
    assert "\n" not in failure.error


def test_a_certificate_of_another_name(
    kubernetes_api: ApiServer, authority: trustme.CA, ca_file: str, keep: Keep, write: Callable[..., str]
) -> None:
    context = server_context(authority, "kubernetes.example")
    trusted = {"certificate-authority": ca_file}
    with Listener(over_tls(pump_to(kubernetes_api.port), context)) as front:
        address = f"https://127.0.0.1:{front.port}"
        client = keep(Client.load(write(config(address, {}, trusted))))
        failure = client.list(PODS, {}, PATIENCE)
        assert isinstance(failure, Failure)
        assert failure.error.startswith("certificate not trusted: ")
        named = {**trusted, "tls-server-name": "kubernetes.example"}
        client = keep(Client.load(write(config(address, {}, named))))
        assert isinstance(client.list(PODS, {}, PATIENCE), Page)
        client.close()
        configuration = Configuration(host=address)
        configuration.ssl_ca_cert, configuration.assert_hostname = ca_file, False
        client = keep(Client(configuration))
        assert isinstance(client.list(PODS, {}, PATIENCE), Page)
        client.close()
        setattr(configuration, "assert_hostname", "other.example")  # noqa: B010 -- its type says that it is a bool
        failure = keep(Client(configuration)).list(PODS, {}, PATIENCE)
        assert isinstance(failure, Failure)
        assert failure.error.startswith("certificate not trusted: ")


def test_a_server_that_is_not_to_be_verified(secured: str, keep: Keep, write: Callable[..., str]) -> None:
    client = keep(Client.load(write(config(secured, {}, {"insecure-skip-tls-verify": True}))))
    with pytest.warns(Warning, match="Unverified HTTPS request"):
        assert isinstance(client.list(PODS, {}, PATIENCE), Page)
    client.close()


def test_a_server_that_speaks_no_tls(kubernetes_api: ApiServer, keep: Keep) -> None:
    client = keep(Client(Configuration(host=kubernetes_api.url.replace("http", "https"))))
    failure = client.list(PODS, {}, PATIENCE)
    assert isinstance(failure, Failure)
    assert failure.status is None


# Which kubeconfig, and which context.


def test_the_context_that_is_asked_for(kubernetes_api: ApiServer, keep: Keep, write: Callable[..., str]) -> None:
    one = config(kubernetes_api.url, {"token": "one"}, name="one", namespace="first")
    two = config(kubernetes_api.url, {"token": "two"}, name="two")
    both = {name: one[name] + two[name] if isinstance(one[name], list) else one[name] for name in one}
    del both["current-context"]
    client = keep(Client.load(write(both), context="one"))
    client.list(PODS, {}, PATIENCE)
    assert (said(kubernetes_api), client.namespace) == ("Bearer one", "first")
    with pytest.raises(BadKubeconfig, match=r"it has no context 'three'; there are: one, two$"):
        Client.load(write(both), context="three")
    with pytest.raises(BadKubeconfig, match=r"it has no current context; there are: one, two$"):
        Client.load(write(both))


def test_the_files_that_the_environment_names_are_one(
    kubernetes_api: ApiServer, keep: Keep, write: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = config(kubernetes_api.url, {"token": "secret"}, namespace="shop")
    users = {"users": whole.pop("users")}
    files = [write(whole, "contexts"), "/no/such/file", write(users, "users")]
    monkeypatch.setenv("KUBECONFIG", os.pathsep.join(files))
    client = keep(Client.load())
    client.list(PODS, {}, PATIENCE)
    assert (said(kubernetes_api), client.namespace) == ("Bearer secret", "shop")


def test_the_usual_kubeconfig(
    kubernetes_api: ApiServer, keep: Keep, write: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    write(config(kubernetes_api.url, {"token": "usual"}), ".kube/config")
    client = keep(Client.load())
    client.list(PODS, {}, PATIENCE)
    assert said(kubernetes_api) == "Bearer usual"
    other = keep(Client.load(Path(write(config(kubernetes_api.url, {"token": "other"})))))
    other.list(PODS, {}, PATIENCE)
    assert said(kubernetes_api) == "Bearer other"


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("", "is empty"),
        ("just words", "it is no kubeconfig"),
        ("- a\n- b", "it is no kubeconfig"),
        ("a: [", "it is no YAML: "),
        ("\x00", "it is no YAML: "),
        ({}, "it has no current context"),
        (config("http://127.0.0.1", {}) | {"clusters": []}, "here"),
        (config("http://127.0.0.1", {}) | {"contexts": [{"name": "here", "context": None}]}, "Expected key context"),
        (config("127.0.0.1:6443", {}), "the server '127.0.0.1:6443' is no address"),
        (config("http://127.0.0.1", {"tokenFile": "/no/such/token"}), "/no/such/token"),
        (config("https://127.0.0.1", {}, {"certificate-authority": "no.pem"}), "File does not exist: .*no.pem"),
        (config("https://127.0.0.1", {"client-certificate": "no.pem"}), "File does not exist: .*no.pem"),
        (config("https://127.0.0.1", {"client-key": "no.pem"}), "File does not exist: .*no.pem"),
        (config("https://127.0.0.1", {}, {"certificate-authority-data": "x"}), "base64"),
    ],
)
def test_a_kubeconfig_that_cannot_be_used(write: Callable[..., str], content: Any, reason: str) -> None:
    with pytest.raises(BadKubeconfig, match=rf"^the .* cannot be used: .*{reason}.*$") as caught:
        Client.load(write(content))
    assert "\n" not in str(caught.value)
    assert caught.value.reason


def test_an_error_shows_no_secret(write: Callable[..., str]) -> None:
    token = ".".join(base64.urlsafe_b64encode(part).decode().rstrip("=") for part in (b"{}", b'{"exp":1}', b"xyz"))
    provider = {
        "name": "oidc",
        "config": {"client-secret": "hunter2", "id-token": token, "idp-certificate-authority": "x"},
    }
    with pytest.raises(
        BadKubeconfig, match=r"Expected key idp-issuer-url in .*/\.\.\./user/auth-provider/config"
    ) as caught:
        Client.load(write(config("https://127.0.0.1", {"auth-provider": provider})))
    assert "hunter2" not in str(caught.value)


def test_a_kubeconfig_that_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    missing = str(tmp_path / "missing")
    with pytest.raises(BadKubeconfig, match=f"^the kubeconfig {missing} cannot be used: there is no such") as caught:
        Client.load(missing)
    assert caught.value.path == missing
    with pytest.raises(BadKubeconfig, match="there is no such file"):
        Client.load(context="here")
    monkeypatch.setenv("KUBECONFIG", missing)
    with pytest.raises(BadKubeconfig, match="there is no such file"):
        Client.load()
    with pytest.raises(BadKubeconfig):
        Client.load(tmp_path)


def test_r14_a_kubeconfig_that_is_broken_later_is_a_failure(
    kubernetes_api: ApiServer, keep: Keep, write: Callable[..., str]
) -> None:
    path = write(config(kubernetes_api.url, {"token": "one"}))
    client = keep(Client.load(path))
    write("a: [")
    failure = client.refresh()
    assert isinstance(failure, Failure)
    assert f"the kubeconfig {path} cannot be used: it is no YAML" in failure.error
    write(config(kubernetes_api.url, {"token": "two"}, namespace="shop"))
    assert client.refresh() == Done()
    client.list(PODS, {}, PATIENCE)
    assert (said(kubernetes_api), client.namespace) == ("Bearer two", "shop")


# In a cluster.


class Pod:
    """What a pod is given."""

    def __init__(self, directory: Path) -> None:
        self.token = directory / "token"
        self.namespace = directory / "namespace"
        self.authority = directory / "ca.crt"


@pytest.fixture
def in_pod(secured: str, authority: trustme.CA, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Pod:
    """This process is one, of the server by TLS."""
    pod = Pod(tmp_path)
    pod.token.write_text("first\n")
    pod.namespace.write_text("shop\n")
    authority.cert_pem.write_to_path(str(pod.authority))
    host, _, port = secured.removeprefix("https://").partition(":")
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", host)
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", port)
    monkeypatch.setattr(incluster_config, "SERVICE_TOKEN_FILENAME", str(pod.token))
    monkeypatch.setattr(incluster_config, "SERVICE_CERT_FILENAME", str(pod.authority))
    return pod


class Later(datetime.datetime):
    """The time, when the official client asks for it."""

    offset: datetime.timedelta

    @classmethod
    def now(cls, tz: datetime.tzinfo | None = None) -> Any:
        return datetime.datetime.now(tz) + cls.offset

    @classmethod
    def pass_minute(cls) -> None:
        cls.offset += datetime.timedelta(seconds=61)


@pytest.fixture
def time(monkeypatch: pytest.MonkeyPatch) -> type[Later]:
    """Passes when it is told to."""
    Later.offset = datetime.timedelta()
    monkeypatch.setattr(incluster_config, "datetime", SimpleNamespace(datetime=Later, timedelta=datetime.timedelta))
    return Later


def test_r35_a_rotated_token_is_used_on_the_next_request(
    kubernetes_api: ApiServer, keep: Keep, in_pod: Pod, secured: str, time: type[Later]
) -> None:
    """The official client looks at the file when what it read is a minute old; tokens overlap by far more."""
    client = keep(Client.load())
    assert (client.server, client.namespace) == (secured, "shop")
    for token in ("first", "second", "third"):
        in_pod.token.write_text(token)
        client.list(PODS, {}, PATIENCE)
        assert said(kubernetes_api) == f"bearer {token}"
        time.pass_minute()
    client.close()


def test_r35_a_token_that_is_refused_at_once_is_read_again(kubernetes_api: ApiServer, keep: Keep, in_pod: Pod) -> None:
    client = keep(Client.load())
    in_pod.token.write_text("second")
    assert client.refresh() == Done()
    client.list(PODS, {}, PATIENCE)
    assert said(kubernetes_api) == "bearer second"
    client.close()


def test_r35_a_token_that_cannot_be_read_is_a_failure(keep: Keep, in_pod: Pod, time: type[Later]) -> None:
    client = keep(Client.load())
    time.pass_minute()
    for break_it in (lambda: in_pod.token.write_text(""), in_pod.token.unlink):
        break_it()
        for failure in (client.list(PODS, {}, PATIENCE), client.watch(PODS, {"watch": "true"}, PATIENCE)):
            assert isinstance(failure, Failure)
            assert failure.error.startswith("no credentials: ")
    refreshed = client.refresh()
    assert isinstance(refreshed, Failure)
    in_pod.token.write_text("second")
    assert isinstance(client.list(PODS, {}, PATIENCE), Page)
    client.close()


def test_a_pod_without_a_namespace(keep: Keep, in_pod: Pod) -> None:
    in_pod.namespace.unlink()
    assert keep(Client.load()).namespace == "default"


def test_there_is_no_cluster(in_pod: Pod, monkeypatch: pytest.MonkeyPatch) -> None:
    in_pod.token.unlink()
    with pytest.raises(NoCluster, match=r"this is no pod \(Service token file does not exist\.\); name a kubeconfig"):
        Client.load()
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST")
    with pytest.raises(NoCluster, match=r"^there is no cluster: there is no ~/\.kube/config, and this is no") as caught:
        Client.load()
    assert caught.value.__cause__ is not None


# Proxies.


def test_what_goes_by_a_proxy(kubernetes_api: ApiServer, keep: Keep) -> None:
    configuration = Configuration(host="http://kubernetes.example")
    configuration.proxy = kubernetes_api.url
    configuration.proxy_headers = {"proxy-authorization": "Basic secret"}
    client = keep(Client(configuration))
    assert isinstance(client.list(PODS, {}, PATIENCE), Page)
    headers = kubernetes_api.requests[-1].headers
    assert (headers["host"], headers["proxy-authorization"]) == ("kubernetes.example", "Basic secret")


def test_what_goes_by_a_proxy_in_a_tunnel(
    secured: str, ca_file: str, keep: Keep, write: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with Proxy() as proxy:
        monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{proxy.port}")
        client = keep(Client.load(write(config(secured, {"token": "secret"}, {"certificate-authority": ca_file}))))
        assert isinstance(client.list(PODS, {}, PATIENCE), Page)
        assert proxy.asked[0].startswith(f"CONNECT {secured.removeprefix('https://')} ")
        assert "secret" not in proxy.asked[0]
        client.close()


def test_a_proxy_that_is_none() -> None:
    configuration = Configuration(host="https://127.0.0.1")
    configuration.proxy = "ftp://127.0.0.1"
    with pytest.raises(BadKubeconfig, match="ftp"):
        Client(configuration)


@pytest.mark.parametrize(
    ("no_proxy", "direct"),
    [
        ("127.0.0.1", True), ("127.0.0.0/8", True), ("*", True), ("example.com, 127.0.0.1", True),
        ("127.0.0.1:{}", True), ("", False), ("example.com", False), ("10.0.0.0/8", False), ("127.0.0.1:1", False),
        ("7.0.0.1", False),
    ],
)  # fmt: skip
def test_what_goes_past_a_proxy(kubernetes_api: ApiServer, keep: Keep, no_proxy: str, direct: bool) -> None:
    configuration = Configuration(host=kubernetes_api.url)
    configuration.proxy, configuration.no_proxy = "http://127.0.0.1:1", no_proxy.format(kubernetes_api.port)
    found = keep(Client(configuration)).list(PODS, {}, PATIENCE)
    if direct:
        assert isinstance(found, Page)
    else:
        assert found == Failure(error="proxy: connection refused")


@pytest.mark.parametrize(
    ("host", "no_proxy", "direct"),
    [
        ("https://a.b.example:6443", ".b.example", True),
        ("https://a.b.example:6443", "b.example", True),
        ("https://b.example", ".b.example", True),
        ("https://ab.example", "b.example", False),
        ("https://A.B.example", "a.b.EXAMPLE", True),
        ("https://[::1]:6443", "::1", True),
        ("https://[fd00::1]:6443", "fd00::/8", True),
    ],
)
def test_which_names_go_past_a_proxy(host: str, no_proxy: str, direct: bool) -> None:
    assert _passes_by(host, no_proxy) is direct


def test_a_socks_proxy_needs_a_library(keep: Keep, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "socks", None)
    monkeypatch.delitem(sys.modules, "urllib3.contrib.socks", raising=False)
    configuration = Configuration(host="http://127.0.0.1")
    configuration.proxy = "socks5://127.0.0.1:1080"
    with pytest.warns(Warning, match="PySocks"), pytest.raises(BadKubeconfig, match=r"socks"):
        Client(configuration)
