"""Requests to the API server: a list, and a watch. What the world does to one comes back as a `Failure`.

Credentials and settings are the official client's `Configuration`; HTTP and TLS are urllib3's. Neither repeats a
request or follows a redirect: what to do next is for the reflector to say.
"""

from __future__ import annotations

import math
import os
import select
import threading
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import partial
from http.client import HTTPException, IncompleteRead, RemoteDisconnected
from importlib.metadata import version
from socket import gaierror
from ssl import SSLCertVerificationError, SSLError
from typing import TYPE_CHECKING, Any, Final, Self
from urllib.parse import urlencode
from weakref import WeakSet

from msgspec.json import decode
from urllib3 import BaseHTTPResponse, HTTPResponse, PoolManager, Timeout
from urllib3.exceptions import ConnectTimeoutError, HTTPError, ProxyError
from urllib3.util import parse_url, wait_for_read
from urllib3.util.ssl_match_hostname import CertificateError

from workpool.sources.kubernetes import credentials
from workpool.sources.kubernetes.connections import Sockets, cut, open_pools, socket_of
from workpool.sources.kubernetes.errors import BadKubeconfig, KubernetesError, in_one_line
from workpool.sources.kubernetes.objects import BAD
from workpool.sources.kubernetes.steps import Done, End, Failure, Lines, Page, Silence

if TYPE_CHECKING:
    from kubernetes.client import Configuration

__all__ = ["Client", "Stream"]

CONNECT_TIMEOUT: Final = 10.0
"""Seconds for the connection, and as many for TLS (R16)."""
USER_AGENT: Final = f"workpool/{version('workpool')}"
READ_SIZE: Final = 65_536
MANY: Final = 128
"""Lines that are taken together, and events that are added so: a worker is woken once for all of them, and a processor
does one thing for a while. More would be cheaper still, and the first would wait longer."""
_BREATH: Final = 1.0
"""Seconds that lines wait for the rest of what has begun to come. After that they are told, and the stream is given up:
urllib3 reads no further where a read has timed out. The next one goes on from there."""
_LONG: Final = 3600.0
"""Seconds of silence after which it is told at the latest: a system call takes no number of any size."""
WORLD: Final = (HTTPError, HTTPException, OSError, ValueError)
"""What urllib3 raises for what the world does. ValueError is for an address that no request can carry."""


class Client:
    """Asks one API server, from any thread.

    Args:
        configuration: Where it is, and who asks.
        namespace: The one that goes with it.

    Attributes:
        server: The address, for messages.
        namespace: Of the context, or of the pod.

    Raises:
        BadKubeconfig: The address or the proxy of the configuration cannot be used.
    """

    def __init__(self, configuration: Configuration, namespace: str = "default") -> None:
        self.server: str
        self.namespace: str = namespace
        self._sockets = Sockets()
        self._streams: WeakSet[Stream] = WeakSet()
        self._closed = False
        self._mutex = threading.RLock()
        """Guards these two. Re-entrant: a signal handler may close."""
        self._load: Callable[[], tuple[Configuration, str]] | None = None
        self._present: tuple[Configuration, PoolManager]
        self._use(configuration)

    @classmethod
    def load(cls, kubeconfig: str | os.PathLike[str] | None = None, context: str | None = None) -> Self:
        """A client for the cluster that a kubeconfig names, or that this is a pod of.

        Args:
            kubeconfig: A file; None for those that `KUBECONFIG` names, else `~/.kube/config`, else what a pod is given.
            context: One of the kubeconfig's; None for its current one.

        Raises:
            BadKubeconfig: It is missing or wrong, or its plug-in for credentials has failed.
            NoCluster: There is none, and this is no pod.
        """

        def again() -> tuple[Configuration, str]:
            return credentials.load(kubeconfig, context)

        client = cls(*again())
        client._load = again
        return client

    def list(self, path: str, query: Mapping[str, str], timeout: float) -> Page | Failure:
        """Ask for a document.

        Args:
            path: Below the server's address, such as "/api/v1/pods".
            query: The parameters.
            timeout: Seconds of silence after which it is given up; connecting has its own.
        """
        response = self._get(path, query, timeout, encoding="gzip")
        if isinstance(response, Failure):
            return response
        try:
            return Page(response.read())
        except WORLD as error:
            return self._failed(error, timeout)
        finally:
            response.close()  # Of one that was read to its end, the connection is kept.

    def watch(self, path: str, query: Mapping[str, str], timeout: float) -> Stream | Failure:
        """Open a watch.

        Args:
            path: Below the server's address.
            query: The parameters.
            timeout: Seconds of silence after which it is given up; connecting has its own, and each read of the stream.
        """
        response = self._get(path, query, timeout, encoding="identity")
        if isinstance(response, Failure):
            return response
        stream = Stream(response)
        with self._mutex:
            self._streams.add(stream)
            late = self._closed
        if late:
            stream.close()
        return stream

    def refresh(self) -> Done | Failure:
        """Get new credentials: load the configuration again, whereby plug-ins run again (R14).

        It lasts as long as the plug-in does. A configuration that was handed over, and not loaded, is used as it is.
        """
        try:
            if self._load is not None:
                configuration, self.namespace = self._load()
                _, pools = self._present
                before = self.server
                self._use(configuration)
                _close(pools, before)
        except KubernetesError as error:
            return Failure(error=str(error))
        return Done()

    def interrupt(self) -> None:
        """Cut every connection, from any thread: each request under way fails, and each stream ends, at once.

        Only those are: one that begins a moment later is not. Who stops a thread tells it so first, and calls this
        until it has ended. A name that is being looked up, and a plug-in that runs, are not interrupted.
        """
        self._sockets.interrupt()

    def close(self) -> None:
        """Interrupt, and close every connection. Requests fail from now on."""
        with self._mutex:
            self._closed = True
            streams = [*self._streams]
        self._sockets.interrupt()
        for stream in streams:
            stream.close()
        _close(self._present[1], self.server)

    def _use(self, configuration: Configuration) -> None:
        server = configuration.host.rstrip("/")
        try:
            address = parse_url(server)
            if address.scheme not in ("http", "https") or not address.host:
                raise BadKubeconfig("", f"the server {server!r} is no address such as https://10.0.0.1:6443")
            pools = open_pools(configuration, self._sockets)
        except (ValueError, ImportError) as error:
            raise BadKubeconfig("", in_one_line(error)) from error
        self.server = server
        self._present = configuration, pools

    def _get(self, path: str, query: Mapping[str, str], timeout: float, encoding: str) -> BaseHTTPResponse | Failure:
        """An answer of HTTP 200, still to be read; any other, as what it says."""
        self._sockets.begin()
        if self._closed:
            return Failure(error="the client is closed")
        configuration, pools = self._present
        try:
            who = credentials.headers(configuration)
        except Exception as error:  # It raises whatever it stumbles over.
            return Failure(error=f"no credentials: {in_one_line(error)}")
        url = f"{self.server}{path}?{urlencode(query)}" if query else f"{self.server}{path}"
        what = {"accept": "application/json", "accept-encoding": encoding, "user-agent": USER_AGENT}
        patience = Timeout(connect=CONNECT_TIMEOUT, read=timeout)
        response = None
        try:
            response = pools.request(
                "GET", url, headers={**what, **who}, timeout=patience, retries=False, redirect=False,
                preload_content=False,
            )  # fmt: skip
            if response.status == 200:
                found, response = response, None
                return found
            body, wait = _decode(response.read()), response.headers.get("retry-after", "")
            return Failure(response.status, body, retry_after(wait, datetime.now(UTC)), response.reason or "")
        except WORLD as error:
            return self._failed(error, timeout)
        finally:
            if response is not None:
                response.close()

    def _failed(self, error: Exception, timeout: float) -> Failure:
        return Failure(error="interrupted" if self._sockets.interrupted else explain(error, timeout))


class Stream:
    """An open watch, by its lines.

    It ends when the server or the connection does, in order or by a fault, which cannot always be told apart (R8, R38);
    what comes after the last line break is no line. A line may be as long as it likes, and costs what it is long (R32).
    """

    def __init__(self, response: BaseHTTPResponse) -> None:
        self._response = response
        self._socket = socket_of(response)
        self._pieces = _pieces_of(response)
        self._poll = _poll_of(response)
        self._seconds: float | None = None
        """What the time-out of the connection was last set to."""
        self._rest: list[bytes] = []
        """The line that has no end yet, in pieces."""
        self._reading = threading.Lock()
        """Held by who reads, and by who closes: closing under a read would wait for it."""
        self._closed = False

    def read(self, seconds: float) -> Lines | Silence | End:
        """Wait for lines, and take what else has come by then.

        Args:
            seconds: After so many without any byte, it is Silence: what comes later can be read then.
        """
        lines: list[bytes] = []
        with self._reading:
            try:
                if not self._is_ready(seconds):
                    return Silence()
                while not self._closed and (read := self._read_some(_BREATH if lines else max(seconds, _BREATH))):
                    *ends, rest = read.split(b"\n")
                    if ends:
                        ends[0] = b"".join([*self._rest, ends[0]])
                        self._rest.clear()
                        lines += ends
                    self._rest.append(rest)
                    if lines and (len(lines) >= MANY or not self._has_more()):
                        return Lines(lines)
            except WORLD:
                pass
        return Lines(lines) if lines else End()

    def close(self) -> None:
        """End it, from any thread: one that waits for the next lines gets none."""
        self._closed = True
        if not self._reading.acquire(blocking=False):
            if self._socket is not None and self._response.connection is not None:  # Else it has just been given back.
                cut(self._socket)
            # The reader lets go at once; unless this is a signal handler within its read. Then the reader closes.
            if not self._reading.acquire(timeout=1.0):
                return
        try:
            self._response.close()
        finally:
            self._reading.release()

    def _read_some(self, seconds: float) -> bytes:
        if seconds != self._seconds:  # It is a system call, and lets another thread have its turn.
            self._seconds = seconds
            if (sock := _sock_of(self._response)) is not None:
                sock.settimeout(seconds)
        return next(self._pieces, b"")

    def _has_more(self) -> bool:
        return self._response.connection is not None and self._poll(0)

    def _is_ready(self, seconds: float) -> bool:
        """Whether a read finds something, or does within so many seconds; a read that timed out would be the last."""
        sock = _sock_of(self._response)
        return self._closed or sock is None or self._poll(0) or self._has_ahead(sock) or self._poll(min(seconds, _LONG))

    def _has_ahead(self, sock: Any) -> bool:
        """Whether more was taken from the socket than was read; True where that cannot be known."""
        file = getattr(getattr(self._response, "_fp", None), "fp", None)  # No public name leads there.
        if file is None:
            return True
        before = sock.gettimeout()
        try:
            sock.settimeout(0)
            return bool(file.peek(1))
        except OSError:
            return False  # It would have to wait; or the read finds out.
        finally:
            sock.settimeout(before)


def _sock_of(response: BaseHTTPResponse) -> Any:
    """What an answer is read from, for as long as it is open; None then."""
    return getattr(response.connection, "sock", None)


def _pieces_of(response: BaseHTTPResponse) -> Iterator[bytes]:
    """An answer as it comes. By chunks where it has such, for a third of what `read1` takes; that is for any other."""
    if isinstance(response, HTTPResponse) and response.chunked:
        return response.read_chunked(READ_SIZE)
    return iter(partial(response.read1, READ_SIZE), b"")


def _poll_of(response: BaseHTTPResponse) -> Callable[[float], bool]:
    """What says whether more has come, or does within so many seconds, while the connection is open.

    For less than urllib3's own, which begins anew each time.
    """
    sock = _sock_of(response)
    if sock is None:
        return lambda _: False
    if not hasattr(select, "poll"):
        return lambda seconds: wait_for_read(sock, seconds)
    poll = select.poll()
    poll.register(sock, select.POLLIN)
    return lambda seconds: bool(poll.poll(math.ceil(seconds * 1000)))


def explain(error: BaseException, timeout: float) -> str:
    """What went wrong, in one line.

    Args:
        error: As urllib3 raised it.
        timeout: Seconds for reading.
    """
    chain = [error]
    while cause := chain[-1].__cause__ or next((each for each in chain[-1].args if isinstance(each, Exception)), None):
        chain.append(cause)
    connecting = any(isinstance(each, ConnectTimeoutError) for each in chain)
    match root := chain[-1]:
        case TimeoutError():
            text = f"time-out after {CONNECT_TIMEOUT if connecting else timeout:g} s"
        case gaierror() | UnicodeError():
            text = "name not known"
        case ConnectionRefusedError():
            text = "connection refused"
        case SSLCertVerificationError():
            text = f"certificate not trusted: {root.verify_message}"
        case CertificateError():
            text = f"certificate not trusted: {root}"
        case SSLError():
            text = f"TLS failed: {root.reason or root}"
        case RemoteDisconnected():
            text = "the connection was closed before any answer"
        case ConnectionError():
            text = "connection reset"
        case IncompleteRead():
            text = "the answer was cut off"
        case _:
            text = in_one_line(root) or type(root).__name__
    return f"proxy: {text}" if any(isinstance(each, ProxyError) for each in chain) else text


def retry_after(text: str, now: datetime) -> float | None:
    """The seconds that the header of that name asks for, as a number or as a date; None where it says neither."""
    if text.isascii() and text.isdecimal() and len(text) < 10:
        return float(text)
    try:
        then = parsedate_to_datetime(text)
        return max(0.0, (then.replace(tzinfo=then.tzinfo or UTC) - now).total_seconds())
    except (ValueError, OverflowError):
        return None


def _decode(body: bytes) -> Any:
    """JSON, else text, else None."""
    try:
        return decode(body)
    except BAD:
        return body.decode(errors="replace").strip() or None


def _close(pools: PoolManager, server: str) -> None:
    """Close the connections that wait for a request; one under way is closed when it is over."""
    pools.connection_from_url(server).close()
    pools.clear()
