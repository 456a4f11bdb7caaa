"""`POST /mcp`: the Model Context Protocol over streamable HTTP, without sessions.

Every request stands alone, so any API process answers it, also after a restart. The library is imported by the first
request: a platform that nobody calls this way spends no memory on it.
"""

import importlib
from typing import Any

from fastapi import APIRouter, Request, Response
from starlette.concurrency import run_in_threadpool
from starlette.types import Receive, Scope, Send

from api.auth.dependencies import get_caller, read_credential
from api.protocols.mcp.origins import check_origin
from worker.core.catalog.consent_limits import read_consent_limits
from worker.core.errors import DreameryError

router = APIRouter()
PATH = "/mcp"
# The setting MCP_CONFIRM_ABOVE for one client: its user writes the header into its configuration.
CONFIRM_ABOVE_HEADER = "x-confirm-above"


class _McpResponse(Response):
    """Lets the library answer a request."""

    def __init__(self, server: Any) -> None:
        super().__init__()
        self._server = server

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer the request."""
        await self._server.handle(scope, receive, send)


# Not in the OpenAPI document: the bodies are messages of another protocol, see docs/mcp.md.
@router.post(PATH, include_in_schema=False)
async def answer_mcp(request: Request) -> Response:
    """Check where the request comes from and its key, and let the MCP server answer it.

    The cookie of the console is no credential here, so that no web page can use it.
    """
    check_origin(request)
    if not read_credential(request):
        raise DreameryError("missing_api_key")
    await get_caller(request)
    _check_confirm_above(request.headers.get(CONFIRM_ABOVE_HEADER, ""))
    # In a thread: the first import takes about a second, in which other requests are answered.
    http_server = await run_in_threadpool(importlib.import_module, "api.protocols.mcp.http_server")
    return _McpResponse(http_server.get_server(request.app))


def _check_confirm_above(header: str) -> None:
    try:
        read_consent_limits(header)
    except ValueError as error:
        message = f"The header X-Confirm-Above {error}."
        raise DreameryError("invalid_value", message, param=CONFIRM_ABOVE_HEADER) from None


async def stop_mcp(app: Any) -> None:
    """End the MCP server of this process, if a request started it."""
    server = getattr(app.state, "mcp", None)
    if server is not None:
        await server.stop()
