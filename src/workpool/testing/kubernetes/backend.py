"""What the connections of a server share: its store, its open watches, its faults and its record, under one lock."""

from __future__ import annotations

import json
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Final

from workpool.clock import Clock
from workpool.testing.kubernetes import status
from workpool.testing.kubernetes.faults import End, Fault, StreamFault
from workpool.testing.kubernetes.query import Watch, list_objects
from workpool.testing.kubernetes.request import Request
from workpool.testing.kubernetes.resource import BUILT_IN, SHOWN_DELETED, Path, Resource, discovery
from workpool.testing.kubernetes.status import ApiError
from workpool.testing.kubernetes.store import Store

__all__ = ["Backend", "Injected"]

Json = dict[str, Any]

MAX_REQUESTS: Final = 10_000

_MERGE_PATCH: Final = "application/merge-patch+json"
_PRECONDITIONS: Final = (
    ("uid", "UID", "deleted and then recreated"),
    ("resourceVersion", "ResourceVersion", "modified"),
)


@dataclass(slots=True)
class Injected:
    """A fault that waits for its requests."""

    fault: Fault
    concerns: Callable[[Request], bool]
    left: int | None
    """How many it will strike; None for all."""


class Backend:
    """The state of a server, for its connections and for the test that drives it.

    Args:
        clock: For `creationTimestamp` and `timeoutSeconds`.
        token: The one that is accepted; None to ask for none.
        streaming_lists: Whether it has `sendInitialEvents`.
        expired_in_stream: Whether a watch is told 410 inside an HTTP 200 stream, or as its HTTP status.
        chunk_size: Bytes of a chunk of a watch; None for one line a chunk.
        max_history: Of the store.
        max_pending: Of a watch.
    """

    def __init__(
        self,
        *,
        clock: Clock,
        token: str | None,
        streaming_lists: bool,
        expired_in_stream: bool,
        chunk_size: int | None,
        max_history: int,
        max_pending: int,
    ) -> None:
        self.clock: Clock = clock
        self.token: str | None = token
        self.expired_in_stream: bool = expired_in_stream
        self.chunk_size: int | None = chunk_size
        self.store: Store = Store(max_history=max_history)
        self.resources: dict[str, Resource] = {resource.name: resource for resource in BUILT_IN}
        self.injected: list[Injected] = []
        self.requests: deque[Request] = deque(maxlen=MAX_REQUESTS)
        self.watches: dict[Watch, Callable[[], None]] = {}
        """Those that are open, and how to wake up who sends what they have."""
        self.changed: threading.Condition = threading.Condition()
        """Guards all of this, and tells of every change. Re-entrant: a condition that a test waits for may look."""
        self._streaming_lists = streaming_lists
        self._max_pending = max_pending

    @contextmanager
    def change(self) -> Iterator[Store]:
        """Hold the lock; then wake up the watches and whoever waits for a change."""
        with self.changed:
            try:
                yield self.store
            finally:
                for watch, ring in self.watches.items():
                    if watch.pending:
                        ring()
                self.changed.notify_all()

    def timestamp(self, later: float = 0.0) -> str:
        """The time of now, or so many seconds later, as it stands in an object."""
        return datetime.fromtimestamp(self.clock.now() + later, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")

    def admit(self, request: Request) -> Fault | None:
        """Record a request, and say what strikes it."""
        with self.change():
            self.requests.append(request)
            for each in self.injected:
                if each.concerns(request):
                    if each.left is not None:
                        each.left -= 1
                        if not each.left:
                            self.injected.remove(each)
                    return each.fault
        return None

    def answer(self, request: Request, ring: Callable[[], None]) -> tuple[int, Mapping[str, Any]] | Watch:
        """Answer a request by a document and its HTTP status, or by a watch, which `ring` is called for.

        Raises:
            ApiError: It is refused.
        """
        if self.token is not None and request.headers.get("authorization") != f"Bearer {self.token}":
            raise ApiError(status.unauthorized())
        target = request.target
        with self.change() as store:
            if request.verb == "discover":
                return 200, discovery(request.path, self.resources.values())
            resource = self.resources.get(f"{target.api_version}/{target.plural}")
            if resource is None or not _is_place(target, resource):
                raise ApiError(status.unknown_resource())
            match request.verb:
                case "watch":
                    watch = Watch(
                        store, resource, target.namespace, request.query,
                        streaming_lists=self._streaming_lists, max_pending=self._max_pending,
                    )  # fmt: skip
                    self.watches[watch] = ring
                    return watch
                case "list" | "page":
                    return 200, list_objects(store, resource, target.namespace, request.query)
                case "get":
                    return 200, store.get(resource, target.name, target.namespace or "")
            return self._write(store, resource, request)

    def _write(self, store: Store, resource: Resource, request: Request) -> tuple[int, Mapping[str, Any]]:
        target, namespace = request.target, request.target.namespace or ""
        if (request.verb == "create") == bool(target.name) or (request.verb == "delete" and target.subresource):
            raise ApiError(status.method_not_allowed())
        if resource.namespaced and not namespace:  # A collection of all namespaces takes no object.
            raise ApiError(status.method_not_allowed())
        if request.verb == "delete":
            return 200, self._delete(store, resource, request)
        if request.verb == "patch":
            _refuse_patch(request.headers.get("content-type", ""), resource)
        given = _document(request.body)
        _refuse_another(given.get("metadata", {}), target, resource)
        if request.verb == "create":
            if given.get("metadata", {}).get("resourceVersion") not in (None, "", "0"):
                raise ApiError(status.version_set())
            placed = {"metadata": {**given.get("metadata", {}), "namespace": namespace}}
            return 201, store.create(resource, {**given, **placed}, self.timestamp())
        if target.subresource == "status":
            given = _of_status(given, store.get(resource, target.name, namespace), whole=request.verb == "update")
        if request.verb == "patch":
            return 200, store.patch(resource, target.name, given, namespace)
        if resource.custom and not given.get("metadata", {}).get("resourceVersion"):
            raise ApiError(status.no_version(resource.plural, target.name, resource.group))
        named = {**given.get("metadata", {}), "name": target.name, "namespace": namespace}
        return 200, store.update(resource, {**given, "metadata": named})

    def _delete(self, store: Store, resource: Resource, request: Request) -> Json:
        name, namespace = request.target.name, request.target.namespace or ""
        metadata = store.get(resource, name, namespace)["metadata"]
        conditions = (_document(request.body) if request.body else {}).get("preconditions") or {}
        for field, what, guess in _PRECONDITIONS:
            if conditions.get(field, metadata[field]) != metadata[field]:
                reason = (
                    f"the {what} in the precondition ({conditions[field]}) does not match the {what} in record "
                    f"({metadata[field]}). The object might have been {guess}"
                )
                raise ApiError(status.conflict(resource.kind, name, resource.group, reason))
        left = store.delete(resource, name, self.timestamp(), namespace)
        with suppress(ApiError):
            return store.get(resource, name, namespace)  # It is only marked.
        return (
            left if resource.name in SHOWN_DELETED else status.deleted(resource.plural, name, resource.group, metadata)
        )

    def take(self, watch: Watch) -> Json | StreamFault | None:
        """The next that a watch has to send."""
        with self.changed:
            return watch.take()

    def time_out(self, watch: Watch) -> None:
        """End a watch when what it has is sent, with a last bookmark, as a real server does it."""
        with self.changed:
            watch.bookmark()
            watch.pending.append(End())

    def close(self, watch: Watch) -> None:
        """The watch has ended."""
        with self.change():
            watch.close()
            del self.watches[watch]

    def strike(self, fault: StreamFault) -> None:
        """Have a fault happen to each watch that is open, after what it has to send."""
        with self.change():
            for watch in self.watches:
                watch.pending.append(replace(fault, after=0))


def _is_place(target: Path, resource: Resource) -> bool:
    """Whether there is anything at a path: other subresources than the status, such as a pod's log, are not served."""
    if not target.name:
        return target.namespace is None or resource.namespaced
    finalize = resource.name == "v1/namespaces" and target.subresource == "finalize"
    return (target.namespace is not None) == resource.namespaced and (target.subresource in ("", "status") or finalize)


def _refuse_another(metadata: Json, target: Path, resource: Resource) -> None:
    """Refuse an object that says it is another than the one of the path, or in another namespace."""
    name, namespace = metadata.get("name"), metadata.get("namespace")
    if name is not None and not isinstance(name, str):
        raise ApiError(status.bad_request("metadata.name is no string"))
    if target.name and name not in (None, "", target.name):
        message = f"the name of the object ({name}) does not match the name on the URL ({target.name})"
        raise ApiError(status.bad_request(message))
    if resource.namespaced and namespace not in (None, "", target.namespace):
        message = "the namespace of the provided object does not match the namespace sent on the request"
        raise ApiError(status.bad_request(message))


def _refuse_patch(content_type: str, resource: Resource) -> None:
    """Refuse what is said to be no merge patch. A strategic one is taken for one, but for custom resources."""
    kind = content_type.partition(";")[0].strip()
    strategic = "application/strategic-merge-patch+json"
    if kind not in ("", _MERGE_PATCH) and (kind != strategic or resource.custom):
        accepted = [_MERGE_PATCH] if resource.custom else [_MERGE_PATCH, strategic]
        raise ApiError(status.unsupported_media_type(accepted))


def _of_status(given: Json, present: Json, *, whole: bool) -> Json:
    """What a write to the status changes: nothing else; the version that it was made from is still compared."""
    metadata = given.get("metadata", {})
    seen = {"resourceVersion": metadata["resourceVersion"]} if "resourceVersion" in metadata else {}
    written = {"status": given["status"]} if "status" in given else {}
    if not whole:
        return {"metadata": seen, **written}
    others = {name: value for name, value in present.items() if name != "status"}
    return {**others, "metadata": {**present["metadata"], **seen}, **written}


def _document(body: bytes) -> Json:
    try:
        given = json.loads(body)
    except ValueError as error:
        raise ApiError(status.bad_request(f"the body is no JSON: {error}")) from error
    if not isinstance(given, dict) or not isinstance(given.get("metadata", {}), dict):
        raise ApiError(status.bad_request("only whole objects and merge patches are understood"))
    return given
