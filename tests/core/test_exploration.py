"""Every state of the dispatch at small bounds, with every order of steps that a driver can make.

A driver is modelled as the thread driver is: workers that look whether all is settled before they sleep, sleep until a
wake-up comes, and leave one for the next when they leave; a number of wake-ups under way, of which each wakes any one
sleeper; and time that passes until the next key is due. A state is canonical up to the names of keys and workers.
Events are numbered within their key, so that after each step it is known which have to wait, and in which order. Where
a newer one takes the place of an older, that has ended, and whoever waits for it waits for the newer one.
"""

from __future__ import annotations

import itertools
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
from copy import copy
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import pytest

from workpool.coalescing import Coalescing
from workpool.dispatch import Dispatch
from workpool.envelope import Envelope, opened
from workpool.held import HeldLanes
from workpool.lanes import Lanes
from workpool.notes import Held, Note
from workpool.policy import Park, Skip
from workpool.records import State

Core = Dispatch[str, int]
SLOTS = (*Lanes.__slots__, *HeldLanes.__slots__, *Dispatch.__slots__)
CONTAINERS = [slot for slot in SLOTS if isinstance(getattr(Core(), slot), (list, dict, set))]
PLAIN = [slot for slot in SLOTS if slot not in (*CONTAINERS, "ready")]
POLICIES: dict[str, Any] = {"retry": 1.0, "again": 0.0, "skip": Skip(), "park": Park()}
"""What is decided about an event that failed: seconds, or what ends its attempts."""


def clone(core: Core, again: Callable[[Any], Any]) -> Core:
    """A copy that shares nothing with the first. `again` copies an event, the same one to the same copy."""
    twin = type(core).__new__(type(core))
    for slot in PLAIN:
        setattr(twin, slot, getattr(core, slot))
    for slot in CONTAINERS:
        setattr(twin, slot, getattr(core, slot).copy())
    twin.ready = copy(core.ready)
    twin.lanes = {key: behind if behind is None else copy(behind) for key, behind in core.lanes.items()}
    twin.aside = {key: behind if behind is None else copy(behind) for key, behind in core.aside.items()}
    twin.notes = {key: clone_note(note) for key, note in core.notes.items()}
    for place in (twin.retrying, twin.parked, twin.delayed):
        for key, held in place.items():
            place[key] = replace(held, event=again(held.event), note=clone_note(held.note))
    if isinstance(core, Coalescing) and isinstance(twin, Coalescing):
        twin.latest = {key: again(event) for key, event in core.latest.items()}
        twin.adders = OrderedDict((adder, (key, again(event), at)) for adder, (key, event, at) in core.adders.items())
        twin.ready = core.make_ready()
        for key, event in core.ready:
            twin.ready.append((key, again(event)))
        for behind in [*twin.lanes.values(), *twin.aside.values()]:
            for _ in range(len(behind or ())):
                assert behind is not None
                behind.append(again(behind.popleft()))
    return twin


class Copies:
    """Copies events: those in an envelope, in which another may take their place."""

    def __init__(self) -> None:
        self.made: dict[int, Envelope] = {}

    def __call__(self, event: Any) -> Any:
        if not isinstance(event, Envelope):
            return event
        return self.made.setdefault(id(event), Envelope(event.event))


def clone_note(note: Note[int]) -> Note[int]:
    """A copy that shares nothing with the first."""
    return replace(note, line=copy(note.line), marks=copy(note.marks), delays=copy(note.delays))


def waiters(core: Core) -> list[str]:
    """The keys of those who wait for room, in the pool or in a lane."""
    lines = [line.values() for line in core._lines()]
    return [key for key, *_ in itertools.chain(core.adders.values(), *lines)]


@dataclass(frozen=True)
class Mark:
    """The gate of a mark: it waits for the first events of a key, so many as there were."""

    key: str
    events: int


@dataclass(slots=True)
class World:
    """The core, and what its driver and its callers know."""

    core: Core
    to_add: int
    """Events that may still be added."""
    to_mark: int
    """Marks that may still be made."""
    holding: list[tuple[str, Any] | None]
    """What each worker holds; None for one that holds nothing."""
    added: dict[str, int]
    """How many events each key was given."""
    next_event: dict[str, int]
    """Which event of each key has to start next."""
    wakeups: int = 0
    """Wake-ups under way."""
    looking: set[int] = field(default_factory=set)
    """Workers that found nothing, and look whether they may leave before they sleep."""
    gone: set[int] = field(default_factory=set)
    ended: list[tuple[str, int]] = field(default_factory=list)
    """Events that were handled, or cancelled, or are dead."""
    parked: set[str] = field(default_factory=set)
    """Keys that were parked, and not let go since."""
    marks: set[Mark] = field(default_factory=set)
    """Those that have not been told."""
    now: float = 0.0
    dues: dict[tuple[str, int], float] = field(default_factory=dict)
    """When events may start that are not to start at any time."""
    unopened: set[int] = field(default_factory=set)
    """Workers that hold an event whose place a newer one may still take."""
    merges: dict[tuple[str, int], int] = field(default_factory=dict)
    """Which event took the place of which."""
    batches: dict[int, list[int]] = field(default_factory=dict)
    """What each worker handles together."""
    failed: dict[str, list[int]] = field(default_factory=dict)
    """What has failed together, and is to be handled together again."""
    batch: int = 1
    """How many events of a key are handled together."""
    path: tuple[str, ...] = ()
    """How it came to this."""

    def after(self, name: str) -> World:
        """A copy, one step further."""
        again = Copies()
        holding = [item and (item[0], again(item[1])) for item in self.holding]
        return World(
            clone(self.core, again), self.to_add, self.to_mark, holding, self.added.copy(), self.next_event.copy(),
            self.wakeups, self.looking.copy(), self.gone.copy(), self.ended.copy(), self.parked.copy(),
            self.marks.copy(), self.now, self.dues.copy(), self.unopened.copy(), self.merges.copy(),
            self.batches.copy(), self.failed.copy(), self.batch, (*self.path, name),
        )  # fmt: skip

    def canonical(self) -> tuple[Any, ...]:
        """What the future depends on: what each key is, whatever its name, and how many workers are what."""
        core = self.core
        keys = sorted(map(self._signature, self.added))
        return (
            tuple(keys), len(self.gone), len(self.looking), core.asleep, core.waking, self.wakeups, core.state,
            len(core.workers), core.failure is None, core.stopped, core.limit, self.to_add, self.to_mark,
        )  # fmt: skip

    def _signature(self, key: str) -> tuple[Any, ...]:
        core = self.core
        note, held = core.notes.get(key), core.retrying.get(key) or core.delayed.get(key)
        ticket = held.ticket if held else 0
        return (
            len(core.behind(key)),
            tuple(at for at, item in enumerate(core.ready) if item[0] == key),
            self.later(held.due) if held else -1,
            tuple(
                self.rank(key, event)
                for event in range(self.next_event[key], self.added[key])
                if (key, event) not in self.merges
            ),
            tuple(at for at, (waiter, *_) in enumerate(core.adders.values()) if waiter == key),
            key in core.parked,
            key in core.delayed,
            any(item is not None and item[0] == key for item in self.holding),
            any(self.holding[worker][0] == key for worker in self.unopened),  # type: ignore[index]
            tuple(len(batch) for worker, batch in self.batches.items() if self.holds(worker, key)),
            len(self.failed.get(key, ())),
            note is not None and note.parking,
            tuple((place - note.passed, self.later(due)) for place, due in note.delays or ()) if note else (),
            key in waiters(core),
            any(name == key and number != ticket for _, number, name in core.timers),
            tuple(sorted(self.ahead(mark) for mark in self.marks if mark.key == key)),
        )

    def holds(self, worker: int, key: str) -> bool:
        """Whether a worker holds an event of a key."""
        item = self.holding[worker]
        return item is not None and item[0] == key

    def waits(self, key: str) -> list[int]:
        """The events of a key that have to wait."""
        events = range(self.next_event[key], self.added[key])
        return [event for event in events if (key, event) not in self.ended]

    def stand_in(self, key: str, event: int) -> int:
        """What has the place of an event now: itself, or what took it."""
        while (key, event) in self.merges:
            event = self.merges[key, event]
        return event

    def times(self) -> list[float]:
        """When something is due: a timer, void or not, or the delay of an event, held or not."""
        ahead = [due for due in self.dues.values() if due > self.now]
        return sorted({*(due for due, *_ in self.core.timers), *ahead})

    def later(self, due: float) -> int:
        """How many times are before one, and whether it is one of them."""
        return sum(each < due for each in self.times()) + sum(each <= due for each in self.times())

    def rank(self, key: str, event: int) -> int:
        """Of an event with a delay that is not over: which of the times it is; else -1."""
        due = self.dues.get((key, event), 0.0)
        return self.times().index(due) if due > self.now else -1

    def ahead(self, mark: Mark) -> int:
        """How many of the events that there were when a mark was made have not ended, nor what took their places."""
        events = {self.stand_in(mark.key, event) for event in range(mark.events)}
        return len(events) - sum((mark.key, event) in self.ended for event in events)


@dataclass(frozen=True)
class Scope:
    """The bounds of an exploration."""

    keys: int
    events: int
    workers: int
    bound: int | None = None
    max_lane: int | None = None
    endings: bool = True
    policies: bool = False
    marks: int = 0
    cancels: bool = False
    """With one key only: an event is found by what it is, and each key has its own event 0."""
    delays: bool = False
    """Events may have one, which is over after all that are under way."""
    batch: int = 1
    """How many events of a key are handled together."""
    bursts: bool = False
    """A worker may go on with the key that it holds."""
    make: type[Core] = Dispatch


def explore(scope: Scope) -> tuple[int, int]:
    """Visit every state once; how many there are, and how many of them are endings.

    Raises:
        AssertionError: An invariant does not hold, or a path ends badly; with the steps that lead there.
    """
    is_heard = issubclass(scope.make, Coalescing) or scope.batch > 1 or scope.bursts
    core = scope.make(scope.bound, max_lane=scope.max_lane, heard=is_heard)
    core.news = deque()  # Heard in each scope, also where nobody asks for it and adds take their short way.
    core.start(scope.workers)
    zeros = dict.fromkeys("abc"[: scope.keys], 0)
    first = World(core, scope.events, scope.marks, [None] * scope.workers, zeros, zeros, batch=scope.batch)
    seen = {first.canonical()}
    waiting = deque([first])
    endings = 0
    while waiting:
        world = waiting.popleft()
        moved = False
        for name, step in steps(world, scope):
            after = world.after(name)
            try:
                step(after)
                # More wake-ups than workers tell nobody more; without them, nothing may be lost either.
                after.wakeups = min(after.wakeups, scope.workers)
                after.core.check_invariants()
                check_places(after)
                check_news(world, after)
            except (AssertionError, KeyError, IndexError) as error:
                raise AssertionError(f"{error!r} after {' '.join(after.path)}") from error
            moved = moved or not name.startswith(("add", "drain", "stop", "by-hand", "mark"))
            if (state := after.canonical()) not in seen:
                seen.add(state)
                waiting.append(after)
        if not moved:
            endings += 1
            check_rest(world)
    return len(seen), endings


def check_places(world: World) -> None:
    """What was accepted and has not ended waits in order, or is left; retries and marks are looked to in time."""
    core = world.core
    waiting = core.left if core.state is State.ENDED else core.unhandled()
    for key in world.added:
        found = [event for name, event in waiting if name == key]
        assert found == world.waits(key), f"of {key} wait {found}"
        note = core.noted(key)
        marks = {mark: world.ahead(mark) for mark in world.marks if mark.key == key}
        assert ((note.marks if note else None) or {}) == marks, f"the marks of {key} are miscounted"
    for held in [*core.retrying.values(), *core.delayed.values()]:
        assert core.alarm <= held.due, "a held key comes late"


def check_news(before: World, after: World) -> None:
    """What became of an event, or of a key, is told once, when it does."""
    if after.core.news is None:
        return
    told = [*after.core.news]
    after.core.news.clear()
    dead = sum(name == "dead" for name, *_ in told)
    assert dead == after.core.dead - before.core.dead, f"{dead} dead events are told"
    parked = sorted(key for name, key, *_ in told if name == "parked")
    assert parked == sorted(after.core.parked.keys() - before.core.parked.keys()), f"{parked} are told to be parked"
    merged = sorted(tuple(item) for name, *item in told if name == "merged")
    assert merged == sorted(after.merges.keys() - before.merges.keys()), f"{merged} are told to be merged"
    assert len(after.merges) == after.core.merged, "merged events are miscounted"


def check_rest(world: World) -> None:
    """Where no worker can move and no time is waited for, nothing may be left undone."""
    core, path = world.core, " ".join(world.path)
    assert not any(world.holding), f"a worker holds an event for ever after {path}"
    if core.state is State.ENDED:
        places = sorted([*world.ended, *core.left])
        events = [(key, event) for key, added in world.added.items() for event in range(added)]
        assert places == events, f"an event is in no place, or in two, after {path}"
        assert core.stopped or {key for key, _ in core.left} <= world.parked, f"a drain has left work after {path}"
    else:
        assert core.state is State.OPEN, f"the pool never ends after {path}"
        assert not core.lanes, f"events wait, and all workers sleep, after {path}"
        assert core.aside.keys() == core.parked.keys(), f"a key is held for ever after {path}"
        assert {mark.key for mark in world.marks} <= core.parked.keys(), f"a mark waits for nothing after {path}"
        assert not core.adders or core.waiting >= core.max_backlog, f"an adder waits for ever after {path}"


def steps(world: World, scope: Scope) -> Iterator[tuple[str, Callable[[World], None]]]:
    """What may happen next."""
    core = world.core
    inside = core.state is State.DRAINING and any(world.holding)
    if world.to_add and (core.state is State.OPEN or inside):
        for key in world.added:
            if key not in waiters(core):
                yield f"add-{key}{'-inside' * inside}", partial(add, key=key, inside=inside)
                if scope.delays:
                    yield f"add-late-{key}{'-inside' * inside}", partial(add, key=key, inside=inside, late=True)
    for worker, item in enumerate(world.holding):
        if worker in world.unopened:
            yield f"open-{worker}", partial(open_event, worker=worker)
        elif item is not None:
            yield f"end-{worker}", partial(end, worker=worker)
            if scope.bursts and core.may_go_on(item[0]):
                yield f"go-on-{worker}", partial(go_on, worker=worker)
            if scope.endings:
                yield f"fail-{worker}", partial(fail, worker=worker)
            if scope.policies:
                for name, decision in POLICIES.items():
                    for done in range(len(world.batches.get(worker, "1"))):
                        yield f"{name}-{worker}-{done}", partial(decide, worker=worker, decision=decision, done=done)
        elif worker in world.looking:
            yield f"look-{worker}", partial(look, worker=worker)
        elif worker not in world.gone and world.wakeups:
            yield f"wake-{worker}", partial(wake, worker=worker)
    if world.times():
        yield "due", due
    if scope.policies and core.serving:
        for key in world.added:
            for call in (park, resume, skip_head):
                yield f"by-hand-{call.__name__}-{key}", partial(by_hand, call=call, key=key)
    for key, added in world.added.items():
        if world.to_mark and Mark(key, added) not in world.marks:
            yield f"mark-{key}", partial(mark, key=key)
    if scope.cancels and core.serving:
        for key, event in core.unhandled():
            if (held := core.held_at(key)) is None or held.event != event:
                yield f"by-hand-cancel-{key}-{event}", partial(by_hand, call=partial(cancel, event=event), key=key)
    if scope.endings and core.state is State.OPEN:
        yield "drain", lambda after: close(after, after.core.drain())
    if scope.endings and core.state in (State.OPEN, State.DRAINING):
        yield "stop", lambda after: close(after, after.core.stop())


def add(world: World, key: str, inside: bool, late: bool = False) -> None:
    core, event = world.core, world.added[key]
    due = max([world.now, *world.times()]) + 1.0
    when = (world.now, due) if late else None
    if late:
        world.dues[key, event] = due
    item: Any = Envelope(event) if isinstance(core, Coalescing) else event
    answer = core.accept(key, item, when)
    if answer is None:
        answer = core.offer(key, item, f"adder-{key}", inside, when)
    world.to_add -= 1
    if answer is not None:
        accepted(world, key)  # One that waits counts as added when it is let in.
    world.wakeups += bool(answer)


def accepted(world: World, key: str) -> None:
    """Note that the next event of a key was accepted, and, where it does, that it takes the place of another."""
    event, core = world.added[key], world.core
    world.added[key] += 1
    if not isinstance(core, Coalescing):
        return
    [*waiting, _] = world.waits(key)
    unopened = [worker for worker in world.unopened if world.holds(worker, key)]
    if waiting:
        assert len(waiting) == 1, f"{len(waiting)} events of {key} wait"
        assert key not in core.retrying, f"the retry of {key} is pending, although a newer event came"
        assert (key in core.delayed) <= ((key, event) in world.dues), f"{key} waits for a delay that is over"
        busy = any(world.holds(worker, key) for worker in range(len(world.holding)))
        assert busy or core.explain(key).attempt == 1, f"event {event} of {key} pays for an older one"
    elif unopened and (key, event) not in world.dues:
        waiting = [world.next_event[key] - 1]
        world.next_event[key] = event + 1
    merge(world, key, waiting, event)


def merge(world: World, key: str, older: list[int], newer: int) -> None:
    for event in older:
        world.dues.pop((key, event), None)
        world.ended.append((key, event))
        world.merges[key, event] = newer


def follow_up(world: World) -> None:
    """Let adders in and send a wake-up, where the driver would."""
    core = world.core
    if core.admitted or (core.adders and core.has_room()):
        world.wakeups += core.admit()
        for gate in core.admitted:
            if isinstance(gate, Mark):
                assert world.ahead(gate) == 0, f"the mark of {gate.key} is told early"
                world.marks.remove(gate)
            else:
                accepted(world, str(gate)[-1])
        core.admitted.clear()
    world.wakeups += core.wake()


def chosen(world: World, worker: int, item: tuple[str, Any] | None) -> None:
    """Note what a worker was given, or park it where that is noted."""
    core = world.core
    if item is not None and core.is_to_park(item[0]):
        core.park_head(worker, item, 0.0)
        item = None
    elif item is not None and core.put_off(worker, item, world.now):
        item = None
    if item is None:
        world.looking.add(worker)
    else:
        key, event = item[0], opened(item[1])
        skip_cancelled(world, key)
        assert event == world.next_event[key], f"event {event} of {key} starts in place of {world.next_event[key]}"
        assert not any(held and held[0] == key for held in world.holding), f"{key} is claimed twice"
        assert key not in world.parked, f"{key} is parked, and starts"
        assert world.dues.pop((key, event), 0.0) <= world.now, f"event {event} of {key} starts before its delay is over"
        world.next_event[key] += 1
        world.holding[worker] = item
        if isinstance(core, Coalescing):
            world.unopened.add(worker)
    follow_up(world)
    if item is not None and world.batch > 1:
        begin_batch(world, worker, item)


def begin_batch(world: World, worker: int, item: tuple[str, int]) -> None:
    """Take what waits behind an event with it."""
    key, event = item
    batch = world.batches[worker] = world.core.batch(key, event, world.batch)
    together = world.failed.pop(key, None)
    assert batch == together or together is None, f"{together} of {key} failed together, and {batch} are tried again"
    assert batch == list(range(event, event + len(batch))), f"{batch} of {key} do not follow one another"
    assert all(world.rank(key, each) < 0 for each in batch), f"one of {batch} of {key} starts before its delay is over"
    full = len(batch) == world.batch or event + len(batch) == world.added[key]
    assert full or together or world.core.noted(key), f"{batch} of {key} could have been more"


def open_event(world: World, worker: int) -> None:
    world.unopened.remove(worker)
    item, core = world.holding[worker], world.core
    assert item is not None
    assert isinstance(core, Coalescing)
    core.open(*item)
    assert opened(item[1]) == world.next_event[item[0]] - 1, "an older event starts in place of a newer one"


class InHand:
    """What a worker holds, as `go_on` wants it."""

    def __init__(self, item: tuple[str, int]) -> None:
        self.item, self.ended = item, True


def skip_cancelled(world: World, key: str) -> None:
    """Pass over what will not start any more."""
    while (key, world.next_event[key]) in world.ended:
        world.next_event[key] += 1


def let_go(world: World, worker: int, done: int = 0) -> tuple[str, Any]:
    """Take from a worker what it holds, after it has done the first of its batch."""
    item, world.holding[worker] = world.holding[worker], None
    assert item is not None
    hand = InHand(item)
    for _ in range(done):
        world.ended.append(world.core.go_on(worker, hand, ended=False))
        world.next_event[item[0]] += 1
    return hand.item


def wake(world: World, worker: int) -> None:
    world.wakeups -= 1
    chosen(world, worker, world.core.take(worker))


def look(world: World, worker: int) -> None:
    world.looking.remove(worker)
    if world.core.state is not State.OPEN and world.core.settle():
        leave(world, worker)


def end(world: World, worker: int) -> None:
    pass_on(world, worker, let_go(world, worker, len(world.batches.pop(worker, "1")) - 1))


def pass_on(world: World, worker: int, item: tuple[str, Any]) -> None:
    world.ended.append((item[0], opened(item[1])))
    found = world.core.next(worker, item[0])
    world.core.heed(item[0])
    chosen(world, worker, found)


def go_on(world: World, worker: int) -> None:
    """End an event, and go on with the next of its key at once."""
    size = len(world.batches.pop(worker, "1"))
    item = let_go(world, worker, size - 1)
    follow_up(world)
    if not world.core.may_go_on(item[0]):
        pass_on(world, worker, item)  # A batch was all that there was: the worker ends it as any other.
        return
    hand = InHand(item)
    world.core.go_on(worker, hand, ended=False)
    world.ended.append((item[0], opened(item[1])))
    chosen(world, worker, hand.item)


def decide(world: World, worker: int, decision: Any, done: int) -> None:
    """Let a handler raise, and do what the policy says: of those that are retried, the last is due last."""
    core, item = world.core, let_go(world, worker, done)
    key, event = item[0], opened(item[1])
    rest = world.batches.pop(worker, [event])[done:]
    if world.batch > 1:
        core.note(key).batch = len(rest)
    core.failed(worker, item, decision, "no", now=max([world.now, *world.times()]))
    if key in core.parked:
        world.parked.add(key)
    if core.serving and isinstance(decision, Skip):
        world.ended += [(key, each) for each in rest]
        world.next_event[key] += len(rest) - 1
    elif isinstance(core, Coalescing) and (newer := world.waits(key)):
        assert key not in core.retrying, f"{event} of {key} is retried, although a newer one waits"
        merge(world, key, [event], *newer)
        if isinstance(decision, Park):
            world.parked.add(key)
    else:
        world.next_event[key] = event
        if world.batch > 1:
            world.failed[key] = rest
    world.looking.add(worker)
    follow_up(world)


def fail(world: World, worker: int) -> None:
    item = let_go(world, worker)
    world.batches.pop(worker, None)
    world.next_event[item[0]] = opened(item[1])
    close(world, world.core.fail(worker, item, ValueError()))
    leave(world, worker)


def due(world: World) -> None:
    """Let time pass until the next time that something is due."""
    world.now = max(world.now, world.times()[0])
    world.wakeups += world.core.release(world.now)


def by_hand(world: World, call: Callable[[World, str], None], key: str) -> None:
    call(world, key)
    follow_up(world)
    world.wakeups += world.core.state is not State.OPEN and not world.core.in_flight


def park(world: World, key: str) -> None:
    if held := world.core.delayed.get(key):
        world.dues.pop((key, opened(held.event)), None)  # It is over.
    world.core.park(key, 0.0)
    world.parked.add(key)


def resume(world: World, key: str) -> None:
    if held := world.core.delayed.get(key):
        world.dues.pop((key, opened(held.event)), None)  # It is over.
    world.core.resume(key)
    world.parked.discard(key)


def skip_head(world: World, key: str) -> None:
    if dead := world.core.skip_head(key, 0.0):
        skip_cancelled(world, key)
        assert dead.event == world.next_event[key], "another event than the head is skipped"
        world.next_event[key] += 1
        world.dues.pop((key, dead.event), None)
        world.ended.append((key, dead.event))
        world.failed.pop(key, None)
        world.parked.discard(key)


def cancel(world: World, key: str, event: int) -> None:
    assert world.core.cancel(key, event), "an event that waits is not found"
    world.core.rubbish.clear()
    world.dues.pop((key, event), None)
    world.ended.append((key, event))


def mark(world: World, key: str) -> None:
    gate = Mark(key, world.added[key])
    waits = world.ahead(gate) > 0 and world.core.state is not State.ENDED
    assert world.core.mark(key, gate) == waits, "a mark is made for nothing, or is not made"
    if waits:
        world.to_mark -= 1
        world.marks.add(gate)


def close(world: World, adders: list[object]) -> None:
    for adder in adders:
        key = str(adder)[-1]
        assert world.core.withdraw(adder, key), "an adder that is refused was let in"
        world.dues.pop((key, world.added[key]), None)
    world.wakeups += 1


def leave(world: World, worker: int) -> None:
    if world.core.leave(worker):
        world.core.end()
        world.marks.clear()
    world.gone.add(worker)
    world.wakeups += 1


@pytest.mark.parametrize(
    "scope",
    [
        Scope(keys=3, events=7, workers=3, endings=False),
        Scope(keys=3, events=5, workers=3),
        Scope(keys=3, events=6, workers=2, bound=1),
        Scope(keys=3, events=6, workers=2, bound=2),
        Scope(keys=3, events=6, workers=3, bound=3),
        Scope(keys=2, events=3, workers=2, policies=True),
        Scope(keys=2, events=3, workers=2, policies=True, bound=1),
        Scope(keys=2, events=4, workers=1, policies=True, bound=2, max_lane=1),
        Scope(keys=2, events=3, workers=1, policies=True, marks=1),
        Scope(keys=1, events=4, workers=2, policies=True, max_lane=1, marks=2, cancels=True),
        Scope(keys=2, events=3, workers=2, delays=True),
        Scope(keys=2, events=2, workers=1, bound=1, policies=True, delays=True),
        Scope(keys=1, events=3, workers=1, policies=True, max_lane=1, marks=1, cancels=True, delays=True),
        Scope(keys=2, events=4, workers=2, make=Coalescing),
        Scope(keys=2, events=4, workers=1, bound=1, make=Coalescing),
        Scope(keys=2, events=3, workers=1, policies=True, make=Coalescing),
        Scope(keys=1, events=4, workers=1, policies=True, marks=1, make=Coalescing),
        Scope(keys=1, events=4, workers=1, policies=True, marks=1, delays=True, make=Coalescing),
        Scope(keys=2, events=3, workers=1, delays=True, make=Coalescing),
        Scope(keys=1, events=5, workers=1, policies=True, batch=3),
        Scope(keys=2, events=3, workers=1, bound=2, policies=True, batch=2),
        Scope(keys=1, events=4, workers=1, max_lane=2, policies=True, marks=1, batch=2),
        Scope(keys=1, events=4, workers=1, max_lane=1, policies=True, batch=2),
        Scope(keys=1, events=3, workers=1, policies=True, delays=True, batch=2),
        Scope(keys=2, events=3, workers=1, policies=True, bursts=True),
        Scope(keys=1, events=3, workers=1, policies=True, delays=True, marks=1, max_lane=1, bursts=True),
        Scope(keys=1, events=4, workers=1, bound=2, policies=True, bursts=True, batch=2),
        Scope(keys=1, events=3, workers=2, policies=True, delays=True, bursts=True, make=Coalescing),
        Scope(keys=2, events=3, workers=1, bound=1, policies=True, make=Coalescing),
        Scope(keys=1, events=4, workers=1, bound=1, max_lane=1, policies=True, bursts=True, make=Coalescing),
        Scope(keys=1, events=3, workers=1, policies=True, delays=True, marks=1, bursts=True, batch=2),
    ],
    ids=lambda scope: (
        f"{scope.keys} keys, {scope.events} events, {scope.workers} workers, bound {scope.bound}"
        f"{', policies' * scope.policies}{f', max_lane {scope.max_lane}' if scope.max_lane else ''}"
        f"{f', {scope.marks} marks' if scope.marks else ''}{', cancels' * scope.cancels}{', delays' * scope.delays}"
        f"{f', batches of {scope.batch}' if scope.batch > 1 else ''}{', coalescing' * (scope.make is Coalescing)}"
        f"{', bursts' * scope.bursts}"
    ),
)
def test_every_state_keeps_the_invariants_and_every_path_ends_well(scope: Scope) -> None:
    states, endings = explore(scope)
    print(f"{states:,} states, {endings:,} of them at rest")
    assert states > 100
    assert endings > 1


class LostWakeUp(Core):
    def wake(self) -> bool:
        super().wake()
        return False


class WakeUpNotPassedOn(Core):
    def take(self, worker: int) -> tuple[str, int] | None:
        item = super().take(worker)
        self.waking = True
        return item


class LaneKept(Core):
    def next(self, worker: int, key: str) -> tuple[str, int] | None:
        behind = self.lanes[key]
        item = super().next(worker, key)
        if not behind:
            self.lanes[key] = None
        return item


class DoubleClaim(Core):
    def submit(self, key: str, event: int, force: bool = False) -> bool | None:
        if key in self.lanes and key in self.holds:
            self.ready.append((key, event))
            self.added += 1
            self.waiting += 1
            return self.wake()
        return super().submit(key, event, force)


class DroppedByStop(Core):
    def unhandled(self) -> list[tuple[str, int]]:
        return [(key, event) for key, event in super().unhandled() if not self.behind(key)]


class FailedEventToTheEnd(Core):
    def give_back(self, worker: int, item: tuple[str, int]) -> None:
        behind = self.lanes[item[0]]
        if behind:
            behind.append(item[1])
            item = (item[0], behind.popleft())
        super().give_back(worker, item)


class AdderForgotten(Core):
    def admit(self) -> bool:
        return False


class LostRetry(Core):
    def _let_go(self, held: Held[str, int]) -> None:
        super()._let_go(held)
        if held.why == "retrying":
            del self.ready[-1]


class RetriedInPlaceOfALaterOne(Core):
    def release(self, now: float) -> bool:
        for key, held in list(self.retrying.items()):
            if behind := self.aside[key]:
                behind.append(held.event)
                self.retrying[key] = replace(held, event=behind.popleft())
        return super().release(now)


class LostWakeUpAtRelease(Core):
    def release(self, now: float) -> bool:
        super().release(now)
        return False


class VoidTimerReleases(Core):
    def release(self, now: float) -> bool:
        self.retrying = {key: replace(held, ticket=held.ticket) for key, held in self.retrying.items()}
        for _, ticket, key in self.timers:
            if key in self.parked:
                self.parked[key] = replace(self.parked[key], ticket=ticket)
                self.retrying[key] = self.parked.pop(key)
        return super().release(now)


class ParkedDroppedByStop(Core):
    def unhandled(self) -> list[tuple[str, int]]:
        return [item for item in super().unhandled() if item[0] not in self.parked]


class ParkForgotten(Core):
    def is_to_park(self, key: str) -> bool:
        return False


class AlarmNotSet(Core):
    def retry(self, worker: int, item: tuple[str, int], now: float, due: float) -> bool:
        before = self.alarm
        super().retry(worker, item, now, due)
        self.alarm = before
        return False


class DrainWaitsForParked(Core):
    def settle(self) -> bool:
        return super().settle() and not (self.state is State.DRAINING and self.parked)


class DrainForgetsRetries(Core):
    def settle(self) -> bool:
        if self.state is State.DRAINING and not (self.ready or self.in_flight):
            self.serving = False
        return not self.serving


class SkippedTwice(Core):
    def skip_head(self, key: str, now: float) -> Any:
        dead = super().skip_head(key, now)
        if dead and (behind := self.behind(key)):
            behind.popleft()
            self.waiting -= 1
            self.added -= 1
        return dead


class MarkForgottenWhereItsKeyIsHeld(Core):
    def _hold(self, worker: int, where: dict[str, Held[str, int]], held: Held[str, int]) -> None:
        held.note.marks = None
        super()._hold(worker, where, held)


class MarkCountsARetry(Core):
    def fail_once(self, key: str, error: str, now: float) -> None:
        super().fail_once(key, error, now)
        note = self.notes[key]
        note.marks = note.without(0)[0]


class MarkToldBeforeTheLast(Core):
    def _act_on(self, key: str, note: Note[int], place: int = 0) -> None:
        if note.marks:
            note.marks = {gate: ahead - (ahead == 1) for gate, ahead in note.marks.items()}
        super()._act_on(key, note, place)


class MarkNotToldByASkip(Core):
    def skip_head(self, key: str, now: float) -> Any:
        told = self.admitted.copy()
        dead = super().skip_head(key, now)
        self.admitted = told
        return dead


class DelayForgotten(Core):
    def put_off(self, worker: int, item: tuple[str, int], now: float) -> bool:
        return False


class DelayOfAnIdleKeyForgotten(Core):
    def submit_late(self, key: str, event: int, now: float, due: float, force: bool = False) -> bool | None:
        return self.submit(key, event, force)


class DelayedPassed(Core):
    def put_off(self, worker: int, item: tuple[str, int], now: float) -> bool:
        put_off = super().put_off(worker, item, now)
        if put_off and (behind := self.aside[item[0]]):
            self.delayed[item[0]] = replace(self.delayed[item[0]], event=behind.popleft())
            behind.append(item[1])
        return put_off


class DelaysStayWhereTheyWere(Core):
    def _act_on(self, key: str, note: Note[int], place: int = 0) -> None:
        note.passed = 0
        super()._act_on(key, note, place)


class DelayNotInTheAlarm(Core):
    def _is_earlier(self, due: float) -> bool:
        return False


class DrainForgetsDelays(Core):
    def settle(self) -> bool:
        if self.state is State.DRAINING and not (self.ready or self.in_flight or self.retrying):
            self.serving = False
        return not self.serving


DELAYS = [
    DelayForgotten, DelayOfAnIdleKeyForgotten, DelayedPassed, DelaysStayWhereTheyWere, DelayNotInTheAlarm,
    DrainForgetsDelays,
]  # fmt: skip


@pytest.mark.parametrize("make", DELAYS)
def test_a_planted_bug_of_delays_is_found(make: type[Core]) -> None:
    with pytest.raises(AssertionError, match=r"after .*add"):
        explore(Scope(keys=1, events=3, workers=1, delays=True, make=make))


@pytest.mark.parametrize(
    "make",
    [
        LostWakeUp,
        WakeUpNotPassedOn,
        LaneKept,
        DoubleClaim,
        DroppedByStop,
        FailedEventToTheEnd,
        AdderForgotten,
        LostRetry,
        RetriedInPlaceOfALaterOne,
        LostWakeUpAtRelease,
        VoidTimerReleases,
        ParkedDroppedByStop,
        ParkForgotten,
        AlarmNotSet,
        DrainWaitsForParked,
        DrainForgetsRetries,
        SkippedTwice,
        MarkForgottenWhereItsKeyIsHeld,
        MarkCountsARetry,
        MarkToldBeforeTheLast,
        MarkNotToldByASkip,
    ],
)
def test_a_planted_bug_is_found(make: type[Core]) -> None:
    """The smallest scope that has them all, but for one that needs a second key and a second worker."""
    scope = Scope(keys=1, events=3, workers=1, bound=1, policies=True, marks=1, make=make)
    if make is VoidTimerReleases:
        scope = replace(scope, keys=2, events=2, workers=2, marks=0)
    with pytest.raises(AssertionError, match=r"after .*add"):
        explore(scope)
