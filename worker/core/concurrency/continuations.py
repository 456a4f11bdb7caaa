"""Continues work in this process instead of sending a message to any worker.

A poll that finds results continues with their copies, a submit with the first look. In a worker that costs no message
and no wait for one. Elsewhere (API, tests, a worker that stops) nothing is registered, and the caller sends the
message. Nothing depends on a continuation: if the process dies, the rows are still due and the tick finds them.
"""

from collections.abc import Callable, Coroutine
from typing import Any

from worker.core.concurrency import event_loop
from worker.core.concurrency.shutdown import stopping

_Handler = Callable[..., Coroutine[Any, Any, object]]
_handlers: dict[str, _Handler] = {}
# More continuations at a time are left to messages, so that other workers take their share.
_MAX_RUNNING = 64
_running = 0


def register(**handlers: _Handler) -> None:
    """Handle these kinds of work in this process from now on."""
    _handlers.update(handlers)


def clear() -> None:
    """Handle nothing any more."""
    _handlers.clear()


def handles(name: str) -> bool:
    """Whether this process handles the work and is not stopping."""
    return name in _handlers and not stopping.requested


def start(name: str, *args: Any, seconds: float = 0.0, promised: bool = False) -> bool:
    """Start the work after `seconds`, if this process handles it. False: the caller sends a message.

    `promised` = the caller has asked `handles` and has claimed the work for this process. Thread-safe.
    """
    handler = _handlers.get(name)
    if handler is None or (not promised and (stopping.requested or _running >= _MAX_RUNNING)):
        return False
    event_loop.start_later(_run, handler, args, seconds=seconds)
    return True


async def _run(handler: _Handler, args: tuple[Any, ...]) -> None:
    global _running  # noqa: PLW0603 - on the event loop only
    _running += 1
    try:
        await handler(*args)
    finally:
        _running -= 1
