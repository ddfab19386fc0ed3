"""A ledger with a race that no ordinary test sees, found by running its handler under many schedules.

    python examples/ledger_race.py            a transfer is booked on both accounts at once: money is lost
    python examples/ledger_race.py --fixed    an entry for each account, in that account's own lane: none is
    python examples/ledger_race.py --plain    the first again, as a plain function with a checkpoint

The pool keeps the transfers of one account in order. But a transfer changes two accounts, and only one of them is its
key: while it waits between reading the other's balance and writing it, that account's own lane may have moved on.
"""

from __future__ import annotations

import asyncio
import sys
from collections import Counter
from dataclasses import dataclass

from workpool.testing import Counterexample, checkpoint, explore

START = {"ann": 100, "bob": 100, "cat": 100}


@dataclass(frozen=True)
class Transfer:
    number: int
    source: str
    target: str
    amount: int


@dataclass(frozen=True)
class Entry:
    number: int
    account: str
    amount: int


class Ledger:
    """Balances, as a database would keep them, with the number of all that was booked: once more is harmless."""

    def __init__(self) -> None:
        self.balances: Counter[str] = Counter(START)
        self.booked: set[tuple[int, str]] = set()

    async def transfer(self, event: Transfer) -> None:
        """The race: what was read is old when it is written."""
        if (event.number, event.source) in self.booked:
            return
        source, target = self.balances[event.source], self.balances[event.target]
        await asyncio.sleep(0.01)  # The database answers.
        self._write(event, source, target)

    def transfer_plain(self, event: Transfer) -> None:
        """The same race, on threads."""
        if (event.number, event.source) in self.booked:
            return
        source, target = self.balances[event.source], self.balances[event.target]
        checkpoint()
        self._write(event, source, target)

    async def enter(self, event: Entry) -> None:
        """No race: nobody else changes this account, for its entries are in its lane."""
        if (event.number, event.account) in self.booked:
            return
        balance = self.balances[event.account]
        await asyncio.sleep(0.01)
        self.balances[event.account] = balance + event.amount
        self.booked.add((event.number, event.account))

    def check(self) -> None:
        assert self.balances.total() == sum(START.values()), f"money was lost or made: {dict(self.balances)}"

    def _write(self, event: Transfer, source: int, target: int) -> None:
        self.balances[event.source] = source - event.amount
        self.balances[event.target] = target + event.amount
        self.booked.add((event.number, event.source))


TRANSFERS = [
    Transfer(number, source, target, 10 * number)
    for number, (source, target) in enumerate([("ann", "bob"), ("cat", "ann"), ("bob", "cat"), ("ann", "cat")], start=1)
]
ENTRIES = [
    entry
    for each in TRANSFERS
    for entry in (Entry(each.number, each.source, -each.amount), Entry(each.number, each.target, each.amount))
]


def main() -> None:
    try:
        if "--fixed" in sys.argv:
            print(explore(Ledger.enter, [(each.account, each) for each in ENTRIES], setup=Ledger, check=Ledger.check))
        else:
            handler = Ledger.transfer_plain if "--plain" in sys.argv else Ledger.transfer
            print(explore(handler, [(each.source, each) for each in TRANSFERS], setup=Ledger, check=Ledger.check))
    except Counterexample as found:
        sys.exit(str(found))


if __name__ == "__main__":
    main()
