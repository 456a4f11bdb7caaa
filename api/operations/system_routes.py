"""`GET /admin/v1/system`: state of the platform for the console: queues, recent results, errors, accounts, checks."""

from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any

from fastapi import APIRouter, Request, Response

from api.auth.dependencies import AdminDep
from api.http.errors import error_responses
from api.http.responses import json_response
from api.operations.readiness import run_checks
from api.operations.schemas import System
from worker.core.errors import ERRORS
from worker.core.job_state import FINAL, JobState
from worker.core.settings import get_settings
from worker.db.engine import transaction
from worker.db.jobs import queries
from worker.db.jobs.transition_metrics import outcome_of
from worker.db.platform import activity, gauges
from worker.db.platform import state as platform_state

router = APIRouter(prefix="/admin/v1", tags=["admin"], responses=error_responses(401, 403))

_HOURS = 24
_KINDS = ("image", "video", "chat")


def _max_job_lifetime() -> timedelta:
    """The longest time a job can be open, plus an hour for delays."""
    settings = get_settings()
    return timedelta(
        hours=1,
        seconds=settings.queue_deadline_seconds
        + max(settings.image_deadline_seconds, settings.video_deadline_seconds)
        + settings.save_deadline_seconds,
    )


@router.get("/system", summary="Get the state of the platform", responses={200: {"model": System}})
def see_system(request: Request, _admin: AdminDep) -> Response:
    """Open jobs and their waiting times, jobs ended in the last 24 hours, errors, accounts, versions and checks.

    `GET /admin/v1/workers` lists the workers.
    """
    from worker.local.schema_upgrade import newest_revision

    now = datetime.now(UTC)
    first_hour = now.replace(minute=0, second=0, microsecond=0) - timedelta(hours=_HOURS - 1)
    checks = run_checks()
    settings = get_settings()
    with transaction() as tx:
        rows = gauges.read(tx)
        recent = activity.read(tx, since=first_hour, oldest=first_hour - _max_job_lifetime())
        body: dict[str, Any] = {
            "object": "system",
            "at": int(now.timestamp()),
            "version": request.app.version,
            "schema": {"present": queries.schema_revision(tx), "newest": newest_revision()},
            "checks": checks,
            "draining": platform_state.get_drain_reason(tx) is not None,
            "open": _open_jobs(activity.queues(tx)),
            "webhooks_waiting": rows.webhooks,
        }
    body |= {
        "hours": _hours(recent.ended, first_hour),
        "outcomes": _outcomes(recent.ended),
        "errors": _errors(recent),
        "accounts": [
            {"region": row.region, "pool": row.pool, "state": row.state, "accounts": row.n, "credits": int(row.credits)}
            for row in rows.accounts
        ],
        "defaults": {
            "max_images": settings.account_max_images,
            "max_videos": settings.account_max_videos,
            "submits_per_minute": settings.account_submits_per_minute,
            "poll_min_seconds": settings.poll_min_seconds,
            "poll_max_seconds": settings.poll_max_seconds,
            "poll_eagerness": settings.poll_eagerness,
        },
        "flower_url": settings.flower_url or None,
    }
    return json_response(body)


def _open_jobs(rows: list[Any]) -> list[dict[str, Any]]:
    counts = {kind: {"kind": kind, "queued": 0, "running": 0, "oldest_queued_seconds": None} for kind in _KINDS}
    for row in rows:
        entry: dict[str, Any] = counts[row.kind]
        if row.state == JobState.QUEUED:
            entry |= {"queued": row.n, "oldest_queued_seconds": round(float(row.oldest), 1)}
        else:
            entry["running"] += row.n
    return list(counts.values())


def _hours(ended: list[Any], first: datetime) -> list[dict[str, int]]:
    counts: Counter[tuple[int, str]] = Counter()
    for row in ended:
        counts[int(row.hour.timestamp()), row.state] += row.n
    return [
        {"at": at, **{state.value: counts[at, state] for state in JobState if state in FINAL}}
        for at in (int((first + timedelta(hours=n)).timestamp()) for n in range(_HOURS))
    ]


def _outcomes(ended: list[Any]) -> dict[str, int]:
    counts: Counter[str] = Counter()
    for row in ended:
        counts[outcome_of(row.state, row.code or "")] += row.n
    return dict(counts)


def _errors(recent: activity.Activity) -> list[dict[str, Any]]:
    failed: Counter[str] = Counter()
    for row in recent.ended:
        if row.state == JobState.FAILED:
            failed[row.code] += row.n
    survived = Counter({row.code: row.n for row in recent.refusals})
    return [
        {
            "code": code,
            "fault": str(ERRORS[code].fault) if code in ERRORS else "platform",
            "failed": failed[code],
            "survived": survived[code],
        }
        for code, _ in (failed + survived).most_common()
    ]
