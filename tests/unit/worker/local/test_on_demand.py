"""Servers that start at their first connection."""

import socket
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.platform import clean_env, eventually, free_port
from worker.local.on_demand import OnDemandServer, open_port_or_another
from worker.local.processes import Child, ChildSpec, ProcessSupervisor, StartError

# Answers each connection with its process id; ends after the word `crash`.
SERVER = """
import os, socket, sys
listening = socket.socket(fileno=int(sys.argv[1]))
while True:
    client, _ = listening.accept()
    word = client.recv(100)
    client.sendall(str(os.getpid()).encode())
    client.close()
    if word == b"crash":
        os._exit(3)
"""


def ask(port: int, word: bytes = b"hello") -> int:
    with socket.create_connection(("127.0.0.1", port), timeout=30) as client:
        client.sendall(word)
        return int(client.recv(100))


class Site:
    """A server on demand and the supervisor that starts it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.supervisor = ProcessSupervisor()
        self.server = OnDemandServer("127.0.0.1", free_port())
        self.children: list[Child] = []
        self.server.start_at_first_connection(self.start)

    def start(self) -> None:
        command = (sys.executable, "-c", SERVER, str(self.server.fd))
        spec = ChildSpec(
            name="server", command=command, env=clean_env(), cwd=self.folder, log_path=None, pass_fds=(self.server.fd,)
        )
        child = self.supervisor.start(spec)
        self.supervisor.restart_on_exit(child)
        self.children.append(child)


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    site = Site(tmp_path)
    yield site
    site.server.close()
    site.supervisor.stop(site.children, timeout=5)
    site.supervisor.close()


def test_first_connection_starts_the_server_and_is_answered(site: Site) -> None:
    assert site.children == []
    pid = ask(site.server.port)
    assert [child.pid for child in site.children] == [pid]
    assert ask(site.server.port) == pid


def test_connections_wait_while_a_crashed_server_restarts(site: Site) -> None:
    crashed = ask(site.server.port, b"crash")
    assert ask(site.server.port) != crashed
    [child] = site.children
    assert child.restarts == 1


def test_many_first_connections_start_one_server(site: Site) -> None:
    pids: list[int] = []
    threads = [threading.Thread(target=lambda: pids.append(ask(site.server.port))) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(pids) == 20
    assert len(set(pids)) == len(site.children) == 1


def test_server_that_nobody_uses_never_starts(site: Site) -> None:
    port = site.server.port
    site.server.close()
    site.server.close()
    assert site.children == []
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), timeout=5)


def test_taken_port_is_an_error_of_the_start(site: Site) -> None:
    with pytest.raises(StartError, match=f"Cannot listen on 127.0.0.1:{site.server.port}"):
        OnDemandServer("127.0.0.1", site.server.port)


def test_server_that_runs_is_stopped(site: Site) -> None:
    ask(site.server.port)
    [child] = site.children
    site.server.close()
    site.supervisor.stop(site.children, timeout=5)
    assert child.exit_code is not None
    eventually(lambda: child.exit_code == -15, what="it ended by the signal")


def test_taken_port_is_replaced_by_another() -> None:
    first = open_port_or_another("127.0.0.1", free_port())
    second = open_port_or_another("127.0.0.1", first.port)
    try:
        assert second.port != first.port
        for server in (first, second):
            socket.create_connection(("127.0.0.1", server.port), timeout=10).close()
    finally:
        first.close()
        second.close()
