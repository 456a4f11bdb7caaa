"""The guarded fetcher: the only way to addresses that others gave us (result links, webhooks).

Names are resolved here and the connection goes to the address that was checked, so a second DNS answer cannot lead
inside. Loopback, private, link-local and other special ranges are refused unless DREAMERY_FETCH_ALLOW names the host.
Redirects are followed by hand and checked like the first address. Size and total time are capped.
"""

import hashlib
import ipaddress
import socket
import ssl
import tempfile
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import IO, Any
from urllib.parse import urljoin, urlsplit

import httpcore
import httpx

from worker.core.settings import get_settings

MAX_REDIRECTS = 3
_SPOOL_BYTES = 8 * 1024 * 1024
_SOCKET_TIMEOUT_SECONDS = 10.0


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


def _allowed_privately(host: str, port: int) -> bool:
    allowed = {item.strip().lower() for item in get_settings().fetch_allow.split(",") if item.strip()}
    return host.lower() in allowed or f"{host.lower()}:{port}" in allowed


def checked_addresses(host: str, port: int) -> list[str]:
    """The addresses of a host that may be reached. Raises FetchError when it has none or any is a private one."""
    try:
        found = {str(info[4][0]) for info in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)}
    except (socket.gaierror, UnicodeError) as error:
        raise FetchError(f"host {host!r} cannot be resolved") from error
    if not _allowed_privately(host, port):
        for address in found:
            ip = ipaddress.ip_address(address.partition("%")[0])
            mapped = getattr(ip, "ipv4_mapped", None)
            if not (mapped or ip).is_global or ip.is_multicast:
                raise FetchError(f"host {host!r} is at a private address, which is not allowed", final=True)
    return sorted(found)


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
            addresses = checked_addresses(host, port)
        except FetchError as error:
            raise _RefusedError(error) from error
        for number, address in enumerate(addresses, start=1):
            try:
                return self._inner.connect_tcp(address, port, timeout, local_address, socket_options)
            except httpcore.NetworkError:
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
        headers={"User-Agent": "Dreamery", "Accept": "*/*"},
    )


def _check_url(url: str) -> None:
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise FetchError("the address must be http:// or https:// with a host", final=True)


def _read_body(response: httpx.Response, *, max_bytes: int, until: float) -> Downloaded:
    content = tempfile.SpooledTemporaryFile(max_size=_SPOOL_BYTES)  # noqa: SIM115
    digest, size = hashlib.sha256(), 0
    for chunk in response.iter_bytes():
        size += len(chunk)
        if size > max_bytes:
            raise FetchError(f"the file is larger than {max_bytes} bytes", final=True)
        if time.monotonic() > until:
            raise FetchError("the download took too long")
        digest.update(chunk)
        content.write(chunk)
    expected = response.headers.get("content-length")
    if expected and "content-encoding" not in response.headers and int(expected) != size:
        raise FetchError("the download was cut short")
    content.seek(0)
    return Downloaded(content=content, size=size, sha256=digest.hexdigest())


def download(url: str, *, max_bytes: int, deadline_seconds: float) -> Downloaded:
    """Fetch a body over GET. Raises FetchError."""
    until = time.monotonic() + deadline_seconds
    for _ in range(MAX_REDIRECTS + 1):
        _check_url(url)
        try:
            with _client().stream("GET", url) as response:
                if response.is_redirect:
                    url = urljoin(url, response.headers.get("location", ""))
                    continue
                if response.status_code != 200:
                    raise FetchError(f"HTTP status {response.status_code}", status=response.status_code)
                return _read_body(response, max_bytes=max_bytes, until=until)
        except _RefusedError as refused:
            raise refused.cause from None
        except (httpx.HTTPError, httpcore.NetworkError, httpcore.TimeoutException, httpcore.ProtocolError) as error:
            raise FetchError(type(error).__name__) from error
    raise FetchError("too many redirects", final=True)


def post(url: str, *, body: bytes, headers: dict[str, str]) -> int:
    """Send a webhook; the HTTP status of the answer. Redirects are an answer, not followed. Raises FetchError."""
    _check_url(url)
    try:
        with _client().stream("POST", url, content=body, headers=headers) as response:
            return response.status_code
    except _RefusedError as refused:
        raise refused.cause from None
    except (httpx.HTTPError, httpcore.NetworkError, httpcore.TimeoutException, httpcore.ProtocolError) as error:
        raise FetchError(type(error).__name__) from error
