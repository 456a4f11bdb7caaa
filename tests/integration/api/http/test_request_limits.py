"""Rate limits per caller, counted in Redis; request bodies that are too large, too slow or sent without a valid key."""

import json
import socket
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest
from starlette.testclient import TestClient

from api.app import create_app
from tests.support.api_client import assert_error, new_key
from tests.support.engine import Engine
from tests.support.platform import free_port
from tests.support.servers.http_servers import running_app

IMAGES = "/v1/images/generations"
RATE_LIMIT_HEADERS = tuple(f"x-ratelimit-{name}-requests" for name in ("limit", "remaining", "reset"))


@pytest.fixture
def client(engine: Engine) -> Iterator[TestClient]:
    engine.configure(REQUESTS_PER_MINUTE="3")
    headers = {"Authorization": f"Bearer {new_key()}"}
    with TestClient(create_app(), headers=headers, raise_server_exceptions=False) as client:
        yield client


def generate(client: TestClient, **fields: Any) -> Any:
    headers = fields.pop("headers", None)
    return client.post(IMAGES, json={"prompt": "a boat", "async": True, **fields}, headers=headers)


def test_rate_limit_headers_and_429_before_acceptance(client, engine: Engine) -> None:
    for left in (2, 1, 0):
        answer = generate(client)
        assert answer.status_code == 202
        limit, remaining, reset = (answer.headers[name] for name in RATE_LIMIT_HEADERS)
        assert (limit, remaining) == ("3", str(left))
        assert reset.endswith(("ms", "s"))
    rejected = generate(client)
    assert_error(rejected, 429, "rate_limit_exceeded")
    assert rejected.json()["error"]["type"] == "rate_limit_error"
    assert 1 <= int(rejected.headers["retry-after"]) <= 60
    assert rejected.headers["x-ratelimit-remaining-requests"] == "0"
    assert "x-should-retry" not in rejected.headers
    assert len(engine.sql("SELECT 1 FROM jobs")) == 3


def test_reads_and_cancellations_are_not_counted(client) -> None:
    job = generate(client).json()["id"]
    for _ in range(10):
        assert client.get(f"/v1/jobs/{job}").status_code == 200
        answer = client.get("/v1/models")
        assert not set(RATE_LIMIT_HEADERS) & set(answer.headers)
    assert client.post(f"/v1/jobs/{job}/cancel").status_code == 200
    assert generate(client).headers["x-ratelimit-remaining-requests"] == "1"


def test_callers_are_counted_separately_and_invalid_keys_not_at_all(client) -> None:
    for _ in range(4):
        generate(client)
    assert generate(client).status_code == 429
    assert generate(client, headers={"Authorization": f"Bearer {new_key()}"}).status_code == 202
    invalid = generate(client, headers={"Authorization": "Bearer sk-dreamery-wrong"})
    assert not set(RATE_LIMIT_HEADERS) & set(invalid.headers)


def test_zero_disables_rate_limit(client, engine: Engine) -> None:
    engine.configure(REQUESTS_PER_MINUTE="0")
    for _ in range(5):
        answer = generate(client)
        assert answer.status_code == 202
        assert not set(RATE_LIMIT_HEADERS) & set(answer.headers)


def test_no_rate_limit_without_redis(engine: Engine, capfd: pytest.CaptureFixture[str]) -> None:
    engine.configure(REQUESTS_PER_MINUTE="1", LOG_FORMAT="json")
    live = engine.env["DREAMERY_REDIS_URL"]
    engine.configure(REDIS_URL=f"redis://127.0.0.1:{free_port()}/0")
    headers = {"Authorization": f"Bearer {new_key()}"}
    with TestClient(create_app(), headers=headers, raise_server_exceptions=False) as client:
        started = time.monotonic()
        for _ in range(3):
            answer = client.post(IMAGES, json={"prompt": ""})
            assert_error(answer, 400, "invalid_value", "prompt")
            assert not set(RATE_LIMIT_HEADERS) & set(answer.headers)
        assert time.monotonic() - started < 20
    engine.configure(REDIS_URL=live)
    lines = [json.loads(line) for line in capfd.readouterr().err.splitlines() if "request_limits_away" in line]
    assert len(lines) == 1, "Redis is tried once, then paused"


# --- bodies, over raw sockets ---


@pytest.fixture
def address(engine: Engine) -> Iterator[tuple[str, int]]:
    engine.configure(REQUEST_BODY_TIMEOUT_SECONDS="1")
    with running_app(create_app(), lifespan="on") as url:
        parts = urlsplit(url)
        yield str(parts.hostname), int(parts.port or 0)


def head(*lines: str, length: int, key: str = "demo:sandbox") -> bytes:
    fields = [f"POST {IMAGES} HTTP/1.1", "Host: x", f"Authorization: Bearer {key}", f"Content-Length: {length}", *lines]
    return (
        "\r\n".join(["Content-Type: application/json", *fields[1:]]).join([fields[0] + "\r\n", "\r\n\r\n"])
    ).encode()


def read_head(line: socket.socket) -> str:
    data = b""
    while b"\r\n\r\n" not in data:
        piece = line.recv(65536)
        if not piece:
            break
        data += piece
    return data.decode()


def test_invalid_key_is_rejected_without_reading_the_upload(address) -> None:
    with socket.create_connection(address, timeout=10) as line:
        line.sendall(head(length=100_000_000, key="sk-dreamery-wrong") + b'{"prompt": "a')
        answer = read_head(line)
    assert answer.startswith("HTTP/1.1 401")
    assert "invalid_api_key" in answer


def test_invalid_key_gets_no_100_continue(address) -> None:
    with socket.create_connection(address, timeout=10) as line:
        line.sendall(head("Expect: 100-continue", length=100_000_000, key="sk-dreamery-wrong"))
        assert read_head(line).startswith("HTTP/1.1 401")
    with socket.create_connection(address, timeout=10) as line:
        line.sendall(head("Expect: 100-continue", length=50))
        assert read_head(line).startswith("HTTP/1.1 100")


def test_too_large_body_is_rejected_before_it_is_sent(address) -> None:
    with socket.create_connection(address, timeout=10) as line:
        line.sendall(head("Expect: 100-continue", length=141_000_000))
        answer = read_head(line)
    assert answer.startswith("HTTP/1.1 413")
    assert "larger than 140000000 bytes" in answer


def test_stalled_body_times_out(address) -> None:
    started = time.monotonic()
    with socket.create_connection(address, timeout=20) as line:
        line.sendall(head(length=1000) + b'{"prompt": "a')
        answer = read_head(line)
    assert answer.startswith("HTTP/1.1 408")
    assert "request_incomplete" in answer
    assert "connection: close" in answer.lower()
    assert time.monotonic() - started < 10
