"""While the database does not answer, one thread asks it and all callers fail at once."""

import threading
import time
from typing import Any, cast

import psycopg
import pytest

from tests.support.platform import eventually
from worker.db.connecting.connection import BoundedConnection
from worker.db.connecting.reachability import Reachability

_PROBE = "database-probe"


class _Connection:
    """A connection of which nobody asks anything."""

    closed = False

    def close(self) -> None:
        self.closed = True


class SilentServer:
    """Callers wait for it in vain; the thread that asks again waits until `answers` is set."""

    def __init__(self) -> None:
        self.asked_by_callers = 0
        self.answers = threading.Event()
        self.connection = _Connection()

    def open(self) -> BoundedConnection:
        if threading.current_thread().name == _PROBE:
            self.answers.wait(30)
        elif not self.answers.is_set():
            self.asked_by_callers += 1
            time.sleep(0.7)
            raise psycopg.OperationalError("connection timeout expired")
        return cast(BoundedConnection, self.connection)


def _probes() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if thread.name == _PROBE}


def test_one_thread_asks_a_silent_server_for_all_callers() -> None:
    state, server, before = Reachability(), SilentServer(), _probes()

    def connect() -> None:
        with pytest.raises(psycopg.OperationalError):
            state.connect(server.open)

    callers = [threading.Thread(target=connect) for _ in range(4)]
    [caller.start() for caller in callers]
    [caller.join(30) for caller in callers]
    try:
        assert state.is_silent
        assert state.seconds_away > 0
        assert len(_probes() - before) == 1
        asked = server.asked_by_callers
        connect()
        assert server.asked_by_callers == asked, "it fails without asking"
    finally:
        server.answers.set()
    eventually(lambda: not state.is_silent, what="the thread finds the server")
    assert state.seconds_away == 0
    assert server.connection.closed, "the connection of the thread serves nobody else"
    assert cast(Any, state.connect(server.open)) is server.connection
    eventually(lambda: not _probes() - before, what="the thread ends")


def test_server_that_refuses_at_once_is_asked_by_each_caller() -> None:
    state, before = Reachability(), _probes()

    def refuse() -> BoundedConnection:
        raise psycopg.OperationalError("the database system is starting up")

    for _ in range(2):
        with pytest.raises(psycopg.OperationalError, match="starting up"):
            state.connect(refuse)
    assert not state.is_silent
    assert state.seconds_away > 0
    assert _probes() == before
