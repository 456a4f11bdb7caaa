"""The worker that answers account checks."""

import threading
from collections.abc import Callable, Iterator

import pytest

from tests.support.engine import Engine


@pytest.fixture
def worker(engine: Engine) -> Iterator[Callable[..., None]]:
    """Execute check tasks as they are enqueued; returns a function that stops the worker."""
    stop = threading.Event()

    def execute_checks() -> None:
        while not stop.wait(0.02):
            for message in engine.take_messages("dreamery.check"):
                message.execute()

    thread = threading.Thread(target=execute_checks)
    thread.start()
    yield stop.set
    stop.set()
    thread.join(20)
