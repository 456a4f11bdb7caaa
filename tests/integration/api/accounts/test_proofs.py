"""The proof of an upstream with an account, step by step, against the sandbox's face of the official API."""

from typing import Any

import pytest
from starlette.testclient import TestClient

from api.accounts.proof_schemas import ProofStepResult
from tests.support.api_client import assert_error
from tests.support.engine import Engine
from tests.support.platform import eventually

pytestmark = pytest.mark.usefixtures("worker")  # it runs the steps

ADMIN = "/admin/v1/accounts"


def add(http: TestClient, key: str) -> str:
    body = {"tokens": key, "provider": "ark", "region": "sandbox", "check": False}
    return f"{ADMIN}/{http.post(ADMIN, json=body).json()['data'][0]['id']}"


def run(http: TestClient, url: str, step: str | None, known: dict[str, Any]) -> dict[str, Any]:
    answer = http.post(f"{url}/prove", json={"step": step, "known": known})
    assert answer.status_code == 200, answer.text
    result = dict(answer.json())
    if not result["done"]:
        eventually(lambda: http.get(f"{url}/prove/{result['id']}").json()["done"], seconds=60)
        result = http.get(f"{url}/prove/{result['id']}").json()
    ProofStepResult.model_validate(result, strict=True)
    return result


def test_all_steps_in_their_order(engine: Engine, http: TestClient) -> None:
    url = add(http, "ark-prove.1")
    listed = run(http, url, None, {})
    assert listed["currency"] == "USD"
    costs = {step["name"]: step["cost"] for step in listed["steps"]}
    assert [*costs][:2] == ["list", "models"]
    assert costs["list"] == costs["models"] == costs["many"] == costs["limits"] == costs["links"] == 0
    assert 0 < sum(costs.values()) <= 1000, "thousandths of a dollar"
    known: dict[str, Any] = {}
    unexpected = []
    for step in costs:
        result = run(http, url, step, known)
        known |= result["known"]
        assert result["findings"], step
        unexpected += [(step, one["text"]) for one in result["findings"] if one["ok"] is False]
    assert unexpected == []
    account = http.get(url).json()
    assert (account["key"]["scope"], account["key"]["echo_proved"]) == ("all", True)
    rows = engine.sql("SELECT details FROM audit_log WHERE action = 'account.prove'")
    assert {row.details["step"] for row in rows} >= set(costs)


def test_what_differs_is_a_finding(http: TestClient) -> None:
    url = add(http, "ark-noecho.1")
    found = run(http, url, "echo", {})["findings"]
    assert any(one["ok"] is False and "a list does not echo both keys" in one["text"] for one in found)
    assert http.get(url).json()["key"]["echo_proved"] is False
    dead = add(http, "ark-dead.1")
    assert "401 AuthenticationError" in run(http, dead, "list", {})["findings"][0]["text"]
    assert run(http, dead, "image", {})["findings"][0]["ok"] is False


def test_steps_need_an_account_that_has_any(http: TestClient) -> None:
    url = add(http, "ark-prove.2")
    assert_error(http.post(f"{url}/prove", json={"step": "everything"}), 400, "invalid_value")
    body = {"tokens": "plain-session-1:sandbox", "check": False}
    session = http.post(ADMIN, json=body).json()["data"][0]
    refused = http.post(f"{ADMIN}/{session['id']}/prove", json={})
    assert_error(refused, 400, "unsupported_operation")
    assert_error(http.get(f"{url}/prove/00000000000000000000000000000000"), 404, "account_not_found")


def test_an_administrator_spends_nothing_on_accounts_of_users(http: TestClient) -> None:
    assert http.post("/admin/v1/users", json={"name": "anna", "role": "member"}).status_code == 201
    body = {"tokens": "ark-hers.1", "provider": "ark", "region": "sandbox", "check": False, "user": "anna"}
    account = http.post(ADMIN, json=body).json()["data"][0]
    refused = http.post(f"{ADMIN}/{account['id']}/prove", json={"step": "image"})
    assert "belongs to another user" in assert_error(refused, 403, "forbidden")
