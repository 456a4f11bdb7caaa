"""Calls to the agent model for tests of all tiers: whole and streamed completions, with the time of each frame."""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import httpx

from tests.support.api_client import new_key

CHAT = "/v1/chat/completions"


@dataclass
class RecordedStream:
    """A received stream: time and content of each frame, number of heartbeat comments, response headers."""

    frames: list[tuple[float, Any]] = field(default_factory=list)
    heartbeats: int = 0
    headers: dict[str, str] = field(default_factory=dict)

    @property
    def deltas(self) -> list[tuple[float, dict[str, Any]]]:
        return [(at, data["choices"][0]["delta"]) for at, data in self.frames if data != "DONE" and data.get("choices")]

    @property
    def contents(self) -> list[tuple[float, str]]:
        return [(at, delta["content"]) for at, delta in self.deltas if delta.get("content")]

    @property
    def text(self) -> str:
        return "".join(piece for _, piece in self.contents)

    @property
    def reasoning(self) -> str:
        return "".join(delta.get("reasoning_content", "") for _, delta in self.deltas)

    @property
    def finish(self) -> list[str]:
        reasons = [
            data["choices"][0]["finish_reason"] for _, data in self.frames if data != "DONE" and data.get("choices")
        ]
        return [reason for reason in reasons if reason]

    @property
    def errors(self) -> list[dict[str, Any]]:
        return [data["error"] for _, data in self.frames if data != "DONE" and "error" in data]


def chat_body(prompt: str, **more: Any) -> dict[str, Any]:
    return {"model": "agent", "messages": [{"role": "user", "content": prompt}], **more}


def stream_chat(
    url: str, prompt: str, *, key: str | None = None, stop: Callable[[RecordedStream], bool] | None = None, **more: Any
) -> RecordedStream:
    """Stream a completion to its end, or until `stop` returns true."""
    recording = RecordedStream()
    headers = {"Authorization": f"Bearer {key or new_key()}", **more.pop("headers", {})}
    with httpx.stream(
        "POST", url + CHAT, json=chat_body(prompt, stream=True, **more), headers=headers, timeout=60
    ) as response:
        assert response.status_code == 200, response.read()
        recording.headers = dict(response.headers)
        for line in response.iter_lines():
            if line.startswith(":"):
                recording.heartbeats += 1
            elif line:
                assert line.startswith("data: "), line
                data = line.removeprefix("data: ")
                recording.frames.append((time.monotonic(), "DONE" if data == "[DONE]" else json.loads(data)))
            if stop is not None and stop(recording):
                break
    return recording


def complete_chat(
    url: str, prompt: str, *, key: str | None = None, headers: dict[str, str] | None = None, **more: Any
) -> httpx.Response:
    headers = {"Authorization": f"Bearer {key or new_key()}", **(headers or {})}
    return httpx.post(url + CHAT, json=chat_body(prompt, **more), headers=headers, timeout=60)


def get_job(url: str, job_id: str, key: str) -> dict[str, Any]:
    return httpx.get(f"{url}/v1/jobs/{job_id}", headers={"Authorization": f"Bearer {key}"}).json()
