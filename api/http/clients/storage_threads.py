"""Threads in which requests wait for the storage, which may be slow.

The other threads, which authenticate and read the database, are few and never wait for it: while a bucket does not
answer, everything that needs no file continues.
"""

from collections.abc import Callable
from functools import partial
from typing import ParamSpec, TypeVar

import anyio
import anyio.to_thread

Arguments = ParamSpec("Arguments")
Value = TypeVar("Value")
_THREADS = anyio.CapacityLimiter(16)


async def in_storage_thread(
    function: Callable[Arguments, Value], *args: Arguments.args, **kwargs: Arguments.kwargs
) -> Value:
    """Run a function that reads or writes files."""
    return await anyio.to_thread.run_sync(partial(function, *args, **kwargs), limiter=_THREADS)
