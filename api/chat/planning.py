"""Plans a chat with an image or video model.

Without `n` an image chat is one upstream job with the model's default number of images (4). A video chat is one video;
`plan_videos` assigns roles to its images by their number: first frame, first and last frame, or references.
"""

from dataclasses import dataclass, replace
from typing import Any, TypeVar

from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ValidationError

from api.auth.dependencies import Caller
from api.chat.model_names import ModelName, parse_model_name
from api.chat.prompt_extraction import ChatPrompt, extract_prompt
from api.chat.schemas import ChatRequest
from api.generation.acceptance import GenerationPlan
from api.images.planning import plan_images
from api.images.schemas import ImageGenerationRequest
from api.videos.planning import plan_videos
from api.videos.schemas import VideoGenerationRequest
from worker.core.catalog.models import Catalog, get_catalog
from worker.core.errors import DreameryError

Schema = TypeVar("Schema", bound=BaseModel)

# Names of these fields of image and video requests in a chat.
_CHAT_FIELDS = {"prompt": "messages", "image": "messages", "images": "messages"}


@dataclass(frozen=True, slots=True)
class ChatPlan:
    """The jobs of a valid chat, the model name as requested, and the image of an earlier answer that they work from."""

    generation: GenerationPlan
    requested_model: str
    source_image: str | None = None


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


async def plan_chat(path: str, body: ChatRequest, caller: Caller) -> ChatPlan:
    """Return the plan of a chat. Raises the error of an invalid request."""
    model, prompt = resolve_model(body), extract_prompt(body)
    requested_model = body.model or model.name
    is_video = get_catalog().knows_video(model.name)
    source_image = prompt.source_image if is_video or get_catalog().image_model(model.name).references else None
    images = [{"image_url": source_image}] if source_image else prompt.images
    fields = _requested_fields(body, model)
    plan_media = _plan_video if is_video else _plan_image
    try:
        plan = await plan_media(path, body, _MediaRequest(model.name, prompt, images, fields), caller)
    except DreameryError as error:
        error.param = _chat_param(error.param, model)
        raise
    jobs = [replace(job, params={**job.params, "asked_model": requested_model}) for job in plan.jobs]
    return ChatPlan(generation=replace(plan, jobs=jobs), requested_model=requested_model, source_image=source_image)


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
        "resolution": body.resolution,
        "duration": body.duration,
    }
    for name, option in model.options.items():
        known = requested[name]
        if known not in {None, ""} and str(known).strip().lower() != option:
            message = f"The model name asks for {option}, but `{name}` is {str(known)[:20]!r}. Send one of them."
            raise DreameryError("invalid_value", message, param=name)
        requested[name] = int(option) if name == "duration" else option
    return requested


async def _plan_image(path: str, body: ChatRequest, media: _MediaRequest, caller: Caller) -> GenerationPlan:
    if media.fields["duration"] is not None:
        message = f"Model {media.model!r} generates images, which have no `duration`."
        raise DreameryError("unsupported_parameter", message, param="duration")
    fields = {name: value for name, value in media.fields.items() if name != "duration"}
    return await plan_images(
        path,
        _validate(
            ImageGenerationRequest,
            {
                **_shared_fields(body),
                **fields,
                "model": media.model,
                "prompt": media.prompt.text,
                "n": body.n,
            }
            | {"negative_prompt": body.negative_prompt, "images": media.images or None},
        ),
        caller,
        required=False,
    )


async def _plan_video(path: str, body: ChatRequest, media: _MediaRequest, caller: Caller) -> GenerationPlan:
    """Return the plan of a video; the images of the message become frames or references by their number."""
    fields = {
        **_shared_fields(body),
        **media.fields,
        "model": media.model,
        "prompt": media.prompt.text,
        "n": body.n,
    }
    fields |= {"negative_prompt": body.negative_prompt, "images": media.images or None}
    return await plan_videos(path, _validate(VideoGenerationRequest, fields), caller)


def _shared_fields(body: ChatRequest) -> dict[str, Any]:
    return {"seed": body.seed, "user": body.user, "metadata": body.metadata, "webhook": body.webhook}


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
