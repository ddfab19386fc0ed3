"""Requests, and what comes of them: what the world does is a Failure that says so, or the end of a stream."""

from __future__ import annotations

import gzip
import json
import random
import socket
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from kubernetes.client import Configuration

from sources.kubernetes.network import Listener, answer, lines_of, nobody_accepts, pump_to, silence
from sources.kubernetes.world import pod
from support import PATIENCE, eventually
from workpool.sources.kubernetes import client as module
from workpool.sources.kubernetes.client import Client, Stream, retry_after
from workpool.sources.kubernetes.errors import BadKubeconfig
from workpool.sources.kubernetes.objects import read_page
from workpool.sources.kubernetes.steps import Done, End, Failure, Lines, Page, Silence
from workpool.testing.kubernetes import Answer, ApiServer, Garbage, Hang, Reset, Truncate, faults

Keep = Callable[[Client], Client]

PODS = "/api/v1/pods"
WATCH = {"watch": "true"}
OK = "HTTP/1.1 200 OK\nContent-Type: application/json"


def watch(client: Client, **query: str) -> Stream:
    """An open watch."""
    stream = client.watch(PODS, {**WATCH, **query}, PATIENCE)
    assert isinstance(stream, Stream), stream
    return stream


def seen(stream: Stream) -> list[str | None]:
    """The names of the objects of all lines, until the end; None for a line that cannot be decoded."""
    return [line and line["object"]["metadata"]["name"] for line in lines_of(stream)]


def of(port: int) -> Client:
    """Of a port of this machine."""
    return Client(Configuration(host=f"http://127.0.0.1:{port}"))


# What is asked.


def test_a_list_says_who_asks_and_what(client: Client, kubernetes_api: ApiServer) -> None:
    kubernetes_api.create("v1/pods", {"metadata": {"name": "a", "labels": {"app": "web & more"}}})
    page = client.list(PODS, {"labelSelector": "app in (web, shop)", "limit": "5"}, PATIENCE)
    assert isinstance(page, Page)
    assert json.loads(page.body)["kind"] == "PodList"
    assert isinstance(client.list("/version", {}, PATIENCE), Page)
    asked, _ = kubernetes_api.requests
    assert asked.query == {"labelSelector": "app in (web, shop)", "limit": "5"}
    assert asked.headers["accept"] == "application/json"
    assert asked.headers["accept-encoding"] == "gzip"
    assert asked.headers["user-agent"].startswith("workpool/")
    assert "authorization" not in asked.headers


def test_a_long_list_comes_compressed(client: Client, kubernetes_api: ApiServer) -> None:
    kubernetes_api.create("v1/pods", {"metadata": {"name": "a", "annotations": {"much": "é" * 200_000}}})
    page = client.list(PODS, {}, PATIENCE)
    assert isinstance(page, Page)
    assert json.loads(page.body)["items"][0]["metadata"]["annotations"]["much"] == "é" * 200_000


def test_a_list_that_cannot_be_unpacked(keep: Keep) -> None:
    with Listener(answer(f"{OK}\nContent-Encoding: gzip\nContent-Length: 7", b"no gzip")) as server:
        failure = keep(of(server.port)).list(PODS, {}, PATIENCE)
    assert isinstance(failure, Failure)
    assert failure.status is None


def test_a_list_that_was_cut_while_it_was_packed_is_none(keep: Keep) -> None:
    """urllib3 takes what there is."""
    body = gzip.compress(b'{"metadata": {"resourceVersion": "5"}, "items": []}', mtime=0)[:-12]
    with Listener(answer(f"{OK}\nContent-Encoding: gzip\nContent-Length: {len(body)}", body)) as server:
        found = keep(of(server.port)).list(PODS, {}, PATIENCE)
    assert isinstance(found, Page)
    assert read_page(found.body) is None


def test_the_address_may_have_a_path(kubernetes_api: ApiServer, keep: Keep) -> None:
    client = keep(Client(Configuration(host=f"{kubernetes_api.url}/clusters/c1/")))
    client.list(PODS, {}, PATIENCE)
    assert [request.path for request in kubernetes_api.requests] == [f"/clusters/c1{PODS}"]
    assert client.server == f"{kubernetes_api.url}/clusters/c1"


def test_a_watch_comes_line_by_line_and_is_not_compressed(client: Client, kubernetes_api: ApiServer) -> None:
    stream = lines_of(watch(client))
    for name in "abc":
        kubernetes_api.create("v1/pods", {"metadata": {"name": name}})
        assert next(stream)["object"]["metadata"]["name"] == name
    assert kubernetes_api.requests[0].headers["accept-encoding"] == "identity"


def test_one_connection_serves_one_request_after_another(kubernetes_api: ApiServer, keep: Keep) -> None:
    kubernetes_api.inject("watch", faults.End(), times=None)
    with Listener(pump_to(kubernetes_api.port)) as front:
        client = keep(of(front.port))
        for _ in range(3):
            assert isinstance(client.list(PODS, {}, PATIENCE), Page)
            assert isinstance(client.list("/none", {}, PATIENCE), Failure)
            stream = watch(client)
            assert seen(stream) == []
            stream.close()
        client.close()
    assert front.accepted.acquire(blocking=False)
    assert not front.accepted.acquire(blocking=False)


def test_a_connection_that_the_server_has_closed_is_not_used_again(client: Client, kubernetes_api: ApiServer) -> None:
    for _ in range(3):
        assert isinstance(client.list(PODS, {}, PATIENCE), Page)
        kubernetes_api.restart()


# What may come of it.


@pytest.mark.parametrize("code", [401, 403, 404, 410, 500, 503, 504])
@pytest.mark.parametrize("verb", ["list", "watch"])
def test_a_refusal_is_a_failure_with_its_status_and_its_body(
    client: Client, kubernetes_api: ApiServer, verb: str, code: int
) -> None:
    kubernetes_api.inject(verb, Answer(code, retry_after=7))
    failure = client.list(PODS, {}, PATIENCE) if verb == "list" else client.watch(PODS, WATCH, PATIENCE)
    assert isinstance(failure, Failure)
    assert (failure.status, failure.retry_after) == (code, 7.0)
    assert (failure.body["kind"], failure.body["code"]) == ("Status", code)
    assert str(failure) == f"{code}: {failure.body['message']}"


@pytest.mark.parametrize("verb", ["list", "watch"])
def test_r38_a_429_may_be_plain_text(client: Client, kubernetes_api: ApiServer, verb: str) -> None:
    kubernetes_api.inject(verb, Answer(429, retry_after=2))
    failure = client.list(PODS, {}, PATIENCE) if verb == "list" else client.watch(PODS, WATCH, PATIENCE)
    assert failure == Failure(429, "Too many requests, please try again later.", 2.0, "Too Many Requests")


def test_a_refusal_may_say_nothing(keep: Keep) -> None:
    with Listener(answer("HTTP/1.1 502 Bad Gateway\nContent-Length: 0")) as proxy:
        failure = keep(of(proxy.port)).list(PODS, {}, PATIENCE)
    assert str(failure) == "502: Bad Gateway"


def test_a_redirect_is_not_followed(keep: Keep) -> None:
    with Listener(answer("HTTP/1.1 302 Found\nLocation: /login\nContent-Length: 0")) as proxy:
        failure = keep(of(proxy.port)).list(PODS, {}, PATIENCE)
    assert isinstance(failure, Failure)
    assert failure.status == 302


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("2", 2.0), ("0", 0.0), ("", None), ("soon", None), ("-1", None), ("inf", None), ("1e3", None),
        ("9" * 400, None),
        ("Wed, 01 Jan 2025 00:00:05 GMT", 5.0), ("Tue, 31 Dec 2024 23:00:00 GMT", 0.0),
        ("Wed, 01 Jan 2025 00:00:05 -0000", 5.0), ("Wed, 99 Jan 2025 00:00:05 GMT", None),
        ("Wed, 01 Jan 2025 00:00:05 +99999999999999", None),
    ],
)  # fmt: skip
def test_r13_retry_after_is_a_number_or_a_date(text: str, seconds: float | None) -> None:
    assert retry_after(text, datetime(2025, 1, 1, tzinfo=UTC)) == seconds


@pytest.mark.parametrize("body", [b"5", b"", b"<html>", b'{"\xff": 1}'])
def test_an_answer_is_handed_on_as_it_is(keep: Keep, body: bytes) -> None:
    with Listener(answer(f"{OK}\nContent-Length: {len(body)}", body)) as server:
        assert keep(of(server.port)).list(PODS, {}, PATIENCE) == Page(body)


@pytest.mark.parametrize("verb", ["list", "watch"])
@pytest.mark.parametrize(
    ("fault", "error"), [(Reset(after=None), "connection reset"), (Hang(after=None), "time-out after 0.01 s")]
)
def test_a_request_that_is_never_answered(
    client: Client, kubernetes_api: ApiServer, verb: str, fault: Any, error: str
) -> None:
    kubernetes_api.inject(verb, fault)
    timeout = 0.01 if isinstance(fault, Hang) else PATIENCE
    failure = client.list(PODS, {}, timeout) if verb == "list" else client.watch(PODS, WATCH, timeout)
    assert failure == Failure(error=error)
    kubernetes_api.wait_for_requests(1)  # Else the next could be the one that the fault strikes.
    eventually(lambda: kubernetes_api.faults == 0)
    assert isinstance(client.list(PODS, {}, PATIENCE), Page)


def test_a_list_that_is_cut_off(client: Client, kubernetes_api: ApiServer) -> None:
    kubernetes_api.inject("list", Truncate())
    assert client.list(PODS, {}, PATIENCE) == Failure(error="the answer was cut off")


def test_a_connection_that_is_closed_before_any_answer(keep: Keep) -> None:
    with Listener(lambda client: client.recv(65536)) as server:
        failure = keep(of(server.port)).list(PODS, {}, PATIENCE)
    assert failure == Failure(error="the connection was closed before any answer")


def test_an_answer_that_is_no_http(keep: Keep) -> None:
    with Listener(answer("SSH-2.0-OpenSSH_9.6")) as server:
        failure = keep(of(server.port)).list(PODS, {}, PATIENCE)
    assert failure == Failure(error="SSH-2.0-OpenSSH_9.6")


def test_a_server_that_is_down(client: Client, kubernetes_api: ApiServer) -> None:
    with kubernetes_api.down():
        assert client.list(PODS, {}, PATIENCE) == Failure(error="connection refused")
        assert client.watch(PODS, WATCH, PATIENCE) == Failure(error="connection refused")
    assert isinstance(client.list(PODS, {}, PATIENCE), Page)


def test_a_name_that_is_not_known(keep: Keep, monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*args: object, **options: object) -> object:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    client = keep(Client(Configuration(host="http://kubernetes.invalid")))
    assert client.list(PODS, {}, PATIENCE) == Failure(error="name not known")


@pytest.mark.parametrize("host", ["", "http://", "https:///path", "ftp://127.0.0.1", "127.0.0.1:6443", "http://a:b"])
def test_an_address_that_is_none(host: str) -> None:
    with pytest.raises(BadKubeconfig, match=r"^the configuration cannot be used: .*$"):
        Client(Configuration(host=host))


def test_a_name_that_is_none(keep: Keep) -> None:
    client = keep(Client(Configuration(host=f"http://{'a' * 70}.example")))
    assert client.list(PODS, {}, PATIENCE) == Failure(error="name not known")


def test_the_next_address_of_a_name_is_tried(
    client: Client, kubernetes_api: ApiServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as gone:
        port = gone.getsockname()[1]
    places = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", each)) for each in (port, kubernetes_api.port)]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **options: places)
    assert isinstance(client.list(PODS, {}, PATIENCE), Page)
    monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **options: places[:1])
    client.interrupt()  # So that the connection is not used again.
    assert client.list(PODS, {}, PATIENCE) == Failure(error="connection refused")
    monkeypatch.undo()


def test_r16_connecting_has_a_time_out_of_its_own(keep: Keep, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CONNECT_TIMEOUT", 0.05)
    with nobody_accepts() as port:
        assert keep(of(port)).list(PODS, {}, 10 * PATIENCE) == Failure(error="time-out after 0.05 s")


def test_r16_so_has_the_hand_shake(keep: Keep, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CONNECT_TIMEOUT", 0.05)
    with Listener(silence) as server:
        client = keep(Client(Configuration(host=f"https://127.0.0.1:{server.port}")))
        assert client.list(PODS, {}, 10 * PATIENCE) == Failure(error="time-out after 0.05 s")


def test_what_is_left_of_a_configuration_that_was_handed_over_is_used_as_it_is(client: Client) -> None:
    assert client.refresh() == Done()
    assert isinstance(client.list(PODS, {}, PATIENCE), Page)


# The lines of a stream.


@pytest.mark.parametrize(
    "fault", [faults.End(after=2), Reset(after=2), Truncate(after=2)], ids=["end", "reset", "half a line"]
)
def test_r08_a_stream_ends_however_it_ends(client: Client, kubernetes_api: ApiServer, fault: Any) -> None:
    kubernetes_api.inject("watch", fault)
    for name in "abc":
        kubernetes_api.create("v1/pods", {"metadata": {"name": name}})
    assert seen(watch(client)) == ["a", "b"]
    assert isinstance(client.list(PODS, {}, PATIENCE), Page)


def test_r08_a_line_without_its_end_is_none_though_it_is_whole(keep: Keep) -> None:
    for ending in ("", "\nTransfer-Encoding: chunked"):
        body = b'{"a":1}\n{"a":2}'
        sent = b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body) if ending else body
        with Listener(answer(OK + ending, sent)) as server:
            assert [*lines_of(watch(keep(of(server.port))))] == [{"a": 1}]


def test_r08_lines_that_come_with_the_end_are_told_before_it(keep: Keep) -> None:
    over = threading.Event()

    def serve(client: socket.socket) -> None:
        client.recv(65536)
        client.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\n1\n2\n\r\n")
        client.shutdown(socket.SHUT_WR)
        over.set()
        silence(client)

    with Listener(serve) as server:
        stream = watch(keep(of(server.port)))
        assert over.wait(PATIENCE)
        assert stream.read(PATIENCE) == Lines([b"1", b"2"])
        assert stream.read(PATIENCE) == End()


def test_r16_silence_is_told_and_leaves_a_stream_open(client: Client, kubernetes_api: ApiServer) -> None:
    stream = watch(client)
    for name in "ab":
        kubernetes_api.create("v1/pods", {"metadata": {"name": name}})
        assert isinstance(stream.read(PATIENCE), Lines)
        assert stream.read(0.01) == Silence()
    stream.close()
    assert stream.read(PATIENCE) == End()
    kubernetes_api.wait_for_watches(0)


def test_what_came_together_is_not_waited_for(keep: Keep) -> None:
    """The second chunk was taken from the socket with the first, so no more comes by that."""

    def serve(client: socket.socket) -> None:
        client.recv(65536)
        client.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n1\n\r\n2\r\n2\n\r\n")
        silence(client)

    with Listener(serve) as server:
        stream = watch(keep(of(server.port)))
        lines = lines_of(stream)
        assert [next(lines), next(lines)] == [1, 2]
        stream.close()


def test_r09_after_a_line_that_does_not_parse_the_next_is_read(client: Client, kubernetes_api: ApiServer) -> None:
    kubernetes_api.inject("watch", Garbage(after=1))
    for name in "ab":
        kubernetes_api.create("v1/pods", {"metadata": {"name": name}})
    stream = watch(client)
    lines = [line for _, line in zip(range(3), lines_of(stream), strict=False)]
    assert [line and line["type"] for line in lines] == ["ADDED", None, "ADDED"]
    stream.close()


def test_r32_a_line_of_four_megabytes(keep: Keep) -> None:
    with ApiServer(chunk_size=1001) as server:
        server.create("v1/pods", {"metadata": {"name": "a", "annotations": {"much": "é" * 2_000_000}}})
        server.create("v1/pods", {"metadata": {"name": "b"}})
        server.inject("watch", faults.End(after=2))
        client = keep(Client(Configuration(host=server.url)))
        (a, b) = [line["object"] for line in lines_of(watch(client))]
        assert a["metadata"]["annotations"]["much"] == "é" * 2_000_000
        assert b["metadata"]["name"] == "b"


def test_r32_a_long_line_costs_what_it_is_long(keep: Keep) -> None:
    """64 bytes at a time: to copy or to search what is there again for each would take a minute."""
    chunks = b"".join(b"40\r\n%b\r\n" % (b"x" * 64) for _ in range(62_500))
    body = b'1\r\n"\r\n' + chunks + b'3\r\n"\n5\r\n1\r\n\n\r\n0\r\n\r\n'
    with Listener(answer(f"{OK}\nTransfer-Encoding: chunked", body)) as server:
        (long, rest) = lines_of(watch(keep(of(server.port))))
    assert (len(long), rest) == (4_000_000, 5)


def test_r32_a_character_may_be_cut_anywhere(keep: Keep) -> None:
    with ApiServer(chunk_size=1) as server:
        for name, text in (("a", "é"), ("b", "漢字"), ("c", "🐍")):
            server.create("v1/pods", {"metadata": {"name": name, "annotations": {"text": text}}})
        server.inject("watch", faults.End(after=3))
        lines = [*lines_of(watch(keep(Client(Configuration(host=server.url)))))]
    assert [line["object"]["metadata"]["annotations"]["text"] for line in lines] == ["é", "漢字", "🐍"]


def test_r32_lines_and_chunks_of_any_length(keep: Keep) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    lines = [
        pod("ab🐍"[chance.randrange(3)] * chance.choice([1, 10, 1000, 100_000]), "u", chance.randrange(9**9))
        for _ in range(chance.randrange(60))
    ]
    body = b"".join(json.dumps(line, ensure_ascii=chance.random() < 0.5).encode() + b"\n" for line in lines)
    body += body[: chance.randrange(20)].partition(b"\n")[0]
    chunks = []
    while body:
        size = chance.choice([1, 2, 7, 100, 5000, 200_000])
        chunk, body = body[:size], body[size:]
        chunks.append(b"%x\r\n%b\r\n" % (len(chunk), chunk))
    sent = b"".join(chunks) + b"0\r\n\r\n"[: chance.choice([0, 5])]
    with Listener(answer(f"{OK}\nTransfer-Encoding: chunked", sent)) as server:
        assert [*lines_of(watch(keep(of(server.port))))] == lines
