"""The event loop of this process: one thread that waits for many calls at once, and bounded pools for blocking work.

Tasks of Celery run in threads. They hand coroutines to `run`, which blocks the thread, or to `run_for`, which blocks it
only for a while. On the loop, `in_thread` moves a blocking function (a transaction, a transfer of a file) to a pool.
"""

import asyncio
import contextvars
import queue
import threading
import time
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from concurrent.futures import TimeoutError as FutureTimeoutError
from contextlib import aclosing
from enum import Enum
from functools import partial
from typing import Any, ParamSpec, TypeVar

from worker.core.concurrency.lanes import Lane
from worker.core.concurrency.watchdog import watchdog
from worker.core.observability.logging import get_logger

log = get_logger("event_loop")

Value = TypeVar("Value")
Arguments = ParamSpec("Arguments")

# Errors that end work without being faults of it, for example because the database is away: logged in one line.
_temporary: tuple[type[BaseException], ...] = ()
# A waiting thread renews its watchdog this often: what it waits for has a time limit of its own.
_RENEW_SECONDS = 1.0
# The loop must come around at least this often; the watchdog ends a process whose loop hangs.
_LOOP_CHECK_SECONDS = 1.0
_DRAIN_CHECK_SECONDS = 0.05


class Pool(Enum):
    """The pools of threads. A pool is a lane: work of one cannot take the threads of another."""

    DATABASE = "database"  # short transactions
    FILES = "files"  # reading, inspecting and storing a file
    TRANSFERS = "transfers"  # work with a call between its transactions


_THREADS = {Pool.DATABASE: 6, Pool.FILES: 12, Pool.TRANSFERS: 12}
# Transactions are short for every owner. The threads of the other pools are shared by owner.
_LANES = {Pool.FILES: Lane(_THREADS[Pool.FILES]), Pool.TRANSFERS: Lane(_THREADS[Pool.TRANSFERS])}


class _Loop:
    """The loop and its pools, started on first use: never at import and never before a fork."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._pools: dict[Pool, ThreadPoolExecutor] = {}

    def get(self) -> asyncio.AbstractEventLoop:
        """Return the running loop."""
        if self._loop is None:
            with self._lock:
                if self._loop is None:
                    self._loop = self._start()
        return self._loop

    def _start(self) -> asyncio.AbstractEventLoop:
        loop, started = asyncio.new_event_loop(), threading.Event()
        loop.call_soon(started.set)
        threading.Thread(target=self._run, args=(loop,), name="event-loop", daemon=True).start()
        started.wait()
        return loop

    def _run(self, loop: asyncio.AbstractEventLoop) -> None:
        asyncio.set_event_loop(loop)
        with watchdog.watch("event-loop"):
            self._check(loop)
            while True:
                try:
                    loop.run_forever()
                except (SystemExit, KeyboardInterrupt) as stop:
                    # Raised by a library on the loop. The work of the others continues.
                    log.error("event_loop_interrupted", reason=type(stop).__name__)  # noqa: TRY400
                else:
                    return

    def _check(self, loop: asyncio.AbstractEventLoop) -> None:
        watchdog.renew()
        loop.call_later(_LOOP_CHECK_SECONDS, self._check, loop)

    def pool(self, pool: Pool) -> ThreadPoolExecutor:
        """Return the threads of a pool. Called on the loop only."""
        found = self._pools.get(pool)
        if found is None:
            found = self._pools[pool] = ThreadPoolExecutor(_THREADS[pool], thread_name_prefix=pool.value)
        return found


_process = _Loop()
# Strong references: the loop itself holds tasks only weakly.
_background: set[asyncio.Task[Any]] = set()


def start(work: Coroutine[Any, Any, Value]) -> "Future[Value]":
    """Start a coroutine on the loop, with the log context of the caller."""
    loop = _process.get()
    result: Future[Value] = Future()
    context = contextvars.copy_context()
    loop.call_soon_threadsafe(partial(_create_task, loop, work, result), context=context)
    return result


def _create_task(loop: asyncio.AbstractEventLoop, work: Coroutine[Any, Any, Value], result: "Future[Value]") -> None:
    task = loop.create_task(work)
    _background.add(task)
    task.add_done_callback(partial(_hand_over, result))


def _hand_over(result: "Future[Value]", task: "asyncio.Task[Value]") -> None:
    _background.discard(task)
    if task.cancelled():
        result.cancel()
    elif (error := task.exception()) is not None:
        result.set_exception(error)
    else:
        result.set_result(task.result())


def run(work: Coroutine[Any, Any, Value]) -> Value:
    """Run a coroutine on the loop and return its value. Never call it on the loop."""
    result = start(work)
    while True:
        try:
            return result.result(timeout=_RENEW_SECONDS)
        except FutureTimeoutError:
            if result.done():
                raise  # the coroutine itself timed out
            watchdog.renew()


def iterate(items: AsyncGenerator[Value]) -> Generator[Value]:
    """Yield the items of a generator that runs on the loop. Never call it on the loop. Close it when done.

    The generator does not wait for its reader, so its items must be few.
    """
    arrived: queue.SimpleQueue[tuple[Value] | None] = queue.SimpleQueue()
    closed = threading.Event()

    async def read() -> None:
        async with aclosing(items):
            async for item in items:
                arrived.put((item,))

    async def read_until_closed() -> None:
        reading = asyncio.ensure_future(read())
        stop.append(partial(reading.get_loop().call_soon_threadsafe, reading.cancel))
        if closed.is_set():
            reading.cancel()
        try:
            await reading
        except asyncio.CancelledError:
            if not closed.is_set():
                raise

    stop: list[Callable[[], object]] = []
    result = start(read_until_closed())
    result.add_done_callback(lambda _: arrived.put(None))
    try:
        while (item := arrived.get()) is not None:
            yield item[0]
        result.result()
    finally:
        closed.set()
        for cancel in stop:
            cancel()
        wait([result])


# A thread waits this long for the work of its message. Then the work continues on the event loop alone, so that slow
# upstreams cannot take all threads of a worker.
PATIENCE_SECONDS = 5.0
# More threads than this never wait in `run_for`.
_MAX_PATIENT_THREADS = 12
_patient_threads = threading.BoundedSemaphore(_MAX_PATIENT_THREADS)


def limit_waiting(threads: int) -> None:
    """Let at most half of the threads of this worker wait in `run_for`. Called before the first task."""
    global _patient_threads  # noqa: PLW0603
    _patient_threads = threading.BoundedSemaphore(max(min(threads // 2, _MAX_PATIENT_THREADS), 1))


def run_for(work: Coroutine[Any, Any, Value], *, otherwise: Value) -> Value:
    """Like `run`, but return `otherwise` after `PATIENCE_SECONDS`; the coroutine then continues in the background."""
    result, patient = start(work), _patient_threads
    if patient.acquire(blocking=False):
        try:
            return result.result(timeout=PATIENCE_SECONDS)
        except FutureTimeoutError:
            if result.done():
                raise
        finally:
            patient.release()
    result.add_done_callback(_log_failure)
    return otherwise


def expect(*temporary: type[BaseException]) -> None:
    """Log these errors of work in the background as interruptions: its rows are still due, or another task has them."""
    global _temporary  # noqa: PLW0603 - set once at the start of a worker
    _temporary = temporary


def _log_failure(result: "Future[Any]") -> None:
    if not result.cancelled():
        log_error(result.exception())


def log_error(error: BaseException | None) -> None:
    """Log an error that nobody awaits: in one line if it is temporary."""
    if isinstance(error, _temporary):
        log.warning("background_work_put_off", reason=type(error).__name__)
    elif error is not None:
        log.error("background_work_failed", exc_info=error)


def start_later(function: Callable[..., Coroutine[Any, Any, object]], *args: Any, seconds: float = 0.0) -> None:
    """Start a coroutine on the loop after `seconds`, with an empty log context. Thread-safe; nobody awaits it."""
    loop = _process.get()
    loop.call_soon_threadsafe(partial(_keep_later, loop, function, args, seconds), context=contextvars.Context())


def _keep_later(
    loop: asyncio.AbstractEventLoop,
    function: Callable[..., Coroutine[Any, Any, object]],
    args: tuple[Any, ...],
    seconds: float,
) -> None:
    if seconds > 0:
        loop.call_later(seconds, _keep_now, function, args)
    else:
        _keep_now(function, args)


def _keep_now(function: Callable[..., Coroutine[Any, Any, object]], args: tuple[Any, ...]) -> None:
    keep(function(*args))


def drain(seconds: float) -> bool:
    """Wait until the work on the loop has ended, at most `seconds`. Return whether it has."""
    until, pause = time.monotonic() + seconds, threading.Event()
    while _background and time.monotonic() < until:
        pause.wait(_DRAIN_CHECK_SECONDS)
    return not _background


def spawn(work: Coroutine[Any, Any, Value]) -> "asyncio.Task[Value]":
    """Start a coroutine beside the calling one. Called on the loop. The task lives until it has ended."""
    task = asyncio.get_running_loop().create_task(work)
    _background.add(task)
    task.add_done_callback(_background.discard)
    return task


async def all_of(tasks: Iterable["asyncio.Task[Value]"]) -> list[Value]:
    """Wait until all of these tasks have ended; return their values in order.

    Raises the first error, and logs the others.
    """
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    errors = [outcome for outcome in outcomes if isinstance(outcome, BaseException)]
    for error in errors[1:]:
        log_error(error)
    if errors:
        raise errors[0]
    return [outcome for outcome in outcomes if not isinstance(outcome, BaseException)]


def keep(work: Coroutine[Any, Any, object]) -> None:
    """Like `spawn`, for work that nobody awaits: a failure is logged."""
    task = asyncio.get_running_loop().create_task(work)
    _background.add(task)
    task.add_done_callback(_finish_background)


def _finish_background(task: "asyncio.Task[Any]") -> None:
    _background.discard(task)
    if not task.cancelled():
        log_error(task.exception())


async def in_thread(
    function: Callable[Arguments, Value],
    *args: Arguments.args,
    **kwargs: Arguments.kwargs,
) -> Value:
    """Run a short transaction in the pool for the database, with the log context of the caller."""
    return await _in_pool(Pool.DATABASE, partial(function, *args, **kwargs))


async def in_files_thread(
    function: Callable[Arguments, Value],
    *args: Arguments.args,
    **kwargs: Arguments.kwargs,
) -> Value:
    """Run work on a file in its pool, when it is the turn of its owner. Long work renews its watchdog."""
    return await _in_pool(Pool.FILES, partial(function, *args, **kwargs))


async def in_transfer_thread(
    function: Callable[Arguments, Value],
    *args: Arguments.args,
    **kwargs: Arguments.kwargs,
) -> Value:
    """Run work with a call between its transactions in its pool, when it is the turn of its owner."""
    return await _in_pool(Pool.TRANSFERS, partial(function, *args, **kwargs))


async def _in_pool(pool: Pool, call: Callable[[], Value]) -> Value:
    lane = _LANES.get(pool)
    party = await lane.take() if lane is not None else None
    context = contextvars.copy_context()
    work = asyncio.get_running_loop().run_in_executor(_process.pool(pool), context.run, _watched, pool, call)
    if lane is not None and party is not None:
        # The turn ends with the thread, also when nobody waits for it any more.
        work.add_done_callback(lambda _: lane.give_back(party))
    try:
        # A cancelled caller does not stop a thread: a commit is never cut.
        return await asyncio.shield(work)
    except asyncio.CancelledError:
        # Nobody awaits its result any more.
        work.add_done_callback(_finish_abandoned)
        raise


def _finish_abandoned(work: "asyncio.Future[Any]") -> None:
    if not work.cancelled():
        log_error(work.exception())


def _watched(pool: Pool, call: Callable[[], Value]) -> Value:
    with watchdog.watch(pool.value):
        try:
            return call()
        except StopIteration as stop:
            # A future cannot carry it: the waiting coroutine would never continue.
            raise RuntimeError("StopIteration in a thread") from stop
        except Exception:
            raise
        except BaseException as stop:
            # Raised on the loop, they would end it for all work of the process, or look like a cancelled task.
            raise RuntimeError(f"{type(stop).__name__} in a thread") from stop
