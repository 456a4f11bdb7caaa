"""Requests to `/mcp` that no client sends: they get a clear answer, and nobody else waits for them."""

import json
import socket
import time
from urllib.parse import urlsplit

import httpx
import pytest

from tests.support.api_client import new_key

INITIALIZE = {
    "jsonrpc": "2.0",
    "id": 1,
    "method": "initialize",
    "params": {
        "protocolVersion": "2025-06-18",
        "capabilities": {},
        "clientInfo": {"name": "hostile", "version": "1"},
    },
}
ACCEPT = "application/json, text/event-stream"


def call(name: str, arguments: dict[str, object]) -> dict[str, object]:
    return {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": name, "arguments": arguments}}


def send(platform, body: object, *, method: str = "POST", key: str | None = None, **headers: str) -> httpx.Response:
    sent = {"authorization": f"Bearer {key or new_key()}", "accept": ACCEPT, "content-type": "application/json"}
    sent |= {name.replace("_", "-"): value for name, value in headers.items()}
    content = body if isinstance(body, str) else json.dumps(body)
    chosen = {name: value for name, value in sent.items() if value}
    # The first message imports the library, which takes long on a busy machine.
    return httpx.request(method, f"{platform.url}/mcp", content=content, headers=chosen, trust_env=False, timeout=60)


def test_requests_without_a_key_are_refused(api_platform):
    for headers in ({"authorization": ""}, {"authorization": "", "cookie": "dreamery_session=any"}):
        answer = send(api_platform, INITIALIZE, **headers)
        assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")
        assert answer.json()["error"]["code"] == "missing_api_key"
    wrong = send(api_platform, INITIALIZE, key="sk-dreamery-wrong")
    assert (wrong.status_code, wrong.json()["error"]["code"]) == (401, "invalid_api_key")


def test_pages_of_other_origins_are_refused(api_platform):
    for headers in ({"origin": "https://evil.example"}, {"origin": "http://evil.example", "host": "evil.example"}):
        answer = send(api_platform, INITIALIZE, **headers)
        assert (answer.status_code, answer.json()["error"]["code"]) == (403, "forbidden")
    assert send(api_platform, INITIALIZE, origin="http://localhost:6274").status_code == 200


@pytest.mark.parametrize(
    ("body", "headers", "status"),
    [
        (INITIALIZE, {"accept": "text/html"}, 406),
        (INITIALIZE, {"content_type": "text/plain"}, 400),
        (INITIALIZE, {"mcp_protocol_version": "1999-01-01"}, 400),
        (INITIALIZE, {"x_confirm_above": "lots"}, 400),
        ([INITIALIZE, INITIALIZE], {}, 400),
        ("nonsense", {}, 400),
        ("[" * 5_000 + "]" * 5_000, {}, 400),
        ({"jsonrpc": "1.0", "id": 1, "method": "initialize"}, {}, 400),
        (call("make_picture", {"prompt": "x" * 2_000_000}), {}, 413),
    ],
    ids=["accept", "type", "version", "limit", "batch", "no JSON", "depth", "no JSON-RPC", "size"],
)
def test_other_messages_are_refused(api_platform, body, headers, status):
    assert send(api_platform, body, **headers).status_code == status


@pytest.mark.parametrize("method", ["GET", "DELETE", "PUT"])
def test_there_are_no_sessions_to_open_or_to_end(api_platform, method):
    """A stream without a request would hold a connection for nothing."""
    answer = send(api_platform, "", method=method, mcp_session_id="any")
    assert (answer.status_code, answer.headers["allow"]) == (405, "POST")


def test_readers_that_never_read_and_callers_that_leave_do_not_hold_others_up(api_platform):
    key = new_key()
    body = json.dumps(call("make_picture", {"prompt": "a boat [[seconds:600]]", "n": 1, "wait_seconds": 600})).encode()
    address = urlsplit(api_platform.url)
    head = (
        f"POST /mcp HTTP/1.1\r\nHost: {address.netloc}\r\nAuthorization: Bearer {key}\r\nAccept: {ACCEPT}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    ).encode()
    sockets = [socket.create_connection((address.hostname, address.port)) for _ in range(40)]
    try:
        for one in sockets:
            one.sendall(head + body)
        started = time.monotonic()
        for _ in range(10):
            assert send(api_platform, call("list_models", {})).status_code == 200
        # They would wait for the stuck ones until these end, ten minutes later.
        assert time.monotonic() - started < 30
    finally:
        for one in sockets:
            one.close()
    # The jobs continue without the calls.
    with httpx.Client(
        base_url=api_platform.url, headers={"authorization": f"Bearer {key}"}, trust_env=False, timeout=60
    ) as http:
        jobs = http.get("/v1/jobs").json()["data"]
        assert {job["status"] for job in jobs} <= {"queued", "in_progress"}
        for job in jobs:
            assert http.post(f"/v1/jobs/{job['id']}/cancel").status_code == 200
