"""Call the HTTP API of a running platform for `dreamery mcp`."""

import contextlib
import hashlib
import json
from collections.abc import AsyncIterator, Iterator, Mapping
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit
from uuid import uuid4

import httpx

from api.protocols.mcp.gateways.protocol import Creation, Json, Reply, UnreachableError

_LOCAL = frozenset({"127.0.0.1", "localhost", "::1"})
# A stream sends a comment at least every 12 seconds, and a creating call answers at once.
_MOST_KEYS = 1000
_TIMEOUT = httpx.Timeout(60, connect=10)


class HttpGateway:
    """The API at `url` for the caller with `key`. Use it as an asynchronous context manager."""

    reconnects = True

    def __init__(self, url: str, key: str) -> None:
        self._url = url.rstrip("/")
        self._keys: dict[bytes, str] = {}  # of calls that did not finish, oldest first
        self._client = httpx.AsyncClient(
            headers={"authorization": f"Bearer {key}", "user-agent": "dreamery-mcp"},
            timeout=_TIMEOUT,
            # Connections to this machine bypass the proxy of the environment.
            trust_env=not _is_local(url),
        )

    async def __aenter__(self) -> Self:
        await self._client.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._client.__aexit__(kind, error, trace)

    @contextlib.contextmanager
    def creating(self, body: Json) -> Iterator[Creation]:
        """Send an idempotency key: that of a call with the same body that did not finish, otherwise a new one."""
        digest = hashlib.sha256(json.dumps(body, sort_keys=True).encode()).digest()
        key = self._keys.pop(digest, None) or f"mcp-{uuid4().hex}"
        creation = Creation(headers={"idempotency-key": key})
        try:
            yield creation
        finally:
            if not creation.is_finished:
                self._keys[digest] = key
            if len(self._keys) > _MOST_KEYS:
                del self._keys[next(iter(self._keys))]

    @contextlib.asynccontextmanager
    async def open(
        self, method: str, path: str, *, body: Json | None = None, headers: Mapping[str, str] | None = None
    ) -> AsyncIterator[Reply]:
        """Send a request and give its response. Raises UnreachableError, also when the response breaks off."""
        try:
            async with self._client.stream(method, self._url + path, json=body, headers=headers) as response:
                names = {name.lower(): value for name, value in response.headers.items()}
                yield Reply(response.status_code, names, response.aiter_bytes())
        except httpx.HTTPError as error:
            reason = str(error) or type(error).__name__
            raise UnreachableError(
                f"The platform at {self._url} does not answer ({reason}). Start it, or set DREAMERY_URL."
            ) from error
        except httpx.InvalidURL as error:
            raise UnreachableError(f"{self._url} is not a URL ({error}). Set DREAMERY_URL.") from error


def _is_local(url: str) -> bool:
    try:
        return urlsplit(url).hostname in _LOCAL
    except ValueError:  # the first call says that it is no URL
        return False
