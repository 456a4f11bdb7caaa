"""A video request, checked against the catalog: the jobs it stands for. Nothing is written here but its inputs.

Everything a job needs is decided here, so a worker never has to guess what the caller meant.
"""

import math
import random
import re
from dataclasses import dataclass, replace
from functools import partial
from typing import Any
from uuid import UUID

from starlette.concurrency import run_in_threadpool

from api.auth.dependencies import Caller
from api.generation.acceptance import Planned, fingerprint
from api.generation.reference_images import GivenPicture
from api.generation.reference_media import Given, GivenClip, read_input, store_input
from api.generation.request_checks import check_prompt
from api.videos.input_roles import MOST_MILLISECONDS, ROUNDED_UP, Roles, roles_of
from api.videos.schemas import INPUT_FIELDS, VideoGenerationRequest
from worker.core.catalog.models import Catalog, VideoModel, get_catalog, nearest_ratio
from worker.core.catalog.prompt_flags import Flags, read_flags
from worker.core.catalog_overrides import HARD_CODED_VIDEOS
from worker.core.errors import DreameryError
from worker.core.ids import new_id
from worker.db.jobs.inputs import NewInput
from worker.db.jobs.state_machine import NewJob

_SIZE = re.compile(r"([1-9][0-9]{0,4}) ?[x×*] ?([1-9][0-9]{0,4})")
_MOST_STRETCHED = 3.0
_SECONDS = re.compile(r"([0-9]{1,3})(?:\.0+)? ?(?:s|秒)?", re.IGNORECASE)
_FPS = 24  # what upstream's own site sends


@dataclass(frozen=True, slots=True)
class _Wish:
    """What is to be made: final values, and what was asked for and cannot be made exactly."""

    model: VideoModel
    prompt: str
    ratio: str
    ratio_chosen: bool
    resolution: str
    seconds: int
    flags: dict[str, str]
    adjusted: dict[str, str]


def one_only(body: VideoGenerationRequest) -> VideoGenerationRequest:
    """Refuse several videos where the answer is one."""
    if (body.n or 1) > 1:
        message = "This call makes one video. Use /v1/videos/generations for several, or call it again."
        raise DreameryError("unsupported_parameter", message, param="n")
    return body


async def plan_videos(path: str, body: VideoGenerationRequest, caller: Caller) -> Planned:
    """The whole plan of a video request; its inputs are looked at and stored here. Raises what is wrong with it."""
    return await run_in_threadpool(partial(plan_now, path, body, caller))


def plan_now(path: str, body: VideoGenerationRequest, caller: Caller, *, more: dict[str, Any] | None = None) -> Planned:
    """The same, for callers in a thread. `more` = further `params` of the jobs."""
    wish = _wish(body, caller)
    roles = roles_of(body, wish.model, wish.prompt)
    given = [read_input(entry) for _, entry in roles.inputs]
    _check_lengths(given, roles)
    marks = [item.mark for item in given]
    jobs = _jobs(body, caller, _with_frame(wish, roles, given), roles, {**(more or {}), "images": marks})
    # Before the transaction that accepts: a row never waits for a slow disk or bucket.
    stored = _stored(roles, given, jobs[0].id)
    fields = {**body.model_dump(mode="json", exclude=set(INPUT_FIELDS)), **(more or {})}
    told = [[role, mark] for (role, _), mark in zip(roles.inputs, marks, strict=True)]
    return Planned(jobs=jobs, n=len(jobs), inputs=stored, fingerprint=fingerprint(path, fields, told))


def _wish(body: VideoGenerationRequest, caller: Caller) -> _Wish:
    check_prompt(body.prompt, "prompt")
    _check_possible(body)
    catalog = get_catalog()
    model = video_model(catalog, body.model)
    _check_regions(catalog, model, caller)
    caller.need_model(model.id)
    flags = read_flags(body.prompt)
    ratio, resolution, chosen = _shape(catalog, model, body, flags)
    seconds, adjusted = _length(catalog, model, body, flags)
    return _Wish(
        model=model,
        prompt=flags.prompt,
        ratio=ratio,
        ratio_chosen=chosen,
        resolution=resolution,
        seconds=seconds,
        flags=flags.found,
        adjusted=adjusted,
    )


def video_model(catalog: Catalog, name: str | None) -> VideoModel:
    """The video model of that name. Raises `model_not_found`, which says so when it is a model of pictures."""
    if name and not catalog.knows_video(name) and any(name in {m.id, *m.aliases} for m in catalog.image_models):
        message = (
            f"Model {name[:80]!r} makes pictures: use /v1/images/generations, or a video model such as "
            f"{catalog.default_video_model!r}."
        )
        raise DreameryError("model_not_found", message, param="model")
    return catalog.video_model(name)


def _check_possible(body: VideoGenerationRequest) -> None:
    """Refuse what is known and cannot be done; doing something else in silence would be worse."""
    if body.negative_prompt and body.negative_prompt.strip():
        message = "Video models take no `negative_prompt`: say in `prompt` what should not be seen."
        raise DreameryError("unsupported_parameter", message, param="negative_prompt")
    if body.stream:
        message = (
            'Videos are not streamed here. Send `"async": true` and follow /v1/jobs/{id}/events, or ask a video model '
            "at /v1/chat/completions with `stream`."
        )
        raise DreameryError("unsupported_parameter", message, param="stream")


def _check_regions(catalog: Catalog, model: VideoModel, caller: Caller) -> None:
    """Refuse a model that none of the caller's session ids can have."""
    regions = sorted({token.region for _, token in caller.tokens})
    if regions and not any(model.offered_in(region) for region in regions):
        able = sorted({name for region in regions for name in catalog.videos_that_can(region=region)})
        message = f"Model {model.id!r} is not offered in region {', '.join(regions)}; there are: {', '.join(able)}."
        raise DreameryError("model_not_found", message, param="model")


def _able(names: list[str]) -> str:
    return f"Models that can: {', '.join(names)}." if names else "No model can."


def _shape(catalog: Catalog, model: VideoModel, body: VideoGenerationRequest, flags: Flags) -> tuple[str, str, bool]:
    """Ratio, resolution, and whether anything said which ratio. Flags win over fields; a wish wins over `size`."""
    ratio = flags.choose("ratio", model.ratios)
    # Front ends send a size with every request, so a flag sets it aside.
    pixels = None if ratio else _pixels(body)
    named = ratio or _named_ratio(catalog, model, body)
    resolution = flags.choose("resolution", model.resolutions) or _named_resolution(catalog, model, body)
    if pixels is not None:
        nearest = nearest_ratio(model.ratios, *pixels)
        if named is not None and named != nearest:
            message = (
                f"`size` {pixels[0]}x{pixels[1]} is {nearest}, but the ratio asked for is {named}. Send one of them."
            )
            raise DreameryError("invalid_value", message, param="ratio")
        named = nearest
        resolution = resolution or catalog.nearest_resolution(model, *pixels)
    return named or model.ratios[0], resolution or model.resolutions[0], named is not None


def _named_ratio(catalog: Catalog, model: VideoModel, body: VideoGenerationRequest) -> str | None:
    given, param = (body.ratio, "ratio") if body.ratio else (body.aspect_ratio, "aspect_ratio")
    if not given or given.strip().lower() == "auto":
        return None
    wanted = re.sub(r"\s", "", given).replace("：", ":")
    if wanted not in model.ratios:
        others = catalog.videos_that_can(ratio=wanted)
        message = f"Model {model.id!r} makes {', '.join(model.ratios)}; got {given[:20]!r}. {_able(others)}"
        raise DreameryError("invalid_value", message, param=param)
    return wanted


def _named_resolution(catalog: Catalog, model: VideoModel, body: VideoGenerationRequest) -> str | None:
    wanted = (body.resolution or "").strip().lower()
    if wanted in {"", "auto"}:
        return None
    if wanted not in model.resolutions:
        others = catalog.videos_that_can(resolution=wanted)
        message = f"Model {model.id!r} makes {', '.join(model.resolutions)}; got {wanted[:20]!r}. {_able(others)}"
        raise DreameryError("invalid_value", message, param="resolution")
    return wanted


def _pixels(body: VideoGenerationRequest) -> tuple[int, int] | None:
    if (body.width is None) != (body.height is None):
        missing = "height" if body.height is None else "width"
        message = f"`width` and `height` go together; `{missing}` is missing."
        raise DreameryError("missing_required_parameter", message, param=missing)
    text = (body.size or "").strip().lower()
    found, param = None, "size"
    if text not in {"", "auto"}:
        match = _SIZE.fullmatch(text)
        if match is None:
            message = f"`size` must be `WIDTHxHEIGHT`, for example `1280x720`, or `auto`; got {text[:40]!r}."
            raise DreameryError("invalid_value", message, param="size")
        found = (int(match[1]), int(match[2]))
    if body.width is not None and body.height is not None:
        if found not in {None, (body.width, body.height)}:
            raise DreameryError("invalid_value", "`size` and `width`/`height` differ. Send one of them.", param="size")
        found, param = (body.width, body.height), "width"
    if found is not None and max(found) > _MOST_STRETCHED * min(found):
        message = f"{found[0]}x{found[1]} is more stretched than 3:1, which no model makes."
        raise DreameryError("invalid_value", message, param=param)
    return found


def _length(
    catalog: Catalog, model: VideoModel, body: VideoGenerationRequest, flags: Flags
) -> tuple[int, dict[str, str]]:
    """The seconds, and what had to be adjusted.

    Tools that have a name of OpenAI's built in can send OpenAI's lengths only (4, 8, 12), so for such a name the
    nearest length of the model stands in, the shorter of two; the answer says so. For other names it is a refusal.
    """
    flag = flags.choose("duration", [str(seconds) for seconds in model.durations])
    if flag:
        return int(flag), {}
    given, param = (body.duration, "duration") if body.duration not in {None, ""} else (body.seconds, "seconds")
    if given is None or given == "":
        return model.durations[0], {}
    wanted = _whole_seconds(given)
    if wanted in model.durations:
        return wanted, {}
    if wanted and body.model in HARD_CODED_VIDEOS and body.model != model.id:
        seconds = min(model.durations, key=lambda other: (abs(other - wanted), other))
        return seconds, {"seconds": str(wanted)}
    others = catalog.videos_that_can(seconds=wanted) if wanted else []
    allowed = ", ".join(str(seconds) for seconds in sorted(model.durations))
    message = f"Model {model.id!r} makes videos of {allowed} seconds; got {str(given)[:20]!r}. {_able(others)}"
    raise DreameryError("invalid_value", message, param=param)


def _whole_seconds(given: float | str) -> int | None:
    if isinstance(given, str):
        match = _SECONDS.fullmatch(given.strip())
        return int(match[1]) if match else None
    return int(given) if math.isfinite(given) and given == int(given) else None


def _check_lengths(given: list[Given], roles: Roles) -> None:
    """What came as bytes is measured now, what is behind a link once it is fetched."""
    clips = [(item, entry) for item, (_, entry) in zip(given, roles.inputs, strict=True) if entry.media == "video"]
    known = [(item.facts.milliseconds, entry) for item, entry in clips if isinstance(item, GivenClip) and item.facts]
    total = sum(milliseconds for milliseconds, _ in known)
    if total > MOST_MILLISECONDS + ROUNDED_UP:
        message = (
            f"The videos to refer to have {total / 1000:.1f} seconds together; the most is {MOST_MILLISECONDS // 1000}."
        )
        raise DreameryError("invalid_value", message, param=known[-1][1].param)


def _with_frame(wish: _Wish, roles: Roles, given: list[Given]) -> _Wish:
    """With a first frame the video takes the picture's ratio, whatever is asked for; told as far as it is known."""
    for (role, _), item in zip(roles.inputs, given, strict=True):
        if role == "first_frame" and isinstance(item, GivenPicture) and item.facts:
            ratio = nearest_ratio(wish.model.ratios, item.facts.width, item.facts.height)
            adjusted = {"ratio": wish.ratio} if wish.ratio_chosen and ratio != wish.ratio else {}
            return replace(wish, ratio=ratio, adjusted={**wish.adjusted, **adjusted})
    return wish


def _jobs(
    body: VideoGenerationRequest, caller: Caller, wish: _Wish, roles: Roles, more: dict[str, Any]
) -> list[NewJob]:
    # Sorted, so that the order of the ids is the order of the videos also among ids of the same millisecond.
    ids = sorted(new_id() for _ in range(body.n or 1))
    # The first seed is the caller's; further jobs of one request must differ or they make the same video again.
    seed = body.seed if body.seed is not None else random.randrange(2**32)  # noqa: S311
    return [
        NewJob(
            id=job_id,
            owner=caller.owner,
            kind="video",
            model=wish.model.id,
            params={
                "order": {
                    "prompt": wish.prompt,
                    "ratio": wish.ratio,
                    "resolution": wish.resolution,
                    "seconds": wish.seconds,
                    "seed": (seed + number) % 2**32,
                    "fps": body.fps or _FPS,
                    "parts": roles.parts,
                },
                "n": 1,
                "flags": wish.flags,
                "asked_model": body.model or wish.model.id,
                "adjusted": wish.adjusted,
                **more,
            },
            account_ids=[],
            user_id=caller.user_id,
            api_key_id=caller.api_key_id,
            webhook_url=body.webhook or None,
            metadata={**(body.metadata or {}), **({"user": body.user} if body.user else {})},
        )
        for number, job_id in enumerate(ids)
    ]


def _stored(roles: Roles, given: list[Given], group_id: UUID) -> list[NewInput]:
    return [
        replace(store_input(item, f"inputs/{group_id.hex}/{n}"), role=role, name=name)
        for n, (item, (role, _), name) in enumerate(zip(given, roles.inputs, roles.names, strict=True))
    ]
