"""Account rows as JSON. The session id is never included; of the proxy only kind, host and port."""

from datetime import UTC, datetime
from typing import Any

from api.accounts.schemas import DAYS, model_counts
from api.http.responses import unix_seconds
from worker.core.ids import public_id


def account_object(row: Any) -> dict[str, Any]:
    """Return the account as its owner and administrators see it."""
    resting = row.state == "ok" and row.rest_until is not None and row.rest_until > datetime.now(UTC)
    return {
        "id": public_id("account", row.id),
        "object": "account",
        "label": row.label,
        "region": row.region,
        "country": (row.cluster or {}).get("country"),
        "pool": row.pool,
        "user_id": public_id("user", row.user_id) if row.user_id is not None else None,
        "user": row.user_name,
        "groups": row.groups,
        "state": "resting" if resting else row.state,
        "state_code": row.rest_code if resting else row.state_code,
        "state_since": unix_seconds(row.state_at),
        "rest_until": unix_seconds(row.rest_until) if resting else None,
        "rest_code": row.rest_code if resting else None,
        "max_images": row.max_images,
        "max_videos": row.max_videos,
        "submits_per_minute": row.submits_per_minute,
        "max_jobs_per_day": row.max_jobs_per_day,
        "poll_min_seconds": row.poll_min_seconds,
        "poll_max_seconds": row.poll_max_seconds,
        "poll_eagerness": row.poll_eagerness,
        "jobs_today": row.jobs_today,
        "working_hours": _working_hours(row),
        "open_now": row.open_now,
        "opens_at": None if row.open_now else unix_seconds(row.opens_at),
        "credits": row.credits,
        "credits_at": unix_seconds(row.credits_at),
        "credits_left": None if row.credits_left is None else int(row.credits_left),
        "daily_receive": row.daily_receive,
        "models": model_counts(row.models),
        "checked_at": unix_seconds(row.checked_at),
        "check_code": row.check_code,
        "next_check_at": unix_seconds(row.refresh_due_at),
        "last_submit_at": unix_seconds(row.last_submit_at),
        "in_flight": row.in_flight,
        "has_proxy": row.has_proxy,
        "proxy": row.proxy_place,
        "created_at": unix_seconds(row.created_at),
    }


def account_check_object(row: Any, check: dict[str, Any] | None) -> dict[str, Any]:
    """Return the result of a check; `result` is None while no worker has answered."""
    result = check or {}
    return {
        "done": check is not None,
        "live": result.get("live"),
        "credits": result.get("credits"),
        "region": (row.cluster or {}).get("country") or (row.region if result.get("live") else None),
        "models": result.get("models"),
        "error": result.get("error"),
    }


def _working_hours(row: Any) -> dict[str, Any] | None:
    if row.hours_zone is None:
        return None
    return {
        "days": [DAYS[day - 1] for day in row.hours_days],
        "start": row.hours_from.strftime("%H:%M"),
        "end": row.hours_to.strftime("%H:%M"),
        "zone": row.hours_zone,
    }
