"""Every state of the dispatch at small bounds, with every order of steps that a driver can make.

A driver is modelled as the thread driver is: workers that sleep until a wake-up comes, and a number of wake-ups under
way, of which each wakes any one sleeper. A state is canonical up to the names of keys and workers, and events are
numbered within their key, so that the order is checked at each choice.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Iterator
from copy import copy
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from workpool.dispatch import Dispatch, State
from workpool.lanes import Lanes

Core = Dispatch[str, int]
SLOTS = (*Lanes.__slots__, *Dispatch.__slots__)


def clone(core: Core) -> Core:
    """A copy that shares nothing with the first."""
    twin = type(core).__new__(type(core))
    for slot in SLOTS:
        value = getattr(core, slot)
        setattr(twin, slot, copy(value) if isinstance(value, list | dict | deque | set) else value)
    twin.lanes = {key: copy(behind) for key, behind in core.lanes.items()}
    return twin


@dataclass(frozen=True)
class World:
    """The core, and what its driver and its callers know."""

    core: Core
    to_add: int
    """Events that may still be added."""
    wakeups: int = 0
    """Wake-ups under way."""
    holding: tuple[tuple[str, int] | None, ...] = ()
    """What each worker holds; None for one that sleeps."""
    gone: frozenset[int] = frozenset()
    added: tuple[int, ...] = ()
    """How many events each key was given."""
    next_event: tuple[int, ...] = ()
    """Which event of each key has to start next."""
    ended: int = 0
    """Events that were handled."""
    path: tuple[str, ...] = field(default=(), compare=False)
    """How it came to this."""

    def canonical(self) -> tuple[Any, ...]:
        """What the future depends on, with keys named by their places and workers by what they hold."""
        core = self.core
        names = {key: str(at) for at, key in enumerate(dict.fromkeys([key for key, _ in core.ready]))}
        busy = sorted((item[0] for item in self.holding if item), key=lambda key: len(core.lanes.get(key) or ()))
        names.update({key: f"busy{at}" for at, key in enumerate(busy)})
        return (
            tuple((names[key], len(core.lanes[key] or ())) for key, _ in core.ready),
            tuple((names[key], len(core.lanes.get(key) or ())) for key in busy),
            len(self.gone), core.asleep, core.waking, self.wakeups, core.state, len(core.workers), core.failure is None,
            core.limit, tuple(names.get(key, "idle") for key, _ in core.adders.values()), self.to_add,
        )  # fmt: skip


@dataclass(frozen=True)
class Scope:
    """The bounds of an exploration."""

    keys: int
    events: int
    workers: int
    bound: int | None = None
    endings: bool = True
    make: type[Core] = Dispatch


def explore(scope: Scope) -> tuple[int, int]:
    """Visit every state once; how many there are, and how many of them are endings.

    Raises:
        AssertionError: An invariant does not hold, or a path ends badly; with the steps that lead there.
    """
    core = scope.make(scope.bound)
    core.start(scope.workers)
    zeros = (0,) * scope.keys
    first = World(core, scope.events, holding=(None,) * scope.workers, added=zeros, next_event=zeros)
    seen = {first.canonical()}
    waiting = deque([first])
    endings = 0
    while waiting:
        world = waiting.popleft()
        moved = False
        for name, step in steps(world, scope):
            after = replace(world, core=clone(world.core), path=(*world.path, name))
            try:
                after = step(after)
                after.core.check_invariants()
            except (AssertionError, KeyError, IndexError) as error:
                raise AssertionError(f"{error!r} after {' '.join(after.path)}") from error
            moved = moved or not name.startswith(("add", "drain", "stop"))
            if (state := after.canonical()) not in seen:
                seen.add(state)
                waiting.append(after)
        if not moved:
            endings += 1
            check_rest(world)
    return len(seen), endings


def check_rest(world: World) -> None:
    """Where no worker can move, nothing may be left undone."""
    core, path = world.core, " ".join(world.path)
    assert not any(world.holding), f"a worker holds an event for ever after {path}"
    if core.state is State.ENDED:
        assert world.ended + len(core.left) == sum(world.added), f"an event is in no place, or in two, after {path}"
        expected = [
            (key, number)
            for at, key in enumerate(names_of(len(world.added)))
            for number in range(world.next_event[at], world.added[at])
        ]
        assert sorted(core.left) == expected, f"not all is returned, or not in order, after {path}"
        for key, group in itertools.groupby(core.left, key=lambda item: item[0]):
            numbers = [number for _, number in group]
            assert numbers == sorted(numbers), f"the events of {key} are returned out of order after {path}"
    else:
        assert core.state is State.OPEN, f"the pool never ends after {path}"
        assert not core.waiting, f"events wait, and all workers sleep, after {path}"
        assert not core.adders, f"an adder waits for ever after {path}"


def names_of(keys: int) -> str:
    return "abc"[:keys]


def steps(world: World, scope: Scope) -> Iterator[tuple[str, Callable[[World], World]]]:
    """What may happen next."""
    core = world.core
    if world.to_add and core.state is State.OPEN:
        for at, key in enumerate(names_of(scope.keys)):
            if not any(waiter == key for waiter, _ in core.adders.values()):
                yield f"add-{key}", lambda after, at=at, key=key: add(after, at, key, inside=False)  # type: ignore[misc]
    if world.to_add and core.state is State.DRAINING and any(world.holding):
        for at, key in enumerate(names_of(scope.keys)):
            yield f"add-{key}-inside", lambda after, at=at, key=key: add(after, at, key, inside=True)  # type: ignore[misc]
    for worker, item in enumerate(world.holding):
        if item is not None:
            yield f"end-{worker}", lambda after, worker=worker: end(after, worker)  # type: ignore[misc]
            if scope.endings:
                yield f"fail-{worker}", lambda after, worker=worker: fail(after, worker)  # type: ignore[misc]
        elif worker not in world.gone:
            if world.wakeups:
                yield f"wake-{worker}", lambda after, worker=worker: wake(after, worker)  # type: ignore[misc]
            if core.finished:
                yield f"leave-{worker}", lambda after, worker=worker: leave(after, worker)  # type: ignore[misc]
    if scope.endings and core.state is State.OPEN:
        yield "drain", lambda after: close(after, after.core.drain())
    if scope.endings and core.state in (State.OPEN, State.DRAINING):
        yield "stop", lambda after: close(after, after.core.stop())


def bump(counts: tuple[int, ...], at: int) -> tuple[int, ...]:
    return (*counts[:at], counts[at] + 1, *counts[at + 1 :])


def add(world: World, at: int, key: str, inside: bool) -> World:
    core, event = world.core, world.added[at]
    answer = core.submit(key, event)
    if answer is None:
        answer = core.offer(key, event, f"adder-{key}", inside)
    if answer is None:
        return replace(world, to_add=world.to_add - 1)  # It waits; it counts as added when it is let in.
    return replace(world, to_add=world.to_add - 1, added=bump(world.added, at), wakeups=world.wakeups + bool(answer))


def chosen(world: World, worker: int, item: tuple[str, int] | None) -> World:
    """Note what a worker was given, and let adders in where the driver would."""
    core, next_event = world.core, world.next_event
    if item is not None:
        at = names_of(len(world.added)).index(item[0])
        assert item[1] == next_event[at], f"event {item[1]} of {item[0]} starts in place of {next_event[at]}"
        assert not any(held and held[0] == item[0] for held in world.holding), f"{item[0]} is claimed twice"
        next_event = bump(next_event, at)
    wakeups, added = world.wakeups, world.added
    if core.adders and core.has_room():
        wakeups += core.admit()
        for adder in core.admitted:
            added = bump(added, names_of(len(added)).index(str(adder)[-1]))
        core.admitted.clear()
    holding = tuple(item if number == worker else held for number, held in enumerate(world.holding))
    return replace(world, holding=holding, next_event=next_event, wakeups=wakeups, added=added)


def wake(world: World, worker: int) -> World:
    world = replace(world, wakeups=world.wakeups - 1)
    item = world.core.take(worker)
    world = replace(world, wakeups=world.wakeups + world.core.wake())
    return chosen(world, worker, item)


def end(world: World, worker: int) -> World:
    item = world.holding[worker]
    assert item is not None
    holding = tuple(None if number == worker else held for number, held in enumerate(world.holding))
    world = replace(world, holding=holding, ended=world.ended + 1)
    return chosen(world, worker, world.core.next(worker, item[0]))


def fail(world: World, worker: int) -> World:
    item = world.holding[worker]
    assert item is not None
    at = names_of(len(world.added)).index(item[0])
    world = close(world, world.core.fail(worker, item, ValueError()))
    holding = tuple(None if number == worker else held for number, held in enumerate(world.holding))
    back = (*world.next_event[:at], world.next_event[at] - 1, *world.next_event[at + 1 :])
    return leave(replace(world, holding=holding, next_event=back), worker)


def close(world: World, adders: list[object]) -> World:
    for adder in adders:
        assert world.core.withdraw(adder), "an adder that is refused was let in"
    return replace(world, wakeups=world.wakeups + 1)


def leave(world: World, worker: int) -> World:
    if world.core.leave(worker):
        world.core.end()
    return replace(world, gone=world.gone | {worker})


@pytest.mark.parametrize(
    "scope",
    [
        Scope(keys=3, events=7, workers=3, endings=False),
        Scope(keys=3, events=5, workers=3),
        Scope(keys=3, events=6, workers=2, bound=1),
        Scope(keys=3, events=6, workers=2, bound=2),
        Scope(keys=3, events=6, workers=3, bound=3),
    ],
    ids=lambda scope: f"{scope.keys} keys, {scope.events} events, {scope.workers} workers, bound {scope.bound}",
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
        return [(key, event) for key, event in super().unhandled() if key not in self.lanes or not self.lanes[key]]


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


@pytest.mark.parametrize(
    "make",
    [LostWakeUp, WakeUpNotPassedOn, LaneKept, DoubleClaim, DroppedByStop, FailedEventToTheEnd, AdderForgotten],
)
def test_a_planted_bug_is_found(make: type[Core]) -> None:
    with pytest.raises(AssertionError, match="after add"):
        explore(Scope(keys=2, events=4, workers=2, bound=2, make=make))
