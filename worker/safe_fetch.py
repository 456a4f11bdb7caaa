"""The guarded fetcher: the only way to addresses that others gave us (result links, webhooks).

Names are resolved here and the connection goes to the address that was checked, so a second DNS answer cannot lead
inside. Loopback, private, link-local and other special ranges are refused unless DREAMERY_FETCH_ALLOW names the host.
Redirects are followed by hand and checked like the first address. Size and total time are capped, names included.
Nothing is unpacked: pictures and videos are packed already, and what unpacks itself could fill the memory.
"""

import hashlib
import ssl
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import IO, Any
from urllib.parse import urljoin, urlsplit

import httpcore
import httpx

from worker.core.observability import tracing
from worker.core.security.ip_addresses import allowed_privately, is_public, resolve
from worker.core.settings import get_settings

MAX_REDIRECTS = 3
_SPOOL_BYTES = 8 * 1024 * 1024
_SOCKET_TIMEOUT_SECONDS = 10.0
POST_DEADLINE_SECONDS = 20.0
_WRITE_PIECE = 65_536


class FetchError(Exception):
    """A fetch that failed. `status` is the HTTP status when the peer answered; `final` = trying again is no use."""

    def __init__(self, message: str, *, status: int | None = None, final: bool = False) -> None:
        super().__init__(message)
        self.status = status
        self.final = final


@dataclass(frozen=True, slots=True)
class Downloaded:
    """A fetched body in a temporary file that vanishes when closed."""

    content: IO[bytes]
    size: int
    sha256: str


def checked_addresses(host: str, port: int, *, seconds: float = _SOCKET_TIMEOUT_SECONDS) -> list[str]:
    """The addresses of a host that may be reached. Raises FetchError when it has none or any is a private one."""
    try:
        found = resolve(host, port, seconds=seconds)
    except OSError as error:
        raise FetchError(f"host {host!r} cannot be resolved") from error
    if not allowed_privately(host, port, get_settings().fetch_allow):
        for address in found:
            if not is_public(address):
                raise FetchError(f"host {host!r} is at a private address, which is not allowed", final=True)
    return sorted(found)


class _Deadline(threading.local):
    """When the fetch of this thread must be over: a peer that drips bytes meets no timeout of a single read."""

    until = 0.0

    def start(self, seconds: float) -> None:
        self.until = time.monotonic() + seconds

    def left(self, late: type[httpcore.TimeoutException]) -> float:
        left = self.until - time.monotonic()
        if left <= 0:
            raise late("total deadline")
        return left


_deadline = _Deadline()


class _DeadlineStream(httpcore.NetworkStream):
    def __init__(self, inner: httpcore.NetworkStream) -> None:
        self._inner = inner

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        left = _deadline.left(httpcore.ReadTimeout)
        return self._inner.read(max_bytes, min(left, timeout or left))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        for start in range(0, len(buffer), _WRITE_PIECE):
            left = _deadline.left(httpcore.WriteTimeout)
            self._inner.write(buffer[start : start + _WRITE_PIECE], min(left, timeout or left))

    def close(self) -> None:
        self._inner.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        left = _deadline.left(httpcore.ConnectTimeout)
        return _DeadlineStream(self._inner.start_tls(ssl_context, server_hostname, min(left, timeout or left)))

    def get_extra_info(self, info: str) -> Any:
        return self._inner.get_extra_info(info)


class _CheckedBackend(httpcore.NetworkBackend):
    """Connects to the addresses that were checked, never resolves again."""

    def __init__(self) -> None:
        self._inner = httpcore.SyncBackend()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:
        try:
            addresses = checked_addresses(host, port, seconds=_deadline.left(httpcore.ConnectTimeout))
        except FetchError as error:
            raise _RefusedError(error) from error
        for number, address in enumerate(addresses, start=1):
            left = _deadline.left(httpcore.ConnectTimeout)
            try:
                stream = self._inner.connect_tcp(
                    address, port, min(left, timeout or left), local_address, socket_options
                )
                return _DeadlineStream(stream)
            except (httpcore.NetworkError, httpcore.ConnectTimeout):
                if number == len(addresses):
                    raise
        raise httpcore.ConnectError(f"no address for {host}")


class _RefusedError(Exception):
    def __init__(self, cause: FetchError) -> None:
        super().__init__(str(cause))
        self.cause = cause


class _ByteStream(httpx.SyncByteStream):
    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def __iter__(self) -> Iterator[bytes]:
        yield from self._stream

    def close(self) -> None:
        self._stream.close()


class _CheckedTransport(httpx.BaseTransport):
    """httpx over httpcore with our network backend (httpx itself offers no place to put one)."""

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
        timeout=_SOCKET_TIMEOUT_SECONDS,
        follow_redirects=False,
        trust_env=False,
        headers={"User-Agent": "Dreamery", "Accept": "*/*", "Accept-Encoding": "identity"},
    )


def _host(url: str) -> str:
    """Whom a span names; the rest of an address may be a secret. An address that cannot be read is refused later."""
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""


def _check_url(url: str) -> None:
    try:
        parts, parsed = urlsplit(url), httpx.URL(url)
    except (ValueError, httpx.InvalidURL) as error:
        raise FetchError("the address cannot be read", final=True) from error
    if parts.scheme not in {"http", "https"} or not parts.hostname or not parsed.host:
        raise FetchError("the address must be http:// or https:// with a host", final=True)
    if parts.username is not None or parsed.userinfo:
        raise FetchError("an address with a user name in it is not fetched", final=True)


def _read_body(response: httpx.Response, *, max_bytes: int, keep: Callable[[], object]) -> Downloaded:
    content = tempfile.SpooledTemporaryFile(max_size=_SPOOL_BYTES)  # noqa: SIM115
    try:
        size, digest = _copy_body(response, content, max_bytes, keep)
    except BaseException:
        content.close()
        raise
    return Downloaded(content=content, size=size, sha256=digest)


def _copy_body(
    response: httpx.Response, content: IO[bytes], max_bytes: int, keep: Callable[[], object]
) -> tuple[int, str]:
    """Size and SHA-256 of what was copied. A body shorter than announced is a protocol error of httpcore's."""
    if response.headers.get("content-encoding", "identity").strip().lower() not in {"", "identity"}:
        raise FetchError("the answer is packed (Content-Encoding), which was not asked for", final=True)
    digest, size = hashlib.sha256(), 0
    for chunk in response.iter_raw():
        size += len(chunk)
        if size > max_bytes:
            raise FetchError(f"the file is larger than {max_bytes} bytes", final=True)
        _deadline.left(httpcore.ReadTimeout)
        digest.update(chunk)
        content.write(chunk)
        keep()
    content.seek(0)
    return size, digest.hexdigest()


def _idle() -> None:
    """Nobody waits."""


def download(url: str, *, max_bytes: int, deadline_seconds: float, keep: Callable[[], object] = _idle) -> Downloaded:
    """Fetch a body over GET; the deadline holds for names, redirects, headers and body together. Raises FetchError.

    `keep` is called with every piece that arrives; what it raises ends the download.
    """
    with tracing.span("download", kind="client", server__address=_host(url)):
        return _download(url, max_bytes=max_bytes, deadline_seconds=deadline_seconds, keep=keep)


def _download(url: str, *, max_bytes: int, deadline_seconds: float, keep: Callable[[], object]) -> Downloaded:
    _deadline.start(deadline_seconds)
    for _ in range(MAX_REDIRECTS + 1):
        _check_url(url)
        try:
            with _client().stream("GET", url) as response:
                if response.is_redirect:
                    url = urljoin(url, response.headers.get("location", ""))
                    continue
                if response.status_code != 200:
                    raise FetchError(f"HTTP status {response.status_code}", status=response.status_code)
                return _read_body(response, max_bytes=max_bytes, keep=keep)
        except _RefusedError as refused:
            raise refused.cause from None
        except (httpx.HTTPError, httpcore.NetworkError, httpcore.TimeoutException, httpcore.ProtocolError) as error:
            raise FetchError(type(error).__name__) from error
    raise FetchError("too many redirects", final=True)


@dataclass(frozen=True, slots=True)
class Posted:
    """The answer to a webhook: its HTTP status and its `Retry-After`, as written."""

    status: int
    retry_after: str | None


def post(url: str, *, body: bytes, headers: dict[str, str]) -> Posted:
    """Send a webhook. Redirects are an answer, not followed; the answer's body is not read. Raises FetchError."""
    _deadline.start(POST_DEADLINE_SECONDS)
    _check_url(url)
    # A receiver may think for as long as the whole delivery may take.
    patience = httpx.Timeout(POST_DEADLINE_SECONDS, connect=_SOCKET_TIMEOUT_SECONDS, pool=_SOCKET_TIMEOUT_SECONDS)
    try:
        with (
            tracing.span("post webhook", kind="client", server__address=_host(url)) as marks,
            _client().stream("POST", url, content=body, headers=headers, timeout=patience) as response,
        ):
            marks.set(http__response__status_code=response.status_code)
            return Posted(response.status_code, response.headers.get("retry-after"))
    except _RefusedError as refused:
        raise refused.cause from None
    except (httpx.HTTPError, httpcore.NetworkError, httpcore.TimeoutException, httpcore.ProtocolError) as error:
        raise FetchError(type(error).__name__) from error
