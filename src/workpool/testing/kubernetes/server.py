"""A Kubernetes API server in the test's own process, which fails as it is told to."""

from __future__ import annotations

import copy
import json
import socket
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from workpool.clock import Clock, SystemClock
from workpool.testing.kubernetes.backend import Backend, Injected
from workpool.testing.kubernetes.connection import Connection
from workpool.testing.kubernetes.faults import Answer, Do, Fault, Hang, Reset, StreamFault, Truncate
from workpool.testing.kubernetes.request import VERBS, Request
from workpool.testing.kubernetes.resource import Resource

__all__ = ["ApiServer"]


class ApiServer:
    """A Kubernetes API server for tests: on localhost, in memory, over plain HTTP.

        with ApiServer() as server:
            server.create("v1/pods", {"metadata": {"name": "a"}})
            server.inject("watch", Reset(after=1))
            follow(server.url)

    Objects are plain dicts, and copies: changing one changes nothing here. A resource is named `group/version/plural`,
    or `v1/plural` in the core group. Every method may be called from any thread. Leaving the block leaves no thread and
    no socket behind.

    Args:
        token: The bearer token that is accepted; None to ask for none.
        streaming_lists: False for an older server, which refuses `sendInitialEvents`.
        expired_in_stream: Whether a watch from a compacted version is told so by an ERROR inside an HTTP 200 stream,
            as by most servers, or by the HTTP status 410.
        chunk_size: Bytes of a chunk of a watch, so that a small one cuts lines and characters; None for one line a
            chunk.
        max_history: How many changes are kept; older ones are compacted by themselves.
        max_pending: How many events a watch may be behind before the server ends it, as that of a slow reader.
        clock: For `timeoutSeconds` and `creationTimestamp`, such as a `FakeClock`; None for the system's.
    """

    def __init__(
        self,
        *,
        token: str | None = None,
        streaming_lists: bool = True,
        expired_in_stream: bool = True,
        chunk_size: int | None = None,
        max_history: int = 100_000,
        max_pending: int = 100_000,
        clock: Clock | None = None,
    ) -> None:
        self._backend = Backend(
            clock=clock or SystemClock(), token=token, streaming_lists=streaming_lists,
            expired_in_stream=expired_in_stream, chunk_size=chunk_size, max_history=max_history,
            max_pending=max_pending,
        )  # fmt: skip
        self._listener: socket.socket | None = None
        self._port: int = 0
        self._threads: dict[threading.Thread, Connection] = {}
        """Of the connections; guarded by the backend's lock."""
        self._acceptor: threading.Thread | None = None

    # Life.

    def start(self) -> Self:
        """Listen on a free port, on its own threads."""
        if self._listener is not None:
            raise RuntimeError("the server is started already")
        self._listener = _bound(0)
        self._port = self._listener.getsockname()[1]
        self._listen(self._listener)
        return self

    def stop(self) -> None:
        """Cut every connection and free the port. A second call does nothing."""
        with self._backend.changed:
            listener, self._listener = self._listener, None
            threads = dict(self._threads)
        if listener is None:
            return
        for connection in threads.values():
            connection.cut()
        acceptor, self._acceptor = self._acceptor, None
        if acceptor is not None:
            # A connection wakes it up, and it finds that its listener is not that of the server any more.
            with socket.create_connection(("127.0.0.1", self.port)):
                acceptor.join()
        listener.close()
        for thread in threads:
            if thread is not threading.current_thread():  # A `Do` may restart the server.
                thread.join()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def port(self) -> int:
        """Where it listens, or has listened."""
        if not self._port:
            raise RuntimeError("the server was never started")
        return self._port

    @property
    def url(self) -> str:
        """As `http://127.0.0.1:PORT`."""
        return f"http://127.0.0.1:{self.port}"

    @contextmanager
    def down(self) -> Iterator[None]:
        """Cut every connection and refuse new ones, on the same port; on leaving, listen again. The objects stay."""
        self.stop()
        # Bound without listening: it refuses, and nobody else takes the port meanwhile.
        self._listener = held = _bound(self.port)
        try:
            yield
        finally:
            if self._listener is held:  # Else it was stopped meanwhile.
                self._listen(held)

    def restart(self) -> None:
        """Go down and come up again."""
        with self.down():
            pass

    # Objects.

    @property
    def version(self) -> str:
        """The newest `resourceVersion`."""
        with self._backend.changed:
            return str(self._backend.store.version)

    def add_resource(
        self, resource: str, kind: str, *, namespaced: bool = True, short_names: Iterable[str] = ()
    ) -> None:
        """Serve a custom resource, such as `example.com/v1/widgets`. The commonest built-in ones are there."""
        made = Resource.of(resource, kind, namespaced=namespaced, short_names=short_names)
        with self._backend.changed:
            self._backend.resources[made.name] = made

    def create(self, resource: str, made: Mapping[str, Any]) -> dict[str, Any]:
        """Add an object; kind, namespace ("default"), uid, version and time are filled in.

        Raises:
            ApiError: AlreadyExists.
        """
        with self._backend.change() as store:
            return copy.deepcopy(store.create(self._resource(resource), made, self._backend.timestamp()))

    def update(self, resource: str, changed: Mapping[str, Any]) -> dict[str, Any]:
        """Replace an object. Where nothing differs, nothing happens.

        Raises:
            ApiError: NotFound; Conflict where `changed` has a version that is not the present one.
        """
        with self._backend.change() as store:
            return copy.deepcopy(store.update(self._resource(resource), changed))

    def patch(
        self, resource: str, name: str, changes: Mapping[str, Any], namespace: str | None = None
    ) -> dict[str, Any]:
        """Update an object by a JSON merge patch: None takes a field away.

        Raises:
            ApiError: NotFound.
        """
        found = self._resource(resource)
        with self._backend.change() as store:
            return copy.deepcopy(store.patch(found, name, changes, _place(found, namespace)))

    def delete(
        self, resource: str, name: str, namespace: str | None = None, *, grace: int | None = None
    ) -> dict[str, Any]:
        """Delete an object, and return its last state.

        With finalizers, or with seconds of `grace`, which a cluster gives to a pod, it is only marked by its
        `deletionTimestamp`; what has grace is deleted by a further call.

        Raises:
            ApiError: NotFound.
        """
        found = self._resource(resource)
        with self._backend.change() as store:
            place = _place(found, namespace)
            return copy.deepcopy(store.delete(found, name, self._backend.timestamp(grace or 0), place, grace=grace))

    def get(self, resource: str, name: str, namespace: str | None = None) -> dict[str, Any]:
        """One object.

        Raises:
            ApiError: NotFound.
        """
        found = self._resource(resource)
        with self._backend.changed:
            return copy.deepcopy(self._backend.store.get(found, name, _place(found, namespace)))

    def objects(self, resource: str) -> list[dict[str, Any]]:
        """All of a resource, sorted by namespace and name."""
        with self._backend.changed:
            store = self._backend.store
            return copy.deepcopy([*store.snapshot(self._resource(resource), store.version).values()])

    def compact(self, version: str | None = None) -> None:
        """Forget what was before a version, by default that of now: who asks for it is told 410, Expired.

        What an open watch has still to send is not lost.
        """
        with self._backend.change() as store:
            store.compact(None if version is None else int(version))

    def lag(self, version: str | None) -> None:
        """Answer what asks for `resourceVersion=0` as of an older version, as a cache that is behind; None ends it."""
        with self._backend.changed:
            self._backend.store.lag = None if version is None else int(version)

    def bookmark(self) -> None:
        """Send a bookmark to each open watch that asked for them. None comes by itself, but at `timeoutSeconds`."""
        with self._backend.change():
            for watch in self._backend.watches:
                watch.bookmark()

    # Access.

    @property
    def token(self) -> str | None:
        """The one that is accepted: set another to rotate it. An open watch is not asked again."""
        return self._backend.token

    @token.setter
    def token(self, token: str | None) -> None:
        self._backend.token = token

    def write_kubeconfig(self, path: str | Path, *, namespace: str = "default") -> Path:
        """Write a kubeconfig with the address and the token of now. It is JSON, which is YAML too."""
        user = {} if self.token is None else {"token": self.token}
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "fake", "cluster": {"server": self.url}}],
            "users": [{"name": "fake", "user": user}],
            "contexts": [{"name": "fake", "context": {"cluster": "fake", "user": "fake", "namespace": namespace}}],
            "current-context": "fake",
        }
        written = Path(path)
        written.write_text(json.dumps(config, indent=2), "utf-8")
        return written

    # Faults.

    def inject(self, concerns: str | Callable[[Request], bool], *faults: Fault, times: int | None = 1) -> None:
        """Have faults strike the next requests of a sort, in order, each as often as it is said.

        Args:
            concerns: What the requests ask for: "list", "page" (a later page of a list), "watch", "get", "discover",
                "create", "update", "patch", "delete"; or a function that picks them.
            faults: What happens (`workpool.testing.kubernetes.faults`).
            times: How many requests each strikes; None for all of them, until `heal`.

        Raises:
            ValueError: There are no such requests, or a fault is one of watches and they are none.
        """
        if isinstance(concerns, str):
            if concerns not in VERBS:
                raise ValueError(f"no request is a {concerns!r}; there are {', '.join(sorted(VERBS))}")
            if concerns != "watch" and not all(
                isinstance(each, Answer | Do | Reset | Hang | Truncate) for each in faults
            ):
                raise ValueError(f"a fault of watches cannot strike a {concerns}")
        with self._backend.changed:
            self._backend.injected += [Injected(fault, _picks(concerns), times) for fault in faults]

    def heal(self) -> None:
        """Forget the faults that have not struck."""
        with self._backend.changed:
            self._backend.injected.clear()

    @property
    def faults(self) -> int:
        """How many have still to strike."""
        with self._backend.changed:
            return len(self._backend.injected)

    def strike(self, fault: StreamFault) -> None:
        """Have a fault happen now to each watch that is open, after what it has still to send; `after` is not read."""
        self._backend.strike(fault)

    # What happened.

    @property
    def requests(self) -> list[Request]:
        """The newest 10,000, oldest first."""
        with self._backend.changed:
            return [*self._backend.requests]

    @property
    def open_watches(self) -> int:
        """How many watches are being answered."""
        with self._backend.changed:
            return len(self._backend.watches)

    def wait_for(self, condition: Callable[[], bool], timeout: float = 10.0) -> None:
        """Wait until something is so that depends on this server alone: it is looked at after each change here.

        Raises:
            TimeoutError: It is not so after `timeout` seconds.
        """
        with self._backend.changed:
            if not self._backend.changed.wait_for(condition, timeout):
                raise TimeoutError(f"not so after {timeout:g} s; requests: {self._told()}")

    def wait_for_requests(self, count: int, verb: str | None = None, timeout: float = 10.0) -> list[Request]:
        """Wait until so many requests have come, of one verb or of any, and return them.

        Raises:
            TimeoutError: They have not, after `timeout` seconds.
        """

        def found() -> list[Request]:
            return [request for request in self._backend.requests if verb in (None, request.verb)]

        self.wait_for(lambda: len(found()) >= count, timeout)
        return found()

    def wait_for_watches(self, count: int, timeout: float = 10.0) -> None:
        """Wait until just so many watches are open; 0 tells that every client has hung up.

        Raises:
            TimeoutError: They are not, after `timeout` seconds.
        """
        self.wait_for(lambda: self.open_watches == count, timeout)

    def _told(self) -> str:
        newest = [f"{request.verb} {request.path}" for request in self._backend.requests][-10:]
        return ", ".join(newest) or "none"

    def _resource(self, name: str) -> Resource:
        found = self._backend.resources.get(name)
        if found is None:
            raise ValueError(f"{name!r} is not served: add_resource() adds it")
        return found

    # Sockets and threads.

    def _listen(self, listener: socket.socket) -> None:
        listener.listen(128)
        self._acceptor = threading.Thread(
            target=self._accept, args=(listener,), name="workpool-api-server", daemon=True
        )
        self._acceptor.start()

    def _accept(self, listener: socket.socket) -> None:
        while True:
            client, _ = listener.accept()
            with self._backend.changed:
                if listener is not self._listener:
                    client.close()
                    return
                connection = Connection(self._backend, client)
                thread = threading.Thread(target=connection.run, name="workpool-api-connection", daemon=True)
                self._threads = {each: its for each, its in self._threads.items() if each.is_alive()}
                self._threads[thread] = connection
                thread.start()


def _bound(port: int) -> socket.socket:
    made = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    made.bind(("127.0.0.1", port))
    return made


def _place(resource: Resource, namespace: str | None) -> str:
    return (namespace or "default") if resource.namespaced else ""


def _picks(concerns: str | Callable[[Request], bool]) -> Callable[[Request], bool]:
    return concerns if callable(concerns) else lambda request: request.verb == concerns
