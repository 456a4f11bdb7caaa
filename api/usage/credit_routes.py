"""Credits of upstream accounts and known prices (`/admin/v1`)."""

from typing import Annotated, Any

from fastapi import APIRouter, Query, Response

from api.accounts.credits import Days, credits_object
from api.accounts.schemas import AccountCredits
from api.auth.dependencies import AdminDep
from api.http.errors import error_responses
from api.http.responses import json_response, unix_seconds
from api.usage.schemas import PriceList
from worker.core.catalog.models import get_catalog
from worker.core.catalog.money import PER_UNIT, Pricing
from worker.core.catalog.price_lists import price_lines
from worker.db.credits import learned_prices
from worker.db.engine import transaction

router = APIRouter(prefix="/admin/v1", tags=["admin"], responses=error_responses(400, 401, 403, 404))


@router.get(
    "/accounts/{account_id}/credits",
    summary="Get the credits of an account",
    responses={200: {"model": AccountCredits}},
)
def get_account_credits(account_id: str, _admin: AdminDep, days: Days = 30) -> Response:
    """Returns the credit readings, the credits reserved for open jobs, and the credits spent per day."""
    return json_response(credits_object(account_id, days, user_id=None))


@router.get("/prices", summary="List the known prices", responses={200: {"model": PriceList}})
def list_prices(
    _admin: AdminDep,
    model: Annotated[
        str | None, Query(max_length=200, description="only learned prices and list prices of this model")
    ] = None,
) -> Response:
    """Lists the learned prices first (newest per shape), then the starting values and the list prices in money."""
    with transaction() as tx:
        rows = learned_prices.list_learned_prices(tx, model=model)
    data = [_learned_price_object(row) for row in rows]
    if model is None:
        data += [
            {
                "place": region,
                "kind": kind,
                "model": name,
                "shape": shape,
                "credits": credit,
                "source": "catalog",
                "at": None,
                "jobs": 0,
            }
            for region, kind, name, shape, credit in get_catalog().default_prices()
        ]
    data += _list_prices(model)
    return json_response({"object": "list", "data": data, "has_more": False})


def _list_prices(model: str | None) -> list[dict[str, Any]]:
    """Return the prices of models that are sold for money."""
    catalog = get_catalog()
    models: list[tuple[str, str, Pricing]] = [("image", one.id, one.pricing) for one in catalog.image_models]
    models += [("video", one.id, one.pricing) for one in catalog.video_models]
    return [
        {
            "place": line.currency,
            "kind": kind,
            "model": name,
            "shape": line.shape,
            "credits": round(line.price * PER_UNIT, 3),
            "currency": line.currency,
            "price": line.price,
            "unit": line.unit,
            "source": "list",
            "at": None,
            "jobs": 0,
        }
        for kind, name, pricing in models
        if model in {None, name}
        for line in price_lines(pricing)
    ]


def _learned_price_object(row: Any) -> dict[str, Any]:
    units = f"{row.units}s" if row.kind == "video" else f"x{row.units}"
    return {
        "place": row.place,
        "kind": row.kind,
        "model": row.model,
        "shape": " ".join(part for part in (row.size, row.variant, units) if part),
        "credits": row.credits,
        "source": row.source,
        "at": unix_seconds(row.at),
        "jobs": row.jobs,
    }
