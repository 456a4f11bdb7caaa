"""The free check of keys: what it learns, what refusals mean for the account, its customer and its models."""

from collections.abc import Callable
from typing import Any

import pytest
from starlette.testclient import TestClient

from api.accounts.schemas import AccountImportResult, CheckedAccount
from tests.support.engine import Engine
from worker.tasks.refresh_accounts import refresh_accounts

ADMIN = "/admin/v1/accounts"


@pytest.fixture
def add(http: TestClient, worker: Callable[..., None]) -> Callable[..., dict[str, Any]]:
    del worker  # it answers the checks

    def make(key: str, **fields: Any) -> dict[str, Any]:
        answer = http.post(ADMIN, json={"tokens": key, "provider": "ark", "region": "sandbox", **fields})
        assert answer.status_code == 201, answer.text
        AccountImportResult.model_validate(answer.json(), strict=True)
        return dict(answer.json()["data"][0])

    return make


def test_check_of_a_good_key(http: TestClient, add: Callable[..., dict[str, Any]]) -> None:
    account = add("ark-good.1")
    assert account["check"] == {
        "done": True, "live": True, "credits": None, "region": "sandbox", "models": None, "error": None,
    }  # fmt: skip
    assert account["state"] == "ok"
    key = account["key"]
    assert (key["scope"], key["tasks"], key["echo_proved"]) == ("all", 0, False)
    assert {"seedance-2.0", "seedream-5.0-pro"} <= set(key["models"])
    assert key["checked_at"] is not None
    checked = http.post(f"{ADMIN}/{account['id']}/check").json()
    CheckedAccount.model_validate(checked, strict=True)
    assert checked["check"]["live"] is True


@pytest.mark.parametrize(
    ("key", "live", "state", "code", "words"),
    [
        ("ark-dead.1", False, "needs_login", "accounts_need_login", "does not accept this API key"),
        ("ark-overdue.1", True, "blocked", "insufficient_quota", "overdue balance"),
    ],
)
def test_refused_key_stops_its_account_at_once(
    add: Callable[..., dict[str, Any]], key: str, live: bool, state: str, code: str, words: str
) -> None:
    account = add(key)
    check = account["check"]
    assert (check["done"], check["live"], check["error"]["code"]) == (True, live, code)
    assert words in check["error"]["message"]
    assert key not in str(check)
    assert (account["state"], account["state_code"], account["check_code"]) == (state, code, code)


def test_limited_key_is_known_as_such(add: Callable[..., dict[str, Any]]) -> None:
    account = add("ark-custom.1", model_ids={"seedance-2.0": "ep-seedance-2-0-260128"})
    assert account["check"]["live"] is True
    assert (account["state"], account["key"]["scope"], account["key"]["tasks"]) == ("ok", "custom", 0)
    assert account["key"]["models"]
    other = add("ark-custom.2")
    assert (other["key"]["scope"], other["key"]["tasks"]) == ("custom", None)


def test_debts_stop_all_accounts_of_the_customer_until_they_are_paid(
    engine: Engine, http: TestClient, add: Callable[..., dict[str, Any]]
) -> None:
    one = add("ark-fine.1", limit_group="studio")
    alone = add("ark-fine.2")
    indebted = add("ark-overdue.3", limit_group="studio")
    states = {item["id"]: item["state"] for item in http.get(ADMIN).json()["data"]}
    assert states == {one["id"]: "blocked", alone["id"]: "ok", indebted["id"]: "blocked"}
    [row] = engine.sql("SELECT min(refresh_due_at - clock_timestamp()) AS due FROM accounts WHERE state = 'blocked'")
    assert 3000 < row.due.total_seconds() <= 3600
    engine.sql("UPDATE accounts SET refresh_due_at = clock_timestamp()")
    refresh_accounts()
    # The key that is fine works again, the other one is still refused, which stops both again: it is one customer.
    checked = http.post(f"{ADMIN}/{one['id']}/check").json()
    assert (checked["state"], checked["state_code"], checked["check"]["live"]) == ("ok", None, True)


def test_new_key_ends_the_need_of_one(http: TestClient, add: Callable[..., dict[str, Any]]) -> None:
    account = add("ark-dead.1")
    url = f"{ADMIN}/{account['id']}"
    assert http.patch(url, json={"session": "ark-new.1"}).json()["state"] == "ok"
    assert http.post(f"{url}/check").json()["check"]["live"] is True


def test_blocked_session_is_not_freed_by_a_check(engine: Engine, http: TestClient, worker: Callable[..., None]) -> None:
    del worker
    answer = http.post(ADMIN, json={"tokens": "plain-session-0001:sandbox"}).json()
    account = answer["data"][0]
    engine.sql("UPDATE accounts SET state = 'blocked', state_code = 'upstream_risk_control'")
    assert http.post(f"{ADMIN}/{account['id']}/check").json()["state"] == "blocked"


def test_a_key_as_bearer_can_be_checked(http: TestClient, worker: Callable[..., None]) -> None:
    del worker
    assert http.post("/token/check", json={"token": "ark-good.9:sandbox"}).json() == {"live": True}
    assert http.post("/token/check", json={"token": "ark-dead.9:sandbox"}).json() == {"live": False}
    [entry] = http.post("/token/points", headers={"Authorization": "Bearer ark-good.9:sandbox"}).json()
    assert entry["points"] is None
    assert entry["error"]["code"] == "unsupported_operation"
