"""A handler under seeded schedules: what fails is found, made small, and happens again; what is right passes."""

from __future__ import annotations

import asyncio
import gc
import logging
import random
import subprocess
import sys
import threading
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from support import PATIENCE
from workpool import Delivery, Fail, ParkKey, Retry, RetryAfter, Skip, SkipEvent
from workpool.asyncio import EventWorkerPool
from workpool.testing import BrokenPromise, Counterexample, Explored, Stuck, checkpoint, explore, loop

NOTHING: dict[str, Any] = dict.fromkeys(("failures", "timeouts", "crashes", "stops"), 0)
TRANSFERS = [(way[0], (number, way[0], way[1])) for number, way in enumerate(["ab", "bc", "ca", "ac"])]
EVENTS = [(key, number) for number, key in enumerate("abcaabcc")]


class Ledger:
    """Transfers of 10 between three accounts that start with 100; the number of each is remembered."""

    def __init__(self) -> None:
        self.balances = Counter(a=100, b=100, c=100)
        self.booked: set[int] = set()

    async def racy(self, event: tuple[int, str, str]) -> None:
        number, source, target = event
        if number not in self.booked:
            had, got = self.balances[source], self.balances[target]
            await asyncio.sleep(1)
            self.balances.update({source: had - 10 - self.balances[source], target: got + 10 - self.balances[target]})
            self.booked.add(number)

    def racy_plain(self, event: tuple[int, str, str]) -> None:
        number, source, target = event
        if number not in self.booked:
            had, got = self.balances[source], self.balances[target]
            checkpoint()
            self.balances.update({source: had - 10 - self.balances[source], target: got + 10 - self.balances[target]})
            self.booked.add(number)

    async def fixed(self, event: tuple[int, str, str]) -> None:
        await asyncio.sleep(1)
        self.book(event)
        await asyncio.sleep(1)

    def fixed_plain(self, event: tuple[int, str, str]) -> None:
        checkpoint()
        self.book(event)
        checkpoint()

    def book(self, event: tuple[int, str, str]) -> None:
        number, source, target = event
        if number not in self.booked:
            self.balances.update({source: -10, target: 10})
            self.booked.add(number)

    def check(self) -> None:
        assert self.balances.total() == 300, f"money was lost or made: {self.balances}"
        assert len(self.booked) <= len(TRANSFERS)


class Tally:
    """Counts what was handled, and is not idempotent."""

    def __init__(self) -> None:
        self.seen: list[int] = []
        self.restarts = 0

    async def count(self, event: int) -> None:
        await asyncio.sleep(0)
        self.seen.append(event)

    def count_plain(self, event: int) -> None:
        checkpoint()
        self.seen.append(event)

    def check_once(self) -> None:
        assert sorted(self.seen) == [event for _, event in EVENTS]

    def check_at_least_once(self) -> None:
        assert set(self.seen) == {event for _, event in EVENTS}

    def restart(self) -> None:
        self.restarts += 1


def find(handler: Any, events: Any = TRANSFERS, **options: Any) -> Counterexample:
    with pytest.raises(Counterexample) as found:
        explore(handler, events, **options)
    return found.value


def ledger(handler: Any, **options: Any) -> Explored:
    return explore(handler, TRANSFERS, setup=Ledger, check=Ledger.check, **options)


@pytest.mark.parametrize("handler", [Ledger.racy, Ledger.racy_plain])
@pytest.mark.parametrize("seed", [0, 1000])
def test_a_race_in_a_ledger_is_found_and_made_small(handler: Any, seed: int) -> None:
    found = find(handler, setup=Ledger, check=Ledger.check, seed=seed, runs=20)
    assert isinstance(found.__cause__, AssertionError)
    assert len(found.events) == 2
    assert {name: found.replay[name] for name in NOTHING} == NOTHING
    assert any("waits" in line and "test_simulation.py" in line and "in racy" in line for line in found.history)
    text = str(found)
    assert text.startswith(f"seed {found.seed} fails with AssertionError: money was lost")
    assert all(repr(event) in text for event in found.events)
    assert f"seed={found.seed}, runs=1, setup=Ledger, check=Ledger.check, failures=0" in text


@pytest.mark.parametrize("handler", [Ledger.racy, Ledger.racy_plain])
def test_a_replay_fails_again_in_the_same_way(handler: Any) -> None:
    found = find(handler, setup=Ledger, check=Ledger.check)
    again = find(handler, **found.replay)
    assert (again.seed, again.history, again.events) == (found.seed, found.history, found.events)


@pytest.mark.parametrize("handler", [Ledger.fixed, Ledger.fixed_plain])
def test_a_ledger_without_a_race_passes(handler: Any) -> None:
    done = ledger(handler, runs=25)
    assert done.runs == 25
    assert done.distinct > 20
    assert done.switches > 0


def test_a_plain_function_without_a_checkpoint_is_not_interleaved() -> None:
    def racy(ledger: Ledger, event: tuple[int, str, str]) -> None:
        read = dict(ledger.balances)
        ledger.book(event)
        assert ledger.balances.total() == sum(read.values())

    assert ledger(racy, runs=20).switches == 0


def test_the_same_seed_gives_the_same_history() -> None:
    for handler in (Ledger.fixed, Ledger.fixed_plain):
        first, again, other = (ledger(handler, seed=seed, runs=5).history for seed in (3, 3, 4))
        assert first == again != other


def test_the_same_seed_gives_the_same_history_in_another_process() -> None:
    script = (
        "from testing.test_simulation import Ledger, ledger\n"
        "for handler in (Ledger.fixed, Ledger.fixed_plain):\n"
        "    print(*ledger(handler, seed=3, runs=5).history, sep='\\n')\n"
    )
    tests = Path(__file__).parent.parent
    paths = [str(tests), str(Path(loop.__file__).parents[2])]
    outputs = [
        subprocess.run(
            [sys.executable, "-c", f"import sys; sys.path[:0] = {paths}\n{script}"],
            capture_output=True, text=True, timeout=PATIENCE, check=True, env={"PYTHONHASHSEED": hash_seed},
        ).stdout
        for hash_seed in ("1", "2")
    ]  # fmt: skip
    assert outputs[0] == outputs[1] != ""
    assert "attempt 2" in outputs[0], "a retry is in it, whose time has jitter"


def test_a_minimal_case_has_only_the_events_that_are_needed() -> None:
    """Of fourteen events, those of two keys must meet: nothing else is left."""

    class Room:
        def __init__(self) -> None:
            self.inside: set[str] = set()

        async def enter(self, event: str) -> None:
            self.inside.add(event)
            await asyncio.sleep(0)
            assert not {"lion", "lamb"} <= self.inside
            self.inside.discard(event)

    events = [(str(number % 7), f"mouse-{number}") for number in range(12)]
    events[5:5] = [("x", "lion")]
    events[9:9] = [("y", "lamb")]
    assert find(Room.enter, events, setup=Room).events == [("x", "lion"), ("y", "lamb")]


def test_a_minimal_case_is_in_order_where_it_is_handled_one_at_a_time() -> None:
    """A withdrawal is never left without its deposit, for that would be another fault than the one that is sought."""

    class Account:
        def __init__(self) -> None:
            self.balance = 0

        async def book(self, amount: int) -> None:
            balance = self.balance
            await asyncio.sleep(0)
            self.balance = balance + amount
            assert self.balance >= 0

    events = [("a", 10), ("a", 10), ("b", -5), ("a", 10), ("b", -5)]
    found = find(Account.book, events, setup=Account, **NOTHING)
    amounts = [amount for _, amount in found.events]
    assert amounts == [10, -5]


def test_what_fails_one_event_at_a_time_is_no_matter_of_schedules() -> None:
    def handle(event: int) -> None:
        assert event != 5

    found = find(handle, EVENTS)
    assert found.events == [("b", 5)]
    assert found.seed is None
    assert str(found).startswith("one event at a time, without any fault, fails with AssertionError")
    assert find(handle, **found.replay).events == found.events


@pytest.mark.parametrize("handler", [Tally.count, Tally.count_plain])
def test_a_stop_repeats_nothing(handler: Any) -> None:
    done = explore(handler, EVENTS, setup=Tally, check=Tally.check_once, runs=30, **{**NOTHING, "stops": 2})
    assert (done.failures, done.timeouts, done.crashes) == (0, 0, 0)
    assert done.stops > 10


@pytest.mark.parametrize("handler", [Tally.count, Tally.count_plain])
@pytest.mark.parametrize("fault", ["crashes", "failures"])
def test_a_crash_and_a_failure_repeat_and_lose_nothing(handler: Any, fault: str) -> None:
    options = {**NOTHING, fault: 1}
    done = explore(handler, EVENTS, runs=30, setup=Tally, check=Tally.check_at_least_once, **options)
    assert getattr(done, fault) > 5


def test_one_fault_is_enough_to_show_that_a_handler_is_not_idempotent() -> None:
    found = find(Tally.count, EVENTS, setup=Tally, check=lambda tally: len(tally.seen) == len(set(tally.seen)) or 1 / 0)
    assert isinstance(found.__cause__, ZeroDivisionError)
    assert len(found.events) == 1
    assert sum(found.replay[name] for name in NOTHING) == 1, "one fault is enough"


def test_a_time_out_cancels_a_coroutine_where_it_waits() -> None:
    class Half:
        def __init__(self) -> None:
            self.steps: Counter[int] = Counter()

        async def handle(self, event: int) -> None:
            self.steps[event] += 1
            await asyncio.sleep(1)
            self.steps[event] -= 1

        def check(self) -> None:
            assert not self.steps.total(), "half of it was done"

    assert explore(Half.handle, EVENTS, setup=Half, runs=50, **{**NOTHING, "timeouts": 1}).timeouts > 8
    found = find(Half.handle, EVENTS, setup=Half, check=Half.check, failures=0, crashes=0)
    assert len(found.events) == 1
    assert any("time-out" in line for line in found.history)


def test_a_handler_that_outlives_its_time_out_has_handled_its_event() -> None:
    async def stubborn(event: int) -> None:
        with suppress(asyncio.CancelledError):
            await asyncio.sleep(1)

    done = explore(stubborn, EVENTS, runs=30, **{**NOTHING, "timeouts": 3})
    assert done.timeouts > 10
    assert sum("handled" in line for line in done.history) == len(EVENTS)
    assert not any("raised" in line for line in done.history)


def test_a_plain_function_has_no_time_out() -> None:
    assert explore(Tally.count_plain, EVENTS, setup=Tally, runs=20, **{**NOTHING, "timeouts": 5}).timeouts == 0


def test_a_crash_stops_a_handler_where_it_stands_until_the_run_is_over() -> None:
    class Durable:
        def __init__(self) -> None:
            self.begun: Counter[int] = Counter()
            self.restarts = 0

        async def handle(self, event: int) -> None:
            self.begun[event] += 1
            try:
                await asyncio.sleep(1)
            finally:
                self.begun[event] -= 1  # A crash does not come by here.

        def restart(self) -> None:
            self.restarts += 1

        def check(self) -> None:
            assert not self.begun.total() or self.restarts
            assert not self.begun.total(), "half of it was done, and not undone"

    found = find(Durable.handle, EVENTS, setup=Durable, check=Durable.check, restart=Durable.restart)
    assert found.replay["crashes"] == 1
    assert len(found.events) == 1


def test_the_order_of_each_key_holds_under_all_faults() -> None:
    class Sequence:
        def __init__(self) -> None:
            self.done: dict[str, list[int]] = {}

        async def handle(self, event: int, delivery: Delivery) -> None:
            done = self.done.setdefault(str(delivery.key), [])
            assert not done or event >= done[-1]
            await asyncio.sleep(0)
            done.append(event)

    done = explore(Sequence.handle, EVENTS, setup=Sequence, runs=50, failures=2, timeouts=2, crashes=2, stops=2)
    assert min(done.failures, done.timeouts, done.crashes, done.stops) > 10


def test_a_pool_that_loses_what_it_should_return_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(EventWorkerPool, "left", [])
    found = find(Tally.count, EVENTS, setup=Tally, **{**NOTHING, "stops": 1})
    assert isinstance(found.__cause__, BrokenPromise)
    assert "P1 exactly once" in str(found)


def test_an_hour_of_retries_takes_no_time() -> None:
    class Flaky(Exception):
        pass

    async def handle(event: int, delivery: Delivery) -> None:
        await asyncio.sleep(60)
        if delivery.attempt < 5:
            raise Flaky

    start = time.monotonic()
    policy = Retry(attempts=7, base=900, cap=900, jitter="none")
    done = explore(handle, EVENTS, runs=5, on_failure=policy, expected=(Flaky,), crashes=0)
    assert float(done.history[-1].split()[0]) > 3600
    assert time.monotonic() - start < PATIENCE


def test_nothing_is_left_behind() -> None:
    threads = set(threading.enumerate())
    with suppress(Counterexample):
        ledger(Ledger.racy_plain)
    ledger(Ledger.fixed, runs=10)
    gc.collect()
    assert set(threading.enumerate()) == threads
    assert not [each for each in gc.get_objects() if isinstance(each, loop.SimulatedLoop) and not each.is_closed()]


def test_the_process_is_left_as_it_was(caplog: pytest.LogCaptureFixture) -> None:
    random.seed(1)
    before = random.getstate()
    ledger(Ledger.fixed, runs=20)
    assert random.getstate() == before
    assert not caplog.records, "an injected fault is no news for the log"
    logging.getLogger("workpool").error("this one is")
    assert len(caplog.records) == 1


def test_handlers_that_wait_for_each_other_are_found() -> None:
    class Forks:
        def __init__(self) -> None:
            self.forks = {"left": asyncio.Lock(), "right": asyncio.Lock()}

        async def eat(self, hands: tuple[str, str]) -> None:
            async with self.forks[hands[0]]:
                await asyncio.sleep(0)
                async with self.forks[hands[1]]:
                    pass

    events = [("a", ("left", "right")), ("b", ("right", "left"))]
    found = find(Forks.eat, events, setup=Forks, **NOTHING)
    assert isinstance(found.__cause__, Stuck)
    assert str(found).count(" in eat") >= 2


def test_a_handler_without_an_end_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    async def spin(event: int) -> None:
        while True:
            await asyncio.sleep(0)

    monkeypatch.setattr(loop, "_MAX_STEPS", 200)
    assert "no end after 200 steps" in str(find(spin, EVENTS))


def test_a_plain_function_that_keeps_its_turn_is_told_where_it_stands(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "_PATIENCE", 0.05)
    lock = threading.Lock()

    def hold(event: int) -> None:
        with lock:
            checkpoint()

    found = find(hold, EVENTS, crashes=0)
    assert "does it wait for a lock" in str(found)
    assert "with lock:" in str(found)


def test_a_lock_is_taken_at_checkpoints() -> None:
    class Locked(Tally):
        def __init__(self) -> None:
            super().__init__()
            self.renew()

        def renew(self) -> None:
            self.lock = threading.Lock()

        def handle(self, event: int) -> None:
            lock = self.lock
            while not lock.acquire(blocking=False):
                checkpoint()
            with suppress(RuntimeError):
                self.count_plain(event)
            lock.release()

    explore(Locked.handle, EVENTS, setup=Locked, check=Locked.check_at_least_once, restart=Locked.renew, runs=20)


def test_what_a_coroutine_sends_to_a_thread_is_interleaved_too() -> None:
    class Threaded(Ledger):
        async def send(self, event: tuple[int, str, str]) -> None:
            await asyncio.to_thread(self.racy_plain, event)

    found = find(Threaded.send, setup=Threaded, check=Threaded.check)
    assert len(found.events) == 2


def test_tasks_of_a_handler_are_interleaved_too() -> None:
    async def handle(event: int) -> None:
        order: list[int] = []

        async def step(number: int) -> None:
            await asyncio.sleep(0)
            order.append(number)

        async with asyncio.TaskGroup() as group:
            for number in range(3):
                group.create_task(step(number))
        assert order == sorted(order)

    assert find(handle, [("a", 1)], **NOTHING).events == [("a", 1)]


def test_a_checkpoint_does_nothing_elsewhere() -> None:
    checkpoint()

    async def handle(event: int) -> None:
        checkpoint()

    assert explore(handle, EVENTS, runs=5).switches == 0


def test_an_expected_error_is_left_to_the_policy_and_any_other_is_a_failure() -> None:
    def handle(event: int, delivery: Delivery) -> None:
        if delivery.attempt == 1:
            raise KeyError(event)

    explore(handle, EVENTS, runs=10, expected=(LookupError,))
    assert isinstance(find(handle, EVENTS).__cause__, KeyError)

    def wrong(event: int) -> None:
        assert event < 3

    assert find(wrong, EVENTS, expected=(Exception,)).events == [("c", 7)], "the last is tried last"


@pytest.mark.parametrize("verdict", [SkipEvent(), ParkKey(), RetryAfter(60)])
def test_a_verdict_is_no_failure(verdict: Exception) -> None:
    def handle(event: int, delivery: Delivery) -> None:
        if event == 3 and delivery.attempt == 1:
            raise verdict

    explore(handle, EVENTS, runs=20)


@pytest.mark.parametrize("policy", [Fail(), Skip(), Retry(attempts=1)])
def test_each_policy_stands_the_faults(policy: Any) -> None:
    done = explore(Tally.count, EVENTS, setup=Tally, runs=30, on_failure=policy, failures=3, crashes=0)
    assert done.failures > 20


def test_an_interrupt_is_passed_on() -> None:
    def handle(event: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        explore(handle, EVENTS)


def test_a_handler_that_raises_stop_iteration_has_failed() -> None:
    def handle(event: int) -> None:
        next(iter(()))

    assert isinstance(find(handle, EVENTS).__cause__, RuntimeError)


def test_a_wrong_argument_is_found_at_once() -> None:
    async def check() -> None: ...

    handle = Tally().count
    with pytest.raises(TypeError, match="never be awaited"):
        explore(handle, EVENTS, check=check)
    with pytest.raises(ValueError, match="runs"):
        explore(handle, EVENTS, runs=-1)
    with pytest.raises(ValueError, match="crashes"):
        explore(handle, EVENTS, crashes=-1)
    with pytest.raises(TypeError, match="handler"):
        explore(None, EVENTS)  # type: ignore[arg-type]


def test_a_loop_that_runs_already_is_refused() -> None:
    async def inside() -> None:
        explore(Tally.count, EVENTS, setup=Tally)

    with pytest.raises(RuntimeError, match="a loop of its own"):
        asyncio.run(inside())


def test_no_event_is_no_failure() -> None:
    assert explore(Tally.count, [], setup=Tally, runs=2).distinct == 1
