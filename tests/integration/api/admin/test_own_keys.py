"""`/v1/keys`: users manage their own API keys, and no key can manage a key with more rights."""

import random
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from api.admin.schemas import NewOwnKey, OwnKey, OwnKeyList
from tests.support.api_client import ApiClient, assert_error, new_key


@pytest.fixture(scope="module")
def admin(api_platform) -> Iterator[ApiClient]:
    with ApiClient(api_platform, api_platform.admin_key) as client:
        yield client


@pytest.fixture
def person(admin) -> Iterator[Callable[..., ApiClient]]:
    """Create keys of one new user; each is returned as a client."""
    name = f"user-{random.SystemRandom().randrange(10**12)}"
    assert admin.http.post("/admin/v1/users", json={"name": name}).status_code == 201
    faces: list[ApiClient] = []

    def make(**fields: Any) -> ApiClient:
        answer = admin.http.post("/admin/v1/keys", json={"user": name, **fields})
        assert answer.status_code == 201, answer.text
        faces.append(admin.as_caller(answer.json()["key"]))
        return faces[-1]

    yield make
    for client in faces:
        client.http.close()


def make(client: ApiClient, **fields: Any) -> dict[str, Any]:
    answer = client.http.post("/v1/keys", json=fields)
    assert answer.status_code == 201, answer.text
    NewOwnKey.model_validate(answer.json(), strict=True)
    return answer.json()


def own(client: ApiClient) -> list[dict[str, Any]]:
    answer = client.http.get("/v1/keys")
    OwnKeyList.model_validate(answer.json(), strict=True)
    return answer.json()["data"]


def status(client: ApiClient, key: str) -> int:
    with client.as_caller(key) as caller:
        return caller.http.get("/v1/jobs").status_code


def test_own_key_lifecycle(admin, person):
    mine = person()
    made = make(mine, name="laptop", scopes=["read", "generate"])
    with mine.as_caller(made["key"]) as laptop:
        assert laptop.generate_images("a boat", n=1).status_code == 200
        assert [key["current"] for key in own(laptop)] == [False, True]
    assert all("key" not in key for key in own(mine))
    replaced = mine.http.post(f"/v1/keys/{made['id']}/rotate", json={"grace_seconds": 0}).json()
    assert (status(mine, made["key"]), status(mine, replaced["key"])) == (401, 200)
    assert replaced["scopes"] == ["read", "generate"]
    assert mine.http.delete(f"/v1/keys/{replaced['id']}").json()["status"] == "revoked"
    assert status(mine, replaced["key"]) == 401
    assert_error(mine.http.post(f"/v1/keys/{replaced['id']}/rotate"), 404, "key_not_found")
    entries = admin.http.get("/admin/v1/audit", params={"action": "key", "limit": 200}).json()["data"]
    about = [entry["action"] for entry in entries if entry["target"] in {made["id"], replaced["id"]}]
    assert about == ["key.revoke", "key.rotate", "key.make"]
    assert made["key"] not in str(entries)


def test_new_key_has_at_most_the_rights_of_its_creator(person):
    soon = datetime.now(UTC) + timedelta(hours=1)
    narrow = person(scopes=["generate", "read"], models=["jimeng-4.0"], expires_at=soon.isoformat())
    like_it = make(narrow)
    assert (like_it["scopes"], like_it["models"]) == (["generate", "read"], ["jimeng-4.0"])
    assert abs(like_it["expires_at"] - soon.timestamp()) <= 1
    assert make(narrow, scopes=["read"])["scopes"] == ["read"]
    for fields, code, param in (
        ({"scopes": ["admin"]}, "forbidden", None),
        ({"scopes": ["read", "admin"]}, "forbidden", None),
        ({"models": ["jimeng-3.0"]}, "model_not_allowed", "model"),
        ({"expires_at": (soon + timedelta(days=1)).isoformat()}, "invalid_value", "expires_at"),
        ({"expires_at": "2020-01-01T00:00:00Z"}, "invalid_value", "expires_at"),
        ({"scopes": []}, "invalid_value", "scopes"),
    ):
        assert_error(narrow.http.post("/v1/keys", json=fields), 400 if code == "invalid_value" else 403, code, param)
    # A member's unrestricted key cannot exceed the role either.
    assert_error(person().http.post("/v1/keys", json={"scopes": ["admin"]}), 403, "forbidden")


def test_key_cannot_rotate_or_revoke_a_key_with_more_rights(person):
    wide, narrow = person(name="wide"), person(name="narrow", scopes=["generate", "read"])
    ids = {key["name"]: key["id"] for key in own(narrow)}
    assert_error(narrow.http.post(f"/v1/keys/{ids['wide']}/rotate"), 403, "forbidden")
    assert_error(narrow.http.delete(f"/v1/keys/{ids['wide']}"), 403, "forbidden")
    assert wide.http.delete(f"/v1/keys/{ids['narrow']}").status_code == 200
    assert_error(narrow.http.get("/v1/keys"), 401, "invalid_api_key")
    # The key used for the request can always be revoked.
    assert wide.http.delete(f"/v1/keys/{ids['wide']}").status_code == 200
    assert_error(wide.http.get("/v1/keys"), 401, "invalid_api_key")


def test_other_users_readers_and_session_ids_are_rejected(admin, person):
    mine = person()
    (key,) = own(mine)
    for response in (admin.http.delete(f"/v1/keys/{key['id']}"), admin.http.post(f"/v1/keys/{key['id']}/rotate")):
        assert_error(response, 404, "key_not_found")
    assert_error(person(scopes=["read"]).http.post("/v1/keys", json={}), 403, "forbidden")
    assert_error(person(scopes=["generate"]).http.get("/v1/keys"), 403, "forbidden")
    with admin.as_caller(new_key()) as sessions:
        assert_error(sessions.http.get("/v1/keys"), 403, "forbidden")
        assert_error(sessions.http.post("/v1/keys", json={}), 403, "forbidden")


def test_limited_key_cannot_create_keys_and_its_limits_apply_in_the_console(admin, person):
    limited = person(name="limited", limits={"jobs_per_day": 1})
    assert_error(limited.http.post("/v1/keys", json={}), 403, "forbidden")
    origin = {"Origin": admin.platform.url}
    with httpx.Client(base_url=admin.platform.url, headers=origin, trust_env=False, timeout=60) as browser:
        session = browser.post("/console/session", headers={"Authorization": f"Bearer {limited.key}"}).json()
        token = {"X-CSRF-Token": session["csrf_token"]}
        (limit,) = [one for one in browser.get("/v1/usage").json()["limits"] if one["name"] == "jobs_per_day"]
        assert (limit["scope"], limit["hard"], limit["used"]) == ("key", 1, 0)
        body = {"prompt": "a boat", "n": 1, "async": True}
        assert browser.post("/v1/images/generations", json=body, headers=token).status_code == 202
        assert_error(browser.post("/v1/images/generations", json=body, headers=token), 429, "budget_exceeded")
    (own_key,) = own(limited)
    assert limited.http.post(f"/v1/keys/{own_key['id']}/rotate").status_code == 201


def test_own_key_is_changed_within_the_rights_of_the_calling_key(admin, person):
    mine = person(name="wide")
    made = make(mine, name="laptop")
    with admin.as_caller(made["key"]) as laptop:
        path = f"/v1/keys/{made['id']}"
        changed = mine.http.patch(path, json={"name": "desk", "providers": ["ark"]})
        OwnKey.model_validate(changed.json(), strict=True)
        assert (changed.json()["name"], changed.json()["providers"], changed.json()["current"]) == (
            "desk", ["ark"], False
        )  # fmt: skip
        assert {one["provider"] for one in laptop.http.get("/v1/models").json()["data"]} == {"ark"}
        # It cannot widen itself, nor another key, but can be made narrower.
        assert_error(laptop.http.patch(path, json={"providers": None}), 403, "forbidden")
        assert_error(laptop.http.patch(path, json={"providers": ["ark", "dreamina"]}), 403, "forbidden")
        wide_id = next(key["id"] for key in own(mine) if key["current"])
        assert_error(laptop.http.patch(f"/v1/keys/{wide_id}", json={"name": "mine now"}), 403, "forbidden")
        assert laptop.http.patch(path, json={"account_groups": ["night"]}).json()["account_groups"] == ["night"]
        assert_error(laptop.http.patch(path, json={"account_groups": None}), 403, "forbidden")
        assert_error(laptop.http.patch(path, json={"account_groups": ["night", "day"]}), 403, "forbidden")
        assert [key["providers"] for key in own(mine)] == [None, ["ark"]], "a refused change changes nothing"
    assert mine.http.patch(path, json={"providers": None, "account_groups": None}).json()["providers"] is None
    assert_error(mine.http.patch(path, json={"providers": ["nobody"]}), 400, "invalid_value", "providers")
    assert_error(mine.http.patch(path, json={"accounts": ["nobody"]}), 404, "account_not_found", "accounts")
    assert_error(admin.http.patch(path, json={"name": "theirs"}), 404, "key_not_found")
    entries = admin.http.get("/admin/v1/audit", params={"action": "key", "limit": 200}).json()["data"]
    assert [one["action"] for one in entries if one["target"] == made["id"]].count("key.change") == 3
