"""A server in a process of its own that sends pods as fast as they are read: a few answers, and no API server.

It knows one resource, v1/pods. A list is that of its objects, in pages. A watch from no version begins with all of
them, as one of an API server does; then comes the stream: changes of the objects in turn, or pods that come and go at
once, each with a name and a uid of its own. What is sent is cut from lines that were encoded beforehand, so that this
takes a small part of what any client takes. Each line is a chunk of its own, as an API server flushes each.
"""

from __future__ import annotations

import gzip
import json
import os
import socketserver
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple
from urllib.parse import parse_qs, urlsplit
from urllib.request import urlopen

PODS = Path(__file__).parents[3] / "examples" / "data" / "pods-small.ndjson.gz"
FIRST = 100_000_000
"""The version of the list. All versions have as many digits, so that all changes of an object are equally long."""
_TOGETHER = 64
"""Lines that are handed to the socket at once."""
_NAME, _UID, _VERSION = "pod-@@@@@@@@@", "00000000-0000-4000-8000-@@@@@@@@@", "VVVVVVVVV"
_VERBS = ["get", "list", "watch", "create", "delete", "patch", "update"]
_RESOURCES = [
    {"name": "pods", "singularName": "pod", "namespaced": True, "kind": "Pod", "verbs": _VERBS},
    {"name": "namespaces", "singularName": "namespace", "namespaced": False, "kind": "Namespace", "verbs": _VERBS},
]
_KUBECONFIG = """\
apiVersion: v1
kind: Config
clusters: [{{name: here, cluster: {{server: "{address}"}}}}]
users: [{{name: me, user: {{token: none}}}}]
contexts: [{{name: here, context: {{cluster: here, user: me}}}}]
current-context: here
"""
_DOCUMENTS: dict[str, Any] = {
    "/version": {"major": "1", "minor": "35", "gitVersion": "v1.35.0"},
    "/api": {"kind": "APIVersions", "versions": ["v1"]},
    "/apis": {"kind": "APIGroupList", "apiVersion": "v1", "groups": []},
    "/api/v1": {"kind": "APIResourceList", "groupVersion": "v1", "resources": _RESOURCES},
}


class Firehose(NamedTuple):
    """One that runs."""

    address: str
    environment: dict[str, str]
    """Of a process whose cluster it is: KUBECONFIG has to be there before a client is imported."""

    def release(self, pairs: int) -> None:
        """Let a churn go on to so many pairs in all."""
        urlopen(f"{self.address}/release?pairs={pairs}").close()


@contextmanager
def firehose(objects: int, stream: str = "none") -> Iterator[Firehose]:
    """Run one.

    Args:
        objects: How many there are.
        stream: What a watch says of them: "none", "changes" without end, or "churn", as much as `release` allows.
    """
    command = [sys.executable, "-m", __name__, str(objects), stream]
    with TemporaryDirectory() as directory, subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            address = process.stdout.readline().strip()
            kubeconfig = Path(directory, "config")
            kubeconfig.write_text(_KUBECONFIG.format(address=address))
            yield Firehose(address, {**os.environ, "KUBECONFIG": str(kubeconfig)})
        finally:
            process.terminate()


class _Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, objects: int, stream: str) -> None:
        super().__init__(("127.0.0.1", 0), _Connection)
        self.pods = _make_pods(objects)
        self.stream = stream
        self.pairs = 0
        self.released = threading.Condition()

    def list(self, start: int, limit: int) -> bytes:
        """A page; it says where the next begins."""
        items = [item.replace(_VERSION, str(FIRST)) for item in self.pods[start : start + limit]]
        token = str(start + limit) if start + limit < len(self.pods) else ""
        head = f'"metadata":{{"resourceVersion":"{FIRST}","continue":"{token}"}}'
        return f'{{"kind":"PodList","apiVersion":"v1",{head},"items":[{",".join(items)}]}}'.encode()

    def lines(self, initial: bool) -> Iterator[bytes]:
        """Chunks of a watch, many at a time."""
        if initial:
            yield b"".join(_chunk("ADDED", pod).replace(_VERSION.encode(), b"%d" % FIRST) for pod in self.pods)
        if self.stream == "changes":
            cut = [_chunk("MODIFIED", pod).split(_VERSION.encode()) for pod in self.pods]
            version = FIRST
            while True:
                for begin in range(0, len(cut), _TOGETHER):
                    some = cut[begin : begin + _TOGETHER]
                    yield b"".join((b"%d" % (version + n)).join(pieces) for n, pieces in enumerate(some, 1))
                    version += len(some)
        elif self.stream == "churn":
            yield from self._churn()
        with self.released:
            self.released.wait()  # For ever.

    def _churn(self) -> Iterator[bytes]:
        pod = _make_pod(json.loads(self.pods[0])) if self.pods else _make_pod(_read_pods()[0])
        lines = _chunk("ADDED", pod), _chunk("DELETED", pod)
        for number in count():
            with self.released:
                self.released.wait_for(lambda number=number: number < self.pairs)  # type: ignore[misc]
            name = b"%09d" % number
            versions = (b"%d" % (FIRST + 2 * number + n) for n in (1, 2))
            yield b"".join(
                line.replace(b"@" * 9, name).replace(_VERSION.encode(), version)
                for line, version in zip(lines, versions, strict=True)
            )


class _Connection(socketserver.StreamRequestHandler):
    server: _Server
    disable_nagle_algorithm = True

    def handle(self) -> None:
        while line := self.rfile.readline().split():
            while self.rfile.readline().strip():
                pass
            url = urlsplit(line[1].decode())
            query = {name: values[-1] for name, values in parse_qs(url.query).items()}
            if query.get("watch", "").lower() in ("true", "1"):
                with suppress(OSError):  # Whoever reads has had enough.
                    self._watch(query)
                return
            self._answer(url.path, query)

    def _watch(self, query: dict[str, str]) -> None:
        self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n")
        for some in self.server.lines(initial=not query.get("resourceVersion")):
            self.wfile.write(some)

    def _answer(self, path: str, query: dict[str, str]) -> None:
        status, body = b"200 OK", b"{}"
        if path == "/api/v1/pods":
            body = self.server.list(int(query.get("continue") or 0), int(query.get("limit") or sys.maxsize))
        elif path == "/release":
            with self.server.released:
                self.server.pairs = int(query["pairs"])
                self.server.released.notify_all()
        elif path in _DOCUMENTS:
            body = json.dumps(_DOCUMENTS[path]).encode()
        else:
            status, body = b"404 Not Found", b'{"kind":"Status","status":"Failure","reason":"NotFound","code":404}'
        head = b"HTTP/1.1 %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % (status, len(body))
        self.wfile.write(head + body)


def _read_pods() -> list[dict[str, Any]]:
    with gzip.open(PODS) as lines:
        return [json.loads(line)["object"] for line in lines]


def _make_pods(count: int) -> list[str]:
    """Pods as JSON, with a place for the version."""
    pods = _read_pods()
    return [_make_pod(pods[n % len(pods)]).replace("@" * 9, f"{n:09}") for n in range(count)]


def _make_pod(pod: dict[str, Any]) -> str:
    metadata = {**pod["metadata"], "name": _NAME, "uid": _UID, "resourceVersion": _VERSION}
    return json.dumps({**pod, "metadata": metadata}, separators=(",", ":"))


def _chunk(kind: str, pod: str) -> bytes:
    line = f'{{"type":"{kind}","object":{pod}}}\n'.encode()
    return b"%x\r\n%s\r\n" % (len(line), line)


if __name__ == "__main__":
    with _Server(int(sys.argv[1]), sys.argv[2]) as server:
        print(f"http://127.0.0.1:{server.server_address[1]}", flush=True)
        server.serve_forever()
