"""The pool on an event loop, beside a task for each event and a task for each key."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any

from benchmarks.measure import Column, Run, Sample, Table, in_rounds
from benchmarks.reference import COMPILED, PureLoopPool
from benchmarks.subjects import BOUNDED, KEY_TASKS, MANY, REFERENCE, TASKS, KeyTasks
from benchmarks.workloads.common import Scale, do_nothing_async, spread_keys
from workpool.asyncio import EventWorkerPool

WORKERS = (1, 100)
_CHUNK = 10_000

Events = list[tuple[str, int]]
Feed = Callable[[Any, Events], Coroutine[Any, Any, object]]


def measure(scale: Scale) -> Table:
    events = [(key, number) for number, key in enumerate(spread_keys(scale.events // 4))]

    def run(row: str, column: Column, time_it: Callable[[Events], Coroutine[Any, Any, float]]) -> list[Sample]:
        async def time_both() -> tuple[float, float]:
            return await _time_bare(events), await time_it(events)

        base, value = asyncio.run(time_both())
        return [Sample(row, column, value, base)]

    def run_key_tasks() -> list[Sample]:
        base = asyncio.run(_time_bare(events))
        return [Sample(KEY_TASKS, 1, _time_key_tasks(events), base)]

    pools: list[tuple[str, Any, Feed]] = [(BOUNDED, EventWorkerPool, _add), (MANY, EventWorkerPool, _add_many)]
    if COMPILED:
        pools.append((REFERENCE, PureLoopPool, _add))
    runs: list[Run] = [
        partial(run, row, workers, partial(_time_pool, pool_class, feed, workers))
        for row, pool_class, feed in pools
        for workers in WORKERS
    ]
    runs += [partial(run, TASKS, 1, _time_tasks), run_key_tasks]
    about = (
        f"{len(events):,} events over 1,000 keys, in turn, for a coroutine that does nothing, with the default bound. "
        f"The baseline is a loop that awaits the handler for one event after another. An {TASKS} is made in a "
        f"`TaskGroup`, {_CHUNK:,} at a time, as many as the default bound lets wait, and keeps no order once a handler "
        f"waits. Both peers have no workers, and stand under 1; an {KEY_TASKS} is as in the tables above."
    )
    cells = in_rounds("asyncio", runs, scale.rounds)
    return Table("asyncio", "On an event loop", about, "ns an event", "workers", "bare await loop", cells)


async def _time_bare(events: Events) -> float:
    passes = max(1, 500_000 // len(events))
    begin = time.perf_counter_ns()
    for _ in range(passes):
        for _key, event in events:
            await do_nothing_async(event)
    return (time.perf_counter_ns() - begin) / (passes * len(events))


async def _time_pool(pool_class: Any, feed: Feed, workers: int, events: Events) -> float:
    pool = pool_class(do_nothing_async).start(workers)
    await asyncio.sleep(0)  # The workers' tasks begin.
    begin = time.perf_counter_ns()
    await feed(pool, events)
    await pool.drain()
    return (time.perf_counter_ns() - begin) / len(events)


async def _add(pool: Any, events: Events) -> None:
    add = pool.add
    for key, event in events:
        await add(key, event)


async def _add_many(pool: Any, events: Events) -> None:
    await pool.add_many(events)


async def _time_tasks(events: Events) -> float:
    begin = time.perf_counter_ns()
    for first in range(0, len(events), _CHUNK):
        async with asyncio.TaskGroup() as group:
            for _key, event in events[first : first + _CHUNK]:
                group.create_task(do_nothing_async(event))
    return (time.perf_counter_ns() - begin) / len(events)


def _time_key_tasks(events: Events) -> float:
    tasks = KeyTasks(do_nothing_async)
    begin = time.perf_counter_ns()
    for key, event in events:
        tasks.add(key, event)
    tasks.drain()
    return (time.perf_counter_ns() - begin) / len(events)
