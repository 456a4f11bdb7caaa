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

from worker.core.observability import tracing
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
    refuse_encoding,
    refuse_size,
    resolve_allowed_addresses,
    status_text,
)

_REDIRECTS = frozenset({301, 302, 303, 307, 308})
# Small pools, because the cost of a request grows with the connections of its pool.
_POOLS = 12
_CONNECTIONS_PER_POOL = 4
_TIMEOUTS = {"timeout": dict.fromkeys(("connect", "read", "write", "pool"), SOCKET_TIMEOUT_SECONDS)}
_HEADERS = [("User-Agent", "Dreamery"), ("Accept", "*/*"), ("Accept-Encoding", "identity")]


class _CheckedBackend(httpcore.AsyncNetworkBackend):
    """Connects to the checked addresses and never resolves the host again. The look-up runs in a thread."""

    def __init__(self) -> None:
        self._inner = httpcore.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 - the interface of the library
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        loop = asyncio.get_running_loop()
        try:
            addresses = await loop.run_in_executor(None, resolve_allowed_addresses, host, port)
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
    """Connections of downloads on the event loop. Each download takes the pool with the fewest of them."""

    def __init__(self) -> None:
        context = ssl.create_default_context()
        self._pools = [
            httpcore.AsyncConnectionPool(
                ssl_context=context,
                max_connections=_CONNECTIONS_PER_POOL,
                max_keepalive_connections=_CONNECTIONS_PER_POOL,
                keepalive_expiry=15,
                network_backend=_CheckedBackend(),
            )
            for _ in range(_POOLS)
        ]
        self._open = [0] * _POOLS

    @asynccontextmanager
    async def get(self, url: str) -> AsyncIterator[httpcore.Response]:
        index = min(range(_POOLS), key=self._open.__getitem__)
        self._open[index] += 1
        parts = httpx.URL(url)  # encodes names with letters outside ASCII
        target = httpcore.URL(scheme=parts.raw_scheme, host=parts.raw_host, port=parts.port, target=parts.raw_path)
        try:
            async with self._pools[index].stream("GET", target, headers=_HEADERS, extensions=_TIMEOUTS) as response:
                yield response
        finally:
            self._open[index] -= 1


@lru_cache(maxsize=1)
def _pools() -> _Pools:
    return _Pools()


async def download(url: str, *, max_bytes: int, deadline_seconds: float) -> DownloadedFile:
    """Download a URL like `client.download`, without holding a thread while it waits. Raises FetchError."""
    try:
        with tracing.span("download", kind="client", server__address=host_of(url)):
            async with asyncio.timeout(deadline_seconds):
                return await _download(url, max_bytes=max_bytes)
    except TimeoutError as error:
        raise FetchError(f"{host_of(url)!r} did not answer in time") from error


async def _download(url: str, *, max_bytes: int) -> DownloadedFile:
    for _ in range(MAX_REDIRECTS + 1):
        check_url(url)
        try:
            async with _pools().get(url) as response:
                headers = {name.lower(): value.decode("latin-1") for name, value in response.headers}
                if response.status in _REDIRECTS and b"location" in headers:
                    url = urljoin(url, headers[b"location"])
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


async def _read_body(response: httpcore.Response, *, max_bytes: int) -> DownloadedFile:
    """Return the body: in memory up to a few megabytes, in a temporary file beyond."""
    digest, size, chunks = hashlib.sha256(), 0, list[bytes]()
    content: IO[bytes] | None = None
    try:
        async for chunk in response.aiter_stream():
            size += len(chunk)
            refuse_size(size, max_bytes)
            digest.update(chunk)
            chunks.append(chunk)
            if size > SPOOL_BYTES:
                content = content or tempfile.TemporaryFile()  # noqa: SIM115 - the caller closes it
                content.writelines(chunks)
                chunks.clear()
    except BaseException:
        if content is not None:
            content.close()
        raise
    # A buffer that grows by pieces would be copied and cleared again and again.
    content = content or io.BytesIO(b"".join(chunks))
    content.seek(0)
    return DownloadedFile(content, size, digest.hexdigest())
