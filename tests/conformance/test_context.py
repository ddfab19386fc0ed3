"""The context of a handler (`contextvars`): that of who adds where a pool is asked to keep it, and else never."""

from __future__ import annotations

from contextvars import Context, ContextVar, copy_context
from functools import partial
from typing import Any

from support import PATIENCE, Driver
from workpool import EventWorkerPool, Retry

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


def test_where_it_is_asked_for_a_handler_sees_that_of_who_adds(driver: Driver) -> None:
    seen: list[tuple[int, str]] = []
    pool: EventWorkerPool[Any, Any] = driver.pool(
        lambda event: seen.append((event, WHOSE.get())), workers=1, contextvars=True
    )
    context_of("an early adder's").run(pool.add, "a", 0)
    pool.start()
    context_of("the first's").run(pool.add, "a", 1)
    context_of("the second's").run(pool.add_nowait, "a", 2)
    context_of("many's").run(pool.add_many, [("a", 3), ("b", 4)])
    pool.drain(PATIENCE)
    assert sorted(seen) == [
        (0, "an early adder's"),
        (1, "the first's"),
        (2, "the second's"),
        (3, "many's"),
        (4, "many's"),
    ]


def test_what_a_handler_changes_in_it_is_for_that_delivery_alone(driver: Driver) -> None:
    seen: list[str] = []

    def handle(event: int) -> None:
        seen.append(WHOSE.get())
        WHOSE.set("a handler's")
        if len(seen) == 1:
            raise ValueError

    pool: EventWorkerPool[Any, Any] = driver.pool(handle, workers=1, contextvars=True, on_failure=Retry(base=0))
    context = context_of("the adder's")
    for event in range(2):
        context.run(pool.add, "a", event)
    with pool:
        pass
    assert seen == ["the adder's"] * 3
    assert context[WHOSE] == "the adder's"


def test_a_handler_that_adds_hands_its_own_on(driver: Driver) -> None:
    seen: list[str] = []

    def handle(event: int) -> None:
        seen.append(WHOSE.get())
        if event:
            WHOSE.set(f"that of {event}")
            pool.add("a", event - 1)

    pool: EventWorkerPool[Any, Any] = driver.pool(handle, workers=1, contextvars=True).start()
    context_of("the adder's").run(pool.add, "a", 2)
    pool.drain(PATIENCE)
    assert seen == ["the adder's", "that of 2", "that of 1"]


def test_what_took_the_place_of_another_brings_its_own(driver: Driver) -> None:
    seen: list[str] = []
    pool: EventWorkerPool[Any, Any] = driver.pool(
        lambda event: seen.append(WHOSE.get()), workers=1, contextvars=True, coalesce="latest"
    )
    for who in ("the older's", "the newer's"):
        context_of(who).run(pool.add, "a", who)
    with pool:
        pass
    assert seen == ["the newer's"]


def test_a_context_with_nothing_in_it_is_one(driver: Driver) -> None:
    """And what its handler sets is gone when that ends, as of any."""
    seen: list[str] = []

    def handle(event: int) -> None:
        seen.append(WHOSE.get())
        WHOSE.set("leaked")

    pool: EventWorkerPool[Any, Any] = driver.pool(handle, workers=1, contextvars=True)
    context_of("the starter's").run(pool.start)
    for event in range(2):
        Context().run(pool.add, "a", event)
    pool.drain(PATIENCE)
    assert seen == ["nobody's"] * 2
