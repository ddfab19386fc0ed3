"""The server against a real one: what that sent is replayed here, and what comes out has the same shape."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from testing.api_server.client import ask, watching
from workpool.testing.kubernetes import ApiServer, ErrorEvent

RECORDED = Path(__file__).parents[3] / "examples" / "data" / "pods-small.ndjson.gz"
"""A watch of pods, as an API server 1.36 sent it."""


def recorded() -> list[dict[str, Any]]:
    return [json.loads(line) for line in gzip.decompress(RECORDED.read_bytes()).splitlines()]


def write(server: ApiServer, event: dict[str, Any]) -> None:
    """Do what a client did to the real server, so that it sent this."""
    found = event["object"]
    metadata = found["metadata"]
    if event["type"] == "ADDED":
        server.create("v1/pods", found)
    elif event["type"] == "DELETED":
        server.delete("v1/pods", metadata["name"], metadata["namespace"])
    elif "deletionTimestamp" in metadata:
        server.delete("v1/pods", metadata["name"], metadata["namespace"], grace=metadata["deletionGracePeriodSeconds"])
    else:
        server.update("v1/pods", {**found, "metadata": {**metadata, "resourceVersion": None}})


def without_what_a_server_chooses(found: dict[str, Any]) -> dict[str, Any]:
    """An object without uid, version and times; that they are there, and of which type, stays."""
    chosen = ("uid", "resourceVersion", "creationTimestamp", "deletionTimestamp")
    metadata = {name: type(value) if name in chosen else value for name, value in found["metadata"].items()}
    return {**found, "metadata": metadata}


def test_a_recorded_watch_comes_out_as_it_went_in(kubernetes_api: ApiServer) -> None:
    events = recorded()
    with watching(kubernetes_api) as stream:
        kubernetes_api.wait_for_watches(1)
        for event in events:
            write(kubernetes_api, event)
        versions = []
        for event in events:
            sent = stream.event()
            versions.append(int(sent["object"]["metadata"]["resourceVersion"]))
            assert list(sent) == list(event)
            assert sent["type"] == event["type"]
            assert without_what_a_server_chooses(sent["object"]) == without_what_a_server_chooses(event["object"])
            assert list(sent["object"])[:3] == list(event["object"])[:3] == ["kind", "apiVersion", "metadata"]
    assert versions == sorted(set(versions))


def test_a_list_of_what_was_recorded_is_what_its_watch_amounts_to(kubernetes_api: ApiServer) -> None:
    left = {}
    for event in recorded():
        write(kubernetes_api, event)
        metadata = event["object"]["metadata"]
        left[metadata["namespace"], metadata["name"]] = event["object"]
        if event["type"] == "DELETED":
            del left[metadata["namespace"], metadata["name"]]
    items = ask(kubernetes_api).json["items"]
    assert [(item["metadata"]["namespace"], item["metadata"]["name"]) for item in items] == sorted(left)
    for item in items:
        expected = without_what_a_server_chooses(left[item["metadata"]["namespace"], item["metadata"]["name"]])
        assert {"kind": "Pod", "apiVersion": "v1", **without_what_a_server_chooses(item)} == expected


def shape(found: Any) -> Any:
    """Keys in their order, and types."""
    if isinstance(found, dict):
        return [(name, shape(value)) for name, value in found.items()]
    return [shape(each) for each in found] if isinstance(found, list) else type(found)


# What is not in the recording, as it stands in reports of real servers, in the documentation of Kubernetes (API
# concepts), and in the source of what makes it (apimachinery/pkg/api/errors).
EXPIRED = (
    '{"type":"ERROR","object":{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure",'
    '"message":"too old resource version: 1 (260)","reason":"Expired","code":410}}'
)
TOO_LARGE = (
    '{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure","message":"Timeout: Too large resource '
    'version: 3977734, current: 3977169","reason":"Timeout","details":{"causes":[{"reason":"ResourceVersionTooLarge",'
    '"message":"Too large resource version"}],"retryAfterSeconds":1},"code":504}'
)
BOOKMARK = '{"type":"BOOKMARK","object":{"kind":"Pod","apiVersion":"v1","metadata":{"resourceVersion":"12746"}}}'
INITIAL_EVENTS_END = (
    '{"type":"BOOKMARK","object":{"kind":"Pod","apiVersion":"v1","metadata":{"resourceVersion":"10245",'
    '"annotations":{"k8s.io/initial-events-end":"true"}}}}'
)
EMPTY_LIST = '{"kind":"PodList","apiVersion":"v1","metadata":{"resourceVersion":"10245"},"items":[]}'


def said(server: ApiServer, what: str) -> Any:
    """The like of it, from this server."""
    if what == EMPTY_LIST:
        return ask(server).json
    if what == TOO_LARGE:
        return ask(server, resourceVersion=1000).json
    query = {"allowWatchBookmarks": "true"}
    if what == INITIAL_EVENTS_END:
        query |= {"sendInitialEvents": "true", "resourceVersionMatch": "NotOlderThan"}
    with watching(server, **query) as stream:
        server.wait_for_watches(1)
        server.bookmark()
        server.strike(ErrorEvent())
        line = json.loads(stream.line())
        return stream.event() if what == EXPIRED else line


@pytest.mark.parametrize("what", [EXPIRED, TOO_LARGE, BOOKMARK, INITIAL_EVENTS_END, EMPTY_LIST])
def test_what_else_a_server_says_has_the_shape_of_a_real_one(kubernetes_api: ApiServer, what: str) -> None:
    assert shape(said(kubernetes_api, what)) == shape(json.loads(what))
