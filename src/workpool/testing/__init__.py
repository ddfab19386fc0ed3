"""Help for the tests of handlers and of pools: a history of what happened, held to the promises P1 to P5.

history = History()
with EventWorkerPool(history.handler(handle)) as pool:
    for event in events:
        history.add(pool, event.account, event)
history.check(pool)
"""

from workpool.testing.history import BrokenPromise, History

__all__ = ["BrokenPromise", "History"]
