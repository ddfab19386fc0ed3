"""What a list and a watch answer, given the store and the parameters of the request. Pure.

Source: "Resource versions" and "Efficient detection of changes" in the Kubernetes API concepts, and ValidateListOptions
in k8s.io/apimachinery/pkg/apis/meta/internalversion/validation, for what is refused.
"""

from __future__ import annotations

import base64
import json
from collections import deque
from collections.abc import Mapping
from typing import Any, Final

from workpool.testing.kubernetes import status
from workpool.testing.kubernetes.faults import End, StreamFault
from workpool.testing.kubernetes.resource import Resource
from workpool.testing.kubernetes.selector import Selection
from workpool.testing.kubernetes.status import ApiError
from workpool.testing.kubernetes.store import Change, Store, with_version

__all__ = ["Watch", "is_true", "list_objects"]

Json = dict[str, Any]
Query = Mapping[str, str]

_MATCH: Final = "resourceVersionMatch"
_NOT_WITH_CONTINUE: Final = "resourceVersionMatch is forbidden when continue is provided"
_NOW: Final = -1
"""In the token of a list whose version was compacted: the rest, as it is when it is asked for."""


def list_objects(store: Store, resource: Resource, namespace: str | None, query: Query) -> Json:
    """A list, or the next page of one.

    Raises:
        ApiError: 400 or 422 for parameters that are wrong, 410 for a version that was compacted, 504 for one that is
            not there yet.
    """
    _refuse_for_list(query)
    selection = Selection.of(namespace, query)
    limit = _number(query, "limit")
    after: tuple[str, str] | None = None
    if token := query.get("continue"):
        version, after = _unpack(token)
        if version == _NOW:
            version = store.version
        elif version < store.compacted:
            raise ApiError(status.expired_continue(_pack(_NOW, after)))
    else:
        version = _version_of_list(store, query, limit)
        if query.get("resourceVersion") == "0":
            limit = 0  # The watch cache, which answers these, has no pages.
    found = [
        (key, item)
        for key, item in store.snapshot(resource, version).items()
        if (after is None or key > after) and selection.matches(item)
    ]
    page = found[:limit] if limit else found
    metadata: Json = {"resourceVersion": str(version)}
    if len(page) < len(found):
        metadata["continue"] = _pack(version, page[-1][0])
        if not selection.narrowed:
            metadata["remainingItemCount"] = len(found) - len(page)
    items = [item if resource.custom else _bare(item) for _, item in page]
    return {"kind": f"{resource.kind}List", "apiVersion": resource.api_version, "metadata": metadata, "items": items}


def _refuse_for_list(query: Query) -> None:
    match = query.get("resourceVersionMatch", "")
    version = query.get("resourceVersion", "")
    causes: list[Json] = []
    if match:
        if not version:
            causes.append(_forbidden(_MATCH, "resourceVersionMatch is forbidden unless resourceVersion is provided"))
        if query.get("continue"):
            causes.append(_forbidden(_MATCH, _NOT_WITH_CONTINUE))
        if match not in ("Exact", "NotOlderThan"):
            causes.append(_not_supported(_MATCH, match, '"Exact", "NotOlderThan", ""'))
        if match == "Exact" and version == "0":
            causes.append(_forbidden(_MATCH, 'resourceVersionMatch "exact" is forbidden for resourceVersion "0"'))
    if "sendInitialEvents" in query:
        causes.append(_forbidden("sendInitialEvents", "sendInitialEvents is forbidden for list"))
    _refuse_for(causes)
    if version not in ("", "0") and query.get("continue"):
        raise ApiError(status.bad_request("specifying resource version is not allowed when using continue"))


def _version_of_list(store: Store, query: Query, limit: int) -> int:
    wanted = _number(query, "resourceVersion")
    if wanted > store.version:
        raise ApiError(status.too_large(wanted, store.version))
    match = query.get("resourceVersionMatch", "")
    if wanted and (match == "Exact" or (not match and limit)):
        if wanted < store.compacted:
            raise ApiError(status.expired("The resourceVersion for the provided list is too old."))
        return wanted
    return _present(store, query)


def _present(store: Store, query: Query) -> int:
    """The version of now; for "0", which asks for any, that of the cache."""
    return store.cached if query.get("resourceVersion") == "0" else store.version


def _bare(item: Json) -> Json:
    """As a list of a built-in resource shows its items: without their kind, which is the list's."""
    return {name: value for name, value in item.items() if name not in ("kind", "apiVersion")}


def _pack(version: int, after: tuple[str, str]) -> str:
    token = {"v": "meta.k8s.io/v1", "rv": version, "start": "/".join(after)}
    return base64.urlsafe_b64encode(json.dumps(token).encode()).decode().rstrip("=")


def _unpack(text: str) -> tuple[int, tuple[str, str]]:
    try:
        token = json.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
        namespace, _, name = token["start"].partition("/")
        return int(token["rv"]), (namespace, name)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ApiError(status.bad_request(f"continue key is not valid: {error}")) from error


class Watch:
    """One watch: what it has still to send, filled by the store while somebody else sends it.

    Args:
        store: Followed from now on, until `close()`.
        resource: What is watched.
        namespace: Where; None for everywhere.
        query: The request's parameters.
        streaming_lists: Whether the server has `sendInitialEvents`.
        max_pending: How far a slow reader may be behind the store: then the watch ends, cleanly, after what is
            pending. The initial events do not count.

    Raises:
        ApiError: 400 or 422 for parameters that are wrong, 410 for a version that was compacted, 504 for a streaming
            list of a version that is not there yet.
    """

    def __init__(
        self,
        store: Store,
        resource: Resource,
        namespace: str | None,
        query: Query,
        *,
        streaming_lists: bool = True,
        max_pending: int = 100_000,
    ) -> None:
        _refuse_for_watch(query, streaming_lists=streaming_lists)
        self.bookmarks: bool = is_true(query, "allowWatchBookmarks")
        self.timeout: int = _number(query, "timeoutSeconds")
        """Seconds; 0 for none."""
        self.pending: deque[Json | StreamFault] = deque()
        self._store = store
        self._resource = resource
        self._selection = Selection.of(namespace, query)
        self._start = self._begin(query)
        """It sends what comes after this version."""
        self._limit = len(self.pending) + max_pending
        store.followers.append(self._follow)

    def take(self) -> Json | StreamFault | None:
        """The next to send; None while there is nothing."""
        return self.pending.popleft() if self.pending else None

    def bookmark(self) -> None:
        """Tell how far the store is, to who asked for bookmarks."""
        if self.bookmarks and self._store.version >= self._start:
            self.pending.append(_bookmark(self._resource, self._store.version))

    def close(self) -> None:
        """Follow the store no more."""
        if self._follow in self._store.followers:
            self._store.followers.remove(self._follow)

    def _begin(self, query: Query) -> int:
        version = _number(query, "resourceVersion")
        streaming = query.get("sendInitialEvents")
        if streaming is not None and version > self._store.version:
            raise ApiError(status.too_large(version, self._store.version))
        initial = is_true(query, "sendInitialEvents") or (streaming is None and not version)
        if initial or not version:
            version = _present(self._store, query)
        elif version < self._store.compacted:
            raise ApiError(status.expired(f"too old resource version: {version} ({self._store.compacted})"))
        if initial:
            for item in self._store.snapshot(self._resource, version).values():
                if self._selection.matches(item):
                    self.pending.append({"type": "ADDED", "object": item})
            if streaming is not None and self.bookmarks:
                self.pending.append(_bookmark(self._resource, version, initial_events_end=True))
        for change in self._store.changes(version):
            self._add(change)
        return version

    def _follow(self, change: Change) -> None:
        if change.version <= self._start:
            return  # It was asked for what comes after a version of the future.
        self._add(change)
        if len(self.pending) > self._limit:
            self.pending.pop()
            self.pending.append(End())
            self.close()

    def _add(self, change: Change) -> None:
        if change.resource != self._resource:
            return
        before = change.old is not None and self._selection.matches(change.old)
        after = change.new is not None and self._selection.matches(change.new)
        if after:
            self.pending.append({"type": "MODIFIED" if before else "ADDED", "object": change.new})
        elif before and change.old is not None:
            # It left the selector, or it was deleted: both show it as it was last seen here, at the version of now.
            self.pending.append({"type": "DELETED", "object": with_version(change.old, change.version)})


def _refuse_for_watch(query: Query, *, streaming_lists: bool) -> None:
    match = query.get("resourceVersionMatch", "")
    causes: list[Json] = []
    if "sendInitialEvents" in query:
        if match != "NotOlderThan":
            causes.append(_forbidden(_MATCH, "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan"))
        if not streaming_lists:
            what = "sendInitialEvents is forbidden for watch unless the WatchList feature gate is enabled"
            causes.append(_forbidden("sendInitialEvents", what))
    if match:
        if "sendInitialEvents" not in query:
            what = "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided"
            causes.append(_forbidden(_MATCH, what))
        if match != "NotOlderThan":
            causes.append(_not_supported(_MATCH, match, '"NotOlderThan"'))
        if query.get("continue"):
            causes.append(_forbidden(_MATCH, _NOT_WITH_CONTINUE))
    _refuse_for(causes)


def _bookmark(resource: Resource, version: int, *, initial_events_end: bool = False) -> Json:
    metadata: Json = {"resourceVersion": str(version)}
    if initial_events_end:
        metadata["annotations"] = {"k8s.io/initial-events-end": "true"}
    found = {"kind": resource.kind, "apiVersion": resource.api_version, "metadata": metadata}
    return {"type": "BOOKMARK", "object": found}


def is_true(query: Query, name: str) -> bool:
    """Whether a parameter is set: to anything but "false" and "0", and be it to nothing."""
    return query.get(name, "0").lower() not in ("0", "false")


def _number(query: Query, name: str) -> int:
    text = query.get(name) or "0"
    if not (text.isascii() and text.isdigit()):
        raise ApiError(status.bad_request(f'{name}: Invalid value: "{text}": strconv.ParseUint: invalid syntax'))
    return int(text)


def _forbidden(field: str, message: str) -> Json:
    return {"reason": "FieldValueForbidden", "message": f"Forbidden: {message}", "field": field}


def _not_supported(field: str, value: str, supported: str) -> Json:
    message = f'Unsupported value: "{value}": supported values: {supported}'
    return {"reason": "FieldValueNotSupported", "message": message, "field": field}


def _refuse_for(causes: list[Json]) -> None:
    if causes:
        raise ApiError(status.invalid_list_options(causes))
