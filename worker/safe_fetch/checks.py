"""What every guarded fetch checks, and its errors in words. Makes no calls itself."""

import socket
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from http import HTTPStatus
from typing import IO
from urllib.parse import urlsplit

import httpcore
import httpx

from worker.core.security.ip_addresses import NOT_IN_TIME, is_allowed_private, is_public, resolve
from worker.core.settings import get_settings

MAX_REDIRECTS = 3
SPOOL_BYTES = 8 * 1024 * 1024
SOCKET_TIMEOUT_SECONDS = 10.0
_MAX_CAUSES = 6
_UNKNOWN_NAME = frozenset({socket.EAI_NONAME, getattr(socket, "EAI_NODATA", socket.EAI_NONAME)})
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
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


def resolve_allowed_addresses(host: str, port: int, *, seconds: float = SOCKET_TIMEOUT_SECONDS) -> list[str]:
    """Return the allowed addresses of a host. Raises FetchError if it has none or one of them is private."""
    try:
        addresses = resolve(host, port, seconds=seconds)
    except OSError as error:
        raise not_resolved(host, error) from error
    return refuse_private(host, port, addresses)


def not_resolved(host: str, error: OSError) -> FetchError:
    """Return the error for a failed look-up."""
    return FetchError(f"the host name {host!r} cannot be resolved: {_lookup_problem(error)}")


def refuse_private(host: str, port: int, addresses: list[str]) -> list[str]:
    """Return the addresses in order. Raises FetchError if one of them is private and not allowed."""
    if not is_allowed_private(host, port, get_settings().fetch_allow):
        for address in addresses:
            if not is_public(address):
                raise FetchError(f"the host {host!r} is at a private address, which is not allowed", final=True)
    return sorted(addresses)


def _lookup_problem(error: OSError) -> str:
    if isinstance(error, socket.gaierror):
        return "no such name in the DNS" if error.errno in _UNKNOWN_NAME else "the name server did not answer"
    return "the name server did not answer in time" if error.args == (NOT_IN_TIME,) else "it is not a valid name"


def status_text(status: int) -> str:
    reason = f" ({HTTPStatus(status).phrase})" if status in _KNOWN_STATUSES else ""
    return f"the server answered with HTTP status {status}{reason}"


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    for _ in range(_MAX_CAUSES):
        if error is None:
            return
        yield error
        error = error.__cause__ or error.__context__


def connection_problem(error: Exception, host: str) -> str:
    """Say in words why a connection failed. The causes of httpcore's error lead to the error of the socket."""
    causes = list(_causes(error))
    for cause in causes:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return f"the TLS certificate of {host!r} is not valid: {cause.verify_message.rstrip('.')}"
        if isinstance(cause, ssl.SSLError):
            return f"no encrypted connection to {host!r} was possible (TLS)"
    for kind, text in _PROBLEMS:
        if any(isinstance(cause, kind) for cause in causes):
            return text.format(host=host)
    return f"the connection to {host!r} failed"


class RefusedError(Exception):
    """Carries a FetchError through httpcore, which does not know that class."""

    def __init__(self, cause: FetchError) -> None:
        super().__init__(str(cause))
        self.cause = cause


def host_of(url: str) -> str:
    """Return the host for the span; the rest of a URL may be secret. An invalid URL is refused later."""
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""


def check_url(url: str) -> None:
    try:
        parts, parsed = urlsplit(url), httpx.URL(url)
    except (ValueError, httpx.InvalidURL) as error:
        raise FetchError("the URL is invalid", final=True) from error
    if parts.scheme not in {"http", "https"} or not parts.hostname or not parsed.host:
        raise FetchError("the URL must start with http:// or https:// and name a host", final=True)
    if parts.username is not None or parsed.userinfo:
        raise FetchError("a URL with a user name in it is not allowed", final=True)


def refuse_encoding(encoding: str) -> None:
    """Raise FetchError for a compressed body, which was not requested."""
    if encoding.strip().lower() not in {"", "identity"}:
        raise FetchError("the response has a Content-Encoding that was not requested", final=True)


def refuse_size(size: int, max_bytes: int) -> None:
    """Raise FetchError if a body is too large."""
    if size > max_bytes:
        raise FetchError(f"the file is larger than {max_bytes} bytes", final=True)
