"""The same calls on both, one after the other: each answer, each error and the whole state are the same.

`WORKPOOL_TWIN_STEPS` sets how many steps are made; a million take some minutes. A failure prints its seed.
"""

from __future__ import annotations

import os
import random
from collections import deque
from collections.abc import Iterable
from copy import copy
from types import ModuleType
from typing import Any

import pytest

from workpool import dispatch, policy
from workpool.lanes import NOTHING, Lanes
from workpool.twin import Lanes as Twin
from workpool.twin import _twin

STEPS = int(os.environ.get("WORKPOOL_TWIN_STEPS", "20000"))
RUN = 250
"""Steps with one core, which may have ended before."""
SEEDS = range(max(1, STEPS // RUN // 2))


class Key:
    """A key whose methods raise when they are told to, and whose equals are other objects."""

    broken = ""

    def __init__(self, number: int) -> None:
        self.number = number

    def __hash__(self) -> int:
        if Key.broken == "hash":
            raise OSError("no hash")
        return self.number

    def __eq__(self, other: object) -> bool:
        if Key.broken == "eq":
            raise OSError("no comparison")
        return isinstance(other, Key) and self.number == other.number

    def __repr__(self) -> str:
        return f"key {self.number}"


def plain(value: Any) -> Any:
    """What two cores have in common: containers as lists, errors and records as text."""
    if isinstance(value, dict):
        return [(plain(key), plain(each)) for key, each in value.items()]
    if isinstance(value, list | tuple | deque | _twin.Ring):
        return [plain(each) for each in value]
    if isinstance(value, set):
        return sorted(value)
    if value is NOTHING or type(value) is object:
        return "nothing"
    if isinstance(value, bool | int | float | str | Key | None):
        return value
    return repr(value)


def slots(kind: type) -> list[str]:
    names = [name for each in kind.__mro__ for name in getattr(each, "__slots__", ())]
    return [name for name in [*names, *Lanes.__slots__] if name != "_tickets" and not name.startswith("__")]


def answer(core: Any, call: str, arguments: Iterable[Any]) -> Any:
    """What a call returns or raises."""
    try:
        return plain(getattr(core, call)(*arguments))
    except Exception as error:
        return type(error).__name__, str(error)


class Pair:
    """A twin and a reference that are called alike."""

    def __init__(self, twin: Any, reference: Any) -> None:
        self.cores = (twin, reference)
        self.names = sorted({*slots(type(twin)), *slots(type(reference))})
        self.path: list[str] = []

    def call(self, name: str, *arguments: Any, others: tuple[Any, ...] | None = None) -> Any:
        """Make one call on both; arguments that are of one package have a counterpart in `others`."""
        self.path.append(f"{name}{arguments}")
        twin, reference = self.cores
        broken = Key.broken
        first = answer(twin, name, arguments)
        Key.broken = broken
        second = answer(reference, name, arguments if others is None else others)
        assert first == second, self.path[-20:]
        Key.broken = ""
        return first

    def look(self) -> None:
        """Compare all that can be seen."""
        twin, reference = self.cores
        for name in self.names:
            assert plain(getattr(twin, name)) == plain(getattr(reference, name)), (name, self.path[-20:])


@pytest.mark.parametrize("seed", SEEDS)
def test_lanes(seed: int) -> None:
    print(f"seed {seed}")
    dice = random.Random(seed)
    limit = dice.choice([1, 3, 8, 10**6])
    pair = Pair(Twin(limit), Lanes(limit))
    workers = dice.randint(1, 4)
    pair.call("start", workers)
    held: dict[int, Any] = {}
    many = dice.choice([3, 6, 600])
    for event in range(RUN):
        key, worker = Key(dice.randrange(many)), dice.randrange(workers)
        Key.broken = dice.choice(["hash", "eq"]) if dice.random() < 0.05 else ""
        match dice.choice(["submit"] * (2 + (event < RUN // 2)) + ["end"] * 3 + ["rare", "wake"]):
            case "submit":
                pair.call("submit", key, event, *([True] if dice.random() < 0.2 else []))
            case "end" if worker in held:
                key = held[worker]
                found = pair.call("next", worker, key)
                if not isinstance(found, tuple):  # An error leaves it where it is.
                    held[worker] = found[0] if found else None
                    if not found:
                        del held[worker]
            case "end":
                Key.broken = ""
                if found := pair.call("take", worker):
                    held[worker] = found[0]
            case "wake":
                pair.call("wake")
            case "rare":
                Key.broken = ""
                match dice.randrange(4):
                    case 0:
                        for core in pair.cores:
                            core.serving = event % 2 == 0
                    case 1:
                        for core in pair.cores:
                            core.limit = limit if event % 3 else 0
                    case 2:
                        pair.call("next", worker, Key(10**6))
                        pair.call("next", worker, (1, 2))
                    case _:
                        pair.call("unhandled")
        Key.broken = ""
        pair.look()


@pytest.mark.parametrize("seed", SEEDS)
def test_dispatch(seed: int, pure: dict[str, ModuleType]) -> None:
    print(f"seed {seed}")
    dice = random.Random(seed)
    bound = dice.choice([None, 1, 2, 5, 9, 10**30])
    rest: dict[str, Any] = {"max_lane": dice.choice([None, None, 1, 2]), "max_dead": dice.choice([0, 2, None])}
    twin: Any = dispatch.Dispatch(bound, **rest)
    reference = pure["dispatch"].Dispatch(bound, **rest)
    assert isinstance(twin, _twin.Lanes)
    assert not isinstance(reference, _twin.Lanes)
    pair = Pair(twin, reference)
    workers = dice.randint(1, 4)
    pair.call("start", workers)
    held: dict[int, list[Any]] = {}
    now = 0.0
    adders = 0
    ends_at = dice.choice([RUN // 2, RUN, 3 * RUN])
    for event in range(RUN):
        key = Key(dice.randrange(5))
        worker = dice.randrange(workers)
        now += dice.choice([0.0, 1.0])
        Key.broken = dice.choice(["hash", "eq"]) if dice.random() < 0.02 else ""
        match dice.choice(["add"] * 4 + ["go"] * 6 + ["fail"] * 2 + ["hand", "hand", "time", "adder", "end"]):
            case "add":
                if pair.call("submit", key, event) is None:
                    pair.call("offer", key, event, dice.choice([None, event]), dice.random() < 0.2)
                    adders += 1
            case "go" if worker in held:
                item = held.pop(worker)
                found = pair.call("next", worker, item[0])
                if isinstance(found, tuple):
                    held[worker] = item
                elif found:
                    held[worker] = found
                pair.call("heed", item[0])
            case "go":
                Key.broken = ""
                if found := pair.call("take", worker):
                    held[worker] = found
            case "fail" if worker in held:
                Key.broken = ""
                item = held.pop(worker)
                name = dice.choice(["Skip", "Park", 0.0, 2.0])
                ours, theirs = (
                    (getattr(policy, name)(), getattr(pure["policy"], name)())
                    if isinstance(name, str)
                    else (name, name)
                )
                pair.call(
                    "failed", worker, tuple(item), ours, "no", now, others=(worker, tuple(item), theirs, "no", now)
                )
            case "hand":
                Key.broken = ""
                match dice.randrange(9):
                    case 0:
                        pair.call("park", key, now)
                    case 1:
                        pair.call("resume", key)
                    case 2:
                        pair.call("skip_head", key, now)
                    case 3 if twin.buried:
                        dead = tuple(next(iter(core.buried)) for core in pair.cores)
                        pair.call("replay", dead[0], others=dead[1:])
                    case 4 if event:
                        pair.call("cancel", key, dice.randrange(event))
                    case 5:
                        pair.call("explain", key)
                    case 6:
                        pair.call("mark", key, f"mark {event}")
                    case 7 if event:
                        pair.call("unmark", key, f"mark {dice.randrange(event)}")
                    case _:
                        pair.call("stats")
            case "time":
                Key.broken = ""
                pair.call("release", now)
                pair.call("watch", now, 1.0)
            case "adder" if twin.adders:
                Key.broken = ""
                adder = dice.choice(list(twin.adders))
                pair.call("withdraw", adder, twin.adders[adder][0])
            case "end" if event > ends_at and dice.random() < 0.2:
                Key.broken = ""
                pair.call(dice.choice(["drain", "stop", "settle"]))
        Key.broken = ""
        if twin.admitted or (twin.adders and twin.has_room()):
            pair.call("admit")
            for core in pair.cores:
                core.admitted.clear()
        pair.call("wake")
        pair.look()
        pair.call("check_invariants")
    pair.call("stop")
    for worker, item in held.items():
        pair.call("give_back", worker, tuple(item))
    pair.call("end")
    pair.look()
    assert len(twin.left) == twin.returned


@pytest.mark.parametrize("width", [1, 2])
@pytest.mark.parametrize("seed", range(max(1, STEPS // 2000)))
def test_rings(seed: int, width: int) -> None:
    """Against `deque`, which the reference has: growing, shrinking, going round the end."""
    print(f"seed {seed}")
    dice = random.Random(seed)
    ring, model = _twin.Ring(width), deque[Any]()
    empty = ring.__sizeof__()
    weights = [1.0, 1.0]
    for number in range(2000):
        if number % 200 == 0:
            weights = [dice.random(), dice.random()]
        item = (number, str(number)) if width == 2 else number
        match dice.choices(["append", "appendleft", "popleft", "delete", "copy"], [*weights, 0.7, 0.2, 0.02])[0]:
            case "append":
                ring.append(item)
                model.append(item)
            case "appendleft":
                ring.appendleft(item)
                model.appendleft(item)
            case "popleft" if model:
                assert ring.popleft() == model.popleft()
            case "delete" if model:
                at = dice.randrange(-len(model), len(model))
                del ring[at], model[at]
            case "copy":
                ring = copy(ring)
        assert len(ring) == len(model)
        if model:
            assert (ring[0], ring[-1]) == (model[0], model[-1])
        if number % 50 == 0:
            assert list(ring) == list(model)
            assert list(reversed(ring)) == list(reversed(model))
    while model:
        assert ring.popleft() == model.popleft()
    with pytest.raises(IndexError):
        ring.popleft()
    with pytest.raises(IndexError):
        ring[0]
    assert ring.__sizeof__() <= empty + 64 * 8


@pytest.mark.parametrize("end", [0, -1])
def test_a_ring_that_is_emptied_by_deleting_gives_back_what_it_grew_by(end: int) -> None:
    ring = _twin.Ring(1)
    empty = ring.__sizeof__()
    for number in range(100_000):
        ring.append(number)
    for _ in range(100_000):  # Were the longer side moved, this would take minutes.
        del ring[end]
    assert ring.__sizeof__() <= empty + 64 * 8
