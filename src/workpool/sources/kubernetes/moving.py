"""Objects between two keys: what comes of one waits until its events under its old key are over (R27).

No other object waits for that, nor does the reader. It is kept here, in order, and a thread adds it, which is started
for the first object that moves. So events have two ways into the pool, and those of one name only ever one:

    in `kept`: by the thread        else: by the reader

By its name, and not by its uid: an object that takes the place of another, under the same key, comes after the end of
that one.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Hashable, Sequence
from queue import SimpleQueue
from typing import Any, Final

from workpool.errors import HandlerError, PoolClosed
from workpool.intake import Intake
from workpool.sources.kubernetes.events import Event
from workpool.sources.kubernetes.steps import Emit

__all__ = ["MAX_KEPT", "Moving"]

MAX_KEPT: Final = 1000
"""Events that are kept. They are few; where they are not, the reader waits."""


class Moving:
    """Adds events to the pool, each when its turn has come.

    Args:
        intake: Takes them.
    """

    def __init__(self, intake: Intake[Hashable, Event]) -> None:
        self._intake = intake
        self._kept: dict[str, deque[Emit]] = {}
        """By name: the events of each object that is moving; the first waits for those under the old key."""
        self._count = 0
        self._closed = False
        self._changed = threading.Condition()
        """Guards these three. It is held while an event is added: to close the intake ends that."""
        self._over: SimpleQueue[_Move | None] = SimpleQueue()
        self._thread: threading.Thread | None = None

    def add(self, steps: Sequence[Emit]) -> bool:
        """Add events, or keep them; False where the intake is closed. By the reader only."""
        # The thread takes an object out when all its events are added.
        if not self._kept and all(step.after is None for step in steps):
            return self._intake.add_many((step.event.key, step.event) for step in steps)
        return all(self._add(step) for step in steps)

    def _add(self, step: Emit) -> bool:
        event, name = step.event, step.name
        with self._changed:
            kept = self._kept.get(name)
            if kept is None:
                if step.after is None or not self._intake.mark(step.after, _Move(self._over, name)):
                    return self._intake.add(event.key, event)
                kept = self._kept[name] = deque()
                self._start()
            kept.append(step)
            self._count += 1
            self._changed.wait_for(lambda: self._closed or self._count < MAX_KEPT)
            return not self._closed

    def let_go(self) -> None:
        """Let a reader go that waits here, from any thread. The intake is closed already."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def close(self) -> None:
        """Add nothing more, and end the thread. The intake is closed already."""
        self.let_go()
        self._over.put(None)
        if self._thread is not None:
            self._thread.join()

    def _start(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="workpool-kubernetes-moving", daemon=True)
            self._thread.start()

    def _run(self) -> None:
        try:
            while (move := self._over.get()) is not None:
                with self._changed:
                    if not self._go_on(move):
                        return
        except (PoolClosed, HandlerError):
            return  # The reader is told the same, or that it is to stop.

    def _go_on(self, move: _Move) -> bool:
        """Add what was kept of an object, up to where it moves once more; False where the intake is closed."""
        kept = self._kept[move.name]
        while True:
            event = kept[0].event
            if not self._intake.add(event.key, event):
                return False
            kept.popleft()
            self._count -= 1
            self._changed.notify_all()
            if not kept:
                del self._kept[move.name]
                return True
            after = kept[0].after
            if after is not None and self._intake.mark(after, move):
                return True


class _Move:
    """The gate where an object waits to be done with its old key."""

    def __init__(self, over: SimpleQueue[Any], name: str) -> None:
        self.name = name
        self._over = over

    def put(self, _: None) -> None:
        """Hear that it is."""
        self._over.put(self)
