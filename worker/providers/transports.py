"""Transports of upstream calls on the event loop: small connection pools, and one pool per proxy.

A call waits here without a thread. The cost of a request of the library grows with the connections of one pool (0.7 ms
with 16, 4 ms with 48), so the connections are spread over several. The caller limits the total time of a call and takes
a turn of a lane (`core.concurrency.lanes`), so that no pool ever lacks a connection. A caller names the proxy in a
token, so it must not lead into the private network.
"""

import asyncio
import socket
import ssl
from collections import OrderedDict
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager
from contextvars import ContextVar
from functools import lru_cache
from typing import Any
from urllib.parse import unquote, urlsplit

import httpcore
import httpx

from worker.core.concurrency import lanes
from worker.core.concurrency.name_lookups import resolve_in_turn
from worker.core.security.decompression import CompressedBodyError, Decompressor
from worker.core.security.ip_addresses import is_public
from worker.http_streams import DISCARD_AT_CLOSE, AsyncioBackend

# Failures before anything of the request was sent.
NOT_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.ProxyError, httpx.UnsupportedProtocol)
# Beyond so many, transports of proxies that are not in use are closed.
MAX_PROXIES = 128
_RESOLVE_SECONDS = 5.0
_CONNECTIONS_PER_POOL = 8
# More than a process has threads for conversations.
_STREAMS = 512
_KEEP_ALIVE_SECONDS = 5.0
# Seconds before the first probe and between probes, and how many must fail.
_PROBE_TIMES = {"TCP_KEEPIDLE": 20, "TCP_KEEPINTVL": 10, "TCP_KEEPCNT": 4}
# Calls of one proxy at a time: a caller names it, so it must not take the connections of others.
_CONNECTIONS_PER_PROXY = 16
# More than the longest answers have: sixteen images as base64; a thousand records, with 280,000 values.
_MAX_RESPONSE_BYTES, _MAX_RESPONSE_VALUES = 128_000_000, 400_000
# The sockets that a call through a proxy opened: the library leaks the socket when a SOCKS server refuses.
_opened_streams: ContextVar[list[httpcore.AsyncNetworkStream]] = ContextVar("opened_streams")


async def limited_body(response: httpx.Response, most: int) -> AsyncIterator[bytes]:
    """Yield the body of a response. Raises httpx.ReadError after `most` bytes."""
    size = 0
    async for chunk in response.aiter_bytes():
        size += len(chunk)
        if size > most:
            raise httpx.ReadError(f"the response is longer than {most} bytes")
        yield chunk


@lru_cache(maxsize=1)
def tls_context() -> ssl.SSLContext:
    """Return one context for all pools, because loading the certificate authorities takes 25 ms."""
    return httpx.create_ssl_context(trust_env=False)


@contextmanager
def opened_sockets() -> Iterator[list[httpcore.AsyncNetworkStream]]:
    """Collect the sockets that are opened within the block."""
    streams: list[httpcore.AsyncNetworkStream] = []
    token = _opened_streams.set(streams)
    try:
        yield streams
    finally:
        _opened_streams.reset(token)


class SpreadTransport(httpx.AsyncBaseTransport):
    """Several small pools of httpx; each request goes to the pool with the fewest open requests."""

    def __init__(self, connections: int) -> None:
        self._pools = [_DirectTransport() for _ in range(connections // _CONNECTIONS_PER_POOL)]
        self._open = [0] * len(self._pools)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send the request. Its pool counts it until the response has begun."""
        index = min(range(len(self._open)), key=self._open.__getitem__)
        self._open[index] += 1
        try:
            return await self._pools[index].handle_async_request(request)
        finally:
            self._open[index] -= 1

    async def aclose(self) -> None:
        """Close all connections."""
        for pool in self._pools:
            await pool.aclose()


class _Bounded(httpx.AsyncByteStream):
    """A response in small pieces: decompressed, and ended when it has more bytes or JSON values than any answer.

    httpx decodes all that has arrived at once (64 kB may be 64 MB), and a parsed value takes up to 40 times its text.
    Raises httpx.DecodingError.
    """

    def __init__(self, stream: httpx.AsyncByteStream, encoding: str | None) -> None:
        self._stream = stream
        self._decompressor = Decompressor(encoding) if encoding else None
        self._bytes = self._values = 0

    async def __aiter__(self) -> AsyncIterator[bytes]:
        try:
            async for data in self._stream:
                for piece in self._decompressed(data):
                    self._count(piece)
                    yield piece
            if self._decompressor is not None:
                self._decompressor.check_complete()
        except CompressedBodyError as error:
            raise httpx.DecodingError(str(error)) from None

    def _decompressed(self, data: bytes) -> Iterator[bytes]:
        if self._decompressor is None:
            yield data
            return
        self._decompressor.feed(data)
        while (piece := self._decompressor.next_piece()) is not None:
            yield piece

    def _count(self, piece: bytes) -> None:
        self._bytes += len(piece)
        self._values += sum(map(piece.count, (b",", b"[", b"{")))
        if self._bytes > _MAX_RESPONSE_BYTES or self._values > _MAX_RESPONSE_VALUES:
            raise httpx.DecodingError("the response has more bytes or more values than any answer")

    async def aclose(self) -> None:
        await self._stream.aclose()


async def _bound(response: httpx.Response) -> httpx.Response:
    """Let the response be read in bounded pieces. Raises httpx.DecodingError for one compressed in several layers.

    Encodings that nobody asked for are not decoded: their bytes are no JSON.
    """
    names = [name.strip().lower() for name in response.headers.pop("content-encoding", "").split(",")]
    layers = [name.removeprefix("x-") for name in names if name in {"gzip", "x-gzip", "deflate"}]
    if len(layers) > 1:
        await response.aclose()
        raise httpx.DecodingError("the response is compressed more than once")
    if isinstance(response.stream, httpx.AsyncByteStream):
        response.stream = _Bounded(response.stream, layers[0] if layers else None)
    return response


# Probes of connections on which an answer may take minutes: a network between us and upstream does not forget them,
# and a dead one ends before the deadline of the call.
_PROBES = [(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)] + [
    (socket.IPPROTO_TCP, getattr(socket, name), value)
    for name, value in _PROBE_TIMES.items()
    if hasattr(socket, name)  # not on every system
]


class _DirectTransport(httpx.AsyncHTTPTransport):
    def __init__(self, connections: int = _CONNECTIONS_PER_POOL) -> None:
        context = tls_context()
        super().__init__(verify=context, trust_env=False)
        self._pool = httpcore.AsyncConnectionPool(
            ssl_context=context,
            max_connections=connections,
            max_keepalive_connections=connections,
            keepalive_expiry=_KEEP_ALIVE_SECONDS,
            socket_options=_PROBES,
            network_backend=AsyncioBackend(),
        )

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Return the response."""
        return await _bound(await super().handle_async_request(request))


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
            "network_backend": PublicBackend(allowed),
        }
        if parts.scheme == "socks5":
            self._pool = httpcore.AsyncSOCKSProxy(url, proxy_auth=auth, **shared)
        else:
            own = context if parts.scheme == "https" else None
            self._pool = httpcore.AsyncHTTPProxy(url, proxy_auth=auth, proxy_ssl_context=own, **shared)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Return the response. An error that a broken SOCKS server causes in the library becomes a network error."""
        with opened_sockets() as opened:
            try:
                return await _bound(await super().handle_async_request(request))
            except BaseException as failure:
                for stream in opened:
                    await stream.aclose()
                if isinstance(failure, httpx.HTTPError) or not isinstance(failure, Exception):
                    raise
                # socksio raises assertions and errors of its own.
                raise httpx.RemoteProtocolError(f"proxy: {type(failure).__name__}") from None


class Transports:
    """The direct transports and one transport per proxy. Beyond the maximum, an idle one is closed."""

    def __init__(self, allowed: frozenset[str], direct: httpx.AsyncBaseTransport | None = None) -> None:
        self._allowed = allowed
        self._direct = self._direct_uploads = self._direct_streams = direct
        self._proxies: OrderedDict[str, _ProxyTransport] = OrderedDict()

    @property
    def is_open(self) -> bool:
        """Whether there may be connections to close."""
        return any((self._direct, self._direct_uploads, self._direct_streams, self._proxies))

    @asynccontextmanager
    async def use(self, proxy: str | None, *, uploads: bool = False) -> AsyncIterator[httpx.AsyncBaseTransport]:
        """Wait for a turn and return the transport of a proxy (None = direct). It stays open until the block ends.

        Uploads have connections of their own, because they take longer than other calls.
        """
        async with (lanes.UPLOADS if uploads else lanes.of_calls(proxied=bool(proxy))).turn():
            if proxy:
                async with self._use_proxy(proxy) as transport:
                    yield transport
            else:
                yield self._open_direct(uploads=uploads)

    @asynccontextmanager
    async def stream(self, proxy: str | None) -> AsyncIterator[httpx.AsyncBaseTransport]:
        """Like `use`, without a turn: streams stay open for minutes, and the number of conversations has a limit."""
        if proxy:
            async with self._use_proxy(proxy) as transport:
                yield transport
        else:
            self._direct_streams = self._direct_streams or _DirectTransport(_STREAMS)
            yield self._direct_streams

    def _open_direct(self, *, uploads: bool) -> httpx.AsyncBaseTransport:
        # Created on the loop, not with the provider: their locks belong to the loop.
        if uploads:
            self._direct_uploads = self._direct_uploads or SpreadTransport(lanes.UPLOADS.turns)
            return self._direct_uploads
        self._direct = self._direct or SpreadTransport(lanes.CALLS.turns)
        return self._direct

    @asynccontextmanager
    async def _use_proxy(self, proxy: str) -> AsyncIterator[httpx.AsyncBaseTransport]:
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
        for transport in (self._direct, self._direct_uploads, self._direct_streams):
            if transport is not None:
                await transport.aclose()
        while self._proxies:
            await self._proxies.popitem()[1].aclose()


class PublicBackend(httpcore.AsyncNetworkBackend):
    """Connects only to public addresses and to hosts in `FETCH_ALLOW`: to the very address that was checked."""

    def __init__(self, allowed: frozenset[str], inner: httpcore.AsyncNetworkBackend | None = None) -> None:
        self._inner = inner or httpcore.AnyIOBackend()
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
            host = await find_public_address(host, port, timeout or _RESOLVE_SECONDS)
        options = [*(socket_options or ()), DISCARD_AT_CLOSE]
        stream = await self._inner.connect_tcp(host, port, timeout, local_address, options)
        _opened_streams.get().append(stream)
        return stream

    async def sleep(self, seconds: float) -> None:
        """Wait."""
        await asyncio.sleep(seconds)


async def find_public_address(host: str, port: int, seconds: float) -> str:
    """Return the first public address of a proxy's host. Raises httpcore.ConnectError."""
    try:
        found = await resolve_in_turn(host, port, seconds=seconds)
    except OSError:
        raise httpcore.ConnectError("the proxy's host name cannot be resolved") from None
    for address in found:
        if is_public(address):
            return address
    raise httpcore.ConnectError("the proxy has no public address; FETCH_ALLOW can name it")
