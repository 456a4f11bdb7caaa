"""Plans a video request: checks it against the catalog and returns its jobs. It stores nothing but the inputs.

All parameters of a job are decided here, so that a worker does not have to interpret the request.
"""

import math
import random
import re
from dataclasses import dataclass, replace
from typing import Any
from uuid import UUID

from api.auth.caller import Caller
from api.generation.acceptance import GenerationPlan, fingerprint
from api.generation.media.reference_images import stem_of
from api.generation.media.reference_media import ReferenceInput, describe_adjustments, open_inputs, store_input
from api.generation.model_availability import NO_OFFER, read_offer
from api.generation.models.fields import (
    check_input_limits,
    check_seed,
    choice_params,
    order_seed,
    user_params,
    without_vendor_flags,
)
from api.generation.request_checks import check_prompt, check_regions, reject_agent
from api.http.bodies.field_names import AUTOMATIC, FOLLOWS_INPUT, SIZE_FORMS
from api.http.clients.storage_threads import in_storage_thread
from api.videos.drafts import plan_final
from api.videos.input_checks import check_durations, clip_seconds, ratio_of_first_frame
from api.videos.input_roles import Roles, assign_roles
from api.videos.openai_values import OPENAI_SECONDS, nearest_openai_size
from api.videos.options import Shape, mode_of, reject_unsupported_fields, shape_for_mode, video_options
from api.videos.schemas import INPUT_FIELDS, VideoGenerationRequest
from worker.core.catalog.model_types import AUTO_SECONDS
from worker.core.catalog.models import Catalog, VideoModel, get_catalog, nearest_ratio
from worker.core.catalog.prompts.prompt_flags import Flags, parse_flags
from worker.core.catalog.provider_data import first_provider
from worker.core.catalog.upstream_models import UpstreamModels
from worker.core.errors import DreameryError
from worker.core.ids import new_id
from worker.db.jobs.inputs import NewInput
from worker.db.jobs.state_machine import NewJob

_SIZE = re.compile(r"([1-9][0-9]{0,4}) ?[x×*] ?([1-9][0-9]{0,4})")
_MAX_ASPECT_RATIO = 3.0
_SECONDS = re.compile(r"([0-9]{1,3})(?:\.0+)? ?(?:s|秒)?", re.IGNORECASE)
# Paths of OpenAI's call; `remix` copies an existing duration.
OPENAI_PATHS = frozenset({"/v1/videos"})


@dataclass(frozen=True, slots=True)
class _VideoSpec:
    """Final values of the video, and requested values that were adjusted."""

    model: VideoModel
    prompt: str
    ratio: str
    is_ratio_requested: bool
    resolution: str
    seconds: int
    flags: dict[str, str]
    adjusted: dict[str, str]
    openai_size: str  # OpenAI's name of the ordered size
    choice: dict[str, Any]  # of the model, if the requested name meant several


def require_single_video(body: VideoGenerationRequest) -> VideoGenerationRequest:
    """Return the body; raise `unsupported_parameter` when it requests several videos."""
    if (body.n or 1) > 1:
        message = "This call generates one video. Use /v1/videos/generations for several, or call it again."
        raise DreameryError("unsupported_parameter", message, param="n")
    return body


async def plan_videos(path: str, body: VideoGenerationRequest, caller: Caller) -> GenerationPlan:
    """Return the plan of a video request; its inputs are inspected and stored. Raises the request's error."""
    return await plan_videos_with(path, body, caller, await read_offer(caller))


async def plan_videos_with(
    path: str,
    body: VideoGenerationRequest,
    caller: Caller,
    offer: UpstreamModels = NO_OFFER,
    *,
    extra_params: dict[str, Any] | None = None,
) -> GenerationPlan:
    """Like `plan_videos`, with a known offer. `extra_params` = additional `params` of the jobs."""
    if body.draft_of:
        return await plan_final(path, body, caller, offer)
    spec = _resolve_spec(body, caller, offer, is_openai_call=path in OPENAI_PATHS)
    roles = assign_roles(body, spec.model, spec.prompt)
    entries = [entry for _, entry in roles.inputs]
    async with open_inputs(entries, caller.owner) as references:
        check_durations(spec.model, references, roles)
        check_input_limits(spec.model, entries, references)
        descriptions = [item.description for item in references]
        spec, options = _finish_spec(body, spec, roles, references)
        spec = replace(spec, adjusted={**spec.adjusted, **describe_adjustments(entries, references)})
        clips = clip_seconds(references, roles) if options else []
        params = {**(extra_params or {}), "images": descriptions, **({"clips": clips} if clips else {})}
        jobs = _jobs(body, caller, spec, roles, options=options, extra_params=params)
        # Before the accepting transaction, so that no row lock waits for a slow disk or bucket.
        stored = await in_storage_thread(_store_inputs, roles, references, jobs[0].id) if references else []
    fields = {**body.model_dump(mode="json", exclude=set(INPUT_FIELDS)), **(extra_params or {})}
    inputs = [[role, item] for (role, _), item in zip(roles.inputs, descriptions, strict=True)]
    hashed = fingerprint(path, fields, inputs)
    return GenerationPlan(jobs=jobs, n=len(jobs), inputs=stored, fingerprint=hashed, max_cost=body.max_cost)


def _resolve_spec(
    body: VideoGenerationRequest, caller: Caller, offer: UpstreamModels, *, is_openai_call: bool
) -> _VideoSpec:
    check_prompt(body.prompt, "prompt")
    _reject_unsupported(body)
    catalog = get_catalog()
    choice = offer.choose(catalog.video_route(body.model))
    model = choice.model
    check_regions(model, caller, offer)
    reject_unsupported_fields(body, model)
    check_seed(model, body.seed, catalog.video_models)
    flags = parse_flags(body.prompt)
    prompt, removed = without_vendor_flags(model, flags.prompt)
    ratio, resolution, is_ratio_requested = _resolve_ratio_and_resolution(catalog, model, body, flags)
    seconds, adjusted = _resolve_duration(catalog, model, body, flags, is_openai_call=is_openai_call)
    adjusted |= removed
    if body.model and catalog.is_matched_by_pattern(body.model):
        # A name that only a pattern knows: the caller sees which model it got.
        adjusted = {"model": body.model, **adjusted}
    return _VideoSpec(
        model=model,
        prompt=prompt,
        ratio=ratio,
        is_ratio_requested=is_ratio_requested,
        resolution=resolution,
        seconds=seconds,
        flags=flags.values,
        adjusted=adjusted,
        openai_size=nearest_openai_size(*(_requested_pixels(body) or model.frame(ratio, resolution))),
        choice=choice_params(choice),
    )


def _reject_unsupported(body: VideoGenerationRequest) -> None:
    """Raise `unsupported_parameter` for known fields that no model supports, instead of ignoring them."""
    reject_agent(body.model)
    if body.negative_prompt and body.negative_prompt.strip():
        message = "Video models support no `negative_prompt`: describe in `prompt` what to leave out."
        raise DreameryError("unsupported_parameter", message, param="negative_prompt")
    if body.stream:
        message = (
            'This call does not stream. Send `"async": true` and follow /v1/jobs/{id}/events, or ask a video model '
            "at /v1/chat/completions with `stream`."
        )
        raise DreameryError("unsupported_parameter", message, param="stream")


def _hint(names: list[str]) -> str:
    return f"Models that do: {', '.join(names)}." if names else "No model does."


def _resolve_ratio_and_resolution(
    catalog: Catalog, model: VideoModel, body: VideoGenerationRequest, flags: Flags
) -> tuple[str, str, bool]:
    """Return ratio, resolution, and whether the ratio was requested. Flags override fields, and fields `size`."""
    ratio = flags.choose("ratio", model.ratios)
    # Front ends send a size with every request, so a flag overrides it.
    pixels = None if ratio else _requested_pixels(body)
    named = ratio or _requested_ratio(catalog, model, body)
    resolution = flags.choose("resolution", model.resolutions) or _requested_resolution(catalog, model, body)
    if pixels is not None:
        nearest = nearest_ratio(model.ratios, *pixels)
        if named is not None and named != nearest:
            message = (
                f"`size` {pixels[0]}x{pixels[1]} is {nearest}, but the requested ratio is {named}. Send one of them."
            )
            raise DreameryError("invalid_value", message, param="ratio")
        named = nearest
        resolution = resolution or catalog.nearest_resolution(model, *pixels)
    return named or model.ratios[0], resolution or model.resolutions[0], named is not None


def _requested_ratio(catalog: Catalog, model: VideoModel, body: VideoGenerationRequest) -> str | None:
    value, param = (body.ratio, "ratio") if body.ratio else (body.aspect_ratio, "aspect_ratio")
    if not value or value.strip().lower() in AUTOMATIC | FOLLOWS_INPUT:
        return None
    requested = re.sub(r"\s", "", value).replace("：", ":")
    if requested not in model.ratios:
        others = catalog.find_video_models(ratio=requested, provider=model.provider)
        supported = ", ".join(model.ratios)
        message = f"`{param}` of model {model.id!r} is one of {supported}; got {value[:20]!r}. {_hint(others)}"
        raise DreameryError("invalid_value", message, param=param)
    return requested


def _requested_resolution(catalog: Catalog, model: VideoModel, body: VideoGenerationRequest) -> str | None:
    requested = (body.resolution or "").strip().lower()
    if not requested or requested in AUTOMATIC:
        return None
    if requested not in model.resolutions:
        others = catalog.find_video_models(resolution=requested, provider=model.provider)
        supported = ", ".join(model.resolutions)
        message = f"`resolution` of model {model.id!r} is one of {supported}; got {requested[:20]!r}. {_hint(others)}"
        raise DreameryError("invalid_value", message, param="resolution")
    return requested


def _requested_pixels(body: VideoGenerationRequest) -> tuple[int, int] | None:
    if (body.width is None) != (body.height is None):
        missing = "height" if body.height is None else "width"
        message = f"`width` and `height` go together; `{missing}` is missing."
        raise DreameryError("missing_required_parameter", message, param=missing)
    text = (body.size or "").strip().lower()
    found, param = None, "size"
    if text and text not in AUTOMATIC | FOLLOWS_INPUT:
        match = _SIZE.fullmatch(text)
        if match is None:
            message = f"`size` must be {SIZE_FORMS}; got {text[:40]!r}."
            raise DreameryError("invalid_value", message, param="size")
        found = (int(match[1]), int(match[2]))
    if body.width is not None and body.height is not None:
        if found not in {None, (body.width, body.height)}:
            raise DreameryError("invalid_value", "`size` and `width`/`height` differ. Send one of them.", param="size")
        found, param = (body.width, body.height), "width"
    if found is not None and max(found) > _MAX_ASPECT_RATIO * min(found):
        message = f"{found[0]}x{found[1]} exceeds the aspect ratio 3:1, which no model supports."
        raise DreameryError("invalid_value", message, param=param)
    return found


def _resolve_duration(
    catalog: Catalog, model: VideoModel, body: VideoGenerationRequest, flags: Flags, *, is_openai_call: bool
) -> tuple[int, dict[str, str]]:
    """Return the seconds, and the requested value if it was adjusted. Raises `invalid_value`.

    Tools written for OpenAI can send only its durations (4, 8, 12, ...), as `seconds` of OpenAI's call or with a
    built-in model name. For these the nearest duration of the model is used, the shorter of two, and the answer reports
    it; of a vendor's own API only for such a name. Other calls raise an error.
    """
    flag = flags.choose("duration", [str(seconds) for seconds in model.durations])
    if flag:
        return int(flag), {}
    value, param = (body.duration, "duration") if body.duration not in {None, ""} else (body.seconds, "seconds")
    if value is None or value == "":
        return model.durations[0], {}
    requested = _whole_seconds(value)
    if param == "duration" and body.seconds not in {None, ""} and _whole_seconds(body.seconds) != requested:
        raise DreameryError("invalid_value", "`seconds` and `duration` differ. Send one of them.", param="seconds")
    if requested in model.durations or (requested == AUTO_SECONDS and model.auto_seconds):
        return requested, {}
    has_built_in_name = catalog.is_built_in_name(body.model) and body.model != model.id
    # What costs money is never made shorter: the vendor's interface has the durations of its models to choose from.
    is_openai_value = (
        is_openai_call and param == "seconds" and requested in OPENAI_SECONDS and model.provider == first_provider()
    )
    if requested and requested > 0 and (has_built_in_name or is_openai_value):
        seconds = min(model.durations, key=lambda other: (abs(other - requested), other))
        return seconds, {"seconds": str(requested)}
    others = catalog.find_video_models(seconds=requested, provider=model.provider) if requested else []
    allowed = ", ".join(str(seconds) for seconds in sorted(model.durations))
    got = f"got {str(value if requested is None else requested)[:20]!r}. {_hint(others)}"
    message = f"`{param}` must be one of {allowed} for model {model.id!r}; {got}"
    raise DreameryError("invalid_value", message, param=param)


def _whole_seconds(value: float | str) -> int | None:
    if isinstance(value, str):
        match = _SECONDS.fullmatch(value.strip())
        return int(match[1]) if match else AUTO_SECONDS if value.strip() == str(AUTO_SECONDS) else None
    return int(value) if math.isfinite(value) and value == int(value) else None


def _finish_spec(
    body: VideoGenerationRequest, spec: _VideoSpec, roles: Roles, references: list[ReferenceInput]
) -> tuple[_VideoSpec, dict[str, Any]]:
    """Return the spec as the inputs decide it, and the options of the order."""
    model, ratio, adjusted = spec.model, spec.ratio, spec.adjusted
    framed = ratio_of_first_frame(model, references, roles)
    if framed is not None and (model.frame_decides_ratio or not spec.is_ratio_requested):
        # Upstream uses the ratio of the frame regardless of the request, or nothing was requested.
        adjusted = {**adjusted, **({"ratio": ratio} if spec.is_ratio_requested and framed != ratio else {})}
        ratio = framed
    mode = mode_of(body, roles)
    shape = shape_for_mode(
        body,
        model,
        Shape(ratio, spec.resolution, spec.seconds, adjusted),
        mode,
        has_pictures=any(entry.media != "audio" for _, entry in roles.inputs),
        asked_ratio=spec.is_ratio_requested,
    )
    found = replace(
        spec, ratio=shape.ratio, resolution=shape.resolution, seconds=shape.seconds, adjusted=shape.adjusted
    )
    return found, video_options(body, model, roles, mode)


def _jobs(
    body: VideoGenerationRequest,
    caller: Caller,
    spec: _VideoSpec,
    roles: Roles,
    *,
    options: dict[str, Any],
    extra_params: dict[str, Any],
) -> list[NewJob]:
    # Sorted, so that ids of the same millisecond follow the order of the videos.
    ids = sorted(new_id() for _ in range(body.n or 1))
    # Jobs after the first use other seeds, otherwise they generate the same video again.
    seed = body.seed if body.seed is not None else random.randrange(2**32)  # noqa: S311
    return [
        NewJob(
            id=job_id,
            owner=caller.owner,
            kind="video",
            model=spec.model.id,
            params={
                "order": {
                    "prompt": spec.prompt,
                    "ratio": spec.ratio,
                    "resolution": spec.resolution,
                    "seconds": spec.seconds,
                    "seed": order_seed(spec.model, seed, requested=body.seed is not None, number=number),
                    "fps": body.fps or spec.model.fps,
                    "parts": roles.parts,
                    **({"options": options} if options else {}),
                },
                "n": 1,
                "flags": spec.flags,
                "asked_model": body.model or spec.model.id,
                "adjusted": spec.adjusted,
                "openai_size": spec.openai_size,
                **spec.choice,
                **user_params(spec.model, body.user),
                **({"retry_unclear": True} if body.retry_unclear else {}),
                **extra_params,
            },
            account_ids=[],
            providers=[spec.model.provider],
            user_id=caller.user_id,
            api_key_id=caller.api_key_id,
            webhook_url=body.webhook or None,
            metadata={**(body.metadata or {}), **({"user": body.user} if body.user else {})},
        )
        for number, job_id in enumerate(ids)
    ]


def _store_inputs(roles: Roles, references: list[ReferenceInput], group_id: UUID) -> list[NewInput]:
    return [
        replace(store_input(item, stem_of(group_id, n)), role=role, name=name)
        for n, (item, (role, _), name) in enumerate(zip(references, roles.inputs, roles.names, strict=True))
    ]
