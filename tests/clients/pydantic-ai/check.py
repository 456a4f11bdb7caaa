"""An agent of pydantic-ai with the platform's MCP tools. A script takes the place of its model, so that it is the same
in each run: look at the models, ask for the price, make a picture, change it, and answer with its link.

    check.py http            tools of DREAMERY_URL/mcp
    check.py stdio COMMAND   tools of a program such as `dreamery mcp`
"""

import asyncio
import json
import os
import sys
from typing import Any

from fastmcp.client.transports import StdioTransport, StreamableHttpTransport
from pydantic_ai import Agent
from pydantic_ai.mcp import MCPToolset
from pydantic_ai.messages import ModelMessage, ModelResponse, TextPart, ToolCallPart, ToolReturnPart
from pydantic_ai.models.function import AgentInfo, FunctionModel

URL, KEY = os.environ["DREAMERY_URL"], os.environ["DREAMERY_KEY"]
PICTURE = {"prompt": "a red paper boat", "n": 1, "resolution": "1k"}
TOOLS = {
    *("list_models", "estimate", "make_picture", "edit_picture", "make_video"),
    *("wait_for_job", "list_jobs", "cancel_job", "balance"),
}


def transport() -> StdioTransport | StreamableHttpTransport:
    if sys.argv[1] == "http":
        return StreamableHttpTransport(f"{URL}/mcp", headers={"Authorization": f"Bearer {KEY}"})
    env = {"DREAMERY_URL": URL, "DREAMERY_KEY": KEY, "PATH": os.environ["PATH"]}
    return StdioTransport(sys.argv[2], sys.argv[3:], env=env)


def returned(messages: list[ModelMessage]) -> list[tuple[str, Any]]:
    """Return the names and results of all tools that were called."""
    parts = [part for message in messages for part in message.parts if isinstance(part, ToolReturnPart)]
    return [(part.tool_name, part.content) for part in parts]


def read(content: Any) -> dict[str, Any]:
    """Return the structured content of a result: an object, or its text among other texts and pictures."""
    if isinstance(content, list):
        return next((found for one in content if (found := read(one))), {})
    if isinstance(content, str) and content.startswith("{"):
        return json.loads(content)
    return content if isinstance(content, dict) else {}


def script(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
    """Take the next step."""
    results = returned(messages)
    if not results:
        assert {tool.name for tool in info.function_tools} == TOOLS, info.function_tools
        return ModelResponse([ToolCallPart("list_models", {"kind": "image"})])
    name, result = results[-1][0], read(results[-1][1])
    if name == "list_models":
        model = next(one["id"] for one in result["models"] if one["reference_images"])
        return ModelResponse(
            [ToolCallPart("estimate", {"tool": "make_picture", "arguments": {**PICTURE, "model": model}})]
        )
    if name == "estimate":
        assert result["cost"] > 0, result
        return ModelResponse([ToolCallPart("make_picture", {**PICTURE, "model": result["model"]})])
    job = result["jobs"][0]
    assert job["status"] == "completed", result
    if name == "make_picture":
        arguments = {"prompt": "at night", "n": 1, "images": [job["files"][0]["uri"]]}
        return ModelResponse([ToolCallPart("edit_picture", arguments)])
    return ModelResponse([TextPart(job["files"][0]["url"])])


async def main() -> None:
    agent = Agent(FunctionModel(script), toolsets=[MCPToolset(transport())])
    async with agent:
        result = await agent.run("Draw a boat, then show it at night.")
    names = [name for name, _ in returned(result.all_messages())]
    assert names == ["list_models", "estimate", "make_picture", "edit_picture"], names
    assert result.output.startswith(f"{URL}/v1/files/"), result.output
    print(f"{sys.argv[1]} ok")


asyncio.run(main())
