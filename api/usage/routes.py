"""Usage reports: your own (`/v1/usage`), and for administrators everybody's (`/admin/v1/usage`)."""

from datetime import date
from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import APIRouter, Query, Request, Response
from starlette.concurrency import run_in_threadpool

from api.admin.routes import find_key, find_user
from api.auth.dependencies import AdminDep, Caller, ReaderDep
from api.http.errors import error_responses
from api.http.fields import Text
from api.jobs.routes import model_id
from api.usage.report import answer, count_budgets, make_report, read_question, standings
from api.usage.schemas import UsageReport
from worker.core.errors import DreameryError
from worker.core.ids import parse_public_id, public_id
from worker.core.quotas import OwnLimits
from worker.db.engine import transaction
from worker.db.users.quotas import own_limits
from worker.db.users.usage import ALL_GROUPS, OWN_GROUPS, UsageFilter

router = APIRouter()

From = Annotated[date | None, Query(alias="from", description="first day, `YYYY-MM-DD`; default: of the month of `to`")]
To = Annotated[date | None, Query(alias="to", description="last day, included; default: today")]
Form = Annotated[Literal["json", "csv"] | None, Query(alias="format", description="also chosen by `Accept: text/csv`")]
Model = Annotated[Text | None, Query(description="only this model, by id or alias")]
_ANSWER: dict[int | str, dict[str, Any]] = {
    200: {
        "model": UsageReport,
        "content": {"text/csv": {"example": "day,accepted,succeeded,...\r\n2026-11-25,3,2,...\r\n"}},
        "description": "The report.",
    }
}


@router.get(
    "/v1/usage",
    tags=["usage"],
    summary="See your usage",
    responses={**_ANSWER, **error_responses(400, 401, 403)},
)
async def own_usage(
    request: Request,
    caller: ReaderDep,
    *,
    first: From = None,
    last: To = None,
    group_by: Annotated[str, Query(description=f"of {', '.join(OWN_GROUPS)}; comma-separated")] = "day",
    model: Model = None,
    form: Form = None,
) -> Response:
    """Jobs, pictures, seconds of video and credits, and where each of your limits stands.

    All keys of your user together; a key without the scope `read` is told of its own jobs only.
    """
    asked = read_question(request, days=(first, last), group_by=group_by, form=form, allowed=OWN_GROUPS)
    narrowed = None if caller.may("read") else caller.key_root
    wanted = UsageFilter(owner=caller.owner, key_root=narrowed, model=model_id(model))
    body = await run_in_threadpool(make_report, asked, wanted)
    body["limits"] = await standings(request, caller, await run_in_threadpool(count_budgets, caller))
    return answer(asked, body)


def _whose(user: str | None, key: str | None) -> Caller | None:
    """The user, or the key with its user, whose usage alone is asked for. Raises user_not_found, key_not_found."""
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
    summary="See everybody's usage",
    responses={**_ANSWER, **error_responses(400, 401, 403, 404)},
)
async def all_usage(
    request: Request,
    _admin: AdminDep,
    *,
    first: From = None,
    last: To = None,
    group_by: Annotated[str, Query(description=f"of {', '.join(ALL_GROUPS)}; comma-separated")] = "user",
    user: Annotated[str | None, Query(max_length=120, description="only this user: name or id")] = None,
    key: Annotated[
        str | None, Query(max_length=60, description="only this API key, with those it was rotated from")
    ] = (None),
    account: Annotated[str | None, Query(max_length=60, description="only jobs on this upstream account")] = None,
    model: Model = None,
    form: Form = None,
) -> Response:
    """All jobs of all users; of one user or key also where its limits stand."""
    asked = read_question(request, days=(first, last), group_by=group_by, form=form, allowed=ALL_GROUPS)
    account_id = parse_public_id("account", account) if account is not None else None
    if account is not None and account_id is None:
        raise DreameryError("account_not_found", f"No account {account[:60]!r}.")
    whose = await run_in_threadpool(_whose, user, key)
    wanted = UsageFilter(
        owner=whose.owner if whose else None,
        key_root=whose.key_root if whose else None,
        account_id=account_id,
        model=model_id(model),
    )
    body = await run_in_threadpool(make_report, asked, wanted)
    body["limits"] = []
    if whose is not None:
        body["limits"] = await standings(request, whose, await run_in_threadpool(count_budgets, whose))
    return answer(asked, body)
