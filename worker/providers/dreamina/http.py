"""One call to upstream: envelope (protocol section 2), total deadline, reading of the answer (3.1). No endpoint here.

Calls go straight to an httpx transport: `httpx.Client` keeps one cookie jar, which would carry the cookies of one
account into the calls of another. No redirects, no retries, no proxies but the one an account names.
"""

import re
import time
from collections.abc import Generator, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import lru_cache
from typing import Any
from urllib.parse import urlsplit

import httpx
import orjson

from worker.core import catalog_overrides
from worker.core.errors import DreameryError
from worker.core.observability import metrics, tracing
from worker.core.settings import Settings
from worker.providers.base import Account, NotSentError
from worker.providers.dreamina.error_codes import clean, fault_for, message_for
from worker.providers.dreamina.job_records import fail_fields
from worker.providers.dreamina.regions import Site
from worker.providers.dreamina.signing import PF, sign, uid_token, web_id
from worker.providers.dreamina.transports import Deadline, DeadlineTransport, ProxyTransports

# 200 records of eight pictures are about 10 MB.
MAX_BODY = 16_000_000
_NUMBER = re.compile(r"-?[0-9]{1,12}")
_COOKIE_SAFE = re.compile(r"[!#-+\--:<-\[\]-~]+")
_AGENT = (
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 Safari/537.36"
)
_SDK_VERSION = "48.0.0"
_NOT_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.ProxyError, httpx.UnsupportedProtocol)


class Wire:
    """The shared connections and the envelope. Safe between threads."""

    def __init__(self, settings: Settings, transport: httpx.BaseTransport | None = None) -> None:
        self._seconds = settings.call_timeout_seconds
        self._origin = settings.upstream_origin
        told = catalog_overrides.wire(settings.catalog_file)
        self._appvr = told.get("appvr", settings.upstream_sign_ver)
        self._agent = told.get("user_agent", _AGENT)
        self._sdk_version = told.get("sdk_version", _SDK_VERSION)
        self._deadline = Deadline()
        self._transport = transport or DeadlineTransport(self._deadline)
        self._proxies = ProxyTransports(self._deadline, frozenset(settings.fetch_allow.replace(" ", "").split(",")))
        self._timeouts = {
            # A quarter, because a host with several dead addresses is tried at each of them.
            "connect": self._seconds / 4,
            "read": self._seconds,
            "write": self._seconds,
            "pool": self._seconds,
        }

    def close(self) -> None:
        """Close all connections."""
        self._transport.close()
        self._proxies.close()

    def call(
        self, account: Account, site: Site, base: str, target: str, body: bytes, *, seconds: float | None = None
    ) -> dict[str, Any]:
        """POST `body` to `target` (path and query) of the host `base`; the JSON of an answer that is no refusal.

        Raises NotSentError, or DreameryError: `upstream_unreachable` without a readable answer, else what upstream
        said. Whether that is unclear is for the caller's kind of call.
        """
        path, started = target.partition("?")[0], time.monotonic()
        try:
            with _span(path, base):
                answer = self._called(account, site, base, target, body, seconds=seconds)
        except DreameryError as error:
            _note_call(path, error.code, started)
            raise
        _note_call(path, "ok", started)
        return answer

    def _called(
        self, account: Account, site: Site, base: str, target: str, body: bytes, *, seconds: float | None
    ) -> dict[str, Any]:
        path = target.partition("?")[0]
        # No chained causes below: the frames of the HTTP library hold the cookie, and a traceback may print locals.
        request = self._request(account, site, base, target, body)
        self._deadline.start(min(seconds or self._seconds, self._seconds))
        try:
            status, kind, content = self._exchange(account, request)
        except _NOT_SENT as failure:
            raise _not_sent(account, f"{path}: {_name(failure, account)}") from None
        except httpx.HTTPError as failure:
            raise _unreachable(path, _name(failure, account)) from None
        return _read(path, status, kind, content, account)

    def send(
        self,
        account: Account,
        site: Site,
        *,
        method: str,
        url: str,
        headers: dict[str, str],
        body: bytes | Iterable[bytes],
        seconds: float,
    ) -> tuple[int, bytes]:
        """One call without session and envelope, to the hosts of section 5: status and body, whatever they are.

        `seconds` is its total deadline. Raises NotSentError for anything but an answer: these calls cost nothing.
        """
        where = httpx.URL(url)
        headers = {"User-Agent": self._agent, "Accept": "*/*", "Accept-Encoding": "gzip, deflate", **headers}
        headers |= {"Origin": site.site, "Referer": f"{site.site}/"}
        if self._origin and not site.direct:
            headers["X-Orig-Host"] = where.netloc.decode()
            url = self._origin + where.raw_path.decode()
        # A large file may take all of `seconds` as long as it moves; one that stands still is given up soon.
        timeouts = {
            **self._timeouts,
            "read": min(seconds, self._seconds),
            "write": min(seconds, self._seconds / 2),
        }
        request = httpx.Request(method, url, headers=headers, content=body, extensions={"timeout": timeouts})
        self._deadline.start(seconds)
        try:
            with tracing.span(f"upstream {method}", kind="client", server__address=where.host):
                status, _, content = self._exchange(account, request)
        except _NOT_SENT as failure:
            raise _not_sent(account, f"{where.host}: {_name(failure, account)}") from None
        except httpx.HTTPError as failure:
            raise NotSentError(f"{where.host}: {_name(failure, account)}") from None
        return status, content

    def stream(
        self, account: Account, site: Site, base: str, target: str, body: bytes, *, seconds: float, gap: float
    ) -> Generator[bytes]:
        """POST `body` and yield the event stream that answers it as it comes: at most `gap` seconds between pieces and
        `seconds` for all. An answer that is no stream raises like `call`; so does a stream that breaks.
        """
        path = target.partition("?")[0]
        request = self._request(account, site, base, target, body)
        # Compressed pieces would come late, whole blocks at a time.
        request.headers.update({"Accept": "text/event-stream", "Accept-Encoding": "identity"})
        request.extensions = {"timeout": {**self._timeouts, "read": gap}}
        self._deadline.start(seconds)
        try:
            with _span(path, base), self._transport_for(account) as transport:
                yield from self._pieces(account, path, transport.handle_request(request))
        except _NOT_SENT as failure:
            raise _not_sent(account, f"{path}: {_name(failure, account)}") from None
        except httpx.HTTPError as failure:
            raise _unreachable(path, _name(failure, account)) from None

    def _pieces(self, account: Account, path: str, response: httpx.Response) -> Iterator[bytes]:
        kind = response.headers.get("content-type", "")
        may_stream = response.status_code == 200 and "json" not in kind and "html" not in kind
        until, head, size, streaming = self._deadline.until, b"", 0, False
        try:
            for piece in response.iter_bytes():
                size += len(piece)
                if size > MAX_BODY:
                    raise httpx.ReadError(f"the answer is longer than {MAX_BODY} bytes")
                if not streaming:
                    # Gateways and refusals answer with JSON or a page, whatever they call it.
                    head += piece
                    streaming = may_stream and head.lstrip()[:1] not in {b"", b"{", b"<"}
                    piece = head  # noqa: PLW2901
                if streaming:
                    yield piece
                    self._deadline.resume(until)
            if not streaming:
                _read(path, response.status_code, kind, head, account)
                raise _unreachable(path, "an answer without a stream")
        finally:
            response.close()

    @property
    def seconds(self) -> float:
        """The total deadline of a call."""
        return self._seconds

    def _request(self, account: Account, site: Site, base: str, target: str, body: bytes) -> httpx.Request:
        if not _COOKIE_SAFE.fullmatch(account.session):
            raise DreameryError("upstream_session_expired", detail="the session id cannot be sent as a cookie")
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

    def _exchange(self, account: Account, request: httpx.Request) -> tuple[int, str, bytes]:
        with self._transport_for(account) as transport:
            return self._answer(transport, request)

    @contextmanager
    def _transport_for(self, account: Account) -> Iterator[httpx.BaseTransport]:
        if not account.proxy:
            yield self._transport
            return
        with self._proxies.use(account.proxy) as transport:
            yield transport

    def _answer(self, transport: httpx.BaseTransport, request: httpx.Request) -> tuple[int, str, bytes]:
        response = transport.handle_request(request)
        try:
            size = 0
            pieces: list[bytes] = []
            for piece in response.iter_bytes():
                size += len(piece)
                if size > MAX_BODY:
                    raise httpx.ReadError(f"the answer is longer than {MAX_BODY} bytes")
                self._deadline.left(httpx.ReadTimeout)
                pieces.append(piece)
            return response.status_code, response.headers.get("content-type", ""), b"".join(pieces)
        finally:
            response.close()


def _span(path: str, base: str) -> AbstractContextManager[tracing.Marks]:
    host = urlsplit(base).hostname or ""
    return tracing.span(f"upstream {path.rpartition('/')[2]}", kind="client", server__address=host, url__path=path)


def _note_call(path: str, code: str, started: float) -> None:
    endpoint = path.rpartition("/")[2]
    metrics.count("dreamery_upstream_calls", endpoint, code)
    metrics.observe("dreamery_upstream_seconds", time.monotonic() - started, endpoint)


def _read(path: str, status: int, kind: str, content: bytes, account: Account) -> dict[str, Any]:
    if status >= 500 or not content:
        raise _unreachable(path, f"HTTP {status}, {len(content)} bytes")
    try:
        answer = orjson.loads(content)
    except orjson.JSONDecodeError:
        raise _unreachable(path, f"HTTP {status}, not JSON, {clean(kind)}, {len(content)} bytes") from None
    if not isinstance(answer, dict):
        raise _unreachable(path, f"HTTP {status}, JSON that is no object")
    ret = answer.get("ret")
    number = str(ret) if isinstance(ret, str | int) and not isinstance(ret, bool) else ""
    if _NUMBER.fullmatch(number) and int(number) != 0:
        raise refusal(number, answer, account)
    if not 200 <= status < 300:
        raise _unreachable(path, f"HTTP {status} without a refusal in it")
    return answer


def refusal(ret: str, answer: dict[str, Any], account: Account) -> DreameryError:
    """Upstream's no as our error. `ret` "" when the envelope said yes but its data does not."""
    data = answer.get("data")
    data = data if isinstance(data, dict) else {}
    inner = data.get("aigc_data")
    fail_code, key, words, machine_words = fail_fields(data, inner if isinstance(inner, dict) else {})
    errmsg = str(answer.get("errmsg") or "")
    code = fault_for(ret, fail_code, key, f"{words} {machine_words} {errmsg}")
    log_id = answer.get("logid") or answer.get("log_id") or ""
    return DreameryError(
        code,
        message_for(code, words, secret=account.session),
        detail=clean(
            f"ret={ret} errmsg={errmsg} fail_code={fail_code} key={key} logid={log_id}", secret=account.session
        ),
    )


def _name(failure: Exception, account: Account) -> str:
    return clean(f"{type(failure).__name__} {failure}", secret=account.session)


def _not_sent(account: Account, detail: str) -> NotSentError:
    """No connection. With a proxy nothing else was connected to, so that is what has to be looked at."""
    return NotSentError(detail, code="proxy_unreachable" if account.proxy else "upstream_unreachable")


def _unreachable(path: str, why: str) -> DreameryError:
    return DreameryError("upstream_unreachable", detail=f"{path}: {why}")


@lru_cache(maxsize=1024)
def _site_headers(site: Site, appvr: str, sdk_version: str, agent: str) -> dict[str, str]:
    """The headers that are the same for every call to a site (section 2.2)."""
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
    """The cookies of section 2.5, with the cluster that was found rather than a fixed one (section 11, row 20)."""
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
    # The operator's own come last, in the place of ours of the same name.
    return "; ".join(f"{name}={value}" for name, value in (pairs | dict(site.cookies)).items())
