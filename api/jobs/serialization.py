"""Job rows -> the JSON that callers read: the job object, the pictures of an answer, the error of a failed job.

OpenAI's Video object and the answers of video routes are in `video_objects.py`.
"""

import base64
from datetime import timedelta
from typing import Any

from api.http.errors import told
from api.http.responses import seconds_of
from api.jobs.eta import forecast, usual_seconds
from worker import storage
from worker.core.catalog.models import get_catalog
from worker.core.errors import ERRORS, DreameryError
from worker.core.ids import public_id
from worker.core.job_state import JobState
from worker.core.security.signed_links import file_link
from worker.core.settings import get_settings
from worker.db.jobs.queries import JobView

STATUS_OF = {
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
    """The link of a stored file."""
    return file_link(base, file_id)


def job_progress(view: JobView) -> int:
    """0..100, never falling, 100 only when completed: the larger of what upstream told and what time suggests."""
    job = view.job
    if job.state == JobState.SUCCEEDED:
        return 100
    if job.submitted_at is None:
        return int(min(job.progress, 99))
    # A job that failed or was cancelled stays at what it showed last.
    ran = (job.finished_at - job.submitted_at).total_seconds() if job.finished_at else float(job.running_seconds)
    # By what such jobs took when this one was accepted: a forecast that changes on the way would let it fall.
    by_time = 90 * ran / (ran + (job.usual_seconds or usual_seconds(job.kind)) / 2)
    return int(min(max(job.progress, by_time), 95))


def job_error(view: JobView) -> dict[str, Any] | None:
    """The error object of a failed job, without the `error` wrapper."""
    job = view.job
    if job.error_code is None:
        return None
    kind = ERRORS[job.error_code]
    return {"code": kind.code, "message": told(kind, job.error_message), "type": kind.type, "param": None}


def expires_at(view: JobView) -> int | None:
    """When the results are removed; None = never, or there are none."""
    days = view.job.retention_days
    days = get_settings().retention_days if days is None else days
    if not days or view.job.state != JobState.SUCCEEDED or view.job.pinned_at is not None:
        return None
    return seconds_of(view.job.finished_at + timedelta(days=days))


def expired_at(view: JobView) -> int | None:
    """When the results were removed, the first of them; None = they are there, or there never were any."""
    return min((int(item.removed_at.timestamp()) for item in view.files if item.removed_at is not None), default=None)


def job_object(view: JobView, base: str) -> dict[str, Any]:
    """The job object of the contract, section 4. Nullable keys are always present."""
    job = view.job
    job_id, status = public_id("job", job.id), STATUS_OF[job.state]
    done, awaited = job.state == JobState.SUCCEEDED, forecast(view)
    place = f"{base}/v1/jobs/{job_id}"
    return {
        "id": job_id,
        "object": "job",
        "kind": job.kind,
        "type": job.kind,
        "status": status,
        "model": job.model,
        "group": public_id("job", job.group_id),
        "parent": public_id("job", job.parent_id) if job.parent_id else None,
        "created_at": seconds_of(job.created_at),
        "queued_at": seconds_of(job.created_at),
        "started_at": seconds_of(job.submitted_at),
        "completed_at": seconds_of(job.finished_at),
        "expires_at": expires_at(view),
        "expired_at": expired_at(view),
        "pinned": job.pinned_at is not None,
        "progress": job_progress(view),
        "queue": {
            "position": view.position,
            "upstream_position": job.queue_position,
            "eta_seconds": awaited.p50,
        },
        "eta": None if awaited.p50 is None else {"p50": awaited.p50, "p90": awaited.p90},
        "input": _input(job),
        "output": _output(view, base) if done or job.kind == "chat" else None,
        "error": job_error(view),
        "metadata": job.metadata,
        "favourite": job.favourite,
        "cancelling": job.cancel_requested_at is not None and status == "in_progress",
        "urls": {
            "get": place,
            **{name: f"{place}/{name}" for name in ("events", "cancel", "retry", "timeline")},
        },
        "usage": _usage(view),
    }


def job_size(job: Any) -> str | None:
    """The pixels ordered, `WxH`; of a video those its ratio and resolution stand for, of a conversation none."""
    order = job.params["order"]
    # The agent does not say which size it asked for.
    if job.kind == "image" and order["width"]:
        return f"{order['width']}x{order['height']}"
    if job.kind == "video" and order["ratio"] and order["resolution"]:
        return "{}x{}".format(*get_catalog().video_size(order["ratio"], order["resolution"]))
    return None


def _input(job: Any) -> dict[str, Any]:
    """What the job was asked for: the order, and how it was worded."""
    params = job.params
    return {
        **{name: value for name, value in params["order"].items() if name != "count"},
        "images": params.get("images", []),
        "n": params["n"],
        "size": job_size(job),
        "model": params["asked_model"],
        "flags": params.get("flags", {}),
        **{f"output_{name}": value for name, value in params.get("output", {}).items()},
        **({"adjusted": params["adjusted"]} if params.get("adjusted") else {}),
    }


def variant_url(view: JobView, n: int, variant: str, base: str) -> str | None:
    """The link of another form of result `n`; None when there is none."""
    found = (item for item in view.variants if (item.n, item.variant) == (n, variant))
    item = next(found, None)
    return file_url(base, item.id) if item is not None else None


def _output(view: JobView, base: str) -> list[dict[str, Any]] | dict[str, Any] | None:
    """The files of a job. Of a conversation: its text, also when it broke off, and the jobs it started."""
    if view.job.kind == "chat":
        said = view.spoken.said if view.spoken else ""
        jobs = [public_id("job", child) for child in view.children]
        return {"text": said, "jobs": jobs} if said or jobs or view.job.state == JobState.SUCCEEDED else None
    return [_file(view, item, base) for item in view.files]


def _file(view: JobView, item: Any, base: str) -> dict[str, Any]:
    forms = ("thumbnail", "spritesheet") if view.job.kind == "video" else ()
    return {
        "url": file_url(base, item.id),
        "mime": item.mime,
        "width": item.width,
        "height": item.height,
        "bytes": item.bytes,
        "seconds": item.seconds,
        **{f"{form}_url": variant_url(view, item.n, form, base) for form in forms},
    }


def _usage(view: JobView) -> dict[str, int | None] | None:
    """What was made, once it is, and the credits: expected from the start, charged once upstream told or it ended."""
    job = view.job
    made = _made(view) if job.state == JobState.SUCCEEDED and job.kind != "chat" else {}
    if not made and job.price is None and job.charged is None:
        return None
    return {**made, "credits_estimated": job.price, "credits_charged": job.charged}


def _made(view: JobView) -> dict[str, int]:
    if view.job.kind == "video":
        known = [item.seconds or view.job.params["order"]["seconds"] for item in view.files]
        return {"videos": len(known), "seconds": round(sum(known))}
    return {"images": len(view.files)}


def failure_of(views: list[JobView]) -> tuple[DreameryError, int]:
    """The error, and its HTTP status, of a request none of whose jobs gave a picture."""
    job = views[0].job
    if job.state == JobState.CANCELLED:
        error = DreameryError("job_cancelled", f"Job {public_id('job', job.id)} was cancelled.")
        return error, error.kind.status
    error = DreameryError(job.error_code, job.error_message)
    # With the platform's own accounts a dead session is the operator's trouble, not a wrong key of the caller.
    pooled_session = job.user_id is not None and error.code == "upstream_session_expired"
    return error, 503 if pooled_session else error.kind.status


def base64_of(key: str) -> str:
    """The bytes under a key as JSON carries them. Raises file_expired when they were removed."""
    try:
        return base64.b64encode(storage.read_file(key)).decode()
    except storage.MissingFileError:
        raise DreameryError("file_expired") from None


def safety_echo(view: JobView) -> dict[str, str]:
    """OpenAI tells back the `safety_identifier`, or the older `user`; nothing when neither was sent."""
    told = view.job.metadata.get("safety_identifier") or view.job.metadata.get("user")
    return {"safety_identifier": told} if told else {}
