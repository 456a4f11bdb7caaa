"""Conversations that the platform keeps: list, rename, delete, read, and follow an answer that is being written.

`POST /v1/chat/completions` with `conversation` begins and continues them. A conversation of another user is a 404.
"""

from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import StreamingResponse
from starlette.concurrency import run_in_threadpool

from api.auth.caller import Caller
from api.auth.dependencies import FullReadDep, GenerateDep
from api.chat.agent.completion import finish_reason, is_text_complete, not_started_text
from api.chat.agent.streaming import AgentStream
from api.chat.agent.subscription import ConversationSubscription
from api.chat.chunks import Chunks
from api.chat.conversations.schemas import (
    Conversation,
    ConversationChange,
    ConversationList,
    DeletedConversation,
    TurnList,
)
from api.chat.conversations.turns import PREFIX, conversation_not_found, parse_conversation_id, results_of
from api.generation.models.agent import AGENT
from api.http.body_parsing import body_openapi, parse_body
from api.http.errors import error_responses
from api.http.fields import Text
from api.http.preferences import set_job_id_header
from api.http.responses import base_url, json_response, page_object, unix_seconds
from api.http.sse import event_stream_response, sse_openapi
from api.jobs.routes import parse_job_id
from api.jobs.serialization import STATUS_OF, job_error, job_object
from worker.core.errors import DreameryError
from worker.core.ids import public_id
from worker.core.job_state import OPEN
from worker.db.chats import threads
from worker.db.engine import Row, Transaction, transaction
from worker.db.jobs import queries
from worker.db.jobs.queries import JobView

router = APIRouter(prefix="/v1/conversations", tags=["chat"])

_CHUNK = (
    'data: {"id":"chatcmpl-...","object":"chat.completion.chunk","choices":[{"delta":{"content":"Hello"},...}]}\n\n'
)


def _conversation_object(row: Row[Any]) -> dict[str, Any]:
    return {
        "id": public_id(PREFIX, row.id),
        "object": "conversation",
        "title": row.title,
        "created_at": unix_seconds(row.created_at),
        "updated_at": unix_seconds(row.updated_at),
    }


@router.get(
    "",
    summary="List your conversations",
    responses={200: {"model": ConversationList, "description": "One page."}, **error_responses(400, 401, 403, 404)},
)
def list_conversations(
    caller: FullReadDep,
    limit: Annotated[int, Query(ge=1, le=100)] = 30,
    after: Annotated[str | None, Query(description="last id of the previous page")] = None,
    q: Annotated[Text | None, Query(max_length=200, description="words of the title or of a message")] = None,
) -> Response:
    """Returns one page, those with the newest message first: conversations that began with `conversation: "new"`."""
    cursor = parse_conversation_id(after) if after else None
    with transaction() as tx:
        rows, more = threads.list_threads(tx, caller.owner, query=q, after=cursor, limit=limit)
    return json_response(page_object([_conversation_object(row) for row in rows], more=more))


@router.get(
    "/{conversation_id}",
    summary="Get a conversation",
    responses={200: {"model": Conversation, "description": "The conversation."}, **error_responses(401, 403, 404)},
)
def get_conversation(conversation_id: str, caller: FullReadDep) -> Response:
    """Returns its title and times; `/turns` has what was said."""
    with transaction() as tx:
        row = threads.find_thread(tx, parse_conversation_id(conversation_id), caller.owner)
    if row is None:
        raise conversation_not_found(conversation_id)
    return json_response(_conversation_object(row))


@router.patch(
    "/{conversation_id}",
    summary="Rename a conversation",
    responses={200: {"model": Conversation, "description": "As it is now."}, **error_responses(400, 401, 403, 404)},
    openapi_extra=body_openapi(ConversationChange, form=False),
)
async def rename_conversation(request: Request, conversation_id: str, caller: GenerateDep) -> Response:
    """Sets the title."""
    caller.require_scope("read")
    thread_id = parse_conversation_id(conversation_id)
    title = " ".join((await parse_body(request, ConversationChange)).title.split())
    if not title:
        raise DreameryError("invalid_value", "`title` must have a letter or a number.", param="title")

    def rename() -> Row[Any] | None:
        with transaction() as tx:
            return threads.rename_thread(tx, thread_id, caller.owner, title)

    row = await run_in_threadpool(rename)
    if row is None:
        raise conversation_not_found(conversation_id)
    return json_response(_conversation_object(row))


@router.delete(
    "/{conversation_id}",
    summary="Delete a conversation",
    responses={
        200: {"model": DeletedConversation, "description": "It was deleted."},
        **error_responses(401, 403, 404, 409),
    },
)
def delete_conversation(conversation_id: str, caller: GenerateDep) -> Response:
    """Removes its messages and answers. The images and videos that were made in it stay. This cannot be undone."""
    caller.require_scope("read")
    thread_id = parse_conversation_id(conversation_id)
    with transaction() as tx:
        if not threads.lock_thread(tx, thread_id, caller.owner):
            raise conversation_not_found(conversation_id)
        if any(turn.state in OPEN for turn in threads.turns_of(tx, thread_id, with_replaced=True)):
            message = "An answer of this conversation is not complete. Cancel its job first, or wait for it."
            raise DreameryError("conversation_busy", message)
        threads.delete_thread(tx, thread_id)
    return json_response({"id": conversation_id, "object": "conversation.deleted", "deleted": True})


@router.get(
    "/{conversation_id}/turns",
    summary="Read a conversation",
    responses={200: {"model": TurnList, "description": "One page."}, **error_responses(400, 401, 403, 404)},
)
def list_turns(
    request: Request,
    conversation_id: str,
    caller: FullReadDep,
    limit: Annotated[int, Query(ge=1, le=100)] = 50,
    after: Annotated[str | None, Query(description="last id of the previous page")] = None,
) -> Response:
    """Returns its turns, oldest first: each request with the answer so far and the jobs that made its results."""
    cursor = parse_job_id(after) if after else None
    with transaction() as tx:
        thread_id = _find(tx, conversation_id, caller)
        number = threads.number_of(tx, thread_id, cursor) if cursor else 0
        turns = threads.turns_of(tx, thread_id, after=number, limit=limit + 1)
        shown, more = turns[:limit], len(turns) > limit
        ids = {*(turn.job_id for turn in shown), *threads.result_ids(tx, shown)}
        views = {view.job.id: view for view in queries.group_views(tx, list(ids))}
        inputs = threads.input_counts(tx, [turn.job_id for turn in shown])
    data = [
        _turn_object(
            turn, views[turn.job_id], results_of(turn, views.values()), inputs.get(turn.job_id, 0), base_url(request)
        )
        for turn in shown
    ]
    return json_response(page_object(data, more=more))


def _find(tx: Transaction, conversation_id: str, caller: Caller) -> UUID:
    thread_id = parse_conversation_id(conversation_id)
    if threads.find_thread(tx, thread_id, caller.owner) is None:
        raise conversation_not_found(conversation_id)
    return thread_id


def _turn_object(turn: threads.Turn, view: JobView, results: list[JobView], inputs: int, base: str) -> dict[str, Any]:
    is_chat, finish = turn.kind == "chat", None
    if not turn.is_answering:
        finish = finish_reason(view, results) if is_chat else "stop"
    return {
        "id": public_id("job", turn.job_id),
        "object": "conversation.turn",
        "kind": turn.kind,
        "model": view.job.params["asked_model"],
        "created_at": unix_seconds(view.job.created_at),
        "status": STATUS_OF[view.job.state],
        "answering": turn.is_answering,
        "messages": [{"role": row["role"], "content": row["text"]} for row in turn.messages],
        "inputs": inputs,
        "content": turn.said,
        "note": not_started_text(view).strip() if is_chat and is_text_complete(view) else "",
        "finish_reason": finish,
        "cut_off": turn.is_cut_off,
        "continues": turn.continues,
        "error": job_error(view),
        "results": [job_object(item, base) for item in results],
    }


@router.get(
    "/{conversation_id}/stream",
    summary="Follow the newest answer",
    response_class=StreamingResponse,
    responses={
        200: {"content": sse_openapi(_CHUNK), "description": "Chunks, as of the chat that asked."},
        **error_responses(400, 401, 403, 404),
    },
)
async def follow_answer(request: Request, conversation_id: str, caller: FullReadDep) -> StreamingResponse:
    """Streams the agent's newest answer from its beginning, for a page that was loaded again or another device."""

    def newest() -> threads.Turn | None:
        with transaction() as tx:
            return threads.newest_turn(tx, _find(tx, conversation_id, caller))

    turn = await run_in_threadpool(newest)
    if turn is None or turn.kind != "chat":
        message = "The newest answer of this conversation is not written by the agent. Follow its job instead."
        raise DreameryError("unsupported_operation", message)
    set_job_id_header(request, public_id("job", turn.job_id))
    stream = AgentStream(
        conversation=ConversationSubscription(request.app.state.job_watcher, turn.job_id),
        chunks=Chunks(AGENT),
        base=base_url(request),
        mark_unanswered=lambda: None,  # reading again is no repeat of the request
    )
    return event_stream_response(stream.frames())
