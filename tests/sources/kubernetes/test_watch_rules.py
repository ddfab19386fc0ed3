"""R1 to R38 by the whole source: a pool follows the fake API server over its sockets.

What a wait comes to, and what follows on what in every order, are tests of the reflector alone.
"""

from __future__ import annotations

import gc
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from sources.kubernetes.follower import Follower, pod
from support import PATIENCE, Gate, eventually, has_adders, in_thread
from workpool import EventWorkerPool
from workpool.sources.kubernetes import (
    Event,
    Forbidden,
    NotAuthorized,
    UnknownResource,
    annotation,
    label,
    moving,
    watch,
)
from workpool.testing.kubernetes import (
    Answer,
    ApiServer,
    End,
    ErrorEvent,
    Garbage,
    Hang,
    Request,
    Reset,
    Truncate,
    Unversioned,
)
from workpool.testing.kubernetes.status import stream_error

pytestmark = pytest.mark.usefixtures("soon")

PAIRS = int(os.environ.get("WORKPOOL_KUBERNETES_PAIRS", "1000"))


@pytest.fixture
def server(kubernetes_api: ApiServer) -> ApiServer:
    """Has three pods."""
    for name in "abc":
        kubernetes_api.create("v1/pods", pod(name, app=name.upper()))
    return kubernetes_api


@pytest.fixture
def follow(server: ApiServer, tmp_path: Path) -> Iterator[Any]:
    """Makes followers, and ends them."""
    with ExitStack() as stack:
        yield lambda *arguments, **options: stack.enter_context(Follower(server, tmp_path, *arguments, **options))


def lists(server: ApiServer) -> list[Request]:
    return [request for request in server.requests if request.verb in ("list", "page")]


def watches(server: ApiServer) -> list[Request]:
    return [request for request in server.requests if request.verb == "watch"]


# List.


def test_r01_the_first_list_is_consistent_unless_it_is_asked_to_be_cheap(server: ApiServer, follow: Any) -> None:
    follow().wait_for_events(3)
    assert "resourceVersion" not in lists(server)[0].query
    follow(from_cache=True).wait_for_events(3)
    assert lists(server)[1].query["resourceVersion"] == "0"


def test_r02_a_relist_is_not_older_than_the_cursor(server: ApiServer, follow: Any) -> None:
    server.inject("watch", ErrorEvent())
    follower = follow()
    server.wait_for_requests(2, "list")
    server.create("v1/pods", pod("d"))
    follower.wait_for_events(4)
    query = lists(server)[1].query
    assert (query["resourceVersion"], query["resourceVersionMatch"]) == ("93", "NotOlderThan")
    assert follower.told() == ["ADDED a", "ADDED b", "ADDED c", "ADDED d"]


def test_r03_pages_have_a_token_and_a_list_that_expires_begins_again(server: ApiServer, follow: Any) -> None:
    server.inject("page", Answer(410))
    follower = follow(limit=2)
    follower.wait_for_events(3)
    first, second, again = (request.query for request in lists(server)[:3])
    assert (first["limit"], "continue" in first) == ("2", False)
    assert ("continue" in second, "resourceVersion" in second) == (True, False)
    assert ("limit" in again, "continue" in again) == (False, False)
    assert sorted(follower.told()) == ["ADDED a", "ADDED b", "ADDED c"]


def test_r04_the_watch_starts_from_the_version_of_the_list(server: ApiServer, follow: Any) -> None:
    server.create("v1/configmaps", {"metadata": {"name": "later"}})
    follow().wait_for_events(3)
    server.wait_for_watches(1)
    assert watches(server)[0].query["resourceVersion"] == "94"


def test_r05_an_empty_list_is_synced(kubernetes_api: ApiServer, tmp_path: Path) -> None:
    with Follower(kubernetes_api, tmp_path) as follower:
        assert follower.source.wait_synced(PATIENCE)
        kubernetes_api.create("v1/pods", pod("a"))
        follower.wait_for_events(1)
        assert not follower.events[0].initial


def test_r05_who_waits_for_a_source_that_ends_before_is_told(server: ApiServer, follow: Any) -> None:
    server.inject("list", Hang(after=None))
    follower = follow()
    server.wait_for_requests(1, "list")
    waiting = in_thread(follower.source.wait_synced)
    follower.source.stop()
    assert waiting() is False


def test_r05_synced_comes_when_all_that_was_there_is_added(server: ApiServer, follow: Any) -> None:
    follower = follow()
    assert follower.source.wait_synced(PATIENCE)
    assert follower.pool.stats().added == 3
    follower.wait_for_events(3)
    assert all(event.initial for event in follower.events)


# Watch and cursor.


def test_r06_a_watch_asks_for_bookmarks_and_for_a_random_time(server: ApiServer, follow: Any) -> None:
    server.inject("watch", End(), times=2)
    follow()
    server.wait_for_requests(3, "watch")
    queries = [request.query for request in watches(server)]
    assert {query["allowWatchBookmarks"] for query in queries} == {"true"}
    assert all(300 <= int(query["timeoutSeconds"]) <= 600 for query in queries)


def test_r07_the_cursor_waits_for_the_pool_and_bookmarks_reach_no_handler(server: ApiServer, follow: Any) -> None:
    gate = Gate()
    follower = follow(handle=gate, max_backlog=2)
    gate.wait_inside(3)
    server.wait_for_watches(1)
    for number in range(5):
        server.patch("v1/pods", "a", {"metadata": {"annotations": {"n": str(number)}}})
    eventually(lambda: has_adders(follower.pool))
    server.strike(Reset())
    server.wait_for_watches(0)
    gate.open.set()
    follower.wait_for_state()
    server.wait_for_watches(1)
    assert int(watches(server)[-1].query["resourceVersion"]) <= 98
    server.create("v1/configmaps", {"metadata": {"name": "elsewhere"}})
    server.bookmark()
    server.strike(End())
    server.wait_for_requests(3, "watch")
    assert watches(server)[-1].query["resourceVersion"] == "99"
    assert len(follower.events) == 8
    follower.check_order()


@pytest.mark.parametrize("fault", [End(after=1), Reset(after=1), Truncate(after=1)], ids=repr)
def test_r08_r37_any_end_resumes_from_the_last_version_seen(server: ApiServer, follow: Any, fault: Any) -> None:
    follower = follow()
    server.wait_for_watches(1)
    server.inject("watch", fault)
    server.strike(End())
    server.wait_for_requests(2, "watch")
    for name in "def":
        server.create("v1/pods", pod(name))
    follower.wait_for_state()
    assert len(lists(server)) == 1
    assert sorted(follower.told()) == [f"ADDED {name}" for name in "abcdef"]
    assert [request.query["resourceVersion"] for request in watches(server)] == ["93", "93", "94"]


@pytest.mark.parametrize("fault", [Garbage(), Garbage(b"\xff\xfe{"), Garbage(b"17"), Unversioned()], ids=repr)
def test_r09_what_is_no_event_drops_the_connection_and_leaves_the_cursor(
    server: ApiServer, follow: Any, fault: Any
) -> None:
    server.inject("watch", fault)
    follower = follow()
    server.wait_for_watches(1)
    server.create("v1/pods", pod("d"))
    follower.wait_for_state()
    assert [request.query["resourceVersion"] for request in watches(server)[:2]] == ["93", "93"]
    assert sorted(follower.told()) == [f"ADDED {name}" for name in "abcd"]


def test_r10_r11_without_bookmarks_the_version_goes_back_as_it_came(server: ApiServer, follow: Any) -> None:
    follower = follow()
    server.wait_for_watches(1)
    made = server.create("v1/pods", pod("d"))
    follower.wait_for_events(4)
    server.strike(End())
    server.wait_for_requests(2, "watch")
    assert watches(server)[1].query["resourceVersion"] == made["metadata"]["resourceVersion"]


# Errors.


@pytest.mark.parametrize("in_stream", [True, False])
def test_r12_an_expired_version_leads_to_a_list(tmp_path: Path, in_stream: bool) -> None:
    with ApiServer(expired_in_stream=in_stream) as server:
        server.create("v1/pods", pod("a"))
        with Follower(server, tmp_path) as follower:
            server.wait_for_watches(1)
            with server.down():
                server.create("v1/pods", pod("b"))
                server.delete("v1/pods", "a")
                server.compact()
            follower.wait_for_state()
            follower.check_order()
            assert "DELETED a" in follower.told()


@pytest.mark.parametrize("code", [429, 500, 503, 504])
@pytest.mark.parametrize("verb", ["list", "watch"])
def test_r13_an_error_keeps_the_cursor(server: ApiServer, follow: Any, verb: str, code: int) -> None:
    body = "slow down\n" if code == 429 else None
    server.inject(verb, Answer(code, body), times=2)
    follower = follow()
    server.wait_for_watches(1)
    server.create("v1/pods", pod("d"))
    follower.wait_for_state()
    assert len(follower.events) == 4


def test_r13_a_server_that_is_down(server: ApiServer, follow: Any) -> None:
    follower = follow()
    server.wait_for_watches(1)
    with server.down():
        server.delete("v1/pods", "a")
        server.create("v1/pods", pod("d"))
    follower.wait_for_state()
    assert len(lists(server)) == 1


def test_r14_a_token_that_has_changed_is_read_again(tmp_path: Path) -> None:
    with ApiServer(token="first") as server, Follower(server, tmp_path) as follower:
        server.wait_for_watches(1)
        server.token = "second"
        server.write_kubeconfig(tmp_path / "kubeconfig")
        server.strike(End())
        server.create("v1/pods", pod("a"))
        follower.wait_for_state()


def test_r14_whoever_logs_in_again_while_it_is_refused_is_believed(tmp_path: Path) -> None:
    with ApiServer(token="first") as server, Follower(server, tmp_path) as follower:
        server.wait_for_watches(1)
        server.token = "second"
        server.strike(End())
        server.wait_for_requests(6, "watch")
        server.write_kubeconfig(tmp_path / "kubeconfig")
        server.create("v1/pods", pod("a"))
        follower.wait_for_state()


@pytest.mark.parametrize("code", [401, 403, 404])
def test_r14_no_permission_is_reported_and_ends_nothing(
    server: ApiServer, follow: Any, code: int, caplog: pytest.LogCaptureFixture
) -> None:
    server.inject("list", Answer(code), times=3)
    follow().wait_for_events(3)
    assert any(f"{code}: " in record.getMessage() for record in caplog.records)


def test_r15_watches_that_say_nothing_lead_to_a_list_of_the_newest(server: ApiServer, follow: Any) -> None:
    server.inject("watch", End(), times=3)
    follower = follow()
    server.wait_for_requests(2, "list")
    server.create("v1/pods", pod("d"))
    follower.wait_for_state()
    assert "resourceVersion" not in lists(server)[1].query


def test_r16_silence_ends_a_watch_and_it_resumes(server: ApiServer, follow: Any) -> None:
    server.inject("watch", Hang())
    follower = follow(idle=0.05)
    server.wait_for_requests(2, "watch")
    server.create("v1/pods", pod("d"))
    follower.wait_for_state()
    assert len(follower.events) == 4


def test_r17_a_source_that_gives_up_says_so(server: ApiServer, tmp_path: Path) -> None:
    follower = Follower(server, tmp_path, give_up_after=0.01)
    server.inject("list", Answer(500), times=None)
    with pytest.raises(Exception, match="500: "):
        follower.pool.run(follower.source)
    follower.pool.drain(PATIENCE)


@pytest.mark.parametrize(("code", "kind"), [(401, NotAuthorized), (403, Forbidden), (404, UnknownResource)])
def test_r17_a_source_that_gives_up_on_a_refusal_raises_it(
    server: ApiServer, tmp_path: Path, code: int, kind: type[Exception]
) -> None:
    follower = Follower(server, tmp_path, give_up_after=0.01)
    server.inject("list", Answer(code), times=None)
    with pytest.raises(kind):
        follower.pool.run(follower.source)
    follower.pool.drain(PATIENCE)


def test_r36_an_error_in_the_stream_is_retried_and_then_leads_to_a_list(server: ApiServer, follow: Any) -> None:
    server.inject("watch", ErrorEvent(stream_error("etcd event received with PrevKv=nil")), times=3)
    follower = follow()
    server.wait_for_requests(2, "list")
    server.create("v1/pods", pod("d"))
    follower.wait_for_state()
    assert [request.query["resourceVersion"] for request in watches(server)[:3]] == ["93"] * 3


def test_r38_a_version_of_the_future_is_settled(server: ApiServer, follow: Any) -> None:
    """The server has lost its newest versions, as one that was restored from a backup."""
    server.inject("watch", Hang(), times=3)
    follower = follow(idle=0.02)
    server.wait_for_requests(2, "list")
    server.delete("v1/pods", "b")
    follower.wait_for_state()
    assert "resourceVersion" not in lists(server)[1].query


# A list against what is known.


def expire(server: ApiServer, *changes: Any) -> None:
    """Have some changes happen that no watch tells of, and that only a list can find."""
    with server.down():
        for change in changes:
            change()
        server.create("v1/configmaps", {"metadata": {"generateName": "elsewhere-"}})  # Else the cursor is still good.
        server.compact()


def test_r18_r19_what_is_gone_is_deleted_once_as_it_was_last(server: ApiServer, follow: Any) -> None:
    follower = follow()
    server.wait_for_watches(1)
    follower.wait_for_events(3)
    expire(server, lambda: server.delete("v1/pods", "b"))
    follower.wait_for_state()
    event = follower.events[-1]
    assert (event.type, event.synthetic, event.object["metadata"]["name"]) == ("DELETED", True, "b")
    assert event.object["metadata"]["resourceVersion"] == "92"
    assert len(follower.events) == 4


@pytest.mark.parametrize("live", [True, False])
def test_r20_another_object_of_the_same_name(server: ApiServer, follow: Any, live: bool) -> None:
    follower = follow()
    server.wait_for_watches(1)
    follower.wait_for_events(3)

    def replace() -> None:
        server.delete("v1/pods", "b")
        server.create("v1/pods", pod("b"))

    if live:
        replace()
    else:
        expire(server, replace)
    follower.wait_for_state()
    assert follower.told()[3:] == ["DELETED b", "ADDED b"]


def test_r21_r22_r23_a_list_tells_only_what_differs_and_deletes_first(server: ApiServer, follow: Any) -> None:
    follower = follow(key=lambda _: "one lane")
    server.wait_for_watches(1)
    expire(server)
    server.wait_for_requests(2, "list")
    server.wait_for_watches(1)
    expire(
        server,
        lambda: server.patch("v1/pods", "a", {"metadata": {"labels": {"app": "new"}}}),
        lambda: server.create("v1/pods", pod("d")),
        lambda: server.delete("v1/pods", "c"),
    )
    follower.wait_for_state()
    assert follower.told() == ["ADDED a", "ADDED b", "ADDED c", "DELETED c", "MODIFIED a", "ADDED d"]
    assert follower.events[4].old is not None


def test_r24_a_streaming_list_is_held_until_its_end(server: ApiServer, follow: Any) -> None:
    server.inject("watch", Reset(after=2))
    follower = follow(streaming=True)
    follower.wait_for_state()
    assert [event.initial for event in follower.events] == [True] * 3
    assert watches(server)[0].query["sendInitialEvents"] == "true"


def test_r24_a_server_without_streaming_lists_gets_an_ordinary_one(tmp_path: Path) -> None:
    with ApiServer(streaming_lists=False) as server:
        server.create("v1/pods", pod("a"))
        with Follower(server, tmp_path, streaming=True) as follower:
            follower.wait_for_state()
            server.wait_for_requests(1, "list")


# Keys and the pool.


def test_r25_what_is_handled_is_what_was_added_one_at_a_time(server: ApiServer, follow: Any) -> None:
    inside: set[str] = set()

    def handle(event: Event) -> None:
        name = event.object["metadata"]["name"]
        assert name not in inside
        inside.add(name)
        inside.remove(name)

    follower = follow(handle=handle)
    server.wait_for_watches(1)
    for number in range(50):
        for name in "abc":
            server.patch("v1/pods", name, {"metadata": {"annotations": {"n": str(number)}}})
    follower.wait_for_events(153)
    follower.check_order()
    for name in "abc":
        seen = [each.object["metadata"] for each in follower.events if each.object["metadata"]["name"] == name]
        assert [each["annotations"]["n"] for each in seen[1:]] == [str(number) for number in range(50)]


@pytest.mark.parametrize("key", [label("app"), annotation("app"), lambda each: each["metadata"]["labels"]["app"]])
def test_r26_deleted_has_the_last_known_key(server: ApiServer, follow: Any, key: Any) -> None:
    server.patch("v1/pods", "a", {"metadata": {"annotations": {"app": "A"}}})
    follower = follow(key=key)
    follower.wait_for_events(3)
    server.wait_for_watches(1)
    expire(server, lambda: server.delete("v1/pods", "a"))
    follower.wait_for_events(4)
    assert (follower.events[-1].type, follower.events[-1].key) == ("DELETED", "A")


def test_r27_events_under_a_new_key_wait_for_those_under_the_old_one(server: ApiServer, follow: Any) -> None:
    gate = Gate()

    def handle(event: Event) -> None:
        if event.key == "A":
            gate(event)

    follower = follow(handle=handle, key=label("app"))
    gate.wait_inside()
    server.wait_for_watches(1)
    for app in ("B", "C"):
        server.patch("v1/pods", "a", {"metadata": {"labels": {"app": app}}})
    server.delete("v1/pods", "a")
    server.create("v1/pods", pod("d", app="C"))  # No other object waits for this.
    follower.wait_for_events(3)
    assert sorted(follower.told()) == ["ADDED b", "ADDED c", "ADDED d"]
    gate.open.set()
    follower.wait_for_events(7)
    assert follower.told()[3:] == ["ADDED a", "MODIFIED a", "MODIFIED a", "DELETED a"]
    assert [event.key for event in follower.events[3:]] == ["A", "B", "C", "C"]
    assert [event.old_key for event in follower.events[3:]] == [None, "A", "B", "C"]


def test_r27_events_under_a_third_key_wait_for_those_under_the_second(server: ApiServer, follow: Any) -> None:
    first, second = Gate(), Gate()

    def handle(event: Event) -> None:
        if event.key in ("A", "Z"):
            (first if event.key == "A" else second)(event)

    follower = follow(handle=handle, key=label("app"))
    first.wait_inside()
    server.wait_for_watches(1)
    for app in ("Z", "Y"):
        server.patch("v1/pods", "a", {"metadata": {"labels": {"app": app}}})
    server.create("v1/pods", pod("d", app="Y"))
    follower.wait_for_events(3)
    first.open.set()
    second.wait_inside()
    server.create("v1/pods", pod("e", app="Y"))
    follower.wait_for_events(5)
    assert sorted(follower.told()) == [f"ADDED {name}" for name in "abcde"]
    second.open.set()
    follower.wait_for_events(7)
    assert follower.told()[5:] == ["MODIFIED a", "MODIFIED a"]


def test_r27_an_object_that_takes_the_place_of_one_that_moves_comes_after_it(server: ApiServer, follow: Any) -> None:
    gate = Gate()
    follower = follow(handle=lambda event: gate(event) if event.key == "A" else None, key=label("app"))
    gate.wait_inside()
    server.wait_for_watches(1)
    server.patch("v1/pods", "a", {"metadata": {"labels": {"app": "Y"}}})
    server.delete("v1/pods", "a")
    server.create("v1/pods", pod("a", app="Y"))
    server.create("v1/pods", pod("d", app="Z"))
    follower.wait_for(lambda: "ADDED d" in follower.told())  # What would have overtaken it has done so.
    gate.open.set()
    follower.wait_for_events(7)
    follower.wait_for_state()
    assert [each.type for each in follower.events if each.key == "Y"] == ["MODIFIED", "DELETED", "ADDED"]


def test_r27_a_key_that_is_parked_holds_what_has_left_it(server: ApiServer, follow: Any) -> None:
    follower = follow(key=label("app"))
    follower.wait_for_events(3)
    follower.pool.park("A")
    server.wait_for_watches(1)
    server.patch("v1/pods", "a", {"metadata": {"annotations": {"n": "1"}}})
    server.patch("v1/pods", "a", {"metadata": {"labels": {"app": "B"}}})
    server.create("v1/pods", pod("d", app="B"))
    follower.wait_for_events(4)
    assert follower.told()[3:] == ["ADDED d"]
    follower.pool.resume("A")
    follower.wait_for_events(6)
    assert follower.told()[4:] == ["MODIFIED a", "MODIFIED a"]


@pytest.mark.parametrize(
    ("missing", "told"), [("skip", ["ADDED b", "ADDED c"]), ("namespace/name", ["ADDED a", "ADDED b", "ADDED c"])]
)
def test_r28_an_object_without_a_key(server: ApiServer, follow: Any, missing: Any, told: list[str]) -> None:
    server.patch("v1/pods", "a", {"metadata": {"labels": {"app": None}}})
    follower = follow(key=label("app"), missing=missing)
    assert follower.source.wait_synced(PATIENCE)
    follower.wait_for_events(len(told))
    assert sorted(follower.told()) == told


def test_r28_an_object_without_a_key_may_end_the_source(server: ApiServer, tmp_path: Path) -> None:
    server.patch("v1/pods", "a", {"metadata": {"labels": {"app": None}}})
    follower = Follower(server, tmp_path, key=label("app"), missing="fail")
    with pytest.raises(LookupError, match="default/a has no key"):
        follower.pool.run(follower.source)
    follower.pool.drain(PATIENCE)


def test_r28_what_came_before_an_object_without_a_key_is_handled(server: ApiServer, tmp_path: Path) -> None:
    server.patch("v1/pods", "c", {"metadata": {"labels": {"app": None}}})
    follower = Follower(server, tmp_path, key=label("app"), missing="fail")
    with pytest.raises(LookupError, match="default/c has no key"):
        follower.pool.run(follower.source)
    follower.pool.drain(PATIENCE)
    assert sorted(follower.told()) == ["ADDED a", "ADDED b"]


def test_r28_a_function_that_raises_ends_nothing(
    server: ApiServer, follow: Any, caplog: pytest.LogCaptureFixture
) -> None:
    def key(_: object) -> str:
        raise ZeroDivisionError("a bug")

    follower = follow(key=key)
    follower.wait_for_events(3)
    assert sorted(event.key for event in follower.events) == ["default/a", "default/b", "default/c"]
    assert "a bug" in caplog.text


def test_r29_a_full_pool_stops_the_reader(server: ApiServer, follow: Any) -> None:
    gate = Gate()
    follower = follow(handle=gate, max_backlog=5)
    gate.wait_inside(3)
    server.wait_for_watches(1)
    filler = "x" * 20_000
    for number in range(2000):  # 40 MB, more than fits between the two.
        server.patch("v1/pods", "a", {"metadata": {"annotations": {"n": str(number), "filler": filler}}})
    eventually(lambda: has_adders(follower.pool))
    assert follower.pool.stats().added == 8
    assert server.open_watches == 1
    server.strike(Reset())
    server.compact()
    gate.open.set()
    follower.wait_for_state()
    follower.check_order()


def test_r30_an_object_that_leaves_the_selector_is_deleted(server: ApiServer, follow: Any) -> None:
    follower = follow(selector="app in (A, B)")
    follower.wait_for_events(2)
    server.wait_for_watches(1)
    server.patch("v1/pods", "a", {"metadata": {"labels": {"app": "Z"}}})
    follower.wait_for_events(3)
    assert follower.told() == ["ADDED a", "ADDED b", "DELETED a"]


# Life.


@pytest.mark.parametrize("verb", ["list", "watch"])
@pytest.mark.parametrize("after", [None, 0])
def test_r31_stop_interrupts_a_read_that_is_blocked(
    server: ApiServer, follow: Any, verb: str, after: int | None
) -> None:
    server.inject(verb, Hang(after=after) if verb == "watch" else Hang(after=None), times=None)
    follower = follow()
    server.wait_for_requests(1, verb)
    stopped = threading.Event()

    def stop() -> None:
        follower.source.stop()
        stopped.set()

    thread = threading.Thread(target=stop)
    thread.start()
    assert stopped.wait(1.0 + PATIENCE / 10)
    thread.join()
    added = follower.pool.stats().added
    server.heal()
    server.create("v1/pods", pod("d"))
    follower.running()
    server.wait_for_watches(0)
    assert follower.pool.stats().added == added
    assert not [each for each in threading.enumerate() if each.name == "workpool-kubernetes"]


def test_r31_stop_while_too_many_events_wait_for_their_old_key(
    server: ApiServer, follow: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(moving, "MAX_KEPT", 3)
    gate = Gate()
    follower = follow(handle=lambda event: gate(event) if event.key == "A" else None, key=label("app"))
    gate.wait_inside()
    server.wait_for_watches(1)
    for number in range(10):
        server.patch("v1/pods", "a", {"metadata": {"labels": {"app": "B", "n": str(number)}}})
    server.create("v1/pods", pod("d"))
    eventually(lambda: follower.source._moving._count == 3)
    follower.source.stop()
    follower.running()
    assert sorted(follower.told()) == ["ADDED b", "ADDED c"], "the reader waited, and then added nothing"
    gate.open.set()


def test_r31_stop_while_it_waits_for_the_next_try(server: ApiServer, follow: Any) -> None:
    server.inject("list", Answer(429, retry_after=3600), times=None)
    follower = follow()
    server.wait_for_requests(1, "list")
    follower.source.stop()
    follower.running()


def test_r31_stop_while_its_name_is_looked_up(server: ApiServer, follow: Any) -> None:
    server.inject("discover", Hang(after=None), times=None)
    follower = follow("pods")
    server.wait_for_requests(1, "discover")
    follower.source.stop()
    follower.running()
    assert follower.events == []


def test_r31_stop_from_a_handler_and_before_it_is_read(server: ApiServer, tmp_path: Path) -> None:
    follower = Follower(server, tmp_path, handle=lambda _: follower.source.stop())
    follower.pool.run(follower.source)
    follower.pool.drain(PATIENCE)
    assert len(follower.events) == follower.pool.stats().added >= 1
    unread = Follower(server, tmp_path)
    unread.source.stop()
    unread.pool.run(unread.source)
    unread.pool.drain(PATIENCE)
    assert unread.events == []


def test_a_source_is_read_once(server: ApiServer, tmp_path: Path) -> None:
    follower = Follower(server, tmp_path)
    follower.source.stop()
    follower.pool.run(follower.source)
    with pytest.raises(RuntimeError, match="read already"):
        follower.pool.run(follower.source)
    follower.pool.drain(PATIENCE)


def test_r32_a_line_of_four_megabytes_in_pieces_of_any_size(tmp_path: Path) -> None:
    with ApiServer(chunk_size=4001) as server, Follower(server, tmp_path) as follower:
        server.wait_for_watches(1)
        text = "é日🐍" * 500_000
        server.create("v1/pods", pod("a") | {"status": {"text": text}})
        follower.wait_for_events(1)
        assert follower.events[0].object["status"]["text"] == text


def test_r33_objects_that_came_and_went_leave_nothing(tmp_path: Path) -> None:
    """`WORKPOOL_KUBERNETES_PAIRS=1000000` for as many."""
    handled = threading.Semaphore(0)

    def go(server: ApiServer, pairs: int) -> int:
        for number in range(pairs):
            server.create("v1/pods", pod(f"n{number}"))
            server.delete("v1/pods", f"n{number}")
            if number % 100 == 99:
                for _ in range(200):
                    assert handled.acquire(timeout=PATIENCE)
        gc.collect()
        return sys.getallocatedblocks()

    def handle(event: Event) -> None:
        handled.release()

    with ApiServer(max_history=1000) as server:
        source = watch("v1/pods", kubeconfig=server.write_kubeconfig(tmp_path / "kubeconfig"))
        pool: EventWorkerPool[Any, Event] = EventWorkerPool(handle, workers=2)
        running = in_thread(lambda: pool.run(source))
        server.wait_for_watches(1)
        before = go(server, 1000)
        after = go(server, PAIRS)
        source.stop()
        running()
        pool.drain(PATIENCE)
    assert after - before < 1000, f"{after - before} blocks for {PAIRS} pairs"


def test_r34_resync_repeats_what_is_known(server: ApiServer, follow: Any) -> None:
    follower = follow(resync=0.02)
    follower.wait_for(lambda: sum(event.resync for event in follower.events) >= 6)
    again = [event for event in follower.events if event.resync]
    assert {event.type for event in again} == {"MODIFIED"}
    assert {event.object["metadata"]["name"] for event in again} == {"a", "b", "c"}
    assert (len(lists(server)), len(watches(server))) == (1, 1), "the server is not asked"
