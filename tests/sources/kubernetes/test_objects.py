"""What a line is read as, what of it is decoded and when, and the event that is made of it."""

from __future__ import annotations

import json
import pickle
import random
from dataclasses import FrozenInstanceError
from typing import Any

import pytest

from sources.kubernetes.world import one_line, page, pod
from workpool.sources.kubernetes.events import Event
from workpool.sources.kubernetes.line import decode, shorten
from workpool.sources.kubernetes.objects import Bookmark, Item, read_line, read_page
from workpool.sources.kubernetes.steps import Failure

LINE = one_line({"type": "MODIFIED", "object": pod("a", 1, 11, size=[5, 1.5, None, "é\\n"])}).values[0]
WRONG = [
    b"\xff", b"\xc3", b"\xed\xa0\x80", b"\\q", b"\\u12", b'"', b"{", b"}", b"[", b"]", b",", b":", b"\x00", b"\x1f",
    b"1.", b".5", b"01", b"1e", b"-", b"nul", b"tru", b"NaN", b"\\", b"\n", b" ", b"null", b"5",
]  # fmt: skip


def test_r09_what_is_read_as_an_event_can_be_decoded() -> None:
    """Only its metadata is decoded when it comes: of the rest the handler would be the first to stumble over it."""
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    read = 0
    for _ in range(20_000):
        line = bytearray(LINE)
        for _ in range(chance.randint(1, 2)):
            at = chance.randrange(len(line))
            line[at : at + chance.randint(0, 3)] = chance.choice(WRONG)
        if isinstance(read_line(bytes(line)), Item):
            read += 1
            decode(bytes(line))
    assert 0 < read < 20_000


@pytest.mark.parametrize("wrong", [b"\xff", b"\\q", b"\n"])
def test_r09_what_is_wrong_deep_in_an_object_is_wrong_with_the_line(wrong: bytes) -> None:
    line = LINE.replace(b"\xc3\xa9", wrong)
    assert line != LINE
    assert isinstance(read_line(line), Failure)


@pytest.mark.parametrize(
    "line", [b"", b"5", b"null", b"[" * 10_000, b'{"a":' * 10_000, b'{"type": "ADDED"}', b'{"type": 5, "object": {}}']
)
def test_r09_what_is_no_event(line: bytes) -> None:
    assert read_line(line) == Failure(error="a line that is no event")


def test_the_rest_of_an_object_waits_until_it_is_asked_for() -> None:
    item = read_line(LINE)
    assert isinstance(item, Item)
    assert (item.name, item.uid, item.version, item.labels) == ("ns/a", "1", "11", {"app": "x"})
    assert item.cheapest == LINE
    assert item.object is item.object
    assert item.cheapest is item.object  # type: ignore[comparison-overlap]


def test_an_item_of_a_list_is_a_line_that_says_what_it_is() -> None:
    sheet = read_page(page(pod("a", 1, 9), version=10).body)
    assert sheet is not None
    (item,) = sheet.items
    assert json.loads(item.line) == {"type": "ADDED", "object": pod("a", 1, 9)}


def test_an_item_that_says_what_it_is_keeps_that() -> None:
    other = {**pod("a", 1, 9), "kind": "Other", "apiVersion": "example.com/v1"}
    metadata = {"resourceVersion": "10"}
    body = json.dumps({"kind": "List", "apiVersion": "v1", "metadata": metadata, "items": [other]}).encode()
    sheet = read_page(body)
    assert sheet is not None
    assert sheet.items[0].object == other


def test_a_short_line_is_what_is_kept_without_old_objects() -> None:
    short = decode(shorten(LINE))
    metadata = pod("a", 1, 11)["metadata"]
    del metadata["managedFields"]
    assert short == {"apiVersion": "v1", "kind": "Pod", "metadata": metadata}
    assert decode(shorten(b'{"object":{"metadata":{"name":"a"}}}')) == {"metadata": {"name": "a"}}


def test_a_bookmark() -> None:
    line = b'{"type":"BOOKMARK","object":{"metadata":{"resourceVersion":"5","annotations":%b}}}'
    assert read_line(line % b'{"k8s.io/initial-events-end":"true"}') == Bookmark("5", True)
    for other in (b"null", b"5", b"{}", b'{"k8s.io/initial-events-end":"false"}'):
        assert read_line(line % other) == Bookmark("5", False)


def test_an_error_says_its_status() -> None:
    status: dict[str, Any] = {"kind": "Status", "code": 410, "reason": "Expired", "details": {"a": [1]}}
    assert read_line(json.dumps({"type": "ERROR", "object": status}).encode()) == Failure(410, status)


# The event.


def test_an_event_decodes_its_object_once_and_it_is_the_handlers_own() -> None:
    event = Event("MODIFIED", LINE, "k", LINE)
    assert event.object == event["object"] == decode(LINE)
    event.object["spec"] = "changed"
    assert event.object["spec"] == "changed", "a retry sees what the first attempt did"
    assert event.old == decode(LINE)


def test_an_event_can_be_made_of_dicts() -> None:
    event = Event(type="ADDED", object={"metadata": {"name": "a"}}, key="k")
    assert (event.object, event.old, event.old_key) == ({"metadata": {"name": "a"}}, None, None)
    assert (event.synthetic, event.initial, event.resync) == (False, False, False)


def test_an_event_is_frozen_and_short_to_look_at() -> None:
    event = Event("ADDED", LINE, "k")
    with pytest.raises(FrozenInstanceError):
        event.type = "DELETED"  # type: ignore[misc]
    assert "é" not in repr(event)
    assert "'k'" in repr(event)


@pytest.mark.parametrize("asked", [False, True])
def test_an_event_goes_to_another_process_as_its_line(asked: bool) -> None:
    event = Event("MODIFIED", LINE, ("k", 1), LINE, resync=True, old_key="j")
    if asked:
        assert event.object
    other = pickle.loads(pickle.dumps(event))
    assert (other.type, other.key, other.resync, other.old_key) == ("MODIFIED", ("k", 1), True, "j")
    assert (other.object, other.old) == (event.object, event.old)


@pytest.mark.parametrize("name", ["_object", "nothing"])
def test_an_event_has_its_fields_by_name_and_no_others(name: str) -> None:
    with pytest.raises(KeyError):
        Event("ADDED", LINE, "k")[name]
