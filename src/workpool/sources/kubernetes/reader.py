"""What does the steps of a reflector: it asks the server, adds to the pool, and waits.

Events are added together, where several come at once. Each is said to be accepted before it is: nothing is asked of the
server in between, and where one is refused it is because the source is at its end (R7).
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from typing import Final

from workpool.sources.kubernetes.client import MANY, Client, Stream
from workpool.sources.kubernetes.moving import Moving
from workpool.sources.kubernetes.steps import (
    Accepted,
    Answer,
    Done,
    Emit,
    Failure,
    List,
    Opened,
    Read,
    Refresh,
    Report,
    Step,
    Synced,
    Wait,
    Watch,
)

__all__ = ["Reader", "Stopped"]

_LATER: Final = 10.0
"""Seconds more that an answer may take to begin."""

_HINTS: Final[Mapping[int | None, str]] = {
    401: "log in again",
    403: '"workpool kubernetes rbac" prints the role that is needed',
    404: "is it installed?",
}

_log = logging.getLogger("workpool.kubernetes")


class Stopped(Exception):
    """It was told to stop."""


class Reader:
    """Does steps, each to its end, on one thread.

    Args:
        client: Asks the server.
        path: What for.
        query: Goes with each request.
        moving: Takes the events.
        stopping: Set by whoever stops this, who then interrupts the client and closes the intake.
        idle: Seconds of silence after which the reflector ends a watch.
        synced: Called when all that was there at the start is added.
        name: What is watched, for the log.
    """

    def __init__(
        self,
        client: Client,
        path: str,
        query: Mapping[str, str],
        moving: Moving,
        stopping: threading.Event,
        *,
        idle: float,
        synced: Callable[[], object],
        name: str,
    ) -> None:
        self._client, self._path, self._query, self._patience = client, path, query, idle + _LATER
        self._moving, self._stopping, self._synced, self._name = moving, stopping, synced, name
        self._stream: Stream | None = None
        self._accepted: list[Emit] = []
        """Events that are to be added before anything else is done."""
        self._bad_keys = 0

    def do(self, step: Step) -> Answer:
        """Do a step.

        Returns:
            What came of it.

        Raises:
            Stopped: It is to end.
            PoolClosed, HandlerError: The pool takes no more.
            TypeError: An event's key is not hashable.
        """
        if self._stopping.is_set():
            raise Stopped
        if isinstance(step, Emit):
            self._accepted.append(step)
            if len(self._accepted) >= MANY:
                self.flush()
            return Accepted()
        self.flush()
        if isinstance(step, Read):
            assert self._stream is not None
            return self._stream.read(step.seconds)
        if isinstance(step, List | Watch | Refresh):
            self.hang_up()
            return self._ask(step)
        if isinstance(step, Wait):
            self.hang_up()
            self._wait(step)
        elif isinstance(step, Report):
            self._report(step)
        else:
            assert isinstance(step, Synced), f"{step} is for the caller"
            self._synced()
        return Done()

    def flush(self) -> None:
        """Add what was said to be accepted: before whatever is not an event, the end included.

        Raises:
            Stopped, PoolClosed, HandlerError: As for `do`.
        """
        accepted, self._accepted = self._accepted, []
        if accepted and not self._moving.add(accepted):
            raise Stopped

    def hang_up(self) -> None:
        """End the watch."""
        if self._stream is not None:
            self._stream.close()
            self._stream = None

    def _ask(self, step: List | Watch | Refresh) -> Answer:
        if isinstance(step, Refresh):
            return self._client.refresh()
        query = {**self._query, **step.parameters()}
        if isinstance(step, List):
            return self._client.list(self._path, query, self._patience)
        opened = self._client.watch(self._path, query, self._patience)
        if isinstance(opened, Failure):
            return opened
        self._stream = opened
        return Opened()

    def _wait(self, step: Wait) -> None:
        hint = _HINTS.get(step.why.status)
        why = f"{step.why.text} ({hint})" if hint else step.why.text
        _log.warning("%s: %s; once more in %.1f s", self._name, why, step.seconds)
        self._stopping.wait(step.seconds)

    def _report(self, report: Report) -> None:
        if report.what != "key":
            return  # The wait that follows says it.
        self._bad_keys += 1
        if self._bad_keys & (self._bad_keys - 1) == 0:  # The 1st, 2nd, 4th, 8th: a bug in a key is every event's.
            _log.error("%s: %s (%d times)", self._name, report.text, self._bad_keys, exc_info=report.error)
