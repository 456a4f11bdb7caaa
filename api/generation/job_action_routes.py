"""Cancel, retry and delete jobs. A job of another user is a 404 (I9)."""

from collections.abc import Callable
from functools import partial
from typing import Any
from uuid import UUID

from fastapi import APIRouter, Request, Response
from starlette.concurrency import run_in_threadpool

from api.auth.caller import Caller
from api.auth.dependencies import GenerateDep
from api.generation.response import (
    IdempotencyKeyHeader,
    accept_jobs,
    accepted_response,
    job_headers,
    read_views,
    wait_for_jobs,
)
from api.generation.retries import plan_retry
from api.http.body_parsing import body_openapi, parse_body
from api.http.clients.storage_threads import in_storage_thread
from api.http.errors import error_responses
from api.http.preferences import PreferenceDep, parse_idempotency_key, set_job_id_header
from api.http.responses import base_url, json_response
from api.jobs.results.removal import erase_files
from api.jobs.routes import find_job, job_not_found, parse_job_id
from api.jobs.schemas import AcceptedJob, DeletedJob, Job, RetryRequest
from api.jobs.serialization import job_object
from api.jobs.timeline.cancelling import OWNER
from worker.core.errors import DreameryError
from worker.core.ids import public_id
from worker.core.job_state import JobState
from worker.db.accounts import polling
from worker.db.engine import Transaction, transaction
from worker.db.jobs import deletions, queries, state_machine
from worker.db.jobs.queries import JobView, Viewer
from worker.messaging import celery_app, pubsub

router = APIRouter(prefix="/v1/jobs", tags=["jobs"])

# More than any job has.
_MAX_FILES = 1000


def cancel_job_now(
    get_viewer: Callable[[Transaction], Viewer],
    job_id: UUID,
    *,
    by: dict[str, Any] = OWNER,
    extra_write: Callable[[Transaction], object] | None = None,
) -> JobView:
    """Cancel a job or request its cancellation, and return it. Raises `job_not_found`.

    `by` = who asks for it (`api/jobs/timeline/cancelling.py`). `extra_write` runs in the same transaction.
    """
    with transaction() as tx:
        viewer = get_viewer(tx)
        if queries.job_view(tx, job_id, viewer) is None:
            raise job_not_found(public_id("job", job_id))
        row = state_machine.cancel(tx, job_id, by=by)
        if extra_write is not None:
            extra_write(tx)
        if row is not None:
            tx.on_commit(partial(pubsub.publish_job_change, row.id, row.state, row.event_seq))
        view = queries.job_view(tx, job_id, viewer)
        if view is not None and view.job.state == JobState.RUNNING:
            # The next poll performs the cancellation; schedule it soon.
            polling.schedule_poll(tx, view.job.account_id, seconds=1.0)
            tx.on_commit(partial(celery_app.enqueue_poll, view.job.account_id))
    if view is None:
        raise job_not_found(public_id("job", job_id))
    return view


@router.post(
    "/{job_id}/cancel",
    summary="Cancel a job",
    responses={200: {"model": Job, "description": "The job as it is now."}, **error_responses(401, 404)},
)
async def cancel_job(request: Request, job_id: str, caller: GenerateDep) -> Response:
    """A queued job is cancelled at once, a running one with its next poll (`cancelling` until then).

    What an upstream has begun it finishes and charges. The web site has no cancel call at all; the official API cancels
    what is in its queue, and otherwise the job continues and `cancelling` ends. A job that has ended stays unchanged.
    """
    view = await run_in_threadpool(cancel_job_now, caller.viewer, parse_job_id(job_id))
    set_job_id_header(request, job_id)
    return json_response(job_object(view, base_url(request)))


RETRY_DOCS = body_openapi(RetryRequest, form=False)
RETRY_DOCS["requestBody"]["required"] = False


@router.post(
    "/{job_id}/retry",
    summary="Run a job again",
    status_code=202,
    responses={
        202: {"model": AcceptedJob, "description": "The new job."},
        **error_responses(400, 401, 404, 410, 413, 415, 422, 429, 503),
    },
    openapi_extra=RETRY_DOCS,
)
async def retry_job(
    request: Request,
    job_id: str,
    caller: GenerateDep,
    preference: PreferenceDep,
    idempotency_key: IdempotencyKeyHeader = None,
) -> Response:
    """Creates a job with the parameters and inputs of a job that has ended, with the same or another seed.

    Its `metadata.retry_of` names the old job. It costs the same as any other job. `Prefer: wait=N` answers when it has
    ended, or after N seconds. Inputs are kept as long as the results; later a retry answers 410 `input_expired`.
    """
    key = parse_idempotency_key(idempotency_key)
    body = await parse_body(request, RetryRequest) if await request.body() else RetryRequest()
    view = await run_in_threadpool(find_job, caller, parse_job_id(job_id))
    plan = await in_storage_thread(plan_retry, request.url.path, view, body.seed, caller)
    accepted = await accept_jobs(request, plan, caller=caller, key=key)
    if preference.requested_wait:
        await wait_for_jobs(request, accepted, preference.requested_wait)
    views = await read_views(accepted.job_ids)
    applied = None if preference.requested_wait is None else f"wait={int(preference.requested_wait)}"
    return accepted_response(views, base_url(request), job_headers(accepted, applied))


def delete_job_now(caller: Caller, job_id: UUID) -> None:
    """Mark the job deleted in one transaction, then remove its files. The cleanup removes files left by a crash."""
    with transaction() as tx:
        view = queries.job_view(tx, job_id, caller.viewer(tx))
        if view is None:
            raise job_not_found(public_id("job", job_id))
        row = deletions.delete_job(tx, job_id)
        if row is None:
            message = "The job has not ended yet. Cancel it first (POST .../cancel), then delete it."
            raise DreameryError("job_not_finished", message)
        tx.on_commit(partial(pubsub.publish_job_change, row.id, row.state, row.event_seq))
        deleted = deletions.deleted_files(tx, limit=_MAX_FILES, job_id=job_id)
    erase_files(deleted)


@router.delete(
    "/{job_id}",
    summary="Delete a job",
    responses={200: {"model": DeletedJob, "description": "The job was deleted."}, **error_responses(400, 401, 404)},
)
async def delete_job(job_id: str, caller: GenerateDep) -> Response:
    """Removes a job that has ended from every list, and its files. This cannot be undone."""
    await in_storage_thread(delete_job_now, caller, parse_job_id(job_id))
    body: dict[str, Any] = {"id": job_id, "object": "job.deleted", "deleted": True}
    return json_response(body)
