"""The objects of a server, and the log of what became of them: one version, that only grows, for all of them. Pure.

Each write that changes something takes the next version, and is one `Change` in the log: what the object was, and what
it is. So the objects as they were at an older version are those of now, with the changes since then taken back; and a
watch from there is told the changes since then. A compaction forgets the changes up to a version, and so the versions
before it.

An object in here is never changed, only replaced: it may be read by whoever got hold of it, without a lock.

    compacted <= any version that can be read <= version
"""

from __future__ import annotations

import copy
import uuid
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import takewhile
from typing import Any, Final

from workpool.testing.kubernetes.resource import Resource
from workpool.testing.kubernetes.status import ApiError, already_exists, conflict, no_name, not_found

__all__ = ["FIRST_VERSION", "Change", "Store", "with_version"]

Json = dict[str, Any]

FIRST_VERSION: Final = 90
"""A version that soon has one digit more, so that a client which compares them as text is found out."""

_OWNED: Final = (
    "uid", "resourceVersion", "generation", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds",
)  # fmt: skip
"""What only the server sets."""

_UIDS: Final = uuid.UUID("6f0a3c52-5b0e-4c83-9d5e-2f6d0b7a1c44")


@dataclass(frozen=True, slots=True)
class Change:
    """What one version did to one object."""

    version: int
    resource: Resource
    old: Json | None
    """None where it was created."""
    new: Json | None
    """None where it was deleted."""

    @property
    def key(self) -> tuple[str, str]:
        """The namespace, which is empty for a resource of the cluster, and the name."""
        return _key(self.new or self.old or {})


class Store:
    """Objects of any resources, with their past.

    Args:
        max_history: How many changes are kept: older ones are compacted by themselves.
    """

    def __init__(self, *, max_history: int = 100_000) -> None:
        self.version: int = FIRST_VERSION
        self.compacted: int = FIRST_VERSION
        """The oldest version that can still be read; a watch that starts there misses nothing."""
        self.lag: int | None = None
        """The version that the cache is at, where it is behind."""
        self.followers: list[Callable[[Change], None]] = []
        """Each is told every change, in order, while it is made."""
        self._log: deque[Change] = deque()
        self._max_history = max_history
        self._objects: dict[Resource, dict[tuple[str, str], Json]] = {}

    @property
    def cached(self) -> int:
        """The version of what is answered where any version will do."""
        return self.version if self.lag is None else max(self.lag, self.compacted)

    def get(self, resource: Resource, name: str, namespace: str = "") -> Json:
        """One object as it is now.

        Raises:
            ApiError: NotFound.
        """
        found = self._objects.get(resource, {}).get((namespace, name))
        if found is None:
            raise ApiError(not_found(resource.plural, name, resource.group))
        return found

    def snapshot(self, resource: Resource, version: int) -> dict[tuple[str, str], Json]:
        """The objects as they were at a version that is not compacted, by namespace and name, sorted."""
        found = dict(self._objects.get(resource, {}))
        for change in self._since(version):
            if change.resource == resource:
                if change.old is None:
                    del found[change.key]
                else:
                    found[change.key] = change.old
        return dict(sorted(found.items()))

    def changes(self, version: int) -> list[Change]:
        """Those after a version that is not compacted, oldest first."""
        return [*self._since(version)][::-1]

    def create(self, resource: Resource, made: Mapping[str, Any], now: str) -> Json:
        """Add an object.

        Args:
            resource: What it is one of.
            made: The object; kind, uid and the like are filled in.
            now: The time, as its `creationTimestamp`.

        Raises:
            ApiError: AlreadyExists; Invalid where there is no name.
        """
        new = _normal(resource, made)
        metadata = new["metadata"]
        if generated := metadata.get("generateName"):
            metadata.setdefault("name", f"{generated}{self.version:05x}")
        if not metadata.get("name"):
            raise ApiError(no_name(resource.kind, resource.group))
        if _key(new) in self._objects.get(resource, {}):
            raise ApiError(already_exists(resource.plural, metadata["name"], resource.group))
        for name in _OWNED:
            metadata.pop(name, None)
        metadata |= {"uid": str(uuid.uuid5(_UIDS, str(self.version))), "creationTimestamp": now}
        if "spec" in new:
            metadata["generation"] = 1
        return self._commit(resource, None, new)

    def update(self, resource: Resource, changed: Mapping[str, Any]) -> Json:
        """Replace an object; where nothing differs nothing happens, and no version is taken.

        The last finalizer that is taken from an object which waits for its deletion deletes it, unless it has grace.

        Raises:
            ApiError: NotFound; Conflict where `changed` has a version, and not the present one.
        """
        new = _normal(resource, changed)
        metadata = new["metadata"]
        old = self.get(resource, metadata["name"], metadata.get("namespace", ""))
        kept = old["metadata"]
        if (metadata.get("resourceVersion") or kept["resourceVersion"]) != kept["resourceVersion"]:
            raise ApiError(conflict(resource.plural, metadata["name"], resource.group))
        for name in _OWNED:
            metadata.pop(name, None)
            if name in kept:
                metadata[name] = kept[name]
        if new == old:
            return old
        if new.get("spec") != old.get("spec"):
            metadata["generation"] = kept.get("generation", 0) + 1
        gone = kept.get("deletionGracePeriodSeconds") == 0 and not metadata.get("finalizers")
        if gone and kept.get("finalizers"):
            return self._commit(resource, old, None)
        return self._commit(resource, old, new)

    def patch(self, resource: Resource, name: str, changes: Mapping[str, Any], namespace: str = "") -> Json:
        """Update an object by a JSON merge patch (RFC 7386): None takes a field away."""
        return self.update(resource, _merge(self.get(resource, name, namespace), changes))

    def delete(
        self, resource: Resource, name: str, when: str, namespace: str = "", *, grace: int | None = None
    ) -> Json:
        """Delete an object, and return it as its DELETED shows it; or mark it only, and return it so.

        It is marked first where it has finalizers, or where it is given `grace` seconds, as a pod is; then a further
        call deletes it.

        Args:
            resource: What it is one of.
            name: Its name.
            when: The time when its grace is over, as its `deletionTimestamp`.
            namespace: Its namespace; empty for a resource of the cluster.
            grace: Seconds; None for none.

        Raises:
            ApiError: NotFound.
        """
        old = self.get(resource, name, namespace)
        metadata = old["metadata"]
        marked = "deletionTimestamp" in metadata
        if not metadata.get("finalizers") and (marked or grace is None):
            return self._commit(resource, old, None)
        if marked:
            return old
        mark: Json = {"deletionTimestamp": when, "deletionGracePeriodSeconds": grace or 0}
        if "generation" in metadata:
            mark["generation"] = metadata["generation"] + 1
        return self._commit(resource, old, _merge(old, {"metadata": mark}))

    def compact(self, version: int | None = None) -> None:
        """Forget what was before a version: of now, unless it is said."""
        self.compacted = max(self.compacted, self.version if version is None else min(version, self.version))
        while self._log and self._log[0].version <= self.compacted:
            self._log.popleft()

    def _commit(self, resource: Resource, old: Json | None, new: Json | None) -> Json:
        self.version += 1
        objects = self._objects.setdefault(resource, {})
        if new is None:
            assert old is not None
            left = with_version(old, self.version)
            del objects[_key(old)]
        else:
            new["metadata"]["resourceVersion"] = str(self.version)
            left = objects[_key(new)] = new
        change = Change(self.version, resource, old, new)
        self._log.append(change)
        if len(self._log) > self._max_history:
            self.compact(self._log[0].version)
        for follower in tuple(self.followers):  # One that is full leaves.
            follower(change)
        return left

    def _since(self, version: int) -> Iterator[Change]:
        """Those after a version, newest first."""
        return takewhile(lambda change: change.version > version, reversed(self._log))


def with_version(found: Json, version: int) -> Json:
    """A copy at another version: a deleted object has that of its deletion."""
    return {**found, "metadata": {**found["metadata"], "resourceVersion": str(version)}}


def _key(found: Json) -> tuple[str, str]:
    return found["metadata"].get("namespace", ""), found["metadata"]["name"]


def _normal(resource: Resource, made: Mapping[str, Any]) -> Json:
    """A copy that names its kind, and its namespace if it has one, in a real server's order."""
    given = copy.deepcopy(dict(made))
    metadata: Json = given.get("metadata") or {}
    if resource.namespaced:
        metadata["namespace"] = metadata.get("namespace") or "default"
    else:
        metadata.pop("namespace", None)
    head = {"kind": resource.kind, "apiVersion": resource.api_version, "metadata": metadata}
    return head | {name: value for name, value in given.items() if name not in head}


def _merge(old: Any, changes: Mapping[str, Any]) -> Json:
    merged: Json = dict(old) if isinstance(old, dict) else {}
    for name, value in changes.items():
        if value is None:
            merged.pop(name, None)
        elif isinstance(value, Mapping):
            merged[name] = _merge(merged.get(name), value)
        else:
            merged[name] = value
    return merged
