"""Server-sent events: frames, headers, and the loop that every stream of this API runs in."""

import asyncio
import math
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any, Protocol

import orjson
from fastapi.responses import StreamingResponse

from worker.core.settings import get_settings

# A comment line with one newline: a blank line after it would be read as an empty event.
HEARTBEAT = b": ka\n"
# The last line of a stream that ends because this process stops: clients connect again with their `Last-Event-ID`.
RESTARTING = b": this server restarts\n"
SSE_HEADERS = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}

_MIN_WAIT_SECONDS = 0.01
_EVENT_SCHEMA = {
    "type": "object",
    "description": "one event of the stream",
    "properties": {"id": {"type": "string"}, "event": {"type": "string"}, "data": {"type": "string"}},
    "required": ["data"],
}


class EventSource(Protocol):
    """The content of one stream. `stream_events` calls these methods in turn."""

    def new_frames(self) -> AsyncIterator[bytes]:
        """Read what changed since the last call and yield its frames."""

    def is_finished(self) -> bool:
        """Return whether all frames were sent."""

    def is_released(self) -> bool:
        """Return whether this process stops, so that the stream must end before it is finished."""

    def release(self) -> bytes:
        """Return the last frame of a released stream (may be empty), or raise the error to report instead."""

    def expire(self) -> bytes:
        """Return the last frame of a stream at its deadline (may be empty), or raise the error to report instead."""

    async def wait(self, seconds: float) -> object:
        """Wait for a change, at most `seconds`."""


async def stream_events(
    source: EventSource,
    *,
    heartbeat_seconds: float | None = None,
    deadline_seconds: float = math.inf,
    is_disconnected: Callable[[], Awaitable[bool]] | None = None,
) -> AsyncIterator[bytes]:
    """Yield the frames of `source` until it is finished or released, its deadline passes or the client disconnects.

    A heartbeat is sent after `heartbeat_seconds` without a frame, also while `source` waits for a slow database. `None`
    means the interval of the settings.
    """
    interval = get_settings().stream_heartbeat_seconds if heartbeat_seconds is None else heartbeat_seconds
    started = sent_at = checked_at = time.monotonic()

    def seconds_to_heartbeat() -> float:
        return max(sent_at + interval - time.monotonic(), 0.0)

    while True:
        async for frame in _with_heartbeats(source.new_frames(), seconds_to_heartbeat):
            sent_at = time.monotonic()
            yield frame
        last = _last_frame(source, is_expired=time.monotonic() - started >= deadline_seconds)
        if last is not None:
            if last:
                yield last
            return
        if is_disconnected is not None and time.monotonic() - checked_at >= interval:
            if await is_disconnected():
                return
            checked_at = time.monotonic()
        if seconds_to_heartbeat() <= _MIN_WAIT_SECONDS:
            sent_at = time.monotonic()
            yield HEARTBEAT
        await source.wait(max(seconds_to_heartbeat(), _MIN_WAIT_SECONDS))


def _last_frame(source: EventSource, *, is_expired: bool) -> bytes | None:
    """Return the last frame (may be empty) of a stream that ends now; None for one that continues."""
    if source.is_finished():
        return b""
    if source.is_released():
        return source.release()
    return source.expire() if is_expired else None


async def _with_heartbeats(
    frames: AsyncIterator[bytes], seconds_to_heartbeat: Callable[[], float]
) -> AsyncIterator[bytes]:
    """Yield the frames, and a heartbeat each time the next one takes too long."""
    while True:
        reading = asyncio.create_task(_next(frames))
        try:
            while not (await asyncio.wait({reading}, timeout=seconds_to_heartbeat()))[0]:
                yield HEARTBEAT
        finally:
            if not reading.done():
                reading.cancel()
                await asyncio.gather(reading, return_exceptions=True)
        frame = reading.result()
        if frame is None:
            return
        yield frame


async def _next(frames: AsyncIterator[bytes]) -> bytes | None:
    return await anext(frames, None)


def event_stream_response(frames: AsyncIterator[bytes], headers: Mapping[str, str] | None = None) -> StreamingResponse:
    """Return the response that sends these frames."""
    return StreamingResponse(frames, media_type="text/event-stream", headers={**(headers or {}), **SSE_HEADERS})


def sse_openapi(example: str) -> dict[str, Any]:
    """Return the OpenAPI `content` of a route that answers with server-sent events such as `example`."""
    return {"text/event-stream": {"schema": _EVENT_SCHEMA, "example": example}}


def sse(event: str, data: Any, event_id: int | str | None = None) -> bytes:
    """Return the frame of one event."""
    head = f"id: {event_id}\n" if event_id is not None else ""
    return f"{head}event: {event}\ndata: ".encode() + orjson.dumps(data) + b"\n\n"
