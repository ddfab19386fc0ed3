"""What can go wrong with a request, each one value: `ApiServer.inject` has it strike.

    Fault
    ├── Answer        the request is answered by an HTTP error
    ├── Do            something happens first, then the request is answered
    ├── Reset         the connection is reset (RST)             ┐ of a watch: after so many lines,
    ├── Hang          nothing comes any more: half open         │ or before it is answered at all;
    ├── Truncate      the connection ends amid a line           ┘ of other requests: instead of the answer
    ├── End           the watch ends, properly                  ┐
    ├── ErrorEvent    an ERROR comes in the stream, and it ends │ of a watch only
    ├── Garbage       a line comes that is no JSON              │
    └── Unversioned   an object comes without a version         ┘

`after` counts the lines that the watch has sent before, bookmarks included. Those that spoil a line, `Truncate` and
`Unversioned`, wait for the next one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from workpool.testing.kubernetes import status

__all__ = [
    "Answer", "Do", "End", "ErrorEvent", "Fault", "Garbage", "Hang", "Reset", "StreamFault", "Truncate", "Unversioned",
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Answer:
    """The request is answered by an error, such as 401, 403, 404, 410, 429, 500 or 504.

    A 429 is what the server's fairness filter sends unless told otherwise: plain text, and `Retry-After`.
    """

    code: int
    body: Mapping[str, Any] | str | None = None
    """A Status object, or plain text; None for what usually comes with the code."""
    retry_after: int | None = None
    """Seconds for the header `Retry-After`."""

    def __post_init__(self) -> None:
        self.filled()  # Refuses a code without a body at once, and not when it strikes.

    def filled(self) -> Answer:
        """With its body, whatever was left out."""
        if self.code == 429 and self.body is None:
            return Answer(429, "Too many requests, please try again later.\n", self.retry_after or 1)
        return self if self.body is not None else Answer(self.code, status.of_code(self.code), self.retry_after)


@dataclass(frozen=True, slots=True)
class Do:
    """Call something when the request is there, such as `server.compact`, and then answer it."""

    action: Callable[[], object]


@dataclass(frozen=True, slots=True)
class Reset:
    """The connection is reset."""

    after: int | None = 0
    """Lines; None for before the answer has begun."""


@dataclass(frozen=True, slots=True)
class Hang:
    """Nothing comes any more, and the connection stays: until the client closes it, or the server stops."""

    after: int | None = 0
    """Lines; None for before the answer has begun."""


@dataclass(frozen=True, slots=True)
class Truncate:
    """Half a line comes, and then the end of the connection, without the last chunk."""

    after: int = 0


@dataclass(frozen=True, slots=True)
class End:
    """The watch ends with a proper last chunk, though more may have happened, as it does to a reader that is slow."""

    after: int = 0


@dataclass(frozen=True, slots=True)
class ErrorEvent:
    """An ERROR in the stream, and its end. A 410 that a watch is told usually comes so, after HTTP 200."""

    status: Mapping[str, Any] = field(default_factory=lambda: status.expired("too old resource version: 1 (91)"))
    after: int = 0


@dataclass(frozen=True, slots=True)
class Garbage:
    """A line that is no event, and then the stream goes on."""

    line: bytes = b'{"type":"MODIFIED","object":{"ki'
    after: int = 0


@dataclass(frozen=True, slots=True)
class Unversioned:
    """The next object comes without its `resourceVersion`, and then the stream goes on."""

    after: int = 0


StreamFault = Reset | Hang | Truncate | End | ErrorEvent | Garbage | Unversioned
Fault = Answer | Do | StreamFault
