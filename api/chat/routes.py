"""`POST /v1/chat/completions` in OpenAI's format. Images and videos are answered as Markdown."""

from dataclasses import replace
from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter, Header, Request, Response

from api.auth.caller import Caller
from api.auth.dependencies import GenerateDep
from api.chat.agent.streaming import accept_agent_chat
from api.chat.background.detection import BackgroundCall, parse_job_choice
from api.chat.chunks import DONE, Chunks
from api.chat.completion import chat_completion, completion
from api.chat.conversations.turns import PlannedTurn, plan_turn, set_conversation_header
from api.chat.follow_ups.decision import parse_edit_choice
from api.chat.planning import ChatPlan, detect_background_call, plan_chat
from api.chat.schemas import ChatAnswer, ChatRequest
from api.chat.streaming import ChatStream
from api.generation.models.agent import AGENT
from api.generation.response import (
    IdempotencyKeyHeader,
    accept_jobs,
    create_and_respond,
    job_headers,
    mark_failed,
    mark_unanswered,
    tracked_request,
)
from api.http.bodies.received import received_body
from api.http.body_parsing import body_openapi, parse_body
from api.http.errors import error_responses
from api.http.fields import IMAGE_MODEL
from api.http.preferences import PreferenceDep, parse_idempotency_key
from api.http.responses import base_url, json_response
from api.http.sse import SSE_HEADERS, event_stream_response, sse_openapi
from api.jobs.schemas import AcceptedJob
from worker.core.observability.logging import get_logger
from worker.core.settings import get_settings
from worker.db.jobs.queries import JobView

router = APIRouter(tags=["chat"])
JobChoiceHeader = Annotated[
    str | None,
    Header(
        alias="X-Dreamery-Job",
        description="`always` = start a job even for a background call of a front end; `never` = answer with text",
    ),
]
EditChoiceHeader = Annotated[
    str | None,
    Header(
        alias="X-Dreamery-Edit",
        description="the earlier picture that the message changes: `last`, its number, or `none` for a new picture",
    ),
]
log = get_logger("chat")

_CHUNK = (
    'data: {"id":"chatcmpl-...","object":"chat.completion.chunk","created":1763000000,'
    f'"model":"{IMAGE_MODEL}",'
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
    request: Request,
    *,
    caller: GenerateDep,
    preference: PreferenceDep,
    idempotency_key: IdempotencyKeyHeader = None,
    dreamery_job: JobChoiceHeader = None,
    dreamery_edit: EditChoiceHeader = None,
) -> Response:
    """The last user message is the prompt, its images are the references (videos: the frames). Results are Markdown.

    `stream: true` sends progress as `reasoning_content`, then each result when it is stored. Closing the stream does
    not cancel the job. A message that changes an earlier picture ("a bit darker", "the second one at night") uses it as
    reference; `input.follow_up` of the job says what was decided, and `X-Dreamery-Edit` decides it instead. Background
    calls of front ends (titles, tags, connection tests) are answered without a job (`DREAMERY_ANSWER_CLIENT_PROBES`),
    unless `async`, `X-Dreamery-Job: always` or `conversation` asks for one. Image and video models answer a forced
    `tool_choice` and JSON as `response_format` with a 400.
    """
    key = parse_idempotency_key(idempotency_key)
    body = await parse_body(request, ChatRequest)
    preference = preference.with_async(enabled=body.run_async)
    choice = parse_job_choice(dreamery_job, body.dreamery_job)
    enabled = get_settings().answer_client_probes and not preference.respond_async
    # Long chats are searched in threads that no other request waits for.
    received = received_body(request)
    turn = await plan_turn(body, caller, base_url(request))
    detect = partial(detect_background_call, body, choice=choice, enabled=enabled)
    if turn is None and (call := await received.search(detect)) is not None:
        log.info("housekeeping_answered", kind=call.kind, rule=call.rule or "structure", model=body.model)
        return _answer_background_call(body, call)
    tracked_request(request).wants_new_jobs = choice == "always"
    edit_choice = parse_edit_choice(dreamery_edit, body.dreamery_edit, agent=body.model == AGENT)
    if body.model == AGENT:
        answer = await accept_agent_chat(request, body, caller, preference, key, turn=turn)
        del body, turn
        return await answer()
    if turn is not None:
        body = turn.with_messages_before(body)
    plan = await plan_chat(request.url.path, body, caller, edit_choice, run=received.search)
    if turn is not None:
        plan = replace(plan, generation=turn.attach(plan.generation, caller))
    streams, with_usage = bool(body.stream) and not preference.respond_async, _wants_usage(body)
    # The answer may take minutes and needs no body: long chats are freed before.
    del body
    if streams:
        return await _stream(request, plan, caller, key, turn=turn, with_usage=with_usage)

    def build_body(views: list[JobView], base: str) -> dict[str, Any]:
        return chat_completion(views, n=plan.generation.n, model=plan.requested_model, base=base)

    return await create_and_respond(
        request,
        plan.generation,
        caller=caller,
        preference=preference,
        key=key,
        build_body=build_body,
        on_accepted=partial(set_conversation_header, request, turn),
    )


async def _stream(
    request: Request, plan: ChatPlan, caller: Caller, key: str | None, *, turn: PlannedTurn | None, with_usage: bool
) -> Response:
    """Return the stream. Errors of the request were raised before; from here on the status is 200."""
    accepted = await accept_jobs(request, plan.generation, caller=caller, key=key)
    await set_conversation_header(request, turn, accepted)
    stream = ChatStream(
        job_watcher=request.app.state.job_watcher,
        accepted=accepted,
        chunks=Chunks(plan.requested_model),
        base=base_url(request),
        mark_unanswered=partial(mark_unanswered, request),
        mark_failed=partial(mark_failed, request),
        with_usage=with_usage,
        note=plan.note,
    )
    return event_stream_response(stream.frames(), job_headers(accepted, None))


def _answer_background_call(body: ChatRequest, call: BackgroundCall) -> Response:
    chunks = Chunks(body.model or "")
    if not body.stream:
        message = {"role": "assistant", "content": call.answer, "refusal": None}
        return json_response(completion(message, model=chunks.model))
    usage = [chunks.usage()] if _wants_usage(body) else []
    content = [chunks.content(call.answer)] if call.answer else []
    frames = [chunks.role(), *content, chunks.finish(), *usage, DONE]
    return Response(b"".join(frames), media_type="text/event-stream", headers=SSE_HEADERS)


def _wants_usage(body: ChatRequest) -> bool:
    return bool(body.stream_options and body.stream_options.include_usage)
