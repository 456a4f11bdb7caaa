"""A remix: the same video again with another prompt. Model, length, shape, seed and inputs are those of the first.

Upstream has no way to change a finished video, so keeping everything but the words is the nearest there is.
"""

import io
from typing import Any

from api.auth.dependencies import Caller
from api.generation.acceptance import Planned
from api.http.body_parsing import Upload
from api.videos.planning import plan_now
from api.videos.schemas import VideoGenerationRequest
from api.videos.serialization import id_of_video
from worker import storage
from worker.core.errors import DreameryError
from worker.core.job_state import JobState
from worker.db.engine import Row, transaction
from worker.db.jobs import inputs
from worker.db.jobs.queries import JobView

_FRAME_FIELDS = {"first_frame": "first_frame_image", "end_frame": "end_frame_image"}
_MEDIA_FIELDS = {"image": "images", "video": "videos", "audio": "audios"}


def plan_remix(path: str, source: JobView, prompt: str, caller: Caller) -> Planned:
    """The plan of a remix of a completed video; runs in a thread. Flags in the new prompt win, as everywhere."""
    job = source.job
    if job.state != JobState.SUCCEEDED:
        code = "video_failed" if job.finished_at else "video_not_ready"
        raise DreameryError(code, "Only a completed video can be remixed.")
    order = job.params["order"]
    with transaction() as tx:
        rows = inputs.given_inputs(tx, job.id)
    fields: dict[str, Any] = {
        "prompt": prompt,
        # By id: what the asked name stands for may have changed since.
        "model": job.model,
        "ratio": order["ratio"],
        "resolution": order["resolution"],
        "duration": order["seconds"],
        "fps": order["fps"],
        "seed": order["seed"],
        "metadata": job.metadata or None,
        **_input_fields(rows),
        **({"function_mode": "omni_reference"} if order["parts"] else {}),
    }
    body = VideoGenerationRequest.model_validate(fields)
    more = {"remixed_from_video_id": id_of_video(job.id), "asked_model": job.params["asked_model"]}
    return plan_now(path, body, caller, more=more)


def _input_fields(rows: list[Row[Any]]) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    for row in rows:
        value = _bytes_of(row) or _link_of(row)
        if row.role in _FRAME_FIELDS:
            fields[_FRAME_FIELDS[row.role]] = value
        else:
            fields.setdefault(_MEDIA_FIELDS[row.media], []).append(value)
    return fields


def _bytes_of(row: Row[Any]) -> Upload | None:
    """The stored bytes, to be stored again under the new job's keys: the old ones leave by their own time."""
    if row.key is None:
        return None
    try:
        data = storage.read_file(row.key)
    except storage.MissingFileError:
        return None
    return Upload(name=row.name, size=len(data), file=io.BytesIO(data))


def _link_of(row: Row[Any]) -> dict[str, str]:
    if row.url is None:
        message = (
            "What this video was made from is no longer stored (it is kept for 24 hours). "
            "Send it again with a new request instead of a remix."
        )
        raise DreameryError("input_unavailable", message)
    return {"url": row.url, "name": row.name}
