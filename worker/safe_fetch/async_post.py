"""Sends webhooks on the event loop of the process: a slow receiver holds no thread, and is cut off after a total time
and a number of bytes.
"""

import asyncio
import ssl
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import httpcore
import httpx

from worker.core.observability import tracing
from worker.safe_fetch.async_client import CheckedBackend
from worker.safe_fetch.checks import (
    SOCKET_TIMEOUT_SECONDS,
    FetchError,
    RefusedError,
    check_url,
    connection_problem,
    host_of,
)

# Everything: name, connection, TLS, request, and the headers of the response.
POST_DEADLINE_SECONDS = 20.0
# The status and the headers of a response. Its body is not read.
MAX_RESPONSE_BYTES = 65_536
_HEADERS = [("User-Agent", "Dreamery"), ("Accept", "*/*"), ("Accept-Encoding", "identity"), ("Connection", "close")]


@dataclass(frozen=True, slots=True)
class PostResponse:
    """The response to a webhook: its HTTP status and its unparsed `Retry-After` header."""

    status: int
    retry_after: str | None


class _LimitedBackend(httpcore.AsyncNetworkBackend):
    """Connections that end after `MAX_RESPONSE_BYTES`, for receivers with endless headers."""

    def __init__(self) -> None:
        self._inner = CheckedBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 - the interface of the library
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        return _LimitedStream(await self._inner.connect_tcp(host, port, timeout, local_address, socket_options), host)

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


class _LimitedStream(httpcore.AsyncNetworkStream):
    def __init__(self, inner: httpcore.AsyncNetworkStream, host: str) -> None:
        self._inner = inner
        self._host = host
        self._left = MAX_RESPONSE_BYTES

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ASYNC109
        if self._left <= 0:
            raise RefusedError(FetchError(f"{self._host!r} sent more than {MAX_RESPONSE_BYTES} bytes of headers"))
        found = await self._inner.read(min(max_bytes, self._left), timeout)
        self._left -= len(found)
        return found

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:  # noqa: ASYNC109
        await self._inner.write(buffer, timeout)

    async def aclose(self) -> None:
        await self._inner.aclose()

    async def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,  # noqa: ASYNC109
    ) -> httpcore.AsyncNetworkStream:
        return _LimitedStream(await self._inner.start_tls(ssl_context, server_hostname, timeout), self._host)

    def get_extra_info(self, info: str) -> Any:
        return self._inner.get_extra_info(info)


@lru_cache(maxsize=1)
def _tls_context() -> ssl.SSLContext:
    return ssl.create_default_context()


async def post(url: str, *, body: bytes, headers: dict[str, str]) -> PostResponse:
    """Send a webhook over a connection of its own. Redirects are returned, not followed, and the response body is not
    read. Raises FetchError.
    """
    check_url(url)
    try:
        with tracing.span("post webhook", kind="client", server__address=host_of(url)) as span:
            async with asyncio.timeout(POST_DEADLINE_SECONDS):
                response = await _post(url, body=body, headers=headers)
            span.set(http__response__status_code=response.status)
            return response
    except TimeoutError as error:
        raise FetchError(f"{host_of(url)!r} did not answer in time") from error
    except RefusedError as refused:
        raise refused.cause from None
    except (httpcore.NetworkError, httpcore.TimeoutException, httpcore.ProtocolError) as error:
        raise FetchError(connection_problem(error, host_of(url))) from error


async def _post(url: str, *, body: bytes, headers: dict[str, str]) -> PostResponse:
    parts = httpx.URL(url)  # encodes names with letters outside ASCII
    target = httpcore.URL(scheme=parts.raw_scheme, host=parts.raw_host, port=parts.port, target=parts.raw_path)
    # The receiver may take the whole deadline to respond.
    timeouts = {"connect": SOCKET_TIMEOUT_SECONDS, "read": POST_DEADLINE_SECONDS, "write": POST_DEADLINE_SECONDS}
    sent = [*_HEADERS, ("Content-Length", str(len(body))), *headers.items()]
    async with (
        httpcore.AsyncConnectionPool(
            ssl_context=_tls_context(), max_connections=1, network_backend=_LimitedBackend()
        ) as pool,
        pool.stream("POST", target, headers=sent, content=body, extensions={"timeout": timeouts}) as response,
    ):
        found = {name.lower(): value.decode("latin-1") for name, value in response.headers}
        return PostResponse(response.status, found.get(b"retry-after"))
