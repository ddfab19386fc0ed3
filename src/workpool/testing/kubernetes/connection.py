"""One connection of a client, on a thread of its own: HTTP/1.1, and the faults that strike it."""

from __future__ import annotations

import gzip
import json
import selectors
import socket
import struct
from collections.abc import Mapping
from contextlib import suppress
from http import HTTPStatus
from http.client import HTTPException, parse_headers
from typing import Any, Final

from workpool.testing.kubernetes.backend import Backend
from workpool.testing.kubernetes.faults import (
    Answer,
    Do,
    End,
    ErrorEvent,
    Fault,
    Garbage,
    Hang,
    Reset,
    StreamFault,
    Truncate,
    Unversioned,
)
from workpool.testing.kubernetes.query import Watch
from workpool.testing.kubernetes.request import Request
from workpool.testing.kubernetes.status import ApiError

__all__ = ["Bell", "Connection"]

_MAX_LINE: Final = 65536
_MIN_COMPRESSED: Final = 128 * 1024
"""As of a real server. A watch is never compressed."""
_LAST_CHUNK: Final = b"0\r\n\r\n"
_RESET: Final = struct.pack("ii", 1, 0)
"""For SO_LINGER: closing throws away what is not sent, and resets."""


class Bell:
    """Wakes up a thread that waits for sockets."""

    def __init__(self) -> None:
        self._heard, self._rung = socket.socketpair()
        self._heard.setblocking(False)
        self._rung.setblocking(False)

    def fileno(self) -> int:
        """For a selector."""
        return self._heard.fileno()

    def ring(self) -> None:
        """From any thread. It may be full, which rings too, or closed, when nobody waits."""
        with suppress(OSError):
            self._rung.send(b"!")

    def quiet(self) -> None:
        """Take back every ring until now."""
        with suppress(BlockingIOError):
            while self._heard.recv(4096):
                pass

    def close(self) -> None:
        """Close both ends."""
        self._heard.close()
        self._rung.close()


class Connection:
    """Reads requests and answers them, until either side closes.

    Args:
        backend: Of the server.
        client: The socket.
    """

    def __init__(self, backend: Backend, client: socket.socket) -> None:
        self._backend = backend
        self._socket = client
        self._reader = client.makefile("rb")
        self._cut = False
        self._bell = Bell()
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._bell, selectors.EVENT_READ)
        self._selector.register(client, selectors.EVENT_READ)

    def run(self) -> None:
        """Answer one request after another."""
        try:
            # Else a line could wait until the client has acknowledged the one before it.
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            while (request := self._read()) is not None and self._serve(request):
                pass
        except (OSError, ValueError, HTTPException):
            pass  # The client hung up, or `cut` did, or this is no HTTP.
        finally:
            self._selector.close()
            self._bell.close()
            self._reader.close()
            self._socket.close()

    def cut(self) -> None:
        """End it from another thread, wherever it stands."""
        self._cut = True
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._bell.ring()  # It may wait for the bell alone.

    def _read(self) -> Request | None:
        first = self._reader.readline(_MAX_LINE)
        if not first:
            return None
        method, target, _ = first.decode("ascii").split()
        headers = {name.lower(): value for name, value in parse_headers(self._reader).items()}
        return Request.of(method, target, headers, self._reader.read(int(headers.get("content-length", 0))))

    # What answers returns whether the connection goes on.

    def _serve(self, request: Request) -> bool:
        fault = self._backend.admit(request)
        if isinstance(fault, Do):
            fault.action()
            fault = None
        if isinstance(fault, Answer):
            answer = fault.filled()
            return self._respond(answer.code, answer.body or "", answer.retry_after)
        if isinstance(fault, Reset | Hang) and (fault.after is None or request.verb != "watch"):
            return self._end(fault)
        try:
            found = self._backend.answer(request, self._bell.ring)
        except ApiError as error:
            if request.verb == "watch" and error.code == 410 and self._backend.expired_in_stream:
                self._begin_stream()
                return self._end(ErrorEvent(error.status))
            return self._respond(error.code, error.status, error.status.get("details", {}).get("retryAfterSeconds"))
        if isinstance(found, Watch):
            try:
                self._begin_stream()
                return self._stream(found, fault)
            finally:
                self._backend.close(found)
        return self._respond(
            *found,
            truncated=isinstance(fault, Truncate),
            compressible="gzip" in request.headers.get("accept-encoding", ""),
        )

    def _respond(
        self,
        code: int,
        body: Mapping[str, Any] | str,
        retry_after: int | None = None,
        *,
        truncated: bool = False,
        compressible: bool = False,
    ) -> bool:
        kind = "text/plain; charset=utf-8" if isinstance(body, str) else "application/json"
        content = body.encode() if isinstance(body, str) else _encode(body)
        more = f"Retry-After: {retry_after}\r\n" if retry_after is not None else ""
        if compressible and len(content) > _MIN_COMPRESSED:
            content = gzip.compress(content, 1)
            more += "Content-Encoding: gzip\r\nVary: Accept-Encoding\r\n"
        self._socket.sendall(_head(code, f"Content-Type: {kind}\r\nContent-Length: {len(content)}\r\n{more}"))
        self._socket.sendall(content[: len(content) // 2] if truncated else content)
        return not truncated

    def _stream(self, watch: Watch, fault: Fault | None) -> bool:
        deadline = self._backend.clock.now() + watch.timeout if watch.timeout else None
        sent = 0
        while True:
            match due := fault if sent >= (getattr(fault, "after", None) or 0) else None:
                case Garbage(line):
                    self._send_line(line)
                    sent, fault = sent + 1, None
                    continue
                case End() | ErrorEvent() | Reset() | Hang():
                    return self._end(due)
            event = self._next(watch, deadline)
            if event is None:
                return False
            if not isinstance(event, dict):
                fault, sent = event, 0
                continue
            line = _encode(event)
            match due:
                case Truncate():
                    self._socket.sendall(b"%x\r\n%b" % (len(line) + 1, line[: len(line) // 2]))
                    return False
                case Unversioned():
                    line, fault = _encode(_without_version(event)), None
            self._send_line(line)
            sent += 1

    def _end(self, fault: StreamFault) -> bool:
        match fault:
            case Reset():
                self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
                return False
            case Hang():
                while self._wait(None):
                    pass
                return False
            case ErrorEvent(status):
                self._send_line(_encode({"type": "ERROR", "object": status}))
        self._socket.sendall(_LAST_CHUNK)
        return True

    def _next(self, watch: Watch, deadline: float | None) -> dict[str, Any] | StreamFault | None:
        """What the watch has to send next, when it has it; None when the client is gone."""
        while (item := self._backend.take(watch)) is None:
            if deadline is not None and self._backend.clock.now() >= deadline:
                self._backend.time_out(watch)
            elif not self._wait(deadline):
                return None
        return item

    def _wait(self, deadline: float | None) -> bool:
        """Until the bell rings, or the time has come; whether the client is still there."""
        timeout = None if deadline is None else self._backend.clock.pause(deadline, self._bell.ring)
        for key, _ in self._selector.select(timeout):
            if key.fileobj is self._bell:
                self._bell.quiet()
            elif self._socket.recv(1, socket.MSG_PEEK):
                # The next request has to wait for the end of this one, and a look at it each time would spin.
                self._selector.unregister(self._socket)
            else:
                return False
        return not self._cut

    def _begin_stream(self) -> None:
        self._socket.sendall(_head(200, "Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n"))

    def _send_line(self, line: bytes) -> None:
        data = line + b"\n"
        size = self._backend.chunk_size or len(data)
        parts = (data[start : start + size] for start in range(0, len(data), size))
        self._socket.sendall(b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts))


def _head(code: int, headers: str) -> bytes:
    return f"HTTP/1.1 {code} {HTTPStatus(code).phrase}\r\n{headers}\r\n".encode("ascii")


def _encode(document: Mapping[str, Any]) -> bytes:
    return json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()


def _without_version(event: dict[str, Any]) -> dict[str, Any]:
    found = event["object"]
    metadata = {name: value for name, value in found["metadata"].items() if name != "resourceVersion"}
    return {**event, "object": {**found, "metadata": metadata}}
