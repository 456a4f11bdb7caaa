"""Frames and headers of server-sent events."""

from typing import Any

import orjson

# A comment line and one newline: a blank line after it would be read as an empty event.
HEARTBEAT = b": ka\n"


HEARTBEAT_SECONDS = 12.0


SSE_HEADERS = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}


# What readers of the OpenAPI document are told of each event of a stream.
_EVENT_SCHEMA = {
    "type": "object",
    "description": "one event of the stream",
    "properties": {"id": {"type": "string"}, "event": {"type": "string"}, "data": {"type": "string"}},
    "required": ["data"],
}


def stream_docs(example: str) -> dict[str, Any]:
    """The `content` of a route that answers with server-sent events such as `example`."""
    return {"text/event-stream": {"schema": _EVENT_SCHEMA, "example": example}}


def sse(event: str, data: Any, event_id: int | None = None) -> bytes:
    """One event frame."""
    head = f"id: {event_id}\n" if event_id is not None else ""
    return f"{head}event: {event}\ndata: ".encode() + orjson.dumps(data) + b"\n\n"
