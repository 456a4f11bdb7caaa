"""Batches per key: what arrives while the previous batch of a key is in flight forms its next batch. No timer.

Each key has at most one batch in flight, so one caller uses at most one thread, and batches of different keys run side
by side. An item of a batch may be left to itself: it is done again alone, after the batch, so that one unusual item
never changes what happens to its neighbours.
"""

import asyncio
from collections.abc import Callable, Hashable
from contextvars import Context
from enum import Enum
from functools import partial
from typing import Generic, TypeVar

import anyio.to_thread

Key = TypeVar("Key", bound=Hashable)
Item = TypeVar("Item")
Outcome = TypeVar("Outcome")

_MAX_ITEMS = 200


class Left(Enum):
    """The outcome of an item that its batch did not handle."""

    ALONE = "alone"


ALONE = Left.ALONE


class KeyedBatches(Generic[Key, Item, Outcome]):
    """Handles items in batches, in threads. Use it on one event loop per key.

    `together` gets at least two items and returns one outcome for each, in order; `ALONE` leaves an item to `alone`.
    After an error all items are left to `alone`, unless `is_fatal` says that it would be the same for each, for example
    because the database is away: then all items fail with it. The same applies to an error of a single item.
    """

    def __init__(
        self,
        together: Callable[[list[Item]], "list[Outcome | Left]"],
        *,
        alone: Callable[[Item], Outcome],
        is_fatal: Callable[[Exception], bool],
        max_items: int = _MAX_ITEMS,
    ) -> None:
        self._together = together
        self._alone = alone
        self._is_fatal = is_fatal
        self._max_items = max_items
        self._waiting: dict[Key, list[tuple[Item, asyncio.Future[Outcome]]]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def add(self, key: Key, item: Item) -> Outcome:
        """Handle the item with the next batch of its key and return its outcome. Raises the item's error."""
        done: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        in_flight = key in self._waiting
        self._waiting.setdefault(key, []).append((item, done))
        if not in_flight:
            # In an empty context: the log lines of a batch do not belong to the request that started it.
            task = asyncio.get_running_loop().create_task(self._run(key), context=Context())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        return await done

    async def _run(self, key: Key) -> None:
        batch: list[tuple[Item, asyncio.Future[Outcome]]] = []
        try:
            while self._waiting[key]:
                batch = self._waiting[key][: self._max_items]
                del self._waiting[key][: self._max_items]
                await anyio.to_thread.run_sync(self._handle, batch, asyncio.get_running_loop())
                batch = []
        finally:
            # When the loop stops, no item waits for a batch that never runs.
            for _, done in [*batch, *self._waiting.pop(key)]:
                done.cancel()

    def _handle(self, batch: "list[tuple[Item, asyncio.Future[Outcome]]]", loop: asyncio.AbstractEventLoop) -> None:
        """Run in a thread. Outcomes are returned to the loop as they come, so no item waits for those after it."""
        left = batch
        if len(batch) > 1:
            try:
                outcomes = self._together([item for item, _ in batch])
            except Exception as error:  # noqa: BLE001 - each item meets its own error again, alone
                if self._is_fatal(error):
                    loop.call_soon_threadsafe(_fail_all, [done for _, done in batch], error)
                    return
                outcomes = [ALONE] * len(batch)
            finished = [
                (done, outcome) for (_, done), outcome in zip(batch, outcomes, strict=True) if outcome is not ALONE
            ]
            if finished:
                loop.call_soon_threadsafe(_finish_all, finished)
            left = [one for one, outcome in zip(batch, outcomes, strict=True) if outcome is ALONE]
        self._handle_alone(left, loop)

    def _handle_alone(
        self, left: "list[tuple[Item, asyncio.Future[Outcome]]]", loop: asyncio.AbstractEventLoop
    ) -> None:
        for number, (item, done) in enumerate(left):
            try:
                outcome = self._alone(item)
            except Exception as error:  # noqa: BLE001 - it belongs to the item
                if self._is_fatal(error):
                    loop.call_soon_threadsafe(_fail_all, [done for _, done in left[number:]], error)
                    return
                loop.call_soon_threadsafe(_fail_all, [done], error)
            else:
                loop.call_soon_threadsafe(partial(_finish_all, [(done, outcome)]))


def _finish_all(finished: "list[tuple[asyncio.Future[Outcome], Outcome]]") -> None:
    for done, outcome in finished:
        if not done.done():
            done.set_result(outcome)


def _fail_all(waiting: "list[asyncio.Future[Outcome]]", error: Exception) -> None:
    for done in waiting:
        if not done.done():
            done.set_exception(error)
