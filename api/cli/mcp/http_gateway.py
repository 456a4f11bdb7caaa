"""Call the HTTP API of a running platform for `dreamery mcp`."""

import contextlib
from collections.abc import AsyncIterator, Mapping
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

import httpx

from api.mcp.gateways.protocol import Json, Reply, UnreachableError

_LOCAL = frozenset({"127.0.0.1", "localhost", "::1"})
# A stream sends a comment at least every 12 seconds, and a creating call answers at once.
_TIMEOUT = httpx.Timeout(60, connect=10)


class HttpGateway:
    """The API at `url` for the caller with `key`. Use it as an asynchronous context manager."""

    reconnects = True

    def __init__(self, url: str, key: str) -> None:
        self._url = url.rstrip("/")
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
