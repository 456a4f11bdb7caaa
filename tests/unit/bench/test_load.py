"""The load generator: keeps its callers busy, reads every kind of answer, and notes what failed."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable

from tests.bench.load import Call, Plan, Request, run_plan

Answer = Callable[[bytes, asyncio.StreamWriter], Awaitable[None]]
_GOOD = b'{"data":[{"url":"http://x/1.webp"}]}'


def _run(answer: Answer, *, callers: int, requests: int) -> tuple[list[Call], Counter[str]]:
    """Run a plan against a server that answers with `answer`; return the calls and counts of the server."""
    seen: Counter[str] = Counter()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen["connections"] += 1
        while head := await _read_head(reader):
            length = next(int(line.split(b":")[1]) for line in head.lower().split(b"\r\n") if b"content-length" in line)
            seen["requests"] += 1
            seen["now"] += 1
            seen["most"] = max(seen["most"], seen["now"])
            await answer(await reader.readexactly(length), writer)
            seen["now"] -= 1
        writer.close()

    async def play() -> list[Call]:
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        base = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        plan = [Request("/v1/images/generations", "key", f"p{n}", {"prompt": f"p{n}"}) for n in range(requests)]
        try:
            return await run_plan(Plan(base, callers, plan))
        finally:
            server.close()

    return asyncio.run(play()), seen


async def _read_head(reader: asyncio.StreamReader) -> bytes:
    try:
        return await reader.readuntil(b"\r\n\r\n")
    except (asyncio.IncompleteReadError, ConnectionResetError):
        return b""


def _with_length(status: str, content: bytes, extra: bytes = b"") -> bytes:
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(content)}\r\n".encode() + extra + b"\r\n" + content


async def _good(_body: bytes, writer: asyncio.StreamWriter) -> None:
    await asyncio.sleep(0.01)
    writer.write(_with_length("200 OK", _GOOD))


def test_every_request_is_sent_once_by_so_many_callers_each_on_one_connection() -> None:
    calls, seen = _run(_good, callers=7, requests=40)
    assert sorted(call.prompt for call in calls) == sorted(f"p{n}" for n in range(40))
    assert all(call.good and call.status == 200 and call.sent < call.answered for call in calls)
    assert (seen["connections"], seen["most"], seen["requests"]) == (7, 7, 40)


def test_chunked_answers_and_heartbeats_before_the_result_are_read() -> None:
    async def chunked(_body: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n \r\n")
        await asyncio.sleep(0.01)
        writer.write(f"{len(_GOOD):x}\r\n".encode() + _GOOD + b"\r\n0\r\n\r\n")

    calls, seen = _run(chunked, callers=2, requests=6)
    assert all(call.good for call in calls)
    assert seen["connections"] == 2


def test_a_closing_server_gets_a_new_connection_for_each_request() -> None:
    async def closing(_body: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(_with_length("200 OK", _GOOD, b"Connection: close\r\n"))
        writer.close()

    calls, seen = _run(closing, callers=1, requests=3)
    assert [call.good for call in calls] == [True] * 3
    assert seen["connections"] == 3


def test_refusals_answers_without_a_result_and_broken_connections_are_not_good() -> None:
    answers = {
        b"p0": _with_length("429 Too Many Requests", b'{"error":{"message":"slow down"}}'),
        b"p1": _with_length("200 OK", b'{"data":[]}'),
        b"p2": _with_length("200 OK", b'{"error":{"message":"failed late"}}'),
        b"p3": _with_length("200 OK", b"not json"),
        b"p5": _with_length("200 OK", _GOOD),
    }

    async def some(body: bytes, writer: asyncio.StreamWriter) -> None:
        for prompt, answer in answers.items():
            if prompt in body:
                writer.write(answer)
                return
        writer.close()

    calls, _ = _run(some, callers=1, requests=6)
    found = {call.prompt: (call.status, call.good) for call in calls}
    assert found == {
        "p0": (429, False), "p1": (200, False), "p2": (200, False), "p3": (200, False), "p4": (0, False), "p5": (200, True),
    }  # fmt: skip
