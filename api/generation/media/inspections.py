"""Files of a request that a child process must read before it is known what they are.

Planning waits for the child on the event loop: no thread that other callers need is occupied meanwhile.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import IO, Any, Generic, TypeVar

from starlette.concurrency import run_in_threadpool

from worker.core.errors import DreameryError
from worker.core.media.image import InvalidImageError
from worker.core.media.isolation.client import DecodingUnavailableError, Work, run_async
from worker.core.media.video import InvalidMediaError

Value = TypeVar("Value")
Value_co = TypeVar("Value_co", covariant=True)

# A caller's own files wait for each other; so many that one waits longer are better sent again later.
_PATIENCE_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Inspection(Generic[Value_co]):
    """An input that a child must read, and what becomes of it. `finish` runs in a thread.

    `content` is closed if the input cannot be used.
    """

    param: str
    code: str
    content: IO[bytes]
    work: Work[Any]
    finish: Callable[[Any], Value_co]


async def inspect(inspection: Inspection[Value], owner: str) -> Value:
    """Return the inspected input. Raises the error of an unusable file, or `overloaded`."""
    param = inspection.param
    try:
        found = await run_async(inspection.work, owner=owner, patience_seconds=_PATIENCE_SECONDS)
        return await run_in_threadpool(inspection.finish, found)
    except BaseException as error:
        inspection.content.close()
        if isinstance(error, InvalidImageError | InvalidMediaError):
            raise unusable(param, inspection.code, error) from None
        if isinstance(error, DecodingUnavailableError):
            message = f"`{param}` could not be read now, because too many files wait. Try again later."
            raise DreameryError("overloaded", message, param=param) from None
        raise


def unusable(param: str, code: str, error: Exception) -> DreameryError:
    """Return the error of a file that cannot be used."""
    return DreameryError(code, f"`{param}` cannot be used: {error}.", param=param)
