"""What may stand between a client and a server: TLS, proxies, and places where nobody answers."""

from __future__ import annotations

import json
import select
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import TracebackType
from typing import Any, Self

import trustme

from support import PATIENCE
from workpool.sources.kubernetes.client import Stream
from workpool.sources.kubernetes.steps import Lines

Serve = Callable[[socket.socket], object]


class Listener:
    """Serves each connection by a function, on a thread of its own, until the block ends."""

    def __init__(self, serve: Serve) -> None:
        self._serve = serve
        self._socket = socket.create_server(("127.0.0.1", 0))
        self._acceptor = threading.Thread(target=self._accept, daemon=True)
        self._threads: list[threading.Thread] = []
        self._clients: list[socket.socket] = []
        self.accepted = threading.Semaphore(0)
        """Released for each connection."""

    @property
    def port(self) -> int:
        found: int = self._socket.getsockname()[1]
        return found

    def __enter__(self) -> Self:
        self._acceptor.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        hang_up(self._socket)
        self._acceptor.join(PATIENCE)
        for client in self._clients:
            hang_up(client)
        for thread in [self._acceptor, *self._threads]:
            thread.join(PATIENCE)
            assert not thread.is_alive()
        self._socket.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._socket.accept()
                self._clients.append(client.dup())  # TLS takes the other one.
                self._threads.append(threading.Thread(target=self._run, args=(client, self._clients[-1]), daemon=True))
                self._threads[-1].start()
                self.accepted.release()

    def _run(self, client: socket.socket, copy: socket.socket) -> None:
        with copy, client, suppress(OSError):
            try:
                self._serve(client)
            finally:
                hang_up(copy)


def hang_up(client: socket.socket) -> None:
    with suppress(OSError):
        client.shutdown(socket.SHUT_RDWR)


def pump(one: socket.socket, other: socket.socket) -> None:
    """Carry what comes from either to the other, until one hangs up."""
    across = {one: other, other: one}
    while True:
        waiting = [each for each in across if isinstance(each, ssl.SSLSocket) and each.pending()]
        for each in waiting or select.select([*across], [], [])[0]:
            if not (read := each.recv(65536)):
                return
            across[each].sendall(read)


def pump_to(port: int) -> Serve:
    """Carry everything to and from a port."""

    def serve(client: socket.socket) -> None:
        with socket.create_connection(("127.0.0.1", port)) as server:
            pump(client, server)

    return serve


def over_tls(serve: Serve, context: ssl.SSLContext) -> Serve:
    """Speak TLS, and serve what it carries."""

    def secure(client: socket.socket) -> None:
        with context.wrap_socket(client, server_side=True) as inner:
            serve(inner)

    return secure


def answer(head: str, body: bytes = b"") -> Serve:
    """Answer the first request with these bytes, and hang up."""

    def serve(client: socket.socket) -> None:
        client.recv(65536)
        client.sendall(b"%b\r\n\r\n%b" % (head.replace("\n", "\r\n").encode(), body))

    return serve


def silence(client: socket.socket) -> None:
    """Take everything, and say nothing."""
    while client.recv(65536):
        pass


class Proxy(Listener):
    """Connects to what it is asked for.

    Attributes:
        asked: The heads of the requests.
    """

    def __init__(self, context: ssl.SSLContext | None = None) -> None:
        super().__init__(over_tls(self._connect, context) if context else self._connect)
        self.asked: list[str] = []

    def _connect(self, client: socket.socket) -> None:
        head = b""
        while b"\r\n\r\n" not in head:
            head += client.recv(1)
        self.asked.append(head.decode())
        port = int(head.split()[1].rpartition(b":")[2])
        client.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        pump_to(port)(client)


def socks(client: socket.socket) -> None:
    """A SOCKS proxy, version 5, that is given addresses and asks for no password."""
    client.recv(2 + client.recv(2, socket.MSG_PEEK)[1])
    client.sendall(b"\x05\x00")
    asked = client.recv(10)
    client.sendall(b"\x05\x00\x00\x01" + bytes(6))
    pump_to(int.from_bytes(asked[8:10]))(client)


def server_context(authority: trustme.CA, name: str = "127.0.0.1", *, ask_client: bool = False) -> ssl.SSLContext:
    """TLS for a server of some name, which may ask for the certificate of its client."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(name).configure_cert(context)
    if ask_client:
        context.verify_mode = ssl.CERT_REQUIRED
        authority.configure_trust(context)
    return context


@contextmanager
def nobody_accepts() -> Iterator[int]:
    """A port where connections are never made: its backlog is full."""
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        waiting = []
        try:
            for _ in range(4):  # How many it takes is the kernel's affair.
                waiting.append(socket.socket())
                waiting[-1].setblocking(False)
                waiting[-1].connect_ex(full.getsockname())
            yield full.getsockname()[1]
        finally:
            for each in waiting:
                each.close()


def lines_of(stream: Stream, seconds: float = PATIENCE) -> Iterator[Any]:
    """The lines of a stream, until it ends or is silent for so long: each decoded, or None where it cannot be."""
    try:
        while isinstance(read := stream.read(seconds), Lines):
            yield from map(_decode, read.values)
    finally:
        stream.close()


def _decode(line: bytes) -> Any:
    try:
        return json.loads(line)
    except ValueError:
        return None
