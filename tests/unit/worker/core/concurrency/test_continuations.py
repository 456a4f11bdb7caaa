"""Continuations: only registered work starts in this process, later if asked, and not in a process that stops."""

import threading
import time
from collections.abc import Iterator

import pytest

from worker.core.concurrency import continuations, event_loop
from worker.core.concurrency.shutdown import stopping


@pytest.fixture(autouse=True)
def _clean() -> Iterator[None]:
    yield
    continuations.clear()
    stopping.reset()


class Handler:
    def __init__(self) -> None:
        self.calls: list[tuple[str, float]] = []
        self.done = threading.Event()

    async def __call__(self, name: str) -> None:
        self.calls.append((name, time.monotonic()))
        self.done.set()
        if name == "bad":
            raise LookupError(name)


def test_work_that_nobody_registered_is_left_to_a_message():
    assert not continuations.start("save", "a")


def test_registered_work_starts_here():
    handler = Handler()
    continuations.register(save=handler)
    assert continuations.start("save", "a")
    assert handler.done.wait(10)
    assert [name for name, _ in handler.calls] == ["a"]
    assert not continuations.start("poll", "a")


def test_delayed_work_starts_at_its_time():
    handler, before = Handler(), time.monotonic()
    continuations.register(poll=handler)
    assert continuations.start("poll", "a", seconds=0.05)
    assert handler.done.wait(10)
    assert handler.calls[0][1] - before >= 0.05


def test_stopping_process_starts_nothing():
    continuations.register(save=Handler())
    stopping.request()
    assert not continuations.start("save", "a")


def test_failed_work_is_logged_and_frees_its_place():
    handler = Handler()
    continuations.register(save=handler)
    for _ in range(100):
        handler.done.clear()
        assert continuations.start("save", "bad")
        assert handler.done.wait(10)
    assert event_loop.drain(10)
    assert continuations._running == 0
