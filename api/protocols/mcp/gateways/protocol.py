"""How MCP tools reach the platform: the HTTP API itself, called within the process or over the network.

So a tool checks, limits, prices and stores exactly what the same REST call does.
"""

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Protocol

from worker.core.errors import DreameryError

Json = dict[str, Any]
# More than any JSON answer of the API has.
MOST_BYTES = 16_000_000
_MOST_EVENT_BYTES = 2_000_000
_NO_HEADERS: Mapping[str, str] = {}


@dataclass(frozen=True, slots=True)
class Answer:
    """A response of the API. Names of headers are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes = field(repr=False)


@dataclass(slots=True)
class Reply:
    """A response whose body arrives in pieces."""

    status: int
    headers: Mapping[str, str]
    pieces: AsyncIterator[bytes] = field(repr=False)


@dataclass(slots=True)
class Creation:
    """A call that creates jobs, `headers` that it sends, and whether its client got all that it asked for."""

    headers: Mapping[str, str] = field(default_factory=dict)
    is_finished: bool = False

    def finish(self) -> None:
        """The next call like this one creates jobs of its own."""
        self.is_finished = True


class Gateway(Protocol):
    """The HTTP API as one caller sees it; calls carry the caller's credential."""

    @property
    def reconnects(self) -> bool:
        """Whether a stream that ends early may be opened again: the server that stops is another process."""

    def creating(self, body: Json) -> AbstractContextManager[Creation]:
        """Keep together a call that creates jobs with `body` and the wait for them.

        The same call joins these jobs later, if this one ends by an exception or without `Creation.finish`.
        """

    def open(
        self, method: str, path: str, *, body: Json | None = None, headers: Mapping[str, str] = _NO_HEADERS
    ) -> AbstractAsyncContextManager[Reply]:
        """Send a request and give its response. Raises UnreachableError."""


class UnreachableError(Exception):
    """The platform does not answer; the message says where, and what to do."""


class RefusedError(Exception):
    """The API refused a call: its error object and its status.

    `hints` = when a repeat makes sense: `retry_after` (seconds), or the `limit` that is reached and its `resets_at`.
    """

    def __init__(self, status: int, error: Mapping[str, Any], hints: Mapping[str, str] = _NO_HEADERS) -> None:
        super().__init__(str(error.get("message") or f"The platform answered {status}."))
        self.status = status
        self.error = error
        self.hints = hints

    @property
    def code(self) -> str:
        """The error code; empty if the answer was no error object."""
        return str(self.error.get("code") or "")


async def call(
    gateway: Gateway,
    method: str,
    path: str,
    *,
    body: Json | None = None,
    headers: Mapping[str, str] = _NO_HEADERS,
    most_bytes: int = MOST_BYTES,
) -> Answer:
    """Send a request and return the whole response. Raises RefusedError, and `request_too_large` for a larger body."""
    async with gateway.open(method, path, body=body, headers=headers) as reply:
        content = bytearray()
        async for piece in reply.pieces:
            content += piece
            if len(content) > most_bytes:
                raise DreameryError("request_too_large", f"The answer has more than {most_bytes} bytes.")
        answer = Answer(reply.status, reply.headers, bytes(content))
    if answer.status >= 400:
        raise refusal(answer)
    return answer


async def call_json(
    gateway: Gateway,
    method: str,
    path: str,
    *,
    body: Json | None = None,
    headers: Mapping[str, str] = _NO_HEADERS,
) -> Any:
    """Send a request and return the JSON of its response. Raises RefusedError."""
    answer = await call(gateway, method, path, body=body, headers=headers)
    try:
        return json.loads(answer.body)
    except ValueError:
        raise _unreadable("The platform did not answer with JSON.") from None


def _unreadable(message: str) -> RefusedError:
    return RefusedError(502, {"message": message, "type": "server_error", "param": None, "code": "upstream_error"})


def refusal(answer: Answer) -> RefusedError:
    """Return the error of a response with an error status."""
    try:
        error = json.loads(answer.body)["error"]
        error = dict(error)
    except (ValueError, KeyError, TypeError):
        error = {"message": f"The platform answered {answer.status}.", "type": None, "param": None, "code": None}
    names = {"limit": "x-budget-limit", "resets_at": "x-budget-reset"}
    # `Retry-After` is at most a minute, also if the limit resets tomorrow: an agent would repeat the call for hours.
    if answer.headers.get("x-should-retry") != "false":
        names["retry_after"] = "retry-after"
    return RefusedError(
        answer.status,
        error,
        {name: answer.headers[header] for name, header in names.items() if header in answer.headers},
    )


async def read_events(pieces: AsyncIterator[bytes]) -> AsyncIterator[Json | None]:
    """Yield the data of each server-sent event, and None for each comment, which shows that the stream is alive.

    Raises RefusedError for an error event.
    """
    rest = b""
    async for piece in pieces:
        *lines, rest = (rest + piece).split(b"\n")
        if len(rest) > _MOST_EVENT_BYTES:
            raise _unreadable("An event of the platform is too long.")
        for line in lines:
            if line.startswith(b":"):
                yield None
            elif line.startswith(b"data:"):
                data = json.loads(line.removeprefix(b"data:"))
                if isinstance(data.get("error"), dict) and data.get("object") != "job":
                    raise RefusedError(int(data.get("status") or 500), data["error"])
                yield data
