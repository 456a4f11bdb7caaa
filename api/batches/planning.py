"""Plans one line of a batch like the call at its endpoint: the same checks, the same errors, the same jobs."""

from collections.abc import Awaitable, Callable
from typing import Any

from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel

from api.auth.caller import Caller
from api.batches.reading import Line
from api.chat.planning import plan_chat
from api.chat.schemas import ChatRequest
from api.generation.acceptance import GenerationPlan
from api.generation.models.agent import AGENT
from api.http.body_parsing import validate_body
from api.http.errors import request_error
from api.images.planning import plan_images
from api.images.schemas import ImageGenerationRequest
from api.videos.planning import plan_videos, require_single_video
from api.videos.schemas import VideoGenerationRequest
from worker.core.errors import DreameryError


async def plan_line(line: Line, caller: Caller) -> GenerationPlan:
    """Return the plan of a line; its inputs are stored. Raises its error, with `param` as in the call itself."""
    try:
        return await _PLANS[line.url](line.url, line.body, caller)
    except RequestValidationError as error:
        raise request_error(error) from None


async def _plan_images(path: str, body: dict[str, Any], caller: Caller) -> GenerationPlan:
    request = validate_body(body, ImageGenerationRequest)
    _reject_answers(request)
    return await plan_images(path, request, caller, required=path != "/v1/images/generations")


async def _plan_videos(path: str, body: dict[str, Any], caller: Caller) -> GenerationPlan:
    request = validate_body(body, VideoGenerationRequest)
    _reject_answers(request)
    return await plan_videos(path, require_single_video(request) if path == "/v1/videos" else request, caller)


async def _plan_chat(path: str, body: dict[str, Any], caller: Caller) -> GenerationPlan:
    request = validate_body(body, ChatRequest)
    _reject_answers(request)
    if request.model == AGENT:
        message = "Conversations with the agent need their turns in order: a batch has none. Call the endpoint itself."
        raise DreameryError("unsupported_parameter", message, param="model")
    if getattr(request, "conversation", None) is not None:
        message = "A line of a batch continues no conversation. Call the endpoint itself."
        raise DreameryError("unsupported_parameter", message, param="conversation")
    return (await plan_chat(path, request, caller, run=_run)).generation


async def _run(function: Callable[[], Any]) -> Any:
    return function()


def _reject_answers(request: BaseModel) -> None:
    """Raise `unsupported_parameter` for ways to answer that the file of a batch does not have."""
    if getattr(request, "stream", None):
        message = "A batch has no streams. Leave `stream` out."
        raise DreameryError("unsupported_parameter", message, param="stream")
    if getattr(request, "response_format", None) == "b64_json":
        message = "The results of a batch are links, or files of its zip. Leave `response_format` out."
        raise DreameryError("unsupported_parameter", message, param="response_format")


_PLANS: dict[str, Callable[[str, dict[str, Any], Caller], Awaitable[GenerationPlan]]] = {
    "/v1/images/generations": _plan_images,
    "/v1/images/edits": _plan_images,
    "/v1/images/compositions": _plan_images,
    "/v1/videos": _plan_videos,
    "/v1/videos/generations": _plan_videos,
    "/v1/chat/completions": _plan_chat,
}
