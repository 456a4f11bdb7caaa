"""Credits of upstream accounts and the prices that are known (`/admin/v1`)."""

from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

from fastapi import APIRouter, Query, Response

from api.accounts.changes import find_account
from api.accounts.schemas import AccountCredits
from api.auth.dependencies import AdminDep
from api.http.errors import error_responses
from api.http.responses import json_response, seconds_of
from api.usage.schemas import PriceList
from worker.core.catalog.models import get_catalog
from worker.core.ids import public_id
from worker.db.credits import balances, learned_prices
from worker.db.engine import transaction

router = APIRouter(prefix="/admin/v1", tags=["admin"], responses=error_responses(400, 401, 403, 404))

_MOST_POINTS = 2000
_MOST_JOBS = 1000


@router.get(
    "/accounts/{account_id}/credits", summary="The credits of an account", responses={200: {"model": AccountCredits}}
)
def get_account_credits(
    account_id: str,
    _admin: AdminDep,
    days: Annotated[int, Query(ge=1, le=400, description="how far back the curve and the days go")] = 30,
) -> Response:
    """What upstream said is left and when, what is held for open jobs, and what was spent on each day."""
    since = datetime.now(UTC) - timedelta(days=days)
    with transaction() as tx:
        account = find_account(tx, account_id, user_id=None)
        purse = balances.purse(tx, account.id)
        points = balances.readings(tx, account.id, since=since, limit=_MOST_POINTS)
        held = balances.reservations(tx, account.id, limit=_MOST_JOBS)
        spent = balances.spent_by_day(tx, account.id, days=days)
        gifts = balances.receives(tx, account.id, limit=days)
    return json_response(
        {
            "object": "account.credits",
            "id": public_id("account", account.id),
            "credits": purse.credits if purse else None,
            "credits_at": seconds_of(purse.credits_at) if purse else None,
            "left": _whole(purse.left) if purse else None,
            "reserved": _whole(purse.reserved) if purse else 0,
            "readings": [{"at": point.at.timestamp(), "credits": point.credits} for point in points],
            "open_jobs": [_open_job(row) for row in held],
            "spent": [
                {
                    "day": str(row.day),
                    "jobs": row.jobs,
                    "credits": int(row.credits),
                    "settled": int(row.settled),
                    "unknown": row.unknown,
                }
                for row in spent
            ],
            "receives": [
                {"day": str(row.day), "how": row.how, "gained": row.gained, "error": row.error_code} for row in gifts
            ],
        }
    )


def _open_job(row: Any) -> dict[str, Any]:
    return {
        "id": public_id("job", row.id),
        "kind": row.kind,
        "model": row.model,
        "price": row.price,
        "taken": row.taken,
        "since": seconds_of(row.submitted_at),
    }


def _whole(value: Any) -> int | None:
    return None if value is None else int(value)


@router.get("/prices", summary="The prices that are known", responses={200: {"model": PriceList}})
def list_prices(
    _admin: AdminDep,
    model: Annotated[str | None, Query(max_length=200, description="only this model's; without the catalog")] = None,
) -> Response:
    """Learned ones first: what upstream charged, newest per shape. Then the catalog's starting values."""
    with transaction() as tx:
        rows = learned_prices.learned(tx, model=model)
    data = [_learned(row) for row in rows]
    if model is None:
        data += [
            {
                "place": place,
                "kind": kind,
                "model": name,
                "shape": shape,
                "credits": credit,
                "source": "catalog",
                "at": None,
                "jobs": 0,
            }
            for place, kind, name, shape, credit in get_catalog().starting_prices()
        ]
    return json_response({"object": "list", "data": data, "has_more": False})


def _learned(row: Any) -> dict[str, Any]:
    whole = f"{row.units}s" if row.kind == "video" else f"x{row.units}"
    return {
        "place": row.place,
        "kind": row.kind,
        "model": row.model,
        "shape": " ".join(part for part in (row.size, row.variant, whole) if part),
        "credits": row.credits,
        "source": row.source,
        "at": seconds_of(row.at),
        "jobs": row.jobs,
    }
