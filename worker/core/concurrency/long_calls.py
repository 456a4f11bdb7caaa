"""Calls of this process that take minutes and are paid whether or not anyone waits: a stop waits for them longer.

A process that has to stop and has such calls says so with a file, which `dreamery up` reads before it kills it.
"""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from worker.core.concurrency.shutdown import busy_marker, stopping
from worker.core.settings import get_settings

_lock = threading.Lock()
_open = 0


@contextmanager
def counted() -> Iterator[None]:
    """Count the call of this block."""
    _add(1)
    try:
        if stopping.requested:
            announce()
        yield
    finally:
        _add(-1)


def _add(number: int) -> None:
    global _open  # noqa: PLW0603 - one number for the process
    with _lock:
        _open += number


def number_open() -> int:
    """Return how many of these calls are open."""
    return _open


def announce() -> None:
    """The process has to stop: if there are open calls, say so."""
    if number_open():
        file = busy_marker(get_settings().data_dir, os.getpid())
        with suppress(OSError):
            file.parent.mkdir(parents=True, exist_ok=True)
            file.touch()


def withdraw() -> None:
    """The calls have ended: the process may be killed."""
    with suppress(OSError):
        busy_marker(get_settings().data_dir, os.getpid()).unlink(missing_ok=True)
