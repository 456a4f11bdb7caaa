"""Connections of HTTP clients, directly on asyncio.

httpcore's own ones go through anyio, which costs more than the rest of a call: several timers, checkpoints and copies
for each piece. Here a piece is what one read of the socket brings, up to 256 kB, and a wait costs one timer.
"""

import asyncio
import socket
import ssl
import struct
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from select import POLLIN, poll
from typing import Any, cast

import httpcore

# Addresses of a host are tried this many seconds after each other, as RFC 8305 recommends.
_NEXT_ADDRESS_SECONDS = 0.25
# More that nobody has read yet stays with the kernel, so that a fast sender waits for its reader.
_MOST_UNREAD_BYTES = 512 * 1024
# A socket option: closing discards what was not delivered. Otherwise the kernel would keep sending an order that we
# have given up, or whose process was killed, and deliver it when a network is back: after we have looked for it, not
# found it, and ordered again.
DISCARD_AT_CLOSE = (socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


class _Protocol(asyncio.Protocol):
    """What arrived and was not read yet, and who waits for it."""

    def __init__(self) -> None:
        self.transport: asyncio.Transport | None = None
        self.pieces: deque[bytes] = deque()
        self.unread = 0
        self.ended = False  # nothing more arrives
        self.error: Exception | None = None
        self._paused = False  # reading
        self._reader: asyncio.Future[None] | None = None
        self._full = False  # the send buffer
        self._writers: list[asyncio.Future[None]] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self.pieces.append(data)
        self.unread += len(data)
        if self.unread > _MOST_UNREAD_BYTES and not self._paused and self.transport is not None:
            self._paused = True
            self.transport.pause_reading()
        self._wake_reader()

    def eof_received(self) -> bool:
        self.ended = True
        self._wake_reader()
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self.ended, self.error = True, exc
        self._wake_reader()
        self.resume_writing()

    def pause_writing(self) -> None:
        self._full = True

    def resume_writing(self) -> None:
        self._full = False
        for waiter in self._writers:
            if not waiter.done():
                waiter.set_result(None)
        self._writers.clear()

    def _wake_reader(self) -> None:
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(None)

    async def wait_for_data(self, seconds: float | None) -> None:
        """Wait until something arrived or nothing more will. Raises TimeoutError."""
        self._reader = asyncio.get_running_loop().create_future()
        try:
            await _within(self._reader, seconds)
        finally:
            self._reader = None

    async def wait_for_room(self, seconds: float | None) -> None:
        """Wait until the send buffer has room. Raises TimeoutError."""
        if self._full:
            waiter = asyncio.get_running_loop().create_future()
            self._writers.append(waiter)
            await _within(waiter, seconds)

    def take(self) -> bytes:
        """Return the next piece; b"" = there is none."""
        if not self.pieces:
            return b""
        piece = self.pieces.popleft()
        self.unread -= len(piece)
        if self._paused and self.unread <= _MOST_UNREAD_BYTES // 2 and self.transport is not None and not self.ended:
            self._paused = False
            self.transport.resume_reading()
        return piece


async def _within(waiter: "asyncio.Future[None]", seconds: float | None) -> None:
    timer = None if seconds is None else asyncio.get_running_loop().call_later(seconds, _expire, waiter)
    try:
        await waiter
    finally:
        if timer is not None:
            timer.cancel()


def _expire(waiter: "asyncio.Future[None]") -> None:
    if not waiter.done():
        waiter.set_exception(TimeoutError())


class _Stream(httpcore.AsyncNetworkStream):
    def __init__(self, protocol: _Protocol, transport: asyncio.Transport) -> None:
        self._protocol, self._transport = protocol, transport

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ARG002, ASYNC109 - interface
        """Return what arrived, at most what one read of the socket brings; b"" at the end."""
        protocol = self._protocol
        if not protocol.pieces and not protocol.ended:
            with _translated(httpcore.ReadTimeout, httpcore.ReadError):
                await protocol.wait_for_data(timeout)
        piece = protocol.take()
        if not piece and protocol.error is not None:
            raise httpcore.ReadError(str(protocol.error)) from protocol.error
        return piece

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:  # noqa: ASYNC109 - interface
        """Send the bytes; return when the send buffer has room for more."""
        if not buffer:
            return
        with _translated(httpcore.WriteTimeout, httpcore.WriteError):
            if self._protocol.error is not None or self._transport.is_closing():
                raise self._protocol.error or BrokenPipeError("the connection is closed")
            self._transport.write(buffer)
            await self._protocol.wait_for_room(timeout)
            if self._protocol.error is not None:
                raise self._protocol.error

    async def aclose(self) -> None:
        """Close the connection without waiting for the other side."""
        self._transport.abort()

    async def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,  # noqa: ASYNC109 - interface
    ) -> httpcore.AsyncNetworkStream:
        """Return the encrypted stream. The connection is closed when that fails."""
        with _translated(httpcore.ConnectTimeout, httpcore.ConnectError):
            try:
                async with asyncio.timeout(timeout):
                    transport = await asyncio.get_running_loop().start_tls(
                        self._transport, self._protocol, ssl_context, server_hostname=server_hostname
                    )
            except BaseException:
                self._transport.abort()
                raise
            if transport is None:
                raise ConnectionResetError("the connection was closed during the handshake")
            self._protocol.transport = transport
            return _Stream(self._protocol, transport)

    def get_extra_info(self, info: str) -> Any:
        """Return what httpcore asks for."""
        if info == "is_readable":
            # Of a connection at rest: it ended, or something came that nobody asked for.
            return self._protocol.ended or bool(self._protocol.pieces) or _has_input(self._transport)
        names = {"client_addr": "sockname", "server_addr": "peername"}
        return self._transport.get_extra_info(names.get(info, info))


def _has_input(transport: asyncio.Transport) -> bool:
    """Whether the kernel has something that the loop has not read yet, such as the end of the connection."""
    found = transport.get_extra_info("socket")
    if found is None or found.fileno() < 0:
        return True
    asked = poll()
    asked.register(found.fileno(), POLLIN)
    return bool(asked.poll(0))


@contextmanager
def _translated(late: type[Exception], broken: type[Exception]) -> Iterator[None]:
    """Raise the errors of the system as those of httpcore."""
    try:
        yield
    except TimeoutError as error:
        raise late(str(error)) from error
    except OSError as error:  # also those of TLS
        raise broken(str(error)) from error


async def _connect(host: str, port: int, local_address: str | None) -> socket.socket:
    """Return a socket that is connected to one of the addresses of the host.

    asyncio can do that too (`happy_eyeballs_delay`), but leaves sockets open in Python 3.11.
    """
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP)
    addresses = _in_turn(dict.fromkeys((family, address) for family, *_, address in found))
    if len(addresses) == 1:
        return await _open(*addresses[0], local_address)
    attempts, failure = set[asyncio.Task[socket.socket]](), OSError("the host has no address")
    try:
        while addresses or attempts:
            if addresses:
                attempts.add(asyncio.create_task(_open(*addresses.popleft(), local_address)))
            pause = _NEXT_ADDRESS_SECONDS if addresses else None
            await asyncio.wait(attempts, timeout=pause, return_when=asyncio.FIRST_COMPLETED)
            for attempt in [one for one in attempts if one.done()]:
                attempts.discard(attempt)
                try:
                    return attempt.result()
                except OSError as error:
                    failure = error
        raise failure
    finally:
        for attempt in attempts:
            attempt.add_done_callback(_close_result)
            attempt.cancel()


def _in_turn(addresses: Iterable[tuple[int, Any]]) -> deque[tuple[int, Any]]:
    """Return the addresses with those of both protocols alternating, in their order."""
    lines: dict[int, deque[tuple[int, Any]]] = {}
    for one in addresses:
        lines.setdefault(one[0], deque()).append(one)
    merged: deque[tuple[int, Any]] = deque()
    while any(lines.values()):
        merged.extend(line.popleft() for line in lines.values() if line)
    return merged


async def _open(family: int, address: Any, local_address: str | None) -> socket.socket:
    opened = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        opened.setblocking(False)
        # Head and body are written apart: without this, the body waits 40 ms for the receipt of the head.
        opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        opened.setsockopt(*DISCARD_AT_CLOSE)
        if local_address is not None:
            opened.bind((local_address, 0))
        await asyncio.get_running_loop().sock_connect(opened, address)
    except BaseException:
        opened.close()
        raise
    return opened


def _close_result(attempt: "asyncio.Task[socket.socket]") -> None:
    if not attempt.cancelled() and attempt.exception() is None:
        attempt.result().close()


class AsyncioBackend(httpcore.AsyncNetworkBackend):
    """Opens the connections of a pool of httpcore."""

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 - interface
        local_address: str | None = None,
        socket_options: "Iterable[Any] | None" = None,
    ) -> httpcore.AsyncNetworkStream:
        """Connect to the first address of the host that answers. Raises httpcore.ConnectError, ConnectTimeout."""
        with _translated(httpcore.ConnectTimeout, httpcore.ConnectError):
            async with asyncio.timeout(timeout):
                connected = await _connect(host, port, local_address)
                try:
                    for option in socket_options or ():
                        connected.setsockopt(*option)
                    transport, protocol = await asyncio.get_running_loop().create_connection(_Protocol, sock=connected)
                except BaseException:
                    connected.close()
                    raise
        return _Stream(protocol, transport)

    async def sleep(self, seconds: float) -> None:
        """Wait."""
        await asyncio.sleep(seconds)
