"""The reflector against a server that is a version log: every fault in any order, and bugs that this must find."""

from __future__ import annotations

import inspect
import itertools
import random
import sys
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sources.kubernetes.world import World, run
from workpool.sources.kubernetes import reflector

OPTIONS: list[dict[str, Any]] = [
    {},
    {"options": {"limit": 1, "keep_old": False}},
    {"options": {"limit": 2, "from_cache": True}, "by_label": True},
    {"options": {"limit": 1, "streaming": True}},
    {"options": {"streaming": True, "resync": 100.0}, "by_label": True},
    {"options": {"limit": 2, "streaming": True}, "has_streaming": False},
]
SEEDS = 400


def simulate(seed: int, make: Any = reflector.Reflector) -> None:
    """One run, all of it by its seed."""
    chance = random.Random(seed)
    run(World(make, **OPTIONS[seed % len(OPTIONS)]), chance.randrange, steps=chance.choice([20, 60]))


@pytest.mark.parametrize("seeds", [range(at, at + 50) for at in range(0, SEEDS, 50)], ids=str)
def test_whatever_comes_the_pool_gets_the_servers_state(seeds: range) -> None:
    for seed in seeds:
        try:
            simulate(seed)
        except Exception as failure:
            raise AssertionError(f"seed {seed}: {failure}") from failure


@given(data=st.data(), options=st.sampled_from(OPTIONS))
@settings(max_examples=60, deadline=None, print_blob=True)
def test_whatever_hypothesis_chooses_the_pool_gets_the_servers_state(
    data: st.DataObject, options: dict[str, Any]
) -> None:
    run(World(**options), lambda below: data.draw(st.integers(0, below - 1)), steps=25)


def plan(*choices: int) -> Any:
    """Choose by a plan, and the first of all when it is over."""
    left = iter(choices)
    return lambda below: min(next(left, 0), below - 1)


CHANGES = {
    "create": (0, 2, 1), "other": (1, 2, 1), "out": (0, 2, 2), "bare": (0, 2, 3), "replace": (0, 1), "delete": (0, 0),
    "compact": (0, 5),
}  # fmt: skip
FAULTS = {
    "410, or silence": (0,), "504, or an end": (1, 0), "500, or an end late": (1, 1), "an old event": (2,),
    "an ERROR": (3, 1), "half a list, or no line": (99,), "an empty watch": (10,),
}  # fmt: skip
MOVES: dict[str, Any] = {
    **{name: lambda world, how=how: world.alter(plan(*how)) for name, how in CHANGES.items()},
    **{name: lambda world, how=how: world.answer_falsely(plan(*how)) for name, how in FAULTS.items()},
    "restart": lambda world: world.start(),
}


@pytest.mark.parametrize("options", OPTIONS[1:4], ids=["pages", "labels", "streaming"])
def test_every_short_run_ends_at_the_servers_state(options: dict[str, Any]) -> None:
    """Every two things that can happen, in every place of the machine, with up to two true steps between."""
    for names in itertools.product(MOVES, repeat=2):
        for before, between in itertools.product(range(9), (0, 2)):
            world = World(**options)
            world.alter(plan(0, 2, 1))
            world.alter(plan(1, 2, 1))
            try:
                for _ in range(before):
                    world.answer_truly()
                for name in names:
                    MOVES[name](world)
                    for _ in range(between):
                        world.answer_truly()
                world.catch_up()
            except (AssertionError, RuntimeError) as failure:
                raise AssertionError(f"{failure} after {before} steps and {names}, {between} apart") from failure


BUGS: dict[str, tuple[str, str]] = {
    "the cursor moves before the event is accepted": (
        "            if isinstance(said, Item):\n                yield from self._change(said)\n",
        "            self._move(said.version)\n"
        "            if isinstance(said, Item):\n                yield from self._change(said)\n",
    ),
    "the cursor moves before the list is accepted": (
        """        initial = self.cursor is None
""",
        """        initial = self.cursor is None
        self.cursor = version
""",
    ),
    "what is known moves before the event is accepted": (
        """        if known is None:
            yield Emit(Event("ADDED",""",
        """        self.known[name] = Known(item.uid, item.version, key, item.line)
        if known is None:
            yield Emit(Event("ADDED",""",
    ),
    "deletes of a list are forgotten": (
        "            item = items.get(name)\n",
        "            item = items.get(name)\n            if item is None:\n                continue\n",
    ),
    "deletes of a list come last": (
        "        for name, known in list(self.known.items()):\n            item =",
        "        for each in items.values():\n"
        "            yield from self._put(each, initial)\n"
        "        for name, known in list(self.known.items()):\n            item =",
    ),
    "the version of an item is the cursor": (
        "        self.cursor = version\n        if",
        "        self.cursor = max((item.version for item in items.values()), default=version)\n        if",
    ),
    "the version of a list is not the cursor": (
        "        self.cursor = version\n        if",
        "        self.cursor = self.cursor or version\n        if",
    ),
    "part of a list is added": ("                if not token:\n", "                if True:\n"),
    "a new list keeps the pages of the one that expired": (
        'version, token, at, items = None, "", "", {}',
        'version, token, at = None, "", ""',
    ),
    "another uid is missed in a list": ("item is None or item.uid != known.uid or ", "item is None or "),
    "a forgotten version is asked for again": ("and (said.expired or said.too_large)", "and said.too_large"),
    "an expired version ends in no list": (
        "                return again or said.too_large\n",
        "                continue\n",
    ),
    "a bookmark deletes": (
        "            self._move(said.version)\n",
        "            if isinstance(said, Bookmark):\n                self.known.clear()\n"
        "            self._move(said.version)\n",
    ),
    "a bookmark that is not the last ends a streaming list": (
        "isinstance(said, Bookmark) and said.ends_initial",
        "isinstance(said, Bookmark)",
    ),
    "half a streaming list is added": (
        "        if isinstance(answer, Failure) and answer.refused:",
        "        if items:\n"
        "            yield from self._replace(items, max(item.version for item in items.values()))\n"
        "        if isinstance(answer, Failure) and answer.refused:",
    ),
    "a repeated event of an object is told": (
        'known.version if known is not None else self.cursor or ""',
        'self.cursor if known is None else ""',
    ),
    "a repeated event brings an object back": ('else self.cursor or ""', 'else ""'),
    "a DELETED of an earlier object is believed": (
        "        if is_older(item.version, known.version",
        "        if item.type != 'DELETED' and is_older(item.version, known.version",
    ),
    "the cursor goes back": (
        "if self.cursor != version and not (self.cursor and is_older(version, self.cursor)):",
        "if True:",
    ),
    "an unchanged object of a list is told": ("known.version == item.version", "False"),
    "nobody waits for the old key": ("None if key == last else last", "None"),
    "an object that lost its key stays": (
        "            if known is not None:\n                yield from self._remove(name, known)\n            return",
        "            return",
    ),
    "synced comes before the list": (
        "        initial = self.cursor is None\n",
        "        initial = self.cursor is None\n        if initial:\n            yield Synced()\n",
    ),
    "synced comes after each list": (
        "        if initial:\n            self._resync",
        "        if True:\n            self._resync",
    ),
    "a line that is none is passed over": (
        "            if not isinstance(said, Item | Bookmark):\n                return said\n",
        "            if isinstance(said, Failure):\n                continue\n"
        "            if not isinstance(said, Item | Bookmark):\n                return said\n",
    ),
    "a version is asked for again and again": ("if barren >= BARREN:", "if False:"),
}


def planted(old: str, new: str) -> Any:
    """The machine with one bug in it."""
    source = inspect.getsource(reflector)
    assert source.count(old) == 1, f"its place occurs {source.count(old)} times"
    module = ModuleType(f"{reflector.__name__}_planted")
    sys.modules[module.__name__] = module  # Where dataclasses look for what it is made of.
    try:
        exec(compile(source.replace(old, new), "planted", "exec"), vars(module))
    finally:
        del sys.modules[module.__name__]
    return module.Reflector


@pytest.mark.parametrize("bug", BUGS)
def test_the_model_finds_a_planted_bug(bug: str) -> None:
    make = planted(*BUGS[bug])
    for seed in range(SEEDS):
        try:
            simulate(seed, make)
        except (AssertionError, KeyError):
            return
    pytest.fail("no run has found it")
