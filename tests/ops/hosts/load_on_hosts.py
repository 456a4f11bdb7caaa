"""Clients of a platform of several hosts: waiting and asynchronous requests, streams of pictures and of chats, videos."""

import asyncio
import json
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import httpx2

from tests.ops.hosts.platform_of_hosts import PlatformOfHosts
from tests.support.crash.load_clients import ClientRequest, LoadClients, Mode, Outcome

CALLERS = 4
_MODES: tuple[Mode, ...] = ("wait", "async", "stream", "chat", "wait")
_VIDEO_EVERY = 7
_PROBE_SECONDS = 0.25
_IMAGES, _CHAT, _VIDEOS = "/v1/images/generations", "/v1/chat/completions", "/v1/videos/generations"


def make_orders(first_number: int, *, count: int, seconds: float, script: str = "") -> list[ClientRequest]:
    """Return the requests, evenly over the time. Their numbers are in the prompts, so that the ledger has them."""
    orders = []
    for n in range(count):
        video = n % _VIDEO_EVERY == _VIDEO_EVERY - 1
        orders.append(
            ClientRequest(
                number=first_number + n,
                token=f"hosts{n % CALLERS}:sandbox",
                script=f"{script}[[seconds:4]]" if video else script,
                seed=n % 4,
                mode="async" if video else _MODES[n % len(_MODES)],
                starts_at=seconds * n / count,
                kind="video" if video else "image",
                model="jimeng-video-3.0" if video else "jimeng-4.0",
            )
        )
    return orders


class HostClients(LoadClients):
    """Clients that come through the load balancer. They repeat what it could not deliver, with the same key."""

    proxy_errors = frozenset({502, 504})

    def __init__(self, platform: PlatformOfHosts) -> None:
        super().__init__(platform.balancer.url, verify=platform.balancer.context)
        self.longest_answer = 0.0
        self.silence = 0.0

    async def run(self, order: ClientRequest) -> Outcome:
        """Send the request at its start time and wait until its outcome is known."""
        if order.mode not in {"stream", "chat"}:
            return await super().run(order)
        await asyncio.sleep(order.starts_at)
        outcome = Outcome(order=order)
        while (reason := await self._read_stream(outcome)) is not None:
            await self._pause(reason)
        return outcome

    async def _try(self, order: ClientRequest, *, keyed: bool = True, respond_async: bool = False) -> httpx2.Response:
        began = time.monotonic()
        try:
            if order.kind != "video":
                return await super()._try(order, keyed=keyed, respond_async=respond_async)
            headers = {**self._headers(order), "Prefer": "respond-async"}
            body = {"prompt": order.prompt, "model": order.model, "seconds": 5}
            return await self._client.post(_VIDEOS, json=body, headers=headers)
        finally:
            self.longest_answer = max(self.longest_answer, time.monotonic() - began)

    async def _read_stream(self, outcome: Outcome) -> str | None:
        """Read the whole stream. Returns why it must be asked for again, or None."""
        order = outcome.order
        chat = order.mode == "chat"
        body: dict[str, Any] = {"model": order.model, "n": 1, "stream": True}
        if chat:
            body |= {"model": f"{order.model}:1k", "messages": [{"role": "user", "content": order.prompt}]}
        else:
            body |= {"prompt": order.prompt, "resolution": "1k", "seed": order.seed}
        began, path = time.monotonic(), _CHAT if chat else _IMAGES
        try:
            async with self._client.stream("POST", path, json=body, headers=self._headers(order)) as response:
                self._record_job(outcome, response)
                if response.status_code in self.proxy_errors:
                    return f"{response.status_code} of the proxy"
                if response.status_code == 503:
                    return "503 overloaded"
                if response.status_code != 200:
                    await response.aread()
                    self.failures.append(f"{order.prompt}: {response.status_code} {response.text[:200]}")
                    return None
                return await self._read_frames(outcome, response)
        except httpx2.ReadTimeout:
            self.failures.append(f"{order.prompt}: a stream was silent for two minutes")
            return None
        except httpx2.TransportError as error:
            return f"stream: {type(error).__name__}"
        finally:
            self.longest_answer = max(self.longest_answer, time.monotonic() - began)

    async def _read_frames(self, outcome: Outcome, response: httpx2.Response) -> str | None:
        async for line in response.aiter_lines():
            data = line.removeprefix("data: ")
            if data == line:
                continue
            if data == "[DONE]":
                outcome.status = "completed"
            elif error := json.loads(data).get("error"):
                code = str(error.get("code"))
                if code != "overloaded":
                    self.failures.append(f"{outcome.order.prompt}: {data[:200]}")
                    return None
                return f"stream: {code}"
            elif json.loads(data).get("type") == "image_generation.completed":
                outcome.status = "completed"
        return None if outcome.status == "completed" else "stream: ended early"

    @staticmethod
    def _headers(order: ClientRequest) -> dict[str, str]:
        return {"Authorization": f"Bearer {order.token}", "Idempotency-Key": order.key}

    async def watch(self, over: asyncio.Event) -> None:
        """Ask for a list all the time; remembers the longest time in which no answer arrived."""
        last = time.monotonic()
        pending: set[asyncio.Task[bool]] = set()
        while not over.is_set():
            pending.add(asyncio.create_task(self._list()))
            done, pending = await asyncio.wait(pending, timeout=_PROBE_SECONDS, return_when=asyncio.FIRST_COMPLETED)
            if any(task.result() for task in done):
                self.silence = max(self.silence, time.monotonic() - last)
                last = time.monotonic()
                await asyncio.sleep(_PROBE_SECONDS)
        self.silence = max(self.silence, time.monotonic() - last)
        for task in pending:
            task.cancel()

    async def _list(self) -> bool:
        try:
            answer = await self._client.get("/v1/jobs?limit=1", headers={"Authorization": "Bearer hosts0:sandbox"})
        except httpx2.TransportError:
            return False
        return answer.status_code == 200


@dataclass
class Course:
    """What clients saw of one disturbance, in seconds. `recovery` = from its end to the last result."""

    outcomes: list[Outcome]
    failures: list[str]
    repeats: Counter[str]
    silence: float
    longest_answer: float
    recovery: float
    finished_before_the_end: int

    def __str__(self) -> str:
        reasons = ", ".join(f"{count}x {reason}" for reason, count in sorted(self.repeats.items())) or "none"
        return (
            f"{len(self.outcomes)} requests, {self.finished_before_the_end} ended meanwhile; longest time without an answer "
            f"{self.silence:.1f} s, longest answer {self.longest_answer:.1f} s, last result {self.recovery:.1f} s after its "
            f"end; repeats: {reasons}"
        )


def run_load(
    platform: PlatformOfHosts,
    orders: list[ClientRequest],
    disturb: Callable[[Callable[[], bool]], None],
    *,
    after: float,
    within: float,
) -> Course:
    """Send the requests; call `disturb(all_ended)` after some seconds. It returns when the disturbance is over."""
    return asyncio.run(_run(platform, orders, disturb, after, within))


async def _run(
    platform: PlatformOfHosts,
    orders: list[ClientRequest],
    disturb: Callable[[Callable[[], bool]], None],
    after: float,
    within: float,
) -> Course:
    async with HostClients(platform) as clients:
        tasks = [asyncio.create_task(clients.run(order)) for order in orders]
        over = asyncio.Event()
        watcher = asyncio.create_task(clients.watch(over))
        await asyncio.sleep(after)
        await asyncio.to_thread(disturb, lambda: all(task.done() for task in tasks))
        calm, ended = time.monotonic(), sum(task.done() for task in tasks)
        _, late = await asyncio.wait(tasks, timeout=within)
        recovery = time.monotonic() - calm if ended < len(tasks) else 0.0
        for task in late:
            task.cancel()
        over.set()
        await watcher
        found = await asyncio.gather(*tasks, return_exceptions=True)
        clients.failures += [
            f"not finished in time: {o.prompt}" for o, t in zip(orders, tasks, strict=True) if t in late
        ]
        clients.failures += [repr(error) for error in found if isinstance(error, Exception)]
        outcomes = [outcome for outcome in found if isinstance(outcome, Outcome)]
        return Course(
            outcomes, clients.failures, clients.reasons, clients.silence, clients.longest_answer, recovery, ended
        )
