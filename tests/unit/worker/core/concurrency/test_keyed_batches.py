"""Batches per key: what arrives during a batch forms the next one; unusual items are handled alone."""

import asyncio
import contextvars
import threading
from collections.abc import Awaitable, Callable

import pytest

from tests.support.platform import eventually
from worker.core.concurrency.keyed_batches import ALONE, KeyedBatches, Left


class AwayError(Exception):
    pass


class Recorder:
    """Doubles numbers, in batches, and records how it was called."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.alone: list[int] = []
        self.held = threading.Event()
        self.held.set()
        self.error: Exception | None = None
        self.made: KeyedBatches[str, int, int] = KeyedBatches(
            self._together, alone=self._alone, is_fatal=lambda error: isinstance(error, AwayError), max_items=10
        )

    def _together(self, items: list[int]) -> list[int | Left]:
        self.batches.append(items)
        self.held.wait(10)
        if self.error is not None:
            raise self.error
        return [ALONE if item < 0 else 2 * item for item in items]

    def _alone(self, item: int) -> int:
        self.alone.append(item)
        self.held.wait(10)
        if item == -404:
            raise LookupError
        if item == -503:
            raise AwayError
        return 2 * item


def run(work: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(asyncio.wait_for(_as_coroutine(work), 20))


async def _as_coroutine(work: Callable[[], Awaitable[None]]) -> None:
    await work()


def test_items_that_arrive_together_are_one_batch() -> None:
    recorder = Recorder()

    async def work() -> None:
        assert await asyncio.gather(*(recorder.made.add("k", n) for n in range(5))) == [0, 2, 4, 6, 8]

    run(work)
    assert (recorder.batches, recorder.alone) == ([[0, 1, 2, 3, 4]], [])


def test_items_that_arrive_during_a_batch_form_the_next_ones() -> None:
    recorder = Recorder()

    async def work() -> None:
        recorder.held.clear()
        first = asyncio.create_task(recorder.made.add("k", 100))
        await asyncio.to_thread(eventually, lambda: recorder.alone)
        rest = [asyncio.create_task(recorder.made.add("k", n)) for n in range(13)]
        await asyncio.sleep(0.05)
        assert recorder.batches == []
        recorder.held.set()
        assert await first == 200
        assert await asyncio.gather(*rest) == [2 * n for n in range(13)]

    run(work)
    assert recorder.batches == [list(range(10)), [10, 11, 12]], "at most ten items each"


def test_keys_run_side_by_side() -> None:
    recorder = Recorder()

    async def work() -> None:
        recorder.held.clear()
        waiting = [asyncio.create_task(recorder.made.add(key, n)) for n in range(2) for key in ("a", "b")]
        await asyncio.to_thread(eventually, lambda: len(recorder.batches) == 2)
        recorder.held.set()
        await asyncio.gather(*waiting)

    run(work)
    assert recorder.batches == [[0, 1], [0, 1]]


def test_item_left_by_the_batch_is_handled_alone() -> None:
    recorder = Recorder()

    async def work() -> None:
        outcomes = await asyncio.gather(*(recorder.made.add("k", n) for n in (1, -404, -3, 2)), return_exceptions=True)
        assert [outcomes[0], outcomes[2], outcomes[3]] == [2, -6, 4]
        assert isinstance(outcomes[1], LookupError)

    run(work)
    assert recorder.alone == [-404, -3]


def test_failed_batch_is_handled_one_by_one() -> None:
    recorder = Recorder()
    recorder.error = ValueError("one of them")

    async def work() -> None:
        assert await asyncio.gather(*(recorder.made.add("k", n) for n in range(3))) == [0, 2, 4]

    run(work)
    assert recorder.alone == [0, 1, 2]


def test_fatal_error_fails_the_whole_batch() -> None:
    recorder = Recorder()
    recorder.error = AwayError()

    async def work() -> None:
        outcomes = await asyncio.gather(*(recorder.made.add("k", n) for n in range(3)), return_exceptions=True)
        assert [type(one) for one in outcomes] == [AwayError] * 3

    run(work)
    assert recorder.alone == []


def test_fatal_error_of_a_single_item_fails_those_after_it() -> None:
    recorder = Recorder()

    async def work() -> None:
        numbers = (1, -2, -503, -4, 5)
        outcomes = await asyncio.gather(*(recorder.made.add("k", n) for n in numbers), return_exceptions=True)
        assert [one if isinstance(one, int) else type(one) for one in outcomes] == [2, -4, AwayError, AwayError, 10]

    run(work)
    assert recorder.alone == [-2, -503]


def test_cancelled_waiter_does_not_disturb_the_others() -> None:
    recorder = Recorder()

    async def work() -> None:
        waiting = [asyncio.create_task(recorder.made.add("k", n)) for n in range(3)]
        await asyncio.sleep(0)
        waiting[1].cancel()
        outcomes = await asyncio.gather(*waiting, return_exceptions=True)
        assert (outcomes[0], outcomes[2]) == (0, 4)
        assert isinstance(outcomes[1], asyncio.CancelledError)
        assert await recorder.made.add("k", 7) == 14

    run(work)


def test_batches_end_with_their_loop() -> None:
    """A loop that stops during a batch leaves nothing behind that a new loop would wait for."""
    recorder = Recorder()

    async def work() -> None:
        recorder.held.clear()
        waiting = asyncio.create_task(recorder.made.add("k", 1))
        await asyncio.to_thread(eventually, lambda: recorder.alone)
        threading.Timer(0.1, recorder.held.set).start()
        waiting.cancel()

    run(work)

    async def again() -> None:
        assert await recorder.made.add("k", 2) == 4

    run(again)


@pytest.mark.parametrize("count", [1, 2])
def test_context_of_a_waiter_does_not_leak_into_the_batch(count: int) -> None:
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="none")
    seen: list[str] = []

    def together(items: list[int]) -> list[int | Left]:
        seen.append(variable.get())
        return list(items)

    def alone(item: int) -> int:
        seen.append(variable.get())
        return item

    async def work() -> None:
        variable.set("a request")
        made: KeyedBatches[str, int, int] = KeyedBatches(together, alone=alone, is_fatal=lambda _: False)
        await asyncio.gather(*(made.add("k", n) for n in range(count)))

    run(work)
    assert seen == ["none"]
