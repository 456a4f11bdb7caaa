"""`python -m api.http.server`: uvicorn with Dreamery's settings, and with limits on request heads.

uvicorn itself waits for headers without a timeout and accepts any number of them, so a few thousand slow sockets could
exhaust the process (slowloris). `request_middleware.py` limits bodies. Requests rejected here, before the application
sees them, also get an OpenAI error object.
"""

import argparse
import asyncio
import contextlib
import os
import resource
import signal
import socket
import sys
from types import FrameType
from typing import Any

import uvicorn
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

import worker.core.gc_tuning  # noqa: F401 - before large imports
from api.http.errors import error_response, select_language
from api.http.security_headers import security_headers
from worker.core.errors import DreameryError
from worker.core.ids import new_request_id
from worker.core.observability import metrics
from worker.core.observability.logging import get_logger
from worker.core.security import configuration
from worker.core.settings import get_settings
from worker.db.platform import startup
from worker.messaging.redis_connection import require_usable_redis

# More than any client needs; cookies of other programs on the same host are the largest part. The parser's own limit
# for a URL is 65,535.
MAX_HEAD_BYTES = 64_000
# A client that is cut off while sending may never see the response, so this much is read and discarded, for this long.
_MAX_DISCARDED_BYTES = 1_000_000
_DISCARD_SECONDS = 2.0
_MAX_OPEN_FILES = 65_536
# Of a silent connection: seconds before the first probe and between probes, and how many must fail.
_PROBES = [(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)] + [
    (socket.IPPROTO_TCP, getattr(socket, name), value)
    for name, value in {"TCP_KEEPIDLE": 20, "TCP_KEEPINTVL": 10, "TCP_KEEPCNT": 4}.items()
    if hasattr(socket, name)  # not on every system
]
_READ_BUFFER = memoryview(bytearray(16 * 1024))

log = get_logger("api")


class _HeadRejectedError(Exception):
    """Stops the parser in the middle of a request head."""


class LimitedHttpProtocol(HttpToolsProtocol):
    """A connection whose request heads must arrive in time and be of bounded size."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._head_timer: asyncio.TimerHandle | None = None
        # Bytes since the request began; after its head, bytes since the last one of the body.
        self._head_bytes = 0
        self._parse_error = DreameryError("invalid_http")
        # Bytes received after the rejection; None = not rejected.
        self._discarded_bytes: int | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A new connection must send a complete head in time, too."""
        super().connection_made(transport)
        _probe_when_silent(transport)
        self._start_head_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        """Cancel the timer of the connection."""
        self._cancel_head_timer()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Count the bytes that are no body: the head, and extensions and trailers of a body in chunks."""
        if self._discarded_bytes is not None:
            self._discarded_bytes += len(data)
            if self._discarded_bytes > _MAX_DISCARDED_BYTES:
                self.transport.close()
            return
        self._head_bytes += len(data)
        super().data_received(data)
        if self._discarded_bytes is None and self._head_bytes > MAX_HEAD_BYTES:
            self._reject(DreameryError("headers_too_large"))

    def on_message_begin(self) -> None:
        """Start the timer for the next request of a keep-alive connection."""
        super().on_message_begin()
        if self._head_timer is None:
            self._start_head_timer()

    def on_url(self, url: bytes) -> None:
        """Check the size of the URL as its parts arrive."""
        super().on_url(url)
        self._check_size(len(self.url), "url_too_long")

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep a header of the head. uvicorn would add trailers to the headers of a request that runs already."""
        if self._head_timer is not None:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """The head arrived in time; check its size."""
        self._check_size(sum(len(name) + len(value) for name, value in self.headers), "headers_too_large")
        self._cancel_head_timer()
        self._head_bytes = 0
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Read no more of the body until the application asks: what it has not taken lies in memory."""
        super().on_body(body)
        self._head_bytes = 0
        if not self.cycle.response_complete:
            self.flow.pause_reading()

    def on_message_complete(self) -> None:
        """The request has arrived: notice when its client disconnects."""
        super().on_message_complete()
        if not self.pipeline:
            self.flow.resume_reading()

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002 - uvicorn's own text
        """Called when the parser fails; `_check_size` may have set the reason."""
        self._reject(self._parse_error)

    def _check_size(self, size: int, code: str) -> None:
        if size > MAX_HEAD_BYTES:
            self._parse_error = DreameryError(code)
            raise _HeadRejectedError

    def _start_head_timer(self) -> None:
        self._head_bytes = 0
        self._head_timer = self.loop.call_later(get_settings().request_header_timeout_seconds, self._reject_late)

    def _cancel_head_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _reject_late(self) -> None:
        self._reject(DreameryError("request_incomplete", "The head of the request did not arrive in time."), 408)

    def _reject(self, error: DreameryError, status: int | None = None) -> None:
        """Send the error and discard what still arrives; a response that has started is cut off instead."""
        self._cancel_head_timer()
        if self.transport.is_closing():
            return
        if self.cycle is not None and self.cycle.response_complete and self.cycle.more_body:
            # The error is in the body of a request that has its response: a second response would belong to no request.
            self.transport.close()
            return
        if self.cycle is not None and not self.cycle.response_complete:
            if self.cycle.response_started:
                self.transport.close()
                return
            # The body is incomplete: no more of it arrives, and the client cannot read its response.
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        self._discarded_bytes = 0
        self.flow.resume_reading()
        self.transport.write(self._rejection(error, status))
        self.transport.write_eof()
        self.loop.call_later(_DISCARD_SECONDS, self.transport.close)

    def _rejection(self, error: DreameryError, status: int | None) -> bytes:
        headers = dict(self.headers or ())
        select_language(headers.get(b"accept-language", b"").decode("latin-1"))
        request_id = new_request_id()
        response = error_response(error, status=status)
        log.warning("head_refused", request_id=request_id, code=error.code, status=response.status_code)
        metrics.count("dreamery_requests", "unknown", "unknown", str(response.status_code))
        response_headers = [
            *response.raw_headers,
            (b"connection", b"close"),
            (b"x-request-id", request_id.encode()),
            # Without it browsers hide the response from the page.
            (b"access-control-allow-origin", b"*"),
        ]
        lines = [b"%b: %b\r\n" % header for header in (*response_headers, *security_headers(response_headers))]
        return b"".join([STATUS_LINE[response.status_code], *lines, b"\r\n", bytes(response.body)])


class SmallReads(asyncio.BufferedProtocol):
    """A connection that is read in small pieces: the event loop itself takes 256 kB of each connection at once."""

    def __init__(self, **options: Any) -> None:
        self._protocol = LimitedHttpProtocol(**options)

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin the connection."""
        self._protocol.connection_made(transport)

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002 - the size is fixed
        """Return the buffer that all connections share: what arrives is copied before the next read."""
        return _READ_BUFFER

    def buffer_updated(self, nbytes: int) -> None:
        """Pass on what arrived."""
        self._protocol.data_received(bytes(_READ_BUFFER[:nbytes]))

    def eof_received(self) -> None:
        """Pass on the end of what the client sends."""
        self._protocol.eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        """End the connection."""
        self._protocol.connection_lost(exc)

    def pause_writing(self) -> None:
        """The client reads slowly."""
        self._protocol.pause_writing()

    def resume_writing(self) -> None:
        """The client has read."""
        self._protocol.resume_writing()


def _probe_when_silent(transport: asyncio.BaseTransport) -> None:
    """Make the kernel ask whether the client is there: one that vanished would hold its request for its whole wait.

    No limit for unacknowledged data: it would also end a client that pauses a download.
    """
    connection = transport.get_extra_info("socket")
    with contextlib.suppress(OSError):  # the client has gone already
        for level, name, value in _PROBES:
            connection.setsockopt(level, name, value)


def _raise_file_limit() -> None:
    """Each open request needs a file descriptor, and the usual default of a process is 1024."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    target = _MAX_OPEN_FILES if hard == resource.RLIM_INFINITY else min(hard, _MAX_OPEN_FILES)
    if soft != resource.RLIM_INFINITY and soft < target:
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (target, hard))


def _end(_number: int, _frame: FrameType | None) -> None:
    """End with 0 at once, as a thread may still wait for something. uvicorn raises SIGTERM again after its shutdown."""
    sys.stdout.flush()
    os._exit(0)


def main() -> None:
    """Run the server until it is stopped."""
    signal.signal(signal.SIGTERM, _end)
    settings = get_settings()
    parser = argparse.ArgumentParser(prog="python -m api.http.server", description="Serve the API.")
    parser.add_argument("--host", default=settings.api_host)
    parser.add_argument("--port", type=int, default=settings.api_port)
    parser.add_argument(
        "--drain-seconds", type=int, default=20, help="seconds that open requests may continue after a stop signal"
    )
    options = parser.parse_args()
    _raise_file_limit()
    configuration.require_usable(settings)
    require_usable_redis()
    startup.require_root_key()
    uvicorn.run(
        "api.app:create_app",
        factory=True,
        host=options.host,
        port=options.port,
        access_log=False,
        loop="uvloop",
        http=SmallReads,  # type: ignore[arg-type]
        proxy_headers=bool(settings.trusted_proxies),
        forwarded_allow_ips=settings.trusted_proxies,
        server_header=False,
        # Longer than clients and proxies keep an idle connection (60 s); otherwise we could close one that they reuse.
        timeout_keep_alive=75,
        timeout_graceful_shutdown=options.drain_seconds,
    )


if __name__ == "__main__":
    main()
