"""From a validated request to accepted jobs: catalog checks, the rows, the nudge. And the wait for their end.

Everything a job needs is decided here, so a worker never has to guess what the caller meant.
"""

import hashlib
import json
import random
import re
from dataclasses import dataclass, replace
from functools import partial
from uuid import UUID

from starlette.concurrency import run_in_threadpool

from api.deps import Caller
from api.pictures import drop_pictures, read_pictures, store_pictures
from api.schemas import ImageGenerationRequest
from worker.bus import queue
from worker.core.catalog import Catalog, ImageModel, Size, get_catalog
from worker.core.errors import DreameryError
from worker.core.ids import new_id
from worker.core.prompts import Flags, read_flags
from worker.core.settings import get_settings
from worker.db import accounts, inputs, jobs, reports, requests
from worker.db.engine import Transaction, retry_when_database_away, transaction
from worker.db.inputs import NewInput
from worker.db.jobs import NewJob

# Beyond this shape no model draws (openai-compat: 1:3 to 3:1).
_MOST_STRETCHED = 3.0
_SIZE = re.compile(r"([1-9][0-9]{0,4}) ?[x×*] ?([1-9][0-9]{0,4})")
_OUTPUT_FORMATS = ("png", "jpeg", "jpg", "webp")


@dataclass(frozen=True, slots=True)
class Accepted:
    """What a request stands for: its jobs, how many pictures its answer holds, and whether it was known before."""

    job_ids: list[UUID]
    n: int
    replayed: bool = False


def plan_image_jobs(body: ImageGenerationRequest, caller: Caller) -> tuple[list[NewJob], int]:
    """The jobs of a picture request, and how many pictures its answer holds. Raises what is wrong with the request."""
    _check_prompt(body.prompt, "prompt")
    _check_prompt(body.negative_prompt or "", "negative_prompt")
    _check_possible(body)
    catalog = get_catalog()
    model = catalog.image_model(body.model)
    _check_regions(model, caller)
    flags = read_flags(body.prompt)
    size = _wanted_size(catalog, model, _with_flags(body, flags, catalog, model))
    n = body.n or model.default_count
    counts = model.jobs_for(n)
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
                    "count": count if model.counts else None,
                    "seed": (seed + number) % 2**32,
                    "negative_prompt": body.negative_prompt or "",
                    "sample_strength": 0.5 if body.sample_strength is None else body.sample_strength,
                },
                "n": n,
                "flags": flags.found,
                "asked_model": body.model or model.id,
                "images": [],
            },
            account_ids=[],
            user_id=caller.user_id,
            api_key_id=caller.api_key_id,
            webhook_url=body.webhook or None,
            metadata={**(body.metadata or {}), **({"user": body.user} if body.user else {})},
        )
        for number, count in enumerate(counts)
    ]
    return planned, n


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


def _check_prompt(text: str, field: str) -> None:
    most = get_settings().prompt_max_chars
    if len(text) > most:
        message = f"`{field}` has {len(text)} characters; the most is {most}. Shorten it."
        raise DreameryError("prompt_too_long", message, param=field)


def _check_possible(body: ImageGenerationRequest) -> None:
    """Refuse what is known and cannot be done; doing something else in silence would be worse."""
    if body.mask:
        message = "No model takes a `mask`: describe in `prompt` what is to be changed, and where."
        raise DreameryError("unsupported_parameter", message, param="mask")
    if body.stream:
        raise DreameryError("unsupported_parameter", "`stream` is not supported for pictures.", param="stream")
    if body.output_format and body.output_format.lower() not in _OUTPUT_FORMATS:
        message = f"`output_format` must be one of {', '.join(_OUTPUT_FORMATS)}; got {body.output_format[:20]!r}."
        raise DreameryError("invalid_value", message, param="output_format")
    if body.background and body.background.lower() == "transparent":
        message = "No model draws a transparent background. Leave `background` out or send `auto`."
        raise DreameryError("unsupported_parameter", message, param="background")


def _check_regions(model: ImageModel, caller: Caller) -> None:
    regions = {token.region for _, token in caller.tokens}
    if regions and not any(model.offered_in(region) for region in regions):
        where = ", ".join(sorted(model.where))
        message = f"Model {model.id!r} is not offered in region {', '.join(sorted(regions))}; it is in: {where}."
        raise DreameryError("model_not_found", message, param="model")


def _wanted_size(catalog: Catalog, model: ImageModel, body: ImageGenerationRequest) -> Size:
    pixels = _wanted_pixels(body)
    ratio = _wanted_ratio(catalog, body)
    resolution = _wanted_resolution(model, body)
    if pixels is None:
        return catalog.size(ratio or "1:1", resolution or model.default_resolution)
    size = catalog.nearest_size(model, *pixels)
    if ratio is not None and ratio != size.ratio:
        message = (
            f"`size` {pixels[0]}x{pixels[1]} is {size.ratio}, but the ratio asked for is {ratio}. Send one of them."
        )
        raise DreameryError("invalid_value", message, param="ratio")
    return catalog.size(size.ratio, resolution) if resolution else size


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


def fingerprint(path: str, body: ImageGenerationRequest, planned: list[NewJob]) -> str:
    """What tells two requests apart: the path and the parsed body, with the pictures as the jobs show them."""
    fields = body.model_dump(mode="json", exclude={"image", "images"})
    text = json.dumps([path, fields, planned[0].params["images"]], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


async def with_pictures(
    planned: list[NewJob], body: ImageGenerationRequest, *, required: bool
) -> tuple[list[NewJob], list[NewInput]]:
    """Check and store the references of a request: its jobs, which now show them, and their rows."""
    return await run_in_threadpool(partial(_with_pictures, planned, body, required=required))


def _with_pictures(
    planned: list[NewJob], body: ImageGenerationRequest, *, required: bool
) -> tuple[list[NewJob], list[NewInput]]:
    model = get_catalog().image_model(planned[0].model)
    given = read_pictures({"image": body.image, "images": body.images}, model)
    if required and not given:
        raise DreameryError("missing_required_parameter", "Missing required parameter: 'image'.", param="image")
    # Before the transaction that accepts: a row never waits for a slow disk or bucket.
    stored = store_pictures(given, planned[0].id)
    marks = [item.mark for item in given]
    return [replace(job, params={**job.params, "images": marks}) for job in planned], stored


async def accept(
    planned: list[NewJob], n: int, *, caller: Caller, key: str | None, print_: str, given: list[NewInput]
) -> Accepted:
    """Write the jobs and nudge the workers; with a known Idempotency-Key, the jobs of the first request."""
    return await run_in_threadpool(partial(_accept, planned, n, caller=caller, key=key, print_=print_, given=given))


def _accept(
    planned: list[NewJob], n: int, *, caller: Caller, key: str | None, print_: str, given: list[NewInput]
) -> Accepted:
    """One transaction, repeated when Postgres went away: a commit whose answer was lost is found by its ids."""
    tries = 0

    @retry_when_database_away
    def attempt() -> Accepted:
        nonlocal tries
        tries += 1
        with transaction() as tx:
            if tries > 1 and reports.group_members(tx, planned[0].id):
                _nudge_all(tx, planned, caller.account_ids(tx))
                return Accepted(job_ids=[job.id for job in planned], n=n)
            if key and (known := _known_request(tx, planned[0].id, owner=caller.owner, key=key, print_=print_)):
                return Accepted(job_ids=known, n=n, replayed=True)
            _insert(tx, planned, caller, given)
        return Accepted(job_ids=[job.id for job in planned], n=n)

    try:
        accepted = attempt()
    except DreameryError:
        # A refusal of ours wrote nothing. After any other failure the rows may be there, so the bytes must stay.
        drop_pictures(given)
        raise
    if accepted.replayed:
        drop_pictures(given)
    return accepted


def _known_request(tx: Transaction, group_id: UUID, *, owner: str, key: str, print_: str) -> list[UUID]:
    """The jobs this key stands for already; none = it now stands for the new group."""
    if requests.remember_request(tx, owner=owner, key=key, group_id=group_id, fingerprint=print_):
        return []
    earlier = requests.remembered_request(tx, owner=owner, key=key)
    if earlier is None or earlier.fingerprint != print_:
        message = "This Idempotency-Key was used with another request. Use a new key."
        raise DreameryError("idempotency_key_reuse", message)
    return reports.group_members(tx, earlier.group_id)


def _insert(tx: Transaction, planned: list[NewJob], caller: Caller, given: list[NewInput]) -> None:
    if reports.open_job_count(tx, caller.owner) + len(planned) > get_settings().open_jobs_per_caller:
        raise DreameryError("queue_full", retry_after=30)
    account_ids = caller.account_ids(tx)
    if not account_ids and accounts.pool_is_empty(tx):
        raise DreameryError("no_account_available", retry_after=60)
    # Replaced here, not planned before: session ids get their rows only with an accepted job.
    jobs.accept(tx, [replace(job, account_ids=account_ids) for job in planned])
    inputs.add_inputs(tx, [job.id for job in planned], given)
    _nudge_all(tx, planned, account_ids)


def _nudge_all(tx: Transaction, planned: list[NewJob], account_ids: list[UUID]) -> None:
    for job in planned:
        tx.on_commit(partial(_nudge, job.id, account_ids))


def _nudge(job_id: UUID, account_ids: list[UUID]) -> None:
    # With one account there is nothing to choose, so the worker need not look for the best.
    if len(account_ids) == 1:
        queue.nudge_submit_soon(account_ids[0])
    else:
        queue.nudge_submit(job_id=job_id)
