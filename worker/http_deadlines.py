"""Total deadlines for HTTP calls: sockets that know when the whole call must be over. Makes no calls itself.

A timeout of httpx covers a single read, so a server that sends one byte at a time, in the headers too, could hold a
thread without end. Used by `safe_fetch` and the providers.
"""

import threading
import time
from collections.abc import Iterable
from typing import Any

import httpcore

_WRITE_CHUNK_BYTES = 65_536


class Deadline(threading.local):
    """The time by which the call of the current thread must be over."""

    until = 0.0

    def start(self, seconds: float) -> None:
        """Start a new call."""
        self.until = time.monotonic() + seconds

    def resume(self, until: float) -> None:
        """Continue a call after the thread did something else, perhaps another call."""
        self.until = until

    def remaining(self, late: type[Exception]) -> float:
        """Return the seconds left. Raises `late` if there are none."""
        remaining = self.until - time.monotonic()
        if remaining <= 0:
            raise late("total deadline of the call")
        return remaining


class DeadlineBackend(httpcore.NetworkBackend):
    """Opens connections whose every operation ends with the deadline."""

    def __init__(self, inner: httpcore.NetworkBackend, deadline: Deadline) -> None:
        self._inner = inner
        self._deadline = deadline

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: "Iterable[Any] | None" = None,
    ) -> httpcore.NetworkStream:
        """Connect within the remaining time and the connect timeout."""
        remaining = self._deadline.remaining(httpcore.ConnectTimeout)
        stream = self._inner.connect_tcp(
            host, port, min(remaining, timeout or remaining), local_address, socket_options
        )
        return _DeadlineStream(stream, self._deadline)


class _DeadlineStream(httpcore.NetworkStream):
    def __init__(self, inner: httpcore.NetworkStream, deadline: Deadline) -> None:
        self._inner = inner
        self._deadline = deadline

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        remaining = self._deadline.remaining(httpcore.ReadTimeout)
        return self._inner.read(max_bytes, min(remaining, timeout or remaining))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        for start in range(0, len(buffer), _WRITE_CHUNK_BYTES):
            remaining = self._deadline.remaining(httpcore.WriteTimeout)
            self._inner.write(buffer[start : start + _WRITE_CHUNK_BYTES], min(remaining, timeout or remaining))

    def close(self) -> None:
        self._inner.close()

    def start_tls(
        self, ssl_context: Any, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        remaining = self._deadline.remaining(httpcore.ConnectTimeout)
        stream = self._inner.start_tls(ssl_context, server_hostname, min(remaining, timeout or remaining))
        return _DeadlineStream(stream, self._deadline)

    def get_extra_info(self, info: str) -> Any:
        return self._inner.get_extra_info(info)
