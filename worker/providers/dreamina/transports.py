"""The connections below the wire: sockets that know the total deadline of a call, and one pool per proxy.

A proxy is named by a token (protocol section 1.3), that is by a caller: it is no way into the private network.
"""

import ssl
import threading
import time
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any
from urllib.parse import unquote, urlsplit

import httpcore
import httpx

from worker.core.security.ip_addresses import is_public, resolve

MAX_CONNECTIONS = 64
MAX_IDLE = 32
# More than a worker has threads, so that there is always an idle one to close.
MAX_PROXIES = 128
_WRITE_PIECE = 65_536
_NAME_SECONDS = 5.0


@lru_cache(maxsize=1)
def _tls_context() -> ssl.SSLContext:
    """One for all pools: each would read the whole list of authorities, which takes 25 ms."""
    return httpx.create_ssl_context(trust_env=False)


class Deadline(threading.local):
    """When the call that runs in this thread must be over."""

    until = 0.0

    def start(self, seconds: float) -> None:
        """A new call begins."""
        self.until = time.monotonic() + seconds

    def resume(self, until: float) -> None:
        """A call goes on after its thread did something else, perhaps another call."""
        self.until = until

    def left(self, late: type[Exception]) -> float:
        """Seconds left; raises `late` when there are none."""
        left = self.until - time.monotonic()
        if left <= 0:
            raise late("total deadline of the call")
        return left


class DeadlineTransport(httpx.HTTPTransport):
    """httpx's own transport over a pool whose sockets know the total deadline.

    httpx timeouts are per read, so a server that drips bytes, in the headers too, could hold a thread for ever.
    """

    def __init__(self, deadline: Deadline) -> None:
        context = _tls_context()
        super().__init__(verify=context, trust_env=False)
        self._pool = httpcore.ConnectionPool(
            ssl_context=context,
            max_connections=MAX_CONNECTIONS,
            max_keepalive_connections=MAX_IDLE,
            keepalive_expiry=5.0,
            network_backend=DeadlineBackend(httpcore.SyncBackend(), deadline),
        )


class ProxyTransport(httpx.HTTPTransport):
    """Like `DeadlineTransport`, through one proxy: `http`, `https` or `socks5`, as `SessionToken.proxy` holds it."""

    def __init__(self, deadline: Deadline, proxy: str, allowed: frozenset[str]) -> None:
        context = _tls_context()
        super().__init__(verify=context, trust_env=False)
        parts = urlsplit(proxy)
        url = httpcore.URL(scheme=parts.scheme, host=str(parts.hostname), port=parts.port, target="/")
        auth = (unquote(parts.username), unquote(parts.password or "")) if parts.username else None
        self._opened = _OpenedBackend(DeadlineBackend(PublicBackend(httpcore.SyncBackend(), allowed), deadline))
        shared: dict[str, Any] = {
            "ssl_context": context,
            "max_connections": MAX_CONNECTIONS,
            "max_keepalive_connections": MAX_IDLE,
            "keepalive_expiry": 5.0,
            "network_backend": self._opened,
        }
        if parts.scheme == "socks5":
            self._pool = httpcore.SOCKSProxy(url, proxy_auth=auth, **shared)
        else:
            own = context if parts.scheme == "https" else None
            self._pool = httpcore.HTTPProxy(url, proxy_auth=auth, proxy_ssl_context=own, **shared)

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """The answer; what a broken SOCKS server makes the library raise is a failure of the network as well."""
        self._opened.streams = []
        try:
            return super().handle_request(request)
        except httpx.HTTPError:
            self._opened.close_all()
            raise
        except Exception as failure:  # noqa: BLE001 - socksio raises assertions and errors of its own
            self._opened.close_all()
            raise httpx.RemoteProtocolError(f"proxy: {type(failure).__name__}") from None


class ProxyTransports:
    """One transport per proxy; too many close the one that was idle longest. Safe between threads."""

    def __init__(self, deadline: Deadline, allowed: frozenset[str]) -> None:
        self._deadline = deadline
        self._allowed = allowed
        self._lock = threading.Lock()
        self._open: OrderedDict[str, ProxyTransport] = OrderedDict()
        self._users: dict[str, int] = {}

    @contextmanager
    def use(self, proxy: str) -> Iterator[ProxyTransport]:
        """The transport of a proxy, which stays open at least until the block ends."""
        with self._lock:
            transport = self._open.get(proxy)
            if transport is None:
                transport = self._open[proxy] = ProxyTransport(self._deadline, proxy, self._allowed)
            self._open.move_to_end(proxy)
            self._users[proxy] = self._users.get(proxy, 0) + 1
            idle = [self._open.pop(name) for name in self._surplus()]
        for old in idle:
            old.close()
        try:
            yield transport
        finally:
            with self._lock:
                self._users[proxy] -= 1
                if not self._users[proxy]:
                    del self._users[proxy]

    def _surplus(self) -> list[str]:
        unused = [name for name in self._open if name not in self._users]
        return unused[: max(len(self._open) - MAX_PROXIES, 0)]

    def close(self) -> None:
        """Close all connections."""
        with self._lock:
            for transport in self._open.values():
                transport.close()
            self._open.clear()


class _OpenedBackend(threading.local, httpcore.NetworkBackend):
    """Remembers what a call of this thread opened: httpcore leaves the socket open when a SOCKS proxy refuses."""

    def __init__(self, inner: httpcore.NetworkBackend) -> None:
        self._inner = inner
        self.streams: list[httpcore.NetworkStream] = []

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: "Iterable[Any] | None" = None,
    ) -> httpcore.NetworkStream:
        """Connect and remember."""
        stream = self._inner.connect_tcp(host, port, timeout, local_address, socket_options)
        self.streams.append(stream)
        return stream

    def close_all(self) -> None:
        """Close what the failed call opened."""
        for stream in self.streams:
            stream.close()
        self.streams = []


class PublicBackend(httpcore.NetworkBackend):
    """Connects only to public addresses and to what `FETCH_ALLOW` names; what was checked is what is used."""

    def __init__(self, inner: httpcore.NetworkBackend, allowed: frozenset[str]) -> None:
        self._inner = inner
        self._allowed = allowed

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: "Iterable[Any] | None" = None,
    ) -> httpcore.NetworkStream:
        """Connect to the first address of the name that is allowed."""
        if host not in self._allowed and f"{host}:{port}" not in self._allowed:
            host = _public_address(host, port, timeout or _NAME_SECONDS)
        return self._inner.connect_tcp(host, port, timeout, local_address, socket_options)


def _public_address(host: str, port: int, seconds: float) -> str:
    try:
        found = resolve(host, port, seconds=seconds)
    except OSError:
        raise httpcore.ConnectError("the proxy's name cannot be resolved") from None
    for address in found:
        if is_public(address):
            return address
    raise httpcore.ConnectError("the proxy has no public address; FETCH_ALLOW can name it")


class DeadlineBackend(httpcore.NetworkBackend):
    """Opens connections whose every operation ends with the deadline."""

    def __init__(self, inner: httpcore.NetworkBackend, deadline: Deadline) -> None:
        self._inner = inner
        self._deadline = deadline

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: "Iterable[Any] | None" = None,
    ) -> httpcore.NetworkStream:
        """Connect within what is left, and within the connect timeout."""
        left = self._deadline.left(httpcore.ConnectTimeout)
        stream = self._inner.connect_tcp(host, port, min(left, timeout or left), local_address, socket_options)
        return _DeadlineStream(stream, self._deadline)


class _DeadlineStream(httpcore.NetworkStream):
    def __init__(self, inner: httpcore.NetworkStream, deadline: Deadline) -> None:
        self._inner = inner
        self._deadline = deadline

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        left = self._deadline.left(httpcore.ReadTimeout)
        return self._inner.read(max_bytes, min(left, timeout or left))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        for start in range(0, len(buffer), _WRITE_PIECE):
            left = self._deadline.left(httpcore.WriteTimeout)
            self._inner.write(buffer[start : start + _WRITE_PIECE], min(left, timeout or left))

    def close(self) -> None:
        self._inner.close()

    def start_tls(
        self, ssl_context: Any, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        left = self._deadline.left(httpcore.ConnectTimeout)
        stream = self._inner.start_tls(ssl_context, server_hostname, min(left, timeout or left))
        return _DeadlineStream(stream, self._deadline)

    def get_extra_info(self, info: str) -> Any:
        return self._inner.get_extra_info(info)
