"""Transports of upstream calls on the event loop: small connection pools, and one pool per proxy.

The calls that every job makes (submit, poll) wait here, without a thread each. The cost of a request of the library
grows with the connections of one pool (0.7 ms with 16, 4 ms with 48), so the connections are spread over several.
The caller limits the total time of a call.
"""

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from contextvars import ContextVar
from typing import Any
from urllib.parse import unquote, urlsplit

import httpcore
import httpx

from worker.providers.dreamina.transports import MAX_PROXIES, RESOLVE_SECONDS, find_public_address, tls_context

_POOLS = 16
_CONNECTIONS_PER_POOL = 8
_KEEP_ALIVE_SECONDS = 5.0
# Calls of one proxy at a time: a caller names it, so it must not take the connections of others.
_CONNECTIONS_PER_PROXY = 16
# The sockets that a call through a proxy opened: the library leaks the socket when a SOCKS server refuses.
_opened_streams: ContextVar[list[httpcore.AsyncNetworkStream]] = ContextVar("opened_streams")


async def _close_streams() -> None:
    for stream in _opened_streams.get():
        await stream.aclose()


class SpreadTransport(httpx.AsyncBaseTransport):
    """Several small pools of httpx; each request goes to the pool with the fewest open requests."""

    def __init__(self) -> None:
        self._pools = [_DirectTransport() for _ in range(_POOLS)]
        self._open = [0] * _POOLS

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send the request. Its pool counts it until the response has begun."""
        index = min(range(_POOLS), key=self._open.__getitem__)
        self._open[index] += 1
        try:
            return await self._pools[index].handle_async_request(request)
        finally:
            self._open[index] -= 1

    async def aclose(self) -> None:
        """Close all connections."""
        for pool in self._pools:
            await pool.aclose()


class _DirectTransport(httpx.AsyncHTTPTransport):
    def __init__(self) -> None:
        context = tls_context()
        super().__init__(verify=context, trust_env=False)
        self._pool = httpcore.AsyncConnectionPool(
            ssl_context=context,
            max_connections=_CONNECTIONS_PER_POOL,
            max_keepalive_connections=_CONNECTIONS_PER_POOL,
            keepalive_expiry=_KEEP_ALIVE_SECONDS,
        )


class _ProxyTransport(httpx.AsyncHTTPTransport):
    """A pool through one proxy: `http`, `https` or `socks5`, in the form of `SessionToken.proxy`."""

    def __init__(self, proxy: str, allowed: frozenset[str]) -> None:
        context = tls_context()
        super().__init__(verify=context, trust_env=False)
        self.users = 0
        parts = urlsplit(proxy)
        url = httpcore.URL(scheme=parts.scheme, host=str(parts.hostname), port=parts.port, target="/")
        auth = (unquote(parts.username), unquote(parts.password or "")) if parts.username else None
        shared: dict[str, Any] = {
            "ssl_context": context,
            "max_connections": _CONNECTIONS_PER_PROXY,
            "max_keepalive_connections": _CONNECTIONS_PER_PROXY,
            "keepalive_expiry": _KEEP_ALIVE_SECONDS,
            "network_backend": _PublicBackend(allowed),
        }
        if parts.scheme == "socks5":
            self._pool = httpcore.AsyncSOCKSProxy(url, proxy_auth=auth, **shared)
        else:
            own = context if parts.scheme == "https" else None
            self._pool = httpcore.AsyncHTTPProxy(url, proxy_auth=auth, proxy_ssl_context=own, **shared)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Return the response. An error that a broken SOCKS server causes in the library becomes a network error."""
        opened = _opened_streams.set([])
        try:
            return await super().handle_async_request(request)
        except asyncio.CancelledError:
            await _close_streams()
            raise
        except httpx.HTTPError:
            await _close_streams()
            raise
        except Exception as failure:  # noqa: BLE001 - socksio raises assertions and its own errors
            await _close_streams()
            raise httpx.RemoteProtocolError(f"proxy: {type(failure).__name__}") from None
        finally:
            _opened_streams.reset(opened)


class AsyncTransports:
    """The direct transport and one transport per proxy. Beyond the maximum, an idle one is closed."""

    def __init__(self, allowed: frozenset[str], direct: httpx.AsyncBaseTransport | None = None) -> None:
        self._allowed = allowed
        self._direct = direct
        self._proxies: OrderedDict[str, _ProxyTransport] = OrderedDict()

    @property
    def is_open(self) -> bool:
        """Whether there may be connections to close."""
        return self._direct is not None or bool(self._proxies)

    @asynccontextmanager
    async def use(self, proxy: str | None) -> AsyncIterator[httpx.AsyncBaseTransport]:
        """Return the transport of a proxy (None = direct). It stays open at least until the block ends."""
        if not proxy:
            # Created on the loop, not with the provider: its locks belong to the loop.
            self._direct = self._direct or SpreadTransport()
            yield self._direct
            return
        transport = self._proxies.get(proxy)
        if transport is None:
            transport = self._proxies[proxy] = _ProxyTransport(proxy, self._allowed)
        self._proxies.move_to_end(proxy)
        transport.users += 1
        try:
            await self._close_surplus()
            yield transport
        finally:
            transport.users -= 1

    async def _close_surplus(self) -> None:
        idle = [name for name, transport in self._proxies.items() if not transport.users]
        for name in idle[: max(len(self._proxies) - MAX_PROXIES, 0)]:
            await self._proxies.pop(name).aclose()

    async def aclose(self) -> None:
        """Close all connections."""
        if self._direct is not None:
            await self._direct.aclose()
        while self._proxies:
            await self._proxies.popitem()[1].aclose()


class _PublicBackend(httpcore.AsyncNetworkBackend):
    """Connects only to public addresses and to hosts in `FETCH_ALLOW`: to the very address that was checked."""

    def __init__(self, allowed: frozenset[str]) -> None:
        self._inner = httpcore.AnyIOBackend()
        self._allowed = allowed

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 - the interface of the library
        local_address: str | None = None,
        socket_options: "Iterable[Any] | None" = None,
    ) -> httpcore.AsyncNetworkStream:
        """Connect to the first allowed address of the host, and note the socket."""
        if host not in self._allowed and f"{host}:{port}" not in self._allowed:
            seconds = timeout or RESOLVE_SECONDS
            host = await asyncio.get_running_loop().run_in_executor(None, find_public_address, host, port, seconds)
        stream = await self._inner.connect_tcp(host, port, timeout, local_address, socket_options)
        _opened_streams.get().append(stream)
        return stream

    async def sleep(self, seconds: float) -> None:
        """Wait."""
        await asyncio.sleep(seconds)
