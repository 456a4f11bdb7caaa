"""safe_fetch against real servers: private addresses, size limits and deadlines."""

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator

import httpcore
import pytest

from tests.support.engine import reload_settings
from worker.core.concurrency import event_loop
from worker.core.concurrency.lanes import Lane
from worker.http_streams import AsyncioBackend
from worker.safe_fetch import async_client, async_post
from worker.safe_fetch.checks import DownloadedFile, FetchError, resolve_allowed_addresses

LANE = Lane(4)
Talk = Callable[[socket.socket], None]


def download(url: str, *, max_bytes: int, deadline_seconds: float) -> DownloadedFile:
    """Download on the event loop, in a lane of its own."""
    work = async_client.download(url, max_bytes=max_bytes, deadline_seconds=deadline_seconds, lane=LANE)
    return event_loop.run(work)


def post(url: str, *, body: bytes, headers: dict[str, str]) -> async_post.PostResponse:
    return event_loop.run(async_post.post(url, body=body, headers=headers))


@contextlib.contextmanager
def raw_peer(talk: Talk, *, received: list[bytes] | None = None) -> Iterator[int]:
    """Run a TCP server that serves every connection with `talk`; yield its port. `received` collects the requests."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        over = threading.Event()

        def serve() -> None:
            while not over.is_set():
                with contextlib.suppress(OSError):
                    connection, _ = server.accept()
                    with connection:
                        connection.settimeout(5)
                        request = connection.recv(65536)
                        if received is not None:
                            received.append(request)
                        talk(connection)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        port = server.getsockname()[1]
        try:
            yield port
        finally:
            over.set()
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1) as knock:
                knock.send(b"x")
            thread.join(10)


def send_chunks(*chunks: bytes, pause: float = 0.0) -> Talk:
    """Return a server that sends these chunks."""

    def talk(connection: socket.socket) -> None:
        waiting = threading.Event()
        for chunk in chunks:
            connection.sendall(chunk)
            waiting.wait(pause)

    return talk


@pytest.fixture(autouse=True)
def _settings(monkeypatch: pytest.MonkeyPatch, tmp_path) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    reload_settings()
    yield
    reload_settings()


@pytest.fixture
def allow(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    def allow(*places: str) -> None:
        monkeypatch.setenv("DREAMERY_FETCH_ALLOW", ",".join(places))
        reload_settings()

    return allow


def get(port: int, *, max_bytes: int = 1000, deadline: float = 5.0, path: str = "/") -> bytes:
    done = download(f"http://127.0.0.1:{port}{path}", max_bytes=max_bytes, deadline_seconds=deadline)
    with done.content as content:
        return content.read()


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1", "127.8.8.8", "0.0.0.0", "10.0.0.1", "172.16.5.5", "192.168.1.1", "169.254.169.254", "100.64.0.1",
        "192.0.0.1", "198.18.0.1", "224.0.0.1", "240.0.0.1", "255.255.255.255", "::1", "::", "fe80::1", "fe80::1%lo",
        "fc00::1", "fd12::1", "ff02::1", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "::ffff:169.254.169.254",
        "64:ff9b::7f00:1", "64:ff9b:1::8.8.8.8", "2002:7f00:1::", "2002:a9fe:a9fe::", "::127.0.0.1", "::ffff:0:10.0.0.1",
        "fec0::1", "2606:4700::5efe:127.0.0.1", "2001:0:7f00:1::", "3fff::1", "192.88.99.1", "0177.0.0.1", "0x7f000001",
        "017700000001", "127.0.0.1.", "LOCALHOST", "2002:0a00:0001::", "localhost", "2130706433", "0x7f.1", "127.1", "0",
    ],
)  # fmt: skip
def test_private_addresses_are_refused(host: str) -> None:
    with pytest.raises(FetchError) as refused:
        resolve_allowed_addresses(host, 80)
    assert "private" in str(refused.value) or "resolved" in str(refused.value)


@pytest.mark.parametrize("host", ["8.8.8.8", "1.1.1.1", "2606:4700:4700::1111", "::ffff:8.8.8.8", "64:ff9b::8.8.8.8"])
def test_public_addresses_are_allowed(host: str) -> None:
    assert resolve_allowed_addresses(host, 443)


def test_host_with_one_private_address_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def answers(_host, port, **_more):
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (ip, port)) for ip in ("8.8.8.8", "10.0.0.7")]

    monkeypatch.setattr(socket, "getaddrinfo", answers)
    with pytest.raises(FetchError, match="private"):
        resolve_allowed_addresses("two-faced.example", 443)


def test_host_resolving_to_private_address_is_never_connected() -> None:
    received = []
    with raw_peer(received.append) as port:
        for host in ("localhost", "127.0.0.1", "[::ffff:127.0.0.1]"):
            with pytest.raises(FetchError) as refused:
                download(f"http://{host}:{port}/", max_bytes=10, deadline_seconds=2)
            assert refused.value.final
        with pytest.raises(FetchError, match="private"):
            post(f"http://localhost:{port}/", body=b"{}", headers={})
    assert not received[:-1], "only the connection that ends the server"


def test_download_connects_to_the_checked_address(monkeypatch: pytest.MonkeyPatch, allow) -> None:
    """A second DNS answer cannot redirect the connection: the host is resolved once."""
    asked = []
    real = socket.getaddrinfo

    def answers(host, port, *more, **options):
        if host == "rebind.example":
            asked.append(host)
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))]
        return real(host, port, *more, **options)

    monkeypatch.setattr(socket, "getaddrinfo", answers)
    with raw_peer(send_chunks(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok")) as port:
        allow(f"rebind.example:{port}")
        done = download(f"http://rebind.example:{port}/", max_bytes=10, deadline_seconds=5)
        with done.content as content:
            assert content.read() == b"ok"
    assert asked == ["rebind.example"]


def test_allowed_host_is_limited_to_its_port(allow) -> None:
    with raw_peer(send_chunks(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")) as port:
        allow(f"127.0.0.1:{port}")
        assert get(port) == b"ok"
        with pytest.raises(FetchError, match="private"):
            get(port + 1)


def test_redirect_to_private_address_is_refused(allow) -> None:
    received = []
    with raw_peer(received.append) as inside:
        away = f"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:{inside}/\r\nContent-Length: 0\r\n\r\n".encode()
        with raw_peer(send_chunks(away)) as port:
            allow(f"127.0.0.1:{port}")
            with pytest.raises(FetchError, match="private"):
                get(port)
    assert not received[:-1]


@pytest.mark.parametrize(
    "place", ["file:///etc/passwd", "gopher://x/", "//", "http://[::1", "http://", "ftp://127.0.0.1/"]
)
def test_redirect_to_other_scheme_is_refused(allow, place: str) -> None:
    with raw_peer(
        send_chunks(f"HTTP/1.1 302 Found\r\nLocation: {place}\r\nContent-Length: 0\r\n\r\n".encode())
    ) as port:
        allow("127.0.0.1")
        with pytest.raises(FetchError):
            get(port)


@pytest.mark.parametrize(
    "url", ["file:///etc/passwd", "http://", "http:///x", "//host/x", "http://[", "http://a:b/", ""]
)
def test_invalid_url_is_refused(url: str) -> None:
    with pytest.raises(FetchError):
        download(url, max_bytes=10, deadline_seconds=1)
    with pytest.raises(FetchError):
        post(url, body=b"", headers={})


def test_redirects_are_limited(allow) -> None:
    with raw_peer(send_chunks(b"HTTP/1.1 302 Found\r\nLocation: /again\r\nContent-Length: 0\r\n\r\n")) as port:
        allow("127.0.0.1")
        with pytest.raises(FetchError, match="too many redirects"):
            get(port)


def test_error_contains_the_http_status(allow) -> None:
    with raw_peer(send_chunks(b"HTTP/1.1 403 No\r\nContent-Length: 0\r\n\r\n")) as port:
        allow("127.0.0.1")
        with pytest.raises(FetchError) as refused:
            get(port)
        assert (refused.value.status, refused.value.final) == (403, False)
        assert post(f"http://127.0.0.1:{port}/", body=b"{}", headers={}).status == 403


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 2000\r\n\r\n" + b"x" * 2000,
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3e8\r\n" + b"x" * 1000 + b"\r\n1\r\nx\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 5000,
    ],
    ids=["announced", "chunked", "until the end"],
)
def test_body_over_the_limit_is_a_final_error(allow, answer: bytes) -> None:
    with raw_peer(send_chunks(answer)) as port:
        allow("127.0.0.1")
        with pytest.raises(FetchError, match="larger than 1000") as refused:
            get(port)
        assert refused.value.final


@pytest.mark.parametrize(("layers", "encoding"), [(1, "gzip"), (2, "gzip, gzip"), (1, "br"), (1, "x-own")])
def test_compressed_body_is_refused(allow, layers: int, encoding: str) -> None:
    """Two layers of gzip expand a few kilobytes to a gigabyte in one chunk, before a limit could apply."""
    import gzip

    bomb = b"\0" * 1_000_000
    for _ in range(layers):
        bomb = gzip.compress(bomb)
    head = f"HTTP/1.1 200 OK\r\nContent-Encoding: {encoding}\r\nContent-Length: {len(bomb)}\r\n\r\n".encode()
    with raw_peer(send_chunks(head + bomb)) as port:
        allow("127.0.0.1")
        with pytest.raises(FetchError, match="Content-Encoding") as refused:
            get(port, max_bytes=2000)
        assert refused.value.final


def test_identity_encoding_is_requested(allow) -> None:
    heads: list[bytes] = []
    talk = send_chunks(b"HTTP/1.1 200 OK\r\nContent-Encoding: identity\r\nContent-Length: 2\r\n\r\nok")
    with raw_peer(talk, received=heads) as port:
        allow("127.0.0.1")
        assert get(port) == b"ok"
    assert b"accept-encoding: identity\r\n" in heads[0].lower()


ENDLESS = {
    "body until the end": (b"HTTP/1.1 200 OK\r\n\r\n", b"x" * 65536),
    "chunks": (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"4\r\nxxxx\r\n"),
    "chunk extension": (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4;a=", b"b" * 4096),
    "headers": (b"HTTP/1.1 200 OK\r\n", b"X-Header: value\r\n" * 100),
    "one header": (b"HTTP/1.1 200 OK\r\nX: ", b"y" * 4096),
    "status line": (b"HTTP/1.1 200 ", b"O" * 4096),
    "interim answers": (b"", b"HTTP/1.1 103 Early Hints\r\n\r\n" * 50),
    "trailers": (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n", b"X-Trailer: value\r\n" * 100),
}


@pytest.mark.parametrize("part", ENDLESS)
def test_endless_body_is_aborted(allow, part: str) -> None:
    """Stopped by the size limit, by the limits of the protocol, or at the latest by the deadline."""
    start, again = ENDLESS[part]

    def flood(connection: socket.socket) -> None:
        connection.sendall(start)
        while True:
            connection.sendall(again)

    with raw_peer(flood) as port:
        allow("127.0.0.1")
        begin = time.monotonic()
        with pytest.raises(FetchError):
            get(port, deadline=1.0, max_bytes=200_000)
        assert time.monotonic() - begin < 20


@pytest.mark.parametrize("address", ["http://user:pw@{}/", "http://user@{}/", "http://a:b@c@{}/"])
def test_url_with_user_name_is_refused(allow, address: str) -> None:
    received = []
    with raw_peer(received.append) as port:
        allow("127.0.0.1")
        place = address.format(f"127.0.0.1:{port}")
        for call in (
            lambda: download(place, max_bytes=10, deadline_seconds=2),
            lambda: post(place, body=b"", headers={}),
        ):
            with pytest.raises(FetchError) as refused:
                call()
            assert "pw" not in str(refused.value)
        away = f"HTTP/1.1 302 Found\r\nLocation: {place}\r\nContent-Length: 0\r\n\r\n".encode()
        with raw_peer(send_chunks(away)) as first, pytest.raises(FetchError):
            get(first)
    assert not received[:-1]


@pytest.mark.parametrize(
    "place", ["http://169.254.169.254/latest/", "http://[::ffff:169.254.169.254]/", "http://2852039166/", "//0x7f.1/"]
)
def test_redirect_to_metadata_address_is_refused(allow, place: str) -> None:
    with raw_peer(send_chunks(f"HTTP/1.1 307 Away\r\nLocation: {place}\r\nContent-Length: 0\r\n\r\n".encode())) as port:
        allow(f"127.0.0.1:{port}")
        with pytest.raises(FetchError, match="private") as refused:
            get(port)
        assert refused.value.final


def test_each_redirect_is_checked(allow) -> None:
    received = []
    with raw_peer(received.append) as inside:
        last = f"HTTP/1.1 308 On\r\nLocation: http://localhost:{inside}/\r\nContent-Length: 0\r\n\r\n".encode()
        with raw_peer(send_chunks(last)) as second:
            on = f"HTTP/1.1 303 On\r\nLocation: http://127.0.0.1:{second}/\r\nContent-Length: 0\r\n\r\n".encode()
            with raw_peer(send_chunks(on)) as first:
                allow(f"127.0.0.1:{first}", f"127.0.0.1:{second}")
                with pytest.raises(FetchError, match="private"):
                    get(first)
    assert not received[:-1]


def test_dns_rebinding_is_blocked(monkeypatch: pytest.MonkeyPatch, allow) -> None:
    """DNS rebinding: public at the check, loopback at the connection. The host is resolved only once."""
    real, asked, tried = socket.getaddrinfo, [], []

    def answers(host, port, *more, **options):
        if host == "rebind.example":
            asked.append(host)
            address = "93.184.215.14" if len(asked) == 1 else "127.0.0.1"
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))]
        return real(host, port, *more, **options)

    async def connect(_backend, host, *_rest, **_options):
        tried.append(host)
        raise httpcore.ConnectError("unreachable")

    monkeypatch.setattr(socket, "getaddrinfo", answers)
    monkeypatch.setattr(AsyncioBackend, "connect_tcp", connect)
    with pytest.raises(FetchError):
        download("http://rebind.example:8/", max_bytes=10, deadline_seconds=2)
    assert (asked, tried) == (["rebind.example"], ["93.184.215.14"])
    with pytest.raises(FetchError, match="private"):
        download("http://rebind.example:8/", max_bytes=10, deadline_seconds=2)
    assert len(tried) == 1


def test_slow_name_server_ends_at_the_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    go = threading.Event()

    def slow(*_more, **_options):
        go.wait(20)
        raise socket.gaierror

    monkeypatch.setattr(socket, "getaddrinfo", slow)
    monkeypatch.setattr(async_client, "SOCKET_TIMEOUT_SECONDS", 0.3)
    begin = time.monotonic()
    try:
        with pytest.raises(FetchError, match="cannot be resolved") as late:
            download("http://slow.example/", max_bytes=10, deadline_seconds=15)
        assert not late.value.final
        assert time.monotonic() - begin < 10
    finally:
        go.set()


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nonly a part",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n64\r\nonly a part",
        b"HTTP/1.1 200 OK\r\nContent-Len",
        b"",
        b"this is not HTTP\r\n\r\n",
    ],
    ids=["length", "chunked", "headers", "silence", "gibberish"],
)
def test_truncated_response_is_a_retryable_error(allow, answer: bytes) -> None:
    with raw_peer(send_chunks(answer)) as port:
        allow("127.0.0.1")
        with pytest.raises(FetchError) as cut:
            get(port)
        assert not cut.value.final


@pytest.mark.parametrize("part", ["headers", "body", "silence"])
def test_slow_server_ends_at_the_deadline(allow, part: str) -> None:
    start = b"HTTP/1.1 200 OK\r\n" if part == "headers" else b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n"
    chunks = [start, *[b"X-A: b\r\n" if part == "headers" else b"x"] * 40]
    talk = send_chunks(*([] if part == "silence" else chunks), pause=0.2)

    def drip(connection: socket.socket) -> None:
        with contextlib.suppress(OSError):
            talk(connection)
            if part == "silence":
                connection.recv(1)

    with raw_peer(drip) as port:
        allow("127.0.0.1")
        begin = time.monotonic()
        with pytest.raises(FetchError):
            get(port, deadline=0.4)
        assert time.monotonic() - begin < 6


def test_slow_webhook_receiver_ends_at_the_deadline(allow, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(async_post, "POST_DEADLINE_SECONDS", 0.4)

    def drip(connection: socket.socket) -> None:
        with contextlib.suppress(OSError):
            send_chunks(b"HTTP/1.1 200 OK\r\n", *[b"X-A: b\r\n"] * 40, pause=0.2)(connection)

    with raw_peer(drip) as port:
        allow("127.0.0.1")
        begin = time.monotonic()
        with pytest.raises(FetchError):
            post(f"http://127.0.0.1:{port}/", body=b"{}", headers={})
        assert time.monotonic() - begin < 6


ENDLESS_ANSWERS = {
    "headers": (b"HTTP/1.1 200 OK\r\n", b"X-A: " + b"b" * 8000 + b"\r\n"),
    "one header": (b"HTTP/1.1 200 OK\r\nX-A: ", b"b" * 8000),
    "interim responses": (b"", b"HTTP/1.1 103 Early Hints\r\nLink: </style.css>\r\n\r\n" * 100),
    "no response": (b"", b"nonsense " * 1000),
}


@pytest.mark.parametrize("kind", ENDLESS_ANSWERS)
def test_endless_answer_to_a_webhook_is_cut_off_after_some_bytes(allow, kind: str) -> None:
    sent = []

    def pour(connection: socket.socket) -> None:
        begin, more = ENDLESS_ANSWERS[kind]
        with contextlib.suppress(OSError):
            connection.sendall(begin)
            while len(sent) < 100_000:
                connection.sendall(more)
                sent.append(len(more))

    with raw_peer(pour) as port:
        allow("127.0.0.1")
        with pytest.raises(FetchError):
            post(f"http://127.0.0.1:{port}/", body=b"{}", headers={})
    # What the sockets of both sides hold is sent but not read.
    assert sum(sent) < 20_000_000


def test_body_of_the_answer_to_a_webhook_is_not_read(allow) -> None:
    sent = []

    def pour(connection: socket.socket) -> None:
        with contextlib.suppress(OSError):
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n")
            while len(sent) < 10_000:
                connection.sendall(b"x" * 100_000)
                sent.append(100_000)

    with raw_peer(pour) as port:
        allow("127.0.0.1")
        assert post(f"http://127.0.0.1:{port}/", body=b"{}", headers={}).status == 200
    assert sum(sent) < 20_000_000


def test_failed_download_leaves_no_open_file(allow) -> None:
    """ResourceWarnings are errors in tests: a failed download closes its temporary file."""
    with raw_peer(send_chunks(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf")) as port:
        allow("127.0.0.1")
        with pytest.raises(FetchError):
            get(port)
