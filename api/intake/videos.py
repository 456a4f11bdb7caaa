"""A video request, checked against the catalog: the job it stands for."""

import random
from dataclasses import replace
from functools import partial
from typing import Any

from starlette.concurrency import run_in_threadpool

from api.deps import Caller
from api.intake.accepting import Planned, fingerprint
from api.intake.images import check_prompt, check_regions
from api.pictures import GivenPicture, read_pictures, store_pictures
from api.video_schemas import VideoGenerationRequest
from worker.core.catalog import ImageModel, VideoModel, get_catalog
from worker.core.errors import DreameryError
from worker.core.prompts import Flags, read_flags
from worker.db.jobs import NewJob

_FRAMES = ("first_frame", "end_frame")


async def plan_videos(path: str, body: VideoGenerationRequest, caller: Caller) -> Planned:
    """The plan of a video request. Raises what is wrong with it; its pictures are stored here."""
    check_prompt(body.prompt, "prompt")
    model = get_catalog().video_model(body.model)
    check_regions(model, caller)
    job = _job(body, model, read_flags(body.prompt), caller)
    return await run_in_threadpool(partial(_with_frames, path, body, model, job))


def _job(body: VideoGenerationRequest, model: VideoModel, flags: Flags, caller: Caller) -> NewJob:
    order = {
        "prompt": flags.prompt,
        "ratio": flags.choose("ratio", model.ratios) or _one_of("ratio", body.ratio, model.ratios, model),
        "resolution": flags.choose("resolution", model.resolutions)
        or _one_of("resolution", body.resolution, model.resolutions, model),
        "seconds": int(
            flags.choose("duration", map(str, model.durations))
            or _one_of("duration", str(body.duration or ""), tuple(map(str, model.durations)), model)
        ),
        "seed": body.seed if body.seed is not None else random.randrange(2**32),  # noqa: S311 - no secret
        "fps": 24,
        "parts": [],
    }
    params = {"order": order, "n": 1, "flags": flags.found, "asked_model": body.model or model.id, "images": []}
    return NewJob(
        owner=caller.owner,
        kind="video",
        model=model.id,
        params=params,
        account_ids=[],
        user_id=caller.user_id,
        api_key_id=caller.api_key_id,
        webhook_url=body.webhook or None,
        metadata={**(body.metadata or {}), **({"user": body.user} if body.user else {})},
    )


def _one_of(field: str, value: str | None, options: tuple[str, ...], model: VideoModel) -> str:
    if not value:
        return options[0]
    if value.lower() not in options:
        message = f"`{field}` of model {model.id!r} must be one of {', '.join(options)}; got {value[:20]!r}."
        raise DreameryError("invalid_value", message, param=field)
    return value.lower()


def _with_frames(path: str, body: VideoGenerationRequest, model: VideoModel, job: NewJob) -> Planned:
    given = _frames(body, model)
    stored = [replace(item, role=role) for item, role in zip(store_pictures(given, job.id), _FRAMES, strict=False)]
    marks: list[Any] = [item.mark for item in given]
    fields = body.model_dump(mode="json", exclude={"images", "first_frame_image", "end_frame_image"})
    planned = replace(job, params={**job.params, "images": marks})
    return Planned(jobs=[planned], n=1, inputs=stored, fingerprint=fingerprint(path, fields, marks))


def _frames(body: VideoGenerationRequest, model: VideoModel) -> list[GivenPicture]:
    most = 2 if model.end_frame else 1
    # The reader of pictures only asks how many there may be.
    reader = ImageModel(model.id, model.name, model.key, model.key, model.where, (), (), references=most)
    frames = {"first_frame_image": body.first_frame_image, "end_frame_image": body.end_frame_image}
    return read_pictures({"images": body.images, **frames}, reader)
