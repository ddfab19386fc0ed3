"""Each fault of a server, alone and in any order: what was handled, folded per object, is what the server has.

By the whole source over sockets. `test_reflector_model.py` goes through far more orders, without any.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sources.kubernetes.follower import Follower, pod
from support import PATIENCE, eventually
from workpool.sources.kubernetes import label
from workpool.testing.kubernetes import (
    Answer,
    ApiServer,
    Do,
    End,
    ErrorEvent,
    Fault,
    Garbage,
    Hang,
    Reset,
    StreamFault,
    Truncate,
    Unversioned,
)
from workpool.testing.kubernetes.status import stream_error

pytestmark = pytest.mark.usefixtures("soon")

BEFORE: list[Fault] = [
    *(Answer(code) for code in (401, 403, 404, 410, 500, 503, 504)),
    *(Answer(code, "no") for code in (400, 422, 429, 502)),
    Reset(after=None), Truncate(),
]  # fmt: skip
"""Of a request, in place of its answer."""
WITHIN: list[Fault] = [
    fault
    for after in (0, 2)
    for fault in (
        End(after), Reset(after), Truncate(after), Hang(after), Garbage(after=after), Unversioned(after),
        Garbage(b'"\xff"', after), Garbage(b"null", after), ErrorEvent(after=after),
        ErrorEvent(stream_error("etcd event received with PrevKv=nil"), after),
    )
]  # fmt: skip
"""Of a watch that was opened."""
STRUCK = [*(("list", fault) for fault in BEFORE), *(("page", fault) for fault in BEFORE)]
WATCHED = [("watch", fault) for fault in [*BEFORE, *WITHIN]]


def change(server: ApiServer, chance: random.Random) -> None:
    """Change an object or two, in any way."""
    there = [each["metadata"]["name"] for each in server.objects("v1/pods")]
    name = chance.choice([*there, *(f"n{chance.randrange(1000)}" for _ in range(3))])
    app = chance.choice("ABC")
    if name not in there:
        server.create("v1/pods", pod(name, app=app))
    elif chance.random() < 0.4:
        server.delete("v1/pods", name)
        if chance.random() < 0.3:
            server.create("v1/pods", pod(name, app=app))
    else:
        labels = {"app": app} if chance.random() < 0.5 else {}
        server.patch("v1/pods", name, {"metadata": {"labels": labels, "annotations": {"n": str(chance.random())}}})


def follow_through(
    server: ApiServer, folder: Path, chance: random.Random, acts: Callable[[], object], **options: Any
) -> None:
    """Follow while changes and other things happen, to the end."""
    for name in "abcde":
        server.create("v1/pods", pod(name, app="A"))
    with Follower(server, folder, key=label("app"), limit=2, idle=0.1, **options) as follower:
        assert follower.source.wait_synced(PATIENCE)
        for _ in range(5):
            for _ in range(6):
                change(server, chance)
            acts()
        server.heal()
        server.create("v1/pods", pod("last", app="A"))
        follower.wait_for_state()
        follower.check_order()


@pytest.mark.parametrize(
    ("verb", "fault", "streaming"),
    [*((*each, False) for each in STRUCK + WATCHED), *((*each, True) for each in WATCHED)],
    ids=str,
)
def test_each_fault(tmp_path: Path, verb: str, fault: Fault, streaming: bool) -> None:
    chance = random.Random(f"{verb} {fault}")
    with ApiServer() as server:
        server.inject(verb, fault)

        def act() -> None:
            server.inject(verb, fault)
            if verb != "watch":
                server.inject("watch", ErrorEvent())
            server.strike(End())
            for _ in range(3):
                change(server, chance)
            eventually(lambda: server.faults == 0)

        follow_through(server, tmp_path, chance, act, streaming=streaming)


@pytest.mark.parametrize("number", range(20))
def test_faults_in_any_order(tmp_path: Path, number: int) -> None:
    chance = random.Random(number)
    streaming = chance.random() < 0.3
    with ApiServer(
        expired_in_stream=chance.random() < 0.5, chunk_size=chance.choice([None, 1, 7, 4096]),
        streaming_lists=chance.random() < 0.7,
    ) as server:  # fmt: skip

        def disappear() -> None:
            with server.down():
                change(server, chance)
                server.compact()

        def change_another() -> None:
            server.create("v1/configmaps", {"metadata": {"generateName": "another-"}})

        def act() -> None:
            for _ in range(chance.randrange(4)):
                verb, fault = chance.choice(STRUCK + WATCHED)
                server.inject(verb, fault)
            if chance.random() < 0.2:
                server.inject(chance.choice(["list", "watch"]), Do(server.compact))
            happen: Callable[[], object] = chance.choice(
                [server.compact, server.restart, disappear, server.bookmark, change_another]
            )
            happen()
            if chance.random() < 0.5:
                struck: list[StreamFault] = [End(), Reset(), Truncate(), Garbage(), ErrorEvent()]
                server.strike(chance.choice(struck))
            server.wait_for_watches(1)

        follow_through(server, tmp_path, chance, act, streaming=streaming, keep_old=chance.random() < 0.5)
