"""Administration of jobs (`/admin/v1/jobs`): those of all users, listed, shown, cancelled and run again."""

from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from starlette.concurrency import run_in_threadpool

from api.admin.routes import find_user
from api.admin.schemas import AdminJob, AdminJobDetails, AdminJobList
from api.auth.dependencies import AdminDep, Caller, actor_of
from api.generation.job_action_routes import RETRY_DOCS, cancel_now
from api.generation.response import KeyHeader, answer_headers, job_answer, start, views_of
from api.generation.retries import plan_retry
from api.http.body_parsing import read_body
from api.http.errors import error_responses
from api.http.fields import Text
from api.http.preferences import clean_idempotency_key, name_job
from api.http.responses import base_url, json_response
from api.jobs.routes import job_uuid, kinds_of, model_id, states_of, unknown_job
from api.jobs.schemas import AcceptedJob, RetryRequest
from api.jobs.serialization import job_object
from api.jobs.timeline import timeline
from worker.core.errors import DreameryError
from worker.core.ids import parse_public_id, public_id
from worker.core.quotas import NO_LIMITS
from worker.db.engine import Transaction, transaction
from worker.db.jobs import queries
from worker.db.jobs.queries import JobFilter, JobView, Viewer
from worker.db.users import audit_log, usage
from worker.db.users.audit_log import Actor

router = APIRouter(prefix="/admin/v1/jobs", tags=["admin"], responses=error_responses(400, 401, 403, 404))

_EVERYBODY = Viewer(everybody=True)


def _see_all(_tx: Transaction) -> Viewer:
    return _EVERYBODY


def _find(tx: Transaction, job_id: str) -> JobView:
    view = queries.job_view(tx, job_uuid(job_id), _EVERYBODY)
    if view is None:
        raise unknown_job(job_id)
    return view


def _objects(tx: Transaction, views: list[JobView], base: str) -> list[dict[str, Any]]:
    """The jobs as their owners see them, with whose they are and where they run."""
    rows = [view.job for view in views]
    known = {
        kind: usage.names(tx, kind, list({getattr(row, column) for row in rows} - {None}))
        for kind, column in (("user", "user_id"), ("key", "api_key_id"), ("account", "account_id"))
    }
    return [
        {
            **job_object(view, base),
            "user_id": public_id("user", view.job.user_id) if view.job.user_id else None,
            "user": known["user"].get(view.job.user_id),
            "key_id": public_id("key", view.job.api_key_id) if view.job.api_key_id else None,
            "key": known["key"].get(view.job.api_key_id),
            "account_id": public_id("account", view.job.account_id) if view.job.account_id else None,
            "account": known["account"].get(view.job.account_id),
        }
        for view in views
    ]


@router.get("", summary="List everybody's jobs", responses={200: {"model": AdminJobList}})
def list_jobs(
    request: Request,
    _admin: AdminDep,
    *,
    user: Annotated[str | None, Query(max_length=120, description="only this user's: name or id")] = None,
    account: Annotated[str | None, Query(max_length=60, description="only those on this upstream account")] = None,
    status: Annotated[str | None, Query(description="one or more statuses, comma-separated")] = None,
    kind: Annotated[str | None, Query(description="of `image`, `video` and `chat`, comma-separated")] = None,
    model: Annotated[Text | None, Query(description="a model's id or alias")] = None,
    since: Annotated[float | None, Query(ge=0, description="unix seconds")] = None,
    after: Annotated[str | None, Query(max_length=60, description="the last id of the page before")] = None,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
) -> Response:
    """One page, newest first; jobs that their owner deleted are not there. Callers with session ids have no user."""
    account_id = parse_public_id("account", account) if account is not None else None
    if account is not None and account_id is None:
        raise DreameryError("account_not_found", f"No account {account[:60]!r}.")
    cursor = job_uuid(after) if after is not None else None
    with transaction() as tx:
        wanted = JobFilter(
            states=states_of(status),
            kinds=kinds_of(kind),
            model=model_id(model),
            created_after=datetime.fromtimestamp(min(since, 4e9), UTC) if since is not None else None,
            user_id=find_user(tx, user).id if user is not None else None,
            account_id=account_id,
        )
        views, more = queries.list_jobs(tx, _EVERYBODY, wanted, after=cursor, limit=limit, newest_first=True)
        data = _objects(tx, views, base_url(request))
    return json_response({"object": "list", "data": data, "has_more": more})


@router.get("/{job_id}", summary="Get anybody's job", responses={200: {"model": AdminJobDetails}})
def get_job(request: Request, job_id: str, _admin: AdminDep) -> Response:
    """The job, whose it is, where it ran, and its timeline with the labels of accounts."""
    with transaction() as tx:
        view = _find(tx, job_id)
        [found] = _objects(tx, [view], base_url(request))
        rows = queries.transitions(tx, view.job.id)
    name_job(request, job_id)
    return json_response({**found, "timeline": timeline(view, rows, shows_labels=True)})


@router.post("/{job_id}/cancel", summary="Cancel anybody's job", responses={200: {"model": AdminJob}})
def cancel_job(request: Request, job_id: str, admin: AdminDep) -> Response:
    """As its owner would: a queued job at once, a running one when upstream is asked next."""
    note = partial(_note, actor_of(request, admin), "job.cancel", job_id)
    view = cancel_now(_see_all, job_uuid(job_id), also=note)
    name_job(request, job_id)
    with transaction() as tx:
        [found] = _objects(tx, [view], base_url(request))
    return json_response(found)


def _note(actor: Actor, action: str, job_id: str, tx: Transaction, **facts: str) -> None:
    audit_log.note_act(tx, actor, action, job_id, **facts)


@router.post(
    "/{job_id}/retry",
    summary="Run anybody's job again",
    status_code=202,
    responses={202: {"model": AcceptedJob, "description": "The new job."}, **error_responses(410, 413, 415, 429, 503)},
    openapi_extra=RETRY_DOCS,
)
async def retry_job(request: Request, job_id: str, admin: AdminDep, idempotency_key: KeyHeader = None) -> Response:
    """A new job of the same owner, which counts for its budgets but is not refused by them.

    A job of a caller with session ids runs on that caller's own accounts: only its caller can run it again.
    """
    key = clean_idempotency_key(idempotency_key)
    body = await read_body(request, RetryRequest) if await request.body() else RetryRequest()
    view = await run_in_threadpool(_read, job_id)
    if view.job.user_id is None:
        message = (
            "This job belongs to a caller with session ids, whose accounts it runs on: only they can run it again."
        )
        raise DreameryError("unsupported_operation", message)
    owner = Caller(
        owner=view.job.owner, user_id=view.job.user_id, api_key_id=view.job.api_key_id, user_limits=NO_LIMITS
    )
    planned = await run_in_threadpool(plan_retry, request.url.path, view, body.seed, owner)
    new = public_id("job", planned.jobs[0].id)
    noted = partial(_note, actor_of(request, admin), "job.retry", job_id, new=new)
    accepted = await start(request, replace(planned, also=noted), caller=owner, key=key)
    views = await run_in_threadpool(views_of, accepted.job_ids)
    return job_answer(views, base_url(request), answer_headers(accepted, None))


def _read(job_id: str) -> JobView:
    with transaction() as tx:
        return _find(tx, job_id)
