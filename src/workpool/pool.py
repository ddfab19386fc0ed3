"""The calls that mean the same on every driver, and never wait: to look at a pool, and to act on its keys by hand."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import Any, Generic, Literal, NoReturn, Self, cast

from workpool.arguments import count
from workpool.driver import Driver
from workpool.errors import describe
from workpool.lanes import E, K
from workpool.records import Dead, Explanation, Stats

__all__ = ["Adding", "Pool"]


class Pool(Driver[K, E]):
    """What every pool has beside its own `start`, `add`, `drain` and `stop`."""

    # Seen from outside.

    @property
    def left(self) -> list[tuple[K, E]]:
        """What the ending returned, as `stop()` gives it; empty until the pool has ended."""
        return self._step(lambda: self._core.left)

    def stats(self) -> Stats:
        """All counts, at one instant."""
        return self._step(self._core.stats)

    def explain(self, key: K) -> Explanation:
        """What a key waits for: its state, which attempt, the last error, how many events wait. O(workers).

        With `timing` it also says since when a key is in flight or ready; a ready one is looked for, O(ready keys).

        Raises:
            TypeError: The key is not hashable.
        """
        return self._step(self._explain, key)

    def top(self, n: int = 10, *, by: Literal["depth", "age"] = "depth") -> list[Explanation]:
        """The keys to look at first, each explained.

        It looks at every active key, O(keys), with the pool stopped for a copy of their list only.

        Args:
            n: How many at most.
            by: "depth" for those with most events waiting; "age" for those that have been held longest.

        Raises:
            TypeError, ValueError: An argument is wrong.
        """
        count("n", n)
        if by == "depth":
            lanes, busy = self._step(lambda: (list(self._core.all_lanes()), self._core.keys_in_flight()))
            in_flight = set(map(id, busy))
            depths = ((len(behind or ()) + (id(key) not in in_flight), key) for key, behind in lanes)
            keys = [key for _, key in heapq.nlargest(n, depths, key=lambda each: each[0])]
        elif by == "age":
            held = self._step(lambda: list(self._core.held()))
            keys = [each.key for each in heapq.nsmallest(n, held, key=lambda each: each.since)]
        else:
            raise ValueError(f'by must be "depth" or "age", and is {by!r}')
        found = self._step(lambda: [self._core.explain(key) for key in keys])
        if by == "age":
            return sorted((each for each in found if each.since is not None), key=lambda each: each.since or 0.0)
        return sorted((each for each in found if each.waiting), key=lambda each: -each.waiting)

    # For sources.

    def _mark(self, key: K, gate: object) -> bool:
        """Have a gate told when all events that a key has now have ended; False where it has none, and nobody is."""
        return self._step(self._core.mark, key, gate)

    # By hand.

    def dead(self) -> list[Dead]:
        """The events that were given up on, the oldest first: the newest `max_dead` of those not replayed."""
        return self._step(lambda: list(self._core.buried))

    def replay(self, dead: Dead) -> None:
        """Add a dead event once more: a new event, at the end of its key's lane. Never waits.

        Raises:
            PoolFull, PoolClosed, HandlerError: It was not added, and is still among the dead.
            TypeError: It is no `Dead`.
            ValueError: It is not among the dead: it was replayed, or is not kept any more.
        """

        def replay() -> bool:
            if not isinstance(dead, Dead):
                raise TypeError(f"what is replayed must be one of dead(), and {dead!r} is not")
            return self._core.replay(dead, self._features.enclose(dead.event, self._clock))

        if not self._by_hand(replay):
            raise ValueError("this event is not among the dead: it was replayed, or newer ones took its place")
        key: Any = dead.key
        self._tell_added(key, dead.event)

    def parked(self) -> list[K]:
        """The keys that are parked: those whose events wait until `resume` or `skip_head`. O(of them)."""
        return self._step(self._core.parked_keys)

    def park(self, key: K) -> None:
        """Hold a key: none of its events starts until it is resumed. One that is in flight ends first.

        A key without events can be parked too, and is remembered until it is resumed.

        Raises:
            PoolClosed, HandlerError: The pool starts nothing more.
            TypeError: The key is not hashable.
        """
        self._by_hand(self._core.park, key, self._clock.now())

    def resume(self, key: K) -> None:
        """Let a parked key go on, with the event at its head; or retry now what waits for its retry.

        The count of its attempts goes on too: with no attempt left, one more failure parks it again.

        Raises:
            ValueError: The key is not held.
            PoolClosed, HandlerError: The pool starts nothing more.
        """
        if not self._by_hand(self._core.resume, key):
            raise ValueError(f"key {describe(key)} is not parked")

    def skip_head(self, key: K) -> Dead:
        """Give up on the event at the head of a held key, and let the rest go on.

        Returns:
            The event, as it is among the dead.

        Raises:
            ValueError: The key is not held, or has no event.
            PoolClosed, HandlerError: The pool starts nothing more.
        """
        dead = self._by_hand(self._core.skip_head, key, self._clock.now())
        if dead is None:
            raise ValueError(f"key {describe(key)} is not parked, or has no event to skip")
        return dead

    def __repr__(self) -> str:
        core = self._core
        return (
            f"<EventWorkerPool {core.name!r}: {core.state.value}, "
            f"{core.waiting} events waiting, {core.in_flight} in flight>"
        )

    def __reduce__(self) -> NoReturn:
        raise TypeError(f"pool {self._core.name!r} holds workers and cannot be pickled or copied")

    # Steps: each is called with the mutex taken.

    def _explain(self, key: K) -> Explanation:
        core, found = self._core, self._core.explain(key)
        if not self._features.timing:
            return found
        if found.state == "in flight":
            began = (self._began.get(worker) for worker in range(len(core.holds)) if core.key_at(worker) == key)
            return replace(found, since=next(began, None))
        if found.state == "ready":
            head = cast("Any", next(event for each, event in core.ready if each == key))
            return replace(found, since=head.added)
        return found


class Adding(Generic[K, E]):
    """One call of `add_many`: how far it has come, which whatever ends it has as its attribute `added`.

    Args:
        pairs: Each a key and an event.
        enter_some: Enters those of an iterator that nothing is in the way of, as `Seat._enter_some`.
        patience: How many seconds it may take in all; None for as long as it takes.
        now: The time.
    """

    def __init__(
        self,
        pairs: Iterable[tuple[K, E]],
        enter_some: Callable[[Iterator[tuple[K, E]]], tuple[int, Any, BaseException | None]],
        patience: float | None,
        now: Callable[[], float],
    ) -> None:
        self.added: int = 0
        self._pairs = pairs
        self._enter_some = enter_some
        self._now = now
        self._end = None if patience is None else now() + patience

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if error is not None:
            error.added = self.added  # type: ignore[attr-defined]

    def next(self) -> Any:
        """Enter what can be entered at once; the pair after that, for the caller to add and to count, or NOTHING."""
        iterator = self._pairs = iter(self._pairs)
        count, pair, error = self._enter_some(iterator)
        self.added += count
        try:
            if error is not None:
                raise error
        finally:
            del error  # Else the error and this call would hold each other, and the pairs.
        return pair

    def patience(self) -> float | None:
        """How many seconds are left."""
        return None if self._end is None else max(0.0, self._end - self._now())
