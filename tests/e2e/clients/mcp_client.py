"""The official MCP client for tests: sessions over streamable HTTP and over standard input and output."""

import asyncio
import contextlib
import os
import sys
from collections.abc import AsyncIterator
from typing import Any

import httpx2
from mcp import Client
from mcp.client.stdio import StdioServerParameters, stdio_client
from mcp.client.streamable_http import streamable_http_client
from mcp.types import CallToolResult, ElicitRequestParams, ElicitResult

from tests.support.platform import ROOT, clean_env
from worker.local.supervisor import Platform

# Each request for itself, or the older handshake at the beginning.
ERAS = ("2026-07-28", "legacy")


class User:
    """The user of a client: answers questions and keeps them."""

    def __init__(self, action: str = "accept") -> None:
        self.action = action
        self.questions: list[str] = []

    async def answer(self, _context: Any, question: ElicitRequestParams) -> ElicitResult:
        self.questions.append(question.message)
        return ElicitResult(action=self.action, content={"confirm": True} if self.action == "accept" else None)


class Progress:
    """Keeps progress notifications as (value, message)."""

    def __init__(self) -> None:
        self.seen: list[tuple[float, str]] = []
        self.began = asyncio.Event()

    async def __call__(self, value: float, total: float | None, message: str | None) -> None:
        assert total == 100
        self.seen.append((value, message or ""))
        self.began.set()


@contextlib.asynccontextmanager
async def connect(
    platform: Platform, key: str, *, era: str = ERAS[0], user: User | None = None, headers: dict[str, str] | None = None
) -> AsyncIterator[Client]:
    """A session over streamable HTTP."""
    sent = {"authorization": f"Bearer {key}", **(headers or {})}
    async with httpx2.AsyncClient(headers=sent, timeout=60, trust_env=False) as http:
        transport = streamable_http_client(f"{platform.url}/mcp", http_client=http)
        async with Client(transport, mode=era, elicitation_callback=user and user.answer) as client:
            yield client


@contextlib.asynccontextmanager
async def start_command(
    url: str, key: str, *arguments: str, era: str = ERAS[0], user: User | None = None
) -> AsyncIterator[Client]:
    """A session with `dreamery mcp`."""
    env = clean_env(DREAMERY_URL=url, DREAMERY_KEY=key)
    program = StdioServerParameters(
        command=sys.executable, args=["-m", "api.cli.main", "mcp", *arguments], env=env, cwd=ROOT
    )
    with open(os.devnull, "w") as errors:  # noqa: PTH123, ASYNC230 - a file object for the process
        async with Client(
            stdio_client(program, errlog=errors), mode=era, elicitation_callback=user and user.answer
        ) as client:
            yield client


def error_of(result: CallToolResult) -> dict[str, Any]:
    """Return the error of a failed call."""
    assert result.is_error, result
    error = result.structured_content["error"]
    assert result.content[0].text.startswith(f"{error['code']}: ")
    return error


def text_of(result: CallToolResult) -> str:
    """Return the words of a result."""
    assert not result.is_error, result.content
    return result.content[0].text
