"""Connections that another thread can cut, wherever the one that uses them is blocked.

It may be connecting, shaking hands with the server or a proxy, waiting for an answer, or reading it. What wakes it in
each case is `shutdown` of the socket; so each socket is known here from before it is connected.

    the socket of a request is in `Sockets`  or  the request fails before it blocks         (from `begin` on)
"""

from __future__ import annotations

import ipaddress
import socket
import ssl
import threading
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING, Any, Final
from weakref import WeakSet

from urllib3 import BaseHTTPResponse, PoolManager, ProxyManager
from urllib3.connectionpool import HTTPConnectionPool
from urllib3.exceptions import ConnectTimeoutError, NewConnectionError
from urllib3.util import parse_url

if TYPE_CHECKING:
    from kubernetes.client import Configuration

__all__ = ["Sockets", "cut", "open_pools", "socket_of"]

SETTINGS: Final = {
    "ca_certs": "ssl_ca_cert",
    "ca_cert_data": "ca_cert_data",
    "cert_file": "cert_file",
    "key_file": "key_file",
    "assert_hostname": "assert_hostname",
    "server_hostname": "tls_server_name",
    "socket_options": "socket_options",
    "maxsize": "connection_pool_maxsize",
}
"""What urllib3 calls the settings of a configuration. Older ones have not all of them."""


class Sockets:
    """Those that are open, for whoever has to cut them."""

    def __init__(self) -> None:
        self._open: WeakSet[socket.socket] = WeakSet()
        self._mutex = threading.RLock()
        """Guards both of these. Re-entrant: a signal handler may interrupt in the middle of `add`."""
        self._interrupts = 0
        self._seen = threading.local()
        """The interrupts before the request of this thread."""

    def begin(self) -> None:
        """A request begins on this thread: an interrupt from now on concerns it, though it has no socket yet."""
        self._seen.interrupts = self._interrupts

    @property
    def interrupted(self) -> bool:
        """Whether somebody has interrupted since the request of this thread began."""
        return bool(self._seen.interrupts != self._interrupts)

    def add(self, opened: socket.socket) -> None:
        """Know a socket of this thread's request, for as long as it lives.

        Raises:
            ConnectionAbortedError: The request was interrupted before.
        """
        with self._mutex:
            self._open.add(opened)
            if self.interrupted:  # Looked at after the socket is there: a signal may come in between.
                raise ConnectionAbortedError("interrupted")

    def interrupt(self) -> None:
        """Wake up every thread that is blocked in one of them."""
        with self._mutex:
            self._interrupts += 1
            for each in self._open:
                cut(each)


def cut(opened: socket.socket) -> None:
    """Wake up the thread that is blocked in a socket, as if the other side had hung up."""
    with suppress(OSError):  # It is closed, or not connected any more.
        # Not by its own method: that of TLS would have the reader take what still comes for plain text.
        socket.socket.shutdown(opened, socket.SHUT_RDWR)


def socket_of(response: BaseHTTPResponse) -> socket.socket | None:
    """What an answer of these pools comes by; None where it has come."""
    found: socket.socket | None = getattr(response.connection, "under", None)
    return found


def open_pools(configuration: Configuration, sockets: Sockets) -> PoolManager:
    """What makes and keeps connections, with the settings for TLS and proxies of a configuration.

    Source: `RESTClientObject` in kubernetes.client.rest.

    Raises:
        ValueError, ImportError: The proxy cannot be used.
    """
    found = {option: getattr(configuration, name, None) for option, name in SETTINGS.items()}
    options: dict[str, Any] = {option: value for option, value in found.items() if value not in (None, "")}
    options["cert_reqs"] = ssl.CERT_REQUIRED if configuration.verify_ssl else ssl.CERT_NONE
    proxy, direct = configuration.proxy, True
    pools: PoolManager
    if not proxy or _passes_by(configuration.host, configuration.no_proxy or ""):
        pools = PoolManager(**options)
    elif proxy.lower().startswith("socks"):
        from urllib3.contrib.socks import SOCKSProxyManager  # noqa: PLC0415 -- it needs PySocks, and says so

        pools, direct = SOCKSProxyManager(proxy, **options), False
    else:
        policy = getattr(configuration, "proxy_ssl_context", None)
        pools = ProxyManager(proxy, proxy_headers=configuration.proxy_headers, proxy_ssl_context=policy, **options)
    kinds = pools.pool_classes_by_scheme
    pools.pool_classes_by_scheme = {scheme: _known(kind, sockets, direct) for scheme, kind in kinds.items()}
    return pools


def _known(kind: Any, sockets: Sockets, direct: bool) -> type[HTTPConnectionPool]:
    """A pool like another, whose sockets are known, and those that are `direct` from before they are connected."""

    class Connection(kind.ConnectionCls):  # type: ignore[misc]
        under: socket.socket
        """What there is beneath HTTP: of TLS within the TLS of a proxy, the outer one."""
        _copies: ExitStack

        def connect(self) -> None:
            # TLS takes the socket over, and shows its own when it has shaken hands. Until then, a copy stands for both;
            # no longer, for a connection is closed when the last copy is.
            with ExitStack() as self._copies:
                try:
                    super().connect()
                    sock: Any = self.sock
                    self.under = getattr(sock, "socket", sock)
                    sockets.add(self.under)
                except TimeoutError as error:
                    raise ConnectTimeoutError(self, f"no connection after {self.timeout:g} s") from error
                except ssl.SSLError:
                    raise
                except OSError as error:
                    raise NewConnectionError(self, str(error)) from error

        def _new_conn(self) -> socket.socket:
            if not direct:
                made: socket.socket = super()._new_conn()
                self._know(made)
                return made
            host = self.host.strip("[]")
            addresses = socket.getaddrinfo(host, self.port, type=socket.SOCK_STREAM)
            for family, _, protocol, _, address in addresses:
                try:
                    return self._reach(address, socket.socket(family, socket.SOCK_STREAM, protocol))
                except OSError:
                    if address is addresses[-1][-1]:
                        raise
            raise OSError(f"{host} has no address")

        def _reach(self, address: Any, made: socket.socket) -> socket.socket:
            try:
                for option in self.socket_options or ():
                    made.setsockopt(*option)
                made.settimeout(self.timeout)
                self._know(made)
                made.connect(address)
            except BaseException:
                made.close()
                raise
            return made

        def _know(self, made: socket.socket) -> None:
            sockets.add(self._copies.enter_context(made.dup()))

    class Pool(kind):  # type: ignore[misc]
        ConnectionCls = Connection

    return Pool


def _passes_by(url: str, no_proxy: str) -> bool:
    """Whether a host is one of those that are connected to without the proxy."""
    parsed = parse_url(url)
    host = (parsed.host or "").strip("[]").lower()
    for entry in no_proxy.lower().replace(" ", "").split(","):
        name = entry.lstrip(".")
        if entry and (entry == "*" or name in (host, f"{host}:{parsed.port}") or host.endswith(f".{name}")):
            return True
        with suppress(ValueError):  # One of them is a name.
            if ipaddress.ip_address(host) in ipaddress.ip_network(entry, strict=False):
                return True
    return False
