"""Plans a chat with an image or video model.

Without `n` an image chat is one upstream job with the model's default number of images (4). A video chat is one video;
`plan_videos` assigns roles to its images by their number: first frame, first and last frame, or references.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeVar

from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ValidationError
from starlette.concurrency import run_in_threadpool

from api.auth.caller import Caller
from api.chat.background.detection import BackgroundCall, find_background_call
from api.chat.follow_ups.decision import EditChoice
from api.chat.model_names import ModelName, parse_model_name
from api.chat.prompt_extraction import ChatPrompt, extract_prompt
from api.chat.schemas import ChatRequest
from api.generation.acceptance import GenerationPlan
from api.generation.models.agent import AGENT
from api.images.planning import plan_images
from api.images.schemas import ImageGenerationRequest
from api.videos.planning import plan_videos
from api.videos.schemas import VideoGenerationRequest
from worker.core.catalog.models import Catalog, get_catalog
from worker.core.errors import DreameryError

Schema = TypeVar("Schema", bound=BaseModel)
RunParsing = Callable[[Callable[[], ChatPrompt]], Awaitable[ChatPrompt]]

# Names of these fields of image and video requests in a chat.
_CHAT_FIELDS = {"prompt": "messages", "image": "messages", "images": "messages"}
# Fields of a chat that only one kind of model has.
_ONLY_IMAGES = ("quality", "sample_strength", "background", "series", "layers", "output_compression")
_ONLY_VIDEOS = (
    *("duration", "seconds", "fps", "generate_audio", "return_last_frame", "draft", "task_type", "priority"),
    *("camera_fixed", "service_tier"),
)
# Values of OpenAI's field that ask for nothing.
_PLAIN_TIERS = frozenset({"auto", "default"})


@dataclass(frozen=True, slots=True)
class ChatPlan:
    """The jobs of a valid chat, the model name as requested, and what they do with earlier pictures, in words."""

    generation: GenerationPlan
    requested_model: str
    note: str | None = None


def resolve_model(body: ChatRequest) -> ModelName:
    """Return the model of a chat. Raises `model_not_found`, or `invalid_value` for an unknown suffix."""
    catalog = get_catalog()
    found = parse_model_name(body.model or catalog.default_image_model, lambda name: _is_known(catalog, name))
    if not catalog.knows_video(found.name):
        catalog.image_model(found.name)
    return found


def _is_known(catalog: Catalog, name: str) -> bool:
    if catalog.knows_video(name):
        return True
    try:
        catalog.image_model(name)
    except DreameryError:
        return False
    return bool(name)


def detect_background_call(body: ChatRequest, *, choice: str | None, enabled: bool) -> BackgroundCall | None:
    """Return the background call that a chat is; None for a chat that starts a job.

    Raises the error of an unknown model, or of a tool call or JSON that an image or video model cannot give.
    """
    if body.model == AGENT:
        return find_background_call(body, agent=True, makes="", choice=choice, enabled=enabled)
    makes = "videos" if get_catalog().knows_video(resolve_model(body).name) else "images"
    return find_background_call(body, agent=False, makes=makes, choice=choice, enabled=enabled)


async def plan_chat(
    path: str,
    body: ChatRequest,
    caller: Caller,
    edit_choice: EditChoice | None = None,
    *,
    run: RunParsing = run_in_threadpool,
) -> ChatPlan:
    """Return the plan of a chat. `edit_choice`: see `parse_edit_choice`. Raises the error of an invalid request.

    `run` runs what searches the messages, which may be long.
    """
    model = resolve_model(body)
    prompt = await run(partial(extract_prompt, body, edit_choice))
    requested_model = body.model or model.name
    is_video = get_catalog().knows_video(model.name)
    follow_up = prompt.follow_up
    if follow_up and follow_up.links and not follow_up.requested and not _takes_pictures(model, is_video=is_video):
        follow_up = follow_up.as_new(f"model {model.name} takes no pictures")
    images = [*({"image_url": link} for link in (follow_up.links if follow_up else ())), *prompt.images]
    fields = _requested_fields(body, model)
    plan_media = _plan_video if is_video else _plan_image
    try:
        plan = await plan_media(path, body, _MediaRequest(model.name, prompt, images, fields), caller)
    except DreameryError as error:
        error.param = _chat_param(error.param, model)
        raise
    params = {"asked_model": requested_model, **({"follow_up": follow_up.as_params()} if follow_up else {})}
    jobs = [replace(job, params={**job.params, **params}) for job in plan.jobs]
    note = follow_up.note() if follow_up else None
    return ChatPlan(generation=replace(plan, jobs=jobs), requested_model=requested_model, note=note)


def _takes_pictures(model: ModelName, *, is_video: bool) -> bool:
    return is_video or bool(get_catalog().image_model(model.name).references)


@dataclass(frozen=True, slots=True)
class _MediaRequest:
    """The model, the prompt, its images, and the fields from the model name and the body."""

    model: str
    prompt: ChatPrompt
    images: list[Any]
    fields: dict[str, Any]


def _requested_fields(body: ChatRequest, model: ModelName) -> dict[str, Any]:
    """Return the fields of the body and of the model name. Raises `invalid_value` where they differ."""
    requested: dict[str, Any] = {
        "size": body.size,
        "ratio": body.ratio or body.aspect_ratio,
        **{
            name: getattr(body, name)
            for name in ("resolution", "width", "height", "web_search", "output_format", *_ONLY_IMAGES, *_ONLY_VIDEOS)
        },
    }
    if (body.service_tier or "").strip().lower() in _PLAIN_TIERS:
        requested["service_tier"] = None
    for name, option in model.options.items():
        known = requested[name]
        known = int(known) if isinstance(known, float) and known.is_integer() else known
        if known not in {None, ""} and str(known).strip().lower() != option:
            message = f"The model name asks for {option}, but `{name}` is {str(known)[:20]!r}. Send one of them."
            raise DreameryError("invalid_value", message, param=name)
        requested[name] = int(option) if name == "duration" else option
    return {name: value for name, value in requested.items() if value not in {None, ""}}


def _reject_fields(media: _MediaRequest, names: tuple[str, ...], makes: str) -> None:
    """Raise `unsupported_parameter` for fields that mean nothing for this kind of model."""
    for name in names:
        if name in media.fields:
            message = f"Model {media.model!r} generates {makes}, which have no `{name}`."
            raise DreameryError("unsupported_parameter", message, param=name)


async def _plan_image(path: str, body: ChatRequest, media: _MediaRequest, caller: Caller) -> GenerationPlan:
    _reject_fields(media, _ONLY_VIDEOS, "images")
    return await plan_images(
        path,
        _validate(
            ImageGenerationRequest,
            {
                **_shared_fields(body),
                **media.fields,
                "model": media.model,
                "prompt": media.prompt.text,
                "n": body.n,
            }
            | {"negative_prompt": body.negative_prompt, **_media_fields(body, media)},
        ),
        caller,
        required=False,
    )


async def _plan_video(path: str, body: ChatRequest, media: _MediaRequest, caller: Caller) -> GenerationPlan:
    """Return the plan of a video; the images of the message become frames or references by their number."""
    _reject_fields(media, _ONLY_IMAGES, "videos")
    fields = {
        **_shared_fields(body),
        **media.fields,
        "model": media.model,
        "prompt": media.prompt.text,
        "n": body.n,
    }
    fields |= {"negative_prompt": body.negative_prompt, **_media_fields(body, media)}
    return await plan_videos(path, _validate(VideoGenerationRequest, fields), caller)


def _media_fields(body: ChatRequest, media: _MediaRequest) -> dict[str, Any]:
    """Return the files of the last message, and those beside the messages."""
    beside = dict(body.media_fields)
    more = beside.pop("images", [])
    images = [*media.images, *(more if isinstance(more, list) else [more])]
    return {**beside, **({"images": images} if images else {})}


def _shared_fields(body: ChatRequest) -> dict[str, Any]:
    return {
        "seed": body.seed,
        "user": body.user,
        "metadata": body.metadata,
        "webhook": body.webhook,
        "max_cost": body.max_cost,
    }


def _validate(schema: type[Schema], fields: dict[str, Any]) -> Schema:
    """Return the fields as an image or video request. Validation errors name the fields of the chat."""
    try:
        return schema.model_validate(fields)
    except ValidationError as error:
        details = [
            {**one, "loc": ("body", _CHAT_FIELDS.get(str(one["loc"][0]), one["loc"][0]), *one["loc"][1:])}
            for one in error.errors()
        ]
        raise RequestValidationError(details) from None


def _chat_param(param: str | None, model: ModelName) -> str | None:
    """Return the chat's name of a parameter of an image or video request."""
    root = (param or "").partition(".")[0]
    return "model" if root in model.options else _CHAT_FIELDS.get(root, param)
