"""Real forwarding proxies on loopback: HTTP (forward and CONNECT) and SOCKS5, each with a name and a password."""

import base64
import contextlib
import select
import socket
import socketserver
import struct
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field

USER, PASSWORD = "pr0xyuser", "pr0xypassw0rd"


@dataclass
class Proxy:
    """A running proxy: its URL and the targets that its clients requested."""

    kind: str
    port: int
    targets: list[str] = field(default_factory=list)
    ports: set[int] = field(default_factory=set)  # source ports of its outgoing connections
    refused: int = 0
    closed: bool = False

    @property
    def url(self) -> str:
        return f"{self.kind}://{USER}:{PASSWORD}@127.0.0.1:{self.port}"


class _Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True
    block_on_close = False
    proxy: Proxy


class _Http(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        proxy: Proxy = self.server.proxy
        with contextlib.suppress(OSError):
            head = _read_until(self.request, b"\r\n\r\n")
            if not head:
                return
            credentials = base64.b64encode(f"{USER}:{PASSWORD}".encode())
            if proxy.closed or credentials not in head:
                proxy.refused += 1
                self.request.sendall(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")
                return
            method, target, _ = head.split(b" ", 2)
            authority = target if method == b"CONNECT" else target.split(b"/", 3)[2]
            host, _, port = authority.decode().partition(":")
            proxy.targets.append(authority.decode())
            with socket.create_connection((host, int(port or 80)), 5) as upstream:
                proxy.ports.add(upstream.getsockname()[1])
                if method == b"CONNECT":
                    self.request.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
                else:
                    path = b"/" + target.split(b"/", 3)[3]
                    lines = head.split(b"\r\n")
                    headers = [line for line in lines[1:] if not line.lower().startswith((b"proxy-", b"connection:"))]
                    # One request per connection: the next one may have another target.
                    first = b"%s %s HTTP/1.1\r\nConnection: close" % (method, path)
                    upstream.sendall(b"\r\n".join([first, *headers]))
                _relay(self.request, upstream)


class _Socks(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        proxy: Proxy = self.server.proxy
        with contextlib.suppress(OSError):
            _version, methods = _read_exactly(self.request, 2)
            _read_exactly(self.request, methods)
            self.request.sendall(b"\x05\x02")
            _, length = _read_exactly(self.request, 2)
            name = _read_exactly(self.request, length)
            password = _read_exactly(self.request, _read_exactly(self.request, 1)[0])
            if proxy.closed or (name, password) != (USER.encode(), PASSWORD.encode()):
                proxy.refused += 1
                self.request.sendall(b"\x01\x01")
                return
            self.request.sendall(b"\x01\x00")
            _, _, _, kind = _read_exactly(self.request, 4)
            if kind == 1:
                host = socket.inet_ntoa(_read_exactly(self.request, 4))
            else:
                host = _read_exactly(self.request, _read_exactly(self.request, 1)[0]).decode()
            (port,) = struct.unpack(">H", _read_exactly(self.request, 2))
            proxy.targets.append(f"{host}:{port}")
            with socket.create_connection((host, port), 5) as upstream:
                proxy.ports.add(upstream.getsockname()[1])
                self.request.sendall(b"\x05\x00\x00\x01\x00\x00\x00\x00\x00\x00")
                _relay(self.request, upstream)


def _read_until(connection: socket.socket, end: bytes) -> bytes:
    read = b""
    while end not in read:
        piece = connection.recv(65536)
        if not piece:
            return b""
        read += piece
    return read


def _read_exactly(connection: socket.socket, number: int) -> bytes:
    read = b""
    while len(read) < number:
        piece = connection.recv(number - len(read))
        if not piece:
            raise OSError("connection closed")
        read += piece
    return read


def _relay(first: socket.socket, second: socket.socket) -> None:
    while True:
        for ready in select.select([first, second], [], [], 30)[0]:
            piece = ready.recv(65536)
            if not piece:
                return
            (second if ready is first else first).sendall(piece)


@contextlib.contextmanager
def running_proxy(kind: str) -> Iterator[Proxy]:
    """Run a proxy of that kind (`http` or `socks5`) until the block ends."""
    with _Server(("127.0.0.1", 0), _Socks if kind == "socks5" else _Http) as server:
        server.proxy = Proxy(kind=kind, port=server.server_address[1])
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        try:
            yield server.proxy
        finally:
            server.shutdown()
            thread.join(10)
