"""What a reflector asks of the reader around it, step by step, and what the reader answers.

    step      what the reader does                              answers
    List      asks for a page of the list                       Page | Failure
    Watch     asks for a watch, and holds it open               Opened | Failure
    Read      waits for more lines of the open watch            Lines | Silence | End
    Emit      adds the event to the pool                        Accepted, when the pool has accepted it
    Synced    tells who waits for it that the list is added     Done
    Report    tells whoever looks after it                      Done
    Wait      lets so many seconds pass                         Done
    Refresh   gets new credentials                              Done | Failure
    Ended     raises: the source is over                        nothing

A watch is open from `Opened` until the step is List, Watch, Wait, Refresh or Ended: whoever gets one closes it.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias

from workpool.sources.kubernetes.events import Event

__all__ = [
    "ANSWERS", "Accepted", "Answer", "Done", "Emit", "End", "Ended", "Failure", "Lines", "List", "Opened", "Page",
    "Read", "Refresh", "Report", "Silence", "Step", "Synced", "Wait", "Watch",
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class List:
    """Ask for a page of the list."""

    version: str | None = None
    """Not older than this one; None: the newest; "0": any."""
    token: str = ""
    """What the page before said; empty for the first."""
    limit: int | None = None

    def parameters(self) -> dict[str, str]:
        """The query (R1, R2, R3)."""
        query = {} if self.limit is None else {"limit": str(self.limit)}
        if self.token:
            query["continue"] = self.token
        elif self.version is not None:
            query["resourceVersion"] = self.version
            if self.version != "0":
                query["resourceVersionMatch"] = "NotOlderThan"
        return query


@dataclass(frozen=True, slots=True)
class Watch:
    """Open a watch."""

    version: str | None
    timeout_seconds: int
    """When the server ends it."""
    streaming: bool = False
    """The list comes first, as ADDED lines and a bookmark (R24)."""

    def parameters(self) -> dict[str, str]:
        """The query (R6)."""
        query = {"watch": "true", "allowWatchBookmarks": "true", "timeoutSeconds": str(self.timeout_seconds)}
        if self.version is not None:
            query["resourceVersion"] = self.version
        if self.streaming:
            query |= {"sendInitialEvents": "true", "resourceVersionMatch": "NotOlderThan"}
        return query


@dataclass(frozen=True, slots=True)
class Read:
    """Wait for more lines."""

    seconds: float
    """After so many without any byte, the answer is Silence, and more can be read after it."""


@dataclass(frozen=True, slots=True)
class Emit:
    """Add an event to the pool."""

    event: Event
    name: str
    """Of the object: its namespace and name."""
    after: Hashable | None = None
    """The key of the object's earlier events where that was another: they are to be over first (R27)."""


@dataclass(frozen=True, slots=True)
class Synced:
    """All that was there at the start is added; once, before any live event (R5)."""


@dataclass(frozen=True, slots=True)
class Report:
    """Something is wrong that does not end the source (R14)."""

    what: Literal["list", "watch", "key"]
    """What failed."""
    text: str
    status: int | None = None
    """Of HTTP; None where no answer came."""
    lasting: float = 0.0
    """For how many seconds nothing has succeeded."""
    error: Exception | None = None
    """What the key's function raised."""


@dataclass(frozen=True, slots=True)
class Wait:
    """Let time pass."""

    seconds: float
    why: Report


@dataclass(frozen=True, slots=True)
class Refresh:
    """Get new credentials: the server does not take these."""


@dataclass(frozen=True, slots=True)
class Ended:
    """The source is over, and raises; `give_up_after` has passed, or an object has no key and `missing` is "fail"."""

    why: Report


@dataclass(frozen=True, slots=True)
class Page:
    """A list came: its body."""

    body: bytes


@dataclass(frozen=True, slots=True)
class Opened:
    """The watch was answered with 200."""


@dataclass(frozen=True, slots=True)
class Lines:
    """Lines came. What has no end is no line: the answer is End."""

    values: Sequence[bytes]


@dataclass(frozen=True, slots=True)
class Silence:
    """No line came in time."""


@dataclass(frozen=True, slots=True)
class End:
    """The watch ended, in order or by a reset connection, which cannot always be told apart (R38)."""


@dataclass(frozen=True, slots=True)
class Accepted:
    """The pool has accepted the event."""


@dataclass(frozen=True, slots=True)
class Done:
    """The step is done."""


@dataclass(frozen=True, slots=True)
class Failure:
    """The request failed, or never got there; or the server said so inside a watch."""

    status: int | None = None
    """Of HTTP; None where no answer came."""
    body: Any = None
    """Decoded if it was JSON, else text or None (R38)."""
    retry_after: float | None = None
    """Seconds, as the header says."""
    error: str = ""
    """What happened, where no answer came."""

    @property
    def expired(self) -> bool:
        """The server has forgotten the version, in any guise (R12)."""
        return self.status == 410 or self._status.get("reason") in ("Expired", "Gone")

    @property
    def too_large(self) -> bool:
        """The server has not come to the version yet (R2)."""
        causes = self._details.get("causes")
        reasons = [cause.get("reason") for cause in causes if isinstance(cause, Mapping)] if causes else []
        return self.status == 504 and "ResourceVersionTooLarge" in reasons

    @property
    def refused(self) -> bool:
        """The request itself is wrong, and the same one will not do better."""
        status = self.status or 0
        return 400 <= status < 500 and status not in (401, 403, 404, 410, 429)

    @property
    def wait(self) -> float:
        """Seconds that the server asks for (R13)."""
        asked = self._details.get("retryAfterSeconds")
        return max(self.retry_after or 0.0, float(asked) if isinstance(asked, int | float) else 0.0)

    def __str__(self) -> str:
        said = self._status.get("message") or self.body if self.body else self.error
        return f"{self.status}: {said}"[:200] if self.status else str(said)[:200]

    @property
    def _status(self) -> Mapping[str, Any]:
        return self.body if isinstance(self.body, Mapping) else {}

    @property
    def _details(self) -> Mapping[str, Any]:
        details = self._status.get("details")
        return details if isinstance(details, Mapping) else {}


Step: TypeAlias = List | Watch | Read | Emit | Synced | Report | Wait | Refresh | Ended
Answer: TypeAlias = Page | Opened | Lines | Silence | End | Accepted | Done | Failure

ANSWERS: Final[Mapping[type[Step], tuple[type[Answer], ...]]] = {
    List: (Page, Failure),
    Watch: (Opened, Failure),
    Read: (Lines, Silence, End),
    Emit: (Accepted,),
    Synced: (Done,),
    Report: (Done,),
    Wait: (Done,),
    Refresh: (Done, Failure),
    Ended: (),
}
"""What may be answered to each step."""
