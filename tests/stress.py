"""What the stresses share: rounds, each random in everything and fixed by a seed, until so many events were checked."""

from __future__ import annotations

import os
import random
import sys
from collections.abc import Callable

from support import end_a_hang

EVENTS = int(os.environ.get("WORKPOOL_STRESS_EVENTS", "1000000"))
"""How many events the history checker goes through in all stresses together."""


def play(share: float, play_round: Callable[[random.Random], int]) -> None:
    """Play rounds until their share of the events was checked. The seed of one that fails is printed.

    Args:
        share: Which part of all events.
        play_round: Plays one, and says how many events it has checked.
    """
    seed = int(os.environ.get("WORKPOOL_STRESS_SEED") or random.randrange(2**32))
    interval = sys.getswitchinterval()
    checked = rounds = 0
    while checked < EVENTS * share:
        end_a_hang()  # It is each round that may not hang.
        rng = random.Random(seed + rounds)
        sys.setswitchinterval(rng.choice([interval, 0.0001, 0.000001]))  # So that threads meet in narrow places too.
        try:
            checked += play_round(rng)
        except BaseException:
            print(f"this was round {rounds}: WORKPOOL_STRESS_SEED={seed + rounds} begins with it")
            raise
        finally:
            sys.setswitchinterval(interval)
        rounds += 1
    print(f"{checked:,} events in {rounds} rounds, from seed {seed}")
