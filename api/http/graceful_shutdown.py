"""Hear of the end in time: the server tells an application that it stops only when every answer is sent.

So that who waits here is answered at once and not cut off, the signal itself is heard, and passed on.
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
def hearing_stop(stop: Callable[[], None]) -> Iterator[None]:
    """Until the block ends, call `stop` in this event loop when the process is told to end; the server still hears it.

    Only the main thread can hear signals; elsewhere (an application inside another program) nothing is heard.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    loop = asyncio.get_running_loop()
    before: dict[signal.Signals, Any] = {number: signal.getsignal(number) for number in _SIGNALS}

    def heard(passed_on: Any, number: int, frame: FrameType | None) -> None:
        loop.call_soon_threadsafe(stop)
        if callable(passed_on):
            passed_on(number, frame)

    for number, handler in before.items():
        signal.signal(number, partial(heard, handler))
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
