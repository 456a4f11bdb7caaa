"""Usage reports: your own (`/v1/usage`) and, for administrators, of all users (`/admin/v1/usage`)."""

from datetime import date
from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import APIRouter, Query, Request, Response
from starlette.concurrency import run_in_threadpool

from api.admin.routes import find_key, find_user
from api.auth.caller import Caller
from api.auth.dependencies import AdminDep, ReadDep
from api.http.errors import error_responses
from api.http.fields import Text
from api.jobs.routes import resolve_model_ids
from api.usage.report import count_quota_usage, make_report, parse_report_request, read_limit_statuses, report_response
from api.usage.schemas import UsageReport
from worker.core.errors import DreameryError
from worker.core.ids import parse_public_id, public_id
from worker.core.quotas import OwnLimits
from worker.db.engine import transaction
from worker.db.users.quotas import own_limits
from worker.db.users.usage import ALL_GROUPS, OWN_GROUPS, UsageFilter

router = APIRouter()

From = Annotated[
    date | None, Query(alias="from", description="first day, `YYYY-MM-DD`; default: first day of the month of `to`")
]
To = Annotated[date | None, Query(alias="to", description="last day, inclusive; default: today")]
Format = Annotated[
    Literal["json", "csv"] | None, Query(alias="format", description="default: JSON, or CSV with `Accept: text/csv`")
]
Model = Annotated[Text | None, Query(description="only this model, by id or alias")]
_RESPONSE: dict[int | str, dict[str, Any]] = {
    200: {
        "model": UsageReport,
        "content": {"text/csv": {"example": "day,accepted,succeeded,...\r\n2026-11-25,3,2,...\r\n"}},
        "description": "The report.",
    }
}


@router.get(
    "/v1/usage",
    tags=["usage"],
    summary="Get your usage",
    responses={**_RESPONSE, **error_responses(400, 401, 403)},
)
async def own_usage(
    request: Request,
    caller: ReadDep,
    *,
    first: From = None,
    last: To = None,
    group_by: Annotated[str, Query(description=f"one or more of {', '.join(OWN_GROUPS)}, comma-separated")] = "day",
    model: Model = None,
    form: Format = None,
) -> Response:
    """Returns jobs, images, seconds of video and credits, and the current use of your limits.

    The report covers all keys of your user. A key without the scope `read` sees only its own jobs.
    """
    report_request = parse_report_request(request, days=(first, last), group_by=group_by, form=form, allowed=OWN_GROUPS)
    key_root = None if caller.has_scope("read") else caller.key_root
    usage_filter = UsageFilter(owner=caller.owner, key_root=key_root, models=resolve_model_ids(model))
    body = await run_in_threadpool(make_report, report_request, usage_filter)
    body["limits"] = await read_limit_statuses(request, caller, await run_in_threadpool(count_quota_usage, caller))
    return report_response(report_request, body)


def _find_subject(user: str | None, key: str | None) -> Caller | None:
    """Return the requested user, or the key with its user, as a caller. Raises user_not_found, key_not_found."""
    if user is None and key is None:
        return None
    with transaction() as tx:
        key_row = find_key(tx, key) if key is not None else None
        user_row = find_user(tx, user or public_id("user", key_row.user_id if key_row is not None else UUID(int=0)))
    if key_row is not None and key_row.user_id != user_row.id:
        raise DreameryError("key_not_found", f"User {user_row.name!r} has no API key {str(key)[:60]!r}.")
    return Caller(
        owner=f"user:{user_row.id}",
        user_id=user_row.id,
        name=user_row.name,
        user_limits=own_limits(user_row),
        key_root=key_row.root_id if key_row is not None else None,
        key_limits=own_limits(key_row) if key_row is not None else OwnLimits(),
    )


@router.get(
    "/admin/v1/usage",
    tags=["admin"],
    summary="Get the usage of all users",
    responses={**_RESPONSE, **error_responses(400, 401, 403, 404)},
)
async def all_usage(
    request: Request,
    _admin: AdminDep,
    *,
    first: From = None,
    last: To = None,
    group_by: Annotated[str, Query(description=f"one or more of {', '.join(ALL_GROUPS)}, comma-separated")] = "user",
    user: Annotated[str | None, Query(max_length=120, description="only this user (name or id)")] = None,
    key: Annotated[
        str | None, Query(max_length=60, description="only this API key, including the keys it replaced")
    ] = (None),
    account: Annotated[str | None, Query(max_length=60, description="only jobs on this upstream account")] = None,
    model: Model = None,
    form: Format = None,
) -> Response:
    """Returns the usage of all users; for one user or key also the current use of its limits."""
    report_request = parse_report_request(request, days=(first, last), group_by=group_by, form=form, allowed=ALL_GROUPS)
    account_id = parse_public_id("account", account) if account is not None else None
    if account is not None and account_id is None:
        raise DreameryError("account_not_found", f"No account {account[:60]!r}.")
    subject = await run_in_threadpool(_find_subject, user, key)
    usage_filter = UsageFilter(
        owner=subject.owner if subject else None,
        key_root=subject.key_root if subject else None,
        account_id=account_id,
        models=resolve_model_ids(model),
    )
    body = await run_in_threadpool(make_report, report_request, usage_filter)
    body["limits"] = []
    if subject is not None:
        body["limits"] = await read_limit_statuses(
            request, subject, await run_in_threadpool(count_quota_usage, subject)
        )
    return report_response(report_request, body)
