"""A chat with a picture or video model: the plan it stands for.

Without `n` a picture chat is one upstream job: as many pictures as the model makes at once (4). A video chat is one
video; its pictures are what `plan_videos` makes of them by their number: first frame, first and last frame, references.
"""

from dataclasses import dataclass, replace
from typing import Any, TypeVar

from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ValidationError

from api.auth.dependencies import Caller
from api.chat.model_names import ModelName, read_model_name
from api.chat.prompt_extraction import ChatPrompt, read_prompt
from api.chat.schemas import ChatRequest
from api.generation.acceptance import Planned
from api.images.planning import plan_images
from api.images.schemas import ImageGenerationRequest
from api.videos.planning import plan_videos
from api.videos.schemas import VideoGenerationRequest
from worker.core.catalog.models import Catalog, get_catalog
from worker.core.errors import DreameryError

Schema = TypeVar("Schema", bound=BaseModel)

# What these fields of a picture or video request are called in a chat.
_IN_CHAT = {"prompt": "messages", "image": "messages", "images": "messages"}


@dataclass(frozen=True, slots=True)
class ChatPlan:
    """A checked chat: its jobs, the name its model was asked for by, and the earlier picture it works from, if any."""

    planned: Planned
    asked_model: str
    earlier: str | None = None


def model_name(body: ChatRequest) -> ModelName:
    """The model a chat is with. Raises `model_not_found`, or what is wrong with the rest of the name."""
    catalog = get_catalog()
    found = read_model_name(body.model or catalog.default_image_model, lambda name: _known(catalog, name))
    if not catalog.knows_video(found.name):
        catalog.image_model(found.name)
    return found


def _known(catalog: Catalog, name: str) -> bool:
    if catalog.knows_video(name):
        return True
    try:
        catalog.image_model(name)
    except DreameryError:
        return False
    return bool(name)


async def plan_chat(path: str, body: ChatRequest, caller: Caller) -> ChatPlan:
    """The plan of a chat. Raises what is wrong with the request."""
    model, prompt = model_name(body), read_prompt(body)
    asked = body.model or model.name
    is_video = get_catalog().knows_video(model.name)
    earlier = prompt.earlier if is_video or get_catalog().image_model(model.name).references else None
    given = [{"image_url": earlier}] if earlier else prompt.pictures
    wished = _wishes(body, model)
    plan = _plan_video if is_video else _plan_pictures
    try:
        planned = await plan(path, body, _Wish(model.name, prompt, given, wished), caller)
    except DreameryError as error:
        error.param = _named(error.param, model)
        raise
    jobs = [replace(job, params={**job.params, "asked_model": asked}) for job in planned.jobs]
    return ChatPlan(planned=replace(planned, jobs=jobs), asked_model=asked, earlier=earlier)


@dataclass(frozen=True, slots=True)
class _Wish:
    """The model, the prompt, its pictures, and the fields that the model's name and the body give."""

    model: str
    prompt: ChatPrompt
    pictures: list[Any]
    fields: dict[str, Any]


def _wishes(body: ChatRequest, model: ModelName) -> dict[str, Any]:
    """What the body's own fields and the rest of the model's name say; both must not differ."""
    wished: dict[str, Any] = {
        "size": body.size,
        "ratio": body.ratio or body.aspect_ratio,
        "resolution": body.resolution,
        "duration": body.duration,
    }
    for name, said in model.says.items():
        known = wished[name]
        if known not in {None, ""} and str(known).strip().lower() != said:
            message = f"The model's name says {said}, but `{name}` is {str(known)[:20]!r}. Send one of them."
            raise DreameryError("invalid_value", message, param=name)
        wished[name] = int(said) if name == "duration" else said
    return wished


async def _plan_pictures(path: str, body: ChatRequest, wish: _Wish, caller: Caller) -> Planned:
    if wish.fields["duration"] is not None:
        message = f"Model {wish.model!r} makes pictures, which have no `duration`."
        raise DreameryError("unsupported_parameter", message, param="duration")
    fields = {name: value for name, value in wish.fields.items() if name != "duration"}
    return await plan_images(
        path,
        _checked(
            ImageGenerationRequest,
            {**_kept(body), **fields, "model": wish.model, "prompt": wish.prompt.text, "n": body.n}
            | {"negative_prompt": body.negative_prompt, "images": wish.pictures or None},
        ),
        caller,
        required=False,
    )


async def _plan_video(path: str, body: ChatRequest, wish: _Wish, caller: Caller) -> Planned:
    """Pictures in the message are its frames or references, as their number says."""
    fields = {**_kept(body), **wish.fields, "model": wish.model, "prompt": wish.prompt.text, "n": body.n}
    fields |= {"negative_prompt": body.negative_prompt, "images": wish.pictures or None}
    return await plan_videos(path, _checked(VideoGenerationRequest, fields), caller)


def _kept(body: ChatRequest) -> dict[str, Any]:
    return {"seed": body.seed, "user": body.user, "metadata": body.metadata, "webhook": body.webhook}


def _checked(schema: type[Schema], fields: dict[str, Any]) -> Schema:
    """The fields as the intake's own request; its complaints name the fields of the chat."""
    try:
        return schema.model_validate(fields)
    except ValidationError as error:
        details = [
            {**one, "loc": ("body", _IN_CHAT.get(str(one["loc"][0]), one["loc"][0]), *one["loc"][1:])}
            for one in error.errors()
        ]
        raise RequestValidationError(details) from None


def _named(param: str | None, model: ModelName) -> str | None:
    """What a parameter of the intake is called in a chat."""
    root = (param or "").partition(".")[0]
    return "model" if root in model.says else _IN_CHAT.get(root, param)
