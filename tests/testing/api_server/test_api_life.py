"""A server's life: start, restart, refusal, tokens, the record of requests, and nothing left in the end."""

from __future__ import annotations

import json
import socket
import threading
from http.client import HTTPException
from pathlib import Path

import pytest

from support import PATIENCE
from testing.api_server.client import PODS, ask, names, pod, watching
from workpool.testing.kubernetes import ApiServer, Do, End, Hang

CUT = (ConnectionError, HTTPException)


def test_the_fixture_is_a_server_that_runs(kubernetes_api: ApiServer) -> None:
    assert kubernetes_api.url == f"http://127.0.0.1:{kubernetes_api.port}"
    assert names(kubernetes_api) == []


def test_a_restart_cuts_connections_and_keeps_port_and_objects(kubernetes_api: ApiServer) -> None:
    port = kubernetes_api.port
    kubernetes_api.create("v1/pods", pod("a"))
    with watching(kubernetes_api) as stream:
        assert stream.next() == ("ADDED", "a")
        kubernetes_api.restart()
        with pytest.raises(CUT):
            stream.line()
    assert kubernetes_api.port == port
    assert names(kubernetes_api) == ["a"]


def test_a_server_that_is_down_refuses_and_its_port_is_kept(kubernetes_api: ApiServer) -> None:
    with kubernetes_api.down():
        kubernetes_api.create("v1/pods", pod("a"))
        with pytest.raises(ConnectionRefusedError):
            ask(kubernetes_api)
        with socket.socket() as other, pytest.raises(OSError, match="in use"):
            other.bind(("127.0.0.1", kubernetes_api.port))
    assert names(kubernetes_api) == ["a"]


def test_a_server_may_be_stopped_while_it_is_down() -> None:
    with ApiServer() as server, server.down():
        server.stop()
    with pytest.raises(ConnectionRefusedError):
        ask(server)


def test_a_server_is_started_once_and_first() -> None:
    with pytest.raises(RuntimeError, match="never started"):
        ApiServer().url  # noqa: B018
    with ApiServer() as server, pytest.raises(RuntimeError, match="started already"):
        server.start()


def test_a_request_may_restart_the_server(kubernetes_api: ApiServer) -> None:
    back = threading.Event()

    def restart() -> None:
        kubernetes_api.restart()
        back.set()

    kubernetes_api.inject("list", Do(restart))
    with pytest.raises(CUT):
        ask(kubernetes_api)
    assert back.wait(PATIENCE)
    assert names(kubernetes_api) == []


def test_a_stop_ends_whatever_goes_on_and_leaves_no_thread() -> None:
    before = set(threading.enumerate())
    server = ApiServer().start()
    server.inject(lambda request: request.path.endswith("nodes"), Hang(after=None))
    idle = socket.create_connection(("127.0.0.1", server.port), PATIENCE)
    with (
        idle,
        socket.create_connection(("127.0.0.1", server.port), PATIENCE) as hanging,
        watching(server) as stream,
        watching(server),
    ):
        hanging.sendall(b"GET /api/v1/nodes HTTP/1.1\r\n\r\n")
        server.wait_for_requests(3)
        server.wait_for_watches(2)
        server.create("v1/pods", pod("a", spec={"much": "x" * 30_000_000}))  # Nobody reads it to the end.
        assert stream.response.read1(10)
        port = server.port
        server.stop()
        server.stop()
        assert set(threading.enumerate()) <= before
        assert idle.recv(1) == b""
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), PATIENCE)


def test_only_the_present_token_is_accepted() -> None:
    with ApiServer(token="first") as server:
        assert ask(server).code == ask(server, token="other").code == 401
        assert ask(server, token="first").code == 200
        server.token = "second"
        refused = ask(server, token="first")
        assert (refused.code, refused.json["reason"]) == (401, "Unauthorized")
        assert ask(server, token="second").code == 200


def test_the_kubeconfig_names_the_server_and_its_token(tmp_path: Path) -> None:
    with ApiServer(token="secret") as server:
        config = json.loads(server.write_kubeconfig(tmp_path / "config", namespace="x").read_text())
        assert config["clusters"][0]["cluster"] == {"server": server.url}
        assert config["users"][0]["user"] == {"token": "secret"}
        assert config["contexts"][0]["context"]["namespace"] == "x"
        assert config["current-context"] == config["contexts"][0]["name"]
        server.token = None
        assert json.loads(server.write_kubeconfig(tmp_path / "config").read_text())["users"][0]["user"] == {}


def test_requests_are_recorded_with_what_was_asked(kubernetes_api: ApiServer) -> None:
    ask(kubernetes_api, PODS, token="t", limit=5, labelSelector="a in (b, c)")
    ask(kubernetes_api, PODS, "POST", pod("a"))
    request, write = kubernetes_api.wait_for_requests(2)
    assert (request.verb, request.path) == ("list", PODS)
    assert request.query == {"limit": "5", "labelSelector": "a in (b, c)"}
    assert request.headers["authorization"] == "Bearer t"
    assert json.loads(write.body) == pod("a")
    assert kubernetes_api.wait_for_requests(1, "create") == [write]


def test_a_wait_ends_by_what_happens_or_says_what_happened_instead(kubernetes_api: ApiServer) -> None:
    waiter = threading.Thread(target=kubernetes_api.create, args=("v1/pods", pod("a")))
    waiter.start()
    kubernetes_api.wait_for(lambda: len(kubernetes_api.objects("v1/pods")) == 1)
    waiter.join()
    ask(kubernetes_api)
    with pytest.raises(TimeoutError, match=f"not so after 0 s; requests: list {PODS}"):
        kubernetes_api.wait_for_requests(2, timeout=0)


def test_what_is_no_http_ends_its_connection_only(kubernetes_api: ApiServer) -> None:
    with socket.create_connection(("127.0.0.1", kubernetes_api.port), PATIENCE) as client:
        client.sendall(b"nonsense\r\n\r\n")
        assert client.recv(1) == b""
    assert names(kubernetes_api) == []


@pytest.mark.parametrize("stopped", [False, True])
def test_the_next_request_waits_for_the_end_of_a_watch_and_holds_up_no_stop(
    kubernetes_api: ApiServer, stopped: bool
) -> None:
    with socket.create_connection(("127.0.0.1", kubernetes_api.port), PATIENCE) as client:
        client.sendall(f"GET {PODS}?watch=1 HTTP/1.1\r\n\r\n".encode())
        kubernetes_api.wait_for_watches(1)
        client.sendall(f"GET {PODS} HTTP/1.1\r\n\r\n".encode())
        lines = client.makefile("rb")
        for name in "abc":  # Each wakes up the watch, which comes upon the request meanwhile.
            kubernetes_api.create("v1/pods", pod(name))
            while b"ADDED" not in lines.readline():
                pass
        assert [request.verb for request in kubernetes_api.requests] == ["watch"]
        if stopped:
            kubernetes_api.stop()
        else:
            kubernetes_api.strike(End())
            assert kubernetes_api.wait_for_requests(1, "list")
        lines.close()
