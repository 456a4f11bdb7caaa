"""Chats with the agent, for tests of any tier: an app in a thread, and a listener that keeps what it heard and when."""

import contextlib
import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import httpx
import uvicorn
from fastapi import FastAPI

from tests.support.api_client import new_key
from tests.support.platform import eventually, free_port

CHAT = "/v1/chat/completions"


@contextlib.contextmanager
def served(app: FastAPI) -> Iterator[str]:
    """The app with its lifespan, in a thread."""
    port = free_port()
    config = uvicorn.Config(
        app, host="127.0.0.1", port=port, access_log=False, log_config=None, log_level="warning", ws="none"
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    try:
        eventually(lambda: server.started, what="the app answers")
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join(15)


@dataclass
class Heard:
    """A stream as it came: the moment and the content of each frame."""

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
        found = [
            data["choices"][0]["finish_reason"] for _, data in self.frames if data != "DONE" and data.get("choices")
        ]
        return [reason for reason in found if reason]

    @property
    def errors(self) -> list[dict[str, Any]]:
        return [data["error"] for _, data in self.frames if data != "DONE" and "error" in data]


def ask(prompt: str, **more: Any) -> dict[str, Any]:
    return {"model": "agent", "messages": [{"role": "user", "content": prompt}], **more}


def hear(
    url: str, prompt: str, *, key: str | None = None, stop: Callable[[Heard], bool] | None = None, **more: Any
) -> Heard:
    """Stream an answer to its end, or until `stop` says so."""
    heard = Heard()
    headers = {"Authorization": f"Bearer {key or new_key()}", **more.pop("headers", {})}
    with httpx.stream(
        "POST", url + CHAT, json=ask(prompt, stream=True, **more), headers=headers, timeout=60
    ) as response:
        assert response.status_code == 200, response.read()
        heard.headers = dict(response.headers)
        for line in response.iter_lines():
            if line.startswith(":"):
                heard.heartbeats += 1
            elif line:
                assert line.startswith("data: "), line
                data = line.removeprefix("data: ")
                heard.frames.append((time.monotonic(), "DONE" if data == "[DONE]" else json.loads(data)))
            if stop is not None and stop(heard):
                break
    return heard


def whole(
    url: str, prompt: str, *, key: str | None = None, headers: dict[str, str] | None = None, **more: Any
) -> httpx.Response:
    headers = {"Authorization": f"Bearer {key or new_key()}", **(headers or {})}
    return httpx.post(url + CHAT, json=ask(prompt, **more), headers=headers, timeout=60)


def job_of(url: str, job_id: str, key: str) -> dict[str, Any]:
    return httpx.get(f"{url}/v1/jobs/{job_id}", headers={"Authorization": f"Bearer {key}"}).json()
