"""Plans any generation call by its path and body, with the checks and errors of the call itself."""

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from api.auth.caller import Caller
from api.chat.agent.planning import plan_conversation
from api.chat.planning import detect_background_call, plan_chat
from api.chat.schemas import ChatRequest
from api.generation.acceptance import GenerationPlan
from api.generation.model_availability import read_offer
from api.generation.models.agent import AGENT
from api.http.bodies.received import ReceivedBody
from api.http.body_parsing import validate_body
from api.images.planning import plan_images
from api.images.schemas import ImageGenerationRequest
from api.videos.planning import plan_videos, require_single_video
from api.videos.schemas import VideoGenerationRequest
from worker.core.settings import get_settings

Fields = dict[str, Any]


async def plan_call(endpoint: str, body: Fields, caller: Caller, received: ReceivedBody) -> GenerationPlan | None:
    """Return the plan of a call, with its inputs stored; None = it is answered without a job. Raises its errors."""
    return await _PLANS[endpoint](endpoint, body, caller, received)


async def _plan_images(path: str, body: Fields, caller: Caller, received: ReceivedBody) -> GenerationPlan:
    request = await received.search(partial(validate_body, body, ImageGenerationRequest))
    return await plan_images(path, request, caller, required=path != "/v1/images/generations")


async def _plan_videos(path: str, body: Fields, caller: Caller, received: ReceivedBody) -> GenerationPlan:
    request = await received.search(partial(validate_body, body, VideoGenerationRequest))
    return await plan_videos(
        path, request if path == "/v1/videos/generations" else require_single_video(request), caller
    )


async def _plan_chat(path: str, body: Fields, caller: Caller, received: ReceivedBody) -> GenerationPlan | None:
    """Return the plan of a chat; None for a background call of a front end, which is answered without a job."""
    request = await received.search(partial(validate_body, body, ChatRequest))
    agent = request.model == AGENT
    enabled = get_settings().answer_client_probes and not request.run_async
    detect = partial(detect_background_call, request, choice=request.dreamery_job, enabled=enabled)
    if await received.search(detect) is not None:
        return None
    if agent:
        return plan_conversation(path, request, caller, await read_offer(caller))
    return (await plan_chat(path, request, caller, run=received.search)).generation


_PLANS: dict[str, Callable[[str, Fields, Caller, ReceivedBody], Awaitable[GenerationPlan | None]]] = {
    "/v1/images/generations": _plan_images,
    "/v1/images/edits": _plan_images,
    "/v1/images/compositions": _plan_images,
    "/v1/videos": _plan_videos,
    "/v1/videos/generations": _plan_videos,
    "/v1/video/generations": _plan_videos,
    "/v1/chat/completions": _plan_chat,
}
