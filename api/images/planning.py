"""A picture request, checked against the catalog: the jobs it stands for. Nothing is written here but its pictures.

Everything a job needs is decided here, so a worker never has to guess what the caller meant.
"""

import random
import re
from dataclasses import replace
from functools import partial

from starlette.concurrency import run_in_threadpool

from api.auth.dependencies import Caller
from api.generation.acceptance import Planned, fingerprint
from api.generation.model_availability import offer_of
from api.generation.reference_images import read_pictures, store_pictures
from api.generation.request_checks import check_prompt, check_regions
from api.images.schemas import ImageGenerationRequest
from worker.core.catalog.models import Catalog, ImageModel, Size, get_catalog
from worker.core.catalog.prompt_flags import Flags, read_flags, series_asked
from worker.core.catalog.upstream_models import Offer
from worker.core.errors import DreameryError
from worker.core.ids import new_id
from worker.core.media.conversion import FORMATS, Output
from worker.db.jobs.state_machine import NewJob

# Beyond this shape no model draws (openai-compat: 1:3 to 3:1).
_MOST_STRETCHED = 3.0
_SIZE = re.compile(r"([1-9][0-9]{0,4}) ?[x×*] ?([1-9][0-9]{0,4})")
NO_OFFER = Offer()
# Formats that clients name and no model and no conversion gives.
_OTHER_FORMATS = ("gif", "svg")
# Whoever asks for a model by one of OpenAI's names expects OpenAI's default number of pictures.
_ONE_BY_DEFAULT = ("gpt-image-", "chatgpt-image-", "dall-e-")
_MOST_QUALITY = ("high", "hd", "xhigh", "max")


def plan_image_jobs(body: ImageGenerationRequest, caller: Caller, offer: Offer = NO_OFFER) -> tuple[list[NewJob], int]:
    """The jobs of a picture request, and how many pictures its answer holds. Raises what is wrong with the request.

    `offer` = what upstream lists for the caller's accounts: a model that only it knows may be asked for by its key.
    """
    check_prompt(body.prompt, "prompt")
    check_prompt(body.negative_prompt or "", "negative_prompt")
    _check_possible(body)
    catalog = get_catalog()
    model = offer.image_model(catalog, body.model)
    check_regions(model, caller)
    flags = read_flags(body.prompt)
    size = _wanted_size(catalog, model, _with_flags(body, flags, catalog, model))
    # "A story in six pictures" without a number of its own: one job, whose model reads the number from the prompt.
    series = None if body.n or body.image or body.images or not model.series else series_asked(flags.prompt)
    n = body.n or series or _default_count(body, model)
    output = _wanted_output(body)
    counts = [n] if series else model.jobs_for(n)
    # Sorted, so that the order of the ids is the order of the pictures also among ids of the same millisecond.
    ids = sorted(new_id() for _ in counts)
    # The first seed is the caller's; further jobs of one request must differ or they draw the same pictures again.
    seed = body.seed if body.seed is not None else random.randrange(2**32)  # noqa: S311
    planned = [
        NewJob(
            id=ids[number],
            owner=caller.owner,
            kind="image",
            model=model.id,
            params={
                "order": {
                    "prompt": flags.prompt,
                    "width": size.width,
                    "height": size.height,
                    "ratio": size.ratio,
                    "resolution": size.resolution,
                    "count": count if model.counts and not series else None,
                    "seed": (seed + number) % 2**32,
                    "negative_prompt": body.negative_prompt or "",
                    "sample_strength": 0.5 if body.sample_strength is None else body.sample_strength,
                    **({"key": model.key} if model.listed else {}),
                },
                "n": n,
                "flags": flags.found,
                "asked_model": body.model or model.id,
                "images": [],
                **({"output": output.as_params()} if output else {}),
            },
            account_ids=offer.accounts_with(model.key) if model.listed else [],
            user_id=caller.user_id,
            api_key_id=caller.api_key_id,
            webhook_url=body.webhook or None,
            metadata=_metadata(body),
        )
        for number, count in enumerate(counts)
    ]
    return planned, n


def _default_count(body: ImageGenerationRequest, model: ImageModel) -> int:
    return 1 if (body.model or "").startswith(_ONE_BY_DEFAULT) else model.default_count


def _with_flags(
    body: ImageGenerationRequest, flags: Flags, catalog: Catalog, model: ImageModel
) -> ImageGenerationRequest:
    """The request as the flags of its prompt change it: they win over the fields."""
    flags.refuse("duration", "a picture has no length.")
    changes: dict[str, str | int | None] = {}
    if resolution := flags.choose("resolution", model.resolutions):
        changes["resolution"] = resolution
    if ratio := flags.choose("ratio", catalog.ratios):
        # Pixels would say a ratio too; front ends send a size with every request.
        changes |= {"ratio": ratio, "aspect_ratio": None, "size": None, "width": None, "height": None}
    return body.model_copy(update=changes)


def _metadata(body: ImageGenerationRequest) -> dict[str, str]:
    """What is kept with each job: the caller's own pairs, and whom it names as its user."""
    named = {"user": body.user, "safety_identifier": body.safety_identifier}
    return {**(body.metadata or {}), **{name: value for name, value in named.items() if value}}


def _check_possible(body: ImageGenerationRequest) -> None:
    """Refuse what is known and cannot be done; doing something else in silence would be worse."""
    for name in ("mask", "markup"):
        if getattr(body, name):
            message = f"No model takes a `{name}`: describe in `prompt` what is to be changed, and where."
            raise DreameryError("unsupported_parameter", message, param=name)
    if body.background == "transparent":
        message = "No model draws a transparent background. Leave `background` out or send `auto`."
        raise DreameryError("unsupported_parameter", message, param="background")


def _wanted_output(body: ImageGenerationRequest) -> Output | None:
    """The file format and compression asked for; None = as upstream gives it. Raises what cannot be given."""
    wanted = "jpeg" if body.output_format == "jpg" else body.output_format
    if wanted is not None and wanted not in FORMATS:
        code = "unsupported_parameter" if wanted in _OTHER_FORMATS else "invalid_value"
        message = f"`output_format` must be one of {', '.join(FORMATS)}; got {wanted[:20]!r}."
        raise DreameryError(code, message, param="output_format")
    if wanted in {None, "png"} and body.output_compression not in {None, 100}:
        message = "`output_compression` below 100 needs `output_format` `jpeg` or `webp`."
        raise DreameryError("invalid_value", message, param="output_compression")
    if wanted is None:
        return None
    return Output(wanted, None if wanted == "png" else body.output_compression)


def _wanted_size(catalog: Catalog, model: ImageModel, body: ImageGenerationRequest) -> Size:
    pixels = _wanted_pixels(body)
    ratio = _wanted_ratio(catalog, body)
    resolution = _wanted_resolution(model, body)
    if pixels is None:
        return catalog.size(ratio or "1:1", resolution or _resolution_of_quality(model, body.quality))
    size = catalog.nearest_size(model, *pixels)
    if ratio is not None and ratio != size.ratio:
        message = (
            f"`size` {pixels[0]}x{pixels[1]} is {size.ratio}, but the ratio asked for is {ratio}. Send one of them."
        )
        raise DreameryError("invalid_value", message, param="ratio")
    return catalog.size(size.ratio, resolution) if resolution else size


def _resolution_of_quality(model: ImageModel, quality: str | None) -> str:
    """What `quality` chooses where neither pixels nor a resolution were named. Resolutions grow in their list."""
    if quality == "low":
        return model.resolutions[0]
    return model.resolutions[-1] if quality in _MOST_QUALITY else model.default_resolution


def _wanted_pixels(body: ImageGenerationRequest) -> tuple[int, int] | None:
    if (body.width is None) != (body.height is None):
        missing = "height" if body.height is None else "width"
        raise DreameryError(
            "missing_required_parameter", f"`width` and `height` go together; `{missing}` is missing.", param=missing
        )
    pixels, param = _size_pixels(body.size), "size"
    if body.width is not None and body.height is not None:
        if pixels is not None and pixels != (body.width, body.height):
            raise DreameryError("invalid_value", "`size` and `width`/`height` differ. Send one of them.", param="size")
        pixels, param = (body.width, body.height), "width"
    if pixels is not None and max(pixels) > _MOST_STRETCHED * min(pixels):
        message = f"{pixels[0]}x{pixels[1]} is more stretched than 3:1, which no model draws."
        raise DreameryError("invalid_value", message, param=param)
    return pixels


def _size_pixels(size: str | None) -> tuple[int, int] | None:
    text = (size or "").strip().lower()
    if text in {"", "auto"}:
        return None
    match = _SIZE.fullmatch(text)
    if match is None:
        message = f"`size` must be `WIDTHxHEIGHT`, for example `2048x2048`, or `auto`; got {text[:40]!r}."
        raise DreameryError("invalid_value", message, param="size")
    return int(match.group(1)), int(match.group(2))


def _wanted_ratio(catalog: Catalog, body: ImageGenerationRequest) -> str | None:
    ratio, param = (body.ratio, "ratio") if body.ratio else (body.aspect_ratio, "aspect_ratio")
    if not ratio or ratio.strip().lower() == "auto":
        return None
    wanted = ratio.strip().replace("：", ":")
    if wanted not in catalog.ratios:
        message = f"`{param}` must be one of {', '.join(catalog.ratios)}; got {ratio[:20]!r}."
        raise DreameryError("invalid_value", message, param=param)
    return wanted


def _wanted_resolution(model: ImageModel, body: ImageGenerationRequest) -> str | None:
    if not body.resolution:
        return None
    wanted = body.resolution.strip().lower()
    if wanted not in model.resolutions:
        message = f"Model {model.id!r} draws in {', '.join(model.resolutions)}; got {body.resolution[:20]!r}."
        raise DreameryError("invalid_value", message, param="resolution")
    return wanted


async def plan_images(path: str, body: ImageGenerationRequest, caller: Caller, *, required: bool) -> Planned:
    """The whole plan of a picture request; `required` = it must hold pictures to work from. Those are stored here."""
    offer = await offer_of(caller)
    planned, n = plan_image_jobs(body, caller, offer)
    model = offer.image_model(get_catalog(), body.model)
    return await run_in_threadpool(partial(_with_pictures, path, body, planned, n, model, required=required))


def _with_pictures(
    path: str, body: ImageGenerationRequest, planned: list[NewJob], n: int, model: ImageModel, *, required: bool
) -> Planned:
    given = read_pictures({"image": body.image, "images": body.images}, model)
    if required and not given:
        raise DreameryError("missing_required_parameter", "Missing required parameter: 'image'.", param="image")
    # Before the transaction that accepts: a row never waits for a slow disk or bucket.
    stored = store_pictures(given, planned[0].id)
    marks = [item.mark for item in given]
    jobs = [replace(job, params={**job.params, "images": marks}) for job in planned]
    fields = body.model_dump(mode="json", exclude={"image", "images"})
    return Planned(jobs=jobs, n=n, inputs=stored, fingerprint=fingerprint(path, fields, marks))
