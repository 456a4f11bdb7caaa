"""The load generator, a process of its own: reads a plan as JSON on stdin, writes one line per call as JSON to stdout.

Each caller has one connection and sends one blocking request after the other, so any OpenAI-compatible server works.
"""

import asyncio
import json
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any
from urllib.parse import urlsplit

_TIMEOUT_SECONDS = 900.0
_MAX_LINE = 1 << 20


@dataclass(frozen=True)
class Request:
    """One request: path, bearer key, JSON body. `prompt` names it in the result."""

    path: str
    key: str
    prompt: str
    body: dict[str, Any]


@dataclass(frozen=True)
class Plan:
    """All requests of a scenario, taken by `callers` in order."""

    base: str
    callers: int
    requests: list[Request]

    def as_json(self) -> str:
        """The plan as the process reads it."""
        return json.dumps(asdict(self))


@dataclass
class Call:
    """One answered request. Times in unix seconds; `good` = status 200 and at least one result. Status 0 = no answer."""

    prompt: str
    sent: float
    answered: float
    status: int
    good: bool


class _Caller:
    def __init__(self, base: str) -> None:
        parts = urlsplit(base)
        self._host, self._port = parts.hostname or "127.0.0.1", parts.port or 80
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def call(self, request: Request) -> Call:
        body = json.dumps(request.body).encode()
        head = (
            f"POST {request.path} HTTP/1.1\r\nHost: {self._host}:{self._port}\r\nAuthorization: Bearer {request.key}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\nAccept: application/json\r\n\r\n"
        )
        sent = time.time()
        try:
            async with asyncio.timeout(_TIMEOUT_SECONDS):
                status, content = await self._exchange(head.encode() + body)
        except (OSError, TimeoutError, ValueError, asyncio.IncompleteReadError):
            self.close()
            return Call(request.prompt, sent, time.time(), 0, good=False)
        return Call(request.prompt, sent, time.time(), status, good=status == 200 and _has_results(content))

    async def _exchange(self, message: bytes) -> tuple[int, bytes]:
        if self._streams is None or self._streams[0].at_eof():
            self.close()
            self._streams = await asyncio.open_connection(self._host, self._port, limit=_MAX_LINE)
        reader, writer = self._streams
        writer.write(message)
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
        headers = dict(line.split(":", 1) for line in head.split("\r\n")[1:] if ":" in line)
        if "chunked" in headers.get("transfer-encoding", ""):
            content = b"".join([chunk async for chunk in _chunks(reader)])
        else:
            content = await reader.readexactly(int(headers.get("content-length", "0")))
        if "close" in headers.get("connection", ""):
            self.close()
        return int(head.split(" ", 2)[1]), content

    def close(self) -> None:
        if self._streams is not None:
            self._streams[1].close()
        self._streams = None


async def _chunks(reader: asyncio.StreamReader) -> Any:
    while size := int((await reader.readline()).split(b";")[0], 16):
        yield await reader.readexactly(size)
        await reader.readexactly(2)
    while (await reader.readline()).strip():
        pass  # trailers


def _has_results(content: bytes) -> bool:
    try:
        data = json.loads(content).get("data")
    except (ValueError, AttributeError):
        return False
    return isinstance(data, list) and bool(data) and bool(data[0].get("url") or data[0].get("b64_json"))


async def run_plan(plan: Plan) -> list[Call]:
    """Send all requests; return their calls."""
    remaining: Iterator[Request] = iter(plan.requests)
    calls: list[Call] = []

    async def work() -> None:
        caller = _Caller(plan.base)
        calls.extend([await caller.call(request) for request in remaining])
        caller.close()

    await asyncio.gather(*(work() for _ in range(plan.callers)))
    return calls


def main() -> int:
    """Run the plan of stdin."""
    raw = json.load(sys.stdin)
    plan = Plan(raw["base"], raw["callers"], [Request(**request) for request in raw["requests"]])
    for call in asyncio.run(run_plan(plan)):
        print(json.dumps(asdict(call)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
