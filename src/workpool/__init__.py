"""Handles events concurrently: each exactly once, in order per key, no key blocking another.

- *Exactly once*: an event whose `add` returned ends once, in one way, and is never lost while the process lives.
- *In order per key*: an event starts after the one before it, of the same key, has ended.
- *Isolation*: a key that is slow or failing delays no other; choosing an event costs the same whatever waits.
- *No residue*: a key is only a name. Nothing sets it up, and nothing remains of it when it is idle.

    with EventWorkerPool(handle) as pool:
        for event in stream:
            pool.add(event.account, event)
"""

from workpool.dispatch import Stats
from workpool.errors import (
    DrainIncomplete,
    HandlerError,
    PoolClosed,
    PoolFull,
    SourceError,
    StopTimeout,
    WorkpoolError,
)
from workpool.handlers import Delivery
from workpool.threads import EventWorkerPool

__all__ = [
    "Delivery",
    "DrainIncomplete",
    "EventWorkerPool",
    "HandlerError",
    "PoolClosed",
    "PoolFull",
    "SourceError",
    "Stats",
    "StopTimeout",
    "WorkpoolError",
]
