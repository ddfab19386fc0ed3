"""`add` of the twin is the function that it stands before, to all who look at it."""

from __future__ import annotations

import inspect
import pickle
import pydoc
from types import ModuleType
from typing import Any

import pytest

from support import PATIENCE, Gate
from workpool import EventWorkerPool, PoolFull
from workpool.twin import _twin


@pytest.fixture
def reference(pure: dict[str, ModuleType]) -> Any:
    """The class of the reference."""
    return pure["threads"].EventWorkerPool


def test_it_shows_the_signature_and_the_words_of_the_function(reference: Any) -> None:
    assert isinstance(inspect.getattr_static(EventWorkerPool, "add"), _twin.Entrance)
    assert inspect.signature(EventWorkerPool.add) == inspect.signature(reference.add)
    assert inspect.signature(EventWorkerPool(print).add) == inspect.signature(reference(print).add)
    for name in ("__doc__", "__name__", "__qualname__", "__module__", "__annotations__"):
        assert getattr(EventWorkerPool.add, name) == getattr(reference.add, name)
    assert inspect.isroutine(EventWorkerPool.add)
    assert pydoc.render_doc(EventWorkerPool.add).splitlines()[2:] == pydoc.render_doc(reference.add).splitlines()[2:]
    assert "Add an event at the end of its key's lane." in pydoc.render_doc(EventWorkerPool)


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        ((), {}),
        (("a",), {}),
        (("a", 1, 2), {}),
        (("a", 1), {"event": 2}),
        (("a", 1), {"strange": 2}),
        (("a", 1), {"timeout": "x"}),
        (("a", 1), {"timeout": -1}),
        (([], 1), {}),
        (([], 1), {"timeout": 1}),
        (({"b": []}, 1), {}),
    ],
)
def test_wrong_arguments_raise_the_same_words(reference: Any, arguments: Any, names: Any) -> None:
    said = []
    for kind in (EventWorkerPool, reference):
        pool = kind(print)
        with pytest.raises((TypeError, ValueError)) as info:
            pool.add(*arguments, **names)
        said.append((info.type, str(info.value)))
        assert pool.stats().added == 0
    assert said[0] == said[1]


def test_it_is_called_in_each_way() -> None:
    handled: list[int] = []
    with EventWorkerPool[str, int](handled.append, workers=1) as pool:
        pool.add("a", 0)
        pool.add("a", event=1)
        pool.add(event=2, key="a")
        pool.add("a", 3, timeout=PATIENCE)
        pool.add(*("a", 4))
        EventWorkerPool.add(pool, "a", 5)
        EventWorkerPool.__dict__["add"].__get__(pool, EventWorkerPool)("a", 6)
        add = pool.add
        for event in range(7, 10):
            add("a", event)
    assert handled == list(range(10))
    with pytest.raises(AttributeError):
        EventWorkerPool.add(object(), "a", 1)


def test_a_subclass_may_override_it_and_add_many_asks_it() -> None:
    class Doubling(EventWorkerPool[str, int]):
        def add(self, key: str, event: int, *, timeout: float | None = None) -> None:
            super().add(key, 2 * event, timeout=timeout)

    handled: list[int] = []
    with Doubling(handled.append, workers=1) as pool:
        pool.add("a", 1)
        assert pool.add_many([("a", 2), ("a", 3)]) == 2
    assert handled == [2, 4, 6]


def test_a_subclass_with_slots_works() -> None:
    class Slotted(EventWorkerPool[str, int]):
        __slots__ = ("mine",)
        mine: int

    handled: list[int] = []
    with Slotted(handled.append, workers=1) as pool:
        pool.mine = 1
        pool.add("a", pool.mine)
    assert handled == [1]


def test_a_pool_does_not_pickle_and_its_class_does(reference: Any) -> None:
    said = []
    for kind in (EventWorkerPool, reference):
        with pytest.raises(TypeError) as info:
            pickle.dumps(kind(print))
        said.append(str(info.value))
    assert said[0] == said[1]
    assert pickle.loads(pickle.dumps(EventWorkerPool)) is EventWorkerPool


PAIRS: list[Any] = [
    [("a", 0), ["a", 1], "a2", ("a", 3)],
    [("a", 0), None, ("a", 2)],
    [("a", 0), ("a", 1, 2)],
    [("a", 0), ("a",)],
    [("a", 0), 5],
    [([], 0)],
    [("a", 0), ([], 0), ("a", 1)],
    [],
    5,
]


@pytest.mark.parametrize("pairs", PAIRS)
def test_add_many_takes_and_refuses_the_same_pairs(reference: Any, pairs: Any) -> None:
    ends = []
    for kind in (EventWorkerPool, reference):
        pool = kind(print)
        try:
            end: Any = pool.add_many(pairs)
        except (TypeError, ValueError) as error:
            end = (str(error), getattr(error, "added", None))
        ends.append((end, pool.stats().added, pool.stop()))
    assert ends[0] == ends[1]


def test_add_many_says_what_its_iterator_raised_and_how_many_were_added(reference: Any) -> None:
    def pairs() -> Any:
        for event in range(150):
            yield "a", event
        raise KeyError("no more")

    for kind in (EventWorkerPool, reference):
        pool = kind(print)
        with pytest.raises(KeyError, match="no more") as info:
            pool.add_many(pairs())
        assert info.value.added == 150  # type: ignore[attr-defined]
        assert [event for _, event in pool.stop()] == list(range(150))


def test_a_full_pool_is_full_for_both(reference: Any) -> None:
    for kind in (EventWorkerPool, reference):
        gate = Gate()
        pool = kind(gate, workers=1, max_backlog=2).start()
        pool.add("a", 0)
        gate.wait_inside()
        with pytest.raises(TimeoutError) as info:
            pool.add_many((("a", event) for event in range(5)), timeout=0)
        assert info.value.added == 2  # type: ignore[attr-defined]
        with pytest.raises(TimeoutError):
            pool.add("a", 1, timeout=0)
        with pytest.raises(Exception, match="is full") as refused:
            pool.add_nowait("a", 1)
        assert refused.type.__name__ == PoolFull.__name__
        gate.open.set()
        pool.drain(PATIENCE)
