"""A client that is interrupted or closed: whatever a thread is blocked in, it comes back, and nothing stays open.

The time-outs of the requests are so long that nothing else wakes them up.
"""

from __future__ import annotations

import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest
import trustme
from kubernetes.client import Configuration

from sources.kubernetes.network import (
    Listener,
    Proxy,
    lines_of,
    nobody_accepts,
    over_tls,
    pump_to,
    server_context,
    silence,
    socks,
)
from support import PATIENCE, eventually, in_thread
from workpool.sources.kubernetes import client as module
from workpool.sources.kubernetes.client import Client, Stream
from workpool.sources.kubernetes.steps import Failure, Lines, Page, Silence
from workpool.testing.kubernetes import ApiServer, Hang

Keep = Callable[[Client], Client]

PODS = "/api/v1/pods"
WATCH = {"watch": "true"}
FOR_EVER = 100 * PATIENCE
INTERRUPTED = Failure(error="interrupted")


@pytest.fixture(params=["plain", "TLS", "TLS by a proxy", "TLS by a proxy with TLS", "TLS by SOCKS", "forwarded"])
def route(
    request: pytest.FixtureRequest, kubernetes_api: ApiServer, authority: trustme.CA, ca_file: str, keep: Keep
) -> Iterator[Client]:
    """A client, by each way to the server."""
    way: str = request.param
    with ExitStack() as stack:
        configuration = Configuration(host=kubernetes_api.url)
        configuration.ssl_ca_cert = ca_file
        if "TLS" in way:
            front = stack.enter_context(Listener(over_tls(pump_to(kubernetes_api.port), server_context(authority))))
            configuration.host = f"https://127.0.0.1:{front.port}"
        if "proxy" in way:
            secure = way.endswith("TLS")
            proxy = stack.enter_context(Proxy(server_context(authority) if secure else None))
            configuration.proxy = f"{'https' if secure else 'http'}://127.0.0.1:{proxy.port}"
        elif "SOCKS" in way:
            configuration.proxy = f"socks5://127.0.0.1:{stack.enter_context(Listener(socks)).port}"
        elif way == "forwarded":
            configuration.proxy, configuration.host = kubernetes_api.url, "http://kubernetes.example"
        client = keep(Client(configuration))
        yield client
        client.close()


def stream_of(client: Client) -> Stream:
    stream = client.watch(PODS, WATCH, FOR_EVER)
    assert isinstance(stream, Stream), stream
    return stream


# R31: interrupt() brings back a thread, wherever it is.


@pytest.mark.parametrize("verb", ["list", "watch"])
def test_r31_interrupted_while_it_waits_for_an_answer(route: Client, kubernetes_api: ApiServer, verb: str) -> None:
    kubernetes_api.inject(verb, Hang(after=None))
    ask: Any = route.list if verb == "list" else route.watch
    asking = in_thread(lambda: ask(PODS, WATCH if verb == "watch" else {}, FOR_EVER))
    kubernetes_api.wait_for_requests(1)
    route.interrupt()
    assert asking() == INTERRUPTED
    assert isinstance(route.list(PODS, {}, PATIENCE), Page), "it is usable afterwards"


def test_r31_interrupted_while_it_reads_a_stream(route: Client, kubernetes_api: ApiServer) -> None:
    kubernetes_api.create("v1/pods", {"metadata": {"name": "a"}})
    kubernetes_api.inject("watch", Hang(after=1))
    stream = lines_of(stream_of(route), FOR_EVER)
    assert next(stream)
    reading = in_thread(lambda: [*stream])
    route.interrupt()
    assert reading() == []
    kubernetes_api.wait_for_watches(0)
    assert isinstance(route.list(PODS, {}, PATIENCE), Page)


def test_r34_silence_leaves_a_stream_open_by_each_way(route: Client, kubernetes_api: ApiServer) -> None:
    stream = stream_of(route)
    for name in "abc":
        assert stream.read(0.01) == Silence()
        kubernetes_api.create("v1/pods", {"metadata": {"name": name, "annotations": {"much": "x" * 20_000}}})
        assert isinstance(stream.read(PATIENCE), Lines)
    stream.close()


def test_r31_interrupted_while_it_connects(keep: Keep) -> None:
    if sys.platform != "linux":
        pytest.skip("elsewhere, a socket that is being connected does not listen to a shutdown")
    with nobody_accepts() as port:
        client = keep(Client(Configuration(host=f"http://127.0.0.1:{port}")))
        asking = in_thread(lambda: client.list(PODS, {}, FOR_EVER))
        eventually(lambda: bool(client._sockets._open))
        client.interrupt()
        assert asking() == INTERRUPTED


def test_r31_interrupted_while_it_shakes_hands(keep: Keep) -> None:
    with Listener(silence) as server:
        client = keep(Client(Configuration(host=f"https://127.0.0.1:{server.port}")))
        asking = in_thread(lambda: client.list(PODS, {}, FOR_EVER))
        assert server.accepted.acquire(timeout=PATIENCE)
        client.interrupt()
        assert asking() == INTERRUPTED


def test_r31_interrupted_while_a_proxy_connects(keep: Keep) -> None:
    with Listener(silence) as proxy:
        configuration = Configuration(host="https://kubernetes.example")
        configuration.proxy = f"http://127.0.0.1:{proxy.port}"
        client = keep(Client(configuration))
        asking = in_thread(lambda: client.list(PODS, {}, FOR_EVER))
        assert proxy.accepted.acquire(timeout=PATIENCE)
        client.interrupt()
        assert asking() == INTERRUPTED


def test_r31_interrupted_before_it_has_a_socket(
    client: Client, kubernetes_api: ApiServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    kubernetes_api.inject("list", Hang(after=None))
    look_up = socket.getaddrinfo

    def interrupt(*args: Any, **options: Any) -> Any:
        monkeypatch.undo()
        client.interrupt()
        return look_up(*args, **options)

    monkeypatch.setattr(socket, "getaddrinfo", interrupt)
    assert client.list(PODS, {}, FOR_EVER) == INTERRUPTED
    assert kubernetes_api.requests == []


def test_an_interrupt_leaves_alone_what_begins_afterwards(client: Client) -> None:
    for _ in range(3):
        client.interrupt()
        assert isinstance(client.list(PODS, {}, PATIENCE), Page)


def test_an_interrupt_concerns_every_thread(client: Client, kubernetes_api: ApiServer) -> None:
    kubernetes_api.inject("list", Hang(after=None), times=5)
    asking = [in_thread(lambda: client.list(PODS, {}, FOR_EVER)) for _ in range(5)]
    streams = [stream_of(client) for _ in range(5)]
    kubernetes_api.wait_for_requests(10)
    client.interrupt()
    assert [asked() for asked in asking] == [INTERRUPTED] * 5
    assert [[*lines_of(stream)] for stream in streams] == [[]] * 5


# Closing a stream.


def test_r31_a_stream_that_is_closed_under_a_blocked_reader_ends(route: Client, kubernetes_api: ApiServer) -> None:
    stream = stream_of(route)
    reading = in_thread(lambda: [*lines_of(stream, FOR_EVER)])
    kubernetes_api.wait_for_watches(1)
    stream.close()
    assert reading() == []
    kubernetes_api.wait_for_watches(0)
    assert isinstance(route.list(PODS, {}, PATIENCE), Page)


def test_a_stream_that_is_closed_says_no_more(route: Client, kubernetes_api: ApiServer) -> None:
    stream = stream_of(route)
    lines = lines_of(stream)
    kubernetes_api.create("v1/pods", {"metadata": {"name": "a"}})
    assert next(lines)
    kubernetes_api.create("v1/pods", {"metadata": {"name": "b"}})
    stream.close()
    stream.close()
    assert [*lines] == []
    assert [*lines_of(stream)] == []
    kubernetes_api.wait_for_watches(0)


def test_a_stream_may_be_closed_by_a_signal_handler_amid_its_read(client: Client, kubernetes_api: ApiServer) -> None:
    kubernetes_api.create("v1/pods", {"metadata": {"name": "a"}})
    stream = stream_of(client)
    pieces = stream._pieces

    def interrupted() -> Iterator[bytes]:
        stream.close()
        yield from pieces

    stream._pieces = interrupted()
    for _ in lines_of(stream):
        pass
    assert stream._response.closed


def test_a_server_that_closes_after_this_answer_is_interrupted_too(keep: Keep) -> None:
    def serve(client: socket.socket) -> None:
        client.recv(65536)
        client.sendall(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n{}\n")
        silence(client)

    for end in (Client.interrupt, Client.close):
        with Listener(serve) as server:
            client = keep(Client(Configuration(host=f"http://127.0.0.1:{server.port}")))
            lines = lines_of(stream_of(client), FOR_EVER)
            assert next(lines) == {}
            reading = in_thread(lambda: [*lines])  # noqa: B023
            end(client)
            assert reading() == []


# Closing a client.


def test_a_client_that_is_closed_leaves_nothing_and_fails(route: Client, kubernetes_api: ApiServer) -> None:
    assert isinstance(route.list(PODS, {}, PATIENCE), Page)
    idle, stream = stream_of(route), stream_of(route)
    reading = in_thread(lambda: [*lines_of(stream, FOR_EVER)])
    kubernetes_api.inject("list", Hang(after=None))
    asking = in_thread(lambda: route.list(PODS, {}, FOR_EVER))
    kubernetes_api.wait_for_requests(4)
    route.close()
    assert reading() == []
    assert asking().status is None
    kubernetes_api.wait_for_watches(0)
    assert [each for each in [*route._sockets._open] if each.fileno() != -1] == []
    assert [*lines_of(idle)] == []
    assert route.list(PODS, {}, PATIENCE) == Failure(error="the client is closed")
    assert route.watch(PODS, WATCH, PATIENCE) == Failure(error="the client is closed")
    route.close()


def test_a_watch_that_opens_while_the_client_is_closed_is_closed(
    client: Client, kubernetes_api: ApiServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    answered = module.Stream

    def close(*args: Any) -> Any:
        in_thread(client.close)()
        return answered(*args)

    monkeypatch.setattr(module, "Stream", close)
    stream: Any = client.watch(PODS, WATCH, FOR_EVER)
    assert stream._response.closed
    assert [*lines_of(stream)] == []
    kubernetes_api.wait_for_watches(0)
