"""What a client can claim about itself: its address, its host, its origin. With the server as `dreamery run api`."""

import re
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from fnmatch import fnmatch
from itertools import count

import httpx
import pytest

from tests.support.api_client import assert_error
from tests.support.engine import Engine
from tests.support.platform import ROOT, clean_env, eventually, free_port

WRONG = {"Authorization": "Bearer sk-dreamery-wrong"}
METRICS = ("/metrics", "/metrics/", "/metrics//", "//metrics", "/%6detrics", "/metrics?x=1")
StartServer = Callable[..., httpx.Client]


@contextmanager
def running_server(engine: Engine, **settings: str) -> Iterator[httpx.Client]:
    port = free_port()
    values = {f"DREAMERY_{name}": value for name, value in settings.items()}
    process = subprocess.Popen(
        [sys.executable, "-m", "api.http.server", "--port", str(port)], env=clean_env(**{**engine.env, **values})
    )
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=30) as client:
            eventually(lambda: process.poll() is None and _is_listening(port), what="the server listens")
            yield client
    finally:
        process.terminate()
        process.wait(20)


def _is_listening(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture
def start_server(engine: Engine) -> Iterator[StartServer]:
    with ExitStack() as stack:
        yield lambda **settings: stack.enter_context(running_server(engine, **settings))


# --- X-Forwarded-For ---


@pytest.mark.parametrize("name", ["X-Forwarded-For", "Forwarded", "X-Real-IP"])
def test_invented_addresses_evade_no_limit(start_server: StartServer, name: str) -> None:
    client, numbers = start_server(FAILED_LOGINS_PER_MINUTE="3"), count(1)
    invented = [f"203.0.113.{next(numbers)}" for _ in range(3)] + ["2001:db8::1", "nonsense", "127.0.0.1, 203.0.113.9"]
    answers = [client.get("/v1/models", headers={**WRONG, name: value}) for value in invented]
    assert [answer.status_code for answer in answers] == [401] * 3 + [429] * 3


def test_named_proxy_tells_addresses(start_server: StartServer) -> None:
    client = start_server(FAILED_LOGINS_PER_MINUTE="2", TRUSTED_PROXIES="127.0.0.1")

    def try_key(address: str) -> int:
        return client.get("/v1/models", headers={**WRONG, "X-Forwarded-For": address}).status_code

    # The client's own part of the header comes before the address that the proxy appends.
    assert [try_key(f"198.51.100.{n}, 203.0.113.7") for n in range(3)] == [401, 401, 429]
    assert try_key("203.0.113.8") == 401
    # What is no address counts together.
    assert [try_key(f"nonsense-{n}") for n in range(3)] == [401, 401, 429]


def test_failed_sign_ins_count_by_network(start_server: StartServer, engine: Engine) -> None:
    client = start_server(TRUSTED_PROXIES="127.0.0.1", FAILED_LOGINS_PER_MINUTE="0")
    for n in range(21):
        answer = client.post("/console/session", headers={**WRONG, "X-Forwarded-For": f"2001:db8:1:2:{n}::1"})
    assert_error(answer, 429, "rate_limit_exceeded")
    assert len(engine.sql("SELECT 1 FROM audit_log WHERE action = 'console.sign_in_failed'")) == 20


def test_proxy_on_this_machine_tells_the_scheme(start_server: StartServer, engine: Engine) -> None:
    client = start_server()
    key = {"Authorization": f"Bearer {engine.env['DREAMERY_ADMIN_KEY']}"}
    for stated, prefix in (("https", "__Host-dreamery="), ("gopher", "dreamery_session="), ("", "dreamery_session=")):
        answer = client.post("/console/session", headers={**key, "X-Forwarded-Proto": stated})
        assert answer.headers["set-cookie"].startswith(prefix), stated


# --- /metrics ---


def url_of(client: httpx.Client, path: str) -> str:
    return str(client.base_url).rstrip("/") + path


def test_metrics_are_shown_on_this_machine_only(start_server: StartServer) -> None:
    client = start_server()
    for path in METRICS:
        assert client.get(url_of(client, path)).status_code == 200, path
        for name in ("X-Forwarded-For", "X-Real-IP", "Via", "Forwarded"):
            assert_error(client.get(url_of(client, path), headers={name: "127.0.0.1"}), 403, "forbidden")
    behind_proxy = start_server(TRUSTED_PROXIES="127.0.0.1")
    for path in METRICS:
        answer = behind_proxy.get(url_of(behind_proxy, path), headers={"X-Forwarded-For": "203.0.113.7"})
        assert "DREAMERY_METRICS_TOKEN" in assert_error(answer, 403, "forbidden")


def test_metrics_token_is_required_on_every_spelling(start_server: StartServer) -> None:
    client = start_server(METRICS_TOKEN="a-token-for-prometheus")
    for path in METRICS:
        assert_error(client.get(url_of(client, path)), 401, "invalid_api_key")
        from_outside = {"Authorization": "Bearer a-token-for-prometheus", "X-Forwarded-For": "203.0.113.7"}
        assert client.get(url_of(client, path), headers=from_outside).status_code == 200


@pytest.mark.parametrize("prefix", ["", "/flower"])
def test_documented_proxies_hide_every_spelling(prefix: str) -> None:
    """nginx joins slashes and decodes the path before it compares, so these are the spellings that are left."""
    nginx = (ROOT / "deploy/proxy/nginx.conf").read_text()
    hidden = [re.compile(pattern) for pattern in re.findall(r"location ~ (\S+) \{ return 404; \}", nginx)]
    [caddy] = re.findall(r"@internal path (.+)", (ROOT / "deploy/proxy/Caddyfile").read_text())
    for path in ("/metrics", "/metrics/", "/metrics//"):
        assert any(pattern.search(prefix + path) for pattern in hidden), path
        assert any(fnmatch(prefix + path, pattern) for pattern in caddy.split()), path
    assert not any(pattern.search(path) for pattern in hidden for path in ("/v1/metrics", "/metricsx", "/console"))


# --- Origin and Host ---


@pytest.mark.parametrize("origin", ["http://[", "http://[x]", "https://]", "http://[::1"])
def test_unreadable_origin_returns_400(start_server: StartServer, engine: Engine, origin: str) -> None:
    client = start_server()
    key = {"Authorization": f"Bearer {engine.env['DREAMERY_ADMIN_KEY']}"}
    assert_error(client.post("/console/session", headers={**key, "Origin": origin}), 400, "invalid_http")
    assert client.post("/console/session", headers=key).status_code == 201
    for path in ("/v1/jobs", "/console/session", "/v1/jobs/events"):
        assert_error(client.get(path, headers={"Origin": origin}), 400, "invalid_http")


@pytest.mark.parametrize("host", ["[", "[x]", "a]:80", "[::1"])
def test_unreadable_host_returns_400(start_server: StartServer, engine: Engine, host: str) -> None:
    client = start_server()
    key = {"Authorization": f"Bearer {engine.env['DREAMERY_ADMIN_KEY']}"}
    for path in ("/v1/jobs", "/console", "/healthz", "/nowhere"):
        assert_error(client.get(path, headers={**key, "Host": host}), 400, "invalid_http")
    assert_error(client.post("/console/session", headers={**key, "Host": host}), 400, "invalid_http")
    assert client.get("/v1/jobs", headers={**key, "Host": "[::1]:8000"}).status_code == 200
