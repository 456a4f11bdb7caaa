"""`PROXY@TOKEN` from the request to the images, through real proxies: no call of the account bypasses its proxy."""

import logging
import socket
from collections.abc import Iterator
from typing import Any
from uuid import UUID

import pytest
import structlog
from starlette.testclient import TestClient

from api.app import create_app
from tests.integration.worker.tasks.test_converse import chat, run_converse
from tests.support.engine import GENERATE, HISTORY, MEDIA, USER_INFO, Engine
from tests.support.servers.proxies import PASSWORD, USER, Proxy, running_proxy
from worker.core.ids import parse_public_id


@pytest.fixture(params=["http", "socks5"])
def proxy(request: pytest.FixtureRequest, engine: Engine) -> Iterator[Proxy]:
    with running_proxy(request.param) as made:
        allow(engine, made)
        yield made


@pytest.fixture
def http(engine: Engine) -> Iterator[TestClient]:
    with TestClient(create_app(), raise_server_exceptions=False) as client:
        yield client


def allow(engine: Engine, *proxies: Proxy) -> None:
    places = [engine.env["DREAMERY_FETCH_ALLOW"], *(f"127.0.0.1:{proxy.port}" for proxy in proxies)]
    engine.configure(FETCH_ALLOW=",".join(places))


def order(http: TestClient, tokens: str, prompt: str = "a boat") -> UUID:
    body = {"prompt": prompt, "n": 1, "async": True}
    answer = http.post("/v1/images/generations", json=body, headers={"Authorization": f"Bearer {tokens}"})
    assert answer.status_code == 202, answer.text
    job_id = parse_public_id("job", answer.json()["id"])
    assert job_id is not None
    return job_id


def calls_of(engine: Engine, *proxies: Proxy) -> list[str]:
    """Return the calls that upstream received, without files; checks that each came from one of the proxies."""
    ports = {port for proxy in proxies for port in proxy.ports}
    calls = [(path, port) for path, port in engine.interceptor.callers if not path.startswith(MEDIA)]
    assert [path for path, port in calls if port not in ports] == [], "a call bypassed the proxy"
    return [path for path, _ in calls]


def test_order_uses_the_proxy_end_to_end(engine: Engine, http: TestClient, proxy: Proxy) -> None:
    job = order(http, f"{proxy.url}@plain-proxied-0001:sandbox")
    assert engine.run_until_final(job) == ["succeeded"]
    calls = calls_of(engine, proxy)
    assert any(GENERATE in path for path in calls)
    assert any(HISTORY in path for path in calls)
    assert engine.charge_count() == 1


def test_look_up_and_poll_after_a_move_use_the_proxy(engine: Engine, http: TestClient, proxy: Proxy) -> None:
    job = order(http, f"{proxy.url}@x-jp-proxied-look-up-1:auto")
    assert engine.run_until_final(job) == ["succeeded"]
    assert sum(USER_INFO in path for path in calls_of(engine, proxy)) >= 1
    row = engine.account_row(engine.job_row(job).account_id)
    assert row.cluster["country"] == "JP"


def test_conversation_streams_through_the_proxy(engine: Engine, http: TestClient, proxy: Proxy) -> None:
    job = order(http, f"{proxy.url}@plain-proxied-chat-1:sandbox")
    assert engine.run_until_final(job) == ["succeeded"]
    talk = chat(engine, engine.job_row(job).account_id)
    run_converse(engine, talk)
    assert engine.job_row(talk).state == "succeeded"
    assert any("conversation" in path for path in calls_of(engine, proxy))


def test_refusing_proxy_makes_no_call(engine: Engine, http: TestClient, proxy: Proxy) -> None:
    proxy.closed = True
    engine.configure(UPSTREAM_ORIGIN="", MAX_ATTEMPTS="2")  # https: the proxy is asked for a tunnel
    job = order(http, f"{proxy.url}@us-plain-proxied-0003")
    assert engine.run_until_final(job, each_round=engine.end_cooldowns) == ["failed"]
    assert engine.job_row(job).error_code == "proxy_unreachable"
    assert proxy.refused == 2
    assert not engine.interceptor.calls
    notes = [event.note.get("code") for event in engine.job_events(job)]
    assert notes.count("proxy_unreachable") == 3  # two refusals and the end


def test_dead_proxy_fails_over_to_the_next_account(engine: Engine, http: TestClient) -> None:
    with running_proxy("socks5") as dead:
        pass
    with running_proxy("http") as good:
        allow(engine, good, dead)
        tokens = f"{dead.url}@plain-way-closed-01:sandbox, {good.url}@plain-way-open-001:sandbox"
        job = order(http, tokens)
        accounts = {row.label: row.id for row in engine.sql("SELECT label, id FROM accounts WHERE NOT pool")}
        closed = next(i for i in accounts.values() if i == _account(engine, dead))
        engine.sql("UPDATE accounts SET last_submit_at = now() WHERE id <> :id", id=closed)  # it is tried first
        engine.submit(job)
        assert engine.job_row(job).state == "queued"
        engine.submit(job)
        assert engine.job_row(job).account_id != closed
        assert engine.run_until_final(job) == ["succeeded"]
        skipped = [event.note for event in engine.job_events(job) if event.note.get("code")]
        assert [note["code"] for note in skipped] == ["proxy_unreachable"]
        assert skipped[0]["account"] == engine.account_row(closed).label
        assert calls_of(engine, good)


def _account(engine: Engine, proxy: Proxy) -> UUID:
    """Return the account that uses this proxy."""
    from worker.core.security.encryption import lookup_hash

    [row] = engine.sql("SELECT id FROM accounts WHERE proxy_hash = :h", h=lookup_hash(f"proxy:{proxy.url}"))
    return row.id


def test_newest_proxy_is_used_and_bare_session_id_keeps_it(engine: Engine, http: TestClient) -> None:
    with running_proxy("http") as first, running_proxy("socks5") as second:
        allow(engine, first, second)
        session = "plain-changes-way-1:sandbox"
        running = order(http, f"{first.url}@{session}", prompt="a boat [[hang]]")
        engine.submit(running)
        account = engine.job_row(running).account_id
        assert len(first.targets) == 1
        calls_of(engine, first)
        engine.interceptor.clear()
        assert engine.run_until_final(order(http, f"{second.url}@{session}")) == ["succeeded"]
        assert calls_of(engine, second), "also for jobs that started with the old proxy"
        engine.interceptor.clear()
        assert engine.run_until_final(order(http, session)) == ["succeeded"]
        assert calls_of(engine, second), "a bare session id keeps the proxy"
        # One session is one account: it sees its jobs with any proxy.
        seen = http.get("/v1/jobs", headers={"Authorization": f"Bearer {session}"}).json()["data"]
        assert len(seen) == 3
        assert [row.id for row in engine.sql("SELECT id FROM accounts WHERE NOT pool")] == [account]
        engine.interceptor.clear()
        assert engine.run_until_final(order(http, f"direct://@{session}")) == ["succeeded"]
        assert engine.interceptor.callers
        assert not {port for _, port in engine.interceptor.callers} & (first.ports | second.ports)
        assert engine.account_row(account).proxy is None


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "10.1.2.3", "169.254.169.254", "2130706433", "0x7f.1"])
def test_private_proxy_is_refused_by_the_api(engine: Engine, http: TestClient, host: str) -> None:
    answer = http.post(
        "/v1/images/generations",
        json={"prompt": "a boat"},
        headers={"Authorization": f"Bearer http://{USER}:{PASSWORD}@{host}:8080@plain-private-0001:sandbox"},
    )
    assert answer.status_code == 401
    assert answer.json()["error"]["code"] == "invalid_api_key"
    assert "FETCH_ALLOW" in answer.json()["error"]["message"]
    assert PASSWORD not in answer.text
    assert not engine.sql("SELECT 1 FROM accounts WHERE NOT pool")


def test_host_name_of_a_private_proxy_is_refused_by_the_task(
    engine: Engine, http: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = socket.getaddrinfo

    def answers(host: str, port: int, *rest: Any, **more: Any) -> Any:
        return real("127.0.0.1" if host == "proxy.example" else host, port, *rest, **more)

    monkeypatch.setattr(socket, "getaddrinfo", answers)
    engine.configure(MAX_ATTEMPTS="1")
    with running_proxy("http") as proxy:
        address = f"http://{USER}:{PASSWORD}@proxy.example:{proxy.port}"
        job = order(http, f"{address}@plain-two-faced-01:sandbox")
        assert engine.run_until_final(job) == ["failed"]
        assert (engine.job_row(job).error_code, proxy.targets, proxy.refused) == ("proxy_unreachable", [], 0)
    assert not engine.interceptor.calls


def test_proxy_is_never_revealed(engine: Engine, http: TestClient, proxy: Proxy) -> None:
    lines: list[str] = []

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(record.getMessage() + str(record.exc_info) + str(record.__dict__))

    structlog.configure(
        processors=[structlog.processors.format_exc_info, structlog.processors.JSONRenderer()],
        wrapper_class=structlog.make_filtering_bound_logger(logging.DEBUG),
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=False,
    )
    root = logging.getLogger()
    root.addHandler(keep := Keep())
    root.setLevel(logging.DEBUG)
    token = f"{proxy.url}@plain-not-shown-001:sandbox"
    try:
        good = order(http, token)
        assert engine.run_until_final(good) == ["succeeded"]
        proxy.closed = True
        bad = order(http, token)
        for _ in range(4):
            engine.end_cooldowns()
            engine.submit(bad)
        auth = {"Authorization": f"Bearer {token}"}
        lines += [http.get(path, headers=auth).text for path in ("/v1/jobs", "/v1/models", "/nope")]
    finally:
        root.removeHandler(keep)
    assert len(lines) > 5
    for table in ("jobs", "job_events", "accounts", "account_checks", "files", "requests"):
        lines += [str(row) for row in engine.sql(f"SELECT to_jsonb(t)::text FROM {table} t")]
    lines += [str(raw) for name in ("fast", "bulk", "outbox") for raw in engine.redis.lrange(name, 0, -1)]
    for mark in (USER, PASSWORD, f":{proxy.port}@", "not-shown"):
        assert [line[:300] for line in lines if mark in line] == []
