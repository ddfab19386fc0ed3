"""The rules of the watch, each by its number: one answer, then the whole step that follows."""

from __future__ import annotations

import gc
import sys
from typing import Any

import pytest

from sources.kubernetes.world import EXPIRED, SERVER_ERROR, TOO_LARGE, bookmark, document, error, one_line, page, pod
from workpool.sources.kubernetes.backoff import Backoff
from workpool.sources.kubernetes.events import Event
from workpool.sources.kubernetes.keys import annotation, label
from workpool.sources.kubernetes.objects import Item
from workpool.sources.kubernetes.reflector import Reflector
from workpool.sources.kubernetes.steps import (
    Accepted,
    Answer,
    Done,
    Emit,
    End,
    Ended,
    Failure,
    List,
    Opened,
    Read,
    Refresh,
    Report,
    Silence,
    Step,
    Synced,
    Wait,
    Watch,
)

Told = tuple[str, str, bool]
"""The type of an event, the name of its object, and whether it is synthetic."""


class Script:
    """A reflector, and a clock that only the script moves."""

    def __init__(self, **options: Any) -> None:
        self.now = 0.0
        self.reflector = Reflector(0.0, 0.5, **options)
        self.events: list[Event] = []
        self.others: list[Step] = []
        """Steps that ask for nothing."""

    @property
    def step(self) -> Any:
        return self.reflector.step

    def answer(self, answer: Answer, after: float = 0.0) -> Step:
        self.now += after
        return self.reflector.answer(answer, self.now, 0.5)

    def settle(self) -> list[Told]:
        """Accept all there is, and tell it: up to the next step that asks for something."""
        told: list[Told] = []
        while True:
            match self.step:
                case Emit(event=event):
                    self.events.append(event)
                    told.append((event.type, event.object["metadata"]["name"], event.synthetic))
                    self.answer(Accepted())
                case Synced() | Report():
                    self.others.append(self.step)
                    self.answer(Done())
                case Wait(seconds=seconds):
                    self.others.append(self.step)
                    self.answer(Done(), seconds)
                case _:
                    return told

    def says(self, answer: Answer, after: float = 0.0) -> list[Told]:
        """Answer, and accept what comes of it."""
        self.answer(answer, after)
        return self.settle()

    def line(self, type: str, object: Any) -> list[Told]:
        return self.says(one_line({"type": type, "object": object}), 0.1)

    def relist(self, *pods: Any, version: int) -> list[Told]:
        """Let the watch expire, and a list come."""
        self.says(one_line(error(EXPIRED)))
        assert isinstance(self.step, List)
        return self.says(page(*pods, version=version))

    def waits(self) -> list[float]:
        return [round(step.seconds, 3) for step in self.others if isinstance(step, Wait)]


def listed(*pods: Any, version: int = 10, **options: Any) -> Script:
    """A script whose first list has come, at its watch."""
    script = Script(**options)
    script.says(page(*pods, version=version))
    assert isinstance(script.step, Watch)
    return script


def watching(*pods: Any, version: int = 10, **options: Any) -> Script:
    script = listed(*pods, version=version, **options)
    script.says(Opened())
    assert isinstance(script.step, Read)
    return script


# The list.


def test_r01_the_first_list_is_of_the_newest_version() -> None:
    assert Script().step == List(None, limit=500)
    assert List(None, limit=500).parameters() == {"limit": "500"}


def test_r01_any_version_is_to_be_asked_for() -> None:
    script = Script(from_cache=True)
    assert script.step == List("0", limit=500)
    assert List("0", limit=500).parameters() == {"limit": "500", "resourceVersion": "0"}
    script.says(page(version=10))
    script.says(Opened())
    script.says(one_line(error(EXPIRED)))
    assert script.step == List("10", limit=500), "only the first list may go back in time"


def test_r02_a_relist_is_not_older_than_the_cursor() -> None:
    script = watching()
    script.says(one_line(error(EXPIRED)))
    assert script.step == List("10", limit=500)
    assert List("10").parameters() == {"resourceVersion": "10", "resourceVersionMatch": "NotOlderThan"}


@pytest.mark.parametrize("failure", [Failure(410), Failure(504, TOO_LARGE)], ids=["410", "504"])
def test_r02_a_version_that_cannot_be_listed_is_left_out_at_once(failure: Failure) -> None:
    script = watching()
    script.answer(one_line(error(EXPIRED)))
    assert script.answer(failure) == List(None, limit=500)


def test_r02_a_504_without_the_cause_is_a_failure_as_any() -> None:
    script = watching()
    script.says(one_line(error(EXPIRED)))
    script.says(Failure(504, {"details": {"causes": [{"reason": "Other"}, "nonsense"]}}))
    assert script.step == List("10", limit=500)
    assert script.waits() == [1.2]


def test_r02_a_list_that_is_older_than_was_asked_for_is_not_believed() -> None:
    script = watching(pod("a", 1, 9))
    script.says(one_line(error(EXPIRED)))
    assert script.says(page(version=7)) == []
    assert script.step == List(None, limit=500)


def test_r03_later_pages_have_a_token_and_no_version() -> None:
    script = watching(limit=1)
    script.says(one_line(error(EXPIRED)))
    assert script.answer(page(pod("a", 1, 9), version=20, token="more")) == List("10", "more", 1)
    assert List("10", "more", 1).parameters() == {"continue": "more", "limit": "1"}
    assert script.says(page(pod("b", 2, 9), version=20)) == [("ADDED", "a", False), ("ADDED", "b", False)]


def test_r03_410_on_a_later_page_begins_again_in_full() -> None:
    script = Script(limit=1)
    script.answer(page(pod("a", 1, 9), version=10, token="more"))
    assert script.answer(Failure(410, EXPIRED)) == List(None, "", None)
    assert script.says(page(pod("b", 2, 11), version=12)) == [("ADDED", "b", False)]


def test_r03_a_full_list_that_expires_as_well_waits() -> None:
    script = Script(limit=1)
    for _ in range(3):
        script.says(page(pod("a", 1, 9), version=10, token="more"))
        script.says(Failure(410, EXPIRED))
    assert script.step == List(None, "", None)
    assert len(script.waits()) == 2


def test_r03_a_page_that_fails_is_asked_for_again() -> None:
    script = Script(limit=1)
    script.answer(page(pod("a", 1, 9), version=10, token="more"))
    script.says(Failure(500))
    assert script.step == List(None, "more", 1)


def test_r03_a_list_that_is_refused_is_asked_for_without_what_may_be_wrong() -> None:
    script = watching(limit=1)
    script.says(one_line(error(EXPIRED)))
    script.says(Failure(400, {"message": "invalid resourceVersionMatch"}))
    assert script.step == List(None, limit=1)
    script.says(page(pod("a", 1, 9), version=20, token="more"))
    script.says(Failure(400, {"message": "invalid continue"}))
    assert script.step == List(None, limit=None)
    assert len(script.waits()) == 2


def test_r03_a_page_that_is_none_is_a_failure() -> None:
    script = Script()
    items: list[Any] = [5, [None], [{"metadata": {"name": "a"}}]]
    bodies: list[Any] = [None, [], {}, {"metadata": {}}]
    for body in [*bodies, *({"metadata": {"resourceVersion": "1"}, "items": each} for each in items)]:
        assert script.says(document(body)) == []
        assert script.step == List(None, limit=500)
    assert len(script.waits()) == 7


def test_r04_the_watch_starts_from_the_version_of_the_list() -> None:
    script = listed(pod("a", 1, 9), version=10)
    assert script.step == Watch("10", 450)


def test_r04_an_item_of_a_list_says_what_it_is_as_one_of_a_watch_does() -> None:
    script = listed(pod("a", 1, 9))
    assert script.events[0].object == pod("a", 1, 9)


def test_r05_an_empty_list_is_synced() -> None:
    script = listed()
    assert script.others == [Synced()]
    assert script.events == []


def test_r05_synced_comes_once_after_the_list() -> None:
    script = Script()
    assert isinstance(script.answer(page(pod("a", 1, 9), version=10)), Emit)
    assert script.answer(Accepted()) == Synced()
    script.settle()
    assert script.events == []
    script.says(Opened())
    script.line("ADDED", pod("b", 2, 11))
    script.relist(version=20)
    assert script.others == [Synced()]
    assert [event.initial for event in script.events] == [False, False, False]


# The watch and its cursor.


def test_r06_a_watch_asks_for_bookmarks_and_ends_at_a_random_time() -> None:
    query = {"watch": "true", "allowWatchBookmarks": "true", "timeoutSeconds": "450", "resourceVersion": "10"}
    assert Watch("10", 450).parameters() == query
    timeouts = []
    for random in (0.0, 0.999999, 1.0):
        script = Script()
        script.answer(page(version=10))
        step = script.reflector.answer(Done(), 0.0, random)
        assert isinstance(step, Watch)
        timeouts.append(step.timeout_seconds)
    assert timeouts == [300, 600, 600]


def test_r07_the_cursor_moves_when_the_pool_has_accepted() -> None:
    script = watching()
    script.answer(one_line({"type": "ADDED", "object": pod("a", 1, 11)}))
    assert (script.reflector.cursor, script.reflector.known) == ("10", {})
    for answer in (Done(), Opened(), End(), one_line(None), Silence(), page(version=10), Failure(500)):
        with pytest.raises(RuntimeError, match="is no answer to Emit"):
            script.answer(answer)
    assert (script.reflector.cursor, script.reflector.known) == ("10", {})
    script.answer(Accepted())
    assert script.reflector.cursor == "11"
    assert "ns/a" in script.reflector.known


def test_r07_each_kind_of_line_moves_the_cursor_and_a_bookmark_reaches_no_handler() -> None:
    script = watching()
    lines = [("ADDED", pod("a", 1, 11)), ("MODIFIED", pod("a", 1, 12)), ("DELETED", pod("a", 1, 13))]
    for version, (type, object) in enumerate(lines, 11):
        assert script.line(type, object) == [(type, "a", False)]
        assert script.reflector.cursor == str(version)
    assert script.says(one_line(bookmark(20))) == []
    assert script.reflector.cursor == "20"


def test_r08_r37_any_end_resumes_from_the_cursor_at_once() -> None:
    script = watching()
    script.line("ADDED", pod("a", 1, 11))
    assert script.answer(End()) == Watch("11", 450)
    script.says(Opened())
    assert script.answer(End(), 2.0) == Watch("11", 450)


@pytest.mark.parametrize(
    "value",
    [None, "text", [], {}, {"type": "NEWS", "object": {}}, {"type": "ADDED"}, {"type": "BOOKMARK", "object": {}},
     {"type": "ADDED", "object": {"metadata": {"name": "a"}}}, {"type": "ADDED", "object": {"metadata": []}},
     {"type": "ADDED", "object": {"metadata": {"name": 5, "resourceVersion": "5"}}}],
    ids=str,
)  # fmt: skip
def test_r09_what_is_no_line_drops_the_connection_and_leaves_the_cursor(value: Any) -> None:
    script = watching()
    assert script.says(one_line(value)) == []
    assert script.step == Watch("10", 450)
    assert script.waits() == [1.2]


def test_r10_without_bookmarks_nothing_is_lost() -> None:
    script = watching()
    for at in range(11, 20):
        assert script.line("ADDED", pod(f"p{at}", at, at)) == [("ADDED", f"p{at}", False)]
        assert script.answer(Silence(), 70.0) == Watch(str(at), 450)
        script.answer(Opened())


def test_r11_versions_are_passed_back_as_they_came() -> None:
    script = Script()
    script.says(page(version="v-007"))
    assert script.step == Watch("v-007", 450)
    script.says(Opened())
    script.line("ADDED", pod("a", 1, "v-006"))  # type: ignore[arg-type]
    assert script.reflector.cursor == "v-006", "what is no number is in the order in which it comes"


def test_r11_what_is_older_than_what_is_known_is_a_repetition() -> None:
    script = watching(pod("a", 1, 9))
    script.line("MODIFIED", pod("a", 1, 12))
    assert script.line("MODIFIED", pod("a", 1, 11)) == []
    assert script.line("DELETED", pod("a", 0, 8)) == []
    assert script.line("ADDED", pod("gone", 5, 10)) == []
    assert script.says(one_line(bookmark(5))) == []
    assert script.reflector.cursor == "12"


# Errors.


@pytest.mark.parametrize(
    "status", [EXPIRED, {"code": 410}, {"reason": "Expired"}, {"reason": "Gone", "code": 410}], ids=str
)
def test_r12_an_expired_version_leads_to_a_list_at_once(status: Any) -> None:
    script = watching()
    assert script.answer(one_line(error(status))) == List("10", limit=500)
    script = listed()
    assert script.answer(Failure(410, status)) == List("10", limit=500)


def test_r12_a_version_that_expires_again_waits_and_asks_for_the_newest() -> None:
    script = watching()
    script.relist(version=10)
    script.answer(Opened())
    script.says(one_line(error(EXPIRED)))
    assert script.waits() == [1.2]
    assert script.step == List(None, limit=500)


@pytest.mark.parametrize(
    "failure",
    [
        Failure(429),
        Failure(429, "slow down, please"),
        Failure(500, SERVER_ERROR),
        Failure(503),
        Failure(error="refused"),
    ],
    ids=str,
)
def test_r13_a_failure_keeps_the_cursor_and_waits(failure: Failure) -> None:
    script = listed()
    for _ in range(7):
        script.says(failure)
        assert script.step == Watch("10", 450)
    assert script.waits() == pytest.approx([1.2, 2.4, 4.8, 9.6, 19.2, 22.5, 22.5])


def test_r13_waits_are_from_08_s_to_30_s_and_no_two_clients_keep_step() -> None:
    least, most = Backoff(), Backoff()
    assert [round(least.next(0.0, 0.0), 1) for _ in range(7)] == [0.8, 1.6, 3.2, 6.4, 12.8, 15.0, 15.0]
    assert [round(most.next(0.0, 1.0), 1) for _ in range(7)] == [1.6, 3.2, 6.4, 12.8, 25.6, 30.0, 30.0]


def test_r13_two_minutes_of_health_are_counted_from_the_end_of_the_wait() -> None:
    backoff = Backoff()
    assert backoff.next(0.0, 0.0) == 0.8
    assert backoff.next(120.7, 0.0, asked=250.0) == 250.0
    assert backoff.next(370.8, 0.0) == 3.2
    assert backoff.next(494.1, 0.0) == 0.8


def test_r13_a_server_that_asks_for_a_day_is_asked_again_in_five_minutes() -> None:
    assert Backoff().next(0.0, 0.0, asked=86_400.0) == 300.0


@pytest.mark.parametrize(
    "failure",
    [Failure(429, retry_after=45.0), Failure(429, {"details": {"retryAfterSeconds": 45}})],
    ids=["header", "body"],
)
def test_r13_the_server_may_ask_for_more(failure: Failure) -> None:
    script = listed()
    script.says(failure)
    assert script.waits() == [45.0]


def test_r14_401_asks_for_new_credentials_once_and_then_waits() -> None:
    script = listed()
    assert script.answer(Failure(401)) == Refresh()
    assert script.answer(Done()) == Watch("10", 450)
    step = script.answer(Failure(401, {"message": "Unauthorized"}))
    assert step == Report("watch", "401: Unauthorized", 401, 0.0)
    assert isinstance(script.answer(Done()), Wait)
    assert script.step.why == step


def test_r14_credentials_that_were_taken_may_be_asked_for_again_at_once() -> None:
    script = listed()
    for _ in range(2):
        assert script.answer(Failure(401)) == Refresh()
        script.says(Done())
        script.says(Opened())
        script.says(End(), 2.0)
    assert script.waits() == []


def test_r14_credentials_are_asked_for_once_more_after_each_wait() -> None:
    """Whoever is told to log in again may do so at any time."""
    script = listed()
    for _ in range(3):
        assert script.answer(Failure(401)) == Refresh()
        assert script.says(Done()) == []
        script.says(Failure(401))
    assert script.waits() == [1.2, 2.4, 4.8]
    assert script.answer(Failure(401)) == Refresh()


def test_r14_credentials_that_cannot_be_had_are_reported_and_asked_for_again() -> None:
    script = Script()
    script.answer(Failure(401))
    assert script.answer(Failure(error="no token")) == Report("list", "no token")
    script.settle()
    assert script.answer(Failure(401)) == Refresh()


@pytest.mark.parametrize("status", [403, 404])
def test_r14_what_is_forbidden_or_missing_is_reported_and_asked_for_again(status: int) -> None:
    script = Script()
    for _ in range(3):
        script.says(Failure(status, {"message": "no"}))
    reports = [step for step in script.others if isinstance(step, Report)]
    assert [(each.what, each.status, each.text) for each in reports] == [("list", status, f"{status}: no")] * 3
    assert [each.lasting for each in reports] == pytest.approx([0.0, 1.2, 3.6])
    assert script.step == List(None, limit=500)


def test_r15_three_empty_watches_lead_to_a_list_of_the_newest() -> None:
    script = listed()
    for _ in range(2):
        script.says(Opened())
        script.says(End(), 0.5)
        assert script.step == Watch("10", 450)
    script.says(Opened())
    script.says(End(), 0.5)
    assert script.step == List(None, limit=500)
    assert script.waits() == pytest.approx([1.2, 2.4, 4.8]), "the rate of these lists is bounded by the waits"


def test_r15_a_watch_that_lasted_or_said_something_is_not_empty() -> None:
    script = listed()
    for at in range(10):
        script.says(Opened())
        script.says(End(), 0.5)
        script.says(Opened())
        if at % 2:
            script.says(one_line(bookmark(11 + at)))
        script.says(End(), 0.5 if at % 2 else 1.0)
        assert isinstance(script.step, Watch)


def test_r16_silence_beyond_the_limit_ends_the_watch_and_resumes() -> None:
    script = watching(idle=30.0)
    assert script.step == Read(30.0)
    assert script.answer(Silence(), 10.0) == Read(20.0)
    assert script.answer(one_line(bookmark(11)), 15.0) == Read(30.0)
    assert script.answer(Silence(), 30.0) == Watch("11", 450)


def test_r16_the_time_in_which_the_pool_was_full_is_no_silence() -> None:
    script = watching()
    script.answer(one_line({"type": "ADDED", "object": pod("a", 1, 11)}))
    assert script.answer(Accepted(), 1000.0) == Read(70.0)


def test_r17_it_goes_on_for_ever() -> None:
    script = Script()
    for _ in range(1000):
        script.says(Failure(503))
    assert script.step == List(None, limit=500)


def test_r17_it_gives_up_where_it_is_told_to_and_then_for_good() -> None:
    script = Script(give_up_after=10.0)
    while not isinstance(script.step, Ended):
        script.says(Failure(503))
    assert 10.0 <= script.step.why.lasting < 40.0
    for answer in (Done(), Accepted(), page(version=10)):
        with pytest.raises(RuntimeError, match="is no answer to Ended"):
            script.answer(answer)


def test_r17_what_has_succeeded_begins_the_time_again() -> None:
    script = listed(give_up_after=10.0)
    for at in range(11, 31):
        script.says(Failure(503))
        script.says(Opened())
        script.says(one_line(bookmark(at)))
        script.says(End())
    assert script.step == Watch("30", 450)


def test_r36_another_error_is_retried_and_then_leads_to_a_list() -> None:
    script = listed()
    for _ in range(3):
        assert script.step == Watch("10", 450)
        script.says(Opened())
        script.says(one_line(error(SERVER_ERROR)))
    assert script.step == List(None, limit=500)
    assert script.waits() == pytest.approx([1.2, 2.4, 4.8])


def test_r36_an_error_is_of_one_version() -> None:
    script = listed()
    for at in range(11, 20):
        script.says(Opened())
        script.says(one_line(bookmark(at)))
        script.says(one_line(error(SERVER_ERROR)))
        assert script.step == Watch(str(at), 450)


def test_r36_a_request_that_is_wrong_is_not_made_for_ever() -> None:
    script = listed()
    for _ in range(3):
        script.says(Failure(400, {"message": "invalid resource version"}))
    assert script.step == List(None, limit=500)


def test_r38_a_version_of_the_future_is_settled_by_a_list() -> None:
    script = listed(pod("a", 1, 99), version=99)
    for _ in range(3):
        assert script.step == Watch("99", 450)
        script.answer(Opened())
        script.answer(Silence(), 70.0)
    assert script.step == List(None, limit=500)
    assert script.says(page(pod("a", 1, 5), version=7)) == [("MODIFIED", "a", False)], "the newest list is the truth"
    assert script.step == Watch("7", 450)


def test_r38_a_plain_body_says_nothing_but_itself() -> None:
    failure = Failure(429, "Too many requests" * 100)
    assert [failure.expired, failure.too_large, failure.refused] == [False] * 3
    assert len(str(failure)) == 200


# A list against what is known.


def test_r18_what_is_not_in_the_list_is_deleted_with_the_last_object() -> None:
    script = watching(pod("a", 1, 9))
    script.line("MODIFIED", pod("a", 1, 11, size=5))
    assert script.relist(version=20) == [("DELETED", "a", True)]
    event = script.events[-1]
    assert (event.object, event.old, event.key) == (pod("a", 1, 11, size=5), pod("a", 1, 11, size=5), "ns/a")


def test_r18_without_old_objects_what_names_it_is_left() -> None:
    script = watching(pod("a", 1, 9, size=5), keep_old=False)
    assert script.relist(version=20) == [("DELETED", "a", True)]
    metadata = {name: value for name, value in pod("a", 1, 9)["metadata"].items() if name != "managedFields"}
    assert script.events[-1].object == {"apiVersion": "v1", "kind": "Pod", "metadata": metadata}
    assert script.events[-1].old is None


def test_r19_known_is_what_was_accepted() -> None:
    script = Script()
    script.answer(page(pod("a", 1, 8), pod("b", 2, 9), version=10))
    assert script.reflector.known == {}
    script.answer(Accepted())
    assert [*script.reflector.known] == ["ns/a"]
    assert script.reflector.cursor is None


def test_r20_another_uid_is_another_object_in_a_list() -> None:
    script = watching(pod("a", 1, 9), pod("b", 2, 9))
    told = script.relist(pod("b", 3, 15), pod("a", 4, 16), version=20)
    assert told == [("DELETED", "a", True), ("DELETED", "b", True), ("ADDED", "b", False), ("ADDED", "a", False)]


@pytest.mark.parametrize("type", ["ADDED", "MODIFIED"])
def test_r20_another_uid_is_another_object_live(type: str) -> None:
    script = watching(pod("a", 1, 9))
    assert script.line(type, pod("a", 2, 12)) == [("DELETED", "a", True), ("ADDED", "a", False)]
    assert script.events[1].object == pod("a", 1, 9)
    assert script.events[2].old is None


def test_r20_the_end_of_another_uid_is_the_end_of_what_is_known() -> None:
    script = watching(pod("a", 1, 9))
    assert script.line("DELETED", pod("a", 2, 12)) == [("DELETED", "a", True)]


def test_r21_same_version_changed_and_new() -> None:
    script = watching(pod("a", 1, 8), pod("b", 2, 9))
    told = script.relist(pod("a", 1, 8), pod("b", 2, 15), pod("c", 3, 16), version=20)
    assert told == [("MODIFIED", "b", False), ("ADDED", "c", False)]
    assert script.events[-2].old == pod("b", 2, 9)


def test_r21_a_type_is_what_it_is_to_the_pool() -> None:
    script = watching(pod("a", 1, 9))
    assert script.line("ADDED", pod("a", 1, 11)) == [("MODIFIED", "a", False)]
    assert script.line("MODIFIED", pod("b", 2, 12)) == [("ADDED", "b", False)]
    assert script.line("DELETED", pod("c", 3, 13)) == []
    assert script.line("MODIFIED", pod("b", 2, 12)) == []


def test_r22_deletes_come_first_and_all_of_a_list_before_live_events() -> None:
    script = watching(pod("a", 1, 9), pod("z", 2, 9))
    told = script.relist(pod("b", 3, 15), pod("z", 2, 16), version=20)
    assert told == [("DELETED", "a", True), ("ADDED", "b", False), ("MODIFIED", "z", False)]
    assert isinstance(script.step, Watch), "no live event is asked for earlier"


def test_r23_lists_without_a_change_say_nothing() -> None:
    script = watching(pod("a", 1, 9))
    for at in range(20, 40):
        assert script.relist(pod("a", 1, 9), version=at) == []
        script.says(Opened())


# The streaming list.


def streaming(**options: Any) -> Script:
    script = Script(streaming=True, **options)
    assert script.step == Watch(None, 450, streaming=True)
    return script


def test_r24_initial_objects_are_held_until_their_end() -> None:
    query = {"watch": "true", "allowWatchBookmarks": "true", "timeoutSeconds": "450", "sendInitialEvents": "true"}
    assert Watch(None, 450, streaming=True).parameters() == query | {"resourceVersionMatch": "NotOlderThan"}
    script = streaming()
    script.answer(Opened())
    assert script.line("ADDED", pod("a", 1, 8)) == []
    assert script.line("ADDED", pod("b", 2, 9)) == []
    assert script.line("DELETED", pod("b", 2, 11)) == []
    assert script.says(one_line(bookmark(11))) == []
    assert script.says(one_line(bookmark(12, ends=True))) == [("ADDED", "a", False)]
    assert script.events[0].initial
    assert script.others == [Synced()]
    assert script.step == Read(70.0), "the same watch goes on"
    assert script.reflector.cursor == "12"
    assert script.line("DELETED", pod("a", 1, 13)) == [("DELETED", "a", False)]


@pytest.mark.parametrize("end", [End(), one_line(None), one_line(error(SERVER_ERROR))], ids=["end", "garbage", "error"])
def test_r24_a_break_throws_them_away(end: Answer) -> None:
    script = streaming()
    script.answer(Opened())
    script.line("ADDED", pod("a", 1, 8))
    script.says(end)
    assert script.step == List(None, limit=500)
    assert script.says(page(pod("b", 2, 9), version=10)) == [("ADDED", "b", False)]
    script.says(Opened())
    script.says(one_line(error(EXPIRED)))
    assert script.step == Watch("10", 450, streaming=True), "the next one may go better"


def test_r24_a_list_against_what_is_known() -> None:
    script = streaming()
    script.says(Opened())
    script.line("ADDED", pod("a", 1, 8))
    script.says(one_line(bookmark(10, ends=True)))
    script.says(one_line(error(EXPIRED)))
    script.says(Opened())
    script.line("ADDED", pod("b", 2, 15))
    assert script.says(one_line(bookmark(20, ends=True))) == [("DELETED", "a", True), ("ADDED", "b", False)]


def test_r24_a_list_that_is_older_than_was_asked_for_is_not_believed() -> None:
    script = streaming()
    script.says(Opened())
    script.says(one_line(bookmark(10, ends=True)))
    script.says(one_line(error(EXPIRED)))
    script.says(Opened())
    script.says(one_line(bookmark(5, ends=True)))
    assert script.step == List("10", limit=500)


@pytest.mark.parametrize("status", [400, 422])
def test_r24_a_server_that_refuses_gets_ordinary_lists(status: int) -> None:
    script = streaming()
    script.says(Failure(status))
    assert script.step == List(None, limit=500)
    script.says(page(version=10))
    script.says(Opened())
    script.says(one_line(error(EXPIRED)))
    assert script.step == List("10", limit=500)
    assert script.waits() == []


def test_r24_a_server_that_takes_it_for_a_plain_watch_gets_ordinary_lists() -> None:
    script = streaming()
    script.answer(Opened())
    script.line("ADDED", pod("a", 1, 8))
    for at in range(6):
        script.says(one_line({"type": "MODIFIED", "object": pod("a", 1, 20 + at)}), 10.0)
    script.says(Silence(), script.step.seconds)
    assert script.step == List(None, limit=500)


def test_r24_one_silence_may_be_the_connections_and_two_are_the_servers() -> None:
    script = streaming()
    for version, following in ((10, Watch("15", 450, streaming=True)), (20, List("25", limit=500))):
        script.answer(Opened())
        script.says(Silence(), script.step.seconds)
        script.says(page(version=version))
        script.says(Opened())
        script.line("ADDED", pod("a", version, version + 5))
        script.says(one_line(error(EXPIRED)))
        assert script.step == following


# Keys.


def test_r26_deleted_has_the_last_known_key() -> None:
    script = watching(pod("a", 1, 9, app="x"), key=label("app"))
    script.line("DELETED", pod("a", 1, 11, app="other"))
    assert [event.key for event in script.events] == ["x", "x"]


def test_r27_an_event_under_another_key_waits_for_the_old_one() -> None:
    script = watching(pod("a", 1, 9, app="x"), key=label("app"))
    step = script.answer(one_line({"type": "MODIFIED", "object": pod("a", 1, 11, app="y")}))
    assert isinstance(step, Emit)
    assert (step.event.key, step.after) == ("y", "x")
    script.settle()
    step = script.answer(one_line({"type": "MODIFIED", "object": pod("a", 1, 12, app="y")}))
    assert isinstance(step, Emit)
    assert (step.event.key, step.after) == ("y", None)


def test_r28_skip_takes_an_object_without_a_key_for_none() -> None:
    script = watching(pod("a", 1, 8, app=None), pod("b", 2, 9), key=label("app"), missing="skip")
    assert [event.key for event in script.events] == ["x"]
    assert script.line("MODIFIED", pod("b", 2, 11, app=None)) == [("DELETED", "b", True)]
    assert script.line("DELETED", pod("a", 1, 12, app=None)) == []
    assert script.line("MODIFIED", pod("b", 2, 13)) == [("ADDED", "b", False)]
    assert script.relist(pod("c", 3, 19), pod("b", 2, 20, app=None), version=20) == [
        ("DELETED", "b", True), ("ADDED", "c", False),
    ]  # fmt: skip


def test_r28_an_object_without_a_key_falls_back_to_its_name() -> None:
    script = watching(pod("a", 1, 8, app=None), key=annotation("workspace"))
    assert script.events[0].key == "ns/a"


def test_r28_fail_ends_the_source() -> None:
    script = watching(key=label("app"), missing="fail")
    step = script.answer(one_line({"type": "ADDED", "object": pod("a", 1, 11, app=None)}))
    assert isinstance(step, Ended)
    assert (step.why.what, step.why.text) == ("key", "ns/a has no key")
    assert script.reflector.cursor == "10"


@pytest.mark.parametrize(("missing", "key"), [("namespace/name", "ns/a"), ("fail", "ns/a"), ("skip", None)])
def test_r28_a_function_that_raises_is_reported(missing: Any, key: str | None) -> None:
    def broken(object: dict[str, Any]) -> str:
        raise ValueError(object["metadata"]["name"])

    script = watching(key=broken, missing=missing)
    step = script.answer(one_line({"type": "ADDED", "object": pod("a", 1, 11)}))
    assert isinstance(step, Report)
    assert isinstance(step.error, ValueError)
    script.settle()
    assert [event.key for event in script.events] == ([key] if key else [])
    assert script.reflector.cursor == "11"


@pytest.mark.parametrize("broken", [lambda: [], lambda: 1 // 0], ids=["not hashable", "raises"])
def test_r28_a_function_that_raises_leaves_an_object_its_key(broken: Any) -> None:
    script = watching(pod("a", 1, 9), key=lambda object: broken() if object["spec"] else "x", missing="skip")
    assert script.line("MODIFIED", pod("a", 1, 11, size=5)) == [("MODIFIED", "a", False)]
    assert script.relist(pod("a", 1, 15, size=5), version=20) == [("MODIFIED", "a", False)]
    assert [event.key for event in script.events] == ["x", "x", "x"]


def test_r28_uid_is_a_key() -> None:
    assert watching(pod("a", 17, 9), key="uid").events[0].key == "17"


@pytest.mark.parametrize(
    ("wrong", "kind"),
    [({"key": "name"}, ValueError), ({"key": 5}, TypeError), ({"missing": "drop"}, ValueError),
     ({"idle": 0}, ValueError), ({"resync": 0.0}, ValueError), ({"resync": 5, "keep_old": False}, ValueError),
     ({"limit": 0}, ValueError), ({"give_up_after": "1"}, TypeError)],
    ids=str,
)  # fmt: skip
def test_a_wrong_argument_is_refused(wrong: dict[str, Any], kind: type[Exception]) -> None:
    with pytest.raises(kind):
        Reflector(0.0, 0.5, **wrong)


# Life.


def test_r29_a_pool_that_refuses_leaves_the_step() -> None:
    script = watching()
    step = script.answer(one_line({"type": "ADDED", "object": pod("a", 1, 11)}))
    assert script.reflector.step is step, "it is offered again, as often as it takes"


def test_r30_an_object_that_leaves_the_selector_is_deleted_as_the_server_says() -> None:
    script = watching(pod("a", 1, 9))
    assert script.line("DELETED", pod("a", 1, 11)) == [("DELETED", "a", False)]
    assert script.line("ADDED", pod("a", 1, 12)) == [("ADDED", "a", False)]


def test_r33_a_hundred_thousand_objects_that_came_and_went_leave_nothing() -> None:
    script = watching()
    size = sys.getsizeof(script.reflector.known)
    for at in range(20, 200_020, 2):
        script.says(one_line({"type": "ADDED", "object": pod(f"p{at}", at, at)}))
        script.says(one_line({"type": "DELETED", "object": pod(f"p{at}", at, at + 1)}))
        script.events.clear()
    assert script.reflector.known == {}
    assert sys.getsizeof(script.reflector.known) <= size


def test_r33_an_object_is_kept_in_as_much_memory_as_its_json_takes() -> None:
    script = watching(pod("a", 1, 9, size=5))
    (known,) = script.reflector.known.values()
    assert sys.getsizeof(known.line) == sys.getsizeof(b"") + len(known.line)


def test_r33_a_list_is_not_kept() -> None:
    script = Script()
    script.says(page(*[pod(f"p{at}", at, 9) for at in range(1000)], version=10))
    assert sys.getsizeof(script.reflector.known) > 10_000
    script.says(Opened())
    assert script.relist(version=20)[0] == ("DELETED", "p0", True)
    script.events.clear()
    gc.collect()
    assert not [each for each in gc.get_objects() if isinstance(each, Item)]


def test_r34_resync_repeats_what_is_known_without_asking() -> None:
    script = watching(pod("a", 1, 9), resync=50.0)
    assert script.step == Read(50.0)
    assert script.says(Silence(), 50.0) == [("MODIFIED", "a", False)]
    event = script.events[-1]
    assert (event.resync, event.object, event.old) == (True, pod("a", 1, 9), pod("a", 1, 9))
    assert script.step == Read(20.0), "the idle time goes on"
    assert script.reflector.cursor == "10"
    assert script.says(one_line(bookmark(11)), 10.0) == []
    assert script.says(one_line(bookmark(12)), 40.0) == [("MODIFIED", "a", False)], "also while lines keep coming"


def test_an_exception_from_outside_ends_the_machine() -> None:
    def interrupted(_: object) -> str:
        raise KeyboardInterrupt

    script = watching(key=interrupted)
    with pytest.raises(KeyboardInterrupt):
        script.answer(one_line({"type": "ADDED", "object": pod("a", 1, 11)}))
    with pytest.raises(RuntimeError, match="interrupted"):
        script.answer(End())
