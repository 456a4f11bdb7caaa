"""Plans a remix: a video with a new prompt and the model, duration, size, seed and inputs of an earlier one.

Upstream cannot change a finished video, so a new video with the same parameters is the closest result.
"""

from typing import Any
from uuid import UUID

from api.auth.caller import Caller
from api.generation.acceptance import GenerationPlan
from api.http.body_parsing import Upload
from api.http.clients.storage_threads import in_storage_thread
from api.videos.options import fields_of_options
from api.videos.planning import plan_videos_with
from api.videos.schemas import VideoGenerationRequest
from api.videos.serialization import public_video_id
from worker import storage
from worker.core.catalog.upstream_models import UpstreamModels
from worker.core.errors import DreameryError
from worker.core.job_state import JobState
from worker.db.engine import Row, transaction
from worker.db.jobs import inputs
from worker.db.jobs.inputs import InputOrigin
from worker.db.jobs.queries import JobView

_FRAME_FIELDS = {"first_frame": "first_frame_image", "end_frame": "end_frame_image"}
_MEDIA_FIELDS = {"image": "images", "video": "videos", "audio": "audios"}


async def plan_remix(path: str, source: JobView, prompt: str, caller: Caller, offer: UpstreamModels) -> GenerationPlan:
    """Return the plan of a remix of a completed video. Flags in the new prompt override."""
    job = source.job
    if job.state != JobState.SUCCEEDED:
        code = "video_failed" if job.finished_at else "video_not_ready"
        raise DreameryError(code, "Only a completed video can be remixed.")
    order = job.params["order"]
    options = order.get("options") or {}
    if options.get("mode") == "final":
        message = "This video is the final of a draft, which decides its text. Remix the draft, or send a new request."
        raise DreameryError("unsupported_parameter", message, param="prompt")
    inputs_of_source = await in_storage_thread(_input_fields, job.id)
    fields: dict[str, Any] = {
        "prompt": prompt,
        # The id, because the requested name may mean another model by now.
        "model": job.model,
        "ratio": order["ratio"],
        "resolution": order["resolution"],
        # An edit keeps the length of its video.
        "duration": order["seconds"] if options.get("mode") != "edit" else None,
        "fps": order["fps"],
        "seed": order["seed"] if order["seed"] >= 0 else None,
        **fields_of_options(options),
        "metadata": job.metadata or None,
        **inputs_of_source,
        **({"function_mode": "omni_reference"} if order["parts"] else {}),
    }
    body = VideoGenerationRequest.model_validate(fields)
    extra_params = {"remixed_from_video_id": public_video_id(job.id), "asked_model": job.params["asked_model"]}
    if "openai_size" in job.params:
        extra_params["openai_size"] = job.params["openai_size"]
    # The model, which may have a name that means another one to the caller by now.
    return await plan_videos_with(path, body, caller, offer.narrowed(job.providers), extra_params=extra_params)


def _input_fields(job_id: UUID) -> dict[str, Any]:
    with transaction() as tx:
        rows = inputs.original_inputs(tx, job_id)
    fields: dict[str, Any] = {}
    for row in rows:
        value = _stored_file(row) or _link(row)
        if row.role in _FRAME_FIELDS:
            fields[_FRAME_FIELDS[row.role]] = value
        else:
            fields.setdefault(_MEDIA_FIELDS[row.media], []).append(value)
    return fields


def _stored_file(row: Row[Any]) -> Upload | None:
    """Return the stored bytes, to be copied under the new job's keys: the old files have their own retention."""
    if row.key is None:
        return None
    try:
        content = storage.open_file(row.key)
    except storage.MissingFileError:
        return None
    return Upload(name=row.name, size=row.bytes, file=content, origin=InputOrigin(row.origin_file_id, row.url))


def _link(row: Row[Any]) -> dict[str, str]:
    if row.url is None:
        message = (
            "The inputs of this video are no longer stored (they are kept as long as its results). "
            "Send them again with a new request instead of a remix."
        )
        raise DreameryError("input_unavailable", message)
    return {"url": row.url, "name": row.name}
