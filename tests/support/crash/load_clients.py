"""Callers of a running platform for the crash tests: each places one order over HTTP, stubbornly, and says how it ended.

A caller repeats a call whose connection broke, or that was refused before a job existed, with the same Idempotency-Key.
"""

import asyncio
import random
from dataclasses import dataclass, field
from typing import Any, Literal, Self

import httpx2

Manner = Literal["wait", "async", "twice", "cancel", "once"]
_PAUSE = 0.5


@dataclass(frozen=True, kw_only=True)
class Order:
    """What one caller wants, how it goes about it, and which ends are right."""

    number: int
    token: str
    script: str = ""
    text: str = "a paper boat"
    pictures: int = 1
    files: int = 1
    seed: int = 1
    manner: Manner = "wait"
    starts_at: float = 0.0
    cancel_after: float = 0.0
    ends: frozenset[str] = frozenset({"completed"})
    code: str | None = None

    @property
    def prompt(self) -> str:
        """The words; `[[job:N]]` tells the order in the ledger and is not drawn, so few pictures are drawn anew."""
        return f"{self.text} [[job:{self.number}]]{self.script}"

    @property
    def key(self) -> str:
        """The Idempotency-Key."""
        return f"order-{self.number}"


@dataclass(kw_only=True)
class Outcome:
    """What the caller saw."""

    order: Order
    job_ids: set[str] = field(default_factory=set)
    status: str = "unknown"
    code: str | None = None
    urls: list[str] = field(default_factory=list)
    promised_cancel: bool = False  # a cancel was answered with `cancelled`
    replayed: bool = False


class Crowd:
    """Callers on one event loop. `troubles` lists what no crash excuses."""

    def __init__(self, url: str) -> None:
        self.troubles: list[str] = []
        self.repeats = 0
        self._client = httpx2.AsyncClient(
            base_url=url,
            trust_env=False,
            timeout=httpx2.Timeout(120, connect=5, pool=None),
            limits=httpx2.Limits(max_connections=None, max_keepalive_connections=20, keepalive_expiry=2),
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_error: object) -> None:
        await self._client.aclose()
        await asyncio.sleep(0.1)  # for transports of callers that were sent away

    async def place(self, order: Order) -> Outcome:
        """Place the order at its time and stay until its end is known."""
        await asyncio.sleep(order.starts_at)
        outcome = Outcome(order=order)
        if order.manner == "wait":
            self._read_pictures(outcome, await self._post(order))
        elif order.manner == "twice":
            for response in await asyncio.gather(self._post(order), self._post(order)):
                self._read_pictures(outcome, response)
        elif order.manner == "once":
            await self._place_once(outcome)
        else:
            response = await self._post(order, respond_async=True)
            if response.status_code != 202:
                self.troubles.append(f"{order.prompt}: {response.status_code} {response.text[:200]}")
                return outcome
            self._note_job(outcome, response)
            if order.manner == "cancel":
                await asyncio.sleep(order.cancel_after)
                await self._cancel(outcome)
            await self._follow(outcome)
        return outcome

    async def _place_once(self, outcome: Outcome) -> None:
        """Without a key a caller must not repeat; whether its job exists only the database knows."""
        try:
            self._read_pictures(outcome, await self._try(outcome.order, keyed=False))
        except httpx2.TransportError:
            outcome.status = "lost"

    async def _try(self, order: Order, *, keyed: bool = True, respond_async: bool = False) -> httpx2.Response:
        headers = {"Authorization": f"Bearer {order.token}"}
        if keyed:
            headers["Idempotency-Key"] = order.key
        if respond_async:
            headers["Prefer"] = "respond-async"
        body = {
            "prompt": order.prompt,
            "n": order.pictures,
            "resolution": "1k",
            "seed": order.seed,
            "model": "jimeng-4.0",
        }
        return await self._client.post("/v1/images/generations", json=body, headers=headers)

    async def _post(self, order: Order, *, respond_async: bool = False) -> httpx2.Response:
        return await self._stubbornly(lambda: self._try(order, respond_async=respond_async))

    async def _stubbornly(self, call: Any) -> httpx2.Response:
        while True:
            try:
                response: httpx2.Response = await call()
            except httpx2.TransportError as error:
                if isinstance(error, httpx2.ReadTimeout):
                    self.troubles.append(f"an answer took longer than two minutes: {error.request.url}")
                    raise
            else:
                told_not_to = response.headers.get("x-should-retry") == "false"
                if response.status_code < 500 or told_not_to:
                    return response
                code = _error(response).get("code")
                if code != "overloaded":
                    self.troubles.append(f"{response.request.url.path}: {response.status_code} {response.text[:200]}")
            self.repeats += 1
            await asyncio.sleep(_PAUSE * random.uniform(0.5, 1.5))

    async def get(self, order: Order, path: str) -> httpx2.Response:
        """A read on behalf of the order's caller."""
        headers = {"Authorization": f"Bearer {order.token}"}
        return await self._stubbornly(lambda: self._client.get(path, headers=headers))

    async def _cancel(self, outcome: Outcome) -> None:
        (job_id,) = outcome.job_ids
        headers = {"Authorization": f"Bearer {outcome.order.token}"}
        response = await self._stubbornly(lambda: self._client.post(f"/v1/jobs/{job_id}/cancel", headers=headers))
        if response.status_code != 200:
            self.troubles.append(f"cancel of {job_id}: {response.status_code} {response.text[:200]}")
            return
        outcome.promised_cancel = response.json()["status"] == "cancelled"

    async def _follow(self, outcome: Outcome) -> None:
        (job_id,) = outcome.job_ids
        while True:
            response = await self.get(outcome.order, f"/v1/jobs/{job_id}?wait=20")
            if response.status_code != 200:
                self.troubles.append(f"{job_id}: {response.status_code} {response.text[:200]}")
                return
            job = response.json()
            if job["status"] in {"completed", "failed", "cancelled"}:
                outcome.status = job["status"]
                outcome.code = (job["error"] or {}).get("code")
                outcome.urls = [item["url"] for item in job["output"] or []]
                return

    def _note_job(self, outcome: Outcome, response: httpx2.Response) -> None:
        job_id = response.headers.get("x-job-id")
        if job_id:
            outcome.job_ids.add(job_id)
        outcome.replayed |= response.headers.get("idempotency-replayed") == "true"

    def _read_pictures(self, outcome: Outcome, response: httpx2.Response) -> None:
        self._note_job(outcome, response)
        if response.status_code == 200:
            outcome.status = "completed"
            outcome.urls = [item["url"] for item in response.json()["data"]]
        elif response.status_code == 503 and not outcome.job_ids:
            outcome.status = "lost"  # refused, or accepted without our knowing; only `once` does not repeat it
        else:
            outcome.code = _error(response).get("code")
            outcome.status = "cancelled" if outcome.code == "job_cancelled" else "failed"


def _error(response: httpx2.Response) -> dict[str, Any]:
    try:
        return dict(response.json()["error"])
    except (ValueError, KeyError, TypeError):
        return {"code": f"unreadable: {response.text[:100]}"}


def storm_orders(dice: random.Random, *, count: int, tokens: list[str], within: float) -> list[Order]:
    """A mix of callers: waiting ones, asynchronous ones, twins, cancels; good pictures, refused ones, troubled submits."""
    return [_storm_order(dice, number, tokens, within) for number in range(1, count + 1)]


def _storm_order(dice: random.Random, number: int, tokens: list[str], within: float) -> Order:
    token = dice.choice(tokens) if dice.random() < 0.7 else ",".join(dice.sample(tokens, 2))
    manner: Manner = dice.choices(("wait", "async", "twice", "cancel", "once"), weights=(47, 25, 12, 12, 4))[0]
    script = f"[[seconds:{dice.uniform(1, 3):.2f}]]"
    pictures = files = 1
    ends, code = {"completed"}, None
    fate = dice.random()
    if fate < 0.10:
        script += "[[fail:2038]]"
        ends, code = {"failed"}, "content_policy_violation"
    elif fate < 0.18:
        pictures, files = 3, dice.randint(1, 2)
        script += f"[[partial:{files}]]"
    # Each of these strikes once per order, at its first submit.
    script += dice.choices(("", "[[reset:after]]", "[[reset]]", "[[empty:after]]"), weights=(80, 10, 5, 5))[0]
    if dice.random() < 0.01:
        script += "[[latency:5]]"
    if manner == "cancel":
        # It may have ended before the cancel came.
        ends |= {"cancelled"}
    return Order(
        number=number,
        token=token,
        script=script,
        text=dice.choice(("a paper boat", "a red kite")),
        pictures=pictures,
        files=files,
        seed=dice.randrange(4),
        manner=manner,
        starts_at=dice.uniform(0, within),
        cancel_after=dice.uniform(0, 3),
        ends=frozenset(ends),
        code=code,
    )
