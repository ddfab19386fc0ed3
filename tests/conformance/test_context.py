"""The context of a handler (`contextvars`): never that of who adds, for a pool keeps none for an event."""

from __future__ import annotations

from contextvars import Context, ContextVar, copy_context
from functools import partial
from typing import Any

from support import PATIENCE, Driver
from workpool import EventWorkerPool

WHOSE: ContextVar[str] = ContextVar("WHOSE", default="nobody's")


def context_of(who: str) -> Context:
    context = copy_context()
    context.run(WHOSE.set, who)
    return context


def test_a_handler_does_not_see_that_of_who_adds(driver: Driver) -> None:
    seen: list[str] = []
    pool: EventWorkerPool[Any, Any] = driver.pool(lambda event: seen.append(WHOSE.get()), workers=1)
    context_of("an early adder's").run(pool.add, "a", 0)
    pool.start()
    for key in "ab":
        context_of("an adder's").run(pool.add, key, 1)
    pool.drain(PATIENCE)
    assert seen == ["nobody's"] * 3


def test_nor_that_of_a_handler_that_adds(driver: Driver) -> None:
    seen: list[str] = []

    def handle(event: int) -> None:
        seen.append(WHOSE.get())
        if event:
            context_of("a handler's").run(pool.add, "a", event - 1)

    pool: EventWorkerPool[Any, Any] = driver.pool(handle, workers=1).start()
    pool.add("a", 2)
    pool.drain(PATIENCE)
    assert seen == ["nobody's"] * 3


def test_it_sees_that_of_who_starts_the_pool_where_the_driver_says_so(driver: Driver) -> None:
    seen: list[str] = []
    pool: EventWorkerPool[Any, Any] = driver.pool(lambda event: seen.append(WHOSE.get()), workers=1)
    context_of("the starter's").run(pool.start)
    context_of("an adder's").run(pool.add, "a", 1)
    pool.drain(PATIENCE)
    assert seen == ["the starter's" if driver.has_starters_context else "nobody's"]


def test_who_wants_it_seen_adds_it_with_the_event(driver: Driver) -> None:
    seen: list[str] = []
    pool: EventWorkerPool[Any, Any] = driver.pool(lambda event: event(), workers=1).start()
    context = context_of("the event's")
    pool.add("a", partial(context.run, lambda: seen.append(WHOSE.get())))
    pool.drain(PATIENCE)
    assert seen == ["the event's"]
