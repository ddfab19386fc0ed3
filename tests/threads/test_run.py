"""`pool.run` on threads: Ctrl-C while it waits."""

from __future__ import annotations

import signal
import threading
from typing import Any

import pytest

from support import PATIENCE
from workpool import EventWorkerPool


class Interrupting:
    """Brings an event, and has the main thread interrupted."""

    def __init__(self) -> None:
        self.is_stopped = threading.Event()
        self.has_ended = threading.Event()

    def feed(self, intake: Any) -> None:
        intake.add("a", 1)
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
        assert self.is_stopped.wait(PATIENCE)
        self.has_ended.set()

    def stop(self) -> None:
        self.is_stopped.set()


@pytest.mark.skipif(not hasattr(signal, "pthread_kill"), reason="it has no way to interrupt the main thread")
def test_ctrl_c_stops_the_source_first_and_leaves_the_pool_to_its_block() -> None:
    source = Interrupting()
    handled: list[int] = []
    pool: EventWorkerPool[str, int] = EventWorkerPool(handled.append, workers=1)
    with pytest.raises(KeyboardInterrupt):
        pool.run(source)
    assert source.has_ended.is_set()
    pool.run()
    pool.drain(PATIENCE)
    assert handled == [1]
    assert pool._core.audience == []
