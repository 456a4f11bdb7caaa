"""Check the callers of open requests again: a stream or a wait ends soon after its caller lost the right to it.

A request is authenticated once, at its start. Requests that stay open are checked by one query every few seconds, and
at once when a message says that keys, users or sessions changed.
"""

import asyncio
import contextlib
from dataclasses import dataclass
from functools import partial
from uuid import UUID

from starlette.concurrency import run_in_threadpool

from api.http.clients.interruption import Interruption
from worker.core.errors import DreameryError
from worker.core.observability.logging import get_logger
from worker.db.engine import DATABASE_ERRORS, transaction
from worker.db.users import console_sessions, permissions
from worker.db.users.permissions import KeyRights

log = get_logger("caller_checks")

INTERVAL_SECONDS = 3.0


@dataclass(frozen=True, slots=True)
class OpenCaller:
    """The caller of an open request: its key, the rights at the start, and the console session if it came with one."""

    api_key_id: UUID
    rights: KeyRights
    session_id: str = ""


class CallerChecks:
    """The callers of all open requests of this process. Call all methods in the event loop."""

    def __init__(self) -> None:
        self._open: dict[Interruption, OpenCaller] = {}
        self._changed = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Start to check."""
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """Stop to check."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def check_soon(self) -> None:
        """Check all open requests now, because permissions changed."""
        self._changed.set()

    def watch(self, interruption: Interruption, caller: OpenCaller) -> None:
        """Check this caller until its request ends."""
        self._open[interruption] = caller
        interruption.call_at_end(partial(self._open.pop, interruption, None))

    async def _run(self) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(INTERVAL_SECONDS):
                    await self._changed.wait()
            self._changed.clear()
            callers = dict(self._open)
            if not callers:
                continue
            try:
                rights, sessions = await run_in_threadpool(_read, list(callers.values()))
            except DATABASE_ERRORS as error:
                # Streams continue while the database is away, as their jobs do.
                log.warning("caller_checks_failed", reason=type(error).__name__)
                continue
            for interruption, caller in callers.items():
                if (problem := _problem(caller, rights, sessions)) is not None:
                    interruption.interrupt(problem)


def _read(callers: list[OpenCaller]) -> tuple[dict[UUID, KeyRights], set[str]]:
    with transaction() as tx:
        rights = permissions.current_rights(tx, list({caller.api_key_id for caller in callers}))
        session_ids = {caller.session_id for caller in callers if caller.session_id}
        return rights, console_sessions.open_sessions(tx, session_ids) if session_ids else set()


def _problem(caller: OpenCaller, rights: dict[UUID, KeyRights], sessions: set[str]) -> DreameryError | None:
    if caller.session_id and caller.session_id not in sessions:
        return DreameryError("invalid_api_key", "The console session has ended. Sign in again.")
    current = rights.get(caller.api_key_id)
    if current is None:
        message = "This API key is no longer valid: it was revoked, has expired, or its user was disabled."
        return DreameryError("invalid_api_key", message)
    if current != caller.rights:
        return DreameryError("forbidden", "The permissions of this API key have changed. Send the request again.")
    return None
