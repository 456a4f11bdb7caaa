"""`/v1/keys`: people manage their own API keys, and no key makes, replaces or ends one that may do more than itself."""

import random
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from api.admin.schemas import NewOwnKey, OwnKeyList
from tests.support.api_client import ApiClient, assert_error, new_key


@pytest.fixture(scope="module")
def admin(api_platform) -> Iterator[ApiClient]:
    with ApiClient(api_platform, api_platform.admin_key) as client:
        yield client


@pytest.fixture
def person(admin) -> Iterator[Callable[..., ApiClient]]:
    """Makes keys of one new user; each is a caller."""
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


def test_a_key_is_made_used_replaced_and_revoked(admin, person):
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
    acts = admin.http.get("/admin/v1/audit", params={"action": "key", "limit": 200}).json()["data"]
    about = [act["action"] for act in acts if act["target"] in {made["id"], replaced["id"]}]
    assert about == ["key.revoke", "key.rotate", "key.make"]
    assert made["key"] not in str(acts)


def test_a_new_key_may_do_no_more_than_the_one_that_makes_it(person):
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
    # Nor does a member's key without limits of its own give what the role has not.
    assert_error(person().http.post("/v1/keys", json={"scopes": ["admin"]}), 403, "forbidden")


def test_a_narrow_key_does_not_touch_a_wider_one(person):
    wide, narrow = person(name="wide"), person(name="narrow", scopes=["generate", "read"])
    ids = {key["name"]: key["id"] for key in own(narrow)}
    assert_error(narrow.http.post(f"/v1/keys/{ids['wide']}/rotate"), 403, "forbidden")
    assert_error(narrow.http.delete(f"/v1/keys/{ids['wide']}"), 403, "forbidden")
    assert wide.http.delete(f"/v1/keys/{ids['narrow']}").status_code == 200
    assert_error(narrow.http.get("/v1/keys"), 401, "invalid_api_key")
    # The one they call with, they may end, whatever it is.
    assert wide.http.delete(f"/v1/keys/{ids['wide']}").status_code == 200
    assert_error(wide.http.get("/v1/keys"), 401, "invalid_api_key")


def test_strangers_readers_and_session_ids(admin, person):
    mine = person()
    (key,) = own(mine)
    for act in (admin.http.delete(f"/v1/keys/{key['id']}"), admin.http.post(f"/v1/keys/{key['id']}/rotate")):
        assert_error(act, 404, "key_not_found")
    assert_error(person(scopes=["read"]).http.post("/v1/keys", json={}), 403, "forbidden")
    assert_error(person(scopes=["generate"]).http.get("/v1/keys"), 403, "forbidden")
    with admin.as_caller(new_key()) as sessions:
        assert_error(sessions.http.get("/v1/keys"), 403, "forbidden")
        assert_error(sessions.http.post("/v1/keys", json={}), 403, "forbidden")


def test_a_key_with_a_budget_makes_no_others_and_signs_in_with_its_budget(admin, person):
    limited = person(name="limited", limits={"jobs_per_day": 1})
    assert_error(limited.http.post("/v1/keys", json={}), 403, "forbidden")
    origin = {"Origin": admin.platform.url}
    with httpx.Client(base_url=admin.platform.url, headers=origin, trust_env=False, timeout=60) as browser:
        session = browser.post("/console/session", headers={"Authorization": f"Bearer {limited.key}"}).json()
        token = {"X-CSRF-Token": session["csrf_token"]}
        (standing,) = [one for one in browser.get("/v1/usage").json()["limits"] if one["name"] == "jobs_per_day"]
        assert (standing["scope"], standing["hard"], standing["used"]) == ("key", 1, 0)
        body = {"prompt": "a boat", "n": 1, "async": True}
        assert browser.post("/v1/images/generations", json=body, headers=token).status_code == 202
        assert_error(browser.post("/v1/images/generations", json=body, headers=token), 429, "budget_exceeded")
    (own_key,) = own(limited)
    assert limited.http.post(f"/v1/keys/{own_key['id']}/rotate").status_code == 201
