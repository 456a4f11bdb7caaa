"""Look-ups of untrusted host names on the event loop, in turns: a slow name server holds the threads of one owner."""

import asyncio
from concurrent.futures import Future
from functools import partial
from typing import Any

from worker.core.concurrency.lanes import NAMES, Party
from worker.core.security.ip_addresses import NOT_IN_TIME, addresses_of, start_lookup


async def resolve_in_turn(host: str, port: int, *, seconds: float) -> list[str]:
    """Return the distinct addresses of a name. Raises OSError on failure or timeout; waiting for a turn counts."""
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(seconds):
            party = await NAMES.take()
            lookup = start_lookup(host, port)
            # The turn ends with the thread, which nobody can stop, not with the time.
            lookup.add_done_callback(partial(_end_turn, loop, party))
            answer = asyncio.wrap_future(lookup)
            answer.add_done_callback(_note_error)
            return addresses_of(await asyncio.shield(answer))
    except TimeoutError:
        raise OSError(NOT_IN_TIME) from None
    except UnicodeError as error:
        raise OSError("not a name") from error


def _note_error(answer: "asyncio.Future[Any]") -> None:
    """Retrieve the error of a look-up that nobody waits for any more; asyncio would log it."""
    if not answer.cancelled():
        answer.exception()


def _end_turn(loop: asyncio.AbstractEventLoop, party: Party, _lookup: "Future[object]") -> None:
    if not loop.is_closed():
        loop.call_soon_threadsafe(NAMES.give_back, party)
