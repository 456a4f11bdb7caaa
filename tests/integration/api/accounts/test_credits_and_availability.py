"""What users see of their own accounts: what their jobs run on, credits over time, and claims of daily credits."""

from collections.abc import Callable
from typing import Any

import pytest
from starlette.testclient import TestClient

from api.accounts.schemas import AccountAfterClaim, AccountCredits, AvailableAccounts
from tests.support.api_client import assert_error
from tests.support.engine import Engine

ADMIN, OWN = "/admin/v1/accounts", "/v1/accounts"


def add(http: TestClient, tokens: str, path: str = ADMIN, headers: dict[str, str] | None = None, **fields: Any) -> Any:
    answer = http.post(path, json={"tokens": tokens, "check": False, **fields}, headers=headers)
    assert answer.status_code == 201, answer.text
    return answer.json()["data"][0]


def available(http: TestClient, headers: dict[str, str]) -> tuple[int, bool, bool]:
    answer = http.get(f"{OWN}/available", headers=headers).json()
    AvailableAccounts.model_validate(answer, strict=True)
    return answer["own"], answer["platform"], answer["sandbox_only"]


def test_availability_counts_what_the_user_may_use(http: TestClient, member: Callable[..., dict[str, str]]) -> None:
    anna, ben = member("anna"), member("ben", groups=["print"])
    assert available(http, anna) == (0, False, False)
    sandbox = add(http, "demo-of-all-000001:sandbox")
    assert available(http, anna) == (0, True, True)
    add(http, "us-own-of-anna-0001", OWN, anna)
    assert available(http, anna) == (1, True, False)
    assert available(http, ben) == (0, True, True), "accounts of others do not count"
    http.delete(f"{ADMIN}/{sandbox['id']}")
    add(http, "us-of-the-press-001", groups=["print"])
    assert available(http, anna) == (1, False, False), "she is not in that group"
    assert available(http, ben) == (0, True, False)


@pytest.mark.usefixtures("worker")
@pytest.mark.parametrize("path", [ADMIN, OWN])
def test_daily_credits_are_claimed_at_once(http: TestClient, member: Callable[..., dict[str, str]], path: str) -> None:
    headers = member("anna") if path == OWN else None
    one = add(http, f"gift-of-{'anna' if headers else 'all'}-00001:sandbox", path, headers)
    url = f"{path}/{one['id']}/receive"
    claimed = http.post(url, headers=headers).json()
    AccountAfterClaim.model_validate(claimed, strict=True)
    assert claimed["receive"] == {"gained": 60, "error": None}
    assert claimed["credits"] == 60
    assert http.post(url, headers=headers).json()["receive"] == {"gained": 0, "error": None}
    history = http.get(f"{path}/{one['id']}/credits", headers=headers).json()
    AccountCredits.model_validate(history, strict=True)
    assert [(row["how"], row["gained"]) for row in history["receives"]] == [("asked", 60)]
    entries = http.get("/admin/v1/audit").json()["data"]
    actions = [entry["action"] for entry in entries if entry["target"] == one["id"]]
    assert actions.count("account.receive") == 2


@pytest.mark.usefixtures("worker")
def test_claim_that_upstream_refuses_says_why(http: TestClient) -> None:
    one = add(http, "shark-receives-0001:sandbox")
    claimed = http.post(f"{ADMIN}/{one['id']}/receive").json()
    assert (claimed["receive"]["gained"], claimed["receive"]["error"]["code"]) == (0, "upstream_risk_control")
    key = add(http, "ark-no-credits-001", provider="ark", region="sandbox")
    claimed = http.post(f"{ADMIN}/{key['id']}/receive").json()
    assert (claimed["receive"]["gained"], claimed["receive"]["error"]["code"]) == (None, "unsupported_operation")


def test_own_account_of_another_user_is_not_found(http: TestClient, member: Callable[..., dict[str, str]]) -> None:
    anna, ben = member("anna"), member("ben")
    one = add(http, "us-own-of-anna-0002", OWN, anna)
    assert_error(http.post(f"{OWN}/{one['id']}/receive", headers=ben), 404, "account_not_found")
    assert_error(http.get(f"{OWN}/{one['id']}/credits", headers=ben), 404, "account_not_found")


@pytest.mark.usefixtures("worker")
def test_sandbox_stays_while_no_real_account_is_recognised(engine: Engine, http: TestClient) -> None:
    demo = engine.add_account(pool=True)
    one = add(http, "dead-mistyped-0001:cn", check=True)
    assert one["state"] == "needs_login"
    assert engine.account_row(demo).pool
    http.delete(f"{ADMIN}/{one['id']}")
    assert add(http, "plain-typed-well-1:cn", check=True)["state"] == "ok"
    assert not engine.account_row(demo).pool
    add(http, "dead-second-00001:cn", check=True)
    assert not engine.account_row(demo).pool, "a real account works"
