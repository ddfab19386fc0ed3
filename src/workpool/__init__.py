"""Handles events concurrently: each exactly once, in order per key, no key blocking another.

- *Exactly once*: an event whose `add` returned ends once, in one way, and is never lost while the process lives.
- *In order per key*: an event starts after the one before it, of the same key, has ended.
- *Isolation*: a key that is slow or failing delays no other; choosing an event costs the same whatever waits.
- *No residue*: a key is only a name. Nothing sets it up, and nothing remains of it when it is idle.

    with EventWorkerPool(handle) as pool:
        for event in stream:
            pool.add(event.account, event)
"""

from workpool.errors import (
    BatchIncomplete,
    DrainIncomplete,
    FlushIncomplete,
    HandlerError,
    PoolClosed,
    PoolFull,
    SourceError,
    StopTimeout,
    WorkpoolError,
)
from workpool.futures import KeyedExecutor
from workpool.handlers import Delivery
from workpool.hooks import Hooks
from workpool.policy import Fail, Park, ParkKey, Policy, Retry, RetryAfter, Skip, SkipEvent, Verdict
from workpool.records import Dead, Explanation, Stats
from workpool.threads import EventWorkerPool
from workpool.twin import COMPILED

__all__ = [
    "COMPILED",
    "BatchIncomplete",
    "Dead",
    "Delivery",
    "DrainIncomplete",
    "EventWorkerPool",
    "Explanation",
    "Fail",
    "FlushIncomplete",
    "HandlerError",
    "Hooks",
    "KeyedExecutor",
    "Park",
    "ParkKey",
    "Policy",
    "PoolClosed",
    "PoolFull",
    "Retry",
    "RetryAfter",
    "Skip",
    "SkipEvent",
    "SourceError",
    "Stats",
    "StopTimeout",
    "Verdict",
    "WorkpoolError",
]
