"""Calls of this process that take minutes and are paid whether or not anyone waits: a stop waits for them longer."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

# Longer than nearly all of these calls take.
PATIENCE_SECONDS = 180.0

_lock = threading.Lock()
_open = 0


@contextmanager
def counted() -> Iterator[None]:
    """Count the call of this block."""
    _add(1)
    try:
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
