"""The MCP server of an API process: the library's transport without sessions, started by the first request."""

import asyncio
import contextvars
import logging
from typing import Any

from fastapi import FastAPI
from mcp.server import ServerRequestContext
from mcp.server.streamable_http_manager import StreamableHTTPSessionManager
from starlette.requests import Request
from starlette.types import Receive, Scope, Send

from api.protocols.mcp.gateways.in_process import InProcessGateway
from api.protocols.mcp.gateways.protocol import Gateway
from api.protocols.mcp.routes import CONFIRM_ABOVE_HEADER
from api.protocols.mcp.server import build_server
from api.protocols.mcp.tools.call import ToolSettings
from worker.core.settings import get_settings


class HttpServer:
    """Answers requests while its task runs: the library needs one task for everything that it starts."""

    def __init__(self) -> None:
        settings = get_settings()
        # The library reports each request at its end.
        logging.getLogger("mcp").setLevel(logging.WARNING)
        server = build_server(_gateway, _settings)
        # Our own middleware has read and limited the body.
        self._transport = StreamableHTTPSessionManager(
            server, stateless=True, max_request_body_size=settings.request_max_bytes
        )
        self._ready, self._stopping = asyncio.Event(), asyncio.Event()
        # Not in the context of the request that happens to be the first.
        self._task = asyncio.create_task(self._run(), context=contextvars.Context())

    @property
    def is_running(self) -> bool:
        """Whether it can answer."""
        return not self._task.done()

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        await self._ready.wait()
        await self._transport.handle_request(scope, receive, send)

    async def stop(self) -> None:
        """End everything that runs."""
        self._stopping.set()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        try:
            async with self._transport.run():
                self._ready.set()
                await self._stopping.wait()
        finally:
            self._ready.set()  # who waits sees that it does not run


def get_server(app: FastAPI) -> HttpServer:
    """Return the server of this application; a new one if there is none, or if it ended with an error."""
    server: HttpServer | None = getattr(app.state, "mcp", None)
    if server is None or not server.is_running:
        server = app.state.mcp = HttpServer()
    return server


def _gateway(context: ServerRequestContext[Any, Any]) -> Gateway:
    return InProcessGateway(_request(context))


def _settings(context: ServerRequestContext[Any, Any]) -> ToolSettings:
    settings = get_settings()
    own = _request(context).headers.get(CONFIRM_ABOVE_HEADER, "")
    return ToolSettings(confirm_above=own or settings.mcp_confirm_above, longest_wait=settings.sync_wait_seconds)


def _request(context: ServerRequestContext[Any, Any]) -> Request:
    request: Request | None = context.request
    if request is None:
        raise LookupError("the transport gave a message without its request")
    return request
