"""The guarded HTTP client: the only way to reach URLs that users or upstream supply (result links, webhooks).

Host names are resolved here, and the connection goes to the checked address, so a second DNS answer cannot redirect it
into the private network. Loopback, private, link-local and other special ranges are refused unless DREAMERY_FETCH_ALLOW
names the host. Redirects are followed one by one, and each is checked like the first URL. Size and total time
(including DNS) are limited. Content-Encoding is refused: media is compressed already, and a decompression bomb could
exhaust the memory.
"""

import hashlib
import ssl
import tempfile
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from typing import IO, Any
from urllib.parse import urljoin

import httpcore
import httpx

from worker.core.observability import tracing
from worker.http_deadlines import Deadline, DeadlineBackend
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

_deadline = Deadline()


class _CheckedBackend(httpcore.NetworkBackend):
    """Connects to the checked addresses and never resolves the host again."""

    def __init__(self) -> None:
        self._inner = DeadlineBackend(httpcore.SyncBackend(), _deadline)

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:
        try:
            addresses = resolve_allowed_addresses(host, port, seconds=_deadline.remaining(httpcore.ConnectTimeout))
        except FetchError as error:
            raise RefusedError(error) from error
        for number, address in enumerate(addresses, start=1):
            try:
                return self._inner.connect_tcp(address, port, timeout, local_address, socket_options)
            except (httpcore.NetworkError, httpcore.ConnectTimeout):
                if number == len(addresses):
                    raise
        raise httpcore.ConnectError(f"no address for {host}")


class _ByteStream(httpx.SyncByteStream):
    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def __iter__(self) -> Iterator[bytes]:
        yield from self._stream

    def close(self) -> None:
        self._stream.close()


class _CheckedTransport(httpx.BaseTransport):
    """An httpx transport over httpcore with our network backend, which httpx itself does not let us set."""

    def __init__(self) -> None:
        self._pool = httpcore.ConnectionPool(
            ssl_context=ssl.create_default_context(),
            max_connections=64,
            max_keepalive_connections=32,
            keepalive_expiry=15,
            network_backend=_CheckedBackend(),
        )

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        raw = httpcore.Request(
            method=request.method,
            url=httpcore.URL(
                scheme=request.url.raw_scheme,
                host=request.url.raw_host,
                port=request.url.port,
                target=request.url.raw_path,
            ),
            headers=request.headers.raw,
            content=request.stream,
            extensions=request.extensions,
        )
        response = self._pool.handle_request(raw)
        return httpx.Response(
            status_code=response.status,
            headers=response.headers,
            stream=_ByteStream(response.stream),
            extensions=response.extensions,
        )

    def close(self) -> None:
        self._pool.close()


@lru_cache(maxsize=1)
def _client() -> httpx.Client:
    return httpx.Client(
        transport=_CheckedTransport(),
        timeout=SOCKET_TIMEOUT_SECONDS,
        follow_redirects=False,
        trust_env=False,
        headers={"User-Agent": "Dreamery", "Accept": "*/*", "Accept-Encoding": "identity"},
    )


def _read_body(response: httpx.Response, *, max_bytes: int, on_chunk: Callable[[], object]) -> DownloadedFile:
    content = tempfile.SpooledTemporaryFile(max_size=SPOOL_BYTES)  # noqa: SIM115
    try:
        size, digest = _copy_body(response, content, max_bytes, on_chunk)
    except BaseException:
        content.close()
        raise
    return DownloadedFile(content=content, size=size, sha256=digest)


def _copy_body(
    response: httpx.Response, content: IO[bytes], max_bytes: int, on_chunk: Callable[[], object]
) -> tuple[int, str]:
    """Return the size and SHA-256 of the copied bytes. For a body that ends early httpcore raises a protocol error."""
    refuse_encoding(response.headers.get("content-encoding", ""))
    digest, size = hashlib.sha256(), 0
    for chunk in response.iter_raw():
        size += len(chunk)
        refuse_size(size, max_bytes)
        _deadline.remaining(httpcore.ReadTimeout)
        digest.update(chunk)
        content.write(chunk)
        on_chunk()
    content.seek(0)
    return size, digest.hexdigest()


def _do_nothing() -> None:
    """The default callback."""


def download(
    url: str, *, max_bytes: int, deadline_seconds: float, on_chunk: Callable[[], object] = _do_nothing
) -> DownloadedFile:
    """Download a URL. The deadline covers DNS, redirects, headers and body together. Raises FetchError.

    `on_chunk` is called for every chunk that arrives; an exception from it ends the download.
    """
    with tracing.span("download", kind="client", server__address=host_of(url)):
        return _download(url, max_bytes=max_bytes, deadline_seconds=deadline_seconds, on_chunk=on_chunk)


def _download(url: str, *, max_bytes: int, deadline_seconds: float, on_chunk: Callable[[], object]) -> DownloadedFile:
    _deadline.start(deadline_seconds)
    for _ in range(MAX_REDIRECTS + 1):
        check_url(url)
        try:
            with _client().stream("GET", url) as response:
                if response.is_redirect:
                    url = urljoin(url, response.headers.get("location", ""))
                    continue
                if response.status_code != 200:
                    raise FetchError(status_text(response.status_code), status=response.status_code)
                return _read_body(response, max_bytes=max_bytes, on_chunk=on_chunk)
        except RefusedError as refused:
            raise refused.cause from None
        except (httpx.HTTPError, httpcore.NetworkError, httpcore.TimeoutException, httpcore.ProtocolError) as error:
            raise FetchError(connection_problem(error, host_of(url))) from error
    raise FetchError("too many redirects", final=True)
