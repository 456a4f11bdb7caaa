"""Chats: `POST /v1/chat/completions`, OpenAI's shape. Pictures and videos are answered as Markdown."""

from functools import partial
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import StreamingResponse

from api.auth.dependencies import Caller, MakerDep
from api.chat.agent_streaming import agent_chat
from api.chat.chunks import DONE, Chunks
from api.chat.client_probes import Housekeeping, read_agent_housekeeping, read_housekeeping
from api.chat.completion import chat_answer, completion
from api.chat.planning import ChatPlan, model_name, plan_chat
from api.chat.schemas import ChatAnswer, ChatRequest
from api.chat.streaming import ChatStream
from api.generation.request_checks import AGENT
from api.generation.response import KeyHeader, answer_headers, create, note_unanswered, start
from api.http.body_parsing import body_docs, read_body
from api.http.errors import error_responses
from api.http.preferences import PreferenceDep, clean_idempotency_key
from api.http.responses import base_url, json_response
from api.http.sse import SSE_HEADERS, stream_docs
from api.jobs.schemas import AcceptedJob
from worker.core.observability.logging import get_logger
from worker.core.settings import get_settings
from worker.db.jobs.queries import JobView

router = APIRouter(tags=["chat"])
log = get_logger("chat")

_CHUNK = (
    'data: {"id":"chatcmpl-...","object":"chat.completion.chunk","created":1763000000,"model":"jimeng-4.0",'
    '"choices":[{"index":0,"delta":{"content":"![image](http://...)"},"finish_reason":null}]}\n\ndata: [DONE]\n\n'
)
_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {
        "model": ChatAnswer,
        "description": "The answer; with `stream: true` chunks.",
        "content": stream_docs(_CHUNK),
    },
    202: {"model": AcceptedJob, "description": "With `Prefer: respond-async`: the job."},
    **error_responses(400, 401, 403, 404, 409, 410, 413, 415, 422, 429, 500, 502, 503, 504),
}


@router.post(
    "/v1/chat/completions",
    summary="Make pictures or videos in a chat",
    responses=_RESPONSES,
    openapi_extra=body_docs(ChatRequest, form=False),
)
async def create_chat(
    request: Request, caller: MakerDep, preference: PreferenceDep, idempotency_key: KeyHeader = None
) -> Response:
    """The last user message is the prompt, its pictures are the references (videos: the frames). Results are Markdown.

    `stream: true` sends progress as `reasoning_content`, then each result when it is stored; who closes the stream
    cancels nothing. A message that speaks of changing a picture and brings none works from the picture of the newest
    answer: the one it counts out (`the second picture`), else the first. Titles, tags and tests of front ends are
    answered without a job (`DREAMERY_HOUSEKEEPING_REPLIES`), unless `async` asks for one.
    """
    key = clean_idempotency_key(idempotency_key)
    body = await read_body(request, ChatRequest)
    preference = preference.with_async(wanted=body.run_async)
    if body.model != AGENT:
        model_name(body)
    if not preference.respond_async and (found := _housekeeping(body)):
        return _answer_at_once(body, found)
    if body.model == AGENT:
        return await agent_chat(request, body, caller, preference, key)
    plan = await plan_chat(request.url.path, body, caller)
    if body.stream and not preference.respond_async:
        return await _stream(request, body, plan, caller, key)

    def body_of(views: list[JobView], base: str) -> dict[str, Any]:
        return chat_answer(views, n=plan.planned.n, model=plan.asked_model, base=base)

    return await create(request, plan.planned, caller=caller, preference=preference, key=key, body_of=body_of)


async def _stream(request: Request, body: ChatRequest, plan: ChatPlan, caller: Caller, key: str | None) -> Response:
    """Everything that can be refused was refused before; from here on the status is 200."""
    accepted = await start(request, plan.planned, caller=caller, key=key)
    stream = ChatStream(
        hub=request.app.state.hub,
        accepted=accepted,
        chunks=Chunks(plan.asked_model),
        base=base_url(request),
        unanswered=partial(note_unanswered, request),
        with_usage=_wants_usage(body),
        earlier=plan.earlier,
    )
    headers = {**answer_headers(accepted, None), **SSE_HEADERS}
    return StreamingResponse(stream.frames(), media_type="text/event-stream", headers=headers)


def _housekeeping(body: ChatRequest) -> Housekeeping | None:
    if not get_settings().housekeeping_replies:
        return None
    found = read_agent_housekeeping(body) if body.model == AGENT else read_housekeeping(body)
    if found is not None:
        log.info("housekeeping_answered", kind=found.kind, model=body.model)
    return found


def _answer_at_once(body: ChatRequest, found: Housekeeping) -> Response:
    chunks = Chunks(body.model or "")
    if not body.stream:
        message = {"role": "assistant", "content": found.answer, "refusal": None}
        return json_response(completion(message, model=chunks.model))
    usage = [chunks.usage()] if _wants_usage(body) else []
    frames = [chunks.role(), chunks.content(found.answer), chunks.finish(), *usage, DONE]
    return Response(b"".join(frames), media_type="text/event-stream", headers=SSE_HEADERS)


def _wants_usage(body: ChatRequest) -> bool:
    return bool(body.stream_options and body.stream_options.include_usage)
