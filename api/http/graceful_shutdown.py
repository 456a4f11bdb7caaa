"""React to SIGTERM at once. The server informs the application only after every response was sent.

Waiting requests must be answered before that, so the signal itself is handled here and then passed on.
"""

import asyncio
import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from functools import partial
from types import FrameType
from typing import Any

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


@contextlib.contextmanager
def on_shutdown_signal(stop: Callable[[], None]) -> Iterator[None]:
    """Within the block, call `stop` in this event loop on SIGTERM or SIGINT; the previous handlers still run.

    Only the main thread can handle signals; in another thread (an embedded application) this does nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    loop = asyncio.get_running_loop()
    before: dict[signal.Signals, Any] = {number: signal.getsignal(number) for number in _SIGNALS}

    def handle(previous: Any, number: int, frame: FrameType | None) -> None:
        loop.call_soon_threadsafe(stop)
        if callable(previous):
            previous(number, frame)

    for number, handler in before.items():
        signal.signal(number, partial(handle, handler))
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
