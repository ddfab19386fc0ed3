"""The fixtures for pytest, each in tests of a user, which pytest runs in here."""

from __future__ import annotations

import inspect
import re
import sys
from pathlib import Path
from typing import Any, get_type_hints

import pytest

import workpool
import workpool.asyncio
from support import PATIENCE, run_python, threads_of_pools
from workpool.testing.plugin import workpool_history
from workpool.testing.watched import AsyncioPoolOptions, PoolOptions

PAGE = (Path(__file__).parents[2] / "docs" / "pytest.md").read_text()
HEAD = """\
import asyncio, threading
import pytest
from workpool import *

pytest_plugins = ["workpool.testing.plugin"]

def fail(event):
    raise ValueError("no such account")

def park(event):
    raise ParkKey("closed")

"""
NEWLINE = "\n"
OPTIONS = ("-p", "no:cacheprovider", "-p", "no:hypothesispytest", "-W", "error")


class User:
    """Somebody who writes tests."""

    def __init__(self, pytester: pytest.Pytester) -> None:
        self._pytester = pytester

    def run(self, text: str, **outcomes: int) -> str:
        """Run tests; what pytest prints, where the tests end as they should, and no thread is left."""
        self._pytester.makepyfile(HEAD + inspect.cleandoc(text))
        result = self._pytester.runpytest_inprocess(*OPTIONS)
        result.assert_outcomes(**outcomes)
        assert not threads_of_pools()
        return result.stdout.str()


@pytest.fixture(autouse=True)
def as_at_a_desk(monkeypatch: pytest.MonkeyPatch) -> None:
    """In CI pytest says each message once more, in full, in its summary."""
    for name in ("CI", "BUILD_NUMBER"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def user(pytester: pytest.Pytester) -> User:
    return User(pytester)


class TestPool:
    def test_it_is_started_and_what_was_added_is_handled(self, user: User) -> None:
        """The second test sees what the first one's teardown has had handled."""
        user.run(
            """
            handled = []

            def test_add(workpool_pool):
                workpool_pool(handled.append).add("a", 1)

            def test_handled():
                assert handled == [1]
            """,
            passed=2,
        )

    def test_its_options_are_those_of_a_pool_with_a_clock_and_a_name(self, user: User) -> None:
        user.run(
            """
            def test_it(workpool_pool, workpool_clock):
                first, second = workpool_pool(print, workers=3), workpool_pool(print)
                assert first.workers == 3
                assert "'test_it'" in repr(first) and "'test_it-2'" in repr(second)
                assert first._clock is workpool_clock
                assert "'mine'" in repr(workpool_pool(print, name="mine"))
            """,
            passed=1,
        )

    @pytest.mark.parametrize(
        ("pool", "options"),
        [
            (workpool.EventWorkerPool, PoolOptions),
            (workpool.asyncio.EventWorkerPool, AsyncioPoolOptions),
        ],
    )
    def test_each_option_of_a_pool_is_typed(self, pool: type[Any], options: type[Any]) -> None:
        assert set(get_type_hints(options)) == set(inspect.signature(pool).parameters) - {"handler"}

    @pytest.mark.parametrize(
        ("arguments", "error"),
        [
            ("handle, wrokers=3", "TypeError: EventWorkerPool.__init__() got an unexpected keyword argument 'wrokers'"),
            ("handle, workers=0", "ValueError: workers must be at least 1, and is 0"),
            ("None", "TypeError: the handler must be callable, and None is not"),
        ],
    )
    @pytest.mark.parametrize("factory", ["workpool_pool", "workpool_asyncio_pool"])
    def test_a_wrong_argument_is_told_at_its_line(self, user: User, factory: str, arguments: str, error: str) -> None:
        handle = "async def handle(event): ..." if "asyncio" in factory else "def handle(event): ..."
        before = f"{handle}\ndef test_it({factory}):\n"
        line = f"    {factory}({arguments})"
        told = user.run(before + line, failed=1)
        assert f">   {line}\nE       {error}" in told
        assert f".py:{(HEAD + before).count(NEWLINE) + 1}: {error.partition(':')[0]}" in told
        assert "watched.py" not in told

    def test_a_failure_that_nobody_saw_fails_the_test(self, user: User) -> None:
        told = user.run(
            """
            def test_it(workpool_pool):
                workpool_pool(fail).add("ann", 1)
            """,
            passed=1,
            errors=1,
        )
        assert "ERROR at teardown of test_it" in told
        assert "pool 'test_it' failed: the handler of key 'ann' raised ValueError: no such account" in told

    def test_a_failure_that_the_test_has_seen_does_not(self, user: User) -> None:
        user.run(
            """
            @pytest.mark.parametrize("ending", ["drain", "stop", "flush"])
            def test_ending(workpool_pool, ending):
                pool = workpool_pool(fail)
                pool.add("ann", 1)
                workpool_pool.wait_until_still()
                with pytest.raises(HandlerError):
                    getattr(pool, ending)()

            @pytest.mark.parametrize("add", ["add", "add_nowait"])
            def test_adding(workpool_pool, add):
                pool = workpool_pool(fail)
                pool.add("ann", 1)
                workpool_pool.wait_until_still()
                with pytest.raises(HandlerError):
                    getattr(pool, add)("ann", 2)

            def test_adding_many(workpool_pool):
                pool = workpool_pool(fail)
                pool.add("ann", 1)
                workpool_pool.wait_until_still()
                with pytest.raises(HandlerError):
                    pool.add_many([("ann", 2)])

            def test_block(workpool_pool):
                with pytest.raises(HandlerError), workpool_pool(fail) as pool:
                    pool.add("ann", 1)
            """,
            passed=7,
        )

    def test_a_failure_that_only_a_handler_has_seen_fails_the_test(self, user: User) -> None:
        told = user.run(
            """
            def test_it(workpool_pool):
                failed, seen = threading.Event(), threading.Event()

                def handle(event):
                    if event == 1:
                        failed.wait(30)
                        with pytest.raises(HandlerError):
                            pool.add("ann", 3)
                        seen.set()
                    else:
                        fail(event)

                pool = workpool_pool(handle)
                pool.add_many([("ann", 1), ("bob", 2)])
                while "stopping" not in repr(pool):
                    pass
                failed.set()
                assert seen.wait(30)
            """,
            passed=1,
            errors=1,
        )
        assert "the handler of key 'bob' raised ValueError" in told

    def test_events_that_are_left_fail_the_test_and_it_says_why_they_wait(self, user: User) -> None:
        told = user.run(
            """
            def test_parked(workpool_pool):
                workpool_pool(park).add_many([("ann", 1), ("ann", 2)])

            def test_retrying(workpool_pool, workpool_clock):
                workpool_clock.advance(7)
                workpool_pool(fail, on_failure=Retry(base=60, jitter="none")).add("bob", 1)
            """,
            passed=2,
            errors=2,
        )
        assert "pool 'test_parked' was left with events: 2, of keys 'ann'." in told
        assert "  key 'ann' is parked after ParkKey: closed: resume(key) or skip_head(key) lets it go on" in told
        assert "pool 'test_retrying' was left with events: 1, of keys 'bob'." in told
        assert "  key 'bob' waits for its retry after ValueError: no such account: advance the clock by 60 s" in told

    def test_events_that_the_test_has_seen_left_do_not(self, user: User) -> None:
        user.run(
            """
            def test_taken(workpool_pool):
                pool = workpool_pool(park)
                pool.add("ann", 1)
                assert pool.stop() == [("ann", 1)]

            def test_expected(workpool_pool):
                pool = workpool_pool(park)
                pool.add("ann", 1)
                with pytest.raises(DrainIncomplete):
                    pool.drain()

            def test_stopped_by_a_handler(workpool_pool):
                pool = workpool_pool(lambda event: pool.stop(), workers=1)
                pool.add_many([("ann", 1), ("ann", 2)])
            """,
            passed=3,
        )

    def test_a_test_that_failed_is_not_told_what_is_left(self, user: User) -> None:
        told = user.run(
            """
            def test_it(workpool_pool):
                pool = workpool_pool(park)
                pool.add("ann", 1)
                workpool_pool.wait_until_still()
                assert pool.stats().handled == 1
            """,
            failed=1,
        )
        assert "was left with" not in told

    def test_a_test_that_failed_is_told_of_the_pool_that_did(self, user: User) -> None:
        told = user.run(
            """
            def test_it(workpool_pool):
                pool = workpool_pool(fail)
                pool.add("ann", 1)
                workpool_pool.wait_until_still()
                assert pool.stats().handled == 1
            """,
            failed=1,
            errors=1,
        )
        assert "the handler of key 'ann' raised ValueError" in told

    def test_a_wait_for_a_clock_that_stands_gives_up_and_says_so(self, user: User) -> None:
        told = user.run(
            """
            @pytest.fixture
            def workpool_time_limit():
                return 0.1

            def test_drain(workpool_pool):
                pool = workpool_pool(fail, on_failure=Retry(base=60, jitter="none"))
                pool.add("ann", 1)
                pool.drain()

            def test_flush(workpool_pool):
                pool = workpool_pool(fail, on_failure=Retry(base=60, jitter="none"))
                pool.add("ann", 1)
                pool.flush()

            def test_flush_key(workpool_pool):
                pool = workpool_pool(fail, on_failure=Retry(base=60, jitter="none"))
                pool.add("ann", 1)
                pool.flush("bob")
                pool.flush("ann")

            def test_block(workpool_pool):
                with workpool_pool(fail, on_failure=Retry(base=60, jitter="none")) as pool:
                    pool.add("ann", 1)
            """,
            failed=4,
        )
        assert told.count("advance the clock by 60 s") == 4

    def test_a_handler_that_does_not_return_is_told_with_its_place(self, pytester: pytest.Pytester) -> None:
        """In a process of its own, which ends although the thread stays."""
        pytester.makepyfile(
            HEAD
            + inspect.cleandoc(
                """
                @pytest.fixture
                def workpool_time_limit():
                    return 0.2

                def hang(event):
                    threading.Event().wait()  # Here.

                def test_added(workpool_pool, workpool_history):
                    pool = workpool_pool(workpool_history.handler(hang))
                    workpool_history.add(pool, "ann", 1)

                def test_stopped(workpool_pool):
                    pool = workpool_pool(hang)
                    pool.add("ann", 1)
                    while not pool.stats().in_flight:
                        pass
                    pool.stop()

                def test_left_by_an_error(workpool_pool):
                    with workpool_pool(hang) as pool:
                        pool.add("ann", 1)
                        while not pool.stats().in_flight:
                            pass
                        raise LookupError("mine")

                def test_full(workpool_pool):
                    pool = workpool_pool(hang, max_backlog=1, workers=1)
                    pool.add_many([("ann", 1), ("ann", 2), ("ann", 3)])
                """
            )
        )
        result = pytester.runpytest_subprocess(*OPTIONS, timeout=PATIENCE)
        result.assert_outcomes(passed=1, failed=3, errors=4)
        told = result.stdout.str()
        line = HEAD.count(NEWLINE) + 6
        place = f"the handler of key 'ann' has not returned, and is at {pytester.path.name[:-1]}.py:{line} in hang"
        assert told.count("cannot end: 0.2 s after the test a handler has not returned") == 4
        assert told.count(place) == 6  # At each teardown, and where stop() and add() gave up.
        assert "LookupError: mine" in told


class TestStill:
    def test_it_waits_for_what_goes_on(self, user: User) -> None:
        user.run(
            """
            def test_it(workpool_pool, workpool_clock):
                failures = iter([ValueError(), ValueError()])

                def handle(event):
                    for failure in failures:
                        raise failure

                pool = workpool_pool(handle, on_failure=Retry(base=60, jitter="none"))
                pool.add("ann", 1)
                for wait in (60, 120):
                    workpool_pool.wait_until_still()
                    assert pool.explain("ann").state == "retrying"
                    workpool_clock.advance(wait)
                workpool_pool.wait_until_still()
                assert pool.stats().handled == 1
            """,
            passed=1,
        )

    def test_it_gives_up_and_says_what_goes_on(self, user: User) -> None:
        told = user.run(
            """
            @pytest.fixture
            def workpool_time_limit():
                return 0.1

            def test_it(workpool_pool):
                gate = threading.Event()
                workpool_pool(lambda event: gate.wait(30)).add("ann", 1)
                try:
                    workpool_pool.wait_until_still()
                finally:
                    gate.set()

            def test_loop(workpool_asyncio_pool):
                async def main():
                    gate = asyncio.Event()

                    async def handle(event):
                        await gate.wait()

                    async with workpool_asyncio_pool(handle) as pool:
                        await pool.add("ann", 1)
                        with pytest.raises(TimeoutError, match="is not still"):
                            await workpool_asyncio_pool.wait_until_still()
                        gate.set()
                        await workpool_asyncio_pool.wait_until_still()
                        assert pool.stats().handled == 1

                asyncio.run(main())
            """,
            failed=1,
            passed=1,
        )
        assert "pool 'test_it' is not still in 0.1 s" in told
        assert "the handler of key 'ann' has not returned, and is at" in told


class TestAsyncioPool:
    def test_it_handles_in_asyncio_run_on_the_fake_clock(self, user: User) -> None:
        user.run(
            """
            def test_it(workpool_asyncio_pool, workpool_clock, workpool_history):
                async def handle(event, delivery):
                    if delivery.attempt == 1:
                        fail(event)

                async def main():
                    handler = workpool_history.handler(handle)
                    async with workpool_asyncio_pool(handler, on_failure=Retry(base=60, jitter="none")) as pool:
                        await workpool_history.add(pool, "ann", 1)
                        await workpool_asyncio_pool.wait_until_still()
                        workpool_clock.advance(60)
                    assert pool.stats().handled == 1

                asyncio.run(main())
            """,
            passed=1,
        )

    def test_what_the_test_has_not_seen_fails_it(self, user: User) -> None:
        told = user.run(
            """
            async def broken(event):
                fail(event)

            async def start(pool):
                pool.start()
                await pool.add("ann", 1)
                await asyncio.sleep(0)
                return pool

            def test_failed(workpool_asyncio_pool):
                asyncio.run(start(workpool_asyncio_pool(broken)))

            async def slow(event):
                await asyncio.Event().wait()

            def test_left(workpool_asyncio_pool):
                asyncio.run(start(workpool_asyncio_pool(slow)))

            def test_open(loop, workpool_asyncio_pool):
                loop.run_until_complete(start(workpool_asyncio_pool(slow)))

            @pytest.fixture
            def loop():
                yield (runner := asyncio.Runner()).get_loop()
                runner.close()

            def test_unstarted(workpool_asyncio_pool):
                asyncio.run(workpool_asyncio_pool(slow).add("ann", 1))
            """,
            passed=4,
            errors=4,
        )
        assert "pool 'test_failed' failed: the handler of key 'ann' raised ValueError" in told
        assert "pool 'test_left' was left with events: 1, of keys 'ann'" in told
        assert "pool 'test_open' has not ended. Have its loop end it: `async with` it" in told
        assert "pool 'test_unstarted' has not ended" in told

    def test_what_it_has_seen_does_not(self, user: User) -> None:
        user.run(
            """
            async def broken(event):
                fail(event)

            async def closed(event):
                park(event)

            def test_failed(workpool_asyncio_pool):
                async def main():
                    async with workpool_asyncio_pool(broken) as pool:
                        await pool.add("ann", 1)

                with pytest.raises(HandlerError):
                    asyncio.run(main())

            @pytest.mark.parametrize("add", ["add", "add_nowait"])
            def test_adding(workpool_asyncio_pool, add):
                async def main():
                    pool = workpool_asyncio_pool(broken).start()
                    await pool.add("ann", 1)
                    await workpool_asyncio_pool.wait_until_still()
                    with pytest.raises(HandlerError):
                        await (pool.add("ann", 2) if add == "add" else asyncio.sleep(0, pool.add_nowait("ann", 2)))

                asyncio.run(main())

            def test_taken(workpool_asyncio_pool):
                async def main():
                    pool = workpool_asyncio_pool(closed).start()
                    await pool.add("ann", 1)
                    assert await pool.stop() == [("ann", 1)]

                asyncio.run(main())

            def test_unused(workpool_asyncio_pool):
                workpool_asyncio_pool(broken)
            """,
            passed=5,
        )

    def test_a_handler_that_does_not_return_ends_with_its_loop(self, user: User) -> None:
        told = user.run(
            """
            @pytest.fixture
            def workpool_time_limit():
                return 0.1

            async def hang(event):
                await asyncio.Event().wait()

            def test_drained(workpool_asyncio_pool):
                async def main():
                    async with workpool_asyncio_pool(hang) as pool:
                        await pool.add("ann", 1)

                asyncio.run(main())

            def test_flushed(workpool_asyncio_pool):
                async def main():
                    pool = workpool_asyncio_pool(hang).start()
                    await pool.add("ann", 1)
                    await pool.flush()

                asyncio.run(main())

            def test_left_by_an_error(workpool_asyncio_pool):
                async def main():
                    async with workpool_asyncio_pool(hang) as pool:
                        await pool.add("ann", 1)
                        while not pool.stats().in_flight:
                            await asyncio.sleep(0)
                        raise LookupError("mine")

                asyncio.run(main())
            """,
            failed=3,
        )
        assert re.search(r"the handler of key 'ann' has not returned, and is at \S+\.py:\d+ in hang", told)
        assert "LookupError: mine" in told


class TestHistory:
    BROKEN = """
            def broken(history, pool):
                history.add(pool, "ann", 1)
                while not history.handled("ann"):
                    pass
                history._record("end", 0, "ann")  # As if it were handled once more.
    """

    def test_a_broken_promise_fails_a_test_that_has_not_checked(self, user: User) -> None:
        """Whichever fixture comes first, the history is checked when the pool has ended."""
        told = user.run(
            self.BROKEN
            + """
            def test_one(workpool_pool, workpool_history):
                broken(workpool_history, workpool_pool(workpool_history.handler(print)))

            def test_other(workpool_history, workpool_pool):
                broken(workpool_history, workpool_pool(workpool_history.handler(print)))

            def test_own(workpool_history):
                with EventWorkerPool(workpool_history.handler(print)) as pool:
                    broken(workpool_history, pool)

            def test_failed(workpool_pool, workpool_history):
                broken(workpool_history, workpool_pool(workpool_history.handler(print)))
                assert False
            """,
            passed=3,
            failed=1,
            errors=4,
        )
        assert told.count("\nBrokenPromise: P1 exactly once: event 0 was accepted, handled 2 times") == 4

    def test_one_that_the_test_has_seen_does_not(self, user: User) -> None:
        user.run(
            self.BROKEN
            + """
            def test_it(workpool_pool, workpool_history):
                pool = workpool_pool(workpool_history.handler(print))
                broken(workpool_history, pool)
                pool.drain()
                with pytest.raises(AssertionError, match="P1"):
                    workpool_history.check(pool)
            """,
            passed=1,
        )

    def test_what_was_added_after_a_check_is_checked(self, user: User) -> None:
        user.run(
            self.BROKEN
            + """
            def test_it(workpool_pool, workpool_history):
                pool = workpool_pool(workpool_history.handler(print))
                workpool_history.check(pool)
                broken(workpool_history, pool)
            """,
            passed=1,
            errors=1,
        )

    def test_a_pool_that_has_not_ended_is_told(self, user: User) -> None:
        told = user.run(
            """
            pools = []

            def test_it(workpool_history):
                pools.append(EventWorkerPool(workpool_history.handler(print)).start())
                workpool_history.add(pools[0], "ann", 1)

            def test_failed(workpool_history):
                pools.append(EventWorkerPool(workpool_history.handler(print)).start())
                workpool_history.add(pools[1], "ann", 1)
                assert False

            def test_end():
                for pool in pools:
                    pool.drain()
            """,
            passed=2,
            failed=1,
            errors=1,
        )
        assert "workpool_history cannot check pool 'default', which has not ended: drain() or stop() it" in told

    def test_what_a_test_that_failed_holds_is_no_residue(self, user: User) -> None:
        told = user.run(
            """
            def test_it(workpool_pool, workpool_history):
                pool = workpool_pool(workpool_history.handler(print))
                pool.drain()
                workpool_history.add(pool, "ann", 1)
            """,
            failed=1,
        )
        assert "PoolClosed" in told

    def test_a_retried_event_is_no_residue_though_its_failure_was_logged(self, user: User) -> None:
        user.run(
            """
            def test_it(workpool_pool, workpool_history, caplog):
                def handle(event, delivery):
                    if delivery.attempt == 1:
                        raise ValueError(event)

                pool = workpool_pool(workpool_history.handler(handle), on_failure=Retry(base=0))
                workpool_history.add(pool, "ann", 1)
                pool.drain()
            """,
            passed=1,
        )

    @pytest.mark.parametrize(("limit", "patience"), [(7.0, 7.0), (0.1, 1.0)])
    def test_an_event_may_wait_as_long_as_a_pool_may(self, user: User, limit: float, patience: float) -> None:
        user.run(
            f"""
            @pytest.fixture
            def workpool_time_limit():
                return {limit}

            def test_it(workpool_history):
                assert workpool_history._patience == {patience}
            """,
            passed=1,
        )

    def test_a_second_pool_is_refused(self, user: User) -> None:
        user.run(
            """
            @pytest.mark.parametrize("add", ["add", "add_nowait"])
            def test_it(workpool_pool, workpool_history, add):
                handler = workpool_history.handler(print)
                workpool_history.add(workpool_pool(handler), "ann", 1)
                with pytest.raises(ValueError, match="of one pool"):
                    getattr(workpool_history, add)(workpool_pool(handler), "ann", 2)
            """,
            passed=2,
        )


def test_the_clock_stands_at_0_and_is_moved(user: User) -> None:
    user.run(
        """
        def test_it(workpool_clock):
            workpool_clock.advance(60)
            assert workpool_clock.now() == 60

        def test_another(workpool_clock):
            assert workpool_clock.now() == 0
        """,
        passed=2,
    )


def test_a_limit_that_is_no_number_is_told(user: User) -> None:
    told = user.run(
        """
        @pytest.fixture
        def workpool_time_limit():
            return "long"

        def test_it(workpool_pool): ...
        """,
        errors=1,
    )
    assert "TypeError: workpool_time_limit must be a number of seconds" in told


def test_the_api_server_is_here_too_and_may_be_loaded_twice(user: User) -> None:
    user.run(
        """
        pytest_plugins += ["workpool.testing.kubernetes.fixture"]

        def test_it(kubernetes_api):
            assert kubernetes_api.objects("v1/pods") == []
        """,
        passed=1,
    )


def test_the_conftest_may_load_it(pytester: pytest.Pytester) -> None:
    pytester.makeconftest("pytest_plugins = ['workpool.testing.plugin']")
    pytester.makepyfile("def test_it(workpool_pool, workpool_clock, workpool_history, kubernetes_api): ...")
    pytester.runpytest_inprocess(*OPTIONS).assert_outcomes(passed=1)


def test_nothing_loads_it_unasked(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("def test_it(workpool_pool): ...")
    result = pytester.runpytest_inprocess(*OPTIONS)
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*fixture 'workpool_pool' not found*"])


def test_the_rest_of_the_package_does_not_import_pytest() -> None:
    done = run_python("import sys, workpool.testing, workpool.testing.watched; assert 'pytest' not in sys.modules")
    assert done.returncode == 0, done.stderr


def test_the_page(user: User) -> None:
    """Each of its examples, in one module."""
    blocks = re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    assert len(blocks) == 6
    user.run("\n".join(blocks), passed=4)


def test_the_page_tells_of_each_fixture() -> None:
    module = sys.modules[workpool_history.__module__]
    fixtures = [name for name in module.__all__ if name.startswith(("workpool_", "kubernetes_"))]
    assert len(fixtures) == 6
    for name in fixtures:
        assert f"`{name}`" in PAGE
        assert f"| `{name}`" in (module.__doc__ or "")
