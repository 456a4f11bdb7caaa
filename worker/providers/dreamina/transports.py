"""Transports of upstream calls: connection pools with a total deadline, and one pool per proxy.

A caller names the proxy in a token (protocol section 1.3), so it must not lead into the private network.
"""

import ssl
import threading
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any
from urllib.parse import unquote, urlsplit

import httpcore
import httpx

from worker.core.security.ip_addresses import is_public, resolve
from worker.http_deadlines import Deadline, DeadlineBackend

MAX_CONNECTIONS = 64
MAX_IDLE = 32
# More than a worker has threads, so at least one is always idle and can be closed.
MAX_PROXIES = 128
RESOLVE_SECONDS = 5.0


@lru_cache(maxsize=1)
def tls_context() -> ssl.SSLContext:
    """Return one context for all pools, because loading the certificate authorities takes 25 ms."""
    return httpx.create_ssl_context(trust_env=False)


class DeadlineTransport(httpx.HTTPTransport):
    """The transport of httpx over a pool whose sockets know the total deadline."""

    def __init__(self, deadline: Deadline) -> None:
        context = tls_context()
        super().__init__(verify=context, trust_env=False)
        self._pool = httpcore.ConnectionPool(
            ssl_context=context,
            max_connections=MAX_CONNECTIONS,
            max_keepalive_connections=MAX_IDLE,
            keepalive_expiry=5.0,
            network_backend=DeadlineBackend(httpcore.SyncBackend(), deadline),
        )


class ProxyTransport(httpx.HTTPTransport):
    """Like `DeadlineTransport`, through one proxy: `http`, `https` or `socks5`, in the form of `SessionToken.proxy`."""

    def __init__(self, deadline: Deadline, proxy: str, allowed: frozenset[str]) -> None:
        context = tls_context()
        super().__init__(verify=context, trust_env=False)
        parts = urlsplit(proxy)
        url = httpcore.URL(scheme=parts.scheme, host=str(parts.hostname), port=parts.port, target="/")
        auth = (unquote(parts.username), unquote(parts.password or "")) if parts.username else None
        self._tracker = _TrackingBackend(DeadlineBackend(PublicBackend(httpcore.SyncBackend(), allowed), deadline))
        shared: dict[str, Any] = {
            "ssl_context": context,
            "max_connections": MAX_CONNECTIONS,
            "max_keepalive_connections": MAX_IDLE,
            "keepalive_expiry": 5.0,
            "network_backend": self._tracker,
        }
        if parts.scheme == "socks5":
            self._pool = httpcore.SOCKSProxy(url, proxy_auth=auth, **shared)
        else:
            own = context if parts.scheme == "https" else None
            self._pool = httpcore.HTTPProxy(url, proxy_auth=auth, proxy_ssl_context=own, **shared)

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Return the response. An error that a broken SOCKS server causes in the library becomes a network error."""
        self._tracker.streams = []
        try:
            return super().handle_request(request)
        except httpx.HTTPError:
            self._tracker.close_all()
            raise
        except Exception as failure:  # noqa: BLE001 - socksio raises assertions and its own errors
            self._tracker.close_all()
            raise httpx.RemoteProtocolError(f"proxy: {type(failure).__name__}") from None


class ProxyTransports:
    """One transport per proxy. Beyond the maximum, the least recently used idle one is closed. Thread-safe."""

    def __init__(self, deadline: Deadline, allowed: frozenset[str]) -> None:
        self._deadline = deadline
        self._allowed = allowed
        self._lock = threading.Lock()
        self._open: OrderedDict[str, ProxyTransport] = OrderedDict()
        self._users: dict[str, int] = {}

    @contextmanager
    def use(self, proxy: str) -> Iterator[ProxyTransport]:
        """Return the transport of a proxy. It stays open at least until the block ends."""
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


class _TrackingBackend(threading.local, httpcore.NetworkBackend):
    """Tracks the sockets that a call of this thread opened: httpcore leaks the socket when a SOCKS proxy refuses."""

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
        """Connect and track the socket."""
        stream = self._inner.connect_tcp(host, port, timeout, local_address, socket_options)
        self.streams.append(stream)
        return stream

    def close_all(self) -> None:
        """Close the sockets that the failed call opened."""
        for stream in self.streams:
            stream.close()
        self.streams = []


class PublicBackend(httpcore.NetworkBackend):
    """Connects only to public addresses and to hosts in `FETCH_ALLOW`. It connects to the very address it checked."""

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
        """Connect to the first allowed address of the host."""
        if host not in self._allowed and f"{host}:{port}" not in self._allowed:
            host = find_public_address(host, port, timeout or RESOLVE_SECONDS)
        return self._inner.connect_tcp(host, port, timeout, local_address, socket_options)


def find_public_address(host: str, port: int, seconds: float) -> str:
    """Return the first public address of a proxy's host. Raises httpcore.ConnectError."""
    try:
        found = resolve(host, port, seconds=seconds)
    except OSError:
        raise httpcore.ConnectError("the proxy's host name cannot be resolved") from None
    for address in found:
        if is_public(address):
            return address
    raise httpcore.ConnectError("the proxy has no public address; FETCH_ALLOW can name it")
