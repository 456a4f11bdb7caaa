"""The MCP server: tools and resources over the HTTP API, for every transport."""

import base64
from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from typing import Any

import orjson
from mcp.server import Server, ServerRequestContext
from mcp.types import (
    Annotations,
    CallToolRequestParams,
    CallToolResult,
    ContentBlock,
    ImageContent,
    InputRequiredResult,
    ListResourcesResult,
    ListResourceTemplatesResult,
    ListToolsResult,
    PaginatedRequestParams,
    ReadResourceRequestParams,
    ReadResourceResult,
    ResourceLink,
    TextContent,
)

from api.http.errors import error_body
from api.protocols.mcp import resources
from api.protocols.mcp.confirmation import ClientConfirmation, InputNeededError
from api.protocols.mcp.gateways.protocol import Gateway, RefusedError, UnreachableError
from api.protocols.mcp.tools.call import Call, Outcome, ToolSettings
from api.protocols.mcp.tools.table import TOOLS, ToolRow
from worker.core.errors import ERRORS, DreameryError
from worker.core.observability.logging import get_logger

log = get_logger("mcp")

Context = ServerRequestContext[Any, Any]
_FIRST_VERSION_WITH_LINKS = "2025-06-18"
_INSTRUCTIONS = (
    "Dreamery generates pictures and videos. Each generation is a job: it continues when a call ends, and its id finds "
    "it again. make_picture and make_video wait up to wait_seconds; follow longer jobs with wait_for_job instead of "
    "making the same call again. Generations cost credits or money: ask `estimate` first when the user cares, and pass "
    "confirm_cost only with the user's consent. Show results to the user by their links."
)


def build_server(gateway_of: Callable[[Context], Gateway], settings_of: Callable[[Context], ToolSettings]) -> Server:
    """Return a server whose calls reach the API through `gateway_of`."""
    return Server(
        "dreamery",
        version=version("dreamery"),
        title="Dreamery",
        instructions=_INSTRUCTIONS,
        on_list_tools=_list_tools,
        on_call_tool=partial(_call_tool, gateway_of, settings_of),
        on_list_resources=partial(_list_resources, gateway_of),
        on_list_resource_templates=_list_templates,
        on_read_resource=partial(_read_resource, gateway_of),
        get_tool_input_schema=_input_schema,
    )


async def _list_tools(_context: Context, _params: PaginatedRequestParams | None) -> ListToolsResult:
    return ListToolsResult(tools=[row.definition() for row in TOOLS.values()])


def _input_schema(name: str) -> dict[str, Any] | None:
    return TOOLS[name].definition().input_schema if name in TOOLS else None


async def _list_templates(_context: Context, _params: PaginatedRequestParams | None) -> ListResourceTemplatesResult:
    return resources.list_templates()


async def _list_resources(
    gateway_of: Callable[[Context], Gateway], context: Context, params: PaginatedRequestParams | None
) -> ListResourcesResult:
    return await resources.list_resources(gateway_of(context), params.cursor if params else None)


async def _read_resource(
    gateway_of: Callable[[Context], Gateway], context: Context, params: ReadResourceRequestParams
) -> ReadResourceResult:
    return await resources.read_resource(gateway_of(context), str(params.uri))


async def _call_tool(
    gateway_of: Callable[[Context], Gateway],
    settings_of: Callable[[Context], ToolSettings],
    context: Context,
    params: CallToolRequestParams,
) -> CallToolResult | InputRequiredResult:
    """Carry out a tool. What goes wrong is a result that the model can read, with the code of the REST API."""
    try:
        tool = _find_tool(params.name)
        call = Call(
            gateway=gateway_of(context),
            settings=settings_of(context),
            report=partial(_report, context),
            confirmation=ClientConfirmation(context, params),
            has_links=context.protocol_version >= _FIRST_VERSION_WITH_LINKS,
        )
        return _result(await tool.call(call, params.arguments or {}))
    except InputNeededError as needed:
        return needed.result
    except RefusedError as refused:
        return _failure({**refused.error, "status": refused.status, **refused.hints})
    except DreameryError as error:
        return _failure(error_body(error.kind, error.message, error.param)["error"])
    except UnreachableError as error:
        return _failure({"message": str(error), "type": "server_error", "param": None, "code": "upstream_unreachable"})
    except Exception:
        log.exception("mcp_tool_failed", tool=params.name[:60])
        return _failure(error_body(ERRORS["internal_error"])["error"])


def _find_tool(name: str) -> ToolRow[Any]:
    row = TOOLS.get(name)
    if row is None:
        message = f"There is no tool {name[:60]!r}. Tools are: {', '.join(TOOLS)}."
        raise DreameryError("invalid_value", message, param="name")
    return row


async def _report(context: Context, percent: float, message: str) -> None:
    await context.session.report_progress(percent, 100, message)


def _result(outcome: Outcome) -> CallToolResult:
    # For clients that know no structured content: the same as text, as the specification wants it.
    serialized = orjson.dumps(outcome.structured).decode()
    content: list[ContentBlock] = [
        TextContent(text=outcome.text),
        TextContent(text=serialized, annotations=Annotations(audience=["assistant"])),
    ]
    content += [ResourceLink(**link) for link in outcome.links]
    for picture, mime in outcome.previews:
        content.append(ImageContent(data=base64.b64encode(picture).decode(), mime_type=mime))
    return CallToolResult(content=content, structured_content=outcome.structured, is_error=outcome.failed)


def _failure(error: dict[str, Any]) -> CallToolResult:
    param = f" (param: {error['param']})" if error.get("param") else ""
    text = f"{error.get('code') or 'error'}: {error.get('message')}{param}"
    return CallToolResult(content=[TextContent(text=text)], structured_content={"error": error}, is_error=True)
