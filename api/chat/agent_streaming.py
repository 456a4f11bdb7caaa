"""Chats with the agent: one answer, or a stream whose words are live from the first one.

A stream shows what the agent makes when it is ready, between words only where the agent pauses. Whatever fails is said
in the text, which must be complete by itself; when nothing at all was made, or the conversation itself broke off, an
error frame follows. Who leaves stops nothing.
"""

import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from functools import partial
from uuid import UUID

from fastapi import Request, Response
from fastapi.responses import StreamingResponse
from starlette.concurrency import run_in_threadpool

from api.auth.dependencies import Caller
from api.chat.agent_completion import (
    failure_after,
    finish_of,
    is_over,
    left_out_line,
    lost_text,
    progress_of,
    result_text,
    says_no_more,
    waiting_line,
    whole_answer,
)
from api.chat.agent_planning import plan_conversation
from api.chat.agent_subscription import Talk
from api.chat.chunks import DONE, Chunks, error_frame
from api.chat.schemas import ChatRequest
from api.generation.acceptance import Accepted
from api.generation.response import (
    HUNG_UP,
    answer_headers,
    job_answer,
    note_unanswered,
    out_of_time,
    restarting,
    start,
    stays,
    told_to_come_back,
)
from api.http.errors import error_body, error_response
from api.http.preferences import Preference
from api.http.responses import base_url, json_response
from api.http.sse import HEARTBEAT, HEARTBEAT_SECONDS, SSE_HEADERS
from api.jobs.serialization import failure_of
from worker.core.errors import DreameryError
from worker.core.ids import public_id
from worker.core.job_state import UNSUCCESSFUL, JobState
from worker.core.observability.logging import get_logger

log = get_logger("chat")

# A result goes between two words only when the agent has paused for so long.
_PAUSE_SECONDS = 1.5
# How long the first word may take before a line says what is waited for.
_PATIENCE_SECONDS = 1.5
_LINE_LEAST_SECONDS = 1.0
_LINE_MOST_SECONDS = 45.0
# Without news the rows are read this often: places in a queue change without any.
_LOOK_SECONDS = 5.0


async def agent_chat(
    request: Request, body: ChatRequest, caller: Caller, preference: Preference, key: str | None
) -> Response:
    """Answer a chat with the agent. Everything that can be refused is refused before a stream begins.

    `preference` knows of the body's `async` already.
    """
    planned = plan_conversation(request.url.path, body, caller)
    streams = bool(body.stream) and not preference.respond_async
    accepted = await start(request, planned, caller=caller, key=key, answers_late=not streams)
    talk = Talk(request.app.state.hub, accepted.job_ids[0])
    if streams:
        chunks = Chunks(body.model or "agent")
        usage = bool(body.stream_options and body.stream_options.include_usage)
        stream = AgentStream(
            talk=talk,
            chunks=chunks,
            base=base_url(request),
            unanswered=partial(note_unanswered, request),
            with_usage=usage,
        )
        headers = {**answer_headers(accepted, None), **SSE_HEADERS}
        return StreamingResponse(stream.frames(), media_type="text/event-stream", headers=headers)
    return await _whole(request, talk, accepted, preference)


async def _whole(request: Request, talk: Talk, accepted: Accepted, preference: Preference) -> Response:
    if not await stays(request, _until_over(talk, preference.wait_seconds)):
        return Response(status_code=HUNG_UP)
    if not talk.views:
        raise DreameryError("overloaded")
    base = base_url(request)
    deferred = preference.respond_async and (not talk.over or preference.wait_seconds == 0)
    headers = answer_headers(accepted, preference.applied(deferred=deferred))
    if deferred:
        return job_answer([talk.view], base, headers)
    if not talk.over and talk.stopping:
        return error_response(restarting(request, [talk.view], base), headers=headers)
    if not talk.over:
        return error_response(out_of_time([talk.view], base), headers=headers)
    if talk.view.job.state in UNSUCCESSFUL:
        error, status = failure_of([talk.view])
        return error_response(error, headers=headers, status=status)
    answer = await run_in_threadpool(whole_answer, talk.view, talk.children, base)
    return json_response(answer, headers=headers)


async def _until_over(talk: Talk, seconds: float) -> None:
    until = time.monotonic() + seconds
    with talk.followed(words=False):
        await talk.read()
        while not talk.over and not talk.stopping and (left := until - time.monotonic()) > 0:
            await talk.wait(min(left, _LOOK_SECONDS))
            await talk.read()


@dataclass(slots=True)
class AgentStream:
    """One stream: the conversation it follows, and what it has told already."""

    talk: Talk
    chunks: Chunks
    base: str
    unanswered: Callable[[], None]  # called before the stream ends while its jobs go on
    with_usage: bool = False
    _told: int = 0  # characters of the agent's text
    _shown: set[UUID] = field(default_factory=set)
    _lines: dict[UUID, tuple[str, float]] = field(default_factory=dict)
    _began: float = field(default_factory=time.monotonic)
    _word_at: float = field(default_factory=time.monotonic)
    _sent_at: float = field(default_factory=time.monotonic)
    _read_at: float = 0.0

    async def frames(self) -> AsyncIterator[bytes]:
        """All frames, from the role to DONE."""
        try:
            async for frame in self._frames():
                self._sent_at = time.monotonic()
                yield frame
        except DreameryError as error:
            yield error_frame(error_body(error.kind, error.message, error.param))
        except Exception:
            log.exception("stream_failed", job_id=str(self.talk.job_id))
            self.unanswered()
            yield error_frame(error_body(DreameryError("internal_error").kind, self._where()))
        yield DONE

    async def _frames(self) -> AsyncIterator[bytes]:
        yield self.chunks.role()
        talk = self.talk
        with talk.followed(words=True):
            await self._read()
            if talk.views and (line := left_out_line(talk.view)):
                yield self.chunks.reasoning(line)
            while True:
                for frame in self._news():
                    yield frame
                if talk.over and not talk.stale and self._told == len(talk.said):
                    break
                if talk.stopping and talk.views:
                    self.unanswered()
                    raise told_to_come_back([talk.view], self.base)
                if not talk.stale and self._told == len(talk.said):
                    await talk.wait(self._patience())
                # That a job was claimed is no news of its own: before the first word it is looked for.
                look = _LOOK_SECONDS if self._told else _LINE_LEAST_SECONDS
                if talk.stale or time.monotonic() - self._read_at >= look:
                    await self._read()
        for frame in self._end():
            yield frame

    async def _read(self) -> None:
        await self.talk.read()
        self._read_at = time.monotonic()

    def _news(self) -> list[bytes]:
        """What there is to tell now: words first, then results, else a line or a sign of life."""
        frames = [*self._words(), *self._results()]
        if not frames:
            frames = [*self._progress()]
        if not frames and time.monotonic() - self._sent_at >= HEARTBEAT_SECONDS:
            frames = [HEARTBEAT]
        return frames

    def _words(self) -> list[bytes]:
        piece = self.talk.said[self._told :]
        if not piece:
            return []
        self._told += len(piece)
        self._word_at = time.monotonic()
        return [self.chunks.content(piece)]

    def _results(self) -> list[bytes]:
        if not self.talk.views or not (says_no_more(self.talk.view) or self._silence() >= _PAUSE_SECONDS):
            return []
        ready = [child for child in self.talk.children if is_over(child) and child.job.id not in self._shown]
        self._shown |= {child.job.id for child in ready}
        texts = [result_text(child, self.base) for child in ready]
        if texts:
            # What the agent says next begins a paragraph of its own.
            texts[-1] += "" if says_no_more(self.talk.view) else "\n"
        return [self.chunks.content(text) for text in texts if text]

    def _progress(self) -> list[bytes]:
        if not self.talk.views:
            return []
        now = time.monotonic()
        if not self._told and not says_no_more(self.talk.view):
            late = self._read_at - self._began >= _PATIENCE_SECONDS
            return self._line(self.talk.job_id, waiting_line(self.talk.view), now) if late else []
        if not says_no_more(self.talk.view) and self._silence() < _PAUSE_SECONDS:
            return []
        lines: list[bytes] = []
        for number, child in enumerate(self.talk.children, 1):
            if not is_over(child):
                lines += self._line(child.job.id, progress_of(child, number, len(self.talk.children)), now)
        return lines

    def _line(self, about: UUID, line: str, now: float) -> list[bytes]:
        """The line when it is news, and not too soon after the last one about the same; again after a while."""
        last, at = self._lines.get(about, ("", 0.0))
        if now - at < (_LINE_LEAST_SECONDS if line != last else _LINE_MOST_SECONDS):
            return []
        self._lines[about] = line, now
        return [self.chunks.reasoning(line)]

    def _silence(self) -> float:
        return time.monotonic() - self._word_at

    def _patience(self) -> float:
        """Seconds to wait for news: until a result may be shown, a line told or a sign of life given."""
        waits = [_LOOK_SECONDS, self._sent_at + HEARTBEAT_SECONDS - time.monotonic()]
        if not self._told:
            waits.append(_LINE_LEAST_SECONDS)
        if self.talk.children:
            waits.append(max(_LINE_LEAST_SECONDS, _PAUSE_SECONDS - self._silence()))
        return max(min(waits), 0.05)

    def _end(self) -> list[bytes]:
        talk, children = self.talk.view, self.talk.children
        frames = [self.chunks.content(lost)] if (lost := lost_text(talk)) else []
        failure = failure_after(talk, children)
        if talk.job.state in {JobState.SUCCEEDED, JobState.SAVING}:
            frames.append(self.chunks.finish(finish_of(talk, children)))
            if self.with_usage:
                frames.append(self.chunks.usage())
        if failure is not None:
            frames.append(error_frame(error_body(failure.kind, failure.message)))
        return frames

    def _where(self) -> str:
        name = public_id("job", self.talk.job_id)
        return f"Something went wrong here, but job {name} goes on. Ask for it at /v1/jobs/{name}; do not repeat."
