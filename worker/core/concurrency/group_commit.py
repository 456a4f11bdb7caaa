"""Group commit: what arrives while the previous batch is written forms the next batch. No timer, no added delay.

A batch that fails because of one item is written again item by item, so one item never fails its neighbours. The
function must therefore be repeatable: every write in it is guarded by the state of its row.
"""

import asyncio
from collections.abc import Callable
from typing import Generic, TypeVar

from worker.core.concurrency.event_loop import in_thread, keep
from worker.core.observability.faults import ends_work
from worker.core.observability.logging import get_logger

log = get_logger("group_commit")

Item = TypeVar("Item")
Outcome = TypeVar("Outcome")

_MAX_ITEMS = 200


class GroupCommit(Generic[Item, Outcome]):
    """Writes items in batches, at most one batch at a time. Use it on the event loop only.

    `write` gets a list of items and returns one outcome for each, in order. It runs in a thread for the database.
    `away` = errors that fail the whole batch, because the database is away. After any other error its items are
    written one by one, and each gets its own error.
    """

    def __init__(
        self, name: str, write: Callable[[list[Item]], list[Outcome]], *, away: tuple[type[Exception], ...]
    ) -> None:
        self._name = name
        self._write = write
        self._away = away
        self._waiting: list[tuple[Item, asyncio.Future[Outcome]]] = []
        self._running = False

    async def add(self, item: Item) -> Outcome:
        """Write the item with the next batch and return its outcome. Raises what `write` raises."""
        done: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        self._waiting.append((item, done))
        if not self._running:
            self._running = True
            keep(self._drain())
        return await done

    async def _drain(self) -> None:
        try:
            while self._waiting:
                batch, self._waiting = self._waiting[:_MAX_ITEMS], self._waiting[_MAX_ITEMS:]
                await self._write_batch(batch)
        finally:
            self._running = False

    async def _write_batch(self, batch: "list[tuple[Item, asyncio.Future[Outcome]]]") -> None:
        try:
            outcomes = await in_thread(self._write, [item for item, _ in batch])
            written = list(zip(batch, outcomes, strict=True))
        except self._away as error:
            _fail(batch, error)
        except BaseException as error:  # noqa: BLE001 - a batch that is dropped would leave its callers waiting
            if len(batch) == 1 or ends_work(error):
                _fail(batch, error)
                return
            log.warning("batch_split", batch=self._name, items=len(batch), reason=type(error).__name__)
            for one in batch:
                await self._write_batch([one])
        else:
            for (_, done), outcome in written:
                if not done.done():
                    done.set_result(outcome)


def _fail(batch: "list[tuple[Item, asyncio.Future[Outcome]]]", error: BaseException) -> None:
    for _, done in batch:
        if not done.done():
            done.set_exception(error)
