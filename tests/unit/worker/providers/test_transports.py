"""Calls through the proxy of a token (protocol section 1.3), over real sockets."""

import base64
import contextlib
import gzip
import re
import socket
import socketserver
import threading
import zlib
from collections.abc import Iterator

import httpcore
import httpx
import pytest

from tests.support.recorded_upstream import KEY, SESSION, open_orders
from worker.core.concurrency import event_loop
from worker.core.errors import DreameryError
from worker.core.settings import Settings
from worker.providers import transports
from worker.providers.base import Account, NotSentError
from worker.providers.dreamina.client import DreaminaProvider
from worker.providers.transports import PublicBackend, Transports

ANSWER = b'{"ret":"0","data":{}}'
HTTP_ANSWER = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s" % (
    len(ANSWER),
    ANSWER,
)


def rest_of(request: bytes, connection: socket.socket) -> bytes:
    """Return the rest of a POST: a connection that is closed with unread bytes may lose its answer."""
    head, _, body = request.partition(b"\r\n\r\n")
    length = re.search(rb"(?i)content-length: (\d+)", head)
    missing = int(length[1]) - len(body) if length else 0
    rest = b""
    while len(rest) < missing and (part := connection.recv(65536)):
        rest += part
    return rest


class Handler(socketserver.BaseRequestHandler):
    """A proxy that responds itself: to HTTP forward requests, and to SOCKS5 with a password."""

    def handle(self) -> None:
        first = self.request.recv(65536)
        if first[:1] == b"\x05":
            self.request.sendall(b"\x05\x02")
            self.server.received.append(self.request.recv(1024))
            self.request.sendall(b"\x01\x00")
            self.server.received.append(self.request.recv(1024))
            self.request.sendall(b"\x05\x00\x00\x01\x00\x00\x00\x00\x00\x00")
            first = self.request.recv(65536)
        self.server.received.append(first + rest_of(first, self.request))
        with contextlib.suppress(OSError):  # the caller may stop to read
            self.request.sendall(self.server.answer)


class Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True
    block_on_close = False


@pytest.fixture
def server() -> Iterator[Server]:
    with Server(("127.0.0.1", 0), Handler) as server:
        server.received = []
        server.answer = HTTP_ANSWER
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def poll_through(proxy: str, allow: str = "127.0.0.1", origin: str = "http://upstream.example.test") -> None:
    provider = DreaminaProvider(Settings(_env_file=None, fetch_allow=allow, upstream_origin=origin))
    try:
        event_loop.run(
            provider.fetch_records(Account(id="a1", region="us", session=SESSION, proxy=proxy), open_orders(KEY))
        )
    finally:
        provider.close()


def test_http_proxy_gets_call_and_password(server):
    poll_through(f"http://user:p%40ss@127.0.0.1:{server.server_address[1]}")
    (request,) = server.received
    assert request.startswith(b"POST http://upstream.example.test/mweb/v1/get_history_by_ids?")
    assert base64.b64encode(b"user:p@ss") in request


def test_socks_proxy_gets_credentials_and_then_the_call(server):
    poll_through(f"socks5://user:pass@127.0.0.1:{server.server_address[1]}")
    login, connect, request = server.received
    assert b"user" in login
    assert b"pass" in login
    assert b"upstream.example.test" in connect
    assert request.startswith(b"POST /mweb/v1/get_history_by_ids?")


def test_refused_tunnel_raises_not_sent(server):
    server.answer = b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n"
    with pytest.raises(NotSentError) as caught:
        poll_through(f"http://u:S3CR3T@127.0.0.1:{server.server_address[1]}", origin="")
    assert server.received[0].startswith(b"CONNECT dreamina-api.us.capcut.com:443 ")
    assert SESSION.encode() not in server.received[0]
    assert "S3CR3T" not in f"{caught.value!r}{caught.value.detail}"


def test_private_proxy_is_refused_unless_allowed(server):
    port = server.server_address[1]
    with pytest.raises(NotSentError, match="cannot be reached") as caught:
        poll_through(f"http://127.0.0.1:{port}", allow="")
    assert "no public address" in str(caught.value.detail)
    assert server.received == []
    poll_through(f"http://127.0.0.1:{port}", allow=f"10.0.0.1, 127.0.0.1:{port}")
    assert len(server.received) == 1


@pytest.mark.parametrize("address", ["127.0.0.1", "10.1.2.3", "169.254.169.254", "::1", "fe80::1%eth0", "224.0.0.1"])
def test_connection_uses_the_checked_address(monkeypatch, address):
    tried: list[str] = []

    class Inner(httpcore.AsyncNetworkBackend):
        async def connect_tcp(self, host, *_rest):
            tried.append(host)

    async def connect() -> None:
        with transports.opened_sockets():
            await backend.connect_tcp("proxy.example", 1)

    rows = [(0, 0, 0, "", (address, 1)), (0, 0, 0, "", ("93.184.215.14", 1))]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_a, **_k: rows)
    backend = PublicBackend(frozenset({""}), Inner())
    event_loop.run(connect())
    assert tried == ["93.184.215.14"]
    del rows[1]
    with pytest.raises(httpcore.ConnectError):
        event_loop.run(connect())


def test_unresolvable_proxy_host_raises_not_sent(monkeypatch):
    def fail(*_a: object, **_k: object) -> None:
        raise socket.gaierror

    monkeypatch.setattr(socket, "getaddrinfo", fail)
    with pytest.raises(DreameryError) as caught:
        poll_through("http://nowhere.example.test:1", allow="")
    assert isinstance(caught.value, NotSentError)


def gzip_bomb(megabytes: int) -> bytes:
    packer = zlib.compressobj(9, wbits=31)
    zeros = bytes(1024 * 1024)
    return b"".join([*(packer.compress(zeros) for _ in range(megabytes)), packer.flush()])


def answer_with(encoding: bytes, body: bytes) -> bytes:
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Encoding: %b\r\nContent-Length: %d\r\n\r\n"
    return head % (encoding, len(body)) + body


@pytest.mark.parametrize(
    ("encoding", "body"),
    [
        (b"gzip", gzip.compress(ANSWER, mtime=0)),
        (b"x-gzip", gzip.compress(ANSWER, mtime=0)),
        (b"deflate", zlib.compress(ANSWER)),
        (b"identity", ANSWER),
    ],
)
def test_compressed_answers_are_read(server, encoding, body):
    server.answer = answer_with(encoding, body)
    poll_through(f"http://127.0.0.1:{server.server_address[1]}")
    assert len(server.received) == 1


@pytest.mark.parametrize("through", ["proxy", "direct"])
def test_compressed_answer_is_decompressed_in_small_pieces(server, through):
    server.answer = answer_with(b"gzip", gzip_bomb(18))
    address = f"http://127.0.0.1:{server.server_address[1]}"

    async def largest_piece() -> tuple[int, int]:
        pool = Transports(frozenset({"127.0.0.1"}))
        sizes = []
        async with pool.use(address if through == "proxy" else None) as transport:
            response = await transport.handle_async_request(httpx.Request("GET", address))
            sizes = [len(piece) async for piece in response.aiter_bytes()]
            await response.aclose()
        await pool.aclose()
        return max(sizes), sum(sizes)

    largest, total = event_loop.run(largest_piece())
    assert total == 18 * 1024 * 1024
    assert largest <= 1024 * 1024


@pytest.mark.parametrize(
    "body",
    [
        b'{"ret":"0","data":[' + b"[]," * 500_000 + b"[]]}",
        b'{"ret":"0","data":{' + b'"a":{},' * 500_000 + b'"a":0}}',
        b'{"ret":"0","data":"' + b"x" * 129_000_000 + b'"}',
    ],
)
@pytest.mark.parametrize("encoding", [b"identity", b"gzip"])
def test_answer_of_more_values_than_any_is_not_parsed(server, body, encoding, monkeypatch):
    monkeypatch.setattr("worker.providers.dreamina.http.MAX_BODY", 200_000_000)
    server.answer = answer_with(encoding, gzip.compress(body, mtime=0) if encoding == b"gzip" else body)
    with pytest.raises(DreameryError) as caught:
        poll_through(f"http://127.0.0.1:{server.server_address[1]}")
    assert caught.value.code == "upstream_unreachable"
    assert "than any answer" in str(caught.value.detail)


def test_answer_compressed_in_layers_is_refused_unread(server):
    layers = gzip.compress(gzip_bomb(60))
    assert len(layers) < 1000
    server.answer = answer_with(b"gzip, gzip", layers)
    with pytest.raises(DreameryError, match="cannot be reached") as caught:
        poll_through(f"http://127.0.0.1:{server.server_address[1]}")
    assert "compressed more than once" in str(caught.value.detail)


@pytest.mark.parametrize("body", [b"no gzip data at all", gzip.compress(ANSWER, mtime=0)[:-9]])
def test_answer_that_is_not_what_its_encoding_says_is_no_answer(server, body):
    server.answer = answer_with(b"gzip", body)
    with pytest.raises(DreameryError) as caught:
        poll_through(f"http://127.0.0.1:{server.server_address[1]}")
    assert caught.value.code == "upstream_unreachable"


def test_only_idle_transports_are_closed(monkeypatch):
    monkeypatch.setattr(transports, "MAX_PROXIES", 2)

    async def use() -> None:
        pool = Transports(frozenset())
        async with pool.use("http://a:1") as first:
            for name in "bcd":
                async with pool.use(f"http://{name}:1"):
                    pass
            async with pool.use("http://a:1") as again:
                assert again is first
            assert list(pool._proxies) == ["http://d:1", "http://a:1"]
        assert [transport.users for transport in pool._proxies.values()] == [0, 0]
        await pool.aclose()
        assert not pool._proxies

    event_loop.run(use())


def test_errors_do_not_contain_the_proxy():
    assert "S3CR3T" not in repr(Account(id="a", region="us", session="s", proxy="http://S3CR3T@h:1"))
