"""Clients of a running platform for the crash tests. Each sends one request over HTTP and records its outcome.

A client retries with the same Idempotency-Key when the connection broke or when the request was refused before a job
existed.
"""

import asyncio
import random
import ssl
from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Literal, Self

import httpx2

Mode = Literal["wait", "async", "twice", "cancel", "once", "stream", "chat"]
_PAUSE = 0.5


@dataclass(frozen=True, kw_only=True)
class ClientRequest:
    """One request: its content, how the client sends it, and which outcomes are correct."""

    number: int
    token: str
    script: str = ""
    text: str = "a paper boat"
    images: int = 1
    expected_files: int = 1
    seed: int = 1
    mode: Mode = "wait"
    starts_at: float = 0.0
    cancel_after: float = 0.0
    expected_statuses: frozenset[str] = frozenset({"completed"})
    expected_code: str | None = None
    kind: Literal["image", "video"] = "image"
    model: str = "jimeng-4.0"
    accounts: str = ""  # the header X-Accounts

    @property
    def prompt(self) -> str:
        """The prompt. `[[job:N]]` identifies the request in the ledger; it is not drawn, so images can be cached."""
        return f"{self.text} [[job:{self.number}]]{self.script}"

    @property
    def key(self) -> str:
        """The Idempotency-Key."""
        return f"order-{self.number}"


@dataclass(kw_only=True)
class Outcome:
    """What the client received."""

    order: ClientRequest
    job_ids: set[str] = field(default_factory=set)
    status: str = "unknown"
    code: str | None = None
    urls: list[str] = field(default_factory=list)
    promised_cancel: bool = False  # the response to the cancel was `cancelled`
    replayed: bool = False


class LoadClients:
    """Clients on one event loop. `failures` lists what no crash may cause."""

    # Answers of a proxy in front of the API after which a client repeats its request.
    proxy_errors: frozenset[int] = frozenset()

    def __init__(self, url: str, *, verify: ssl.SSLContext | bool = True) -> None:
        self.failures: list[str] = []
        self.repeats = 0
        self.reasons: Counter[str] = Counter()  # of the repeats
        self._client = httpx2.AsyncClient(
            base_url=url,
            verify=verify,
            trust_env=False,
            timeout=httpx2.Timeout(120, connect=5, pool=None),
            limits=httpx2.Limits(max_connections=None, max_keepalive_connections=20, keepalive_expiry=2),
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_error: object) -> None:
        await self._client.aclose()
        await asyncio.sleep(0.1)  # lets the transports of cancelled clients close

    async def run(self, order: ClientRequest) -> Outcome:
        """Send the request at its start time and wait until its outcome is known."""
        await asyncio.sleep(order.starts_at)
        outcome = Outcome(order=order)
        if order.mode == "wait":
            self._read_response(outcome, await self._post(order))
        elif order.mode == "twice":
            for response in await asyncio.gather(self._post(order), self._post(order)):
                self._read_response(outcome, response)
        elif order.mode == "once":
            await self._send_once(outcome)
        else:
            response = await self._post(order, respond_async=True)
            if response.status_code != 202:
                self.failures.append(f"{order.prompt}: {response.status_code} {response.text[:200]}")
                return outcome
            self._record_job(outcome, response)
            if order.mode == "cancel":
                await asyncio.sleep(order.cancel_after)
                await self._cancel(outcome)
            await self._follow(outcome)
        return outcome

    async def _send_once(self, outcome: Outcome) -> None:
        """Send without an idempotency key and never retry; only the database knows whether the job exists."""
        try:
            self._read_response(outcome, await self._try(outcome.order, keyed=False))
        except httpx2.TransportError:
            outcome.status = "lost"

    async def _try(self, order: ClientRequest, *, keyed: bool = True, respond_async: bool = False) -> httpx2.Response:
        headers = {"Authorization": f"Bearer {order.token}"}
        if keyed:
            headers["Idempotency-Key"] = order.key
        if respond_async:
            headers["Prefer"] = "respond-async"
        if order.accounts:
            headers["X-Accounts"] = order.accounts
        body = {
            "prompt": order.prompt,
            "n": order.images,
            "resolution": "1k",
            "seed": order.seed,
            "model": order.model,
        }
        if order.kind == "video":
            body = {"prompt": order.prompt, "model": order.model, "seconds": 4, "resolution": "480p", "ratio": "16:9"}
            return await self._client.post("/v1/videos/generations", json=body, headers=headers)
        if order.model != "jimeng-4.0":
            del body["seed"]
        return await self._client.post("/v1/images/generations", json=body, headers=headers)

    async def _post(self, order: ClientRequest, *, respond_async: bool = False) -> httpx2.Response:
        return await self._retry(lambda: self._try(order, respond_async=respond_async))

    async def _retry(self, call: Any) -> httpx2.Response:
        while True:
            try:
                response: httpx2.Response = await call()
            except httpx2.TransportError as error:
                if isinstance(error, httpx2.ReadTimeout):
                    self.failures.append(f"a response took longer than two minutes: {error.request.url}")
                    raise
                reason = type(error).__name__
            else:
                may_not_retry = response.headers.get("x-should-retry") == "false"
                if response.status_code < 500 or may_not_retry:
                    return response
                code = _error(response).get("code")
                reason = f"{response.status_code} {code}"
                if response.status_code in self.proxy_errors:
                    reason = f"{response.status_code} of the proxy"
                elif code != "overloaded":
                    self.failures.append(f"{response.request.url.path}: {response.status_code} {response.text[:200]}")
            await self._pause(reason)

    async def _pause(self, reason: str) -> None:
        """Wait before a repeat."""
        self.repeats += 1
        self.reasons[reason] += 1
        await asyncio.sleep(_PAUSE * random.uniform(0.5, 1.5))

    async def get(self, order: ClientRequest, path: str) -> httpx2.Response:
        """GET with the token of the request."""
        headers = {"Authorization": f"Bearer {order.token}"}
        return await self._retry(lambda: self._client.get(path, headers=headers))

    async def _cancel(self, outcome: Outcome) -> None:
        (job_id,) = outcome.job_ids
        headers = {"Authorization": f"Bearer {outcome.order.token}"}
        response = await self._retry(lambda: self._client.post(f"/v1/jobs/{job_id}/cancel", headers=headers))
        if response.status_code != 200:
            self.failures.append(f"cancel of {job_id}: {response.status_code} {response.text[:200]}")
            return
        outcome.promised_cancel = response.json()["status"] == "cancelled"

    async def _follow(self, outcome: Outcome) -> None:
        (job_id,) = outcome.job_ids
        while True:
            response = await self.get(outcome.order, f"/v1/jobs/{job_id}?wait=20")
            if response.status_code != 200:
                self.failures.append(f"{job_id}: {response.status_code} {response.text[:200]}")
                return
            job = response.json()
            if job["status"] in {"completed", "failed", "cancelled"}:
                outcome.status = job["status"]
                outcome.code = (job["error"] or {}).get("code")
                outcome.urls = [item["url"] for item in job["output"] or []]
                return

    def _record_job(self, outcome: Outcome, response: httpx2.Response) -> None:
        job_id = response.headers.get("x-job-id")
        if job_id:
            outcome.job_ids.add(job_id)
        outcome.replayed |= response.headers.get("idempotency-replayed") == "true"

    def _read_response(self, outcome: Outcome, response: httpx2.Response) -> None:
        self._record_job(outcome, response)
        if response.status_code == 200:
            outcome.status = "completed"
            outcome.urls = [item["url"] for item in response.json()["data"]]
        elif response.status_code == 503 and not outcome.job_ids:
            outcome.status = "lost"  # refused, or accepted but unconfirmed; only mode `once` does not retry
        else:
            outcome.code = _error(response).get("code")
            outcome.status = "cancelled" if outcome.code == "job_cancelled" else "failed"


def _error(response: httpx2.Response) -> dict[str, Any]:
    try:
        return dict(response.json()["error"])
    except (ValueError, KeyError, TypeError):
        return {"code": f"unreadable: {response.text[:100]}"}


def random_requests(rng: random.Random, *, count: int, tokens: list[str], within: float) -> list[ClientRequest]:
    """Return a mix: blocking, asynchronous, duplicate and cancelled requests; successful and refused images; failing submits."""
    return [_random_request(rng, number, tokens, within) for number in range(1, count + 1)]


def _random_request(rng: random.Random, number: int, tokens: list[str], within: float) -> ClientRequest:
    token = rng.choice(tokens) if rng.random() < 0.7 else ",".join(rng.sample(tokens, 2))
    mode: Mode = rng.choices(("wait", "async", "twice", "cancel", "once"), weights=(47, 25, 12, 12, 4))[0]
    script = f"[[seconds:{rng.uniform(1, 3):.2f}]]"
    images = files = 1
    statuses, code = {"completed"}, None
    case = rng.random()
    if case < 0.10:
        script += "[[fail:2038]]"
        statuses, code = {"failed"}, "content_policy_violation"
    elif case < 0.18:
        images, files = 3, rng.randint(1, 2)
        script += f"[[partial:{files}]]"
    # Each fault happens once per request, at its first submit.
    script += rng.choices(("", "[[reset:after]]", "[[reset]]", "[[empty:after]]"), weights=(80, 10, 5, 5))[0]
    if rng.random() < 0.01:
        script += "[[latency:5]]"
    if mode == "cancel":
        # The job may end before the cancel arrives.
        statuses |= {"cancelled"}
    return ClientRequest(
        number=number,
        token=token,
        script=script,
        text=rng.choice(("a paper boat", "a red kite")),
        images=images,
        expected_files=files,
        seed=rng.randrange(4),
        mode=mode,
        starts_at=rng.uniform(0, within),
        cancel_after=rng.uniform(0, 3),
        expected_statuses=frozenset(statuses),
        expected_code=code,
    )
