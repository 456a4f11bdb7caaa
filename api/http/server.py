"""`python -m api.http.server`: uvicorn with the settings of Dreamery, and with limits on the head of a request.

uvicorn itself waits for ever for headers, and takes any number of them: a few thousand sockets that drip would fill the
process (slowloris). Bodies are limited in `app.py`. What is refused here, before the application sees a request, is
told as the error object too.
"""

import argparse
import asyncio
import contextlib
import resource
from typing import Any

import uvicorn
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

import worker.core.gc_tuning  # noqa: F401 - before what is large
from api.http.errors import error_response, speak
from api.http.security_headers import protective_headers
from worker.core.errors import DreameryError
from worker.core.ids import new_request_id
from worker.core.observability import metrics
from worker.core.observability.logging import get_logger
from worker.core.settings import get_settings

# More than any client of ours has a use for; cookies of other programs on the same host are the longest. The parser's
# own limit for a URL is 65,535.
MOST_HEAD_BYTES = 64_000
# A client that is cut off in the middle of sending may never see the answer: so much is still heard, and so long.
_MOST_UNHEARD_BYTES = 1_000_000
_UNHEARD_SECONDS = 2.0
_MOST_OPEN_FILES = 65_536

log = get_logger("api")


class _RefusedError(Exception):
    """Ends the parsing of a head."""


class BoundedHttp(HttpToolsProtocol):
    """A connection whose request heads must arrive in time and be of bounded size."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._head_timer: asyncio.TimerHandle | None = None
        self._head_bytes = 0
        self._why = DreameryError("invalid_http")
        # Counts what still comes after a refusal.
        self._unheard_bytes: int | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A client that connects must begin to speak, too."""
        super().connection_made(transport)
        self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Nothing is awaited any more."""
        self._stop_waiting()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Count what came until the head is complete."""
        if self._unheard_bytes is not None:
            self._unheard_bytes += len(data)
            if self._unheard_bytes > _MOST_UNHEARD_BYTES:
                self.transport.close()
            return
        self._head_bytes += len(data)
        super().data_received(data)
        if self._head_timer is not None and self._head_bytes > MOST_HEAD_BYTES:
            self._refuse(DreameryError("headers_too_large"))

    def on_message_begin(self) -> None:
        """The next request of a connection that is kept."""
        super().on_message_begin()
        if self._head_timer is None:
            self._await_head()

    def on_url(self, url: bytes) -> None:
        """A part of the URL."""
        super().on_url(url)
        self._bound(len(self.url), "url_too_long")

    def on_headers_complete(self) -> None:
        """The head is there in time."""
        self._bound(sum(len(name) + len(value) for name, value in self.headers), "headers_too_large")
        self._stop_waiting()
        super().on_headers_complete()

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002 - its words help nobody
        """Called when the parser gives up; `_bound` may have said why."""
        self._refuse(self._why)

    def _bound(self, size: int, code: str) -> None:
        if size > MOST_HEAD_BYTES:
            self._why = DreameryError(code)
            raise _RefusedError

    def _await_head(self) -> None:
        self._head_bytes = 0
        self._head_timer = self.loop.call_later(get_settings().request_head_seconds, self._refuse_late)

    def _stop_waiting(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _refuse_late(self) -> None:
        self._refuse(DreameryError("request_incomplete", "The head of the request did not arrive in time."), 408)

    def _refuse(self, error: DreameryError, status: int | None = None) -> None:
        """Answer, and hear a little of what is still being sent; a begun answer is cut instead of mixed with this."""
        self._stop_waiting()
        if self.transport.is_closing():
            return
        if self.cycle is not None and not self.cycle.response_complete:
            if self.cycle.response_started:
                self.transport.close()
                return
            # Its body broke off: nothing more comes, and nobody hears its answer.
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        self._unheard_bytes = 0
        self.transport.write(self._refusal(error, status))
        self.transport.write_eof()
        self.loop.call_later(_UNHEARD_SECONDS, self.transport.close)

    def _refusal(self, error: DreameryError, status: int | None) -> bytes:
        given = dict(self.headers or ())
        speak(given.get(b"accept-language", b"").decode("latin-1"))
        request_id = new_request_id()
        response = error_response(error, status=status)
        log.warning("head_refused", request_id=request_id, code=error.code, status=response.status_code)
        metrics.count("dreamery_requests", "unknown", "unknown", str(response.status_code))
        headers = [
            *response.raw_headers,
            (b"connection", b"close"),
            (b"x-request-id", request_id.encode()),
            # Browsers show a page nothing of an answer without it.
            (b"access-control-allow-origin", b"*"),
        ]
        lines = [b"%b: %b\r\n" % header for header in (*headers, *protective_headers(headers))]
        return b"".join([STATUS_LINE[response.status_code], *lines, b"\r\n", bytes(response.body)])


def _raise_file_limit() -> None:
    """Every open request is a file, and systems give a process 1024 unless it asks for more."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _MOST_OPEN_FILES if hard == resource.RLIM_INFINITY else min(hard, _MOST_OPEN_FILES)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def main() -> None:
    """Serve until told to stop."""
    settings = get_settings()
    parser = argparse.ArgumentParser(prog="python -m api.http.server", description="Serve the API.")
    parser.add_argument("--host", default=settings.api_host)
    parser.add_argument("--port", type=int, default=settings.api_port)
    parser.add_argument("--drain-seconds", type=int, default=20, help="how long open requests may go on at the end")
    given = parser.parse_args()
    _raise_file_limit()
    uvicorn.run(
        "api.app:create_app",
        factory=True,
        host=given.host,
        port=given.port,
        access_log=False,
        loop="uvloop",
        http=BoundedHttp,
        proxy_headers=True,
        forwarded_allow_ips=settings.trusted_proxies,
        server_header=False,
        # Longer than clients and proxies keep an idle connection (60 s), or one is closed as they use it again.
        timeout_keep_alive=75,
        timeout_graceful_shutdown=given.drain_seconds,
    )


if __name__ == "__main__":
    main()
