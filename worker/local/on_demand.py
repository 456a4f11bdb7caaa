"""Starts a server at its first connection.

The supervisor holds the listening socket and passes it to the server. So connections that arrive while the server
starts, or after it crashed, wait in the socket's queue instead of being refused.
"""

import os
import select
import socket
import threading
from collections.abc import Callable

from worker.local.processes import StartError, free_port

_BACKLOG = 4096


class OnDemandServer:
    """The listening socket of a server, and the thread that waits for the first connection."""

    def __init__(self, host: str, port: int) -> None:
        self.port = port
        try:
            self._socket = socket.create_server((host, port), backlog=_BACKLOG)
        except OSError as error:
            raise StartError(f"Cannot listen on {host}:{port}: {error.strerror}.") from error
        self._wake, self._waker = os.pipe()
        self._thread: threading.Thread | None = None

    @property
    def fd(self) -> int:
        """File descriptor of the socket; it has the same number in the server."""
        return self._socket.fileno()

    def start_at_first_connection(self, start: Callable[[], None]) -> None:
        """Call `start` on another thread, once, as soon as a client connects. The server accepts the connection."""
        self._thread = threading.Thread(target=self._wait, args=(start,), name="on-demand", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop waiting and close the socket. A second call has no effect."""
        if self._wake < 0:
            return
        os.close(self._waker)
        if self._thread is not None:
            self._thread.join()
        os.close(self._wake)
        self._wake = -1
        self._socket.close()

    def _wait(self, start: Callable[[], None]) -> None:
        ready, _, _ = select.select([self._socket.fileno(), self._wake], [], [])
        if self._wake not in ready:
            start()


def open_port_or_another(host: str, port: int) -> OnDemandServer:
    """Listen on this port, or on a free one if it is taken. Asking first would let two platforms find the same one."""
    try:
        return OnDemandServer(host, port)
    except StartError:
        return OnDemandServer(host, free_port())
