"""The two loads: pictures of many callers who wait for them, and long videos on few accounts."""

from dataclasses import dataclass
from typing import Any

import httpx2

from tests.support.crash.load_clients import ClientRequest, LoadClients

_ANSWER_SECONDS = 240.0


@dataclass(frozen=True)
class Load:
    """`requests` are sent evenly over `seconds`, by `callers` with one account each."""

    name: str
    requests: int
    seconds: float
    callers: int
    mode: Any
    script: str
    video: bool = False

    def quick(self) -> "Load":
        """Return a third of the load in a third of the time."""
        return Load(
            self.name, self.requests // 3, self.seconds / 3, self.callers, self.mode, self.script, video=self.video
        )

    def orders(self, first_number: int) -> list[ClientRequest]:
        """Return the requests. Their numbers are part of the prompts, so that the ledger of the sandbox has them."""
        return [
            ClientRequest(
                number=first_number + n,
                token=f"chaos{first_number}c{n % self.callers}:sandbox",
                script=self.script,
                seed=n % 4,
                mode=self.mode,
                starts_at=self.seconds * n / self.requests,
            )
            for n in range(self.requests)
        ]


LOADS = (
    Load("pictures, 24 callers", requests=240, seconds=60, callers=24, mode="wait", script="[[seconds:1.5]]"),
    Load("videos, 4 accounts", requests=24, seconds=60, callers=4, mode="async", script="[[seconds:8]]", video=True),
)


class Clients(LoadClients):
    """Like `LoadClients`, also for videos."""

    def __init__(self, url: str, *, video: bool) -> None:
        super().__init__(url)
        # A job whose worker was killed waits for the end of its lease and of the grace time of its submit.
        self._client.timeout = httpx2.Timeout(_ANSWER_SECONDS, connect=5, pool=None)
        self._video = video

    async def _try(self, order: ClientRequest, *, keyed: bool = True, respond_async: bool = False) -> httpx2.Response:
        if not self._video:
            return await super()._try(order, keyed=keyed, respond_async=respond_async)
        headers = {
            "Authorization": f"Bearer {order.token}",
            "Idempotency-Key": order.key,
            "Prefer": "respond-async",
        }
        body = {"prompt": order.prompt, "model": "jimeng-video-3.0", "seconds": 5}
        return await self._client.post("/v1/videos/generations", json=body, headers=headers)
