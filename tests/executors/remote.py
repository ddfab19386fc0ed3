"""Handlers that other processes can import, what they write down, and how a test reads it."""

from __future__ import annotations

import os
import signal
import threading
from concurrent.futures import BrokenExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from workpool import Delivery, ParkKey, RetryAfter, SkipEvent


@dataclass(frozen=True)
class Order:
    """An event, which says what its handler does."""

    key: str
    number: int
    folder: str
    what: str = ""


class Record(NamedTuple):
    """What a handler has written down."""

    what: str
    key: str
    number: int
    attempt: int
    process: int


class Folder:
    """Where handlers write down what they do, and wait until a gate opens."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.gates: list[int] = []
        os.mkfifo(path / "gate")

    def order(self, key: str, number: int = 0, what: str = "") -> tuple[str, Order]:
        """What to add."""
        return key, Order(key, number, str(self.path), what)

    def open_gate(self) -> None:
        """Let all go on that wait at the gate, now and later."""
        self.gates.append(os.open(self.path / "gate", os.O_RDWR))

    def close(self) -> None:
        """Be done with it."""
        for gate in self.gates:
            os.close(gate)

    def records(self, what: str = "") -> list[Record]:
        """What is written down by now, in the order of the writes."""
        log = self.path / "log"
        fields = [line.split(",") for line in log.read_text().splitlines()] if log.exists() else []
        found = [
            Record(name, key, int(number), int(attempt), int(process)) for name, key, number, attempt, process in fields
        ]
        return [record for record in found if what in ("", record.what)]

    def check(self, *, counts_attempts: bool = True) -> list[tuple[str, int]]:
        """Hold what is written down to P2, and to what an executor that breaks may do to it.

        Of one key each delivery ends before the next starts, and one that was lost never ends; the next is then of the
        same event, counted up.

        Returns:
            Each event that was handled, as (key, number), in the order of the ends.
        """
        for key in {record.key for record in self.records()}:
            before: Record | None = None
            for record in (record for record in self.records() if record.key == key):
                if record.what == "end":
                    assert before is not None, record
                    assert before == record._replace(what="start"), (before, record)
                elif before is not None and before.what == "start":
                    assert record.number == before.number, (before, record)
                    assert record.attempt >= before.attempt + counts_attempts, (before, record)
                elif before is not None:
                    assert record.number > before.number, (before, record)
                before = record
        return [(record.key, record.number) for record in self.records("end")]


def note(what: str, event: Order, delivery: Delivery) -> None:
    file = os.open(Path(event.folder) / "log", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(file, f"{what},{event.key},{event.number},{delivery.attempt},{os.getpid()}\n".encode())
    os.close(file)


class NotMadeAgain(Exception):
    """Has not the arguments that it is made of, as many have not: it pickles, and cannot be made again."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(f"{code}: {text}")


class BrokenNotMadeAgain(BrokenExecutor):
    """As above, and looks like the executor's."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(f"{code}: {text}")


class HoldsLock(Exception):
    """Does not pickle."""

    def __init__(self) -> None:
        super().__init__("of no use elsewhere", threading.Lock())


def handle(event: Order, delivery: Delivery) -> object:
    """Do what the event says, between two notes."""
    note("start", event, delivery)
    match event.what:
        case "wait":
            os.close(os.open(Path(event.folder) / "gate", os.O_RDONLY))
        case "ignore SIGTERM and wait" if delivery.attempt == 1:
            signal.signal(signal.SIGTERM, lambda *_: None)
            os.close(os.open(Path(event.folder) / "gate", os.O_RDONLY))
        case "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        case "kill once" if delivery.attempt == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        case "exit":
            raise SystemExit(3)
        case "raise":
            raise ValueError("as it was told")
        case "raise what is not made again":
            raise NotMadeAgain(7, "no")
        case "raise what does not pickle":
            raise HoldsLock
        case "raise what looks like the executor's":
            raise BrokenExecutor("of the handler")
        case "raise what looks like the executor's and is not made again":
            raise BrokenNotMadeAgain(7, "no")
        case "retry" if delivery.attempt == 1:
            raise RetryAfter(0)
        case "skip":
            raise SkipEvent("no good")
        case "park":
            raise ParkKey
        case "return what does not pickle":
            note("end", event, delivery)
            return threading.Lock()
    note("end", event, delivery)
    return None
