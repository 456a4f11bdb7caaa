"""Pins: results that their owner keeps beyond the retention."""

from uuid import UUID

from fastapi import APIRouter, Request, Response
from starlette.concurrency import run_in_threadpool

from api.auth.dependencies import Caller, MakerDep
from api.http.errors import error_responses
from api.http.preferences import name_job
from api.http.responses import base_url, json_response
from api.jobs.routes import job_uuid, unknown_job
from api.jobs.schemas import Job
from api.jobs.serialization import job_object
from worker.core.errors import DreameryError
from worker.core.ids import public_id
from worker.core.settings import get_settings
from worker.db.engine import Transaction, transaction
from worker.db.jobs import queries, retention
from worker.db.jobs.queries import JobView, Viewer

router = APIRouter(prefix="/v1/jobs", tags=["jobs"])


def _seen(tx: Transaction, job_id: UUID, viewer: Viewer) -> JobView:
    view = queries.job_view(tx, job_id, viewer)
    if view is None:
        raise unknown_job(public_id("job", job_id))
    return view


def _pin(caller: Caller, job_id: UUID) -> JobView:
    most = get_settings().pins_per_caller
    with transaction() as tx:
        viewer = caller.viewer(tx)
        view = _seen(tx, job_id, viewer)
        if view.job.pinned_at is None and retention.pins_of(tx, view.job.owner, but=job_id) >= most:
            raise DreameryError("pin_limit", f"You may pin {most} jobs at a time. Unpin one first.")
        if not retention.pin(tx, job_id):
            raise DreameryError("file_expired", "The results of this job are past their retention and were removed.")
        return _seen(tx, job_id, viewer)


def _unpin(caller: Caller, job_id: UUID) -> JobView:
    with transaction() as tx:
        viewer = caller.viewer(tx)
        _seen(tx, job_id, viewer)
        retention.unpin(tx, job_id)
        return _seen(tx, job_id, viewer)


@router.post(
    "/{job_id}/pin",
    summary="Keep a job's results",
    responses={200: {"model": Job, "description": "The job, pinned."}, **error_responses(400, 401, 404, 410)},
)
async def pin_job(request: Request, job_id: str, caller: MakerDep) -> Response:
    """Its files are kept for ever, whatever the retention says, until it is unpinned or deleted.

    A job that has not ended may be pinned too. Results that were removed already: 410 `file_expired`.
    """
    view = await run_in_threadpool(_pin, caller, job_uuid(job_id))
    name_job(request, job_id)
    return json_response(job_object(view, base_url(request)))


@router.post(
    "/{job_id}/unpin",
    summary="Keep a job's results no longer",
    responses={200: {"model": Job, "description": "The job, not pinned."}, **error_responses(400, 401, 404)},
)
async def unpin_job(request: Request, job_id: str, caller: MakerDep) -> Response:
    """The retention holds for it again: results that are older are removed with the next clean-up."""
    view = await run_in_threadpool(_unpin, caller, job_uuid(job_id))
    name_job(request, job_id)
    return json_response(job_object(view, base_url(request)))
