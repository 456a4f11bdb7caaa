"""`/v1/batches` in OpenAI's format, with prices first, our own input, and pause and resume."""

import asyncio
import hashlib
import io
import json
import time
from functools import partial
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import StreamingResponse
from starlette.concurrency import run_in_threadpool

from api.auth.caller import Caller
from api.batches.archive import build_archive, read_archive
from api.batches.file_routes import UserGenerateDep, UserReadDep, find_file
from api.batches.options import BatchOptions, batch_times, checked_endpoint, options_of
from api.batches.reading import jsonl_of, read_lines
from api.batches.runner import BatchRunner
from api.batches.schemas import Batch, BatchCreate, BatchEstimate, BatchList
from api.batches.serialization import batch_object, error_list, parse_batch_id
from api.batches.uploads import key_root_of, store_upload, user_of
from api.batches.validation import BatchLimits, CheckedBatch, check_lines
from api.generation.acceptance import reject_while_draining
from api.generation.media.reference_images import delete_stored_inputs
from api.generation.quotas import quota_errors
from api.generation.response import IdempotencyKeyHeader
from api.generation.variants.request_matrix import expand_matrix
from api.http.body_parsing import body_openapi, parse_body
from api.http.clients.storage_threads import in_storage_thread
from api.http.errors import error_responses
from api.http.preferences import parse_idempotency_key
from api.http.responses import base_url, json_response, page_object
from api.jobs.timeline.cancelling import BATCH
from worker import storage
from worker.core.errors import DreameryError
from worker.core.ids import new_id, public_id
from worker.core.settings import get_settings
from worker.db.batches import batches, held_jobs
from worker.db.batches.batches import NewBatch
from worker.db.engine import Row, transaction
from worker.db.webhooks import outbox
from worker.messaging import celery_app, pubsub

router = APIRouter(prefix="/v1/batches", tags=["batches"])

# How long the answer waits for the check of the lines: that of a short batch is over by then.
_WAIT_SECONDS = 5.0
_LOOK_SECONDS = 0.1
_MOST_WAITING = 20
_SHOWN: dict[int | str, dict[str, Any]] = {200: {"model": Batch, "description": "The batch as it is now."}}


def find_batch(caller: Caller, batch_id: str) -> "Row[Any]":
    """Return a batch of the caller. Raises `batch_not_found`."""
    parsed = parse_batch_id(batch_id)
    with transaction() as tx:
        row = batches.find_batch(tx, parsed, owner=caller.owner, key_root=key_root_of(caller))
    if row is None:
        raise DreameryError("batch_not_found", f"No batch {batch_id[:60]!r}.")
    return row


def shown_batch(caller: Caller, batch_id: str) -> dict[str, Any]:
    """Return the object of a batch of the caller, with its cost so far. Raises `batch_not_found`."""
    row = find_batch(caller, batch_id)
    with transaction() as tx:
        counts = batches.count_lines(tx, [row.id])
        costs = batches.costs(tx, row.id)
    return batch_object(row, counts.get(row.id), costs)


@router.post(
    "",
    summary="Make a batch of requests",
    responses={
        200: {"model": Batch | BatchEstimate, "description": "The batch; with `dry_run` its price."},
        **error_responses(400, 401, 403, 404, 409, 413, 415, 422, 429, 500, 503),
    },
    openapi_extra=body_openapi(BatchCreate, form=False),
)
async def create_batch(
    request: Request, caller: UserGenerateDep, idempotency_key: IdempotencyKeyHeader = None
) -> Response:
    """Accepts all requests of a file, or of prompts, models and ratios, or none of them.

    The lines are checked like the calls at their endpoints. If one is invalid, or the whole exceeds a limit, the batch
    is `failed`, and `errors` names every bad line. `dry_run` answers with the price of the whole and creates nothing.
    The answer waits a few seconds for the check; a long batch is still `validating` then.
    """
    key = parse_idempotency_key(idempotency_key)
    body = await parse_body(request, BatchCreate)
    if bool(body.prompts) == bool(body.input_file_id):
        message = "Send either `input_file_id`, a file of `POST /v1/files`, or `prompts`."
        raise DreameryError("missing_required_parameter", message, param="input_file_id")
    if body.dry_run:
        return json_response(await _estimate(body, caller))
    digest = hashlib.sha256(json.dumps(body.model_dump(mode="json"), sort_keys=True).encode()).hexdigest()
    if key is not None and (earlier := await run_in_threadpool(_earlier, caller, key, digest)) is not None:
        shown = await run_in_threadpool(shown_batch, caller, public_id("batch", earlier.id))
        return json_response(shown, headers={"Idempotency-Replayed": "true"})
    batch_id = await _insert(body, caller, base_url(request), key, digest)
    runner: BatchRunner = request.app.state.batch_runner
    runner.wake()
    until = time.monotonic() + _WAIT_SECONDS
    shown = await run_in_threadpool(shown_batch, caller, batch_id)
    while shown["status"] == "validating" and time.monotonic() < until:
        await asyncio.sleep(_LOOK_SECONDS)
        shown = await run_in_threadpool(shown_batch, caller, batch_id)
    return json_response(shown)


def _earlier(caller: Caller, key: str, digest: str) -> "Row[Any] | None":
    """Return the batch of the idempotency key. Raises `idempotency_key_reuse` if it is of another request."""
    if caller.api_key_id is None:
        return None
    with transaction() as tx:
        row = batches.find_by_key(tx, caller.api_key_id, key)
    if row is not None and row.digest != digest:
        message = "This Idempotency-Key was used with another request. Use a new key."
        raise DreameryError("idempotency_key_reuse", message)
    return row


async def _insert(body: BatchCreate, caller: Caller, base: str, key: str | None, digest: str) -> str:
    """Insert the batch, with a file of its own if it has prompts. Return its public id."""
    endpoint = checked_endpoint(body.endpoint)
    schedule, expires_at = batch_times(body, caller)
    await run_in_threadpool(_check_waiting, caller)
    file = await in_storage_thread(_input_file, body, caller)
    new = NewBatch(
        id=new_id(),
        owner=caller.owner,
        user_id=user_of(caller),
        api_key_id=_key_of(caller),
        endpoint=endpoint,
        input_file_id=file.id,
        options=options_of(body, caller, base, is_csv=_is_csv(body, file)).as_row(),
        digest=digest,
        expires_at=expires_at,
        metadata=body.metadata or {},
        idempotency_key=key,
        not_before=schedule.not_before,
        idle=schedule.idle,
    )
    return await run_in_threadpool(_add, new, caller)


def _add(new: NewBatch, caller: Caller) -> str:
    with transaction() as tx:
        added = batches.add_batch(tx, new)
    if not added and new.idempotency_key is not None:
        # A request with the same key was faster.
        earlier = _earlier(caller, new.idempotency_key, new.digest)
        if earlier is not None:
            return public_id("batch", earlier.id)
    return public_id("batch", new.id)


def _key_of(caller: Caller) -> UUID:
    if caller.api_key_id is None:
        raise DreameryError("forbidden", "Batches need an API key of this platform (`sk-dreamery-...`).")
    return caller.api_key_id


def _check_waiting(caller: Caller) -> None:
    with transaction() as tx:
        reject_while_draining(tx)
        waiting = batches.count_validating(tx, caller.owner)
    if waiting >= _MOST_WAITING:
        message = f"{waiting} of your batches are still being checked. Wait until some of them have begun."
        raise DreameryError("queue_full", message, retry_after=10)


def _input_file(body: BatchCreate, caller: Caller) -> "Row[Any]":
    if body.input_file_id:
        return find_file(caller, body.input_file_id)
    content = io.BytesIO(jsonl_of(expand_matrix(body, most=get_settings().batch_max_lines)))
    return store_upload(content, caller, name="prompts.jsonl", mime="application/jsonl")


def _is_csv(body: BatchCreate, file: Any) -> bool:
    return body.format == "csv" if body.format else file.mime == "text/csv"


async def _estimate(body: BatchCreate, caller: Caller) -> dict[str, Any]:
    """Check and price the whole without writing anything."""
    endpoint = checked_endpoint(body.endpoint)
    batch_times(body, caller)
    limits = BatchLimits(money=body.max_cost or caller.max_cost, credits=body.max_credits)
    if body.input_file_id:
        row = await run_in_threadpool(find_file, caller, body.input_file_id)
        try:
            file = await in_storage_thread(storage.open_file, row.key)
        except storage.MissingFileError:
            raise DreameryError("file_not_found", param="input_file_id") from None
        is_csv = _is_csv(body, row)
    else:
        requests = await in_storage_thread(partial(expand_matrix, body, most=get_settings().batch_max_lines))
        file, is_csv = io.BytesIO(jsonl_of(requests)), False
    with file:
        checked = await check_lines(read_lines(file, is_csv=is_csv, endpoint=endpoint), caller, limits=limits)
    try:
        if not checked.error_count:
            await run_in_threadpool(_add_limit_errors, checked, caller)
    finally:
        await in_storage_thread(delete_stored_inputs, checked.inputs)
    return {
        "object": "batch.estimate",
        "valid": not checked.error_count,
        "price": checked.price,
        "errors": error_list(checked.error_object()),
    }


def _add_limit_errors(checked: CheckedBatch, caller: Caller) -> None:
    """Add the errors that the limits of the caller would raise now."""
    with transaction() as tx:
        prices = [(job.currency, job.price) for job in checked.jobs]
        found = quota_errors(tx, caller, prices, held=True)
    for error in found:
        checked.add_error(error)


@router.get(
    "",
    summary="List your batches",
    responses={200: {"model": BatchList, "description": "One page."}, **error_responses(400, 401, 403, 404)},
)
def list_batches(
    caller: UserReadDep,
    *,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
    after: Annotated[str | None, Query(max_length=60, description="last id of the previous page")] = None,
) -> Response:
    """Returns one page, newest first. If `has_more` is true, send `last_id` as `after` to get the next page."""
    cursor = parse_batch_id(after) if after else None
    with transaction() as tx:
        rows = batches.list_batches(tx, owner=caller.owner, key_root=key_root_of(caller), after=cursor, limit=limit + 1)
        open_ids = [row.id for row in rows[:limit] if row.state in batches.OPEN_STATES]
        counts = batches.count_lines(tx, open_ids)
    data = [batch_object(row, counts.get(row.id)) for row in rows[:limit]]
    return json_response(page_object(data, more=len(rows) > limit))


@router.get("/{batch_id}", summary="Get a batch", responses={**_SHOWN, **error_responses(401, 403, 404)})
def get_batch(batch_id: str, caller: UserReadDep) -> Response:
    """Returns the batch with its counts and its cost so far."""
    return json_response(shown_batch(caller, batch_id))


_CHANGED = {**_SHOWN, **error_responses(401, 403, 404, 409)}


@router.post("/{batch_id}/cancel", summary="Cancel a batch", responses=_CHANGED)
def cancel_batch(request: Request, batch_id: str, caller: UserGenerateDep) -> Response:
    """Cancels what no account has begun, and asks for the end of the rest. Results so far are in the output file."""
    row = find_batch(caller, batch_id)
    jobs: list[Row[Any]] = []
    deliveries: list[UUID] = []
    with transaction() as tx:
        changed = batches.begin_cancel(tx, row.id)
        if changed is not None:
            jobs = held_jobs.cancel_queued(tx, row.id, by=BATCH)
        if changed is not None and changed.state == "cancelled":  # it was being checked, so it has no jobs to wait for
            url = BatchOptions.of_row(row.options).webhook
            deliveries = outbox.add_batch_event(tx, row.id, event="batch.cancelled", url=url)
    # A repeated request, whose first answer was lost, may find it writing its files.
    if changed is None and (row := find_batch(caller, batch_id)).cancelling_at is None:
        raise _ended(row)
    pubsub.publish_job_changes(jobs)
    for delivery_id in deliveries:
        celery_app.enqueue_notify(delivery_id)
    request.app.state.batch_runner.wake()
    return json_response(shown_batch(caller, batch_id))


@router.post("/{batch_id}/pause", summary="Pause a batch", responses=_CHANGED)
def pause_batch(batch_id: str, caller: UserGenerateDep) -> Response:
    """Starts no more lines until the batch is resumed. Lines that accounts work on continue. `expires_at` stays."""
    row = _require_open(find_batch(caller, batch_id))
    with transaction() as tx:
        batches.set_paused(tx, row.id, paused=True)
        changed = held_jobs.hold_back_paused(tx, row.id)
    pubsub.publish_job_changes(changed)
    return json_response(shown_batch(caller, batch_id))


@router.post("/{batch_id}/resume", summary="Continue a paused batch", responses=_CHANGED)
def resume_batch(batch_id: str, caller: UserGenerateDep) -> Response:
    """Lets the lines of a paused batch begin again. A batch that is not paused stays unchanged."""
    row = _require_open(find_batch(caller, batch_id))
    with transaction() as tx:
        batches.set_paused(tx, row.id, paused=False)
    return json_response(shown_batch(caller, batch_id))


def _require_open(row: "Row[Any]") -> "Row[Any]":
    if row.state != "in_progress":
        raise _ended(row)
    return row


def _ended(row: "Row[Any]") -> DreameryError:
    if row.state == "validating":
        return DreameryError("batch_ended", "The batch is still being checked. Try again when it is in progress.")
    return DreameryError("batch_ended", f"The batch is {row.state}, so it cannot be changed.")


@router.get(
    "/{batch_id}/archive",
    summary="Download the results of a batch",
    response_class=Response,
    responses={
        200: {"content": {"application/zip": {}}, "description": "The zip."},
        **error_responses(401, 403, 404),
    },
)
async def get_archive(batch_id: str, caller: UserReadDep) -> StreamingResponse:
    """A zip of the pictures and videos so far, named by `custom_id`, with `contact-sheet.html` and `manifest.json`.

    The manifest lists lines without files as `skipped`.
    """
    row = await run_in_threadpool(find_batch, caller, batch_id)
    archive = await in_storage_thread(build_archive, row)
    headers = {
        "Content-Length": str(len(archive)),
        "Content-Disposition": f'attachment; filename="{public_id("batch", row.id)}.zip"',
        "Cache-Control": "no-store",
    }
    return StreamingResponse(read_archive(archive), media_type="application/zip", headers=headers)
