"""A client of the standard library's, that hides nothing: what a stream ended with is what it raises."""

from __future__ import annotations

import json
import select
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection, HTTPResponse
from typing import Any
from urllib.parse import urlencode

from support import PATIENCE
from workpool.testing.kubernetes import ApiServer

PODS = "/api/v1/pods"


def pod(name: str, namespace: str = "default", **more: Any) -> dict[str, Any]:
    """A pod with labels, as `app="web"`, or with whole parts, as `spec={...}`."""
    parts: dict[str, Any] = {part: more.pop(part) for part in ("spec", "status") if part in more}
    return {"metadata": {"name": name, "namespace": namespace, "labels": more}, **parts}


class Answered:
    """What a request was answered."""

    def __init__(self, response: HTTPResponse) -> None:
        self.code = response.status
        self.headers = response.headers
        self.body = response.read()

    @property
    def text(self) -> str:
        return self.body.decode()

    @property
    def json(self) -> Any:
        return json.loads(self.body)


def ask(
    server: ApiServer,
    path: str = PODS,
    method: str = "GET",
    body: Any = None,
    token: str = "",
    encoding: str = "",
    content_type: str = "",
    **query: object,
) -> Answered:
    """One request on a connection of its own."""
    connection = HTTPConnection("127.0.0.1", server.port, timeout=PATIENCE)
    try:
        given = {
            "Authorization": token and f"Bearer {token}",
            "Accept-Encoding": encoding,
            "Content-Type": content_type,
        }
        headers = {name: value for name, value in given.items() if value}
        connection.request(method, _target(path, query), body and json.dumps(body), headers)
        return Answered(connection.getresponse())
    finally:
        connection.close()


def names(server: ApiServer, **query: object) -> list[str]:
    """Those of the pods in a list."""
    answered = ask(server, **query)  # type: ignore[arg-type]
    assert answered.code == 200, answered.text
    return [item["metadata"]["name"] for item in answered.json["items"]]


class Stream:
    """A watch that is read line by line."""

    def __init__(self, server: ApiServer, path: str, query: dict[str, object]) -> None:
        self.connection = HTTPConnection("127.0.0.1", server.port, timeout=PATIENCE)
        self.connection.request("GET", _target(path, {"watch": "true", **query}))
        self.response = self.connection.getresponse()
        self.code = self.response.status
        self._read = b""

    def line(self) -> bytes:
        """The next; empty at a proper end."""
        while b"\n" not in self._read:
            more = self.response.read1()
            if not more:
                assert not self._read, "the stream ended amid a line"
                return b""
            self._read += more
        line, _, self._read = self._read.partition(b"\n")
        return line

    def next(self) -> tuple[str, str]:
        """The type and the name of the next event; the version of a bookmark."""
        event = json.loads(self.line())
        metadata = event["object"]["metadata"]
        return event["type"], metadata.get("name", metadata.get("resourceVersion"))

    def event(self) -> Any:
        """The next, whole."""
        return json.loads(self.line())

    def silent(self) -> bool:
        """Whether nothing has come that was not read."""
        return not self._read and not select.select([self.connection.sock], [], [], 0)[0]


@contextmanager
def watching(server: ApiServer, path: str = PODS, **query: object) -> Iterator[Stream]:
    """A watch, closed in the end."""
    stream = Stream(server, path, query)
    try:
        yield stream
    finally:
        stream.response.close()
        stream.connection.close()


def _target(path: str, query: dict[str, object]) -> str:
    return f"{path}?{urlencode({key: str(value) for key, value in query.items()})}" if query else path
