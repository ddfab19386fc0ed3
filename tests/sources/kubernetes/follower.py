"""A pool that follows a resource of the fake API server, and what its handler was given, held against the server."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from support import PATIENCE, in_thread
from workpool import EventWorkerPool
from workpool.sources.kubernetes import Event, KubernetesSource, watch
from workpool.testing.kubernetes import ApiServer

Object = dict[str, Any]


class Follower:
    """Follows in a thread, within a `with` block; leaving it stops the source and drains the pool."""

    def __init__(
        self,
        server: ApiServer,
        folder: Path,
        resource: str = "v1/pods",
        *,
        handle: Callable[[Event], object] | None = None,
        max_backlog: int | None = 10_000,
        **options: Any,
    ) -> None:
        self.server, self.resource = server, resource
        config = server.write_kubeconfig(folder / "kubeconfig")
        self.source: KubernetesSource = watch(resource, kubeconfig=config, **options)
        self.events: list[Event] = []
        self._handle = handle
        self._changed = threading.Condition()
        self.pool: EventWorkerPool[Any, Event] = EventWorkerPool(self._take, workers=4, max_backlog=max_backlog)

    def __enter__(self) -> Self:
        self.running = in_thread(lambda: self.pool.run(self.source))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.source.stop()
        try:
            self.running()
        finally:
            if error is None:
                self.pool.drain(PATIENCE)
            else:
                self.pool.stop(PATIENCE)

    def _take(self, event: Event) -> None:
        if self._handle is not None:
            self._handle(event)
        with self._changed:
            self.events.append(event)
            self._changed.notify_all()

    def wait_for(self, condition: Callable[[], bool]) -> None:
        """Wait until something is so that depends on what was handled."""
        with self._changed:
            assert self._changed.wait_for(condition, PATIENCE), f"not so, after {self.told()}"

    def wait_for_events(self, count: int) -> None:
        """Wait until so many events were handled."""
        self.wait_for(lambda: len(self.events) >= count)

    def wait_for_state(self) -> None:
        """Wait until what was handled, folded per object, is what the server has; in any order of adds and deletes."""
        self.wait_for(lambda: self.folded() == self.truth())

    def folded(self) -> dict[str, str]:
        """The objects that are there for whoever believes the events, by uid, each with its version."""
        there: dict[str, str] = {}
        for event in self.events:
            metadata = event.object["metadata"]
            if event.type == "DELETED":
                there.pop(metadata["uid"], None)
            else:
                there[metadata["uid"]] = metadata["resourceVersion"]
        return there

    def truth(self) -> dict[str, str]:
        """What the server has."""
        objects = self.server.objects(self.resource)
        return {each["metadata"]["uid"]: each["metadata"]["resourceVersion"] for each in objects}

    def told(self) -> list[str]:
        """The events, each in short."""
        return [f"{each.type} {each.object['metadata']['name']}" for each in self.events]

    def check_order(self) -> None:
        """The events of each object, in the order in which they were handled: ADDED, MODIFIED..., DELETED, upwards."""
        last: dict[str, tuple[str, int]] = {}
        for event in self.events:
            metadata = event.object["metadata"]
            kind, version = last.get(metadata["uid"], ("DELETED", 0))
            assert (event.type == "ADDED") == (kind == "DELETED"), f"{event.type} after {kind}"
            assert int(metadata["resourceVersion"]) >= version, "an object's version went back"
            if event.type == "MODIFIED" and not event.resync:
                assert int(metadata["resourceVersion"]) > version, "an event came twice"
            last[metadata["uid"]] = (event.type, int(metadata["resourceVersion"]))


def pod(name: str, **labels: str) -> Object:
    """A pod with labels."""
    return {"metadata": {"name": name, "labels": labels}}
