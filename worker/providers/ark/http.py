"""Makes calls to Ark: hosts, key, one attempt per call, and what each outcome means. It knows no endpoints.

The vendor's library repeats calls that may cost money, so calls are made here, once. An outcome is one of four: the
parsed answer, NotSentError (nothing was written to the connection), RefusedError (upstream named an error, so nothing
was created or charged), or `upstream_unreachable` (unclear: it may have been carried out).
"""

import asyncio
import time
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

import httpx
import orjson

from worker.core.catalog.provider_overrides import hosts
from worker.core.concurrency import event_loop
from worker.core.errors import DreameryError
from worker.core.observability import metrics, tracing
from worker.core.observability.faults import before_sending
from worker.core.settings import Settings
from worker.providers.ark.error_codes import rule_for
from worker.providers.ark.responses import parse_error
from worker.providers.ark.verdicts import refusal
from worker.providers.base import Account, NotSentError
from worker.providers.transports import NOT_SENT, Transports, limited_body

HOSTS = {"cn": "https://ark.cn-beijing.volces.com", "intl": "https://ark.ap-southeast.bytepluses.com"}
PATH = "/api/v3"
MAX_BODY = 16_000_000  # results come as links


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back, whatever it means. `body` = its JSON; None = it is none."""

    status: int
    headers: dict[str, str]
    body: Any


class ArkHttp:
    """The shared connections and the envelope of calls. Use it on the event loop."""

    def __init__(self, settings: Settings, transport: "httpx.AsyncBaseTransport | None" = None) -> None:
        self._origin = settings.upstream_origin
        self._catalog_file = settings.catalog_file
        self._sandbox = settings.sandbox_url
        self._seconds = settings.call_timeout_seconds
        allowed = frozenset(settings.fetch_allow.replace(" ", "").split(","))
        self._transports = Transports(allowed, transport)

    def close(self) -> None:
        """Close all connections."""
        if self._transports.is_open:
            event_loop.run(self._transports.aclose())

    async def get(self, account: Account, path: str, query: Sequence[tuple[str, str]] = ()) -> Any:
        """Return the JSON of a free call. A query parameter may repeat."""
        target = f"{path}?{urlencode(query)}" if query else path
        return await self._call(account, "GET", target, b"", seconds=self._seconds)

    async def post(
        self, account: Account, path: str, body: dict[str, Any], *, seconds: float, waits: bool = False
    ) -> Any:
        """Make a call that may cost money, once. Return its JSON.

        `waits` = the answer takes minutes: the call takes no turn of the lane, for which its caller has another one.
        """
        with before_sending():
            content = orjson.dumps(body)
        return await self._call(account, "POST", path, content, seconds=seconds, waits=waits)

    async def delete(self, account: Account, path: str) -> Any:
        """Cancel something. Return the JSON of the answer."""
        return await self._call(account, "DELETE", path, b"", seconds=self._seconds)

    async def stream(
        self, account: Account, path: str, body: dict[str, Any], *, seconds: float
    ) -> AsyncGenerator[str | dict[str, Any]]:
        """Make a call that may cost money, once. Yield the lines of its event stream, or its JSON if it sends that."""
        with before_sending():
            request = self._request(account, "POST", path, orjson.dumps(body), seconds=seconds)
        with _outcome(account, path):
            async with asyncio.timeout(seconds), self._transports.stream(account.proxy) as transport:
                response = await transport.handle_async_request(request)
                try:
                    if "event-stream" in response.headers.get("content-type", ""):
                        async for line in response.aiter_lines():
                            yield line
                    else:
                        yield _read(account, path, response.status_code, await _content(response))
                finally:
                    await response.aclose()

    async def probe(
        self,
        account: Account,
        method: str,
        path: str,
        body: dict[str, Any] | None = None,
        *,
        query: Sequence[tuple[str, str]] = (),
        seconds: float = 30.0,
        read_seconds: float | None = None,
    ) -> Answer:
        """Make a call once and return whatever comes back. With `read_seconds`, hang up that soon after it was sent."""
        target = f"{path}?{urlencode(query)}" if query else path
        content = b"" if body is None else orjson.dumps(body)
        request = self._request(account, method, target, content, seconds=seconds)
        if read_seconds is not None:
            request.extensions["timeout"]["read"] = read_seconds
        with _outcome(account, path):
            async with self._transports.stream(account.proxy) as transport, asyncio.timeout(seconds):
                response = await transport.handle_async_request(request)
                try:
                    raw = await _content(response)
                finally:
                    await response.aclose()
        try:
            parsed = orjson.loads(raw)
        except orjson.JSONDecodeError:
            parsed = None
        return Answer(response.status_code, dict(response.headers), parsed)

    async def _call(
        self, account: Account, method: str, target: str, content: bytes, *, seconds: float, waits: bool = False
    ) -> Any:
        path = target.partition("?")[0]
        request = self._request(account, method, target, content, seconds=seconds)
        with (
            _outcome(account, path),
            tracing.span(f"upstream {method}", kind="client", server__address=request.url.host, url__path=path),
        ):
            status, body = await self._exchange(account, request, seconds=seconds, waits=waits)
            return _read(account, path, status, body)

    async def _exchange(
        self, account: Account, request: httpx.Request, *, seconds: float, waits: bool
    ) -> tuple[int, bytes]:
        use = self._transports.stream if waits else self._transports.use
        async with use(account.proxy) as transport, asyncio.timeout(seconds):
            response = await transport.handle_async_request(request)
            try:
                return response.status_code, await _content(response)
            finally:
                await response.aclose()

    def _request(self, account: Account, method: str, target: str, content: bytes, *, seconds: float) -> httpx.Request:
        host = hosts(self._catalog_file, "ark", account.region).get("api") or HOSTS.get(account.region, "")
        headers = {
            "Authorization": f"Bearer {account.session}",
            "Accept": "application/json, text/event-stream",
            "User-Agent": "Dreamery",
        }
        if content:
            headers["Content-Type"] = "application/json"
        if account.region == "sandbox":
            base = f"{self._sandbox or self._origin}/ark"
        elif self._origin:
            base, headers["X-Orig-Host"] = self._origin, host.partition("://")[2]
        else:
            base = host
        timeouts = {"connect": self._seconds / 4, "read": seconds, "write": seconds, "pool": self._seconds}
        url = f"{base}{PATH}{target}"
        return httpx.Request(method, url, headers=headers, content=content, extensions={"timeout": timeouts})


@contextmanager
def _outcome(account: Account, path: str) -> Iterator[None]:
    """Turn failures of the connection into what the engine may conclude from them, and count the call."""
    started, code = time.monotonic(), "ok"
    try:
        yield
    except TimeoutError:
        code = "upstream_unreachable"
        raise _unclear(path, "total deadline of the call") from None
    except NOT_SENT as failure:
        error = _not_sent(account, path, failure)
        code = error.code
        raise error from None
    except httpx.HTTPError as failure:
        code = "upstream_unreachable"
        raise _unclear(path, type(failure).__name__) from None
    except DreameryError as error:
        code = error.code
        raise
    finally:
        _note_call(path, code, started)


async def _content(response: httpx.Response) -> bytes:
    return b"".join([chunk async for chunk in limited_body(response, MAX_BODY)])


def _read(account: Account, path: str, status: int, content: bytes) -> Any:
    try:
        body = orjson.loads(content)
    except orjson.JSONDecodeError:
        raise _unclear(path, f"HTTP {status}, not JSON, {len(content)} bytes") from None
    if 200 <= status < 300:
        return body
    error = parse_error(body)
    if error is None:
        raise _unclear(path, f"HTTP {status} without a named error")
    raise refusal(error, rule_for(error, status=status), status=status, secret=account.session)


def _unclear(path: str, reason: str) -> DreameryError:
    return DreameryError("upstream_unreachable", detail=f"{path}: {reason}")


def _not_sent(account: Account, path: str, failure: httpx.HTTPError) -> NotSentError:
    code = "proxy_unreachable" if account.proxy else "upstream_unreachable"
    return NotSentError(f"{path}: {type(failure).__name__}", code=code)


def _note_call(path: str, code: str, started: float) -> None:
    endpoint = "ark_tasks" if "/tasks" in path else f"ark_{path.rpartition('/')[2]}"
    metrics.count("dreamery_upstream_calls", endpoint, code)
    metrics.observe("dreamery_upstream_seconds", time.monotonic() - started, endpoint)
