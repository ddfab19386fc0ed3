"""A list and a watch as a state machine: what to ask of the server next, and what to add to the pool. Pure.

Theory. The server has a log of versions. A reader of it stands at a *cursor*, and `known` is what it has added to the
pool, folded per object:

    known == the server's objects at the version `cursor`                    (whenever the step is a request or a wait)

Two moves keep that true. A line of a watch takes both one version further. A list replaces both: what is known and
not in the list is deleted, what differs is added, and the list's own version is the cursor (R4, R18 to R23). So no
disconnect, restart or expired version can lose an object: it only decides which of the two moves comes next. In states:

    list --last page--> replace --> watch --line--> watch                 resumes at the cursor after any other end
      ^                               |
      +------ expired, or barren -----+

A watch is *barren* that took the cursor nowhere and was at once over, or silent, or ended with an error. Three in a row
cast doubt on the cursor itself, and lead to a list of the newest version, whatever the cursor is (R15, R36, R38). So
nothing goes round for ever on one version; and it goes round slowly, for each of these but a silent one waits first.

The protocol is a generator's: `step` is the one thing to do now, and `answer` says what came of it and moves on to the
next. The lines of the machine after a `yield Emit(...)` run when the pool has accepted that event and not before: to
change `known` or the cursor earlier (R7, R19), or twice, or to hand over a line while an event is still to be
accepted, cannot be written by its caller. A pool that refuses leaves `step` as it is, and nothing has happened. An
answer that does not belong to the step raises, and changes nothing.

What is kept, per live object: uid, version and key, which tell one change from another, and the line that told of it
last, for the DELETED that only a list brings (R18). Without `keep_old`, that line has the apiVersion, kind and metadata
only, without managedFields: the least that still says what is gone. Beside it, one list while it is read (R3), and
what lines have come at once: O(live objects) (R33).

What it cannot know: what came and went between two lists; and the key that an object had before it left (the selector,
or its lane by "skip") and came back, so that R27 does not reach over such a gap.

Versions are compared as numbers where they are numbers, and only to pass over what a server says once more (R11). Of
the newest list even an older version is believed: then the server itself has gone back, and that is its state.

An exception from outside that falls into `answer` (Ctrl-C) ends the machine: it raises from then on.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Generator, Hashable
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias, TypeVar

from workpool.arguments import count, duration
from workpool.sources.kubernetes.backoff import Backoff
from workpool.sources.kubernetes.events import Event
from workpool.sources.kubernetes.keys import SKIPPED, Key, Keys, Missing, MissingKey
from workpool.sources.kubernetes.line import shorten
from workpool.sources.kubernetes.objects import Bookmark, Item, Said, is_older, read_line, read_page
from workpool.sources.kubernetes.steps import (
    ANSWERS,
    Answer,
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
    Step,
    Synced,
    Wait,
    Watch,
)

__all__ = ["Reflector"]

T = TypeVar("T")
Steps: TypeAlias = Generator[Step, Answer, T]
"""A part of the machine: it yields steps, is sent their answers, and returns what the next part has to know."""

SHORT: Final = 1.0
"""Seconds below which a watch without an event is barren."""
BARREN: Final = 3
"""So many barren watches in a row lead to a list."""
_STREAMS: Final = 2
"""After so many streaming lists in a row that were silent, the server is taken to have none."""


@dataclass(slots=True)
class Known:
    """What was last added to the pool of an object.

    Not frozen: one is made for every event, and freezing costs as much again.
    """

    uid: str
    version: str
    key: Hashable
    line: bytes
    """What holds the object."""


class _Over(Exception):
    """Nothing is left to try."""

    def __init__(self, why: Report) -> None:
        self.why = why


class Reflector:
    """One resource, listed and watched.

    Args:
        now: The time, in seconds of any clock that does not go back.
        random: A number from 0 to 1.
        key: Names the lane of an object.
        missing: What happens to an object without a key.
        keep_old: Keep whole objects, for `Event.old` and for what a list finds deleted.
        limit: Objects to a page; None for one page.
        from_cache: Let the first list be of any version (`resourceVersion=0`). Cheaper for the server, and may show a
            state from before an earlier run.
        streaming: Try a streaming list first (R24).
        idle: Seconds of silence after which a watch is given up.
        resync: Seconds from one repetition of all that is known to the next (R34); None for none.
        give_up_after: Seconds without any success after which the source ends; None to go on for ever (R17).

    Raises:
        TypeError, ValueError: An argument is wrong; the message says which and why.
    """

    def __init__(
        self,
        now: float,
        random: float,
        *,
        key: Key = "namespace/name",
        missing: Missing = "namespace/name",
        keep_old: bool = True,
        limit: int | None = 500,
        from_cache: bool = False,
        streaming: bool = False,
        idle: float = 70.0,
        resync: float | None = None,
        give_up_after: float | None = None,
    ) -> None:
        if resync is not None and not keep_old:
            raise ValueError("resync repeats whole objects, and so needs keep_old")
        self.cursor: str | None = None
        """The version up to which everything is added; None before the first list is."""
        self.known: dict[str, Known] = {}
        """The live objects, by namespace and name."""
        self._keys = Keys(key, missing)
        self._keep_old = keep_old
        self._limit = None if limit is None else count("limit", limit)
        self._first = "0" if from_cache else None
        self._streams = _STREAMS if streaming else 0
        """How many streaming lists to try yet, if each is silent."""
        self._idle = _period("idle", idle)
        self._resync = math.inf if resync is None else _period("resync", resync)
        self._give_up_after = math.inf if give_up_after is None else duration("give_up_after", give_up_after)

        self._now, self._random = now, random
        self._backoff = Backoff()
        self._failing: float | None = None
        """Since when nothing has succeeded."""
        self._refreshed = False
        """New credentials were asked for, and since then nothing has succeeded, and no wait is over."""
        self._expired = False
        """The cursor was forgotten, and has not moved by a line since: a second time needs a better list."""
        self._resync_due = math.inf
        self._lines: deque[bytes] = deque()
        """What has come of the open watch and is not told yet."""

        self._steps = self._run()
        self.step: Step = next(self._steps)
        """What is to be done now."""

    def answer(self, answer: Answer, now: float, random: float) -> Step:
        """Say what came of the step, and get the next.

        Args:
            answer: One of those that `ANSWERS` has for the step.
            now: The time.
            random: A number from 0 to 1.

        Raises:
            RuntimeError: It is no answer to this step, or the machine was interrupted. Nothing has changed.
        """
        if type(answer) not in ANSWERS[type(self.step)]:
            raise RuntimeError(f"{type(answer).__name__} is no answer to {type(self.step).__name__}")
        self._now, self._random = now, random
        try:
            self.step = self._steps.send(answer)
        except StopIteration:
            raise RuntimeError("the reflector was interrupted, and has ended") from None
        except BaseException:
            self._steps.close()  # It may have moved on, and `step` not.
            raise
        return self.step

    def _run(self) -> Steps[None]:
        newest = False
        try:
            while True:
                is_open = yield from self._list(newest)
                newest = yield from self._follow(is_open)
        except _Over as over:
            yield Ended(over.why)

    # The list.

    def _list(self, newest: bool) -> Steps[bool]:
        """Replace what is known by a list: of the newest version, or one not older than the cursor.

        Returns:
            Whether a watch is open that goes on from there.
        """
        version = None if newest else self.cursor or self._first
        if self._streams and (yield from self._stream(version)):
            return True
        token, limit = "", self._limit
        at, items = "", dict[str, Item]()
        while True:
            answer = yield List(version, token, limit)
            sheet = read_page(answer.body) if isinstance(answer, Page) else None
            failure = answer if isinstance(answer, Failure) else Failure(error="a list that is none")
            if sheet is not None and is_older(sheet.version, version or ""):
                sheet, failure = None, Failure(410, error="a list older than was asked for")
            if sheet is not None:
                # Of pages that differ in their version, from the first one on everything is told once more.
                at, token = at or sheet.version, sheet.token
                items |= {item.name: item for item in sheet.items}
                if not token:
                    self._succeed()
                    yield from self._replace(items, at)
                    return False
            elif not (failure.expired or failure.too_large or failure.refused):
                yield from self._fail("list", failure)
            else:
                if failure.refused or (version is None and not (token and limit)):
                    yield from self._fail("list", failure)  # At once is for what has something better to ask for.
                if token:
                    limit = None
                version, token, at, items = None, "", "", {}

    def _stream(self, version: str | None) -> Steps[bool]:
        """Try a streaming list; whether it came to its end. If not, an ordinary list is next."""
        answer = yield self._open(version, streaming=True)
        items = dict[str, Item]()
        last = self._now
        while not isinstance(answer, Failure | End | Silence):
            said = yield from self._read(last)
            if isinstance(said, Bookmark) and said.ends_initial:
                if is_older(said.version, version or ""):
                    return False
                self._succeed()
                self._streams = _STREAMS
                yield from self._replace(items, said.version)
                return True
            if isinstance(said, Item):
                items[said.name] = said
                if said.type == "ADDED":
                    last = self._now
                elif said.type == "DELETED":
                    items.pop(said.name, None)
            elif not isinstance(said, Bookmark):
                answer = said
        if isinstance(answer, Failure) and answer.refused:
            self._streams = 0
        elif isinstance(answer, Silence):
            self._streams -= 1  # Either the connection is dead, or an old server takes the request for a plain watch.
        elif isinstance(answer, Failure) and not (answer.expired or answer.too_large):
            yield from self._fail("watch", answer)
        return False

    def _replace(self, items: dict[str, Item], version: str) -> Steps[None]:
        """Tell how a list differs from what is known: what is gone first (R22)."""
        initial = self.cursor is None
        for name, known in list(self.known.items()):
            item = items.get(name)
            if item is None or item.uid != known.uid or self._keys.is_out(item):
                yield from self._remove(name, known)
        for item in items.values():
            yield from self._put(item, initial)
        self.cursor = version
        if initial:
            self._resync_due = self._now + self._resync
            yield Synced()

    # The watch.

    def _follow(self, is_open: bool) -> Steps[bool]:
        """Watch from the cursor on, for as long as that leads anywhere; whether the list then has to be the newest."""
        barren = 0
        while True:
            start = self.cursor
            answer = Opened() if is_open else (yield self._open(start))
            opened, is_open = self._now, False
            said = answer if isinstance(answer, Failure) else (yield from self._apply())
            moved = self.cursor != start
            if moved:
                barren = 0
            if isinstance(said, Failure) and (said.expired or said.too_large):
                again, self._expired = self._expired, True
                if again:
                    yield from self._fail("watch", said)
                return again or said.too_large
            if isinstance(said, Failure):
                barren += said is not answer or said.refused  # Any other failure to open tells nothing of the cursor.
                yield from self._fail("watch", said)
            elif not moved and isinstance(said, End) and self._now - opened < SHORT:
                barren += 1
                yield from self._fail("watch", Failure(error="a watch that was over at once"))
            else:
                barren = barren + 1 if isinstance(said, Silence) and not moved else 0
                self._succeed()
            if barren >= BARREN:
                return True

    def _apply(self) -> Steps[Failure | Silence | End]:
        """Add what an open watch says, line by line; how it ended."""
        while True:
            if self._lines and self._now < self._resync_due:
                said: Said | Silence | End = read_line(self._lines.popleft())
            else:
                said = yield from self._read(self._now)
            if not isinstance(said, Item | Bookmark):
                return said
            if isinstance(said, Item):
                yield from self._change(said)
            self._move(said.version)

    def _read(self, last: float) -> Steps[Said | Silence | End]:
        """The next line, or how the watch ended; Silence when the idle time is over since the last line."""
        silent = last + self._idle
        while True:
            if self._now >= self._resync_due:
                yield from self._repeat()
            if self._lines:
                return read_line(self._lines.popleft())
            answer = yield Read(max(0.0, min(silent, self._resync_due) - self._now))
            if isinstance(answer, Lines):
                self._lines.extend(answer.values)
                continue
            if not isinstance(answer, Silence):
                return End()
            if self._now >= silent:
                return answer

    def _change(self, item: Item) -> Steps[None]:
        """Tell of a line, unless a server repeats itself: what is known is newer, or the object is gone since."""
        known = self.known.get(item.name)
        if is_older(item.version, known.version if known is not None else self.cursor or ""):
            return
        if item.type != "DELETED":
            yield from self._put(item, initial=False)
        elif known is not None:
            yield from self._remove(item.name, known, item.line if item.uid == known.uid else None)

    def _move(self, version: str) -> None:
        if self.cursor != version and not (self.cursor and is_older(version, self.cursor)):
            self.cursor = version
            self._expired = False
            self._succeed()

    # What is known.

    def _put(self, item: Item, initial: bool) -> Steps[None]:
        """Tell that an object is as it is, if that is new."""
        name = item.name
        known = self.known.get(name)
        if known is not None and known.uid != item.uid:
            yield from self._remove(name, known)
            known = None
        if known is not None and known.version == item.version:
            return
        last = known.key if known is not None else None
        try:
            key, error = self._keys.of(item, last)
        except MissingKey as missing:
            raise _Over(Report("key", str(missing), error=missing)) from None
        if error is not None:
            yield Report("key", f"the key of {name} raised {error!r}", error=error)
        if key is SKIPPED:
            if known is not None:
                yield from self._remove(name, known)
            return
        if known is None:
            yield Emit(Event("ADDED", item.cheapest, key, initial=initial), name)
        else:
            old = known.line if self._keep_old else None
            event = Event("MODIFIED", item.cheapest, key, old, old_key=last)
            yield Emit(event, name, None if key == last else last)
        self.known[name] = Known(item.uid, item.version, key, item.line if self._keep_old else shorten(item.line))

    def _remove(self, name: str, known: Known, line: bytes | None = None) -> Steps[None]:
        """Tell that an object is gone, as the server has said it or (R18) as it was last known."""
        old = known.line if self._keep_old else None
        event = Event("DELETED", line or known.line, known.key, old, synthetic=line is None, old_key=known.key)
        yield Emit(event, name)
        del self.known[name]
        if not self.known:
            self.known = {}  # A dict that grew never shrinks by itself.

    def _repeat(self) -> Steps[None]:
        for name, known in list(self.known.items()):
            event = Event("MODIFIED", known.line, known.key, known.line, resync=True, old_key=known.key)
            yield Emit(event, name)
        self._resync_due = self._now + self._resync

    # What goes wrong.

    def _fail(self, what: Literal["list", "watch"], failure: Failure) -> Steps[None]:
        """Report a failure and wait; or, where it is for want of credentials, get new ones first, once a wait (R14)."""
        if failure.status == 401 and not self._refreshed:
            self._refreshed = True
            answer = yield Refresh()
            if not isinstance(answer, Failure):
                return
            failure = answer
        if self._failing is None:
            self._failing = self._now
        report = Report(what, str(failure), failure.status, self._now - self._failing)
        if report.lasting >= self._give_up_after:
            raise _Over(report)
        yield report
        yield Wait(self._backoff.next(self._now, self._random, failure.wait), report)
        self._refreshed = False  # Meanwhile somebody may have logged in.

    def _succeed(self) -> None:
        self._failing = None
        self._refreshed = False

    def _open(self, version: str | None, streaming: bool = False) -> Watch:
        """Leave what is open, and ask for a watch, with a time-out that no two clients share (R6)."""
        self._lines.clear()
        return Watch(version, min(600, 300 + int(self._random * 301)), streaming)


def _period(name: str, value: float) -> float:
    if duration(name, value) == 0:
        raise ValueError(f"{name} must be more than 0 seconds")
    return value
