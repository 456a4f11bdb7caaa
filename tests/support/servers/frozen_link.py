"""A TCP link to a server that can freeze: its connections stay open and carry nothing, as when packets are dropped."""

import contextlib
import selectors
import socket
import threading
from collections.abc import Iterator

_CHUNK = 65536


class FrozenLink:
    """Forwards connections to a port on loopback, until `freeze`. New connections are accepted and carry nothing then.

    `thaw` forwards new connections again; those of before never get an answer, as when the peer forgot them.
    `accepted` counts connections, `messages` what clients sent.
    """

    def __init__(self, port: int, address: str = "127.0.0.1") -> None:
        self.accepted = self.messages = 0
        self._target = port
        self._listener = socket.create_server((address, 0), backlog=128)
        self._wake, self._waker = socket.socketpair()
        self._peers: dict[socket.socket, socket.socket] = {}
        self._clients: set[socket.socket] = set()
        self._lost: list[socket.socket] = []
        self._lock = threading.Lock()
        self._frozen = self._closed = False
        self._thread = threading.Thread(target=self._forward, name="frozen-link", daemon=True)
        self._thread.start()

    @property
    def port(self) -> int:
        """The port that clients connect to."""
        return int(self._listener.getsockname()[1])

    def freeze(self) -> None:
        """Carry nothing any more, without a word to either side."""
        with self._lock:
            self._frozen = True
        self._waker.send(b".")

    def thaw(self) -> None:
        """Carry new connections again."""
        with self._lock:
            self._frozen = False
            self._lost += self._peers
            for peer in set(self._peers.values()) - set(self._lost):
                peer.close()
            self._peers.clear()
        self._waker.send(b".")

    def close(self) -> None:
        """Close everything."""
        self._closed = True
        self._waker.send(b".")
        self._thread.join(10)
        for one in (self._listener, self._wake, self._waker, *self._peers, *self._lost):
            one.close()

    def _forward(self) -> None:
        while not self._closed:
            with selectors.DefaultSelector() as ready:
                ready.register(self._wake, selectors.EVENT_READ)
                ready.register(self._listener, selectors.EVENT_READ)
                with self._lock:
                    frozen = self._frozen
                    for one in () if frozen else tuple(self._peers):
                        ready.register(one, selectors.EVENT_READ)
                for key, _ in ready.select():
                    self._handle(key.fileobj)

    def _handle(self, source: object) -> None:
        if source is self._wake:
            self._wake.recv(_CHUNK)
        elif source is self._listener:
            self._accept()
        elif isinstance(source, socket.socket):
            with self._lock:
                peer = None if self._frozen else self._peers.get(source)
            if peer is not None:
                self._carry(source, peer)

    def _accept(self) -> None:
        client, _ = self._listener.accept()
        with self._lock:
            frozen = self._frozen  # as it is now: a connection after `thaw` may arrive in the round of before
        self.accepted += 1
        self._clients.add(client)
        if frozen:
            self._lost.append(client)
            return
        try:
            server = socket.create_connection(("127.0.0.1", self._target), 5)
        except OSError:
            client.close()
            return
        with self._lock:
            self._peers |= {client: server, server: client}

    def _carry(self, source: socket.socket, peer: socket.socket) -> None:
        try:
            data = source.recv(_CHUNK)
            self.messages += source in self._clients
            if data:
                peer.sendall(data)
        except OSError:
            data = b""
        if not data:
            with self._lock:
                self._peers.pop(source, None)
                self._peers.pop(peer, None)
            source.close()
            peer.close()


@contextlib.contextmanager
def frozen_link(port: int, address: str = "127.0.0.1") -> Iterator[FrozenLink]:
    """A link from this address to a port of this machine, until the block ends."""
    link = FrozenLink(port, address)
    try:
        yield link
    finally:
        link.close()
