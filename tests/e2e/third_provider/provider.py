"""The toy provider: a third upstream, as small as one can be. `upstream.py` beside it is the other side."""

import asyncio
from typing import Any

import httpx
import orjson

from worker.core.catalog import provider_overrides
from worker.core.concurrency import event_loop
from worker.core.errors import DreameryError
from worker.core.observability.faults import before_sending
from worker.core.settings import Settings
from worker.providers.base import (
    Account,
    Capabilities,
    Found,
    ImageOrder,
    LookupResult,
    NotSentError,
    OpenOrder,
    Provider,
    Record,
    RecordState,
    ResultRef,
    Submitted,
    VideoOrder,
)
from worker.providers.transports import NOT_SENT, Transports

# Upstream's code of a failed order -> code of our error table; everything else is `upstream_error`.
_CODES = {"refused": "content_policy_violation"}


def create(settings: Settings) -> Provider:
    """Return the provider."""
    return ToyProvider(settings)


class ToyProvider:
    """Implements `Provider`. Upstream takes our key with an order, so it can be looked up."""

    def __init__(self, settings: Settings) -> None:
        self._origin = provider_overrides.constants(settings.catalog_file, settings.provider_constants, "toy")["origin"]
        self._seconds = settings.call_timeout_seconds
        self._transports = Transports(frozenset(settings.fetch_allow.split(",")))
        self.capabilities = Capabilities(lookup=self)

    def close(self) -> None:
        """Close all connections."""
        if self._transports.is_open:
            event_loop.run(self._transports.aclose())

    async def check_account(self, account: Account) -> int | None:
        """Upstream says who the key belongs to, and knows no credits."""
        await self._call(account, "GET", "/me")
        return None

    async def submit_image(self, account: Account, order: ImageOrder, *, submit_key: str) -> Submitted:
        """Order images."""
        size = {"width": order.width, "height": order.height, "count": order.count or 1}
        return await self._submit(account, {"kind": "image", "prompt": order.prompt, "key": submit_key, **size})

    async def submit_video(self, account: Account, order: VideoOrder, *, submit_key: str) -> Submitted:
        """Order a video."""
        length = {"ratio": order.ratio, "seconds": order.seconds}
        return await self._submit(account, {"kind": "video", "prompt": order.prompt, "key": submit_key, **length})

    async def fetch_records(self, account: Account, orders: list[OpenOrder]) -> dict[str, Record]:
        """Ask for all orders in one call."""
        query = httpx.QueryParams([("key", order.submit_key) for order in orders])
        answer = await self._call(account, "GET", f"/orders?{query}")
        return {row["key"]: _record(row) for row in answer["orders"]}

    def can_look_up(self, kind: str) -> bool:
        """Upstream finds every order by our key."""
        return kind in {"image", "video"}

    async def look_up(self, account: Account, order: OpenOrder, **_others: Any) -> LookupResult:
        """An order that upstream does not list did not arrive."""
        record = (await self.fetch_records(account, [order])).get(order.submit_key)
        return LookupResult(Found.FOUND if record else Found.ABSENT, record)

    async def _submit(self, account: Account, body: dict[str, Any]) -> Submitted:
        with before_sending():
            content = orjson.dumps(body)
        return Submitted(upstream_id=(await self._call(account, "POST", "/orders", content))["id"])

    async def _call(self, account: Account, method: str, path: str, content: bytes = b"") -> Any:
        headers = {"Authorization": f"Bearer {account.session}", "Content-Type": "application/json"}
        timeouts = dict.fromkeys(("connect", "read", "write", "pool"), self._seconds)
        request = httpx.Request(
            method, self._origin + path, headers=headers, content=content, extensions={"timeout": timeouts}
        )
        # No chained exceptions: a traceback must not lead to the key.
        try:
            async with self._transports.use(account.proxy) as transport, asyncio.timeout(self._seconds):
                response = await transport.handle_async_request(request)
                try:
                    status, body = response.status_code, await response.aread()
                finally:
                    await response.aclose()
        except NOT_SENT as failure:
            raise NotSentError(f"{path}: {type(failure).__name__}") from None
        except (TimeoutError, httpx.HTTPError) as failure:
            raise DreameryError("upstream_unreachable", detail=f"{path}: {type(failure).__name__}") from None
        if status != 200:
            code = {401: "upstream_session_expired", 429: "rate_limit_exceeded"}.get(status, "upstream_error")
            raise DreameryError(code, detail=f"{path}: HTTP {status}")
        return orjson.loads(body)


def _record(row: dict[str, Any]) -> Record:
    return Record(
        submit_key=row["key"],
        upstream_id=row["id"],
        state=RecordState(row["state"]),
        expected=len(row["files"]),
        results=tuple(ResultRef(**file) for file in row["files"]),
        error_code=_CODES.get(row["error"], "upstream_error") if row["error"] else None,
    )
