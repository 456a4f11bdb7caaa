"""Why a job waits: for its owner, and with the names of accounts for administrators."""

from typing import Any
from uuid import UUID

from fastapi import APIRouter, Request, Response
from starlette.concurrency import run_in_threadpool

from api.auth.dependencies import AdminDep, ReadDep
from api.http.errors import error_responses
from api.http.preferences import set_job_id_header
from api.http.responses import json_response
from api.jobs.routes import job_not_found, parse_job_id
from api.jobs.timeline.schemas import Waiting
from api.jobs.timeline.waiting import waiting_object
from worker.core.ids import public_id
from worker.db.engine import Transaction, transaction
from worker.db.jobs import queries
from worker.db.jobs.queries import Viewer
from worker.db.scheduling.wait_reasons import find_wait_reasons

router = APIRouter()

_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {"model": Waiting, "description": "The reasons."},
    **error_responses(401, 404),
}


def _waiting(tx: Transaction, job_id: UUID, viewer: Viewer, *, shows_labels: bool) -> dict[str, Any]:
    view = queries.job_view(tx, job_id, viewer)
    if view is None:
        raise job_not_found(public_id("job", job_id))
    return waiting_object(view, find_wait_reasons(tx, job_id), shows_labels=shows_labels)


@router.get("/v1/jobs/{job_id}/waiting", tags=["jobs"], summary="Why a job waits", responses=_RESPONSES)
async def get_waiting(request: Request, job_id: str, caller: ReadDep) -> Response:
    """Counts the accounts that the job may use, by the reason why they do not take it now."""
    parsed = parse_job_id(job_id)

    def read() -> dict[str, Any]:
        with transaction() as tx:
            return _waiting(tx, parsed, caller.viewer(tx), shows_labels=caller.role == "admin")

    body = await run_in_threadpool(read)
    set_job_id_header(request, job_id)
    return json_response(body)


@router.get(
    "/admin/v1/jobs/{job_id}/waiting",
    tags=["admin"],
    summary="Why a job of any user waits",
    responses={**_RESPONSES, **error_responses(401, 403, 404)},
)
def get_waiting_of_any_user(request: Request, job_id: str, _admin: AdminDep) -> Response:
    """Like `GET /v1/jobs/{id}/waiting`, with the names of the accounts."""
    with transaction() as tx:
        body = _waiting(tx, parse_job_id(job_id), Viewer(all_jobs=True), shows_labels=True)
    set_job_id_header(request, job_id)
    return json_response(body)
