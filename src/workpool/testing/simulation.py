"""Explores the schedules of a handler, and shrinks what fails to the least that fails.

A run (`workpool.testing.run`) is fixed by its events, its seed and how many faults of each kind it may have. So a
failure is made smaller by running again: with a kind of fault less, with events less, each under a few seeds; and of
the runs that fail with what is left, the one with the shortest history is shown. What is left has to pass when it is
handled one event at a time, without any fault: else a deposit would be taken away, and the overdraft be blamed.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import random
import threading
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from workpool.arguments import count
from workpool.errors import describe
from workpool.policy import Policy, Retry, require_policy
from workpool.testing.loop import Hung
from workpool.testing.run import Case, Run

__all__ = ["Counterexample", "Explored", "explore"]

_TRIES: Final = 3000
"""Runs that are spent on making a failure smaller."""

_SEEDS: Final = 30
"""Schedules that a smaller case is given to fail under."""


@dataclass(frozen=True, slots=True)
class Explored:
    """What `explore` went through, where nothing failed."""

    runs: int
    distinct: int
    """How many of their histories differ."""
    switches: int
    """How often another handler went on while one stood at an await or a checkpoint."""
    failures: int
    timeouts: int
    crashes: int
    stops: int
    history: tuple[str, ...] = field(repr=False)
    """What happened in the last run, a line each."""


class Counterexample(AssertionError):
    """A schedule under which the handler fails; what it failed with is the `__cause__`.

    Attributes:
        seed: Fixes the schedule, with the events and the arguments; None where each event alone, in order, fails too.
        events: As few as fail, as (key, event).
        history: What happened, a line each.
        replay: The arguments that make it happen again: `explore(handler, **replay)`.
    """

    def __init__(
        self,
        message: str = "",
        *,
        seed: int | None = None,
        events: Sequence[tuple[Any, Any]] = (),
        history: Sequence[str] = (),
        replay: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(message)
        self.seed = seed
        self.events = events
        self.history = history
        self.replay: dict[str, Any] = replay or {}


def explore(
    handler: Callable[..., object],
    events: Iterable[tuple[Hashable, Any]],
    *,
    seed: int = 0,
    runs: int = 100,
    setup: Callable[[], object] | None = None,
    check: Callable[..., object] | None = None,
    restart: Callable[..., object] | None = None,
    workers: int = 4,
    on_failure: Policy = Retry(),  # noqa: B008 - frozen
    expected: tuple[type[Exception], ...] = (),
    failures: int = 1,
    timeouts: int = 1,
    crashes: int = 1,
    stops: int = 1,
) -> Explored:
    """Run a handler under seeded schedules, with faults injected, and raise the least that fails.

    Each run adds the events to a pool of its own, and draws from its seed who goes on at each await of a coroutine
    handler, or at each `checkpoint()` of a plain one, and where which fault strikes. No real time passes. A run fails
    where the handler raises what is not expected, where `check` raises, where nothing can go on, and where the pool
    breaks P1 or P2. A failure is then tried with fewer events, fewer faults and other seeds, a bounded number of times.

    First of all, and again for each smaller case, the events are handled one at a time without any fault: what passes
    so and fails otherwise is the fault of a schedule. The same events go through every run: a handler must not change
    them.

    Args:
        handler: A coroutine function or a plain one, called as a pool calls it: `handler(event)`, or
            `handler(event, delivery)`.
        events: What to add, as (key, event), in order.
        seed: The first run's; each further run has the next.
        runs: How many schedules to go through. With 1, a failure is raised as it is. With 0, the events are only
            handled one at a time.
        setup: Called before each run, to make what the run starts from. What it returns, unless None, is given to
            `handler`, `check` and `restart` as their first argument.
        check: Called after each run; it raises where something is wrong.
        restart: Called after each crash, before the next pool: it throws away what only memory held (locks, caches).
        workers: How many handlers run at once.
        on_failure: The pool's failure policy.
        expected: Exceptions that the handler may raise, for the policy to decide about; the verdicts (`SkipEvent` and
            so on) always may.
        failures: At most so many deliveries of a run raise before the handler is called, or after it has returned.
        timeouts: At most so many deliveries are cancelled at an await, as by the pool's `timeout`. A plain function
            has none.
        crashes: At most so many times all workers vanish; what was not handled is delivered again.
        stops: At most so many times the pool is stopped; a new one goes on with what it returned.

    Returns:
        What it went through.

    Raises:
        Counterexample: A run failed.
        TypeError, ValueError: An argument is wrong.
        RuntimeError: Called from a running event loop.
    """
    case = Case(
        handler, setup, check, restart, count("workers", workers), require_policy(on_failure), expected
    )  # fmt: skip
    faults = {"failures": failures, "timeouts": timeouts, "crashes": crashes, "stops": stops}
    for name, number in faults.items():
        count(name, number, 0)
    count("runs", runs, 0)
    for called in (setup, check, restart):
        if inspect.iscoroutinefunction(called):
            raise TypeError(f"{called!r} is a coroutine function: it would never be awaited")
    if asyncio._get_running_loop() is not None:
        raise RuntimeError("explore runs a loop of its own: call it from a plain function")
    items = list(events)
    log, state, me = logging.getLogger("workpool"), random.getstate(), threading.get_ident()

    def is_another(_: logging.LogRecord) -> bool:
        return threading.get_ident() != me  # Each injected fault would be logged.

    log.addFilter(is_another)
    try:
        return _explore(case, items, seed, runs, faults)
    finally:
        log.removeFilter(is_another)
        random.setstate(state)


def _explore(case: Case, events: list[Any], seed: int, runs: int, faults: dict[str, int]) -> Explored:
    plain = Run(case, events).run()
    if plain.failure is not None:
        raise _counterexample(_minimal(plain) if runs > 1 else plain)
    struck: Counter[str] = Counter()
    histories, last = set(), plain
    for each in range(seed, seed + runs):
        last = Run(case, events, each, faults, plain.points).run()
        if last.failure is not None:
            raise _counterexample(_minimal(last) if runs > 1 else last)
        struck += last.struck
        histories.add(hash(tuple(last.history)))
    return Explored(
        runs=runs, distinct=len(histories), switches=struck["switches"], history=tuple(last.history),
        failures=struck["failures"], timeouts=struck["timeouts"], crashes=struck["crashes"], stops=struck["stops"],
    )  # fmt: skip


def _minimal(failed: Run) -> Run:
    """Shrink the faults, then the events, then the history."""
    tries = 0 if isinstance(failed.failure, Hung) else _TRIES

    def retry(events: list[Any], faults: dict[str, int], seeds: int = _SEEDS) -> list[Run]:
        nonlocal tries
        plain = Run(failed.case, events).run()
        tries -= 1
        if failed.seed is None:
            return [plain] if type(plain.failure) is type(failed.failure) else []
        found: list[Run] = []
        if plain.failure is None:
            for seed in range(failed.seed, failed.seed + seeds):
                run = Run(failed.case, events, seed, faults, plain.points).run()
                tries -= 1
                if type(run.failure) is type(failed.failure):
                    found.append(run)
                    if seeds == _SEEDS:
                        break
        return found

    best = failed
    for name, most in best.faults.items():
        for fewer in range(most):
            if tries > 0 and (found := retry(best.events, {**best.faults, name: fewer})):
                best = found[0]
                break
    size = max(1, len(best.events) // 2)
    while size:
        start, length = 0, len(best.events)
        while start < len(best.events) and tries > 0:
            if found := retry(best.events[:start] + best.events[start + size :], best.faults):
                best = found[0]
            else:
                start += size
        if size > 1 or length == len(best.events):  # The last round is made again until nothing more can go.
            size //= 2
    if best.seed is not None and tries > 0:
        best = min([best, *retry(best.events, best.faults, 2 * _SEEDS)], key=lambda run: len(run.history))
    return best


def _counterexample(run: Run) -> Counterexample:
    """The error that tells of it."""
    case, error = run.case, run.failure
    replay: dict[str, Any] = {"events": run.events, "seed": run.seed or 0, "runs": int(run.seed is not None)}
    for name in ("setup", "check", "restart", "workers", "on_failure", "expected"):
        if (value := getattr(case, name)) != inspect.signature(explore).parameters[name].default:
            replay[name] = value
    replay |= run.faults
    shown = [f"{name}={_show(value)}" for name, value in replay.items() if name != "events"]
    what = f"seed {run.seed}" if run.seed is not None else "one event at a time, without any fault,"
    raised = f"{type(error).__name__}: {describe(error, str)}"
    lines = [
        f"{what} fails with {raised}", "", *run.history, "", "Again, with these events:", "",
        "events = [", *(f"    {describe(event)}," for event in run.events), "]",
        f"explore({_show(case.handler)}, events, {', '.join(shown)})",
    ]  # fmt: skip
    found = Counterexample("\n".join(lines), seed=run.seed, events=run.events, history=run.history, replay=replay)
    found.__cause__ = error
    return found


def _show(value: object) -> str:
    if isinstance(value, tuple):
        return f"({''.join(f'{_show(each)}, ' for each in value)})"
    return getattr(value, "__qualname__", None) or describe(value)
