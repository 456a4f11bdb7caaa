"""Connections of HTTP clients on asyncio, against real sockets."""

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import wraps
from pathlib import Path
from typing import Any

import httpcore
import pytest

from tests.support.servers.redis_servers import make_certificates
from worker.http_streams import AsyncioBackend
from worker.providers.transports import PublicBackend, opened_sockets

Answer = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def peer(answer: Answer, context: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    """Serve on the loopback; yields the port."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await answer(reader, writer)
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0, ssl=context)
    async with server:
        yield server.sockets[0].getsockname()[1]


def on_a_loop(test: Callable[..., Awaitable[None]]) -> Callable[..., None]:
    """Run the test on an event loop of its own."""

    @wraps(test)
    def run(*args: Any, **fixtures: Any) -> None:
        asyncio.run(test(*args, **fixtures))  # type: ignore[arg-type]

    return run


async def read_all(stream: httpcore.AsyncNetworkStream) -> bytes:
    pieces = []
    while piece := await stream.read(65536, 5.0):
        pieces.append(piece)
    return b"".join(pieces)


@contextmanager
def full_server() -> Iterator[tuple[str, int]]:
    """A server that takes no connection and has no room for more that wait: the kernel answers nobody else."""
    with socket.socket() as server, socket.socket() as first, socket.socket() as second:
        server.bind(("127.0.0.1", 0))
        server.listen(0)
        for one in (first, second):
            one.setblocking(False)
            one.connect_ex(server.getsockname())
        yield server.getsockname()


async def write_much(stream: httpcore.AsyncNetworkStream) -> None:
    for _ in range(100):
        await stream.write(b"z" * 1_000_000, 0.05)


@on_a_loop
async def test_all_bytes_arrive_in_order_until_the_end() -> None:
    sent = bytes(range(256)) * 20_000  # 5 MB: reading pauses and goes on

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(await reader.readexactly(4) + sent)
        await writer.drain()

    async with peer(answer) as port:
        stream = await AsyncioBackend().connect_tcp("127.0.0.1", port, 5.0)
        connected = stream.get_extra_info("socket")
        assert connected.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY), (
            "a body does not wait for its head's receipt"
        )
        await stream.write(b"ping", 5.0)
        await asyncio.sleep(0.1)  # more arrives than is kept unread
        assert await read_all(stream) == b"ping" + sent
        await stream.aclose()


@on_a_loop
async def test_what_nobody_reads_stays_with_the_sender() -> None:
    written = 0

    async def answer(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal written
        for _ in range(1000):
            writer.write(b"x" * 65536)
            await writer.drain()
            written += 65536

    async with peer(answer) as port:
        stream = await AsyncioBackend().connect_tcp("127.0.0.1", port, 5.0)
        seen = -1
        while seen != written:
            seen = written
            await asyncio.sleep(0.2)
        assert written < 60_000_000
        assert await stream.read(1, 5.0)
        await stream.aclose()


@on_a_loop
async def test_large_body_waits_for_its_receiver() -> None:
    received = bytearray()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(0.2)
        received.extend(await reader.readexactly(8_000_000))
        writer.write(b"done")

    async with peer(answer) as port:
        stream = await AsyncioBackend().connect_tcp("127.0.0.1", port, 5.0)
        for _ in range(8):
            await stream.write(b"y" * 1_000_000, 5.0)
        assert await stream.read(100, 5.0) == b"done"
        assert len(received) == 8_000_000
        await stream.aclose()


@on_a_loop
async def test_receiver_that_takes_nothing_and_sender_that_says_nothing_run_out_of_time() -> None:
    async def answer(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(1)
        await asyncio.sleep(30)

    async with peer(answer) as port:
        stream = await AsyncioBackend().connect_tcp("127.0.0.1", port, 5.0)
        with pytest.raises(httpcore.ReadTimeout):
            await stream.read(100, 0.05)
        with pytest.raises(httpcore.WriteTimeout):
            await write_much(stream)
        await stream.aclose()


@on_a_loop
async def test_connection_that_breaks_is_an_error_of_the_call() -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(1)
        reset = writer.get_extra_info("socket")
        reset.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        writer.transport.abort()

    async with peer(answer) as port:
        stream = await AsyncioBackend().connect_tcp("127.0.0.1", port, 5.0)
        await stream.write(b"1", 5.0)
        with pytest.raises(httpcore.ReadError):
            await stream.read(100, 5.0)
        with pytest.raises(httpcore.WriteError):
            await stream.write(b"2", 5.0)


@pytest.mark.parametrize("proxied", [False, True], ids=["direct", "proxy"])
def test_closing_discards_what_was_not_delivered(proxied: bool) -> None:
    """An order that we have given up must not reach upstream later, when a network is back: it would be a second one."""

    async def give_up(port: int) -> None:
        backend = PublicBackend(frozenset({"127.0.0.1"})) if proxied else AsyncioBackend()
        with opened_sockets():
            stream = await backend.connect_tcp("127.0.0.1", port, timeout=5.0)
        await stream.write(b"an order", 5.0)
        await stream.aclose()

    with socket.create_server(("127.0.0.1", 0)) as server:
        asyncio.run(give_up(server.getsockname()[1]))
        connection, _ = server.accept()
        with connection, pytest.raises(ConnectionResetError):
            # What has arrived may still be read; then comes a reset instead of an end.
            connection.makefile("rb").read()


@on_a_loop
async def test_refused_connection() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, and not listening
        with pytest.raises(httpcore.ConnectError):
            await AsyncioBackend().connect_tcp("127.0.0.1", taken.getsockname()[1], 5.0)


@on_a_loop
async def test_address_that_answers_is_found_behind_those_that_do_not() -> None:
    """One whose queue is full never answers, another refuses: neither holds up the address that works."""

    async def answer(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"here")

    async with peer(answer) as port:
        with full_server() as silent:
            found = [silent, ("127.0.0.1", 1), ("127.0.0.1", port)]
            addresses = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", one) for one in found]

            async def resolve(*_: object, **__: object) -> list[Any]:
                return addresses

            asyncio.get_running_loop().getaddrinfo = resolve  # type: ignore[method-assign]
            stream = await AsyncioBackend().connect_tcp("several.example", port, 20.0)
            assert await stream.read(100, 5.0) == b"here"
            await stream.aclose()
            del addresses[2]
            with pytest.raises(httpcore.ConnectTimeout):
                await AsyncioBackend().connect_tcp("several.example", port, 0.5)
            del addresses[0]
            with pytest.raises(httpcore.ConnectError):
                await AsyncioBackend().connect_tcp("several.example", port, 5.0)


@on_a_loop
async def test_connection_that_the_server_closed_at_rest_is_seen_before_its_next_use() -> None:
    async with peer(lambda reader, _writer: reader.readexactly(1)) as port:  # type: ignore[arg-type,return-value]
        stream = await AsyncioBackend().connect_tcp("127.0.0.1", port, 5.0)
        assert not stream.get_extra_info("is_readable")
        await stream.write(b"1", 5.0)
        assert await stream.read(100, 5.0) == b""
        assert stream.get_extra_info("is_readable")


@on_a_loop
async def test_encrypted_connections_of_a_pool(tmp_path: Path) -> None:
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    paths = make_certificates(tmp_path)
    server.load_cert_chain(paths.certificate, paths.key)
    body = b"b" * 3_000_000

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.readuntil(b"\r\n\r\n"):
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
            await writer.drain()

    trusting = ssl.create_default_context(cafile=str(paths.ca))
    async with peer(answer, server) as port:
        async with httpcore.AsyncConnectionPool(ssl_context=trusting, network_backend=AsyncioBackend()) as pool:
            for _ in range(2):  # the second call uses the connection of the first
                found = await pool.request("GET", f"https://127.0.0.1:{port}/")
                assert (found.status, found.content) == (200, body)
            assert len(pool.connections) == 1
        distrusting = ssl.create_default_context()
        async with httpcore.AsyncConnectionPool(ssl_context=distrusting, network_backend=AsyncioBackend()) as pool:
            with pytest.raises(httpcore.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
                await pool.request("GET", f"https://127.0.0.1:{port}/")
