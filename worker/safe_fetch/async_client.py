"""Guarded downloads on the event loop of the process: a download holds no thread while it waits."""

import asyncio
import hashlib
import io
import ssl
import tempfile
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from functools import lru_cache
from typing import IO, Any
from urllib.parse import urljoin

import httpcore
import httpx

from worker.core.concurrency import lanes
from worker.core.concurrency.event_loop import in_files_thread
from worker.core.concurrency.name_lookups import resolve_in_turn
from worker.core.concurrency.transfer_rate import SlowTransferError, TransferRate
from worker.core.observability import tracing
from worker.core.settings import get_settings
from worker.http_streams import AsyncioBackend
from worker.safe_fetch.checks import (
    MAX_REDIRECTS,
    SOCKET_TIMEOUT_SECONDS,
    SPOOL_BYTES,
    DownloadedFile,
    FetchError,
    RefusedError,
    check_url,
    connection_problem,
    host_of,
    not_resolved,
    refuse_encoding,
    refuse_private,
    refuse_size,
    status_text,
)

_REDIRECTS = frozenset({301, 302, 303, 307, 308})
# Small pools, because the cost of a request grows with the connections of its pool.
_CONNECTIONS_PER_POOL = 4
# To connect and to receive all headers: such that trickle in are no answer either.
HEADERS_SECONDS = 20.0
_TIMEOUTS = {"timeout": dict.fromkeys(("connect", "read", "write", "pool"), SOCKET_TIMEOUT_SECONDS)}
_HEADERS = [(b"User-Agent", b"Dreamery"), (b"Accept", b"*/*"), (b"Accept-Encoding", b"identity")]


async def resolve_allowed_in_turn(host: str, port: int) -> list[str]:
    """Return the allowed addresses of a host; see `checks.resolve_allowed_addresses`."""
    try:
        addresses = await resolve_in_turn(host, port, seconds=SOCKET_TIMEOUT_SECONDS)
    except OSError as error:
        raise not_resolved(host, error) from error
    return refuse_private(host, port, addresses)


class CheckedBackend(httpcore.AsyncNetworkBackend):
    """Connects to the checked addresses and never resolves the host again."""

    def __init__(self) -> None:
        self._inner = AsyncioBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 - the interface of the library
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        try:
            addresses = await resolve_allowed_in_turn(host, port)
        except FetchError as error:
            raise RefusedError(error) from error
        for number, address in enumerate(addresses, start=1):
            try:
                return await self._inner.connect_tcp(address, port, timeout, local_address, socket_options)
            except (httpcore.NetworkError, httpcore.ConnectTimeout):
                if number == len(addresses):
                    raise
        raise httpcore.ConnectError(f"no address for {host}")

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


class _Pools:
    """Connections of one lane. Each download takes the pool with the fewest of them."""

    def __init__(self, lane: lanes.Lane) -> None:
        context = ssl.create_default_context()
        self._pools = [
            httpcore.AsyncConnectionPool(
                ssl_context=context,
                max_connections=_CONNECTIONS_PER_POOL,
                max_keepalive_connections=_CONNECTIONS_PER_POOL,
                keepalive_expiry=15,
                network_backend=CheckedBackend(),
            )
            for _ in range(lane.turns // _CONNECTIONS_PER_POOL)
        ]
        self._open = [0] * len(self._pools)

    @asynccontextmanager
    async def get(self, url: str) -> AsyncIterator[httpcore.Response]:
        index = min(range(len(self._open)), key=self._open.__getitem__)
        self._open[index] += 1
        parts = httpx.URL(url)  # encodes names with letters outside ASCII
        target = httpcore.URL(scheme=parts.raw_scheme, host=parts.raw_host, port=parts.port, target=parts.raw_path)
        try:
            headers = [(b"Host", parts.netloc), *_HEADERS]
            request = httpcore.Request("GET", target, headers=headers, extensions=_TIMEOUTS)
            async with asyncio.timeout(HEADERS_SECONDS):
                response = await self._pools[index].handle_async_request(request)
            try:
                yield response
            finally:
                await response.aclose()
        finally:
            self._open[index] -= 1


@lru_cache(maxsize=4)
def _pools(lane: lanes.Lane) -> _Pools:
    return _Pools(lane)


async def download(url: str, *, max_bytes: int, deadline_seconds: float, lane: lanes.Lane) -> DownloadedFile:
    """Download a URL, when it is the turn of its owner in the lane. Raises FetchError.

    The deadline covers DNS, redirects, headers and body together, but not the wait for the turn. A body that arrives
    more slowly than `MIN_TRANSFER_BYTES_PER_SECOND` ends the download.
    """
    async with lane.turn():
        try:
            with tracing.span("download", kind="client", server__address=host_of(url)):
                async with asyncio.timeout(deadline_seconds):
                    return await _download(url, max_bytes=max_bytes, lane=lane)
        except TimeoutError as error:
            raise FetchError(f"{host_of(url)!r} did not answer in time") from error
        except SlowTransferError as error:
            raise FetchError(f"{host_of(url)!r} is too slow: {error}") from error


async def _download(url: str, *, max_bytes: int, lane: lanes.Lane) -> DownloadedFile:
    for _ in range(MAX_REDIRECTS + 1):
        check_url(url)
        try:
            async with _pools(lane).get(url) as response:
                headers = {name.lower(): value.decode("latin-1") for name, value in response.headers}
                if response.status in _REDIRECTS and b"location" in headers:
                    url = _redirected(url, headers[b"location"])
                    continue
                if response.status != 200:
                    raise FetchError(status_text(response.status), status=response.status)
                refuse_encoding(headers.get(b"content-encoding", ""))
                return await _read_body(response, max_bytes=max_bytes)
        except RefusedError as refused:
            raise refused.cause from None
        except (httpcore.NetworkError, httpcore.TimeoutException, httpcore.ProtocolError) as error:
            raise FetchError(connection_problem(error, host_of(url))) from error
    raise FetchError("too many redirects", final=True)


def _redirected(url: str, location: str) -> str:
    try:
        return urljoin(url, location)
    except ValueError as error:
        raise FetchError("the URL is invalid", final=True) from error


async def _read_body(response: httpcore.Response, *, max_bytes: int) -> DownloadedFile:
    """Return the body: in memory up to a few megabytes, in a temporary file beyond."""
    digest, size, chunks = hashlib.sha256(), 0, list[bytes]()
    rate = TransferRate(get_settings().min_transfer_bytes_per_second)
    content: IO[bytes] | None = None
    kept = 0  # bytes in memory
    try:
        async for chunk in response.aiter_stream():
            size += len(chunk)
            rate.add(len(chunk))
            refuse_size(size, max_bytes)
            digest.update(chunk)
            chunks.append(chunk)
            kept += len(chunk)
            if kept > SPOOL_BYTES:
                content = content or tempfile.TemporaryFile()  # noqa: SIM115 - the caller closes it
                await in_files_thread(content.writelines, chunks)
                chunks, kept = [], 0
    except BaseException:
        if content is not None:
            content.close()
        raise
    # A buffer that grows by pieces would be copied and cleared again and again.
    if content is None:
        content = io.BytesIO(b"".join(chunks))
    else:
        await in_files_thread(content.writelines, chunks)
    content.seek(0)
    return DownloadedFile(content, size, digest.hexdigest())
