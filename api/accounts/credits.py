"""Credits of an account, for its administrator and its owner."""

from datetime import UTC, datetime, timedelta
from typing import Annotated, Any
from uuid import UUID

from fastapi import Query

from api.accounts.changes import find_account
from api.http.responses import unix_seconds
from worker.core.ids import public_id
from worker.db.credits import balances
from worker.db.engine import transaction

_MAX_READINGS = 2000
_MAX_JOBS = 1000
Days = Annotated[int, Query(ge=1, le=400, description="number of days to report")]


def credits_object(account_id: str, days: int, *, user_id: UUID | None) -> dict[str, Any]:
    """Return the credits of an account; with `user_id` only of an account of that user."""
    since = datetime.now(UTC) - timedelta(days=days)
    with transaction() as tx:
        account = find_account(tx, account_id, user_id=user_id)
        balance = balances.credit_summary(tx, account.id)
        readings = balances.readings(tx, account.id, since=since, limit=_MAX_READINGS)
        reservations = balances.reservations(tx, account.id, limit=_MAX_JOBS)
        spent = balances.spent_by_day(tx, account.id, days=days)
        claims = balances.daily_claims(tx, account.id, limit=days)
    return {
        "object": "account.credits",
        "id": public_id("account", account.id),
        "currency": account.currency,
        "credits": balance.credits if balance else None,
        "credits_at": unix_seconds(balance.credits_at) if balance else None,
        "left": _int_or_none(balance.left) if balance else None,
        "reserved": _int_or_none(balance.reserved) if balance else 0,
        "readings": [{"at": reading.at.timestamp(), "credits": reading.credits} for reading in readings],
        "open_jobs": [_open_job_object(row) for row in reservations],
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
            {"day": str(row.day), "how": row.how, "gained": row.gained, "error": row.error_code} for row in claims
        ],
    }


def _open_job_object(row: Any) -> dict[str, Any]:
    return {
        "id": public_id("job", row.id),
        "kind": row.kind,
        "model": row.model,
        "price": row.price,
        "taken": row.taken,
        "since": unix_seconds(row.submitted_at),
    }


def _int_or_none(value: Any) -> int | None:
    return None if value is None else int(value)
