"""`python -m api.serve`: uvicorn with the settings of Dreamery, and with limits on the head of a request.

uvicorn itself waits for ever for headers, and takes any number of them: a few thousand sockets that drip would fill the
process (slowloris). Bodies are limited in `app.py`.
"""

import argparse
import asyncio
import contextlib
import gc
import resource
from typing import Any

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from worker.core.settings import get_settings

MOST_HEAD_BYTES = 64_000
_MOST_OPEN_FILES = 65_536
# How often Python looks for cycles. What the application reads in stays: with Python's own thresholds (700, 10, 10) a
# tenth of its start goes into looking at it again and again.
_CYCLES = (10_000, 20, 50)
_TOO_LATE = b"HTTP/1.1 408 Request Timeout\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"
_TOO_LARGE = b"HTTP/1.1 431 Request Header Fields Too Large\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"


class BoundedHttp(HttpToolsProtocol):
    """A connection whose request heads must arrive in time and be of bounded size."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._head_timer: asyncio.TimerHandle | None = None
        self._head_bytes = 0

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
        self._head_bytes += len(data)
        super().data_received(data)
        if self._head_timer is not None and self._head_bytes > MOST_HEAD_BYTES:
            self._end(_TOO_LARGE)

    def on_message_begin(self) -> None:
        """The next request of a connection that is kept."""
        super().on_message_begin()
        if self._head_timer is None:
            self._await_head()

    def on_headers_complete(self) -> None:
        """The head is there in time."""
        self._stop_waiting()
        super().on_headers_complete()

    def _await_head(self) -> None:
        self._head_bytes = 0
        self._head_timer = self.loop.call_later(get_settings().request_head_seconds, self._end, _TOO_LATE)

    def _stop_waiting(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _end(self, answer: bytes) -> None:
        self._stop_waiting()
        if not self.transport.is_closing():
            self.transport.write(answer)
            self.transport.close()


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
    parser = argparse.ArgumentParser(prog="python -m api.serve", description="Serve the API.")
    parser.add_argument("--host", default=settings.api_host)
    parser.add_argument("--port", type=int, default=settings.api_port)
    parser.add_argument("--drain-seconds", type=int, default=20, help="how long open requests may go on at the end")
    given = parser.parse_args()
    _raise_file_limit()
    gc.set_threshold(*_CYCLES)
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
