"""`dreamery mcp`: the MCP server over standard input and output, for clients that start their servers themselves."""

import logging
import sys
from typing import Annotated, Any

import typer

from api.cli.api_client import ClientError
from api.cli.display.output import UrlOption, choose_client

MCP_EXAMPLE = "Example: DREAMERY_URL=https://dreamery.example.com DREAMERY_KEY=sk-dreamery-... dreamery mcp"

_KeyOption = Annotated[
    str,
    typer.Option(
        "--key",
        envvar=["DREAMERY_KEY", "DREAMERY_ADMIN_KEY"],
        help="API key or session id; default: the admin key of this machine.",
    ),
]
_ConfirmOption = Annotated[
    str,
    typer.Option(
        "--confirm-above",
        envvar="DREAMERY_MCP_CONFIRM_ABOVE",
        help="Costs above which the user is asked first, such as '20 credits, 0.5 USD'; none = never.",
    ),
]


def serve_mcp(url: UrlOption = "", key: _KeyOption = "", confirm_above: _ConfirmOption = "") -> None:
    """Offer the platform to an MCP client (Claude, Cursor, ...) over standard input and output.

    Tools make pictures and videos on a platform that runs elsewhere or on this machine. Clients that support streamable
    HTTP need no command: give them the address of the platform with /mcp. Everything is logged to standard error.
    """
    # Standard output belongs to the protocol.
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING)
    import anyio

    from worker.core.catalog.consent_limits import read_consent_limits
    from worker.core.settings import get_settings

    limits = confirm_above or get_settings().mcp_confirm_above
    try:
        read_consent_limits(limits)
    except ValueError as error:
        raise typer.BadParameter(f"{error}.", param_hint="--confirm-above") from None
    client = choose_client(url, key)
    if not client.url.startswith(("http://", "https://")):
        raise ClientError(f"{client.url} is not an http:// or https:// URL.")
    used = f" with {client.key_source}" if client.key_source else ""
    typer.echo(f"Serving MCP for {client.url}{used}.", err=True)
    anyio.run(_serve, client.url, client.key, limits)


async def _serve(url: str, key: str, confirm_above: str) -> None:
    from mcp.server import ServerRequestContext
    from mcp.server.stdio import stdio_server

    from api.cli.mcp.http_gateway import HttpGateway
    from api.protocols.mcp.server import build_server
    from api.protocols.mcp.tools.call import ToolSettings
    from api.protocols.mcp.tools.inputs import LONGEST_WAIT_SECONDS

    settings = ToolSettings(confirm_above=confirm_above, longest_wait=LONGEST_WAIT_SECONDS)
    async with HttpGateway(url, key) as gateway:

        def gateway_of(_context: ServerRequestContext[Any, Any]) -> HttpGateway:
            return gateway

        def settings_of(_context: ServerRequestContext[Any, Any]) -> ToolSettings:
            return settings

        server = build_server(gateway_of, settings_of)
        async with stdio_server() as (reading, writing):
            await server.run(reading, writing, server.create_initialization_options())
