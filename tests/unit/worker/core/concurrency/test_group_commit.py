"""Group commit: one batch at a time, the next one from what arrived meanwhile, and one item never fails the others."""

import asyncio
import threading

import pytest

from worker.core.concurrency import event_loop
from worker.core.concurrency.group_commit import GroupCommit


class RefusedError(Exception):
    pass


class AwayError(Exception):
    pass


class Writer:
    """Records the batches; the first one waits until it is released."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.started, self.release = threading.Event(), threading.Event()

    def __call__(self, items: list[int]) -> list[str]:
        self.batches.append(items)
        if len(self.batches) == 1:
            self.started.set()
            self.release.wait(10)
        if -1 in items:
            raise RefusedError
        if -2 in items:
            raise AwayError
        return [f"wrote {item}" for item in items]


async def add_all(group: GroupCommit[int, str], writer: Writer, items: list[int]):
    tasks = [asyncio.ensure_future(group.add(items[0]))]
    await asyncio.to_thread(writer.started.wait, 10)
    tasks += [asyncio.ensure_future(group.add(item)) for item in items[1:]]
    await asyncio.sleep(0)
    writer.release.set()
    return await asyncio.gather(*tasks, return_exceptions=True)


def test_items_that_arrive_meanwhile_form_one_batch():
    writer = Writer()
    group: GroupCommit[int, str] = GroupCommit("test", writer, away=(AwayError,))
    outcomes = event_loop.run(add_all(group, writer, [1, 2, 3, 4]))
    assert writer.batches == [[1], [2, 3, 4]]
    assert outcomes == ["wrote 1", "wrote 2", "wrote 3", "wrote 4"]


def test_refused_item_is_written_alone_and_fails_alone():
    writer = Writer()
    group: GroupCommit[int, str] = GroupCommit("test", writer, away=(AwayError,))
    first, second, bad, last = event_loop.run(add_all(group, writer, [1, 2, -1, 3]))
    assert (first, second, last) == ("wrote 1", "wrote 2", "wrote 3")
    assert isinstance(bad, RefusedError)
    assert writer.batches == [[1], [2, -1, 3], [2], [-1], [3]]


def test_other_errors_reach_every_caller_of_the_batch_and_only_them():
    writer = Writer()
    group: GroupCommit[int, str] = GroupCommit("test", writer, away=(AwayError,))
    first, *others = event_loop.run(add_all(group, writer, [1, 2, -2]))
    assert first == "wrote 1"
    assert [type(one) for one in others] == [AwayError, AwayError]
    assert event_loop.run(group.add(5)) == "wrote 5", "the next batch is written"


def test_caller_that_left_does_not_stop_the_batch():
    writer = Writer()
    group: GroupCommit[int, str] = GroupCommit("test", writer, away=(AwayError,))

    async def work():
        blocking = asyncio.ensure_future(group.add(1))
        await asyncio.to_thread(writer.started.wait, 10)
        leaving, staying = asyncio.ensure_future(group.add(2)), asyncio.ensure_future(group.add(3))
        await asyncio.sleep(0)
        leaving.cancel()
        await asyncio.sleep(0)
        writer.release.set()
        await blocking
        return await staying

    assert event_loop.run(work()) == "wrote 3"
    assert writer.batches == [[1], [2, 3]]


def test_large_arrivals_are_split():
    writer = Writer()
    group: GroupCommit[int, str] = GroupCommit("test", writer, away=(AwayError,))
    outcomes = event_loop.run(add_all(group, writer, list(range(1, 502))))
    assert outcomes == [f"wrote {item}" for item in range(1, 502)]
    assert max(map(len, writer.batches)) == 200
    assert len(writer.batches) == 4


@pytest.mark.parametrize("count", [1, 7])
def test_order_of_outcomes_is_the_order_of_items(count):
    group: GroupCommit[int, int] = GroupCommit("test", lambda items: [item * 2 for item in items], away=(AwayError,))

    async def work():
        return await asyncio.gather(*(group.add(item) for item in range(count)))

    assert event_loop.run(work()) == [item * 2 for item in range(count)]


class PanicError(BaseException):
    pass


@pytest.mark.parametrize("error", [AttributeError, MemoryError, RecursionError, StopIteration, PanicError, SystemExit])
def test_any_error_of_one_item_leaves_the_others_alone(error):
    def write(items):
        if -1 in items:
            raise error
        return items

    async def work():
        group = GroupCommit("test", write, away=(AwayError,))
        tasks = [asyncio.ensure_future(group.add(item)) for item in (1, -1, 2, 3)]
        return await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 20)

    first, bad, *others = event_loop.run(work())
    assert (first, others) == (1, [2, 3])
    assert isinstance(bad, RuntimeError if not issubclass(error, Exception) or error is StopIteration else error)


def test_wrong_number_of_outcomes_leaves_nobody_waiting():
    async def work():
        group = GroupCommit("test", lambda items: [*items, "one too many"], away=(AwayError,))
        tasks = [asyncio.ensure_future(group.add(item)) for item in (1, 2, 3)]
        return await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 20)

    assert [type(outcome) for outcome in event_loop.run(work())] == [ValueError] * 3
