"""End one request from outside: its waits are cancelled, and its client gets an error or the end of its stream."""

from collections.abc import Callable
from types import TracebackType
from typing import Self

import anyio

from worker.core.errors import DreameryError


class Interruption:
    """The handle of one request. Use it as a context manager around the application, in the event loop.

    `may_interrupt` tells whether the request waits or streams now. Others end by themselves and are left alone, such as
    the request that revokes its own key.
    """

    def __init__(self, may_interrupt: Callable[[], bool]) -> None:
        self.error: DreameryError | None = None
        self._may_interrupt = may_interrupt
        self._scope = anyio.CancelScope()
        self._on_end: Callable[[], object] = lambda: None

    def __enter__(self) -> Self:
        self._scope.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        self._on_end()
        return self._scope.__exit__(kind, error, trace)

    def call_at_end(self, callback: Callable[[], object]) -> None:
        """Call `callback` when the request ends; it replaces an earlier one."""
        self._on_end = callback

    def interrupt(self, error: DreameryError) -> None:
        """End the request with `error`, if it waits or streams."""
        if self.error is None and self._may_interrupt():
            self.error = error
            self._scope.cancel()
