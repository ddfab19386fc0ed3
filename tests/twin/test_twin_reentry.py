"""P11 and fair play in C: whatever a call out raises or does, each event is in one place, and others get a turn."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from itertools import repeat
from typing import Any

import pytest

from support import PATIENCE, adds_up, eventually, in_thread, run_python
from tracer import Cut, Tracer, run_cut
from workpool import EventWorkerPool, HandlerError, PoolClosed, Skip

INSIDE = "this thread is inside the pool already"


class Key:
    """Calls something when it is hashed or compared."""

    act: Callable[[], object] | None = None
    at = ""

    def __init__(self, number: int = 0) -> None:
        self.number = number

    def call(self, where: str) -> None:
        if Key.act is not None and Key.at == where:
            act, Key.act = Key.act, None
            act()

    def __hash__(self) -> int:
        self.call("hash")
        return 1

    def __eq__(self, other: object) -> bool:
        self.call("eq")
        return isinstance(other, Key) and self.number == other.number


@pytest.fixture(autouse=True)
def no_act_left() -> Iterator[None]:
    yield
    Key.act = None


@pytest.mark.parametrize("where", ["hash", "eq"])
@pytest.mark.parametrize("call", ["add", "add_many", "add_nowait"])
@pytest.mark.parametrize("events", [0, 1, 2, 3])
def test_a_key_that_calls_its_pool_is_told_and_the_pool_goes_on(where: str, call: str, events: int) -> None:
    handled: list[int] = []
    pool: EventWorkerPool[Any, int] = EventWorkerPool(handled.append, workers=1)
    pool.add(Key(9), 100)
    for event in range(events):
        pool.add(Key(), event)
    calls = {
        "add": pool.add,
        "add_nowait": pool.add_nowait,
        "add_many": lambda key, event: pool.add_many([(key, event)]),
    }
    Key.act, Key.at = partial(pool.add, "other", 0), where
    with pytest.raises(RuntimeError, match=INSIDE):
        calls[call](Key(), 7)
    assert pool.stats().added == events + 1
    Key.act, Key.at = pool.stats, where
    with pytest.raises(RuntimeError, match=INSIDE):
        calls[call](Key(), 7)
    pool._step(pool._core.check_invariants)
    with pool:
        calls[call](Key(), events)
    assert handled == [100, *range(events + 1)] or sorted(handled) == [*range(events + 1), 100]


@pytest.mark.parametrize("where", ["hash", "eq"])
@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError, TypeError])
def test_a_key_that_raises_in_a_worker_fails_the_pool_with_each_event_in_one_place(where: str, error: Any) -> None:
    def stop() -> None:
        raise error("no")

    def handle(event: int) -> None:
        if event == 0:
            Key.act, Key.at = stop, where

    pool: EventWorkerPool[Any, int] = EventWorkerPool(handle, workers=1)
    for event in range(3):
        pool.add(Key(1), event)
    pool.add(Key(2), 3)
    pool.start()
    with pytest.raises(HandlerError) as info:
        pool.drain(PATIENCE)
    assert isinstance(info.value.__cause__, error)
    stats = pool.stats()
    assert adds_up(stats)
    assert stats.added == stats.handled + stats.returned == 4
    assert not pool._mutex._is_owned()


def test_a_wake_up_that_raises_tells_the_first_error_with_its_context() -> None:
    calls: list[int] = []

    class Pool(EventWorkerPool[str, int]):
        def _wake(self, *_: object) -> None:
            calls.append(len(calls))
            try:
                raise KeyError(calls[-1])
            except KeyError:
                raise OSError(calls[-1])  # noqa: B904 - the context is what is looked at

    pool = Pool(print, workers=1)
    pool._core.start(1)
    try:
        raise ValueError("handled while the event is added")
    except ValueError:
        with pytest.raises(OSError, match="0") as info:
            pool.add("a", 1)
    assert calls == [0, 1]
    assert repr(info.value.__context__) == "KeyError(0)"
    assert pool.stop() == [("a", 1)]


def test_a_finaliser_of_an_event_may_add_and_that_of_a_key_outside_may() -> None:
    handled: list[object] = []

    class Event:
        def __del__(self) -> None:
            pool.add("from the end", "of an event")

    with EventWorkerPool[str, Any](lambda event: handled.append(type(event)), workers=2) as pool:
        for _ in range(100):
            pool.add("a", Event())
        eventually(lambda: pool.stats().handled == 200)
    assert handled.count(str) == handled.count(Event) == 100


def test_an_endless_flood_in_c_ends_because_another_thread_ends_it() -> None:
    """The events never run out: each adds the next."""
    pool: Any = EventWorkerPool(print, workers=1)
    pool._handler = partial(pool._core.submit, "a")  # As one that adds does it, and none of it is Python.
    pool.start()
    pool.add("a", None)
    for _ in range(20):
        before = pool.stats().handled
        eventually(lambda: pool.stats().handled > before)  # noqa: B023
    pool.stop(PATIENCE)


def test_an_endless_add_many_ends_because_another_thread_ends_it() -> None:
    pool: Any = EventWorkerPool(print, max_backlog=None)
    adding = in_thread(lambda: pool.add_many(zip(repeat("a"), repeat(None), strict=False)))
    eventually(lambda: pool.stats().added > 10_000)
    pool.stop(PATIENCE)
    with pytest.raises(PoolClosed):
        adding()


def test_ctrl_c_ends_an_endless_add_many_at_a_whole_event() -> None:
    script = """
        import os, signal, threading
        from itertools import count, repeat
        from workpool import EventWorkerPool
        signal.signal(signal.SIGINT, signal.default_int_handler)  # A process in the background ignores it.
        pool = EventWorkerPool(print, max_backlog=None)
        def interrupt():
            while pool.stats().added < 10_000:
                pass
            os.kill(os.getpid(), signal.SIGINT)
        threading.Thread(target=interrupt).start()
        try:
            pool.add_many(zip(repeat("a"), count()))
        except KeyboardInterrupt as error:
            left = [event for _, event in pool.stop()]
            print(left == list(range(error.added)), pool._mutex._is_owned())
    """
    result = run_python(script)
    assert (result.stdout, result.stderr) == ("True False\n", "")


def test_ctrl_c_in_the_loop_of_a_worker_goes_to_the_main_thread() -> None:
    script = """
        import os, signal
        from collections import deque
        from workpool import EventWorkerPool
        pool = EventWorkerPool(deque(maxlen=1).append, workers=2, max_backlog=None).start()
        added = 0
        try:
            signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
            signal.signal(signal.SIGALRM, signal.default_int_handler)
            while True:
                pool.add(added % 5, added)
                added += 1
        except KeyboardInterrupt:
            signal.setitimer(signal.ITIMER_REAL, 0)
        pool.drain()
        print(pool.stats().handled - added in (0, 1))
    """
    result = run_python(script)
    assert (result.stdout, result.stderr) == ("True\n", "")


@pytest.mark.skipif(not hasattr(__import__("os"), "fork"), reason="this platform cannot fork")
@pytest.mark.parametrize("where", ["handler", "key", "iterator"])
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_fork_within_leaves_the_child_a_pool_that_raises(where: str) -> None:
    script = f"""
        import os, sys, warnings
        warnings.simplefilter("ignore")
        from workpool import EventWorkerPool
        where = {where!r}
        handled = []
        def fork():
            global child
            child = os.fork()
            if child == 0:
                try:
                    pool.add("x", 1)
                except RuntimeError as error:
                    os.write(1, b"child raises\\n" if "parent" in str(error) else b"what?\\n")
                    if where == "handler":
                        return
                    os._exit(0)
            else:
                os.waitpid(child, 0)
        class Key:
            def __hash__(self):
                if where == "key" and not handled:
                    handled.append(1)
                    fork()
                return 1
        def pairs():
            fork()
            yield "a", 1
        def handle(event):
            if where == "handler" and not handled:
                handled.append(1)
                fork()
                if child == 0:
                    os._exit(0)
        pool = EventWorkerPool(handle, workers=1).start()
        if where == "handler":
            pool.add("a", 1)
        elif where == "key":
            pool.add(Key(), 1)
        else:
            pool.add_many(pairs())
        pool.add("b", 2)
        pool.drain()
        print("parent", pool.stats().handled)
    """
    result = run_python(script)
    assert (result.stdout, result.stderr) == ("child raises\nparent 2\n", "")


def test_a_sub_interpreter_has_a_twin_of_its_own() -> None:
    script = """
        try:
            import _interpreters as interpreters
            create = lambda: interpreters.create("isolated")
            run = interpreters.exec
        except ImportError:
            import _xxsubinterpreters as interpreters
            create, run = interpreters.create, interpreters.run_string
        source = '''if True:
            import gc
            from workpool import EventWorkerPool, _twin
            from workpool.twin import COMPILED, Lanes
            assert COMPILED
            lanes = Lanes()
            lanes.start(1)
            for event in range(100):
                lanes.submit(event % 3, event)
            item = lanes.take(0)
            while item:
                item = lanes.next(0, item[0])
            lanes.check_invariants()
            assert lanes.handled == 100
            pool = EventWorkerPool(print)
            pool.add("a", 1)
            assert pool._core.unhandled() == [("a", 1)]
            pool._unstarted.detach()
            del lanes, pool
            gc.collect()
        '''
        import workpool
        for _ in range(5):
            each = create()
            failed = run(each, source)
            assert not failed, failed
            interpreters.destroy(each)
        with workpool.EventWorkerPool(print, workers=1) as pool:
            pool.add("a", "still here")
    """
    result = run_python(script)
    assert (result.stdout, result.stderr) == ("still here\n", "")


@pytest.mark.parametrize("takes_delivery", [False, True])
def test_a_worker_that_is_cut_at_any_line_around_its_loop_loses_nothing(takes_delivery: bool) -> None:
    """The handler arms the tracer and fails, so that the loop in C comes back and is entered again."""
    cuts = 0
    for at in range(1, 2000):
        tracer = Tracer(at)

        def handle(event: int) -> None:
            if event == 5:
                tracer.armed = False  # noqa: B023
            if event in (1, 4):
                tracer.armed = event == 1  # noqa: B023
                raise OSError("skipped")

        def handle_delivery(event: int, delivery: object) -> None:
            handle(event)

        pool: EventWorkerPool[str, int] = EventWorkerPool(
            handle_delivery if takes_delivery else handle, workers=1, on_failure=Skip()
        )
        for event in range(6):
            pool.add("ab"[event % 2], event)
        failure = run_cut(pool, tracer)
        cuts += failure is not None
        stats = pool.stats()
        assert adds_up(stats)
        assert stats.added == 6 == stats.handled + stats.returned + stats.dead, tracer.where
        assert (stats.in_flight, stats.waiting, stats.keys) == (0, 0, 0), tracer.where
        assert isinstance(failure, Cut) == bool(tracer.where), tracer.where
        if not tracer.where:
            assert cuts > 5
            return
    raise AssertionError("there is no end of lines")
