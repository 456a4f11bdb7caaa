"""Waits for the turn of a list: an upstream that allows few lists counts them for all keys of a customer."""

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial

from worker.core.concurrency.event_loop import in_thread
from worker.core.errors import DreameryError
from worker.db.accounts import list_pace
from worker.db.accounts.accounts import AccountRow
from worker.db.engine import retry_when_database_unavailable, transaction
from worker.providers.registry import get_provider


def turn_of(row: AccountRow) -> Callable[[], Awaitable[None]] | None:
    """Return what waits for the next list of the account's customer; None = its upstream has no such limit."""
    pause = get_provider(row).capabilities.polling.list_seconds
    return partial(_wait, f"group {row.limit_group}" if row.limit_group else row.id.hex, pause) if pause else None


async def _wait(name: str, pause: float) -> None:
    """Wait for the turn. Raises `rate_limit_exceeded` if that would take too long."""
    seconds = await in_thread(_take_turn, name, pause)
    if seconds is None:
        raise DreameryError("rate_limit_exceeded", detail="too many lists wait for their turn")
    if seconds:
        await asyncio.sleep(seconds)


@retry_when_database_unavailable
def _take_turn(name: str, pause: float) -> float | None:
    with transaction() as tx:
        return list_pace.take_turn(tx, name, pause=pause)
