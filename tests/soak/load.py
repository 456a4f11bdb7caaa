"""A constant load: callers that wait for pictures, one that reads lists and streams, one with videos, one with chats."""

import threading
from collections.abc import Callable
from typing import Any

import httpx2

from worker.local.supervisor import Platform

_TIMEOUT = httpx2.Timeout(180, connect=10)


class ConstantLoad:
    """Threads with one request at a time each. `done` counts results, `failed` lists what was no success."""

    def __init__(self, platform: Platform, *, callers: int) -> None:
        self.done = 0
        self.failed: list[str] = []
        self._platform = platform
        self._over = threading.Event()
        self._lock = threading.Lock()
        works: list[Callable[[httpx2.Client], Any]] = [self._picture] * callers
        works += [self._video, self._chat, self._background, self._read]
        self._threads = [
            threading.Thread(target=self._repeat, args=(number, work), daemon=True) for number, work in enumerate(works)
        ]

    def start(self) -> None:
        """Begin."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Let every caller finish its request."""
        self._over.set()
        for thread in self._threads:
            thread.join()

    def _repeat(self, number: int, work: Callable[[httpx2.Client], Any]) -> None:
        headers = {"Authorization": f"Bearer soak{number}:sandbox"}
        with httpx2.Client(base_url=self._platform.url, headers=headers, trust_env=False, timeout=_TIMEOUT) as client:
            while not self._over.is_set():
                try:
                    answer = work(client)
                except httpx2.HTTPError as error:
                    self._note(f"{work.__name__}: {error!r}")
                    self._over.wait(1)
                    continue
                self._note(
                    "" if answer.status_code < 300 else f"{work.__name__}: {answer.status_code} {answer.text[:200]}"
                )
                self._over.wait(0.2)

    def _note(self, failure: str) -> None:
        with self._lock:
            if failure:
                self.failed.append(failure)
            else:
                self.done += 1

    def _picture(self, client: httpx2.Client) -> httpx2.Response:
        body = {"prompt": "a paper boat", "n": 1, "resolution": "1k", "model": "jimeng-4.0", "seed": self.done % 50}
        return client.post("/v1/images/generations", json=body)

    def _video(self, client: httpx2.Client) -> httpx2.Response:
        body = {"prompt": "a paper boat [[seconds:4]]", "model": "jimeng-video-3.0", "seconds": 5}
        return client.post("/v1/videos/generations", json=body)

    def _chat(self, client: httpx2.Client) -> httpx2.Response:
        body = {"model": "jimeng-4.0", "messages": [{"role": "user", "content": "a paper boat"}], "stream": True}
        return client.post("/v1/chat/completions", json=body)

    def _background(self, client: httpx2.Client) -> httpx2.Response:
        """A picture in the background, followed through its event stream."""
        body = {"prompt": "a red kite", "n": 1, "resolution": "1k", "model": "jimeng-4.0"}
        answer = client.post("/v1/images/generations", json=body, headers={"Prefer": "respond-async"})
        if answer.status_code == 202:
            answer = client.get(f"/v1/jobs/{answer.json()['id']}/events")
        return answer

    def _read(self, client: httpx2.Client) -> httpx2.Response:
        self._over.wait(1)
        answer = client.get("/v1/jobs?limit=20")
        client.get("/v1/models")
        for job in answer.json().get("data", [])[:1]:
            client.get(f"/v1/jobs/{job['id']}/timeline")
        return answer
