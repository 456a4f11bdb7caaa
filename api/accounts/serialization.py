"""Account rows as JSON. The session id is never included; of the proxy only kind, host and port."""

import math
import time
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from api.accounts.provider_fields import model_names
from api.accounts.schemas import DAYS, model_counts
from api.http.responses import unix_seconds
from worker.core.catalog.provider_data import all_providers
from worker.core.ids import public_id
from worker.db.accounts import management


def account_object(row: Any) -> dict[str, Any]:
    """Return the account as its owner and administrators see it."""
    resting = row.state == "ok" and row.rest_until is not None and row.rest_until > datetime.now(UTC)
    return {
        "id": public_id("account", row.id),
        "object": "account",
        "label": row.label,
        "provider": row.provider,
        "region": row.region,
        "currency": row.currency,
        "limit_group": management.group_name(row.limit_group),
        "model_ids": row.model_ids,
        "model_rests": _model_rests(row.model_rests),
        "prices": row.prices,
        "key": None if all_providers()[row.provider].has_sessions else _key_facts(row.provider_facts),
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


def _model_rests(rests: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the models that rest now: first the closed ones, then those whose rest ends first."""
    now = time.time()
    found = [
        {
            "model": model,
            "code": rest.get("code") or "",
            "detail": rest.get("detail"),
            "closed": math.isinf(until),
            "until": None if math.isinf(until) else math.ceil(until),
            "since": None if rest.get("at") is None else int(float(rest["at"])),
        }
        for model, rest in rests.items()
        if (until := float(rest["until"])) > now
    ]
    return sorted(found, key=lambda one: (one["until"] or 0, one["model"]))


def _key_facts(facts: dict[str, Any]) -> dict[str, Any]:
    return {
        "scope": facts.get("scope"),
        "models": facts.get("listed"),
        "unknown_models": facts.get("unlisted"),
        "tasks": facts.get("tasks"),
        "echo_proved": bool(facts.get("echo_proved")),
        "checked_at": facts.get("facts_at"),
    }


def providers_object() -> dict[str, Any]:
    """Return all providers, with what a form for their accounts needs."""
    data = [
        {
            "name": one.name,
            "title": one.title,
            "credential": one.credentials.kind,
            "regions": list(one.regions),
            "currencies": dict(one.currencies),
            "sites": [asdict(site) for site in one.credentials.sites],
            "models": [] if one.has_sessions else sorted(set(model_names(one).values())),
        }
        for one in all_providers().values()
    ]
    return {"object": "list", "data": data}


def _working_hours(row: Any) -> dict[str, Any] | None:
    if row.hours_zone is None:
        return None
    return {
        "days": [DAYS[day - 1] for day in row.hours_days],
        "start": row.hours_from.strftime("%H:%M"),
        "end": row.hours_to.strftime("%H:%M"),
        "zone": row.hours_zone,
    }
