"""An account ledger that shows at once whether order held: no account is ever overdrawn.

    python examples/ledger.py                 each account in order, all accounts at once
    python examples/ledger.py --unordered     the same entries in a plain thread pool, which breaks

    python examples/ledger.py --entries >entries.ndjson
    workpool run examples/ledger.py:book --source entries.ndjson --key account
    workpool run examples/ledger.py:book --source entries.ndjson --key number      (breaks: each entry on its own)

A withdrawal is entered only once the money is there, so whoever books the entries of an account in their order never
sees a negative balance. A deposit takes longer than a withdrawal, though (somebody has to count the money), and so a
pool that starts whatever comes next pays out first.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypedDict

from workpool import EventWorkerPool, HandlerError

ACCOUNTS, ENTRIES = 20, 400


class Entry(TypedDict):
    number: int
    account: str
    amount: int
    text: str


class Overdrawn(Exception):
    pass


balances: defaultdict[str, int] = defaultdict(int)


def book(entry: Entry) -> None:
    """Book one entry, in as long as it takes: the handler."""
    time.sleep(0.01 if entry["amount"] > 0 else 0.001)
    account = entry["account"]
    balances[account] += entry["amount"]
    if balances[account] < 0:
        raise Overdrawn(f"entry {entry['number']} ({entry['text']}) leaves {account} with {balances[account]}")


def entries() -> Iterator[Entry]:
    """The same entries each time; a transfer is one for each of its two accounts."""
    dice = random.Random(1)
    funds: defaultdict[str, int] = defaultdict(int)
    number = 0

    def entry(account: str, amount: int, text: str) -> Entry:
        nonlocal number
        number += 1
        funds[account] += amount
        return {"number": number, "account": account, "amount": amount, "text": text}

    while number < ENTRIES:
        account, other = (f"account-{each:02}" for each in dice.sample(range(ACCOUNTS), 2))
        if not funds[account]:
            yield entry(account, dice.randint(1, 100), "a deposit")
        elif dice.random() < 0.5:
            yield entry(account, -funds[account], "a withdrawal of everything")
        else:
            amount = dice.randint(1, funds[account])
            yield entry(account, -amount, f"a transfer to {other}")
            yield entry(other, amount, f"a transfer from {account}")


def book_in_order() -> None:
    """Book them with the account as the key."""
    pool: EventWorkerPool[str, Entry] = EventWorkerPool(book)
    with pool:
        for each in entries():
            pool.add(each["account"], each)


def book_unordered() -> None:
    """Book them as soon as a thread is free."""
    with ThreadPoolExecutor(8) as pool:
        for booked in [pool.submit(book, each) for each in entries()]:
            booked.result()


def main() -> None:
    arguments = argparse.ArgumentParser(description="Book the entries of a ledger.")
    arguments.add_argument("--unordered", action="store_true", help="book them in a plain thread pool")
    arguments.add_argument("--entries", action="store_true", help="only print them, one JSON object a line")
    wanted = arguments.parse_args()
    if wanted.entries:
        print("\n".join(map(json.dumps, entries())))
        return
    try:
        book_unordered() if wanted.unordered else book_in_order()
    except (HandlerError, Overdrawn) as error:
        sys.exit(f"order broke: {error}")
    expected = sum(each["amount"] for each in entries())
    if sum(balances.values()) != expected:
        sys.exit(f"money was lost: there should be {expected}, and there is {sum(balances.values())}")
    print(f"{len(list(entries()))} entries booked on {len(balances)} accounts, never one overdrawn; {expected} in all")


if __name__ == "__main__":
    main()
