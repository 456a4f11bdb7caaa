"""The event loop of a process: values, errors and log context cross it, and no work of a thread can end it."""

import asyncio
import gc
import threading

import pytest
import structlog

from worker.core.concurrency import event_loop
from worker.core.concurrency.lanes import acting_for


def test_value_and_error_reach_the_waiting_thread():
    async def work(fails):
        await asyncio.sleep(0)
        if fails:
            raise LookupError("nothing there")
        return 7

    assert event_loop.run(work(fails=False)) == 7
    with pytest.raises(LookupError, match="nothing there"):
        event_loop.run(work(fails=True))


def test_timeout_of_the_work_itself_is_not_taken_for_a_slow_answer():
    async def work():
        async with asyncio.timeout(0.01):
            await asyncio.sleep(5)

    with pytest.raises(TimeoutError):
        event_loop.run(work())


def test_impatient_thread_leaves_and_the_work_continues(monkeypatch):
    monkeypatch.setattr(event_loop, "PATIENCE_SECONDS", 0.01)
    may_end, ended = threading.Event(), threading.Event()

    async def work():
        await event_loop.in_transfer_thread(may_end.wait, 10)
        ended.set()
        return "done"

    assert event_loop.run_for(work(), otherwise="later") == "later"
    assert not ended.is_set()
    may_end.set()
    assert ended.wait(10)


def test_more_threads_than_the_limit_do_not_wait_at_all():
    may_end = threading.Event()

    async def work():
        await asyncio.get_running_loop().run_in_executor(None, may_end.wait, 10)
        return "done"

    lines: list[str] = []
    patient = event_loop._MAX_PATIENT_THREADS
    threads = [
        threading.Thread(target=lambda: lines.append(event_loop.run_for(work(), otherwise="later")))
        for _ in range(patient)
    ]
    for thread in threads:
        thread.start()
    while event_loop._patient_threads._value:  # all of them wait
        pass
    assert event_loop.run_for(work(), otherwise="later") == "later"
    may_end.set()
    for thread in threads:
        thread.join()
    assert lines == ["done"] * patient


def test_log_context_follows_the_work_into_threads():
    def read():
        return structlog.contextvars.get_contextvars().get("job_id")

    async def work():
        return await event_loop.in_thread(read), read()

    with structlog.contextvars.bound_contextvars(job_id="job_1"):
        assert event_loop.run(work()) == ("job_1", "job_1")


def test_exit_in_a_thread_does_not_end_the_loop():
    def leave():
        raise SystemExit(3)

    with pytest.raises(RuntimeError, match="SystemExit in a thread"):
        event_loop.run(event_loop.in_thread(leave))

    async def work():
        return "alive"

    assert event_loop.run(work()) == "alive"


def test_pools_are_separate_lanes():
    """Transfers that hang take no thread of the database."""
    release = threading.Event()
    taken = [event_loop.start(event_loop.in_transfer_thread(release.wait, 10)) for _ in range(40)]
    assert event_loop.run(event_loop.in_thread(lambda: "free")) == "free"
    release.set()
    assert all(one.result(10) for one in taken)


def test_interruptions_of_background_work_are_one_line(monkeypatch):
    lines: list[tuple[str, str]] = []
    monkeypatch.setattr(event_loop.log, "warning", lambda event, **fields: lines.append((event, fields["reason"])))
    monkeypatch.setattr(event_loop.log, "error", lambda event, **_: lines.append((event, "")))
    monkeypatch.setattr(event_loop, "_temporary", ())
    event_loop.expect(ConnectionError)

    async def fail(error):
        raise error

    for error in (ConnectionResetError(), LookupError()):
        event_loop.start_later(fail, error)
    assert event_loop.run(asyncio.sleep(0.05, "waited")) == "waited"
    assert lines == [("background_work_put_off", "ConnectionResetError"), ("background_work_failed", "")]


def test_iterated_items_and_the_error_after_them_reach_the_thread():
    async def items():
        for n in range(3):
            await asyncio.sleep(0)
            yield n
        raise LookupError("no more")

    got = []
    with pytest.raises(LookupError, match="no more"):
        got.extend(event_loop.iterate(items()))
    assert got == [0, 1, 2]
    received = event_loop.iterate(items())
    assert [next(received), next(received)] == [0, 1]
    received.close()


def test_a_closed_iteration_ends_its_generator_on_the_loop():
    ended = threading.Event()

    async def items():
        try:
            yield 1
            await asyncio.sleep(60)
        finally:
            ended.set()

    received = event_loop.iterate(items())
    assert next(received) == 1
    received.close()
    assert ended.is_set()


def test_threads_for_files_are_shared_by_owner():
    """One owner whose files take long leaves threads to the others."""
    release, done = threading.Event(), threading.Event()
    try:
        with acting_for("anna"):
            slow = [event_loop.start(event_loop.in_files_thread(release.wait, 10)) for _ in range(40)]
        with acting_for("ben"):
            event_loop.start(event_loop.in_files_thread(done.set)).result(10)
        assert done.is_set()
        assert not any(one.done() for one in slow)
    finally:
        release.set()
    assert all(one.result(10) for one in slow)


@pytest.mark.parametrize("error", [StopIteration, asyncio.CancelledError, SystemExit, BaseException])
def test_thread_that_raises_what_is_no_exception_does_not_hang_its_waiter(error):
    def work():
        raise error("x")

    with pytest.raises(RuntimeError, match=error.__name__):
        event_loop.run(event_loop.in_thread(work))


def test_loop_survives_an_exit_on_it():
    async def leave():
        raise SystemExit(3)

    with pytest.raises(SystemExit):
        event_loop.run(leave())

    async def work():
        await asyncio.sleep(0.01)
        return await event_loop.in_thread(lambda: 5)

    assert event_loop.run(work()) == 5


@pytest.fixture
def reports():
    """What the event loop reported on its own: exceptions that nobody retrieved."""
    loop, found = event_loop._process.get(), []
    loop.set_exception_handler(lambda _, context: found.append(context["message"]))
    yield found
    loop.set_exception_handler(None)


async def _abandoned_in_a_thread(error):
    """Give up a call in a thread, which fails afterwards."""
    begun, may_end = threading.Event(), threading.Event()

    def fail():
        begun.set()
        may_end.wait(10)
        raise error

    waiting = event_loop.spawn(event_loop.in_thread(fail))
    assert await event_loop.in_files_thread(begun.wait, 10)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    may_end.set()


def _settle():
    """Wait for the threads of the database, and for what the loop does with their results."""
    event_loop.run(event_loop.in_thread(lambda: None))
    event_loop._process.pool(event_loop.Pool.DATABASE).submit(lambda: None).result(10)
    event_loop.run(asyncio.sleep(0.05))
    gc.collect()
    event_loop.run(asyncio.sleep(0))


def test_failure_of_a_thread_whose_caller_has_gone_is_logged_as_an_interruption_or_a_fault(monkeypatch, reports):
    lines: list[str] = []
    monkeypatch.setattr(event_loop.log, "warning", lambda event, **_: lines.append(event))
    monkeypatch.setattr(event_loop.log, "error", lambda event, **_: lines.append(event))
    monkeypatch.setattr(event_loop, "_temporary", (ConnectionError,))
    for number, error in enumerate((ConnectionResetError(), LookupError()), start=1):
        event_loop.run(_abandoned_in_a_thread(error))
        while len(lines) < number and not reports:
            _settle()
    assert lines == ["background_work_put_off", "background_work_failed"]
    _settle()
    assert reports == []


def test_group_ends_together_and_every_failure_in_it_is_seen(monkeypatch, reports):
    logged: list[str] = []
    monkeypatch.setattr(event_loop.log, "error", lambda _, exc_info: logged.append(str(exc_info)))
    ended: list[str] = []

    async def work(name, seconds, fails):
        await asyncio.sleep(seconds)
        ended.append(name)
        if fails:
            raise LookupError(name)
        return name

    async def group(*parts):
        return await event_loop.all_of([event_loop.spawn(work(*part)) for part in parts])

    assert event_loop.run(group(("a", 0.01, False), ("b", 0, False))) == ["a", "b"]
    with pytest.raises(LookupError, match="c"):
        event_loop.run(group(("c", 0, True), ("d", 0.01, True), ("e", 0.02, False)))
    assert ended == ["b", "a", "c", "d", "e"]
    assert logged == ["d"]
    _settle()
    assert reports == []
