"""`POST /v1/chat/completions` in OpenAI's format. Images and videos are answered as Markdown."""

from functools import partial
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import StreamingResponse

from api.auth.dependencies import Caller, GenerateDep
from api.chat.agent_streaming import answer_agent_chat
from api.chat.chunks import DONE, Chunks
from api.chat.client_probes import ClientProbe, detect_agent_probe, detect_client_probe
from api.chat.completion import chat_completion, completion
from api.chat.planning import ChatPlan, plan_chat, resolve_model
from api.chat.schemas import ChatAnswer, ChatRequest
from api.chat.streaming import ChatStream
from api.generation.request_checks import AGENT
from api.generation.response import IdempotencyKeyHeader, accept_jobs, create_and_respond, job_headers, mark_unanswered
from api.http.body_parsing import body_openapi, parse_body
from api.http.errors import error_responses
from api.http.preferences import PreferenceDep, parse_idempotency_key
from api.http.responses import base_url, json_response
from api.http.sse import SSE_HEADERS, sse_openapi
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
        "content": sse_openapi(_CHUNK),
    },
    202: {"model": AcceptedJob, "description": "With `Prefer: respond-async`: the job."},
    **error_responses(400, 401, 403, 404, 409, 410, 413, 415, 422, 429, 500, 502, 503, 504),
}


@router.post(
    "/v1/chat/completions",
    summary="Generate images or videos in a chat",
    responses=_RESPONSES,
    openapi_extra=body_openapi(ChatRequest, form=False),
)
async def create_chat(
    request: Request, caller: GenerateDep, preference: PreferenceDep, idempotency_key: IdempotencyKeyHeader = None
) -> Response:
    """The last user message is the prompt, its images are the references (videos: the frames). Results are Markdown.

    `stream: true` sends progress as `reasoning_content`, then each result when it is stored. Closing the stream does
    not cancel the job. A message without images that asks for a change uses an image of the newest answer: the one it
    counts out (`the second picture`), else the first. Background calls of front ends (titles, tags, connection tests)
    are answered without a job (`DREAMERY_ANSWER_CLIENT_PROBES`), unless `async` asks for one.
    """
    key = parse_idempotency_key(idempotency_key)
    body = await parse_body(request, ChatRequest)
    preference = preference.with_async(enabled=body.run_async)
    if body.model != AGENT:
        resolve_model(body)
    if not preference.respond_async and (probe := _detect_probe(body)):
        return _answer_probe(body, probe)
    if body.model == AGENT:
        return await answer_agent_chat(request, body, caller, preference, key)
    plan = await plan_chat(request.url.path, body, caller)
    if body.stream and not preference.respond_async:
        return await _stream(request, body, plan, caller, key)

    def build_body(views: list[JobView], base: str) -> dict[str, Any]:
        return chat_completion(views, n=plan.generation.n, model=plan.requested_model, base=base)

    return await create_and_respond(
        request, plan.generation, caller=caller, preference=preference, key=key, build_body=build_body
    )


async def _stream(request: Request, body: ChatRequest, plan: ChatPlan, caller: Caller, key: str | None) -> Response:
    """Return the stream. Errors of the request were raised before; from here on the status is 200."""
    accepted = await accept_jobs(request, plan.generation, caller=caller, key=key)
    stream = ChatStream(
        job_watcher=request.app.state.job_watcher,
        accepted=accepted,
        chunks=Chunks(plan.requested_model),
        base=base_url(request),
        mark_unanswered=partial(mark_unanswered, request),
        with_usage=_wants_usage(body),
        source_image=plan.source_image,
    )
    headers = {**job_headers(accepted, None), **SSE_HEADERS}
    return StreamingResponse(stream.frames(), media_type="text/event-stream", headers=headers)


def _detect_probe(body: ChatRequest) -> ClientProbe | None:
    if not get_settings().answer_client_probes:
        return None
    probe = detect_agent_probe(body) if body.model == AGENT else detect_client_probe(body)
    if probe is not None:
        log.info("housekeeping_answered", kind=probe.kind, model=body.model)
    return probe


def _answer_probe(body: ChatRequest, probe: ClientProbe) -> Response:
    chunks = Chunks(body.model or "")
    if not body.stream:
        message = {"role": "assistant", "content": probe.answer, "refusal": None}
        return json_response(completion(message, model=chunks.model))
    usage = [chunks.usage()] if _wants_usage(body) else []
    frames = [chunks.role(), chunks.content(probe.answer), chunks.finish(), *usage, DONE]
    return Response(b"".join(frames), media_type="text/event-stream", headers=SSE_HEADERS)


def _wants_usage(body: ChatRequest) -> bool:
    return bool(body.stream_options and body.stream_options.include_usage)
