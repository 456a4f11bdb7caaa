"""Jobs in the vendor's shapes: tasks, images and their usage."""

import math
from typing import Any
from uuid import UUID

from api.http.errors import localized_message
from api.http.responses import unix_seconds
from api.images.serialization import has_layers, result_files
from api.jobs.serialization import file_url, read_base64
from api.protocols.ark.errors import vendor_code
from worker.core.catalog.model_types import ADAPTIVE
from worker.core.catalog.models import nearest_ratio
from worker.core.errors import ERRORS
from worker.core.job_state import JobState
from worker.db.engine import Row
from worker.db.jobs.queries import JobView

TASK_PREFIX = "cgt-"
STATUS_OF = {
    JobState.HELD: "queued",
    JobState.QUEUED: "queued",
    JobState.SUBMITTING: "running",
    JobState.RUNNING: "running",
    JobState.SAVING: "running",
    JobState.SUCCEEDED: "succeeded",
    JobState.FAILED: "failed",
    JobState.CANCELLED: "cancelled",
}
# Failures of jobs that nobody began or finished in time.
EXPIRED_CODES = ("generation_timeout", "queue_timeout")
_LIFE_SECONDS = 172_800
_RATIOS = ("16:9", "4:3", "1:1", "3:4", "9:16", "21:9")
_IMAGE_TOKEN_PIXELS, _VIDEO_TOKEN_PIXELS = 256, 1024


def task_id(job_id: UUID) -> str:
    """Return the id of a job as a task."""
    return f"{TASK_PREFIX}{job_id.hex}"


def task_status(view: JobView) -> str:
    """Return the state of a job as the vendor names it."""
    if view.job.state == JobState.FAILED and view.job.error_code in EXPIRED_CODES:
        return "expired"
    return STATUS_OF[JobState(view.job.state)]


def job_failure(job: Any) -> dict[str, str]:
    """Return the error of a failed job."""
    kind = ERRORS[job.error_code]
    code = vendor_code(kind.code, kind.status, message=job.error_message or "")
    return {"code": code, "message": localized_message(kind, job.error_message)}


def task_object(view: JobView, base: str) -> dict[str, Any]:
    """Return the task of a video job. Keys that do not apply are absent, as with upstream."""
    job, status = view.job, task_status(view)
    native, options = job.params.get("ark") or {}, job.params["order"].get("options") or {}
    changed_at = job.finished_at or job.submitted_at or job.created_at
    body: dict[str, Any] = {
        "id": task_id(job.id),
        "model": job.params["asked_model"],
        "status": status,
        "created_at": unix_seconds(job.created_at),
        "updated_at": unix_seconds(changed_at),
        "service_tier": options.get("service_tier", "default"),
        "execution_expires_after": native.get("execution_expires_after", _LIFE_SECONDS),
    }
    identifier = job.metadata.get("safety_identifier")
    if identifier:
        body["safety_identifier"] = identifier
    if status in {"failed", "expired"}:
        body["error"] = job_failure(job)
    if status == "succeeded":
        body |= _finished(view, base)
    if adjusted := job.params.get("adjusted"):
        body["adjusted"] = adjusted
    return body


def _finished(view: JobView, base: str) -> dict[str, Any]:
    order = view.job.params["order"]
    options = order.get("options") or {}
    video = view.files[0] if view.files else None
    content: dict[str, Any] = {}
    if video is not None and video.removed_at is None:
        content["video_url"] = file_url(base, video.id)
    frame = next((item for item in view.variants if item.variant == "last_frame"), None)
    if frame is not None and frame.removed_at is None:
        content["last_frame_url"] = file_url(base, frame.id)
    seconds = (video.seconds if video is not None else None) or order["seconds"]
    tokens = _video_tokens(view.job, video, seconds)
    body = {
        "content": content,
        "usage": {"completion_tokens": tokens, "total_tokens": tokens},
        "seed": order["seed"],
        "resolution": order["resolution"],
        "ratio": _ratio(order["ratio"], video),
        "duration": int(seconds),
        "framespersecond": order["fps"],
        "draft": options.get("mode") == "draft",
        "priority": options.get("priority") or 0,
    }
    if "generate_audio" in options:
        body["generate_audio"] = bool(options["generate_audio"])
    if draft_of := view.job.params.get("draft_of"):
        body["draft_task_id"] = f"{TASK_PREFIX}{draft_of.rpartition('_')[2]}"
    return body


def _ratio(ordered: str, video: Row[Any] | None) -> str:
    """Return the ratio of a video; that of the file if upstream chose it."""
    if ordered != ADAPTIVE or video is None or not video.width or not video.height:
        return ordered
    return nearest_ratio(_RATIOS, video.width, video.height)


def _video_tokens(job: Any, video: Row[Any] | None, seconds: float) -> int:
    """Return what upstream reported, else its formula: one frame more than the length has."""
    reported = (job.params.get("usage") or {}).get("completion_tokens")
    if isinstance(reported, int) or video is None or not video.width or not video.height:
        return int(reported or 0)
    frames: int = round(seconds * job.params["order"]["fps"]) + 1
    pixels: int = video.width * video.height
    return math.ceil(pixels * frames / _VIDEO_TOKEN_PIXELS)


def image_item(view: JobView, item: Row[Any], *, response_format: str, base: str) -> dict[str, Any]:
    """Return one image. With `b64_json` this reads its file."""
    content = {"b64_json": read_base64(item.key)} if response_format == "b64_json" else {"url": file_url(base, item.id)}
    layer = _layer_fields(view, item) if has_layers(view) else {}
    return {**content, "size": f"{item.width}x{item.height}", "output_format": item.mime.partition("/")[2], **layer}


def _layer_fields(view: JobView, item: Row[Any]) -> dict[str, Any]:
    """Return what a layer shows and where, in pixels and in thousandths of the base."""
    fields: dict[str, Any] = {"z_index": item.n}
    layer, base = item.layer or {}, view.files[0]
    fields |= {name: layer[name] for name in ("name", "description") if layer.get(name)}
    if layer.get("box") and base.width and base.height:
        sides = (base.width, base.height) * 2
        normalized = [round(1000 * corner / side) for corner, side in zip(layer["box"], sides, strict=True)]
        fields["bounding_box"] = {"absolute": layer["box"], "normalized": normalized}
    return fields


def images_usage(views: list[JobView]) -> dict[str, int]:
    """Return the usage of an image call."""
    files = [item for view in views for item in view.files]
    tokens = round(sum((item.width or 0) * (item.height or 0) for item in files) / _IMAGE_TOKEN_PIXELS)
    inputs = len(views[0].job.params.get("images") or [])
    return {
        "generated_images": len(files),
        **({"input_images": inputs} if inputs else {}),
        "output_tokens": tokens,
        "total_tokens": tokens,
    }


def images_object(views: list[JobView], *, n: int, response_format: str, base: str) -> dict[str, Any]:
    """Return the answer of an image call from its jobs. An image that failed is an error in its place."""
    left = n
    data: list[dict[str, Any]] = []
    for view in views:
        files = result_files([view], n=left)
        left -= len(files)
        data += [image_item(view, item, response_format=response_format, base=base) for item in files]
        if view.job.error_code is not None and not view.files:
            data.append({"error": job_failure(view.job)})
    created = unix_seconds(views[0].job.created_at)
    body = {
        "model": views[0].job.params["asked_model"],
        # The vendor's documents and its library differ about this name.
        "created": created,
        "created_at": created,
        "data": data,
        "usage": images_usage(views),
    }
    if adjusted := views[0].job.params.get("adjusted"):
        body["adjusted"] = adjusted
    return body
