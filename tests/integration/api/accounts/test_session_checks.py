"""`/token/check`, `points` and `receive` over HTTP, answered by the task with the real sandbox."""

from collections.abc import Iterator
from typing import Any

import pytest
from starlette.responses import Response
from starlette.testclient import TestClient

from api.accounts import session_checks as accounts_session_checks
from api.app import create_app
from tests.support.api_client import assert_error
from tests.support.engine import Engine
from tests.support.servers.proxies import running_proxy
from worker.db.accounts import session_checks
from worker.db.engine import transaction
from worker.tasks.check_session import check
from worker.tasks.cleanup import clean_up

POINTS = {"giftCredit", "purchaseCredit", "vipCredit", "totalCredit"}


@pytest.fixture
def http(engine: Engine) -> Iterator[TestClient]:
    with TestClient(create_app(), raise_server_exceptions=False) as client:
        yield client


def post_tokens(http: TestClient, action: str, tokens: str) -> Any:
    return http.post(f"/token/{action}", headers={"Authorization": f"Bearer {tokens}"})


def count_unowned_accounts(engine: Engine) -> int:
    return len(engine.sql("SELECT 1 FROM accounts WHERE NOT pool"))


@pytest.mark.usefixtures("worker")
@pytest.mark.parametrize(
    ("token", "live"),
    [
        ("plain-check-000001:sandbox", True),
        ("dead-check-0000001:sandbox", False),
        ("broke-check-000001:sandbox", True),
        ("limited-check-0001:sandbox", True),
        ("us-checkable-00001", True),
        ("dead-of-the-us-001:us", False),
        ("x-jp-looked-up-001:auto", True),
        ("dead-looked-up-001:auto", False),
    ],
)
def test_check_reports_whether_the_session_is_valid(
    engine: Engine, http: TestClient, token: str, *, live: bool
) -> None:
    answer = http.post("/token/check", json={"token": token})
    assert (answer.status_code, answer.json()) == (200, {"live": live})
    assert count_unowned_accounts(engine) == 0, "no account row"
    [row] = engine.sql("SELECT * FROM account_checks")
    assert (row.state, row.secret, row.proxy) == ("succeeded", "", None)


@pytest.mark.usefixtures("worker")
def test_points_returns_results_in_order_with_masked_tokens(engine: Engine, http: TestClient) -> None:
    tokens = ["plain-points-00001:sandbox", "dead-points-000001:sandbox", "us-plain-points-0002"]
    answer = post_tokens(http, "points", " , ".join(tokens))
    assert answer.status_code == 200
    good, dead, us = answer.json()
    assert [entry["token"] for entry in (good, dead, us)] == [
        "plai****0001:sandbox", "dead****0001:sandbox", "plai****0002:us",
    ]  # fmt: skip
    for entry in (good, us):
        assert set(entry) == {"token", "points"}
        assert set(entry["points"]) == POINTS
        assert entry["points"]["totalCredit"] == sum(entry["points"].values()) / 2 > 0
    assert set(dead) == {"token", "points", "error"}
    assert dead["points"] is None
    assert (dead["error"]["code"], dead["error"]["type"]) == ("upstream_session_expired", "authentication_error")
    assert not any(token.partition(":")[0] in answer.text for token in tokens)
    assert count_unowned_accounts(engine) == 0


@pytest.mark.usefixtures("worker")
def test_receive_claims_the_daily_credits_once(engine: Engine, http: TestClient) -> None:
    tokens = "gift-of-today-0001:sandbox,plain-no-more-0001:sandbox,shark-receives-001:sandbox"
    claimed, plain, risk_controlled = post_tokens(http, "receive", tokens).json()
    assert (claimed["received"], claimed["points"]["giftCredit"]) == (60, 60)
    assert claimed["credits"] == claimed["points"]
    assert plain["received"] == 0
    assert set(plain) == {"token", "points", "credits", "received"}
    # The claim is refused, but the remaining credits are still reported.
    assert (risk_controlled["received"], risk_controlled["error"]["code"]) == (0, "upstream_risk_control")
    assert risk_controlled["points"]["totalCredit"] > 0
    [again, *_] = post_tokens(http, "receive", tokens).json()
    assert (again["received"], again["points"]["giftCredit"]) == (0, 60)


@pytest.mark.usefixtures("worker")
def test_points_updates_a_known_account(engine: Engine, http: TestClient) -> None:
    account = engine.add_account(session="plain-known-000001")
    engine.sql(
        """UPDATE accounts SET rest_until = now() + interval '5 minutes', rest_code = 'upstream_session_expired'
           WHERE id = :id""",
        id=account,
    )
    [entry] = post_tokens(http, "points", "plain-known-000001:sandbox").json()
    row = engine.account_row(account)
    assert row.credits == entry["points"]["totalCredit"]
    assert (row.rest_until, row.rest_code) == (None, None)


@pytest.mark.usefixtures("worker")
def test_check_uses_the_proxy_of_the_token(engine: Engine, http: TestClient) -> None:
    with running_proxy("socks5") as proxy:
        engine.configure(FETCH_ALLOW=f"127.0.0.1:{proxy.port}")
        answer = http.post("/token/check", json={"token": f"{proxy.url}@plain-by-proxy-001:sandbox"})
        assert answer.json() == {"live": True}
        assert proxy.ports == {port for _, port in engine.interceptor.callers}
        proxy.closed = True
        engine.configure()  # new connections
        answer = http.post("/token/check", json={"token": f"{proxy.url}@plain-by-proxy-002:sandbox"})
        assert_error(answer, 502, "proxy_unreachable")
        [entry] = post_tokens(http, "points", f"{proxy.url}@plain-by-proxy-002:sandbox").json()
        assert entry["error"]["code"] == "proxy_unreachable"
        assert proxy.ports == {port for _, port in engine.interceptor.callers}


@pytest.mark.usefixtures("worker")
def test_unreachable_upstream_does_not_mark_the_session_invalid(engine: Engine, http: TestClient) -> None:
    engine.interceptor.before["/user_credit"] = lambda _path, _body: Response(status_code=502)
    assert_error(http.post("/token/check", json={"token": "plain-away-0000001:sandbox"}), 502, "upstream_unreachable")


@pytest.mark.usefixtures("worker")
def test_moved_session_is_located_again(engine: Engine, http: TestClient) -> None:
    account = engine.add_account(session="x-hk-moved-check-01", region="auto")
    engine.sql(
        """UPDATE accounts SET cluster_at = now(), cluster = '{"country": "US", "idc": "useast5",
           "mweb": "https://dreamina-api.us.capcut.com", "commerce": "https://commerce.us.capcut.com"}'
           WHERE id = :id""",
        id=account,
    )
    answer = http.post("/token/check", json={"token": "x-hk-moved-check-01:auto"})
    assert answer.json() == {"live": True}
    assert engine.account_row(account).cluster["country"] == "HK"
    calls = [path.rpartition("/")[2] for path in engine.interceptor.calls]
    assert calls.count("user_credit") == 2
    assert 1 <= calls.count("user_info") <= 4, "the first probe that succeeds ends the look-up"


def test_check_without_worker_times_out(engine: Engine, http: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accounts_session_checks, "WAIT_SECONDS", 0.5)
    monkeypatch.setattr(accounts_session_checks, "_ENQUEUE_AGAIN_SECONDS", 0.1)
    message = assert_error(
        http.post("/token/check", json={"token": "plain-alone-000001:sandbox"}), 504, "check_timeout"
    )
    assert "worker" in message
    assert_error(post_tokens(http, "points", "plain-alone-000001:sandbox"), 504, "check_timeout")
    assert len(engine.take_messages("dreamery.check")) > 2, "enqueued again, because a message may be lost"
    chinese = http.post(
        "/token/check", json={"token": "plain-alone-000001:sandbox"}, headers={"Accept-Language": "zh-CN"}
    )
    assert "账号检查" in chinese.json()["error"]["message"]


def test_check_runs_once_and_only_before_it_expires(engine: Engine, http: TestClient, monkeypatch) -> None:
    monkeypatch.setattr(accounts_session_checks, "WAIT_SECONDS", 0.1)
    for _ in range(2):
        http.post("/token/check", json={"token": "plain-once-0000001:sandbox"})
    first, late = (row.id for row in engine.sql("SELECT id FROM account_checks ORDER BY id"))
    assert check(check_id=first).startswith("answered")
    assert check(check_id=first) == "nothing to check"
    engine.sql("UPDATE account_checks SET created_at = now() - interval '31 seconds' WHERE id = :id", id=late)
    assert check(check_id=late) == "nothing to check"
    assert len(engine.interceptor.calls) == 1
    engine.sql("UPDATE account_checks SET created_at = now() - interval '6 minutes' WHERE id = :id", id=late)
    clean_up()
    assert [row.id for row in engine.sql("SELECT id FROM account_checks")] == [first]


def test_open_checks_are_limited(engine: Engine, http: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accounts_session_checks, "WAIT_SECONDS", 0.1)
    many = ",".join(f"plain-bounded-{n:04}:sandbox" for n in range(100))
    for _ in range(2):
        assert_error(post_tokens(http, "points", many), 504, "check_timeout")
    refused = post_tokens(http, "points", "plain-bounded-0000:sandbox")
    assert_error(refused, 429, "queue_full")
    assert refused.headers["retry-after"] == "30"
    assert len(engine.sql("SELECT 1 FROM account_checks")) == 200
    with transaction() as tx:
        assert session_checks.count_open(tx, "address:other") == (0, 200)


def test_invalid_credentials_and_bodies_are_rejected(engine: Engine, http: TestClient) -> None:
    key = engine.env["DREAMERY_ADMIN_KEY"]
    assert "session ids" in assert_error(post_tokens(http, "points", key), 400, "invalid_value", "Authorization")
    assert_error(http.post("/token/receive"), 401, "missing_api_key")
    assert_error(http.post("/token/check", json={}), 400, "missing_required_parameter", "token")
    assert_error(http.post("/token/check", json={"token": "a b"}), 400, "invalid_value", "token")
    assert_error(http.post("/token/check", json={"token": "a:sandbox,b:sandbox"}), 400, "invalid_value", "token")
    assert_error(http.post("/token/check", json={"token": 5}), 400, "invalid_value", "token")
    engine.configure(SESSION_TOKENS="false")
    assert_error(http.post("/token/check", json={"token": "plain:sandbox"}), 401, "missing_api_key")
    assert_error(post_tokens(http, "points", "plain:sandbox"), 401, "invalid_api_key")
    assert not engine.sql("SELECT 1 FROM account_checks")


@pytest.mark.usefixtures("worker")
def test_api_key_is_required_when_session_ids_are_disabled(engine: Engine, http: TestClient) -> None:
    engine.configure(SESSION_TOKENS="false")
    auth = {"Authorization": f"Bearer {engine.env['DREAMERY_ADMIN_KEY']}"}
    answer = http.post("/token/check", json={"token": "plain-checked-0001:sandbox"}, headers=auth)
    assert answer.json() == {"live": True}


def test_ping(http: TestClient) -> None:
    assert http.get("/ping").text == "pong"
