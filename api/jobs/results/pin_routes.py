"""Pin jobs to keep their results beyond the retention."""

from functools import partial
from uuid import UUID

from fastapi import APIRouter, Request, Response
from starlette.concurrency import run_in_threadpool

from api.auth.caller import Caller
from api.auth.dependencies import GenerateDep
from api.http.errors import error_responses
from api.http.preferences import set_job_id_header
from api.http.responses import base_url, json_response
from api.jobs.routes import job_not_found, parse_job_id
from api.jobs.schemas import Job
from api.jobs.serialization import job_object
from worker.core.errors import DreameryError
from worker.core.ids import public_id
from worker.core.settings import get_settings
from worker.db.engine import Transaction, transaction
from worker.db.jobs import queries, retention
from worker.db.jobs.queries import JobView, Viewer
from worker.messaging import pubsub

router = APIRouter(prefix="/v1/jobs", tags=["jobs"])


def _visible_job(tx: Transaction, job_id: UUID, viewer: Viewer) -> JobView:
    view = queries.job_view(tx, job_id, viewer)
    if view is None:
        raise job_not_found(public_id("job", job_id))
    return view


def _pin(caller: Caller, job_id: UUID) -> JobView:
    limit = get_settings().pins_per_caller
    with transaction() as tx:
        viewer = caller.viewer(tx)
        view = _visible_job(tx, job_id, viewer)
        if view.job.pinned_at is None and retention.count_pinned_jobs(tx, view.job.owner, except_job=job_id) >= limit:
            raise DreameryError("pin_limit", f"You can pin up to {limit} jobs. Unpin one first.")
        if not retention.pin_job(tx, job_id):
            raise DreameryError("file_expired", "The results of this job are past their retention and were removed.")
        tx.on_commit(partial(pubsub.publish_job_change, job_id, view.job.state, view.job.event_seq))
        return _visible_job(tx, job_id, viewer)


def _unpin(caller: Caller, job_id: UUID) -> JobView:
    with transaction() as tx:
        viewer = caller.viewer(tx)
        view = _visible_job(tx, job_id, viewer)
        retention.unpin_job(tx, job_id)
        tx.on_commit(partial(pubsub.publish_job_change, job_id, view.job.state, view.job.event_seq))
        return _visible_job(tx, job_id, viewer)


@router.post(
    "/{job_id}/pin",
    summary="Pin a job to keep its results",
    responses={200: {"model": Job, "description": "The job, pinned."}, **error_responses(400, 401, 404, 410)},
)
async def pin_job(request: Request, job_id: str, caller: GenerateDep) -> Response:
    """Keeps the files of a job permanently, regardless of the retention, until it is unpinned or deleted.

    A job that has not ended can be pinned too. If the results were already removed, the answer is 410 `file_expired`.
    """
    view = await run_in_threadpool(_pin, caller, parse_job_id(job_id))
    set_job_id_header(request, job_id)
    return json_response(job_object(view, base_url(request)))


@router.post(
    "/{job_id}/unpin",
    summary="Unpin a job",
    responses={200: {"model": Job, "description": "The job, not pinned."}, **error_responses(400, 401, 404)},
)
async def unpin_job(request: Request, job_id: str, caller: GenerateDep) -> Response:
    """Applies the retention again: the next clean-up removes the results if they are older."""
    view = await run_in_threadpool(_unpin, caller, parse_job_id(job_id))
    set_job_id_header(request, job_id)
    return json_response(job_object(view, base_url(request)))
