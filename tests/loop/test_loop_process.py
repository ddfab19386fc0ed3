"""P12 on a loop: forks, and copies."""

from __future__ import annotations

import copy
import os
import pickle
from typing import Any

import pytest

from on_loop import Gate
from support import run_python
from workpool.asyncio import EventWorkerPool


@pytest.mark.parametrize("factory", ["asyncio", "uvloop"])
@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this platform")
def test_in_a_child_that_was_forked_in_a_running_loop_every_call_raises_and_the_parent_goes_on(factory: str) -> None:
    pytest.importorskip(factory)
    result = run_python(
        """
        import asyncio, os, sys, warnings, {factory}
        warnings.simplefilter("ignore", DeprecationWarning)
        from workpool.asyncio import EventWorkerPool

        async def refuses(call):
            try:
                result = call()
                if asyncio.iscoroutine(result):
                    await result
            except RuntimeError as error:
                return "parent process" in str(error) or "no running event loop" in str(error)
            return False

        def count(pool):
            refused = 0
            for call in (
                lambda: pool.add("a", 1), lambda: pool.add_nowait("a", 1), lambda: pool.drain(1), lambda: pool.stop(1),
                pool.stats, pool.start, lambda: pool.left, pool.__aenter__, lambda: pool.add_from_thread("a", 1),
            ):
                try:
                    refuses(call).send(None)
                except StopIteration as done:
                    refused += done.value
            return refused

        async def main():
            gate = asyncio.Event()

            async def handle(event):
                await gate.wait()

            pool = EventWorkerPool(handle, workers=2).start()
            unstarted = EventWorkerPool(handle)
            unstarted.add_nowait("a", 1)
            for event in range(5):
                await pool.add(event, event)
            await asyncio.sleep(0)
            child = os.fork()
            if child == 0:
                repr(pool)
                os._exit(count(pool) + count(unstarted))
            _, status = os.waitpid(child, 0)
            gate.set()
            await pool.drain()
            await unstarted.stop()
            print(os.waitstatus_to_exitcode(status), pool.stats().handled)

        with asyncio.Runner(loop_factory={factory}.new_event_loop) as runner:
            runner.run(main())
        """.replace("{factory}", factory)
    )
    assert (result.returncode, result.stderr) == (0, ""), result.stderr
    assert result.stdout.split() == ["18", "5"], result.stdout


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this platform")
def test_a_handler_that_forks_leaves_the_backlog_to_the_parent() -> None:
    result = run_python(
        """
        import asyncio, os, warnings
        warnings.simplefilter("ignore", DeprecationWarning)
        from workpool.asyncio import EventWorkerPool

        parent = os.getpid()

        async def handle(event):
            os.write(1, b"parent" if os.getpid() == parent else b"child")
            os.write(1, b" %d;" % event)
            if event == 0:
                child = os.fork()
                if child:
                    os.waitpid(child, 0)
                else:
                    asyncio.get_event_loop_policy()
                    loop.call_soon(os._exit, 0)  # After whatever the worker does in the child.

        async def main():
            global loop
            loop = asyncio.get_running_loop()
            pool = EventWorkerPool(handle, workers=2)
            for event in range(5):
                pool.add_nowait("a", event)
            pool.start()
            await pool.drain()
            assert pool.stats().handled == 5

        asyncio.run(main())
        """
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout == "".join(f"parent {event};" for event in range(5))
    assert result.stderr == ""


def test_a_pool_does_not_pickle_and_is_not_copied() -> None:
    pool: EventWorkerPool[Any, Any] = EventWorkerPool(Gate(), name="orders")
    for attempt in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match="pool 'orders' holds workers and cannot be pickled or copied"):
            attempt(pool)


def test_a_pool_that_never_started_says_what_it_drops() -> None:
    result = run_python(
        """
        import asyncio
        from workpool.asyncio import EventWorkerPool

        async def handle(event): ...

        async def main():
            await EventWorkerPool(handle, name="orders").add("a", 1)

        asyncio.run(main())
        """
    )
    assert result.stderr.strip() == "pool 'orders' is dropped with 1 events: it was never started"


def test_ctrl_c_on_a_loop_with_a_block_stops_the_pool_and_ends_the_process() -> None:
    result = run_python(
        """
        import asyncio, os, signal
        from workpool.asyncio import EventWorkerPool

        signal.signal(signal.SIGINT, signal.default_int_handler)  # A process in the background ignores it.

        async def handle(event):
            if event == 0:
                os.kill(os.getpid(), signal.SIGINT)
            await asyncio.sleep(0)

        async def main():
            global pool
            async with EventWorkerPool(handle, workers=1) as pool:
                for event in range(3):
                    await pool.add("a", event)
                await asyncio.Event().wait()

        try:
            asyncio.run(main())
        except KeyboardInterrupt:
            print(pool.stats().handled + len(pool.left), repr(pool))
        """
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith("3 <EventWorkerPool 'default': ended")
    assert result.stderr == ""
