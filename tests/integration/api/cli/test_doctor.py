"""`dreamery doctor` detects what operators meet (docs/operations.md, "What doctor says"): one test per row of the table."""

import http.server
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import ClassVar

import pytest
import redis as redis_library

from api.cli.operator import doctor
from api.cli.operator.findings import Finding
from tests.support.engine import Engine
from worker.db.platform import server_checks
from worker.messaging import heartbeat


def found(check: str) -> list[Finding]:
    return [finding for finding in doctor.run_checks() if finding.check == check]


def failed(check: str) -> Finding:
    """The only failure of a check."""
    [finding] = [each for each in found(check) if not each.ok]
    assert finding.hint, "it says what to do"
    return finding


@contextmanager
def silent_server() -> Iterator[int]:
    """Yield the port of a server that accepts connections and never says anything."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


@pytest.mark.timeout(180)
def test_database_that_answers_nothing(engine: Engine) -> None:
    with silent_server() as port:
        engine.configure(DATABASE_URL=f"postgresql://u:p@127.0.0.1:{port}/x?connect_timeout=2")
        finding = next(each for each in found("database") if not each.ok)
    assert "does not respond" in finding.detail


def test_other_master_key(engine: Engine) -> None:
    engine.add_account()
    engine.configure(MASTER_KEY="another long key that is not the one of this database")
    assert "does not match this database" in failed("master key").detail


def test_redis_behind_tls_with_an_unknown_certificate(engine: Engine) -> None:
    """A plain server is none with TLS; unknown certificates need a server with one: tests/ops/test_redis_tls.py."""
    engine.configure(REDIS_URL=engine.env["DREAMERY_REDIS_URL"].replace("redis://", "rediss://"))
    assert failed("redis").detail


def test_scheduler_that_is_silent(engine: Engine) -> None:
    engine.redis.hset(heartbeat._SEEN, "scheduler", str(time.time() - 3600))
    finding = failed("scheduler")
    assert "3600 s ago" in finding.detail or "3601 s ago" in finding.detail
    assert "dreamery run scheduler" in finding.hint


def test_database_that_is_read_only(engine: Engine) -> None:
    """As after a failover: each session reads only."""
    engine.configure(
        DATABASE_URL=f"{engine.env['DREAMERY_DATABASE_URL']}?options=-c%20default_transaction_read_only%3Don"
    )
    finding = next(each for each in found("database") if not each.ok)
    assert "read-only" in finding.detail
    assert "primary" in finding.detail


def test_redis_that_is_full(engine: Engine) -> None:
    with redis_library.Redis.from_url(engine.env["DREAMERY_REDIS_URL"]) as client:
        client.config_set("maxmemory", 1)
        try:
            finding = failed("redis")
        finally:
            client.config_set("maxmemory", 0)
    assert "memory" in finding.detail


def test_misspelled_setting_and_the_state_of_session_tokens(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DREAMERY_RETENTON_DAYS", "3")
    assert "did you mean DREAMERY_RETENTION_DAYS?" in failed("settings").detail
    engine.configure(SESSION_TOKENS="off")
    assert any("set DREAMERY_SESSION_TOKENS=on" in each.detail for each in found("settings"))


@pytest.mark.parametrize("name", ["tcp_user_timeout", "keepalives"])
def test_url_that_switches_a_limit_off(engine: Engine, name: str) -> None:
    engine.configure(DATABASE_URL=f"{engine.env['DREAMERY_DATABASE_URL']}?{name}=0")
    assert name in failed("database").detail


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("DATABASE_URL", "postgresql://u:a@b@db/x"),
        ("REDIS_URL", "127.0.0.1:6379"),
        ("STORAGE_URL", "s3:bucket"),
    ],
)
def test_urls_that_cannot_work(engine: Engine, monkeypatch: pytest.MonkeyPatch, setting: str, value: str) -> None:
    monkeypatch.setenv(f"DREAMERY_{setting}", value)
    doctor.get_settings.cache_clear()
    finding = failed(setting.partition("_")[0].lower())
    assert finding.detail.startswith(f"DREAMERY_{setting} cannot be used")


def test_connections_that_are_used_up(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_checks, "_FREE_SHARE", 1.0)
    finding = failed("database")
    assert "connections in use" in finding.detail
    assert "max_connections" in finding.hint


def test_worker_that_is_unresponsive(engine: Engine) -> None:
    heartbeat.record_heartbeat()
    heartbeat.publish_status("worker@somewhere", queues=["fast"], threads=4)
    ((field, raw),) = engine.redis.hgetall(heartbeat._WORKERS).items()
    engine.redis.hset(heartbeat._WORKERS, field, raw.replace(b'"heard":', b'"heard":0,"x":'))
    assert "(unresponsive)" in failed("workers").detail


def test_which_key_the_other_commands_use(engine: Engine) -> None:
    [finding] = found("commands")
    assert "the admin key of the settings" in finding.detail


class _Proxy(http.server.BaseHTTPRequestHandler):
    """A proxy that answers for another site, or shows metrics."""

    pages: ClassVar[dict[str, str]] = {}

    def do_GET(self) -> None:
        page = self.pages.get(self.path)
        self.send_response(404 if page is None else 200)
        self.end_headers()
        self.wfile.write((page or "").encode())

    def log_message(self, *_args: object) -> None:
        pass


@contextmanager
def proxy(pages: dict[str, str]) -> Iterator[str]:
    _Proxy.pages = pages
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Proxy)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


GOOD = {
    "/site/healthz": '{"status":"ok"}',
    "/site/docs": "page",
    "/site/docs/start.js": "script",
    "/site/openapi.json": "{}",
}


def test_proxy_that_works(engine: Engine) -> None:
    with proxy(GOOD) as url:
        engine.configure(PUBLIC_URL=f"{url}/site")
        assert [each.ok for each in found("public url")] == [True, True, True]


@pytest.mark.parametrize(
    ("pages", "words"),
    [
        ({**GOOD, "/site/healthz": "<html>another site</html>"}, "something else than the API"),
        ({name: page for name, page in GOOD.items() if name != "/site/docs/start.js"}, "/docs/start.js not found"),
        ({**GOOD, "/site/metrics//": "dreamery_up 1"}, "/metrics// is shown to everyone"),
    ],
)
def test_proxy_that_is_wrong(engine: Engine, pages: dict[str, str], words: str) -> None:
    with proxy(pages) as url:
        engine.configure(PUBLIC_URL=f"{url}/site")
        finding = failed("public url")
    assert words in finding.detail
    assert "deploy/proxy/nginx.conf" in finding.hint


def test_public_url_that_is_only_reached_from_outside(engine: Engine) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    engine.configure(PUBLIC_URL=f"http://127.0.0.1:{port}")
    [finding] = found("public url")
    assert finding.ok
    assert "cannot be reached from here" in finding.detail
