"""Accounts with keys of an official API: adding, fields of their own, closed models, keys as bearers."""

from typing import Any
from uuid import UUID

import pytest
from starlette.testclient import TestClient

from api.accounts.schemas import Account, AccountImportResult, ProviderList
from api.app import create_app
from tests.support.api_client import assert_error
from tests.support.engine import Engine
from worker.core.ids import parse_public_id

ADMIN = "/admin/v1/accounts"
OWN = "/v1/accounts"


def add(http: TestClient, key: str, path: str = ADMIN, **fields: Any) -> dict[str, Any]:
    headers = fields.pop("headers", None)
    answer = http.post(path, json={"tokens": key, "provider": "ark", "check": False, **fields}, headers=headers)
    assert answer.status_code == 201, answer.text
    AccountImportResult.model_validate(answer.json(), strict=True)
    return dict(answer.json())


def row_of(engine: Engine, account: dict[str, Any]) -> Any:
    found = parse_public_id("account", account["id"])
    assert isinstance(found, UUID)
    return engine.sql("SELECT * FROM accounts WHERE id = :id", id=found)[0]


@pytest.mark.parametrize(
    ("key", "fields", "region", "currency"),
    [
        ("0199-aa:bb.CC_dd", {"region": "cn"}, "cn", "CNY"),
        ("text=of+a/vendor", {"region": "intl"}, "intl", "USD"),
        ("us-looks-like-a-session", {"region": "intl"}, "intl", "USD"),
        ("k1:intl", {}, "intl", "USD"),
        ("k2", {"region": "https://ark.cn-beijing.volces.com/api/v3/"}, "cn", "CNY"),
        ("ark-demo:sandbox", {}, "sandbox", "USD"),
    ],
)
def test_key_is_added_as_it_is_and_never_shown(
    engine: Engine, http: TestClient, key: str, fields: dict[str, str], region: str, currency: str
) -> None:
    made = add(http, key, label="studio", **fields)
    [account] = made["data"]
    assert [account[name] for name in ("provider", "region", "currency", "label")] == [
        "ark",
        region,
        currency,
        "studio",
    ]
    assert made["warnings"] == []
    text = key.removesuffix(f":{region}")
    assert text not in str({name: value for name, value in account.items() if name != "label"})
    row = row_of(engine, account)
    assert text not in row.secret
    assert text not in row.lookup_hash
    again = http.post(ADMIN, json={"tokens": key, "provider": "ark", "check": False, **fields}).json()
    assert again["data"][0]["outcome"] == "duplicate"


def test_the_same_text_is_another_account_for_another_provider(http: TestClient) -> None:
    [key] = add(http, "sametext", region="cn")["data"]
    [session] = http.post(ADMIN, json={"tokens": "sametext:cn", "check": False}).json()["data"]
    assert key["id"] != session["id"]
    assert session["provider"] == "dreamina"
    assert session["key"] is None
    assert session["currency"] is None


def test_plan_address_is_warned_about_and_other_addresses_are_refused(http: TestClient) -> None:
    made = add(http, "k1", region="https://ark.cn-beijing.volces.com/api/plan/v3")
    assert made["data"][0]["region"] == "cn"
    assert "subscription plans" in made["warnings"][0]
    body = {"tokens": "k2", "provider": "ark", "check": False}
    europe = "https://ark.eu-west.bytepluses.com/api/v3"
    assert_error(http.post(ADMIN, json={**body, "region": europe}), 400, "invalid_value", param="region")
    assert_error(http.post(ADMIN, json={**body, "region": "us"}), 400, "invalid_value", param="region")
    assert "needs a region" in assert_error(http.post(ADMIN, json=body), 400, "invalid_value", param="tokens")
    spaced = {**body, "tokens": "k 2", "region": "cn"}  # a header could not carry it
    assert "a key has" in assert_error(http.post(ADMIN, json=spaced), 400, "invalid_value", param="tokens")
    assert_error(http.post(ADMIN, json={**body, "provider": "other"}), 400, "invalid_value", param="provider")


def test_names_of_models_and_the_limit_group(engine: Engine, http: TestClient, anna: dict[str, str]) -> None:
    ids = {"seedance-2.0": "ep-2026-abc", "doubao-seedream-5-0-pro-260628": "ep-pro"}
    [account] = add(http, "k1", region="cn", model_ids=ids, limit_group="studio")["data"]
    assert account["model_ids"] == {"seedance-2.0": "ep-2026-abc", "seedream-5.0-pro": "ep-pro"}
    assert account["limit_group"] == "studio"
    url = f"{ADMIN}/{account['id']}"
    changed = http.patch(url, json={"model_ids": None, "limit_group": None}).json()
    assert (changed["model_ids"], changed["limit_group"]) == ({}, None)
    wrong = http.patch(url, json={"model_ids": {"seedance-9": "x"}})
    assert_error(wrong, 400, "invalid_value", param="model_ids")
    assert "seedance-2.0" in wrong.json()["error"]["message"]

    [own] = add(http, "k2", OWN, region="cn", limit_group="studio", headers=anna)["data"]
    assert own["limit_group"] == "studio"
    limits = ("max_images", "max_videos", "submits_per_minute")
    assert [own[name] for name in limits] == [account[name] for name in limits] == [3, 3, 60]
    # A user's group never is the platform's: it could hold up the platform's accounts.
    assert row_of(engine, own).limit_group not in {None, "studio"}


def test_a_session_has_none_of_these_fields(http: TestClient) -> None:
    body = {"tokens": "sid:cn", "check": False}
    refused = http.post(ADMIN, json={**body, "limit_group": "studio"})
    assert_error(refused, 400, "unsupported_parameter", param="limit_group")
    [account] = http.post(ADMIN, json=body).json()["data"]
    refused = http.patch(f"{ADMIN}/{account['id']}", json={"model_ids": {"seedance-2.0": "ep-1"}})
    assert_error(refused, 400, "unsupported_parameter", param="model_ids")


def test_prices_of_one_customer_are_the_administrators(http: TestClient, anna: dict[str, str]) -> None:
    [account] = add(http, "k1", region="intl")["data"]
    url = f"{ADMIN}/{account['id']}"
    assert http.patch(url, json={"prices": {"*": {"factor": 0.8}}}).json()["prices"] == {"*": {"factor": 0.8}}
    assert_error(http.patch(url, json={"prices": {"*": {"factor": -1}}}), 400, "invalid_value", param="prices")
    assert http.patch(url, json={"prices": None}).json()["prices"] == {}
    [own] = add(http, "k2", OWN, region="intl", headers=anna)["data"]
    changed = http.patch(f"{OWN}/{own['id']}", json={"prices": {"*": {"factor": 0}}}, headers=anna)
    assert changed.json().get("prices", {}) == {}


def test_closed_model_is_shown_and_can_be_reopened(engine: Engine, http: TestClient) -> None:
    [account] = add(http, "k1", region="intl")["data"]
    engine.sql(
        """UPDATE accounts SET model_rests = '{"seedance-2.0": {"until": "Infinity", "code": "ModelNotOpen",
           "detail": "not activated", "at": 1800000000}, "seedance-2.5": {"until": 99999999999, "code": "QuotaExceeded"},
           "seedream-4.5": {"until": 1, "code": "ServerOverloaded"}}'"""
    )
    url = f"{ADMIN}/{account['id']}"
    shown = http.get(url).json()
    Account.model_validate(shown, strict=True)
    assert [(one["model"], one["code"], one["closed"], one["until"]) for one in shown["model_rests"]] == [
        ("seedance-2.0", "ModelNotOpen", True, None),
        ("seedance-2.5", "QuotaExceeded", False, 99999999999),
    ]
    assert shown["model_rests"][0]["detail"] == "not activated"
    left = http.patch(url, json={"reopen_models": ["seedance-2.0"]}).json()["model_rests"]
    assert [one["model"] for one in left] == ["seedance-2.5"]
    assert http.patch(url, json={"reopen_models": ["*"]}).json()["model_rests"] == []


def test_a_model_with_another_id_upstream_is_open_again(engine: Engine, http: TestClient) -> None:
    [account] = add(http, "k1", region="intl", model_ids={"seedance-2.0": "ep-typo", "seedance-2.5": "ep-good"})["data"]
    closed = '{"until": "Infinity", "code": "InvalidEndpointOrModel.NotFound", "detail": "", "at": 1800000000}'
    engine.sql(f"""UPDATE accounts SET model_rests = '{{"seedance-2.0": {closed}, "seedance-2.5": {closed}}}'""")
    url = f"{ADMIN}/{account['id']}"
    assert len(http.patch(url, json={"label": "another"}).json()["model_rests"]) == 2
    ids = {"seedance-2.0": "ep-right", "seedance-2.5": "ep-good"}
    left = http.patch(url, json={"model_ids": ids}).json()["model_rests"]
    assert [one["model"] for one in left] == ["seedance-2.5"]
    assert http.patch(url, json={"model_ids": {}}).json()["model_rests"] == []


def test_new_key_of_the_same_customer(engine: Engine, http: TestClient) -> None:
    [account] = add(http, "k1", region="intl")["data"]
    url = f"{ADMIN}/{account['id']}"
    before = row_of(engine, account)
    changed = http.patch(url, json={"session": "k1-rotated"}).json()
    assert (changed["id"], changed["region"], changed["provider"]) == (account["id"], "intl", "ark")
    assert row_of(engine, account).lookup_hash != before.lookup_hash
    [other] = add(http, "k2", region="intl")["data"]
    assert_error(
        http.patch(f"{ADMIN}/{other['id']}", json={"session": "k1-rotated"}), 409, "account_known", param="session"
    )


def test_providers_are_listed_for_forms(http: TestClient) -> None:
    answer = http.get(f"{OWN}/providers").json()
    ProviderList.model_validate(answer, strict=True)
    by_name = {one["name"]: one for one in answer["data"]}
    assert by_name["dreamina"]["credential"] == "session"
    assert by_name["ark"]["currencies"] == {"cn": "CNY", "intl": "USD", "sandbox": "USD"}
    assert "seedance-2.0" in by_name["ark"]["models"]


@pytest.mark.parametrize(
    ("bearer", "provider"), [("vendor-key-1", "ark"), ("vendor-key-2", "dreamina"), ("vendor-key-1:cn", "dreamina")]
)
def test_bearer_is_a_key_if_an_account_has_it(
    engine: Engine, http: TestClient, bearer: str, provider: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    [account] = add(http, "vendor-key-1", region="intl")["data"]
    seen: list[Any] = []

    async def note(_request: Any, _action: str, tokens: Any) -> list[Any]:
        seen.extend(tokens)
        return [{"points": None, "received": 0} for _ in tokens]

    monkeypatch.setattr("api.accounts.session_check_routes.run_checks", note)
    answer = http.post("/token/points", headers={"Authorization": f"Bearer {bearer}"})
    assert answer.status_code == 200, answer.text
    [(digest, token)] = seen
    assert token.provider == provider
    assert (digest == row_of(engine, account).lookup_hash) == (provider == "ark")


@pytest.mark.parametrize("token", ["demo:sandbox", "ark-demo:sandbox"])
def test_account_of_a_new_platform_can_be_added_by_name(engine: Engine, token: str) -> None:
    with TestClient(create_app()) as client:
        client.headers["Authorization"] = f"Bearer {engine.env['DREAMERY_ADMIN_KEY']}"
        body = {"tokens": token, "label": "studio", "check": False}
        body |= {"provider": "ark"} if token.startswith("ark") else {}
        [account] = client.post(ADMIN, json=body).json()["data"]
        assert (account["outcome"], account["label"]) == ("returned", "studio")
        assert client.post(ADMIN, json=body).json()["data"][0]["outcome"] == "duplicate"


def test_a_text_is_a_key_as_soon_as_an_account_has_it(
    engine: Engine, http: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    add(http, "another-key", region="intl")
    seen: list[str] = []

    async def note(_request: Any, _action: str, tokens: Any) -> list[Any]:
        seen.extend(token.provider for _, token in tokens)
        return [{"points": None, "received": 0} for _ in tokens]

    monkeypatch.setattr("api.accounts.session_check_routes.run_checks", note)
    headers = {"Authorization": "Bearer later-a-key"}
    for _ in range(2):
        http.post("/token/points", headers=headers)
    add(http, "later-a-key", region="cn")
    http.post("/token/points", headers=headers)
    assert seen == ["dreamina", "dreamina", "ark"]
    assert len(engine.sql("SELECT 1 FROM accounts")) == 2
