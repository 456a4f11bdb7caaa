"""Admin routes for the jobs of all users (`/admin/v1/jobs`): list, get, cancel, retry."""

from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from starlette.concurrency import run_in_threadpool

from api.admin.routes import find_user
from api.admin.schemas import AdminJob, AdminJobDetails, AdminJobList
from api.auth.caller import Caller
from api.auth.dependencies import AdminDep, audit_actor
from api.generation.job_action_routes import RETRY_DOCS, cancel_job_now
from api.generation.response import IdempotencyKeyHeader, accept_jobs, accepted_response, job_headers, read_views
from api.generation.retries import plan_retry
from api.http.body_parsing import parse_body
from api.http.errors import error_responses
from api.http.fields import Text
from api.http.preferences import parse_idempotency_key, set_job_id_header
from api.http.responses import base_url, json_response
from api.jobs.routes import job_not_found, parse_job_id, parse_kinds, parse_statuses, resolve_model_ids
from api.jobs.schemas import AcceptedJob, RetryRequest
from api.jobs.serialization import job_object
from api.jobs.timeline.cancelling import administrator
from api.jobs.timeline.entries import timeline_object
from worker.core.errors import DreameryError
from worker.core.ids import parse_public_id, public_id
from worker.core.quotas import NO_LIMITS
from worker.db.engine import Transaction, transaction
from worker.db.jobs import queries
from worker.db.jobs.queries import JobFilter, JobView, Viewer
from worker.db.users import audit_log, usage
from worker.db.users.audit_log import Actor

router = APIRouter(prefix="/admin/v1/jobs", tags=["admin"], responses=error_responses(400, 401, 403, 404))

_ALL_JOBS = Viewer(all_jobs=True)


def _all_jobs_viewer(_tx: Transaction) -> Viewer:
    return _ALL_JOBS


def _find_job(tx: Transaction, job_id: str) -> JobView:
    view = queries.job_view(tx, parse_job_id(job_id), _ALL_JOBS)
    if view is None:
        raise job_not_found(job_id)
    return view


def _job_objects(tx: Transaction, views: list[JobView], base: str) -> list[dict[str, Any]]:
    """Return the jobs as their owners see them, plus user, API key and account."""
    rows = [view.job for view in views]
    names = {
        kind: usage.get_names(tx, kind, list({getattr(row, column) for row in rows} - {None}))
        for kind, column in (("user", "user_id"), ("key", "api_key_id"), ("account", "account_id"))
    }
    return [
        {
            **job_object(view, base),
            "user_id": public_id("user", view.job.user_id) if view.job.user_id else None,
            "user": names["user"].get(view.job.user_id),
            "key_id": public_id("key", view.job.api_key_id) if view.job.api_key_id else None,
            "key": names["key"].get(view.job.api_key_id),
            "account_id": public_id("account", view.job.account_id) if view.job.account_id else None,
            "account": names["account"].get(view.job.account_id),
            "charge_doubt": view.job.charge_doubt,
        }
        for view in views
    ]


@router.get("", summary="List the jobs of all users", responses={200: {"model": AdminJobList}})
def list_jobs(
    request: Request,
    _admin: AdminDep,
    *,
    user: Annotated[str | None, Query(max_length=120, description="only jobs of this user (name or id)")] = None,
    account: Annotated[str | None, Query(max_length=60, description="only jobs on this upstream account")] = None,
    status: Annotated[str | None, Query(description="one or more statuses, comma-separated")] = None,
    kind: Annotated[
        str | None, Query(description="one or more of `image`, `video` and `chat`, comma-separated")
    ] = None,
    model: Annotated[Text | None, Query(description="a model's id or alias")] = None,
    q: Annotated[Text | None, Query(max_length=200, description="text that the prompt contains")] = None,
    charge_doubt: Annotated[
        bool, Query(description="only jobs that upstream may have charged without a result, or more than once")
    ] = False,
    since: Annotated[float | None, Query(ge=0, description="unix seconds")] = None,
    after: Annotated[str | None, Query(max_length=60, description="last id of the previous page")] = None,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
) -> Response:
    """Returns one page, newest first, without deleted jobs. Jobs of callers with session ids have no user."""
    account_id = parse_public_id("account", account) if account is not None else None
    if account is not None and account_id is None:
        raise DreameryError("account_not_found", f"No account {account[:60]!r}.")
    cursor = parse_job_id(after) if after is not None else None
    with transaction() as tx:
        job_filter = JobFilter(
            states=parse_statuses(status),
            kinds=parse_kinds(kind),
            models=resolve_model_ids(model),
            prompt=q or None,
            created_after=datetime.fromtimestamp(min(since, 4e9), UTC) if since is not None else None,
            user_id=find_user(tx, user).id if user is not None else None,
            account_id=account_id,
            charge_doubt=charge_doubt,
        )
        views, more = queries.list_jobs(tx, _ALL_JOBS, job_filter, after=cursor, limit=limit, newest_first=True)
        data = _job_objects(tx, views, base_url(request))
    return json_response({"object": "list", "data": data, "has_more": more})


@router.get("/{job_id}", summary="Get a job of any user", responses={200: {"model": AdminJobDetails}})
def get_job(request: Request, job_id: str, admin: AdminDep) -> Response:
    """Returns the job with its user, API key, account, and a timeline with account labels."""
    with transaction() as tx:
        view = _find_job(tx, job_id)
        [job] = _job_objects(tx, [view], base_url(request))
        rows = queries.transitions(tx, view.job.id)
    set_job_id_header(request, job_id)
    return json_response({**job, "timeline": timeline_object(view, rows, admin, shows_labels=True)})


@router.post("/{job_id}/cancel", summary="Cancel a job of any user", responses={200: {"model": AdminJob}})
def cancel_job(request: Request, job_id: str, admin: AdminDep) -> Response:
    """Cancels a queued job immediately, and a running job at its next poll."""
    actor = audit_actor(request, admin)
    note = partial(_record_action, actor, "job.cancel", job_id)
    view = cancel_job_now(_all_jobs_viewer, parse_job_id(job_id), by=administrator(actor), extra_write=note)
    set_job_id_header(request, job_id)
    with transaction() as tx:
        [job] = _job_objects(tx, [view], base_url(request))
    return json_response(job)


def _record_action(actor: Actor, action: str, job_id: str, tx: Transaction, **details: str) -> None:
    audit_log.record_action(tx, actor, action, job_id, **details)


@router.post(
    "/{job_id}/retry",
    summary="Retry a job of any user",
    status_code=202,
    responses={202: {"model": AcceptedJob, "description": "The new job."}, **error_responses(410, 413, 415, 429, 503)},
    openapi_extra=RETRY_DOCS,
)
async def retry_job(
    request: Request, job_id: str, admin: AdminDep, idempotency_key: IdempotencyKeyHeader = None
) -> Response:
    """Creates a new job for the same owner. It counts towards the owner's budgets, but they do not refuse it.

    A job of a caller with session ids runs on that caller's accounts: only that caller can retry it.
    """
    key = parse_idempotency_key(idempotency_key)
    body = await parse_body(request, RetryRequest) if await request.body() else RetryRequest()
    view = await run_in_threadpool(_read_job, job_id)
    if view.job.user_id is None:
        message = (
            "This job belongs to a caller with session ids and runs on that caller's accounts: only they can retry it."
        )
        raise DreameryError("unsupported_operation", message)
    owner = Caller(
        owner=view.job.owner, user_id=view.job.user_id, api_key_id=view.job.api_key_id, user_limits=NO_LIMITS
    )
    planned = await run_in_threadpool(plan_retry, request.url.path, view, body.seed, owner)
    new = public_id("job", planned.jobs[0].id)
    note = partial(_record_action, audit_actor(request, admin), "job.retry", job_id, new=new)
    accepted = await accept_jobs(request, replace(planned, extra_write=note), caller=owner, key=key)
    views = await read_views(accepted.job_ids)
    return accepted_response(views, base_url(request), job_headers(accepted, None))


def _read_job(job_id: str) -> JobView:
    with transaction() as tx:
        return _find_job(tx, job_id)
