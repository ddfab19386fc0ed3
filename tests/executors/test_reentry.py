"""P11 on executors: an exception between any two lines of a delivery loses nothing."""

from __future__ import annotations

import pytest

from executors.fakes import Factory, Inline
from support import adds_up
from tracer import Cut, Tracer, run_cut
from workpool.executors import EventWorkerPool


@pytest.mark.parametrize("word", ["run", "break", "lose", "cancel", "refuse"])
def test_a_worker_that_is_cut_at_any_line_of_a_delivery_loses_nothing(word: str) -> None:
    """It may happen once more: what comes between the handler's return and its record cannot be told from a loss."""
    cuts = 0
    for at in range(1, 1000):
        handled: list[int] = []
        tracer = Tracer(at)

        def handle(event: int) -> None:
            handled.append(event)  # noqa: B023
            if event in (1, 5):
                tracer.armed = event == 1 and not tracer.where  # noqa: B023

        make = Factory(Inline("run", "run", word), Inline())
        pool: EventWorkerPool[str, int] = EventWorkerPool(handle, executor=make, workers=1)
        for event in range(6):
            pool.add("ab"[event % 2], event)
        failure = run_cut(pool, tracer)
        cuts += failure is not None
        assert isinstance(failure, Cut) == bool(tracer.where)
        stats = pool.stats()
        assert adds_up(stats), tracer.where
        assert (stats.added, stats.in_flight, stats.waiting, stats.keys) == (6, 0, 0, 0), tracer.where
        left = [event for _, event in pool.left]
        assert sorted({*handled, *left}) == list(range(6)), tracer.where
        assert len(set(handled) & set(left)) <= 1, tracer.where
        assert stats.handled == 6 - len(left), tracer.where
        for key in (0, 1):
            events = [event for event in handled + left if event % 2 == key]
            assert events == sorted(events), tracer.where
        assert make.made[0].ends, tracer.where
        if not tracer.where:
            assert cuts > 20, "the tracer has seen no lines"
            return
    raise AssertionError("there is no end of lines")
