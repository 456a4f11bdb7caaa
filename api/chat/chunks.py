"""Frames of a chat stream: OpenAI's `chat.completion.chunk` objects, as openai-compat section 3 requires.

Frames have no `id:`, no `retry:`, no event names and no empty `data:`, because each of these breaks some client.
"""

import time
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

import orjson

from worker.core.errors import DreameryError

DONE = b"data: [DONE]\n\n"
NO_USAGE = {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}


def completion_id() -> str:
    """Return a new id of a chat answer."""
    return f"chatcmpl-{uuid4().hex}"


@dataclass(frozen=True, slots=True)
class Chunks:
    """Builds the frames of one stream, which share id, time and model."""

    model: str
    id: str = field(default_factory=completion_id)
    created: int = field(default_factory=lambda: int(time.time()))

    def role(self) -> bytes:
        """Return the first frame, which is sent at once."""
        return self._choice({"role": "assistant", "content": ""})

    def content(self, text: str) -> bytes:
        """Return a piece of the answer."""
        return self._choice({"content": text})

    def reasoning(self, line: str) -> bytes:
        """Return a progress line; front ends show it as thinking."""
        return self._choice({"reasoning_content": f"{line}\n"})

    def finish(self, reason: str = "stop") -> bytes:
        """Return the last choice frame; some clients treat a stream without it as broken."""
        return self._choice({}, reason)

    def usage(self) -> bytes:
        """Return the usage frame, the last before DONE; only for `stream_options.include_usage`."""
        return self._frame([], usage=NO_USAGE)

    def _choice(self, delta: dict[str, Any], finish_reason: str | None = None) -> bytes:
        return self._frame([{"index": 0, "delta": delta, "finish_reason": finish_reason}])

    def _frame(self, choices: list[dict[str, Any]], **more: Any) -> bytes:
        body = {
            "id": self.id,
            "object": "chat.completion.chunk",
            "created": self.created,
            "model": self.model,
            "choices": choices,
            **more,
        }
        return b"data: " + orjson.dumps(body) + b"\n\n"


def error_frame(body: dict[str, Any]) -> bytes:
    """Return the frame of an error after the first byte; `body` comes from `api.http.errors.error_body`."""
    return b"data: " + orjson.dumps(body) + b"\n\n"


def finish_reason_of(error: DreameryError | None) -> str:
    """Return OpenAI's finish reason: `content_filter` for content that upstream rejected, else `stop`."""
    return "content_filter" if error is not None and error.code == "content_policy_violation" else "stop"
