"""Call our own HTTP API within the process: the same application, without a socket.

Each call runs through all layers: authentication, limits, validation, and its own line in the access log with the id of
the request that brought the tool call.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator, Mapping
from urllib.parse import unquote

import anyio
import orjson
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Scope

from api.http.request_tracker import End, TrackedRequest
from api.protocols.mcp.gateways.protocol import Creation, Json, Reply

# What the platform needs to know about the caller: the credential, its language, where links lead and where it calls
# from. Everything else belongs to the MCP request alone.
_PASSED_HEADERS = frozenset(
    {
        *("authorization", "api-key", "x-api-key", "accept-language", "host", "user-agent", "traceparent"),
        *("x-accounts", "x-max-cost", "forwarded", "x-real-ip"),
        *("x-forwarded-for", "x-forwarded-host", "x-forwarded-port", "x-forwarded-prefix", "x-forwarded-proto"),
    }
)
# Pieces of a body that wait for their reader.
_PIECES = 4


class InProcessGateway:
    """The API as the caller of `request` sees it."""

    reconnects = False

    def __init__(self, request: Request) -> None:
        self._app: ASGIApp = request.app
        self._request = request
        self._tracked: TrackedRequest | None = None
        self._scope = request.scope
        self._headers = [(name, value) for name, value in request.scope["headers"] if _is_passed(name)]
        self._headers.append((b"x-request-id", str(request.state.request_id).encode()))

    @contextlib.contextmanager
    def creating(self, body: Json) -> Iterator[Creation]:  # noqa: ARG002 - the platform recognises a repeat by itself
        """Let the whole wait, and not the call that creates the jobs, decide whether a repeat joins them.

        So a client that leaves during the wait counts as one that left a REST call that waits.
        """
        creation, tracker = Creation(), self._request.app.state.request_tracker
        tracked = self._tracked = tracker.track(self._request)
        how: End = "cut"
        try:
            yield creation
            how = "answered" if creation.is_finished else "timeout"
        finally:
            tracked.end(how)
            self._tracked = None

    @contextlib.asynccontextmanager
    async def open(
        self, method: str, path: str, *, body: Json | None = None, headers: Mapping[str, str] | None = None
    ) -> AsyncIterator[Reply]:
        """Send a request and give its response; a response that is left early counts as a lost connection."""
        content = b"" if body is None else orjson.dumps(body)
        exchange = _Exchange(content)
        task = asyncio.create_task(exchange.run(self._app, self._new_scope(method, path, content, headers or {})))
        try:
            start = await exchange.start()
            names = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in start["headers"]}
            yield Reply(start["status"], names, exchange.pieces())
        finally:
            with anyio.CancelScope(shield=True):
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
                exchange.close()

    def _new_scope(self, method: str, path: str, content: bytes, headers: Mapping[str, str]) -> Scope:
        raw_path, _, query = path.partition("?")
        own = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
        replaced = {name for name, _ in own}
        sent = [(name, value) for name, value in self._headers if name not in replaced]
        sent += [*own, (b"content-length", str(len(content)).encode())]
        if content:
            sent.append((b"content-type", b"application/json"))
        return {
            "type": "http",
            "asgi": self._scope["asgi"],
            "http_version": "1.1",
            "method": method,
            "scheme": self._scope["scheme"],
            "path": unquote(raw_path),
            "raw_path": raw_path.encode(),
            "root_path": "",
            "query_string": query.encode(),
            "headers": sent,
            "client": self._scope.get("client"),
            "server": self._scope.get("server"),
            "state": self._state_of_part() if method == "POST" else {},
        }

    def _state_of_part(self) -> dict[str, object]:
        return {} if self._tracked is None else {"tracked_request": self._tracked, "is_part": True}


def _is_passed(name: bytes) -> bool:
    return name.decode("latin-1").lower() in _PASSED_HEADERS


class _Exchange:
    """One request and its response. The application waits while its reader is slow."""

    def __init__(self, content: bytes) -> None:
        self._content: bytes | None = content
        streams = anyio.create_memory_object_stream[Message](_PIECES)
        self._sent: MemoryObjectSendStream[Message] = streams[0]
        self._received: MemoryObjectReceiveStream[Message] = streams[1]

    async def run(self, app: ASGIApp, scope: Scope) -> None:
        """Let the application answer. The end of its messages is the end of the response."""
        with self._sent:
            await app(scope, self._receive, self._send)

    async def start(self) -> Message:
        """Return the message with status and headers. Raises EndOfStream if the application sends none."""
        return await self._received.receive()

    async def pieces(self) -> AsyncIterator[bytes]:
        """Yield the body."""
        async for message in self._received:
            if content := message.get("body", b""):
                yield content
            if not message.get("more_body", False):
                return

    def close(self) -> None:
        """Free both ends."""
        self._sent.close()
        self._received.close()

    async def _receive(self) -> Message:
        if self._content is not None:
            content, self._content = self._content, None
            return {"type": "http.request", "body": content, "more_body": False}
        # The caller leaves by cancelling the task, so no disconnect is ever seen.
        await asyncio.Event().wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Message) -> None:
        await self._sent.send(message)
