"""Help for the tests of handlers and of pools.

A history of what happened, held to the promises P1 to P5:

    history = History()
    with EventWorkerPool(history.handler(handle)) as pool:
        for event in events:
            history.add(pool, event.account, event)
    history.check(pool)

And your handler under seeded schedules, with faults injected, without a moment of real time:

    explore(Ledger.book, [(entry.account, entry) for entry in entries], setup=Ledger, check=Ledger.check)
"""

from workpool.testing.clock import FakeClock
from workpool.testing.history import BrokenPromise, History
from workpool.testing.loop import Stuck, checkpoint
from workpool.testing.run import InjectedFailure
from workpool.testing.simulation import Counterexample, Explored, explore

__all__ = [
    "BrokenPromise", "Counterexample", "Explored", "FakeClock", "History", "InjectedFailure", "Stuck", "checkpoint",
    "explore",
]  # fmt: skip
