"""The guarded HTTP client: the only way to reach URLs that users or upstream supply (result links, webhooks).

Host names are resolved here, and the connection goes to the checked address, so a second DNS answer cannot redirect it
into the private network. Loopback, private, link-local and other special ranges are refused unless DREAMERY_FETCH_ALLOW
names the host. Redirects are followed one by one, and each is checked like the first URL. Size and total time
(including DNS) are limited. Content-Encoding is refused: media is compressed already, and a decompression bomb could
exhaust the memory.
"""

import hashlib
import socket
import ssl
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from http import HTTPStatus
from typing import IO, Any
from urllib.parse import urljoin, urlsplit

import httpcore
import httpx

from worker.core.observability import tracing
from worker.core.security.ip_addresses import NOT_IN_TIME, is_allowed_private, is_public, resolve
from worker.core.settings import get_settings
from worker.http_deadlines import Deadline, DeadlineBackend

MAX_REDIRECTS = 3
_SPOOL_BYTES = 8 * 1024 * 1024
_SOCKET_TIMEOUT_SECONDS = 10.0
POST_DEADLINE_SECONDS = 20.0
_UNKNOWN_NAME = frozenset({socket.EAI_NONAME, getattr(socket, "EAI_NODATA", socket.EAI_NONAME)})
_KNOWN_STATUSES = frozenset(HTTPStatus)
# What happened, by the error of httpcore or of the socket below it; the first match counts.
_PROBLEMS: tuple[tuple[type[Exception] | tuple[type[Exception], ...], str], ...] = (
    (ConnectionRefusedError, "{host!r} refused the connection"),
    ((httpcore.ConnectTimeout, httpx.ConnectTimeout), "{host!r} did not accept the connection in time"),
    ((httpcore.TimeoutException, httpx.TimeoutException), "{host!r} did not answer in time"),
    ((httpcore.ConnectError, httpx.ConnectError), "{host!r} cannot be reached"),
    ((httpcore.ProtocolError, httpx.ProtocolError), "{host!r} sent an incomplete or invalid HTTP response"),
    ((httpcore.NetworkError, httpx.NetworkError), "{host!r} closed the connection before the response was complete"),
)


class FetchError(Exception):
    """A failed fetch. `status` is the HTTP status if the server answered; `final` = another try cannot succeed."""

    def __init__(self, message: str, *, status: int | None = None, final: bool = False) -> None:
        super().__init__(message)
        self.status = status
        self.final = final


@dataclass(frozen=True, slots=True)
class DownloadedFile:
    """A fetched body in a temporary file, which is deleted when closed."""

    content: IO[bytes]
    size: int
    sha256: str


def resolve_allowed_addresses(host: str, port: int, *, seconds: float = _SOCKET_TIMEOUT_SECONDS) -> list[str]:
    """Return the allowed addresses of a host. Raises FetchError if it has none or one of them is private."""
    try:
        addresses = resolve(host, port, seconds=seconds)
    except OSError as error:
        raise FetchError(f"the host name {host!r} cannot be resolved: {_lookup_problem(error)}") from error
    if not is_allowed_private(host, port, get_settings().fetch_allow):
        for address in addresses:
            if not is_public(address):
                raise FetchError(f"the host {host!r} is at a private address, which is not allowed", final=True)
    return sorted(addresses)


def _lookup_problem(error: OSError) -> str:
    if isinstance(error, socket.gaierror):
        return "no such name in the DNS" if error.errno in _UNKNOWN_NAME else "the name server did not answer"
    return "the name server did not answer in time" if error.args == (NOT_IN_TIME,) else "it is not a valid name"


def _status_text(status: int) -> str:
    reason = f" ({HTTPStatus(status).phrase})" if status in _KNOWN_STATUSES else ""
    return f"the server answered with HTTP status {status}{reason}"


def _connection_problem(error: Exception, host: str) -> str:
    """Say in words why a connection failed. The cause of httpcore's error is the error of the socket."""
    cause = error.__cause__ or error.__context__ or error
    if isinstance(cause, ssl.SSLCertVerificationError):
        return f"the TLS certificate of {host!r} is not valid: {cause.verify_message.rstrip('.')}"
    if isinstance(cause, ssl.SSLError):
        return f"no encrypted connection to {host!r} was possible (TLS)"
    for kind, text in _PROBLEMS:
        if isinstance(error, kind) or isinstance(cause, kind):
            return text.format(host=host)
    return f"the connection to {host!r} failed"


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
            raise _RefusedError(error) from error
        for number, address in enumerate(addresses, start=1):
            try:
                return self._inner.connect_tcp(address, port, timeout, local_address, socket_options)
            except (httpcore.NetworkError, httpcore.ConnectTimeout):
                if number == len(addresses):
                    raise
        raise httpcore.ConnectError(f"no address for {host}")


class _RefusedError(Exception):
    """Carries a FetchError through httpcore, which does not know that class."""

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
        timeout=_SOCKET_TIMEOUT_SECONDS,
        follow_redirects=False,
        trust_env=False,
        headers={"User-Agent": "Dreamery", "Accept": "*/*", "Accept-Encoding": "identity"},
    )


def _host(url: str) -> str:
    """Return the host for the span; the rest of a URL may be secret. An invalid URL is refused later."""
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""


def _check_url(url: str) -> None:
    try:
        parts, parsed = urlsplit(url), httpx.URL(url)
    except (ValueError, httpx.InvalidURL) as error:
        raise FetchError("the URL is invalid", final=True) from error
    if parts.scheme not in {"http", "https"} or not parts.hostname or not parsed.host:
        raise FetchError("the URL must start with http:// or https:// and name a host", final=True)
    if parts.username is not None or parsed.userinfo:
        raise FetchError("a URL with a user name in it is not allowed", final=True)


def _read_body(response: httpx.Response, *, max_bytes: int, on_chunk: Callable[[], object]) -> DownloadedFile:
    content = tempfile.SpooledTemporaryFile(max_size=_SPOOL_BYTES)  # noqa: SIM115
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
    if response.headers.get("content-encoding", "identity").strip().lower() not in {"", "identity"}:
        raise FetchError("the response has a Content-Encoding that was not requested", final=True)
    digest, size = hashlib.sha256(), 0
    for chunk in response.iter_raw():
        size += len(chunk)
        if size > max_bytes:
            raise FetchError(f"the file is larger than {max_bytes} bytes", final=True)
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
    with tracing.span("download", kind="client", server__address=_host(url)):
        return _download(url, max_bytes=max_bytes, deadline_seconds=deadline_seconds, on_chunk=on_chunk)


def _download(url: str, *, max_bytes: int, deadline_seconds: float, on_chunk: Callable[[], object]) -> DownloadedFile:
    _deadline.start(deadline_seconds)
    for _ in range(MAX_REDIRECTS + 1):
        _check_url(url)
        try:
            with _client().stream("GET", url) as response:
                if response.is_redirect:
                    url = urljoin(url, response.headers.get("location", ""))
                    continue
                if response.status_code != 200:
                    raise FetchError(_status_text(response.status_code), status=response.status_code)
                return _read_body(response, max_bytes=max_bytes, on_chunk=on_chunk)
        except _RefusedError as refused:
            raise refused.cause from None
        except (httpx.HTTPError, httpcore.NetworkError, httpcore.TimeoutException, httpcore.ProtocolError) as error:
            raise FetchError(_connection_problem(error, _host(url))) from error
    raise FetchError("too many redirects", final=True)


@dataclass(frozen=True, slots=True)
class PostResponse:
    """The response to a webhook: its HTTP status and its unparsed `Retry-After` header."""

    status: int
    retry_after: str | None


def post(url: str, *, body: bytes, headers: dict[str, str]) -> PostResponse:
    """Send a webhook. Redirects are returned, not followed, and the response body is not read. Raises FetchError."""
    _deadline.start(POST_DEADLINE_SECONDS)
    _check_url(url)
    # The receiver may take the whole deadline to respond.
    timeout = httpx.Timeout(POST_DEADLINE_SECONDS, connect=_SOCKET_TIMEOUT_SECONDS, pool=_SOCKET_TIMEOUT_SECONDS)
    try:
        with (
            tracing.span("post webhook", kind="client", server__address=_host(url)) as span,
            _client().stream("POST", url, content=body, headers=headers, timeout=timeout) as response,
        ):
            span.set(http__response__status_code=response.status_code)
            return PostResponse(response.status_code, response.headers.get("retry-after"))
    except _RefusedError as refused:
        raise refused.cause from None
    except (httpx.HTTPError, httpcore.NetworkError, httpcore.TimeoutException, httpcore.ProtocolError) as error:
        raise FetchError(_connection_problem(error, _host(url))) from error
