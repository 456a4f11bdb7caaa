"""Works on batches in the background of an API process: checks and accepts them, cancels them, writes their results.

A step is claimed for a lease, and ends with one transaction. When the process dies, another one, or the same one after
its restart, does the step again. Held jobs are let into the queue by the workers, not here.
"""

import asyncio
import contextlib
import time
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Any
from uuid import UUID, uuid4

from starlette.concurrency import run_in_threadpool

from api.auth.caller import Caller
from api.auth.dependencies import caller_of_key
from api.batches.acceptance import LeaseLostError, accept_batch
from api.batches.options import BatchOptions
from api.batches.reading import Line, read_lines
from api.batches.results import WrittenResults, write_results
from api.batches.validation import BatchLimits, CheckedBatch, check_lines
from api.generation.job_action_routes import cancel_job_now
from api.generation.media.reference_images import delete_stored_inputs
from api.http.clients.storage_threads import in_storage_thread
from api.jobs.timeline.cancelling import BATCH
from worker import storage
from worker.core.errors import DreameryError
from worker.core.observability.faults import UnexpectedError
from worker.core.observability.logging import get_logger
from worker.db.batches import batch_files, batches, held_jobs
from worker.db.engine import DATABASE_ERRORS, Row, transaction
from worker.db.jobs.queries import Viewer
from worker.db.users import api_keys
from worker.db.webhooks import outbox
from worker.messaging import celery_app, pubsub

log = get_logger("batches")

# Steps at a time in this process. Each is of another owner.
_STEPS = 2
_LOOK_SECONDS = 1.0
_IDLE_LOOK_SECONDS = 3.0
_RETRY_SECONDS = 10.0
_RENEW_SECONDS = 1.0
_STOP_SECONDS = 2.0
_CANCELS_PER_TRANSACTION = 400
# Errors that say nothing about the batch: the step is done again later.
_TEMPORARY = frozenset({"draining", "overloaded", "storage_unavailable"})


class BatchRunner:
    """The background tasks of one process. `wake` makes them look at once."""

    def __init__(self) -> None:
        self._wakes = [asyncio.Event() for _ in range(_STEPS)]
        self._tasks: list[asyncio.Task[None]] = []
        self._is_stopping = False

    def start(self) -> None:
        """Start the tasks."""
        self._tasks = [asyncio.create_task(self._run(event)) for event in self._wakes]

    async def stop(self) -> None:
        """End the tasks. Steps in progress are done again by another process."""
        self._is_stopping = True
        self.wake()
        # A cancelled task leaves its thread behind, in a transaction whose connection nobody would close.
        await asyncio.wait(self._tasks, timeout=_STOP_SECONDS)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def wake(self) -> None:
        """Look for steps now."""
        for event in self._wakes:
            event.set()

    async def _run(self, event: asyncio.Event) -> None:
        while not self._is_stopping:
            busy = False
            try:
                busy = await self._work()
            except DATABASE_ERRORS as error:
                log.info("batches_wait", reason=type(error).__name__)
            except Exception as error:  # noqa: BLE001 - the next step may work
                fault = UnexpectedError(error)
                log.error("batch_step_failed", detail=fault.detail, trace=fault.frames)  # noqa: TRY400
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_LOOK_SECONDS if busy else _IDLE_LOOK_SECONDS):
                    await event.wait()
            event.clear()

    async def _work(self) -> bool:
        """Do the steps that are due. Return whether batches are open."""
        is_open = await run_in_threadpool(_begin_ended)
        # Each claim has a holder of its own: a step that this process has lost is not its own any more.
        while (row := await run_in_threadpool(_claim, holder := uuid4())) is not None:
            is_open = True
            try:
                await self._do(row, holder)
            except LeaseLostError:
                log.info("batch_lease_lost", batch=row.id.hex)
            except asyncio.CancelledError:
                await asyncio.shield(run_in_threadpool(_give_back, row.id, holder, 0.0))
                raise
            except DreameryError as error:
                await _put_off(row, holder, error.code)
            except DATABASE_ERRORS as error:
                await _put_off(row, holder, type(error).__name__)
            await run_in_threadpool(_begin_ended)
        return is_open

    async def _do(self, row: "Row[Any]", holder: UUID) -> None:
        if row.state == "validating":
            await _validate(row, holder)
        elif row.state == "cancelling":
            await run_in_threadpool(_cancel_jobs, row, holder)
        else:
            written = await in_storage_thread(write_results, row, partial(_renew, row.id, holder))
            deliveries = await run_in_threadpool(_finish, row, written, holder)
            for delivery_id in deliveries:
                await run_in_threadpool(celery_app.enqueue_notify, delivery_id)


async def _put_off(row: "Row[Any]", holder: UUID, reason: str) -> None:
    log.warning("batch_put_off", batch=row.id.hex, reason=reason)
    await run_in_threadpool(_give_back, row.id, holder, _RETRY_SECONDS)


def _begin_ended() -> bool:
    with transaction() as tx:
        batches.begin_ended(tx, limit=50)
        is_open = batches.any_open(tx)
        if not is_open:
            tx.end_unwritten()
        return is_open


def _claim(holder: UUID) -> "Row[Any] | None":
    with transaction() as tx:
        return batches.claim_step(tx, holder)


def _give_back(batch_id: UUID, holder: UUID, seconds: float) -> None:
    with transaction() as tx:
        batches.give_back(tx, batch_id, holder, seconds=seconds)


def _renew(batch_id: UUID, holder: UUID, checked: int | None = None) -> None:
    with transaction() as tx:
        if not batches.renew_lease(tx, batch_id, holder, checked=checked):
            raise LeaseLostError


async def _validate(row: "Row[Any]", holder: UUID) -> None:
    """Accept the batch as a whole, or refuse it with the errors of all lines."""
    try:
        caller, checked = await _check(row, holder)
    except DreameryError as error:
        if error.code in _TEMPORARY or isinstance(error, storage.StorageError):
            raise
        caller, checked = None, _refused(error)
    if caller is not None and not checked.error_count:
        try:
            refusal = await run_in_threadpool(_try_to_accept, row, checked, caller, holder)
        except LeaseLostError:
            await in_storage_thread(delete_stored_inputs, checked.inputs)
            raise
        if refusal is None:
            log.info("batch_accepted", batch=row.id.hex, lines=checked.lines)
            return
        checked.add_error(refusal)
    await in_storage_thread(delete_stored_inputs, checked.inputs)
    for delivery_id in await run_in_threadpool(_refuse, row, checked, holder):
        await run_in_threadpool(celery_app.enqueue_notify, delivery_id)


def _refused(error: DreameryError) -> CheckedBatch:
    checked = CheckedBatch()
    checked.add_error(error)
    return checked


async def _check(row: "Row[Any]", holder: UUID) -> tuple[Caller, CheckedBatch]:
    """Return the caller, with the rights that its key has now, and the checked lines."""
    if row.tries > batches.MOST_TRIES:
        message = "The batch could not be checked: its process ended each time. Split the file, and try again."
        raise DreameryError("internal_error", message)
    options = BatchOptions.of_row(row.options)
    caller = await run_in_threadpool(_caller_of, row, options)

    renewed_at = time.monotonic()

    async def progress(lines: int) -> None:
        nonlocal renewed_at
        if time.monotonic() - renewed_at >= _RENEW_SECONDS:
            renewed_at = time.monotonic()
            await run_in_threadpool(_renew, row.id, holder, lines)

    limits = BatchLimits(money=options.cost_limit, credits=options.max_credits)
    file = await in_storage_thread(_open_input, row.input_file_id)
    with file:
        lines: Iterator[Line] = read_lines(file, is_csv=options.is_csv, endpoint=row.endpoint)
        return caller, await check_lines(lines, caller, limits=limits, progress=progress)


def _caller_of(row: "Row[Any]", options: BatchOptions) -> Caller:
    with transaction() as tx:
        owner = api_keys.find_owner(tx, row.api_key_id) if row.api_key_id is not None else None
    if owner is None:
        message = "The key that made the batch is no longer valid. Make the batch again with a valid key."
        raise DreameryError("invalid_api_key", message)
    caller = caller_of_key(owner)
    caller.require_scope("generate")
    providers = None if options.providers is None else frozenset(options.providers)
    if providers is not None:
        caller.require_providers(providers)
    return replace(caller, account_choice=options.choice, providers=providers or caller.providers)


def _open_input(file_id: UUID) -> Any:
    try:
        return storage.open_file(batch_files.storage_key(file_id))
    except storage.MissingFileError:
        raise DreameryError("file_not_found", "The file of the batch was deleted.", param="input_file_id") from None


def _try_to_accept(row: "Row[Any]", checked: CheckedBatch, caller: Caller, holder: UUID) -> DreameryError | None:
    """Accept the batch; return the error of a limit that refuses it."""
    try:
        accept_batch(row, checked, caller, holder)
    except DreameryError as error:
        if error.code in _TEMPORARY:
            delete_stored_inputs(checked.inputs)
            raise
        return error
    return None


def _refuse(row: "Row[Any]", checked: CheckedBatch, holder: UUID) -> list[UUID]:
    errors = checked.error_object() or {"data": [], "total": 0}
    options = BatchOptions.of_row(row.options)
    with transaction() as tx:
        failed = batches.mark_failed(tx, row.id, holder, errors=errors, lines=checked.lines, price=checked.price)
        if failed is None:
            raise LeaseLostError
        return outbox.add_batch_event(tx, row.id, event="batch.failed", url=options.webhook)


def _cancel_jobs(row: "Row[Any]", holder: UUID) -> None:
    """Cancel what waits, many at a time, and ask for the end of what accounts work on."""
    more = True
    while more:
        with transaction() as tx:
            changed, more = held_jobs.cancel_waiting(tx, row.id, by=BATCH, limit=_CANCELS_PER_TRANSACTION)
        pubsub.publish_job_changes(changed)
        _renew(row.id, holder)
    with transaction() as tx:
        running = batches.running_jobs(tx, row.id, limit=_CANCELS_PER_TRANSACTION)
    for job_id in running:
        with contextlib.suppress(DreameryError):  # deleted meanwhile
            cancel_job_now(lambda _tx: Viewer(all_jobs=True), job_id, by=BATCH)
    _give_back(row.id, holder, 1.0)


def _finish(row: "Row[Any]", written: WrittenResults, holder: UUID) -> list[UUID]:
    """Write the rows of the files, the end of the batch and its event together. Return the deliveries to send."""
    options = BatchOptions.of_row(row.options)
    with transaction() as tx:
        for file in written.files:
            batch_files.add_file(tx, file)
        ended = batches.mark_ended(tx, row.id, holder, written.end)
        if ended is None:
            raise LeaseLostError
        log.info("batch_ended", batch=row.id.hex, state=ended.state, completed=ended.completed, failed=ended.failed)
        return outbox.add_batch_event(tx, row.id, event=f"batch.{ended.state}", url=options.webhook)
