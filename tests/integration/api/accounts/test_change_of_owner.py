"""A retired account that somebody else adds again: the new owner sees and gets nothing that the former one set."""

from collections.abc import Iterator
from typing import Any

import pytest
from starlette.testclient import TestClient

from api.app import create_app
from tests.support.api_client import assert_error
from tests.support.engine import Engine
from worker.core.ids import parse_public_id

ADMIN = "/admin/v1/accounts"
OWN = "/v1/accounts"
PROXY = "http://user:secret@proxy.example:8080"
SETTINGS = {
    "label": "Anna's main account",
    "max_images": 7,
    "max_videos": 3,
    "max_jobs_per_day": 9,
    "submits_per_minute": 3,
    "daily_receive": False,
    "working_hours": {"days": ["mon"], "start": "08:00", "end": "09:00", "zone": "Asia/Shanghai"},
    "proxy": PROXY,
}


@pytest.fixture
def http(engine: Engine) -> Iterator[TestClient]:
    engine.configure(FETCH_ALLOW=f"{engine.env['DREAMERY_FETCH_ALLOW']},proxy.example:8080")
    with TestClient(create_app(), raise_server_exceptions=False) as client:
        engine.sql("DELETE FROM accounts")  # the demo account of the pool
        client.headers["Authorization"] = f"Bearer {engine.env['DREAMERY_ADMIN_KEY']}"
        yield client


@pytest.fixture
def members(http: TestClient) -> dict[str, dict[str, str]]:
    """Headers of two members."""
    keys = {}
    for name in ("anna", "ben"):
        assert http.post("/admin/v1/users", json={"name": name}).status_code == 201
        key = http.post("/admin/v1/keys", json={"user": name}).json()["key"]
        keys[name] = {"Authorization": f"Bearer {key}"}
    return keys


def add(http: TestClient, path: str, headers: dict[str, str] | None = None, token: str = "plain-moves-000001:sandbox",
        **fields: Any) -> dict[str, Any]:  # fmt: skip
    answer = http.post(path, json={"tokens": token, "check": False, **fields}, headers=headers)
    assert answer.status_code == 201, answer.text
    return dict(answer.json()["data"][0])


def set_and_retire(http: TestClient, account: dict[str, Any], path: str, headers: dict[str, str] | None) -> None:
    url = f"{path}/{account['id']}"
    changed = http.patch(url, json=SETTINGS, headers=headers)
    assert changed.status_code == 200, changed.text
    assert changed.json()["proxy"], "the settings are stored"
    assert http.delete(url, headers=headers).status_code == 200


def assert_untouched(account: dict[str, Any], fresh: dict[str, Any]) -> None:
    """Assert that the account shows the same settings as one that nobody had before."""
    for name in ("proxy", *SETTINGS.keys() - {"label", "proxy"}):
        assert account[name] == fresh[name], name
    assert account["label"].startswith("session-")
    for trace in ("Anna", "proxy.example", "Shanghai"):
        assert trace not in str(account)


@pytest.mark.parametrize(
    ("former", "new"), [("anna", "ben"), ("anna", None), (None, "ben")], ids=["member", "to-pool", "from-pool"]
)
def test_new_owner_gets_a_fresh_account(
    engine: Engine, http: TestClient, members: dict[str, dict[str, str]], former: str | None, new: str | None
) -> None:
    def path(owner: str | None) -> str:
        return OWN if owner else ADMIN

    first = add(http, path(former), members.get(former or ""))
    set_and_retire(http, first, path(former), members.get(former or ""))
    again = add(http, path(new), members.get(new or ""))
    assert (again["id"], again["outcome"]) == (first["id"], "returned")
    fresh = add(http, path(new), members.get(new or ""), token="plain-never-00001:sandbox")
    assert_untouched(again, fresh)
    [row] = engine.sql("SELECT proxy, proxy_hash FROM accounts WHERE label = :label", label=again["label"])
    assert (row.proxy, row.proxy_hash) == (None, None)


def test_former_owner_gets_the_settings_back(http: TestClient, members: dict[str, dict[str, str]]) -> None:
    first = add(http, OWN, members["anna"])
    set_and_retire(http, first, OWN, members["anna"])
    again = add(http, OWN, members["anna"])
    assert (again["label"], again["max_images"]) == (SETTINGS["label"], 7)
    assert again["proxy"]


def test_label_and_proxy_of_the_new_owner_apply(http: TestClient, members: dict[str, dict[str, str]]) -> None:
    first = add(http, OWN, members["anna"])
    set_and_retire(http, first, OWN, members["anna"])
    again = add(http, OWN, members["ben"], token=f"{PROXY}@plain-moves-000001:sandbox", label="Ben's")
    assert again["label"] == "Ben's"
    assert again["proxy"]


def test_session_id_as_key_does_not_show_the_label_of_its_owner(
    engine: Engine, http: TestClient, members: dict[str, dict[str, str]]
) -> None:
    add(http, OWN, members["anna"], label="Anna's main account")
    caller = {"Authorization": "Bearer plain-moves-000001:sandbox"}
    body = {"prompt": "a boat", "n": 1, "async": True}
    job = http.post("/v1/images/generations", json=body, headers=caller).json()["id"]
    row_id = parse_public_id("job", job)
    assert row_id is not None
    engine.run_until_final(row_id)
    timeline = http.get(f"/v1/jobs/{job}/timeline", headers=caller)
    events = http.get(f"/v1/jobs/{job}/events", params={"after": 0}, headers=caller)
    for answer in (timeline, events):
        assert answer.status_code == 200
        assert "Anna" not in answer.text
    assert "pool" in {one["account"] for one in timeline.json()["data"]}


# --- the sandbox in production ---

PRODUCTION = {
    "ENV": "production",
    "MASTER_KEY": "q8Zt0sJ1nVw4Xc7Lr2Hy6Kd9Gm3Bf5Pa",
    "ADMIN_KEY": "u7Re2Wn9Yk4Td1Vs6Qj3Xb8Zm5Lg0HcE",
}


def test_nobody_adds_sandbox_accounts_in_production(engine: Engine) -> None:
    engine.sql("DELETE FROM keyring")
    engine.configure(**PRODUCTION, DEFAULT_REGION="sandbox")
    admin = {"Authorization": f"Bearer {PRODUCTION['ADMIN_KEY']}"}
    with TestClient(create_app(), headers=admin) as http:
        http.post("/admin/v1/users", json={"name": "anna"})
        member = {"Authorization": f"Bearer {http.post('/admin/v1/keys', json={'user': 'anna'}).json()['key']}"}
        for token in ("x:sandbox", "plain-bare-0000001", "direct://@x:sandbox"):
            for path, headers in ((OWN, member), (ADMIN, admin)):
                refused = http.post(path, json={"tokens": token, "check": False}, headers=headers)
                assert "disabled in production" in assert_error(refused, 401, "invalid_api_key"), token
        real = add(http, OWN, member, token="plain-real-000001:cn")
        changed = http.patch(f"{OWN}/{real['id']}", json={"session": "x:sandbox"}, headers=member)
        assert_error(changed, 400, "invalid_value", "session")
        mixed = http.post(OWN, json={"tokens": "y:sandbox,plain-two-00001:cn", "check": False}, headers=member).json()
        assert [one["error"]["code"] for one in mixed["refused"]] == ["invalid_api_key"]
        assert {row.region for row in engine.sql("SELECT region FROM accounts")} == {"cn"}
