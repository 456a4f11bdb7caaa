"""Convert job rows to JSON: the job object, its files and usage, and the error of a failed job.

OpenAI's Images response and Video object are in the `serialization.py` of `api/images` and `api/videos`.
"""

import base64
from datetime import UTC, datetime, timedelta
from typing import Any

from api.http.errors import localized_message
from api.http.responses import unix_seconds
from api.jobs.eta import Eta, default_seconds, estimate_eta
from worker import storage
from worker.core.catalog.models import get_catalog
from worker.core.catalog.money import to_amount
from worker.core.errors import ERRORS, DreameryError
from worker.core.ids import public_id
from worker.core.job_state import JobState
from worker.core.security.session_tokens import SANDBOX
from worker.core.security.signed_links import create_file_link
from worker.core.settings import get_settings
from worker.db.jobs.queries import JobView

STATUS_OF = {
    JobState.HELD: "queued",
    JobState.QUEUED: "queued",
    JobState.SUBMITTING: "in_progress",
    JobState.RUNNING: "in_progress",
    JobState.SAVING: "in_progress",
    JobState.SUCCEEDED: "completed",
    JobState.FAILED: "failed",
    JobState.CANCELLED: "cancelled",
}
STATES_OF: dict[str, list[str]] = {}
for _state, _status in STATUS_OF.items():
    STATES_OF.setdefault(_status, []).append(_state)


def file_url(base: str, file_id: Any) -> str:
    """Return the link of a stored file."""
    return create_file_link(base, file_id)


def job_progress(view: JobView) -> int:
    """Progress 0..100: the larger of upstream's value and an estimate by time. It never falls while the job is open.

    100 only when completed; 0 for a job that ended without a result.
    """
    job = view.job
    if job.finished_at is not None:
        return 100 if job.state == JobState.SUCCEEDED else 0
    if job.submitted_at is None:
        return int(min(job.progress, 99))
    ran = float(job.running_seconds)
    # Uses the typical duration stored at acceptance: a changing estimate could make the progress fall.
    by_time = 90 * ran / (ran + (job.usual_seconds or default_seconds(job.kind)) / 2)
    return int(min(max(job.progress, by_time), 95))


def job_error(view: JobView) -> dict[str, Any] | None:
    """The error object of a failed job, without the `error` wrapper; None without an error."""
    job = view.job
    if job.error_code is None:
        return None
    kind = ERRORS[job.error_code]
    return {"code": kind.code, "message": localized_message(kind, job.error_message), "type": kind.type, "param": None}


def removal_time(finished_at: datetime, retention_days: int | None, *, pinned: bool) -> int | None:
    """Return when a result is removed, in unix seconds; None = never. `retention_days` = those of its user, if any."""
    days = get_settings().retention_days if retention_days is None else retention_days
    return unix_seconds(finished_at + timedelta(days=days)) if days and not pinned else None


def is_pinned(view: JobView) -> bool:
    """Return whether all results of the job are kept, also those that it will have."""
    if view.job.pinned_at is None:
        return False
    return all(item.pinned is not False for item in view.files if item.removed_at is None)


def expires_at(view: JobView) -> int | None:
    """Unix time when the results will be removed, except pinned ones; None = never, or there are none."""
    if view.job.state != JobState.SUCCEEDED:
        return None
    return removal_time(view.job.finished_at, view.job.retention_days, pinned=is_pinned(view))


def expired_at(view: JobView) -> int | None:
    """Unix time when the first result was removed; None = none was removed."""
    return min((int(item.removed_at.timestamp()) for item in view.files if item.removed_at is not None), default=None)


def job_object(view: JobView, base: str) -> dict[str, Any]:
    """The job object of the API contract, section 4. Nullable keys are always present."""
    job = view.job
    job_id, status = public_id("job", job.id), STATUS_OF[job.state]
    done, eta = job.state == JobState.SUCCEEDED, estimate_eta(view)
    url = f"{base}/v1/jobs/{job_id}"
    return {
        "id": job_id,
        "object": "job",
        "kind": job.kind,
        "type": job.kind,
        "status": status,
        "model": job.model,
        "provider": job.providers[0],
        "route": job_route(job),
        "group": public_id("job", job.group_id),
        "batch": public_id("batch", job.batch_id) if job.batch_id else None,
        "schedule": _schedule(job),
        "parent": public_id("job", job.parent_id) if job.parent_id else None,
        "created_at": unix_seconds(job.created_at),
        "queued_at": unix_seconds(job.created_at),
        "started_at": unix_seconds(job.submitted_at),
        "completed_at": unix_seconds(job.finished_at),
        "expires_at": expires_at(view),
        "expired_at": expired_at(view),
        "pinned": is_pinned(view),
        "progress": job_progress(view),
        "queue": {
            "position": view.position,
            "upstream_position": job.queue_position,
            "eta_seconds": eta.shown_seconds,
        },
        "eta": _remaining_time(eta),
        "input": _input(job),
        "output": _output(view, base) if done or job.kind == "chat" else None,
        "error": job_error(view),
        "metadata": job.metadata,
        "favourite": job.favourite,
        "sandbox": job.region == SANDBOX,
        "cancelling": job.cancel_requested_at is not None and status == "in_progress",
        "urls": {
            "get": url,
            **{name: f"{url}/{name}" for name in ("events", "cancel", "retry", "timeline")},
        },
        "usage": _usage(view),
    }


def _schedule(job: Any) -> dict[str, Any] | None:
    """When the job runs, if its request or its batch said so."""
    is_held = job.state == JobState.HELD
    if not is_held and job.expires_at is None and job.lane is None:
        return None
    return {
        "held": is_held,
        "not_before": unix_seconds(job.due_at) if is_held and job.due_at > datetime.now(UTC) else None,
        "expires_at": unix_seconds(job.expires_at),
        "priority": job.lane or "normal",
    }


def _remaining_time(eta: Eta) -> dict[str, Any] | None:
    if eta.p50 is None:
        return None
    shown = {"p50": None, "p90": None} if eta.late else {"p50": eta.p50, "p90": eta.p90}
    return {**shown, "late": eta.late, "text": eta.text}


def job_size(job: Any) -> str | None:
    """The ordered size as `WxH`; for a video, the pixels of its ratio and resolution; None for a conversation."""
    order = job.params["order"]
    # The agent does not report the size that it requested.
    if job.kind == "image" and order["width"]:
        return f"{order['width']}x{order['height']}"
    if job.kind == "video" and order["ratio"] and order["resolution"]:
        return "{}x{}".format(*get_catalog().video_size(order["ratio"], order["resolution"], job.model))
    return None


def job_route(job: Any) -> dict[str, Any] | None:
    """The choice of the model, if the requested name meant several; None otherwise."""
    route = job.params.get("route")
    return None if route is None else {"requested": job.params["asked_model"], "model": job.model, **route}


def _input(job: Any) -> dict[str, Any]:
    """The input of the job: the order, and the parameters as the caller wrote them."""
    params = job.params
    order = dict(params["order"])
    options = dict(order.pop("options", {}))
    # Upstream's id of the draft stays inside; the caller knows its job.
    options |= {"draft_of": params["draft_of"]} if "draft_of" in params else {}
    return {
        **{name: value for name, value in order.items() if name != "count"},
        **({"seed": None} if order.get("seed") == -1 else {}),
        **options,
        "images": params.get("images", []),
        "n": params["n"],
        "size": job_size(job),
        "model": params["asked_model"],
        "flags": params.get("flags", {}),
        **{f"output_{name}": value for name, value in params.get("output", {}).items()},
        **{name: params[name] for name in ("adjusted", "follow_up", "conversation") if params.get(name)},
    }


def variant_url(view: JobView, n: int, variant: str, base: str) -> str | None:
    """The link of a variant (thumbnail, spritesheet) of result `n`; None if it does not exist."""
    item = next((item for item in view.variants if (item.n, item.variant) == (n, variant)), None)
    return file_url(base, item.id) if item is not None else None


def _output(view: JobView, base: str) -> list[dict[str, Any]] | dict[str, Any] | None:
    """The files of a job; for a conversation, its text (also if it was interrupted) and the jobs it started."""
    if view.job.kind == "chat":
        text = view.reply.text if view.reply else ""
        jobs = [public_id("job", child) for child in view.children]
        return {"text": text, "jobs": jobs} if text or jobs or view.job.state == JobState.SUCCEEDED else None
    return [_file(view, item, base) for item in view.files]


def _file(view: JobView, item: Any, base: str) -> dict[str, Any]:
    variants = ("thumbnail", "spritesheet", "last_frame") if view.job.kind == "video" else ()
    job = view.job
    # Without a mark of its own, it has that of its job.
    favourite = job.favourite if item.favourite is None else item.favourite
    pinned = job.pinned_at is not None if item.pinned is None else item.pinned
    removed = item.removed_at is not None
    return {
        "id": public_id("file", item.id),
        "n": item.n,
        "favourite": favourite,
        "pinned": pinned,
        "expires_at": None if removed else removal_time(job.finished_at, job.retention_days, pinned=pinned),
        "expired": removed,
        "url": file_url(base, item.id),
        "mime": item.mime,
        "width": item.width,
        "height": item.height,
        "bytes": item.bytes,
        "seconds": item.seconds,
        **{f"{variant}_url": variant_url(view, item.n, variant, base) for variant in variants},
        **({"layer": item.layer} if item.layer else {}),
    }


def _usage(view: JobView) -> dict[str, Any] | None:
    """Result counts once completed, and credits: estimated from the start, charged once known."""
    job = view.job
    counts = _result_counts(view) if job.state == JobState.SUCCEEDED and job.kind != "chat" else {}
    if not counts and job.price is None and job.charged is None:
        return None
    money = {}
    if job.currency is not None:
        amounts = {"cost_estimated": to_amount(job.price), "cost_charged": to_amount(job.charged)}
        money = {"currency": job.currency, **amounts}
    return {**counts, "credits_estimated": job.price, "credits_charged": job.charged, **money}


def _result_counts(view: JobView) -> dict[str, int]:
    made = [*view.files, *view.deleted]
    if view.job.kind == "video":
        durations = [item.seconds or view.job.params["order"]["seconds"] for item in made]
        return {"videos": len(durations), "seconds": round(sum(durations))}
    return {"images": len(made)}


def group_error(views: list[JobView]) -> tuple[DreameryError, int]:
    """The error and HTTP status of a request whose jobs failed, were cancelled, or whose results were all deleted."""
    job = views[0].job
    if job.state == JobState.SUCCEEDED:
        error = DreameryError("job_deleted", "The results of this job were deleted. Submit it again.")
        return error, error.kind.status
    if job.state == JobState.CANCELLED:
        error = DreameryError("job_cancelled", f"Job {public_id('job', job.id)} was cancelled.")
        return error, error.kind.status
    error = DreameryError(job.error_code, job.error_message)
    # With the platform's own accounts, an expired session is the operator's problem, not an invalid key.
    pooled_session = job.user_id is not None and error.code == "upstream_session_expired"
    return error, 503 if pooled_session else error.kind.status


def read_base64(key: str) -> str:
    """Read a stored file as base64 text. Raises file_expired when it was removed."""
    try:
        return base64.b64encode(storage.read_file(key)).decode()
    except storage.MissingFileError:
        raise DreameryError("file_expired") from None


def safety_identifier_field(view: JobView) -> dict[str, str]:
    """Echo `safety_identifier`, or the older `user`, as OpenAI does; empty when neither was sent."""
    identifier = view.job.metadata.get("safety_identifier") or view.job.metadata.get("user")
    return {"safety_identifier": identifier} if identifier else {}
