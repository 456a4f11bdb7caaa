"""Chats with the agent: one answer, or a stream that carries the agent's text as it is written.

A stream shows a result when it is ready, between two pieces of text only where the agent pauses. A failed result is
reported in the text, which is complete by itself. An error frame follows when no result was made or the conversation
itself failed. Closing the stream does not cancel the conversation.
"""

import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial
from uuid import UUID

from fastapi import Request, Response
from starlette.concurrency import run_in_threadpool

from api.auth.caller import Caller
from api.chat.agent.completion import (
    agent_completion,
    final_error,
    finish_reason,
    has_ended,
    is_text_complete,
    not_started_text,
    omitted_parts_line,
    result_markdown,
    result_progress_line,
    waiting_line,
)
from api.chat.agent.planning import plan_conversation
from api.chat.agent.subscription import ConversationSubscription
from api.chat.chunks import Chunks, error_frame
from api.chat.conversations.turns import PlannedTurn, set_conversation_header
from api.chat.schemas import ChatRequest
from api.chat.streaming import complete_stream
from api.generation.acceptance import AcceptedRequest
from api.generation.model_availability import read_offer
from api.generation.response import (
    CLIENT_CLOSED_REQUEST,
    accept_jobs,
    accepted_response,
    job_headers,
    mark_failed,
    mark_unanswered,
    restart_error,
    restart_notice,
    wait_error,
    wait_unless_disconnected,
)
from api.http.errors import error_body, error_response
from api.http.preferences import Preference
from api.http.responses import base_url, json_response
from api.http.sse import event_stream_response, stream_events
from api.jobs.serialization import group_error
from worker.core.errors import DreameryError
from worker.core.job_state import UNSUCCESSFUL, JobState

# A result is inserted into the text only after the agent paused for this long.
_PAUSE_SECONDS = 1.5
# Without text for this long, a line says what the conversation waits for.
_FIRST_TEXT_SECONDS = 1.5
_MIN_LINE_INTERVAL = 1.0
_MAX_LINE_INTERVAL = 45.0
# The rows are read this often without a change event, because queue positions change without one.
_REFRESH_SECONDS = 5.0
_MIN_WAIT_SECONDS = 0.05


async def accept_agent_chat(
    request: Request,
    body: ChatRequest,
    caller: Caller,
    preference: Preference,
    key: str | None,
    *,
    turn: PlannedTurn | None = None,
) -> Callable[[], Awaitable[Response]]:
    """Accept a chat with the agent; call the result for the answer. Errors of the request are raised here.

    The answer may take minutes and needs no body: long chats are freed before. `preference` already includes the
    body's `async`.
    """
    plan = plan_conversation(request.url.path, body, caller, await read_offer(caller), turn)
    streams = bool(body.stream) and not preference.respond_async
    accepted = await accept_jobs(request, plan, caller=caller, key=key, answers_late=not streams)
    await set_conversation_header(request, turn, accepted)
    conversation = ConversationSubscription(request.app.state.job_watcher, accepted.job_ids[0])
    usage = bool(body.stream_options and body.stream_options.include_usage)
    chunks = Chunks(body.model or "agent")

    async def answer() -> Response:
        if not streams:
            return await _respond(request, conversation, accepted, preference, keyed=key is not None)
        stream = AgentStream(
            conversation=conversation,
            chunks=chunks,
            base=base_url(request),
            mark_unanswered=partial(mark_unanswered, request),
            mark_failed=partial(mark_failed, request),
            with_usage=usage,
        )
        return event_stream_response(stream.frames(), job_headers(accepted, None))

    return answer


async def _respond(
    request: Request,
    conversation: ConversationSubscription,
    accepted: AcceptedRequest,
    preference: Preference,
    *,
    keyed: bool,
) -> Response:
    if not await wait_unless_disconnected(request, _wait_until_finished(conversation, preference.wait_seconds)):
        return Response(status_code=CLIENT_CLOSED_REQUEST)
    if not conversation.views:
        raise DreameryError("overloaded")
    base = base_url(request)
    deferred = preference.respond_async and (not conversation.finished or preference.wait_seconds == 0)
    headers = job_headers(accepted, preference.applied(deferred=deferred))
    if deferred:
        return accepted_response([conversation.view], base, headers)
    if not conversation.finished and conversation.stopping:
        return error_response(restart_error(request, [conversation.view], base, keyed=keyed), headers=headers)
    if not conversation.finished:
        error = wait_error(request, [conversation.view], base, preference, keyed=keyed)
        return error_response(error, headers=headers)
    if conversation.view.job.state in UNSUCCESSFUL:
        error, status = group_error([conversation.view])
        mark_failed(request)
        return error_response(error, headers=headers, status=status)
    answer = await run_in_threadpool(agent_completion, conversation.view, conversation.children, base)
    return json_response(answer, headers=headers)


async def _wait_until_finished(conversation: ConversationSubscription, seconds: float) -> None:
    until = time.monotonic() + seconds
    with conversation.subscribe(with_text=False):
        await conversation.refresh()
        while not conversation.finished and not conversation.stopping and (left := until - time.monotonic()) > 0:
            await conversation.wait(min(left, _REFRESH_SECONDS))
            await conversation.refresh()


@dataclass(slots=True)
class AgentStream:
    """One stream: its conversation and what was sent so far. It is the event source of its frames."""

    conversation: ConversationSubscription
    chunks: Chunks
    base: str
    mark_unanswered: Callable[[], None]  # called when the stream ends before its jobs do
    with_usage: bool = False
    mark_failed: Callable[[], None] = lambda: None  # called when the stream ends with the failure of its jobs
    _sent_chars: int = 0  # of the agent's text
    _sent_jobs: set[UUID] = field(default_factory=set)  # jobs whose results were sent
    _lines: dict[UUID, tuple[str, float]] = field(default_factory=dict)
    _started_at: float = field(default_factory=time.monotonic)
    _text_at: float = field(default_factory=time.monotonic)
    _read_at: float = 0.0

    def frames(self) -> AsyncIterator[bytes]:
        """Return all frames, from the role to DONE."""
        return complete_stream(self._frames(), job_id=self.conversation.job_id, mark_unanswered=self.mark_unanswered)

    async def _frames(self) -> AsyncIterator[bytes]:
        yield self.chunks.role()
        with self.conversation.subscribe(with_text=True):
            async for frame in stream_events(self):
                yield frame
        for frame in self._last_frames():
            yield frame

    async def new_frames(self) -> AsyncIterator[bytes]:
        """Yield new text first, then new results, else due progress lines."""
        if not self._read_at:
            await self._refresh()
            if self.conversation.views and (line := omitted_parts_line(self.conversation.view)):
                yield self.chunks.reasoning(line)
        # A claim of the job is not reported as a change, so before the first text the rows are read more often.
        interval = _REFRESH_SECONDS if self._sent_chars else _MIN_LINE_INTERVAL
        if self.conversation.has_unread_changes or time.monotonic() - self._read_at >= interval:
            await self._refresh()
        for frame in [*self._new_text(), *self._new_results()] or self._due_lines():
            yield frame

    def is_finished(self) -> bool:
        """Return whether everything was sent: the text, and the results of all jobs that the agent started."""
        return self.conversation.finished and self._is_up_to_date()

    def is_released(self) -> bool:
        """Return whether this process stops."""
        return self.conversation.stopping and bool(self.conversation.views)

    def release(self) -> bytes:
        """Raise `restarting` with the address of the conversation's job."""
        self.mark_unanswered()
        raise restart_notice([self.conversation.view], self.base)

    def expire(self) -> bytes:
        """Return nothing: the conversation has a deadline, the stream has none."""
        return b""

    async def wait(self, seconds: float) -> None:
        """Wait for a change, unless one is unread; at most until a result or a line is due."""
        if self._is_up_to_date():
            await self.conversation.wait(max(min(seconds, self._seconds_to_next_frame()), _MIN_WAIT_SECONDS))

    def _is_up_to_date(self) -> bool:
        return not self.conversation.has_unread_changes and self._sent_chars == len(self.conversation.text)

    async def _refresh(self) -> None:
        await self.conversation.refresh()
        self._read_at = time.monotonic()

    def _new_text(self) -> list[bytes]:
        piece = self.conversation.text[self._sent_chars :]
        if not piece:
            return []
        self._sent_chars += len(piece)
        self._text_at = time.monotonic()
        return [self.chunks.content(piece)]

    def _new_results(self) -> list[bytes]:
        if not self.conversation.views:
            return []
        complete = is_text_complete(self.conversation.view)
        if not complete and self._seconds_since_text() < _PAUSE_SECONDS:
            return []
        ready = [
            child for child in self.conversation.children if has_ended(child) and child.job.id not in self._sent_jobs
        ]
        self._sent_jobs |= {child.job.id for child in ready}
        texts = [result_markdown(child, self.base) for child in ready]
        if texts:
            # The agent's next text begins a paragraph of its own.
            texts[-1] += "" if complete else "\n"
        return [self.chunks.content(text) for text in texts if text]

    def _due_lines(self) -> list[bytes]:
        if not self.conversation.views:
            return []
        now = time.monotonic()
        view, children = self.conversation.view, self.conversation.children
        if not self._sent_chars and not is_text_complete(view):
            late = self._read_at - self._started_at >= _FIRST_TEXT_SECONDS
            return self._line_if_due(view.job.id, waiting_line(view), now) if late else []
        if not is_text_complete(view) and self._seconds_since_text() < _PAUSE_SECONDS:
            return []
        lines: list[bytes] = []
        for number, child in enumerate(children, 1):
            if not has_ended(child):
                lines += self._line_if_due(child.job.id, result_progress_line(child, number, len(children)), now)
        return lines

    def _line_if_due(self, job_id: UUID, line: str, now: float) -> list[bytes]:
        """Return a changed line about a job after the minimum interval, an unchanged one after the maximum."""
        last, at = self._lines.get(job_id, ("", 0.0))
        if now - at < (_MIN_LINE_INTERVAL if line != last else _MAX_LINE_INTERVAL):
            return []
        self._lines[job_id] = line, now
        return [self.chunks.reasoning(line)]

    def _seconds_since_text(self) -> float:
        return time.monotonic() - self._text_at

    def _seconds_to_next_frame(self) -> float:
        waits = [_REFRESH_SECONDS]
        if not self._sent_chars:
            waits.append(_MIN_LINE_INTERVAL)
        if self.conversation.children:
            waits.append(max(_MIN_LINE_INTERVAL, _PAUSE_SECONDS - self._seconds_since_text()))
        return min(waits)

    def _last_frames(self) -> list[bytes]:
        view, children = self.conversation.view, self.conversation.children
        frames = [self.chunks.content(text)] if (text := not_started_text(view)) else []
        error = final_error(view, children)
        if view.job.state in {JobState.SUCCEEDED, JobState.SAVING}:
            frames.append(self.chunks.finish(finish_reason(view, children)))
            if self.with_usage:
                frames.append(self.chunks.usage())
        if error is not None:
            self.mark_failed()
            frames.append(error_frame(error_body(error.kind, error.message)))
        return frames
