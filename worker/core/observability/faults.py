"""Faults: unexpected exceptions of our own code or of a library, as an error of ours.

A fault names the type of the exception and the place in the code. The text of the exception is left out, because it may
hold a secret or a part of an upstream response.
"""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType

from worker.core.errors import DreameryError

# Begins the detail of a fault in notes of the timeline: what follows is our own text, which every caller may see.
FAULT_PREFIX = "internal_error: "
_OURS = ("worker/", "api/")
_MAX_FRAMES = 12
_MAX_NAME_CHARS = 60


class UnexpectedError(DreameryError):
    """An unexpected exception (`internal_error`). `sent` = a call that may cost credits had begun.

    Raises the exception again if it ends the process or this task.
    """

    def __init__(self, error: BaseException, *, sent: bool = False) -> None:
        if ends_work(error):
            raise error
        self.sent = sent
        self.frames = _frames(error.__traceback__)
        super().__init__("internal_error", detail=f"{FAULT_PREFIX}{_name(error)}{_place(self.frames)}")


def ends_work(error: BaseException) -> bool:
    """Whether the exception is no fault: it ends the process, or it cancels this task.

    Signals reach the main thread only. In other threads, SystemExit and KeyboardInterrupt come from a library.
    """
    if isinstance(error, asyncio.CancelledError):
        try:
            task = asyncio.current_task()
        except RuntimeError:
            return False
        return task is not None and task.cancelling() > 0
    if isinstance(error, GeneratorExit):
        return True
    in_main_thread = threading.current_thread() is threading.main_thread()
    return in_main_thread and isinstance(error, KeyboardInterrupt | SystemExit)


@contextmanager
def before_sending() -> Iterator[None]:
    """Mark the part of an upstream call before its first byte: an unexpected exception in it means nothing was sent."""
    try:
        yield
    except DreameryError:
        raise
    except BaseException as error:  # noqa: BLE001
        raise UnexpectedError(error) from None


def _name(error: BaseException) -> str:
    """Return the type of the exception, and of the error that it stands for: the database's own, or one in a thread."""
    name = type(error).__name__[:_MAX_NAME_CHARS]
    cause = getattr(error, "orig", None) or (error.__cause__ if type(error) is RuntimeError else None)
    text = f"{name} ({type(cause).__name__[:_MAX_NAME_CHARS]})" if isinstance(cause, BaseException) else name
    return text.encode("ascii", "replace").decode()


def _frames(trace: TracebackType | None) -> tuple[str, ...]:
    """Return the places in our code that the exception went through, the innermost first."""
    found = []
    while trace is not None:
        path = trace.tb_frame.f_code.co_filename.replace("\\", "/")
        start = max((path.rfind(f"/{folder}") for folder in _OURS), default=-1)
        if start >= 0 and "site-packages" not in path:
            found.append(f"{path[start + 1 :]}:{trace.tb_lineno}")
        trace = trace.tb_next
    return tuple(reversed(found))[:_MAX_FRAMES]


def _place(frames: tuple[str, ...]) -> str:
    return f" at {frames[0]}" if frames else ""
