"""Faults: each strikes the requests that it was meant for, as often as it was said, and nothing else."""

from __future__ import annotations

import socket
from http.client import IncompleteRead

import pytest

from support import PATIENCE
from testing.api_server.client import PODS, Answered, ask, names, pod, watching
from workpool.testing.kubernetes import (
    Answer,
    ApiServer,
    Do,
    End,
    ErrorEvent,
    Garbage,
    Hang,
    Reset,
    StreamFault,
    Truncate,
    Unversioned,
)
from workpool.testing.kubernetes.status import stream_error

ABC = [("ADDED", "a"), ("ADDED", "b"), ("ADDED", "c")]


@pytest.fixture
def server(kubernetes_api: ApiServer) -> ApiServer:
    """Has three pods."""
    for name, _ in zip("abc", ABC, strict=True):
        kubernetes_api.create("v1/pods", pod(name))
    return kubernetes_api


def test_a_clean_end_comes_after_so_many_lines_and_the_connection_serves_on(server: ApiServer) -> None:
    server.inject("watch", End(after=2))
    with watching(server) as stream:
        assert [stream.next(), stream.next(), stream.line()] == [*ABC[:2], b""]
        stream.connection.request("GET", PODS)
        assert len(Answered(stream.connection.getresponse()).json["items"]) == 3
    with watching(server, resourceVersion=92) as stream:
        assert stream.next() == ("ADDED", "c"), "the fault has struck, once"


def test_an_end_at_once_again_and_again(server: ApiServer) -> None:
    server.inject("watch", End(), times=3)
    for _ in range(3):
        with watching(server) as stream:
            assert (stream.code, stream.line()) == (200, b"")
    with watching(server) as stream:
        assert stream.next() == ABC[0]


def test_a_reset(server: ApiServer) -> None:
    server.inject("watch", Reset(after=2))
    with watching(server) as stream:
        assert [stream.next(), stream.next()] == ABC[:2]
        with pytest.raises(ConnectionResetError):
            stream.line()


@pytest.mark.parametrize("verb", ["list", "watch"])
def test_a_reset_before_any_answer(server: ApiServer, verb: str) -> None:
    server.inject(verb, Reset(after=None))
    with pytest.raises(ConnectionResetError):
        ask(server, **({"watch": 1} if verb == "watch" else {}))  # type: ignore[arg-type]


def test_a_truncated_line(server: ApiServer) -> None:
    server.inject("watch", Truncate(after=1))
    with watching(server) as stream:
        assert stream.next() == ABC[0]
        with pytest.raises((IncompleteRead, AssertionError)):
            stream.line()
    server.inject("list", Truncate())
    with pytest.raises(IncompleteRead):
        ask(server)


def test_a_hang_is_silence_on_an_open_connection(server: ApiServer) -> None:
    server.inject("watch", Hang(after=1))
    with watching(server) as stream:
        assert stream.next() == ABC[0]
        server.create("v1/pods", pod("d"))
        with watching(server, resourceVersion=93) as healthy:
            assert healthy.next() == ("ADDED", "d")
        assert stream.silent()
        server.wait_for_watches(1)
    server.wait_for_watches(0)


@pytest.mark.parametrize("verb", ["list", "watch"])
def test_a_hang_before_any_answer(server: ApiServer, verb: str) -> None:
    server.inject(verb, Hang(after=None))
    with socket.create_connection(("127.0.0.1", server.port), PATIENCE) as client:
        client.sendall(f"GET {PODS}{'?watch=1' if verb == 'watch' else ''} HTTP/1.1\r\n\r\n".encode())
        server.wait_for_requests(1, verb)
        assert names(server) == ["a", "b", "c"]
        client.setblocking(False)
        with pytest.raises(BlockingIOError):
            client.recv(1)


def test_garbage_and_then_the_stream_goes_on(server: ApiServer) -> None:
    server.inject("watch", Garbage(after=1), Garbage(b"\xff\xfe"))
    with watching(server) as stream:
        assert stream.next() == ABC[0]
        assert stream.line() == Garbage().line
        assert [stream.next(), stream.next()] == ABC[1:]
    with watching(server) as stream:
        assert stream.line() == b"\xff\xfe"
        assert stream.next() == ABC[0]


def test_an_object_without_a_version_and_then_the_stream_goes_on(server: ApiServer) -> None:
    server.inject("watch", Unversioned(after=1))
    with watching(server) as stream:
        found = [stream.event()["object"]["metadata"].get("resourceVersion") for _ in range(3)]
    assert found == ["91", None, "93"]


def test_an_error_in_the_stream_and_its_end(server: ApiServer) -> None:
    server.inject("watch", ErrorEvent(after=1), ErrorEvent(stream_error("etcd event received with PrevKv=nil")))
    with watching(server) as stream:
        assert stream.next() == ABC[0]
        event = stream.event()
        assert (event["type"], event["object"]["code"], event["object"]["reason"]) == ("ERROR", 410, "Expired")
        assert stream.line() == b""
    with watching(server) as stream:
        assert stream.event()["object"] == {
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": "etcd event received with PrevKv=nil", "reason": "InternalError", "code": 500,
        }  # fmt: skip
        assert stream.line() == b""


@pytest.mark.parametrize("verb", ["list", "watch", "discover"])
@pytest.mark.parametrize("code", [401, 403, 404, 410, 500, 503, 504])
def test_an_answer_is_a_status(server: ApiServer, code: int, verb: str) -> None:
    server.inject(verb, Answer(code))
    query: dict[str, object] = {"watch": "true"} if verb == "watch" else {}
    answered = ask(server, "/api/v1" if verb == "discover" else PODS, **query)  # type: ignore[arg-type]
    assert (answered.code, answered.json["kind"], answered.json["code"]) == (code, "Status", code)
    assert names(server) == ["a", "b", "c"]


def test_a_429_is_plain_text_with_retry_after(server: ApiServer) -> None:
    server.inject("list", Answer(429), Answer(429, {"kind": "Status"}, retry_after=7))
    answered = ask(server)
    assert (answered.code, answered.headers["Retry-After"]) == (429, "1")
    assert answered.headers["Content-Type"].startswith("text/plain")
    assert answered.text == "Too many requests, please try again later.\n"
    answered = ask(server)
    assert (answered.json, answered.headers["Retry-After"]) == ({"kind": "Status"}, "7")


def test_a_code_without_a_usual_status_needs_a_body(server: ApiServer) -> None:
    with pytest.raises(ValueError, match="no Status is known for 418"):
        Answer(418)
    server.inject("list", Answer(418, "tea"))
    assert ask(server).text == "tea"


def test_something_happens_between_two_requests(server: ApiServer) -> None:
    server.inject("page", Do(server.compact))
    token = ask(server, limit=1).json["metadata"]["continue"]
    server.create("v1/pods", pod("d"))
    assert ask(server, **{"continue": token}).code == 410


def test_faults_strike_in_order_and_only_what_they_are_for(server: ApiServer) -> None:
    server.inject("list", Answer(500), Answer(503))
    server.inject(lambda request: request.path.endswith("nodes"), Answer(403), times=None)
    with watching(server) as stream:
        assert stream.next() == ABC[0]
    assert [ask(server).code for _ in range(3)] == [500, 503, 200]
    assert [ask(server, "/api/v1/nodes").code for _ in range(3)] == [403, 403, 403]
    server.heal()
    assert ask(server, "/api/v1/nodes").code == 200


def test_a_fault_that_can_never_strike_is_refused(server: ApiServer) -> None:
    with pytest.raises(ValueError, match="no request is a 'lists'"):
        server.inject("lists", End())
    with pytest.raises(ValueError, match="a fault of watches cannot strike a list"):
        server.inject("list", End())


@pytest.mark.parametrize(
    "fault",
    [End(), Reset(), Truncate(), Hang(), Garbage(), Unversioned(), ErrorEvent()],
    ids=lambda fault: type(fault).__name__,
)
def test_a_fault_strikes_the_watches_that_are_open(server: ApiServer, fault: StreamFault) -> None:
    with watching(server) as one, watching(server) as other, watching(server, "/api/v1/nodes") as third:
        server.wait_for_watches(3)
        server.create("v1/nodes", {"metadata": {"name": "n"}})
        server.strike(fault)
        server.create("v1/pods", pod("d"))
        for stream in (one, other):
            assert [stream.next() for _ in range(3)] == ABC, "what it had to send comes first"
            match fault:
                case End():
                    assert stream.line() == b""
                case Reset():
                    with pytest.raises(ConnectionResetError):
                        stream.line()
                case Truncate():
                    with pytest.raises((IncompleteRead, AssertionError)):
                        stream.line()
                case Hang():
                    assert stream.silent()
                case Garbage():
                    assert stream.line() == fault.line
                    assert stream.next() == ("ADDED", "d")
                case Unversioned():
                    assert "resourceVersion" not in stream.event()["object"]["metadata"]
                case ErrorEvent():
                    assert stream.event()["type"] == "ERROR"
        assert third.next() == ("ADDED", "n")


def test_text_in_utf_8_is_cut_within_a_character() -> None:
    with ApiServer(chunk_size=1) as server:
        server.create("v1/pods", pod("a", note="žluťoučký 🐎"))
        with watching(server) as stream:
            parts = [stream.response.read1() for _ in range(80)]
            assert {len(part) for part in parts} == {1}
            stream._read = b"".join(parts)
            assert stream.event()["object"]["metadata"]["labels"]["note"] == "žluťoučký 🐎"


def test_an_object_of_four_megabytes(server: ApiServer) -> None:
    server.create("v1/configmaps", {"metadata": {"name": "big"}, "data": {"x": "ž" * 2**21}})
    with watching(server, "/api/v1/configmaps") as stream:
        line = stream.line()
    assert len(line) > 4 * 2**20
    assert "ž".encode() * 2**21 in line
