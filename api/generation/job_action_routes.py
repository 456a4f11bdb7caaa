"""Jobs, changed: cancel, retry, delete. A stranger's job is a 404 (I9)."""

import contextlib
from collections.abc import Callable
from functools import partial
from typing import Any
from uuid import UUID

from fastapi import APIRouter, Request, Response
from starlette.concurrency import run_in_threadpool

from api.auth.dependencies import Caller, MakerDep
from api.generation.response import KeyHeader, answer_headers, job_answer, start, views_of, wait_accepted
from api.generation.retries import plan_retry
from api.http.body_parsing import body_docs, read_body
from api.http.errors import error_responses
from api.http.preferences import PreferenceDep, clean_idempotency_key, name_job
from api.http.responses import base_url, json_response
from api.jobs.routes import find_job, job_uuid, unknown_job
from api.jobs.schemas import AcceptedJob, DeletedJob, Job, RetryRequest
from api.jobs.serialization import job_object
from worker import storage
from worker.core.errors import DreameryError
from worker.core.ids import public_id
from worker.core.job_state import JobState
from worker.db.accounts import accounts
from worker.db.engine import Transaction, transaction
from worker.db.jobs import deletions, files, queries, state_machine
from worker.db.jobs.queries import JobView, Viewer
from worker.messaging import celery_app, pubsub

router = APIRouter(prefix="/v1/jobs", tags=["jobs"])

# More than any job has.
_MOST_FILES = 1000


def cancel_now(
    viewer_in: Callable[[Transaction], Viewer], job_id: UUID, also: Callable[[Transaction], object] | None = None
) -> JobView:
    """Cancel a job that a viewer may see, or leave the wish; the job as it is then. Raises `job_not_found`.

    `also` is done in the same transaction.
    """
    with transaction() as tx:
        viewer = viewer_in(tx)
        if queries.job_view(tx, job_id, viewer) is None:
            raise unknown_job(public_id("job", job_id))
        row = state_machine.cancel(tx, job_id)
        if also is not None:
            also(tx)
        if row is not None:
            tx.on_commit(partial(pubsub.announce, row.id, row.state, row.event_seq))
        view = queries.job_view(tx, job_id, viewer)
        if view is not None and view.job.state == JobState.RUNNING:
            # The wish is carried out by a poll; let the next one come soon.
            accounts.poll_soon(tx, view.job.account_id, seconds=1.0)
            tx.on_commit(partial(celery_app.nudge_poll, view.job.account_id))
    if view is None:
        raise unknown_job(public_id("job", job_id))
    return view


@router.post(
    "/{job_id}/cancel",
    summary="Cancel a job",
    responses={200: {"model": Job, "description": "The job as it is now."}, **error_responses(401, 404)},
)
async def cancel_job(request: Request, job_id: str, caller: MakerDep) -> Response:
    """A queued job is cancelled at once; a running one as soon as upstream is asked next (`cancelling` until then).

    Upstream has no cancel call, so what it has begun it finishes and charges. A job that has ended stays as it is.
    """
    view = await run_in_threadpool(cancel_now, caller.viewer, job_uuid(job_id))
    name_job(request, job_id)
    return json_response(job_object(view, base_url(request)))


RETRY_DOCS = body_docs(RetryRequest, form=False)
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
    caller: MakerDep,
    preference: PreferenceDep,
    idempotency_key: KeyHeader = None,
) -> Response:
    """A new job with the parameters and inputs of one that has ended, with its seed or another.

    Its `metadata.retry_of` names the old one. It is paid like any other. `Prefer: wait=N` answers when it has ended, or
    after N seconds. Inputs that came as bytes are kept for 24 hours; later a retry answers 410 `input_expired`.
    """
    key = clean_idempotency_key(idempotency_key)
    body = await read_body(request, RetryRequest) if await request.body() else RetryRequest()
    view = await run_in_threadpool(find_job, caller, job_uuid(job_id))
    planned = await run_in_threadpool(plan_retry, request.url.path, view, body.seed, caller)
    accepted = await start(request, planned, caller=caller, key=key)
    if preference.asked_wait:
        await wait_accepted(request, accepted, preference.asked_wait)
    views = await run_in_threadpool(views_of, accepted.job_ids)
    applied = None if preference.asked_wait is None else f"wait={int(preference.asked_wait)}"
    return job_answer(views, base_url(request), answer_headers(accepted, applied))


def _delete(caller: Caller, job_id: UUID) -> None:
    """Out of sight first, in one transaction; then the bytes. What a crash leaves of them, upkeep removes."""
    with transaction() as tx:
        view = queries.job_view(tx, job_id, caller.viewer(tx))
        if view is None:
            raise unknown_job(public_id("job", job_id))
        if not deletions.delete_job(tx, job_id):
            message = "The job has not ended yet. Cancel it first (POST .../cancel), then delete it."
            raise DreameryError("job_not_finished", message)
        gone = deletions.deleted_files(tx, limit=_MOST_FILES, job_id=job_id)
    with contextlib.suppress(storage.StorageError):  # upkeep removes them when the storage is there again
        for item in gone:
            storage.delete_file(item.key)
        if gone:
            with transaction() as tx:
                files.note_removed(tx, [item.id for item in gone])


@router.delete(
    "/{job_id}",
    summary="Delete a job",
    responses={200: {"model": DeletedJob, "description": "It is gone."}, **error_responses(400, 401, 404)},
)
async def delete_job(job_id: str, caller: MakerDep) -> Response:
    """Takes a job that has ended from every list and removes its files. It cannot be undone."""
    await run_in_threadpool(_delete, caller, job_uuid(job_id))
    body: dict[str, Any] = {"id": job_id, "object": "job.deleted", "deleted": True}
    return json_response(body)
