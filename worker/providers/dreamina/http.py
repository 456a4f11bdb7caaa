"""Makes calls to upstream: envelope (protocol section 2), total deadline, parsing of the response (3.1). No endpoints.

Calls use an httpx transport directly: `httpx.Client` has one cookie jar, which would send the cookies of one account
with the calls of another. There are no redirects, no retries, and no proxies except the proxy of the account.
"""

import asyncio
import re
import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AbstractContextManager, AsyncExitStack, aclosing
from functools import lru_cache
from typing import Any
from urllib.parse import urlsplit

import httpx
import orjson

from worker.core.catalog import provider_overrides
from worker.core.concurrency import event_loop, lanes
from worker.core.concurrency.transfer_rate import SlowTransferError
from worker.core.errors import DreameryError
from worker.core.observability import metrics, tracing
from worker.core.observability.faults import before_sending
from worker.core.settings import Settings
from worker.providers.base import Account, NotSentError
from worker.providers.dreamina.error_codes import clean, error_code_for, message_for
from worker.providers.dreamina.job_records import read_fail_fields
from worker.providers.dreamina.regions import Site
from worker.providers.dreamina.signing import PF, sign, uid_token, web_id
from worker.providers.transports import NOT_SENT, Transports, limited_body

# 200 records of eight images are about 10 MB.
MAX_BODY = 16_000_000
# Answers through proxies that are longer than this wait for a turn before more of them is read.
_LONG_BYTES = 256 * 1024
LONG_ANSWERS = lanes.Lane(8, per_account=2)
_NUMBER = re.compile(r"-?[0-9]{1,12}")
_COOKIE_SAFE = re.compile(r"[!#-+\--:<-\[\]-~]+")


class UpstreamHttp:
    """The shared connections and the request envelope. Thread-safe."""

    def __init__(self, settings: Settings, transport: "httpx.MockTransport | None" = None) -> None:
        self._seconds = settings.call_timeout_seconds
        self._origin = settings.upstream_origin
        constants = provider_overrides.constants(settings.catalog_file, settings.provider_constants, "dreamina")
        self._appvr, self._agent = constants["appvr"], constants["user_agent"]
        self._sdk_version = constants["sdk_version"]
        allowed = frozenset(settings.fetch_allow.replace(" ", "").split(","))
        self._transports = Transports(allowed, transport)
        self._timeouts = {
            # A quarter, because a host may have several dead addresses, which are tried one after the other.
            "connect": self._seconds / 4,
            "read": self._seconds,
            "write": self._seconds,
            "pool": self._seconds,
        }

    def close(self) -> None:
        """Close all connections."""
        if self._transports.is_open:
            event_loop.run(self._transports.aclose())

    async def call(
        self, account: Account, site: Site, base: str, target: str, body: bytes, *, seconds: float | None = None
    ) -> dict[str, Any]:
        """POST `body` to `target` (path and query) at `base`. Return the JSON of a response that is not a refusal.

        Waits for a turn of the caller first (`core.concurrency.lanes`). Raises NotSentError, or DreameryError:
        `upstream_unreachable` without a readable response, else upstream's refusal. The caller knows whether
        `upstream_unreachable` is unclear for its call.
        """
        path = target.partition("?")[0]
        async with lanes.of_calls(proxied=bool(account.proxy)).turn():
            started = time.monotonic()
            try:
                with _span(path, base):
                    answer = await self._call(
                        account, site, base, target, body, seconds=min(seconds or self._seconds, self._seconds)
                    )
            except DreameryError as error:
                _note_call(path, error.code, started)
                raise
            _note_call(path, "ok", started)
            return answer

    async def _call(
        self, account: Account, site: Site, base: str, target: str, body: bytes, *, seconds: float
    ) -> dict[str, Any]:
        path = target.partition("?")[0]
        # No chained exceptions below: the HTTP library's frames hold the cookie, and a traceback may print locals.
        with before_sending():
            request = self._request(account, site, base, target, body)
        try:
            async with asyncio.timeout(seconds):
                status, kind, content = await self._exchange(account, request)
        except TimeoutError:
            raise _unreachable(path, "total deadline of the call") from None
        except NOT_SENT as failure:
            raise _not_sent(account, f"{path}: {_describe(failure, account)}") from None
        except httpx.HTTPError as failure:
            raise _unreachable(path, _describe(failure, account)) from None
        return _parse_response(path, status, kind, content, account)

    async def _exchange(
        self, account: Account, request: httpx.Request, *, uploads: bool = False
    ) -> tuple[int, str, bytes]:
        async with self._transports.use(account.proxy, uploads=uploads) as transport:
            response = await transport.handle_async_request(request)
            try:
                content = await _read_whole(response, proxied=bool(account.proxy))
                return response.status_code, response.headers.get("content-type", ""), content
            finally:
                await response.aclose()

    async def send(
        self,
        account: Account,
        site: Site,
        *,
        method: str,
        url: str,
        headers: dict[str, str],
        body: bytes | AsyncIterator[bytes],
        seconds: float,
    ) -> tuple[int, bytes]:
        """Send a call without session and envelope to a host of section 5. Return any status and body.

        `seconds` is the total deadline, from the turn on. Without a response it raises NotSentError, because these
        calls cost nothing.
        """
        target = httpx.URL(url)
        headers = {"User-Agent": self._agent, "Accept": "*/*", "Accept-Encoding": "gzip, deflate", **headers}
        headers |= {"Origin": site.site, "Referer": f"{site.site}/"}
        if self._origin and not site.direct:
            headers["X-Orig-Host"] = target.netloc.decode()
            url = self._origin + target.raw_path.decode()
        # A large file may take all of `seconds` while bytes move; a stalled transfer is given up sooner.
        timeouts = {
            **self._timeouts,
            "read": min(seconds, self._seconds),
            "write": min(seconds, self._seconds / 2),
        }
        request = httpx.Request(method, url, headers=headers, content=body, extensions={"timeout": timeouts})
        async with lanes.UPLOADS.turn():
            try:
                async with asyncio.timeout(seconds):
                    with tracing.span(f"upstream {method}", kind="client", server__address=target.host):
                        status, _, content = await self._exchange(account, request, uploads=True)
            except TimeoutError:
                raise NotSentError(f"{target.host}: total deadline of the call") from None
            except SlowTransferError as slow:
                raise NotSentError(f"{target.host}: {slow}") from None
            except NOT_SENT as failure:
                raise _not_sent(account, f"{target.host}: {_describe(failure, account)}") from None
            except httpx.HTTPError as failure:
                raise NotSentError(f"{target.host}: {_describe(failure, account)}") from None
        return status, content

    async def stream(
        self, account: Account, site: Site, base: str, target: str, body: bytes, *, seconds: float, gap: float
    ) -> AsyncGenerator[bytes]:
        """POST `body` and yield the chunks of the event stream: at most `gap` seconds apart, `seconds` in total.

        A response that is not a stream, and a stream that breaks, raise like `call`.
        """
        path = target.partition("?")[0]
        request = self._request(account, site, base, target, body)
        # Compression would delay the chunks until a block is full.
        request.headers.update({"Accept": "text/event-stream", "Accept-Encoding": "identity"})
        request.extensions = {"timeout": {**self._timeouts, "read": gap}}
        try:
            async with asyncio.timeout(seconds):
                with _span(path, base):
                    async with self._transports.stream(account.proxy) as transport:
                        response = await transport.handle_async_request(request)
                        async with aclosing(_iter_events(account, path, response)) as chunks:
                            async for chunk in chunks:
                                yield chunk
        except TimeoutError:
            raise _unreachable(path, "total deadline of the call") from None
        except NOT_SENT as failure:
            raise _not_sent(account, f"{path}: {_describe(failure, account)}") from None
        except httpx.HTTPError as failure:
            raise _unreachable(path, _describe(failure, account)) from None

    @property
    def seconds(self) -> float:
        """Return the total deadline of a call in seconds."""
        return self._seconds

    def _request(self, account: Account, site: Site, base: str, target: str, body: bytes) -> httpx.Request:
        if not _COOKIE_SAFE.fullmatch(account.session):
            raise DreameryError("upstream_session_expired", detail="the session id is not a valid cookie value")
        path = target.partition("?")[0]
        now = int(time.time())
        headers = dict(_site_headers(site, self._appvr, self._sdk_version, self._agent))
        headers["Device-Time"] = str(now)
        headers["Sign"] = sign(path, self._appvr, now)
        headers["Cookie"] = _cookies(account.session, site)
        if self._origin and not site.direct:
            headers["X-Orig-Host"] = base.partition("://")[2]
            base = self._origin
        return httpx.Request(
            "POST", base + target, headers=headers, content=body, extensions={"timeout": self._timeouts}
        )


async def _read_whole(response: httpx.Response, *, proxied: bool) -> bytes:
    """Return the body. Few long ones of proxies are in memory at once: a caller's proxy may stall in the middle."""
    chunks, size = list[bytes](), 0
    async with AsyncExitStack() as held:
        async for chunk in limited_body(response, MAX_BODY):
            chunks.append(chunk)
            if proxied and size <= _LONG_BYTES < size + len(chunk):
                await held.enter_async_context(LONG_ANSWERS.turn())
            size += len(chunk)
        return b"".join(chunks)


async def _iter_events(account: Account, path: str, response: httpx.Response) -> AsyncGenerator[bytes]:
    """Yield the chunks of a stream. Gateways and refusals send JSON or a page, whatever content type they declare."""
    kind = response.headers.get("content-type", "")
    may_stream = response.status_code == 200 and "json" not in kind and "html" not in kind
    head, streaming = b"", False
    try:
        async for chunk in limited_body(response, MAX_BODY):
            if streaming:
                yield chunk
                continue
            head += chunk
            streaming = may_stream and head.lstrip()[:1] not in {b"", b"{", b"<"}
            if streaming:
                yield head
        if not streaming:
            _parse_response(path, response.status_code, kind, head, account)
            raise _unreachable(path, "a response without a stream")
    finally:
        await response.aclose()


def _span(path: str, base: str) -> AbstractContextManager[tracing.SpanHandle]:
    host = urlsplit(base).hostname or ""
    return tracing.span(f"upstream {path.rpartition('/')[2]}", kind="client", server__address=host, url__path=path)


def _note_call(path: str, code: str, started: float) -> None:
    endpoint = path.rpartition("/")[2]
    metrics.count("dreamery_upstream_calls", endpoint, code)
    metrics.observe("dreamery_upstream_seconds", time.monotonic() - started, endpoint)


def _parse_response(path: str, status: int, kind: str, content: bytes, account: Account) -> dict[str, Any]:
    if status >= 500 or not content:
        raise _unreachable(path, f"HTTP {status}, {len(content)} bytes")
    try:
        answer = orjson.loads(content)
    except orjson.JSONDecodeError:
        raise _unreachable(path, f"HTTP {status}, not JSON, {clean(kind)}, {len(content)} bytes") from None
    if not isinstance(answer, dict):
        raise _unreachable(path, f"HTTP {status}, JSON that is not an object")
    ret = answer.get("ret")
    number = str(ret) if isinstance(ret, str | int) and not isinstance(ret, bool) else ""
    if _NUMBER.fullmatch(number) and int(number) != 0:
        raise refusal(number, answer, account)
    if not 200 <= status < 300:
        raise _unreachable(path, f"HTTP {status} without a refusal")
    return answer


def refusal(ret: str, answer: dict[str, Any], account: Account) -> DreameryError:
    """Return upstream's refusal as our error. Pass `ret` "" if only the data, not the envelope, refuses."""
    data = answer.get("data")
    data = data if isinstance(data, dict) else {}
    inner = data.get("aigc_data")
    fail_code, key, message, technical = read_fail_fields(data, inner if isinstance(inner, dict) else {})
    errmsg = str(answer.get("errmsg") or "")
    code = error_code_for(ret, fail_code, key, f"{message} {technical} {errmsg}")
    log_id = answer.get("logid") or answer.get("log_id") or ""
    return DreameryError(
        code,
        message_for(code, message, secret=account.session),
        detail=clean(
            f"ret={ret} errmsg={errmsg} fail_code={fail_code} key={key} logid={log_id}", secret=account.session
        ),
    )


def _describe(failure: Exception, account: Account) -> str:
    return clean(f"{type(failure).__name__} {failure}", secret=account.session)


def _not_sent(account: Account, detail: str) -> NotSentError:
    """Return the error for a failed connection. With a proxy, only the proxy was connected to, so it is the cause."""
    return NotSentError(detail, code="proxy_unreachable" if account.proxy else "upstream_unreachable")


def _unreachable(path: str, reason: str) -> DreameryError:
    return DreameryError("upstream_unreachable", detail=f"{path}: {reason}")


@lru_cache(maxsize=1024)
def _site_headers(site: Site, appvr: str, sdk_version: str, agent: str) -> dict[str, str]:
    """Return the headers that are the same for every call to a site (section 2.2)."""
    return {
        "Accept": "application/json, text/plain, */*",
        "Accept-Encoding": "gzip, deflate",
        "Accept-Language": "zh-CN,zh;q=0.9" if site.cn else "en-US,en;q=0.9",
        "Content-Type": "application/json",
        "Appid": str(site.aid),
        "Appvr": appvr,
        "App-Sdk-Version": sdk_version,
        "Pf": PF,
        "Sign-Ver": "1",
        "Tdid": "",
        "Lan": site.lan,
        "Loc": site.loc,
        "Origin": site.site,
        "Referer": f"{site.site}/ai-tool/generate?type=image",
        "Sec-Fetch-Dest": "empty",
        "Sec-Fetch-Mode": "cors",
        "Sec-Fetch-Site": "same-origin" if site.cn else "same-site",
        "User-Agent": agent,
    }


def _cookies(session: str, site: Site) -> str:
    """Return the cookies of section 2.5, with the looked-up cluster instead of a fixed one (section 11, row 20)."""
    if not site.cn:
        pairs = {"sessionid": session, "sessionid_ss": session, "cc-target-idc": site.idc}
    else:
        uid = uid_token(session)
        pairs = {
            "_tea_web_id": web_id(session),
            "is_staff_user": "false",
            "uid_tt": uid,
            "uid_tt_ss": uid,
            "sid_tt": session,
            "sessionid": session,
            "sessionid_ss": session,
            "store-region": "cn-gd",
            "store-region-src": "uid",
        }
    # The operator's cookies come last and replace ours of the same name.
    return "; ".join(f"{name}={value}" for name, value in (pairs | dict(site.cookies)).items())
