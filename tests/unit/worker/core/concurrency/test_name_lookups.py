"""Look-ups of names on the event loop: deadlines, errors, and shares of the threads that a slow name server holds."""

import socket
import threading

import pytest

from tests.support.platform import eventually
from worker.core.concurrency import event_loop, name_lookups
from worker.core.concurrency.lanes import Lane, acting_for
from worker.core.concurrency.name_lookups import resolve_in_turn
from worker.core.security.ip_addresses import NOT_IN_TIME

ROW = (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("192.0.2.7", 80))


def resolve(host: str, seconds: float = 10) -> list[str]:
    return event_loop.run(resolve_in_turn(host, 80, seconds=seconds))


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch):
    """Names that begin with `slow` are not answered before the end of the test."""
    over = threading.Event()

    def answer(host: str, *_more: object, **_options: object) -> list[object]:
        if host.startswith("slow"):
            over.wait(20)
            raise socket.gaierror
        return [ROW, ROW]

    monkeypatch.setattr(socket, "getaddrinfo", answer)
    yield over
    over.set()


def test_distinct_addresses_are_returned(slow) -> None:
    assert resolve("quick.example") == ["192.0.2.7"]


def test_slow_name_server_ends_at_the_deadline(slow) -> None:
    with pytest.raises(OSError, match=NOT_IN_TIME):
        resolve("slow.example", seconds=0.2)


@pytest.mark.parametrize("error", [socket.gaierror(socket.EAI_NONAME, "unknown"), UnicodeError("label too long")])
def test_failed_look_up_raises_oserror(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def fail(*_more: object, **_options: object) -> None:
        raise error

    monkeypatch.setattr(socket, "getaddrinfo", fail)
    with pytest.raises(OSError, match=r"unknown|not a name"):
        resolve("name.example")


def test_one_owner_with_slow_names_leaves_threads_to_others(slow, monkeypatch: pytest.MonkeyPatch) -> None:
    lane = Lane(4)
    monkeypatch.setattr(name_lookups, "NAMES", lane)

    async def look_up() -> None:
        with acting_for("anna"):
            for n in range(20):
                # Given up, but the threads go on: their turns do not end before them.
                with pytest.raises(OSError, match=NOT_IN_TIME):
                    await resolve_in_turn(f"slow{n}.example", 80, seconds=0.01)
            with pytest.raises(OSError, match=NOT_IN_TIME):
                await resolve_in_turn("quick.example", 80, seconds=0.2)
        with acting_for("ben"):
            assert await resolve_in_turn("quick.example", 80, seconds=10) == ["192.0.2.7"]
        slow.set()

    event_loop.run(look_up())
    eventually(lambda: lane._free == 4, within=10, what="all turns have ended")
