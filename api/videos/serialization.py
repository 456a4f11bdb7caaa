"""Video jobs -> OpenAI's Video object, the answer of `/v1/videos/generations`, and the new-api family's task."""

from typing import Any
from uuid import UUID

from api.http.errors import told
from api.http.responses import seconds_of
from api.jobs.eta import forecast
from api.jobs.serialization import (
    STATUS_OF,
    base64_of,
    expires_at,
    file_url,
    job_error,
    job_progress,
    job_size,
    variant_url,
)
from worker.core.errors import ERRORS, DreameryError
from worker.core.ids import parse_public_id, public_id
from worker.core.job_state import JobState
from worker.db.jobs.queries import JobView


def id_of_video(job_id: UUID) -> str:
    """The id of a video; `/v1/jobs` knows the same job as `job_` and the same digits."""
    return public_id("video", job_id)


def job_id_of(text: str) -> UUID:
    """The job behind the id of a video (or of its job). Raises `video_not_found`."""
    found = parse_public_id("video", text) or parse_public_id("job", text)
    if found is None:
        raise unknown_video(text)
    return found


def unknown_video(text: str) -> DreameryError:
    """No such video, or a stranger's."""
    return DreameryError("video_not_found", f"No video {text[:60]!r}.")


def is_expired(view: JobView) -> bool:
    """Whether the job succeeded and its results are removed."""
    return bool(view.files) and all(item.removed_at is not None for item in view.files)


def _status(view: JobView) -> str:
    """One of the four that clients know (openai-compat rule 17)."""
    ended_badly = view.job.state == JobState.CANCELLED or is_expired(view)
    return "failed" if ended_badly else STATUS_OF[view.job.state]


def _error(view: JobView) -> dict[str, str] | None:
    """Null unless failed: some clients give up on anything else (openai-compat rule 18)."""
    failure = job_error(view)
    if failure:
        return {"code": failure["code"], "message": failure["message"]}
    if view.job.state == JobState.CANCELLED:
        return {"code": "job_cancelled", "message": told(ERRORS["job_cancelled"], None)}
    if is_expired(view):
        return {"code": "video_expired", "message": told(ERRORS["video_expired"], None)}
    return None


def _true_size(view: JobView) -> str:
    film = view.files[0] if view.files else None
    return f"{film.width}x{film.height}" if film is not None and film.width else str(job_size(view.job))


def _true_seconds(view: JobView) -> str:
    film = view.files[0] if view.files else None
    return str(round((film.seconds if film is not None else None) or view.job.params["order"]["seconds"]))


def video_object(view: JobView, base: str) -> dict[str, Any]:
    """OpenAI's Video object. `url` and `metadata.url` are what gateways of the new-api family read."""
    job, status = view.job, _status(view)
    ready = status == "completed" and view.files
    url = file_url(base, view.files[0].id) if ready else None
    adjusted = job.params.get("adjusted") or None
    return {
        "id": id_of_video(job.id),
        "object": "video",
        "model": job.params["asked_model"],
        "status": status,
        "progress": min(job_progress(view), 100 if ready else 99),
        "created_at": seconds_of(job.created_at),
        "completed_at": seconds_of(job.finished_at) if job.state == JobState.SUCCEEDED else None,
        "expires_at": expires_at(view),
        "seconds": _true_seconds(view),
        "size": _true_size(view),
        "prompt": job.params["order"]["prompt"],
        "error": _error(view),
        "remixed_from_video_id": job.params.get("remixed_from_video_id"),
        "url": url,
        "thumbnail_url": variant_url(view, view.files[0].n, "thumbnail", base) if ready else None,
        "metadata": {**job.metadata, **({"url": url} if url else {})},
        "queue_position": view.position,
        "eta_seconds": forecast(view).p50,
        "adjusted": adjusted,
    }


def poll_after(view: JobView) -> dict[str, str]:
    """The header that tells the SDKs how long to wait between two looks; none once the video has ended."""
    if view.job.finished_at is not None:
        return {}
    return {"openai-poll-after-ms": str(forecast(view).poll_after_ms)}


def videos_answer(views: list[JobView], *, response_format: str | None, base: str) -> dict[str, Any]:
    """The seed's shape: `{created, data: [{url, revised_prompt}]}`."""
    films = [item for view in views for item in view.files]
    if response_format == "b64_json":
        data = [{"b64_json": base64_of(film.key), "revised_prompt": None} for film in films]
    else:
        data = [{"url": file_url(base, film.id), "revised_prompt": None} for film in films]
    return {"created": seconds_of(views[0].job.created_at), "data": data}


def task_state(view: JobView, base: str) -> dict[str, Any]:
    """The simple form of the new-api family's `GET /v1/video/generations/{task_id}`."""
    whole = video_object(view, base)
    return {
        "task_id": whole["id"],
        "status": whole["status"],
        "progress": whole["progress"],
        "url": whole["url"],
        "format": view.files[0].mime.partition("/")[2] if view.files else "mp4",
        "metadata": {
            "duration": int(whole["seconds"]),
            "fps": view.job.params["order"]["fps"],
            "width": int(whole["size"].partition("x")[0]),
            "height": int(whole["size"].partition("x")[2]),
            "seed": view.job.params["order"]["seed"],
        },
        "error": whole["error"],
    }


def content_of(view: JobView, variant: str) -> Any:
    """The row of the file that `GET /v1/videos/{id}/content` shall send. Raises why there is none."""
    status = _status(view)
    if is_expired(view):
        raise DreameryError("video_expired")
    if status == "failed":
        failure = _error(view) or {}
        raise DreameryError("video_failed", f"There is nothing to read: {failure.get('message')}")
    if status != "completed":
        message = f"The video is {status} ({job_progress(view)} %). Ask again until its status is `completed`."
        raise DreameryError("video_not_ready", message)
    rows = view.files if variant == "video" else [item for item in view.variants if item.variant == variant]
    if not rows:
        raise DreameryError("file_not_found", f"This video has no {variant}.", param="variant")
    if rows[0].removed_at is not None:
        raise DreameryError("video_expired")
    return rows[0]
