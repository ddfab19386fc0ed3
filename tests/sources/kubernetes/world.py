"""A server that is a version log, a pool that is a list, and the promises between them. No I/O, no clock.

`Server` is the truth: `state(version)` is what it had then. `World` answers each step of a reflector, truly or with a
fault, and holds what the reflector adds to the pool against the truth:

    folded == server.state(cursor)        at each step that asks something of the server, or waits

which is the reflector's own theorem. No lost delete, no partial list and no cursor that ran ahead survives it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from workpool.sources.kubernetes.events import Event
from workpool.sources.kubernetes.keys import label
from workpool.sources.kubernetes.objects import read_line
from workpool.sources.kubernetes.reflector import Reflector
from workpool.sources.kubernetes.steps import (
    Accepted,
    Answer,
    Done,
    Emit,
    End,
    Ended,
    Failure,
    Lines,
    List,
    Opened,
    Page,
    Read,
    Refresh,
    Report,
    Silence,
    Synced,
    Wait,
    Watch,
)

Object = dict[str, Any]
Choose = Callable[[int], int]
"""A number below that one: by chance, or by a plan."""

TOO_LARGE = {"reason": "Timeout", "code": 504, "details": {"causes": [{"reason": "ResourceVersionTooLarge"}]}}
EXPIRED = {"kind": "Status", "status": "Failure", "reason": "Expired", "code": 410, "message": "too old"}
SERVER_ERROR = {"kind": "Status", "status": "Failure", "code": 500, "message": "etcd event with PrevKv=nil"}


def lines(values: Sequence[Any]) -> Lines:
    return Lines([json.dumps(value, ensure_ascii=False).encode() for value in values])


def one_line(value: Any) -> Lines:
    return lines([value])


def document(body: Any) -> Page:
    return Page(json.dumps(body).encode())


def error(status: Object) -> Object:
    return {"type": "ERROR", "object": status}


def bookmark(version: int, ends: bool = False) -> Object:
    metadata: Object = {"resourceVersion": str(version)}
    if ends:
        metadata["annotations"] = {"k8s.io/initial-events-end": "true"}
    return {"type": "BOOKMARK", "object": {"kind": "Pod", "metadata": metadata}}


def pod(name: str, uid: int | str, version: int, app: str | None = "x", **more: Any) -> Object:
    labels = {} if app is None else {"app": app}
    metadata = {
        "namespace": "ns", "name": name, "uid": str(uid), "resourceVersion": str(version), "labels": labels,
        "managedFields": ["long"],
    }  # fmt: skip
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": more}


def page(*pods: Object, version: int | str, token: str = "") -> Page:
    metadata = {"resourceVersion": str(version), "continue": token}
    items = [{name: value for name, value in each.items() if name not in ("apiVersion", "kind")} for each in pods]
    return document({"kind": "PodList", "apiVersion": "v1", "metadata": metadata, "items": items})


def version_of(object: Object) -> int:
    return int(object["metadata"]["resourceVersion"])


def uid_of(object: Object) -> str:
    return str(object["metadata"]["uid"])


def app_of(object: Object) -> str | None:
    value = object["metadata"]["labels"].get("app")
    return None if value is None else str(value)


class Server:
    """Every version that there was, by name: the object, or None where it was deleted.

    It has a selector: an object of the app "out" is not in it. Its items are listed by name, `limit` to a page.
    """

    def __init__(self) -> None:
        self.version = 10
        self.compacted = 0
        self.uids = 0
        self.log: list[tuple[int, str, Object | None]] = []
        self.states: dict[int, dict[str, Object]] = {}

    def change(self, name: str, app: str | None) -> None:
        """Create an object, or change it."""
        self.version += 1
        old = self.now(self.version).get(name)
        if old is None:
            self.uids += 1
        self.log.append((self.version, name, pod(name, self.uids if old is None else uid_of(old), self.version, app)))

    def delete(self, name: str) -> None:
        self.version += 1  # Another resource's, where there is nothing to delete.
        if name in self.now(self.version):
            self.log.append((self.version, name, None))

    def now(self, version: int) -> dict[str, Object]:
        """All objects at a version, whatever the selector."""
        found: dict[str, Object | None] = {name: object for at, name, object in self.log if at <= version}
        return {name: object for name, object in sorted(found.items()) if object is not None}

    def state(self, version: int) -> dict[str, Object]:
        """What the selector had at a version, which is past and so never changes."""
        if version not in self.states:
            now = self.now(version)
            self.states[version] = {name: object for name, object in now.items() if app_of(object) != "out"}
        return self.states[version]

    def compact(self) -> None:
        self.compacted = self.version

    def answer(self, request: List, choose: Choose) -> Answer:
        at, start = self.version, 0
        if request.token:
            at, start = map(int, request.token.split(":"))
            if at < self.compacted:
                return Failure(410, EXPIRED)
        elif request.version is not None:
            if (least := int(request.version)) > self.version:
                return Failure(504, TOO_LARGE)
            at = least + choose(self.version - least + 1) if least else self.version - choose(3)
            at = max(at, least, 1)
        items = list(self.state(at).values())
        end = start + (request.limit or len(items))
        return page(*items[start:end], version=at, token=f"{at}:{end}" if end < len(items) else "")

    def lines(self, since: int) -> list[Object]:
        """What a watch says after a version: a change of the selector is an ADDED or a DELETED (R30)."""
        lines = []
        for at, name, _ in self.log:
            if at > since:
                old, new = self.state(at - 1).get(name), self.state(at).get(name)
                if new is not None:
                    lines.append({"type": "MODIFIED" if old else "ADDED", "object": new})
                elif old is not None:
                    # It is the object as it last was in the selector, at the version of its leaving.
                    gone = {**old, "metadata": {**old["metadata"], "resourceVersion": str(at)}}
                    lines.append({"type": "DELETED", "object": gone})
        return lines


FAILURES: list[Answer] = [
    Failure(410, EXPIRED), Failure(504, TOO_LARGE), Failure(504), Failure(500, SERVER_ERROR), Failure(403),
    Failure(429, "slow down", retry_after=2.0), Failure(404), Failure(401), Failure(error="refused"),
    Failure(400, {"code": 400}),
]  # fmt: skip
LINES: list[Any] = [
    error(EXPIRED), error(SERVER_ERROR), error({"reason": "Gone"}), error({"code": 401}), None, {"type": "ADDED"}, [],
    {"type": "ADDED", "object": {"metadata": {"name": "a"}}}, {"type": "NEWS", "object": {}}, bookmark(1),
]  # fmt: skip


@dataclass
class World:
    """A server, a reflector, what the reflector has added, and what it must never do."""

    make: Callable[..., Reflector] = Reflector
    options: dict[str, Any] = field(default_factory=dict)
    by_label: bool = False
    """The key is the label, and an object without it is skipped."""
    has_streaming: bool = True

    def __post_init__(self) -> None:
        self.server = Server()
        self.time = 0.0
        self.start()

    def start(self) -> None:
        """Start the source: also after its process has died with all that it knew."""
        key = {"key": label("app"), "missing": "skip"} if self.by_label else {}
        self.reflector = self.make(self.time, 0.5, **key, **self.options)
        self.folded: dict[str, Event] = {}
        self.watch: list[Object] | None = None  # What an open watch has still to say.
        self.watch_at = 0  # Up to which version it was told.
        self.synced = False
        self.deletes_over = False  # Of the list that is being added.
        self.cursor: str | None = None
        self.forgotten = False  # The server has said so of the cursor.
        self.errors = 0  # Watches in a row that an error ended at one cursor.
        self.emitted = 0

    def expect(self, version: int) -> dict[str, Object]:
        state = self.server.state(version)
        return {name: each for name, each in state.items() if not self.by_label or app_of(each) is not None}

    def check(self) -> None:
        """Hold the theorem, where the step is not in the middle of a move."""
        known = self.reflector.known
        assert {
            f"ns/{name}": (uid_of(each.object), str(version_of(each.object))) for name, each in self.folded.items()
        } == {name: (each.uid, each.version) for name, each in known.items()}, "what is known is not what was accepted"
        if isinstance(self.reflector.step, Emit | Report | Synced):
            return
        cursor = self.reflector.cursor
        if cursor is None:
            assert not self.folded, "part of a list was added"
            return
        expected = self.expect(int(cursor))
        assert {name: each.object["metadata"] for name, each in self.folded.items()} == {
            name: each["metadata"] for name, each in expected.items()
        }, f"what was added is not the state at {cursor}"

    def answer(self, answer: Answer, seconds: float = 0.0) -> None:
        """Answer the step and look at what comes of it."""
        step, before = self.reflector.step, self.reflector.cursor
        self.check()
        assert self.cursor is None or int(before or 0) >= int(self.cursor), "the cursor went back"
        self.check_progress(step, answer)
        self.cursor = before
        self.time += seconds
        if isinstance(step, Emit):
            self.accept(step)
        elif isinstance(step, Synced):
            assert not self.synced, "synced twice"
            self.synced = True
        if isinstance(step, Read | List | Watch):
            self.deletes_over = False
        if isinstance(step, List | Watch | Wait | Refresh):
            self.watch = None
        self.reflector.answer(answer, self.time, 0.5)
        if self.reflector.cursor != before:
            self.deletes_over = False  # It was a line, and the next may be of the same answer.
        if isinstance(after := self.reflector.step, Emit) and not (after.event.resync or after.event.synthetic):
            # It may have moved to where an earlier line of the same answer took it.
            is_ahead = int(self.reflector.cursor or 0) >= version_of(after.event.object)
            assert self.reflector.cursor == before or not is_ahead, "the cursor moved before the event was accepted"
        self.check()

    def check_progress(self, step: object, answer: Answer) -> None:
        """Nothing goes round for ever on one version."""
        if isinstance(step, List) or (isinstance(step, Watch) and step.streaming):
            self.forgotten, self.errors = False, 0
        elif isinstance(step, Watch):
            assert not self.forgotten, "a forgotten version is asked for again"
            assert self.errors < 3, "a version is asked for again and again"
            self.forgotten = isinstance(answer, Failure) and answer.expired
        elif isinstance(answer, Lines):
            said = read_line(answer.values[-1])
            self.forgotten = isinstance(said, Failure) and said.expired
            self.errors += isinstance(said, Failure) and not said.expired
        if isinstance(answer, End) or self.reflector.cursor != self.cursor:
            self.errors = 0

    def accept(self, emit: Emit) -> None:
        """Fold an event, which must be the next of its object and of its key."""
        event = emit.event
        self.emitted += 1
        name = event.object["metadata"]["name"]
        last = self.folded.get(name)
        assert (last is None) == (event.type == "ADDED"), f"{event.type} of an object that is there or not"
        assert event.initial == (not self.synced), "initial is what comes before synced"
        if event.type == "DELETED":
            assert last is not None
            assert event.key == last.key, "a DELETED has another key"
            if event.synthetic:
                assert not self.deletes_over, "a synthetic DELETED after an add"
                assert version_of(event.object) == version_of(last.object), "a synthetic DELETED is not the last known"
            else:
                assert version_of(event.object) >= version_of(last.object), "a version went back"
            assert uid_of(event.object) == uid_of(last.object), "a DELETED of another object"
            del self.folded[name]
            return
        truth = self.server.state(version_of(event.object)).get(name)
        assert truth == event.object, "an object that never was"
        assert event.key == (app_of(truth) if self.by_label else f"ns/{name}"), "a wrong key"
        if last is not None:
            assert uid_of(event.object) == uid_of(last.object), "another object is called MODIFIED"
            assert event.resync or version_of(event.object) > version_of(last.object), "a version went back, or twice"
            assert (event.key if emit.after is None else emit.after) == last.key, (
                "a key changes, and nobody waits for the old one"
            )
        self.deletes_over = True
        self.folded[name] = event

    # Answers.

    def answer_truly(self, choose: Choose = lambda _: 0) -> None:
        """Answer as a server without faults does."""
        match self.reflector.step:
            case List() as request:
                self.answer(self.server.answer(request, choose))
            case Watch() as request:
                self.open(request)
            case Read(seconds=seconds):
                if self.watch is None:
                    self.answer(Silence(), seconds)
                elif self.watch:
                    some = [self.watch.pop(0) for _ in range(min(len(self.watch), 1 + choose(3)))]
                    for line in some:
                        if line["type"] != "ERROR":
                            self.watch_at = max(self.watch_at, version_of(line["object"]))
                    self.answer(lines(some), 0.1)
                else:
                    self.watch_at, self.watch = self.server.version, self.server.lines(self.watch_at)
                    if self.watch:
                        self.answer_truly()
                    else:
                        self.answer(one_line(bookmark(self.server.version)), seconds / 2)
            case Emit():
                self.answer(Accepted())
            case Wait(seconds=seconds):
                assert seconds > 0
                self.answer(Done(), seconds)
            case Ended():
                raise AssertionError("the source ended")
            case _:
                self.answer(Done())

    def open(self, request: Watch) -> None:
        if request.streaming:
            if not self.has_streaming:
                self.answer(Failure(422, {"code": 422}))
                return
            self.answer(Opened(), 0.1)
            at = self.server.version
            told = [{"type": "ADDED", "object": each} for each in self.server.state(at).values()]
            told.insert(len(told) // 2, bookmark(at))  # One that ends nothing.
            self.watch_at, self.watch = at, [*told, bookmark(at, ends=True)]
            return
        since = int(request.version or 0)
        self.answer(Opened(), 0.1)
        if since < self.server.compacted:
            self.watch = [error(EXPIRED)]
        elif since <= self.server.version:
            self.watch_at, self.watch = since, self.server.lines(since)

    def answer_falsely(self, choose: Choose) -> None:
        """Answer with a fault, where the step can have one."""
        match self.reflector.step:
            case List():
                nameless = document({"metadata": {"resourceVersion": "5"}, "items": [{}]})
                bad = [page(version=""), document(None), nameless]
                self.answer([*FAILURES, *bad][choose(len(FAILURES) + len(bad))])
            case Watch():
                if (at := choose(len(FAILURES) + 1)) == len(FAILURES):
                    self.answer(Opened())
                    if self.is_reading():  # Else it has something to repeat first.
                        self.answer(End())
                else:
                    self.answer(FAILURES[at])
            case Read(seconds=seconds):
                kind = choose(6)
                if kind == 0:
                    self.answer(Silence(), seconds)
                elif kind == 1:
                    self.answer(End(), 2.0 * choose(2))
                elif kind == 2 and self.server.log and self.synced:
                    old = self.server.lines(0)
                    told = [line for line in old if version_of(line["object"]) <= int(self.reflector.cursor or 0)]
                    self.answer(one_line(told[choose(len(told))] if told and not self.in_list() else None))
                else:
                    self.answer(one_line(LINES[choose(len(LINES))]))
            case Refresh():
                self.answer(Failure(error="no token"))
            case _:
                self.answer_truly(choose)

    def in_list(self) -> bool:
        """Whether a streaming list is being read: there, what a server says is all that there is."""
        return any(line["type"] == "BOOKMARK" for line in self.watch or [])

    def is_reading(self) -> bool:
        return isinstance(self.reflector.step, Read)

    def alter(self, choose: Choose) -> None:
        """Let the server's objects change."""
        name, what = "abc"[choose(3)], choose(6)
        if what == 0:
            self.server.delete(name)
        elif what == 1:
            self.server.delete(name)
            self.server.change(name, "x")
        elif what == 5:
            self.server.compact()
        else:
            self.server.change(name, ["y", "x", "out", None][choose(4)])

    def catch_up(self, limit: int = 400) -> None:
        """No more faults, and nothing changes: the reflector must come to what is, and then stay quiet."""
        for _ in range(limit):
            if self.is_reading() and self.reflector.cursor == str(self.server.version):
                break
            self.answer_truly()
        else:
            raise AssertionError("the reflector never catches up")
        assert self.synced, "never synced"
        assert {name: each.object["metadata"] for name, each in self.folded.items()} == {
            name: each["metadata"] for name, each in self.expect(self.server.version).items()
        }
        emitted = self.emitted
        for fault in (one_line(error(EXPIRED)), End(), Silence()) * 2:
            self.answer(fault, 70.0)
            for _ in range(limit):
                if self.is_reading() and not self.in_list():
                    break
                self.answer_truly()
        assert self.emitted == emitted or self.options.get("resync"), "a list without a change was told"


def run(world: World, choose: Choose, steps: int) -> None:
    """Let a world go on, choice by choice, and then come to rest."""
    for _ in range(steps):
        what = choose(10)
        if what < 2:
            world.alter(choose)
        elif what < 5:
            world.answer_falsely(choose)
        elif what == 9 and not choose(12):
            world.start()
        else:
            world.answer_truly(choose)
    world.catch_up()
