"""Watches: from which version, what arrives as what, bookmarks, streaming lists, slow readers."""

from __future__ import annotations

import threading

import pytest

from testing.api_server.client import Stream, ask, names, pod, watching
from workpool.testing import FakeClock
from workpool.testing.kubernetes import ApiServer, End
from workpool.testing.kubernetes.query import Watch
from workpool.testing.kubernetes.resource import Resource
from workpool.testing.kubernetes.store import Store

STREAMING = {"sendInitialEvents": "true", "resourceVersionMatch": "NotOlderThan", "allowWatchBookmarks": "true"}


def rest(server: ApiServer, stream: Stream) -> list[tuple[str, str]]:
    """All that a watch has still to send."""
    server.wait_for_watches(1)
    server.strike(End())
    found = []
    while line := stream.line():
        stream._read = line + b"\n" + stream._read
        found.append(stream.next())
    return found


@pytest.mark.parametrize("version", [{}, {"resourceVersion": "0"}, {"resourceVersion": ""}], ids=str)
def test_without_a_version_it_begins_with_what_is_there(kubernetes_api: ApiServer, version: dict[str, str]) -> None:
    kubernetes_api.create("v1/pods", pod("b"))
    kubernetes_api.create("v1/pods", pod("a"))
    with watching(kubernetes_api, **version) as stream:
        assert [stream.next(), stream.next()] == [("ADDED", "a"), ("ADDED", "b")]
        kubernetes_api.delete("v1/pods", "a")
        assert stream.next() == ("DELETED", "a")


@pytest.mark.parametrize(
    ("value", "verb"), [("", "watch"), ("yes", "watch"), ("True", "watch"), ("0", "list"), ("False", "list")]
)
def test_a_watch_is_asked_for_by_anything_but_false(kubernetes_api: ApiServer, value: str, verb: str) -> None:
    kubernetes_api.inject("watch", End())
    assert ask(kubernetes_api, watch=value).code == 200
    assert kubernetes_api.requests[0].verb == verb


def test_from_a_version_it_begins_after_it(kubernetes_api: ApiServer) -> None:
    kubernetes_api.create("v1/pods", pod("a"))
    version = kubernetes_api.version
    kubernetes_api.create("v1/configmaps", {"metadata": {"name": "other"}})
    kubernetes_api.patch("v1/pods", "a", {"spec": {"x": 1}})
    kubernetes_api.delete("v1/pods", "a")
    with watching(kubernetes_api, resourceVersion=version) as stream:
        modified, deleted = stream.event(), stream.event()
        kubernetes_api.create("v1/pods", pod("live"))
        assert stream.next() == ("ADDED", "live")
    assert (modified["type"], modified["object"]["metadata"]["resourceVersion"]) == ("MODIFIED", "93")
    assert (deleted["type"], deleted["object"]["metadata"]["resourceVersion"]) == ("DELETED", "94")
    assert deleted["object"]["spec"] == {"x": 1}
    assert deleted["object"]["kind"] == "Pod"


def test_what_enters_and_leaves_the_selector_is_added_and_deleted(kubernetes_api: ApiServer) -> None:
    with watching(kubernetes_api, labelSelector="app=web", fieldSelector="status.phase!=Failed") as stream:
        kubernetes_api.create("v1/pods", pod("a", app="db", was="db"))
        kubernetes_api.patch("v1/pods", "a", {"metadata": {"labels": {"app": "web"}}})
        kubernetes_api.patch("v1/pods", "a", {"spec": {"x": 1}})
        kubernetes_api.patch("v1/pods", "a", {"status": {"phase": "Failed"}})
        kubernetes_api.patch("v1/pods", "a", {"spec": {"x": 2}})
        kubernetes_api.delete("v1/pods", "a")
        assert [stream.next(), stream.next()] == [("ADDED", "a"), ("MODIFIED", "a")]
        left = stream.event()
        assert left["type"] == "DELETED"
        assert left["object"]["metadata"]["resourceVersion"] == "94", "that of the change by which it left"
        assert "status" not in left["object"], "as it was last seen in the selector"
        assert rest(kubernetes_api, stream) == []


def test_a_namespace_is_watched_alone(kubernetes_api: ApiServer) -> None:
    with watching(kubernetes_api, "/api/v1/namespaces/x/pods") as stream:
        kubernetes_api.create("v1/pods", pod("a", "y"))
        kubernetes_api.create("v1/pods", pod("b", "x"))
        assert rest(kubernetes_api, stream) == [("ADDED", "b")]


def test_a_name_that_is_used_again_is_deleted_and_added(kubernetes_api: ApiServer) -> None:
    with watching(kubernetes_api) as stream:
        kubernetes_api.create("v1/pods", pod("a"))
        kubernetes_api.delete("v1/pods", "a")
        kubernetes_api.create("v1/pods", pod("a"))
        events = [stream.event() for _ in range(3)]
    assert [event["type"] for event in events] == ["ADDED", "DELETED", "ADDED"]
    uids = [event["object"]["metadata"]["uid"] for event in events]
    assert uids[0] == uids[1] != uids[2]


@pytest.mark.parametrize("in_stream", [True, False])
def test_a_compacted_version_is_expired_inside_the_stream_or_as_the_http_status(in_stream: bool) -> None:
    with ApiServer(expired_in_stream=in_stream) as server:
        server.create("v1/pods", pod("a"))
        server.create("v1/pods", pod("b"))
        server.compact()
        with watching(server, resourceVersion="91") as stream:
            if in_stream:
                event = stream.event()
                assert (stream.code, event["type"], stream.line()) == (200, "ERROR", b"")
                status = event["object"]
            else:
                assert stream.code == 410
                status = ask(server, watch=1, resourceVersion=91).json
        assert (status["reason"], status["code"]) == ("Expired", 410)
        assert status["message"] == "too old resource version: 91 (92)"
        with watching(server, resourceVersion="92") as stream:
            assert rest(server, stream) == [], "nothing was before it"


def test_a_compaction_takes_nothing_from_an_open_watch(kubernetes_api: ApiServer) -> None:
    with watching(kubernetes_api) as stream:
        kubernetes_api.wait_for_watches(1)
        kubernetes_api.create("v1/pods", pod("a"))
        kubernetes_api.compact()
        assert stream.next() == ("ADDED", "a")


def test_a_version_of_the_future_is_silent_until_it_is_past(kubernetes_api: ApiServer) -> None:
    with watching(kubernetes_api, resourceVersion=92, allowWatchBookmarks="true") as stream:
        kubernetes_api.wait_for_watches(1)
        kubernetes_api.bookmark()
        assert stream.code == 200
        for name in "abc":
            kubernetes_api.create("v1/pods", pod(name))
        assert rest(kubernetes_api, stream) == [("ADDED", "c")]


def test_what_asks_for_any_version_gets_that_of_a_cache_that_is_behind(kubernetes_api: ApiServer) -> None:
    kubernetes_api.create("v1/pods", pod("a"))
    kubernetes_api.create("v1/pods", pod("b"))
    kubernetes_api.lag("91")
    assert names(kubernetes_api, resourceVersion=0) == ["a"]
    assert names(kubernetes_api) == ["a", "b"]
    with watching(kubernetes_api, resourceVersion=0) as stream:
        assert [stream.next(), stream.next()] == [("ADDED", "a"), ("ADDED", "b")]
    kubernetes_api.compact()
    assert names(kubernetes_api, resourceVersion=0) == ["a", "b"], "no cache is behind what is compacted"
    kubernetes_api.lag(None)
    kubernetes_api.create("v1/pods", pod("c"))
    assert names(kubernetes_api, resourceVersion=0) == ["a", "b", "c"]


def test_bookmarks_reach_who_asked_for_them_in_order(kubernetes_api: ApiServer) -> None:
    with watching(kubernetes_api, allowWatchBookmarks="true") as stream, watching(kubernetes_api) as without:
        kubernetes_api.wait_for_watches(2)
        kubernetes_api.create("v1/pods", pod("a"))
        kubernetes_api.create("v1/configmaps", {"metadata": {"name": "other"}})
        kubernetes_api.bookmark()
        kubernetes_api.create("v1/pods", pod("b"))
        assert stream.next() == ("ADDED", "a")
        assert stream.event() == {
            "type": "BOOKMARK", "object": {"kind": "Pod", "apiVersion": "v1", "metadata": {"resourceVersion": "92"}},
        }  # fmt: skip
        assert stream.next() == ("ADDED", "b")
        assert [without.next(), without.next()] == [("ADDED", "a"), ("ADDED", "b")]


def test_a_timeout_ends_it_with_a_bookmark() -> None:
    clock = FakeClock()
    with ApiServer(clock=clock) as server, watching(server, timeoutSeconds=300, allowWatchBookmarks=1) as stream:
        server.wait_for_watches(1)
        server.create("v1/pods", pod("a"))
        assert stream.next() == ("ADDED", "a")
        clock.advance(299)
        assert stream.silent()
        clock.advance(1)
        assert stream.next() == ("BOOKMARK", "91")
        assert stream.line() == b""


def test_a_timeout_passes_by_itself_on_the_clock_of_the_system(kubernetes_api: ApiServer) -> None:
    with watching(kubernetes_api, timeoutSeconds=1) as stream:
        assert stream.line() == b""


def test_a_streaming_list_ends_with_its_bookmark_and_goes_on(kubernetes_api: ApiServer) -> None:
    kubernetes_api.create("v1/pods", pod("a"))
    kubernetes_api.create("v1/pods", pod("b"))
    with watching(kubernetes_api, **STREAMING) as stream:
        assert [stream.next(), stream.next()] == [("ADDED", "a"), ("ADDED", "b")]
        end = stream.event()
        assert end["type"] == "BOOKMARK"
        assert end["object"]["metadata"] == {
            "resourceVersion": "92", "annotations": {"k8s.io/initial-events-end": "true"},
        }  # fmt: skip
        kubernetes_api.delete("v1/pods", "a")
        assert stream.next() == ("DELETED", "a")


def test_a_streaming_list_is_at_least_as_new_as_it_was_asked_for(kubernetes_api: ApiServer) -> None:
    kubernetes_api.create("v1/pods", pod("a"))
    kubernetes_api.compact()
    with watching(kubernetes_api, resourceVersion=90, **STREAMING) as stream:
        assert [stream.next(), stream.next()] == [("ADDED", "a"), ("BOOKMARK", "91")]
    assert ask(kubernetes_api, watch=1, resourceVersion=99, **STREAMING).code == 504


def test_initial_events_can_be_declined(kubernetes_api: ApiServer) -> None:
    kubernetes_api.create("v1/pods", pod("a"))
    with watching(kubernetes_api, **{**STREAMING, "sendInitialEvents": "false"}) as stream:
        kubernetes_api.wait_for_watches(1)
        kubernetes_api.create("v1/pods", pod("b"))
        assert rest(kubernetes_api, stream) == [("ADDED", "b")]


@pytest.mark.parametrize(
    ("streaming_lists", "query", "field"),
    [
        (False, STREAMING, "sendInitialEvents"),
        (True, {"sendInitialEvents": "true"}, "resourceVersionMatch"),
        (True, {"resourceVersionMatch": "NotOlderThan"}, "resourceVersionMatch"),
    ],
)
def test_what_does_not_go_together_is_invalid(streaming_lists: bool, query: dict[str, str], field: str) -> None:
    with ApiServer(streaming_lists=streaming_lists) as server:
        answered = ask(server, watch=1, **query)
        assert (answered.code, answered.json["reason"]) == (422, "Invalid")
        assert answered.json["details"]["causes"][0]["field"] == field


def test_several_watch_at_once_and_see_the_same(kubernetes_api: ApiServer) -> None:
    streams = [Stream(kubernetes_api, "/api/v1/pods", {}) for _ in range(5)]
    try:
        writers = [
            threading.Thread(target=lambda n=n: [kubernetes_api.create("v1/pods", pod(f"{n}-{i}")) for i in range(20)])
            for n in range(3)
        ]
        for writer in writers:
            writer.start()
        for writer in writers:
            writer.join()
        seen = [[stream.event()["object"]["metadata"]["resourceVersion"] for _ in range(60)] for stream in streams]
        assert seen == [[str(version) for version in range(91, 151)]] * 5
    finally:
        for stream in streams:
            stream.connection.close()
            stream.response.close()
    kubernetes_api.wait_for_watches(0)


def test_who_does_not_read_holds_up_no_writer_and_nobody_else(kubernetes_api: ApiServer) -> None:
    with watching(kubernetes_api), watching(kubernetes_api) as other:
        kubernetes_api.wait_for_watches(2)
        for number in range(40):
            kubernetes_api.create("v1/configmaps", {"metadata": {"name": str(number)}})
            kubernetes_api.create("v1/pods", pod(str(number), spec={"much": "x" * 500_000}))
            assert other.next() == ("ADDED", str(number))


def test_who_is_too_far_behind_is_ended_after_what_was_pending() -> None:
    store, pods = Store(), Resource.of("v1/pods", "Pod")
    store.create(pods, pod("there"), "")
    watch = Watch(store, pods, None, {}, max_pending=2)
    for name in "abcd":
        store.create(pods, pod(name), "")
    taken = [watch.take() for _ in range(5)]
    assert [event["object"]["metadata"]["name"] for event in taken[:3] if isinstance(event, dict)] == [
        "there", "a", "b",
    ]  # fmt: skip
    assert taken[3:] == [End(), None]
    assert store.followers == []
    watch.close()


def test_a_watch_whose_client_hangs_up_is_closed(kubernetes_api: ApiServer) -> None:
    with watching(kubernetes_api):
        kubernetes_api.wait_for_watches(1)
    kubernetes_api.wait_for_watches(0)
