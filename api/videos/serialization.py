"""Video jobs -> OpenAI's Video object, the answer of `/v1/videos/generations`, and the new-api family's task."""

from typing import Any
from uuid import UUID

from api.http.errors import localized_message
from api.http.responses import unix_seconds
from api.jobs.eta import estimate_eta
from api.jobs.serialization import (
    STATUS_OF,
    expires_at,
    file_url,
    job_error,
    job_progress,
    job_size,
    read_base64,
    variant_url,
)
from api.videos.openai_values import nearest_openai_size
from worker.core.errors import ERRORS, DreameryError
from worker.core.ids import parse_public_id, public_id
from worker.core.job_state import JobState
from worker.db.jobs.queries import JobView


def public_video_id(job_id: UUID) -> str:
    """Return the public id of a video; `/v1/jobs` shows the same job as `job_` with the same digits."""
    return public_id("video", job_id)


def parse_video_id(text: str) -> UUID:
    """Return the job id of a video id (or of a job id). Raises `video_not_found`."""
    found = parse_public_id("video", text) or parse_public_id("job", text)
    if found is None:
        raise video_not_found_error(text)
    return found


def video_not_found_error(text: str) -> DreameryError:
    """Return the error for an unknown video or a video of another user."""
    return DreameryError("video_not_found", f"No video {text[:60]!r}.")


def is_expired(view: JobView) -> bool:
    """Return whether the job succeeded and its results were removed or deleted."""
    return bool(view.files or view.deleted) and all(item.removed_at is not None for item in view.files)


def _status(view: JobView) -> str:
    """Return one of the four statuses that clients know (openai-compat rule 17)."""
    is_failed = view.job.state == JobState.CANCELLED or is_expired(view)
    return "failed" if is_failed else STATUS_OF[view.job.state]


def _error(view: JobView) -> dict[str, str] | None:
    """Return the error; None unless failed, because some clients stop polling otherwise (openai-compat rule 18)."""
    failure = job_error(view)
    if failure:
        return {"code": failure["code"], "message": failure["message"]}
    if view.job.state == JobState.CANCELLED:
        return {"code": "job_cancelled", "message": localized_message(ERRORS["job_cancelled"], None)}
    if is_expired(view):
        return {"code": "video_expired", "message": localized_message(ERRORS["video_expired"], None)}
    return None


def _actual_pixels(view: JobView) -> tuple[int, int]:
    """Return width and height of the file; before it exists, those that were ordered."""
    video = view.files[0] if view.files else None
    if video is not None and video.width and video.height:
        return video.width, video.height
    width, _, height = str(job_size(view.job)).partition("x")
    return int(width), int(height)


def _openai_size(view: JobView) -> str:
    """Return OpenAI's name of what was ordered. Jobs of earlier versions have none, so it follows from their order."""
    ordered = view.job.params.get("openai_size")
    return ordered or nearest_openai_size(*map(int, str(job_size(view.job)).split("x")))


def _actual_seconds(view: JobView) -> str:
    video = view.files[0] if view.files else None
    return str(round((video.seconds if video is not None else None) or view.job.params["order"]["seconds"]))


def video_object(view: JobView, base: str) -> dict[str, Any]:
    """Return OpenAI's Video object. Gateways of the new-api family read `url` and `metadata.url`."""
    job, status = view.job, _status(view)
    ready = status == "completed" and view.files
    url = file_url(base, view.files[0].id) if ready else None
    adjusted = job.params.get("adjusted") or None
    width, height = _actual_pixels(view)
    return {
        "id": public_video_id(job.id),
        "object": "video",
        "model": job.params["asked_model"],
        "status": status,
        "progress": min(job_progress(view), 100 if ready else 99),
        "created_at": unix_seconds(job.created_at),
        "completed_at": unix_seconds(job.finished_at) if job.state == JobState.SUCCEEDED else None,
        "expires_at": expires_at(view),
        "seconds": _actual_seconds(view),
        "size": _openai_size(view),
        "width": width,
        "height": height,
        "prompt": job.params["order"]["prompt"],
        "error": _error(view),
        "remixed_from_video_id": job.params.get("remixed_from_video_id"),
        "url": url,
        "thumbnail_url": variant_url(view, view.files[0].n, "thumbnail", base) if ready else None,
        "metadata": {**job.metadata, **({"url": url} if url else {})},
        "queue_position": view.position,
        "eta_seconds": estimate_eta(view).shown_seconds,
        "adjusted": adjusted,
    }


def poll_headers(view: JobView) -> dict[str, str]:
    """Return the header with the SDKs' polling interval; {} once the video has ended."""
    if view.job.finished_at is not None:
        return {}
    return {"openai-poll-after-ms": str(estimate_eta(view).poll_after_ms)}


def videos_response(views: list[JobView], *, response_format: str | None, base: str) -> dict[str, Any]:
    """Return the answer of `/v1/videos/generations`: `{created, data: [{url, revised_prompt}]}`."""
    videos = [item for view in views for item in view.files]
    if response_format == "b64_json":
        data = [{"b64_json": read_base64(video.key), "revised_prompt": None} for video in videos]
    else:
        data = [{"url": file_url(base, video.id), "revised_prompt": None} for video in videos]
    adjusted = views[0].job.params.get("adjusted")
    return {
        "created": unix_seconds(views[0].job.created_at),
        "data": data,
        **({"adjusted": adjusted} if adjusted else {}),
    }


def task_state(view: JobView, base: str) -> dict[str, Any]:
    """Return the answer of the new-api family's `GET /v1/video/generations/{task_id}`."""
    video = video_object(view, base)
    return {
        "task_id": video["id"],
        "status": video["status"],
        "progress": video["progress"],
        "url": video["url"],
        "format": view.files[0].mime.partition("/")[2] if view.files else "mp4",
        "metadata": {
            "duration": int(video["seconds"]),
            "fps": view.job.params["order"]["fps"],
            "width": video["width"],
            "height": video["height"],
            "seed": view.job.params["order"]["seed"],
        },
        "error": video["error"],
    }


def select_content_file(view: JobView, variant: str) -> Any:
    """Return the file row that `GET /v1/videos/{id}/content` sends. Raises an error when there is none."""
    status = _status(view)
    if is_expired(view):
        raise DreameryError("video_expired")
    if status == "failed":
        failure = _error(view) or {}
        raise DreameryError("video_failed", f"The video has no content: {failure.get('message')}")
    if status != "completed":
        message = f"The video is {status} ({job_progress(view)} %). Retry until its status is `completed`."
        raise DreameryError("video_not_ready", message)
    rows = view.files if variant == "video" else [item for item in view.variants if item.variant == variant]
    if not rows:
        raise DreameryError("file_not_found", f"This video has no {variant}.", param="variant")
    if rows[0].removed_at is not None:
        raise DreameryError("video_expired")
    return rows[0]
