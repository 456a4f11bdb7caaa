"""Plans an image request: checks it against the catalog and returns its jobs. It stores nothing but the inputs.

All parameters of a job are decided here, so that a worker does not have to interpret the request.
"""

import random
import re
from dataclasses import replace
from typing import Any
from uuid import UUID

from api.auth.caller import Caller
from api.generation.acceptance import GenerationPlan, fingerprint
from api.generation.media.reference_images import ReferenceImage, check_image_count, stem_of
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
from api.images.options import check_layered_picture, image_options, reject_unsupported_fields
from api.images.schemas import ImageGenerationRequest
from worker.core.catalog.models import DEFAULT_COUNT, Catalog, ImageModel, Size, get_catalog, nearest_ratio
from worker.core.catalog.prompts.mentions import name_inputs
from worker.core.catalog.prompts.prompt_flags import Flags, parse_flags, requested_series_count
from worker.core.catalog.upstream_models import Choice, UpstreamModels
from worker.core.errors import DreameryError
from worker.core.ids import new_id
from worker.core.media.conversion import FORMATS, OutputFormat
from worker.db.jobs.inputs import NewInput
from worker.db.jobs.state_machine import NewJob

# Limits of models with a table of sizes (openai-compat: 1:3 to 3:1), and of those that make any size.
_MAX_ASPECT_RATIO, _MAX_FREE_RATIO = 3.0, 16.0
_SIZE = re.compile(r"([1-9][0-9]{0,4}) ?[x×*] ?([1-9][0-9]{0,4})")
# Formats that clients request and that neither models nor conversion support.
_UNSUPPORTED_FORMATS = ("gif", "svg")
_HIGH_QUALITIES = ("high", "hd", "xhigh", "max")


def plan_image_jobs(
    body: ImageGenerationRequest, caller: Caller, offer: UpstreamModels = NO_OFFER
) -> tuple[list[NewJob], int]:
    """Return the jobs of an image request and the number of images in its answer. Raises the request's error.

    `offer` = upstream's models for the caller's accounts; a model that only upstream lists is requested by its key.
    """
    catalog = get_catalog()
    choice = _checked_choice(body, caller, offer)
    model = choice.model
    flags = parse_flags(body.prompt)
    sized = _apply_flags(body, flags, model)
    size = _requested_size(catalog, model, sized)
    # A prompt such as "a story in six pictures" without `n`: one job whose model reads the number from the prompt.
    series = None if body.n or body.media_inputs or not model.series else requested_series_count(flags.prompt)
    n = body.n or series or (_set_size(flags.prompt) if body.series else _default_count(body, model))
    output = _requested_output(body)
    counts = [n] if series or body.series else model.split_into_jobs(n)
    options = {**_size_option(model, sized, size), **image_options(body, model, n=n)}
    prompt, adjusted = _final_prompt(body, model, flags.prompt)
    params = {
        "n": n,
        "flags": flags.values,
        "asked_model": body.model or model.id,
        "images": [],
        **choice_params(choice),
        **user_params(model, body.user, body.safety_identifier),
        **({"adjusted": adjusted} if adjusted else {}),
        **({"output": output.as_params()} if output else {}),
        **({"retry_unclear": True} if body.retry_unclear else {}),
    }
    order = {
        "prompt": prompt,
        **_size_fields(size),
        **_texts(body, model),
        **({"options": options} if options else {}),
        **({"key": model.key} if model.listed else {}),
    }
    counted = [count if model.counts and not series else None for count in counts]
    orders = [{**order, "count": count} for count in counted]
    return _jobs(body, caller, model, params=params, orders=orders, offer=offer), n


def _jobs(
    body: ImageGenerationRequest,
    caller: Caller,
    model: ImageModel,
    *,
    params: dict[str, Any],
    orders: list[dict[str, Any]],
    offer: UpstreamModels,
) -> list[NewJob]:
    # Sorted, so that ids of the same millisecond follow the order of the images.
    ids = sorted(new_id() for _ in orders)
    # Jobs after the first use other seeds, otherwise they generate the same images again.
    seed = body.seed if body.seed is not None else random.randrange(2**32)  # noqa: S311
    seeds = [order_seed(model, seed, requested=body.seed is not None, number=number) for number in range(len(orders))]
    return [
        NewJob(
            id=job_id,
            owner=caller.owner,
            kind="image",
            model=model.id,
            params={**params, "order": {**order, "seed": own}},
            providers=[model.provider],
            account_ids=offer.accounts_with(model.key) if model.listed else [],
            user_id=caller.user_id,
            api_key_id=caller.api_key_id,
            webhook_url=body.webhook or None,
            metadata=_metadata(body),
        )
        for job_id, order, own in zip(ids, orders, seeds, strict=True)
    ]


def _checked_choice(body: ImageGenerationRequest, caller: Caller, offer: UpstreamModels) -> Choice[ImageModel]:
    """Return the model of a request whose prompt, model and fields are checked."""
    check_prompt(body.prompt, "prompt")
    check_prompt(body.negative_prompt or "", "negative_prompt")
    _reject_unsupported(body)
    catalog = get_catalog()
    choice = offer.image_choice(catalog, body.model)
    check_regions(choice.model, caller, offer)
    reject_unsupported_fields(body, choice.model)
    check_seed(choice.model, body.seed, catalog.image_models)
    return choice


def _final_prompt(body: ImageGenerationRequest, model: ImageModel, prompt: str) -> tuple[str, dict[str, str]]:
    """Return the prompt as the model reads it, and what was changed of the request."""
    prompt, removed = without_vendor_flags(model, prompt)
    if model.mention:
        prompt = name_inputs(prompt, model.mention, {"image": len(body.media_inputs)})
    # A name that only a pattern knows: the caller sees that it got another model.
    by_pattern = {"model": body.model} if body.model and get_catalog().is_matched_by_pattern(body.model) else {}
    return prompt, {**by_pattern, **removed}


def _texts(body: ImageGenerationRequest, model: ImageModel) -> dict[str, Any]:
    """Return what the order says beside the prompt, where the model has it."""
    found: dict[str, Any] = {}
    if "negative_prompt" in model.fields:
        found["negative_prompt"] = body.negative_prompt or ""
    if "sample_strength" in model.fields:
        found["sample_strength"] = 0.5 if body.sample_strength is None else body.sample_strength
    return found


def _set_size(prompt: str) -> int:
    return requested_series_count(prompt) or DEFAULT_COUNT


def _size_option(model: ImageModel, body: ImageGenerationRequest, size: Size) -> dict[str, str]:
    """Return the size class for a model that chooses the ratio itself: for `auto`, and for layers."""
    if model.free_area is None:
        return {}
    words = {(text or "").strip().lower() for text in (body.size, body.ratio, body.aspect_ratio)}
    has_pixels = _requested_pixels(body, model) is not None or _requested_ratio(model, body) is not None
    if body.layers and has_pixels:
        message = "With `layers` the picture keeps its ratio. Leave `size` and `ratio` out, or send a `resolution`."
        raise DreameryError("invalid_value", message, param="size")
    automatic = bool(words & AUTOMATIC) and not has_pixels
    return {"size_class": size.resolution.upper()} if automatic or body.layers else {}


def _default_count(body: ImageGenerationRequest, model: ImageModel) -> int:
    # Clients with a built-in model name expect OpenAI's default of one image.
    return 1 if get_catalog().is_built_in_name(body.model) else model.default_count


def _apply_flags(body: ImageGenerationRequest, flags: Flags, model: ImageModel) -> ImageGenerationRequest:
    """Return the request with the flags of its prompt applied; they override fields."""
    flags.reject("duration", "an image has no duration.")
    changes: dict[str, str | int | None] = {}
    if resolution := flags.choose("resolution", model.resolutions):
        changes["resolution"] = resolution
    if ratio := flags.choose("ratio", model.ratios):
        # The flag also overrides the size, which front ends send with every request.
        changes |= {"ratio": ratio, "aspect_ratio": None, "size": None, "width": None, "height": None}
    return body.model_copy(update=changes)


def _metadata(body: ImageGenerationRequest) -> dict[str, str]:
    """Return the metadata of each job: the caller's pairs and its user identifiers."""
    identifiers = {"user": body.user, "safety_identifier": body.safety_identifier}
    return {**(body.metadata or {}), **{name: value for name, value in identifiers.items() if value}}


def _reject_unsupported(body: ImageGenerationRequest) -> None:
    """Raise `unsupported_parameter` for known fields that no model supports, instead of ignoring them."""
    reject_agent(body.model)
    for name in ("mask", "markup"):
        if getattr(body, name):
            message = f"No model supports `{name}`: describe in `prompt` what to change and where."
            raise DreameryError("unsupported_parameter", message, param=name)


def _requested_output(body: ImageGenerationRequest) -> OutputFormat | None:
    """Return the requested file format and compression; None = upstream's. Raises the error of an unsupported one."""
    requested = "jpeg" if body.output_format == "jpg" else body.output_format
    if requested is not None and requested not in FORMATS:
        code = "unsupported_parameter" if requested in _UNSUPPORTED_FORMATS else "invalid_value"
        message = f"`output_format` must be one of {', '.join(FORMATS)}; got {requested[:20]!r}."
        raise DreameryError(code, message, param="output_format")
    if requested in {None, "png"} and body.output_compression not in {None, 100}:
        message = "`output_compression` below 100 needs `output_format` `jpeg` or `webp`."
        raise DreameryError("invalid_value", message, param="output_compression")
    if requested is None:
        return None
    return OutputFormat(requested, None if requested == "png" else body.output_compression)


def _requested_size(catalog: Catalog, model: ImageModel, body: ImageGenerationRequest) -> Size:
    pixels = _requested_pixels(body, model)
    ratio = _requested_ratio(model, body)
    resolution = _requested_resolution(model, body)
    if pixels is None:
        return model.size(ratio or "1:1", resolution or _resolution_of_quality(model, body.quality))
    size = catalog.nearest_size(model, *pixels)
    if ratio is not None and ratio != size.ratio:
        message = (
            f"`size` {pixels[0]}x{pixels[1]} is {size.ratio}, but the requested ratio is {ratio}. Send one of them."
        )
        raise DreameryError("invalid_value", message, param="ratio")
    return model.size(size.ratio, resolution) if resolution else size


def _size_like_input(
    body: ImageGenerationRequest, model: ImageModel, references: list[ReferenceInput]
) -> dict[str, Any]:
    """Return the order's size for `adaptive`: the ratio nearest to the first reference that was sent as bytes."""
    words = {(text or "").strip().lower() for text in (body.size, body.ratio, body.aspect_ratio)}
    facts = next((item.facts for item in references if isinstance(item, ReferenceImage) and item.facts), None)
    if facts is None or not words & FOLLOWS_INPUT or "ratio" in parse_flags(body.prompt).values:
        return {}
    ratio = nearest_ratio(model.ratios, facts.width, facts.height)
    flag = parse_flags(body.prompt).choose("resolution", model.resolutions)
    resolution = flag or _requested_resolution(model, body) or _resolution_of_quality(model, body.quality)
    size = model.size(ratio, resolution)
    return _size_fields(size)


def _size_fields(size: Size) -> dict[str, Any]:
    return {"width": size.width, "height": size.height, "ratio": size.ratio, "resolution": size.resolution}


def _resolution_of_quality(model: ImageModel, quality: str | None) -> str:
    """Return the resolution for `quality`, used without size and resolution. Resolutions are listed in rising order."""
    if quality == "low":
        return model.resolutions[0]
    if quality == "medium" and model.medium_quality:
        return model.medium_quality
    return model.resolutions[-1] if quality in _HIGH_QUALITIES else model.default_resolution


def _requested_pixels(body: ImageGenerationRequest, model: ImageModel) -> tuple[int, int] | None:
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
    most = _MAX_ASPECT_RATIO if model.free_area is None else _MAX_FREE_RATIO
    if pixels is not None and max(pixels) > most * min(pixels):
        message = f"{pixels[0]}x{pixels[1]} exceeds the aspect ratio {most:.0f}:1, the most that the model supports."
        raise DreameryError("invalid_value", message, param=param)
    return pixels


def _size_pixels(size: str | None) -> tuple[int, int] | None:
    text = (size or "").strip().lower()
    if not text or text in AUTOMATIC | FOLLOWS_INPUT:
        return None
    match = _SIZE.fullmatch(text)
    if match is None:
        message = f"`size` must be {SIZE_FORMS}; got {text[:40]!r}."
        raise DreameryError("invalid_value", message, param="size")
    return int(match.group(1)), int(match.group(2))


def _requested_ratio(model: ImageModel, body: ImageGenerationRequest) -> str | None:
    ratio, param = (body.ratio, "ratio") if body.ratio else (body.aspect_ratio, "aspect_ratio")
    if not ratio or ratio.strip().lower() in AUTOMATIC | FOLLOWS_INPUT:
        return None
    requested = ratio.strip().replace("：", ":")
    if requested not in model.ratios:
        message = f"`{param}` must be one of {', '.join(model.ratios)}, or `auto`; got {ratio[:20]!r}."
        raise DreameryError("invalid_value", message, param=param)
    return requested


def _requested_resolution(model: ImageModel, body: ImageGenerationRequest) -> str | None:
    if not body.resolution or body.resolution.strip().lower() in AUTOMATIC:
        return None
    requested = body.resolution.strip().lower()
    if requested not in model.resolutions:
        supported = ", ".join(model.resolutions)
        message = f"`resolution` of model {model.id!r} is one of {supported}; got {body.resolution[:20]!r}."
        raise DreameryError("invalid_value", message, param="resolution")
    return requested


async def plan_images(path: str, body: ImageGenerationRequest, caller: Caller, *, required: bool) -> GenerationPlan:
    """Return the plan of an image request and store its inputs. `required` = it must have reference images."""
    offer = await read_offer(caller)
    jobs, n = plan_image_jobs(body, caller, offer)
    model = offer.image_choice(get_catalog(), body.model).model
    if required and not body.media_inputs:
        raise DreameryError("missing_required_parameter", "Missing required parameter: 'image'.", param="image")
    check_image_count(body.media_inputs, model)
    return await _plan_with_inputs(path, body, jobs, n, model)


async def _plan_with_inputs(
    path: str, body: ImageGenerationRequest, jobs: list[NewJob], n: int, model: ImageModel
) -> GenerationPlan:
    entries = body.media_inputs
    async with open_inputs(entries, jobs[0].owner) as references:
        # Before the accepting transaction, so that no row lock waits for a slow disk or bucket.
        stored = await in_storage_thread(_store_inputs, references, jobs[0].id) if references else []
        descriptions = [item.description for item in references]
        check_input_limits(model, entries, references)
        check_layered_picture(body, entries, references)
        adjusted = {**jobs[0].params.get("adjusted", {}), **describe_adjustments(entries, references)}
        size = _size_like_input(body, model, references)
    params = {"images": descriptions, **({"adjusted": adjusted} if adjusted else {})}
    jobs = [replace(job, params={**job.params, **params, "order": {**job.params["order"], **size}}) for job in jobs]
    fields = body.model_dump(mode="json", exclude={"image", "images", "media_inputs"})
    hashed = fingerprint(path, fields, descriptions)
    return GenerationPlan(jobs=jobs, n=n, inputs=stored, fingerprint=hashed, max_cost=body.max_cost)


def _store_inputs(references: list[ReferenceInput], group_id: UUID) -> list[NewInput]:
    return [store_input(item, stem_of(group_id, n)) for n, item in enumerate(references)]
