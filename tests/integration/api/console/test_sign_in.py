"""Sign-in to the console without a key: passwords, one-time invitations, and the list of a user's sessions."""

import random
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import httpx
import psycopg
import pytest

from tests.support.api_client import ApiClient, assert_error

PASSWORD = "several words together"
OTHER_PASSWORD = "other words together"


@pytest.fixture(scope="module")
def admin(api_platform: Any) -> Iterator[ApiClient]:
    with ApiClient(api_platform, api_platform.admin_key) as caller:
        yield caller


@pytest.fixture
def name(admin: ApiClient) -> str:
    name = f"person-{random.SystemRandom().randrange(10**12)}"
    assert admin.http.post("/admin/v1/users", json={"name": name}).status_code == 201
    return name


@contextmanager
def browser(caller: ApiClient, agent: str = "Firefox") -> Iterator[httpx.Client]:
    """A client with cookies and an address of its own, because failed sign-ins of an address count together."""
    headers, last = {"User-Agent": agent}, [random.SystemRandom().randrange(1, 255) for _ in range(3)]
    own = httpx.HTTPTransport(local_address=f"127.{last[0]}.{last[1]}.{last[2]}")
    with httpx.Client(base_url=caller.platform.url, headers=headers, timeout=60, transport=own) as client:
        yield client


def invite(admin: ApiClient, name: str, **body: Any) -> str:
    """Return the secret of a new invitation."""
    answer = admin.http.post(f"/admin/v1/users/{name}/invitations", json=body)
    assert answer.status_code == 201, answer.text
    link = answer.json()["url"]
    assert link.startswith(f"{admin.platform.url}/console/invitation#")
    return str(link.partition("#")[2])


def signed_in(client: httpx.Client, path: str, **body: Any) -> dict[str, Any]:
    answer = client.post(f"/console/session/{path}", json=body)
    assert answer.status_code == 201, answer.text
    client.headers["X-CSRF-Token"] = answer.json()["csrf_token"]
    return dict(answer.json())


def methods(admin: ApiClient, name: str) -> dict[str, Any]:
    return dict(admin.http.get(f"/admin/v1/users/{name}/sign-in").json())


def test_invitation_signs_in_once_and_sets_the_password(admin: ApiClient, name: str) -> None:
    token = invite(admin, name)
    assert methods(admin, name)["invitation_expires_at"] is not None
    with browser(admin) as client:
        looked = client.post("/console/session/invitation/look", json={"token": token}).json()
        assert (looked["user"], looked["state"]) == (name, "open")
        session = signed_in(client, "invitation", token=token, password=PASSWORD)
        assert (session["user"], session["role"]) == (name, "member")
        assert client.get("/v1/jobs").status_code == 200
        cookies = [cookie for cookie in client.cookies.jar if cookie.name == "dreamery_session"]
        assert cookies[0].expires is not None, "the browser keeps the session"
        own = client.get("/v1/keys").json()["data"]
        assert own == [], "the key that holds the sessions is not one of the user's keys"
    with browser(admin) as second:
        assert_error(
            second.post("/console/session/invitation", json={"token": token}), 410, "invitation_invalid", "token"
        )
        assert second.post("/console/session/invitation/look", json={"token": token}).json()["state"] == "used"
        assert signed_in(second, "password", name=name, password=PASSWORD)["user"] == name
        (cookie,) = [cookie for cookie in second.cookies.jar if cookie.name == "dreamery_session"]
        assert cookie.expires is None, "the session ends with the browser"
    assert methods(admin, name)["password"] is True


def test_of_many_uses_at_once_one_succeeds(admin: ApiClient, name: str) -> None:
    token = invite(admin, name)

    def use(_: int) -> int:
        with browser(admin) as client:
            return client.post("/console/session/invitation", json={"token": token}).status_code

    with ThreadPoolExecutor(6) as pool:
        assert sorted(pool.map(use, range(6))) == [201, 410, 410, 410, 410, 410]


def test_a_refused_password_does_not_use_the_invitation(admin: ApiClient, name: str) -> None:
    token = invite(admin, name)
    with browser(admin) as client:
        for weak in ("short", "aaaaaaaaaaaaaa", name):
            body = {"token": token, "password": weak}
            assert_error(client.post("/console/session/invitation", json=body), 400, "weak_password", "password")
        signed_in(client, "invitation", token=token)


def test_a_new_invitation_replaces_the_old_one_and_can_be_withdrawn(admin: ApiClient, name: str) -> None:
    first, second = invite(admin, name), invite(admin, name, hours=1)
    with browser(admin) as client:
        assert_error(
            client.post("/console/session/invitation", json={"token": first}), 410, "invitation_invalid", "token"
        )
        assert admin.http.delete(f"/admin/v1/users/{name}/invitations").json()["invitation_expires_at"] is None
        assert_error(
            client.post("/console/session/invitation", json={"token": second}), 410, "invitation_invalid", "token"
        )


def test_an_expired_invitation_and_one_of_a_disabled_user(admin: ApiClient, name: str) -> None:
    token = invite(admin, name)
    with browser(admin) as client:
        admin.http.patch(f"/admin/v1/users/{name}", json={"disabled": True})
        assert client.post("/console/session/invitation/look", json={"token": token}).json()["state"] == "disabled"
        assert_error(
            client.post("/console/session/invitation", json={"token": token}), 410, "invitation_invalid", "token"
        )
        admin.http.patch(f"/admin/v1/users/{name}", json={"disabled": False})
        with psycopg.connect(admin.platform.database_url) as database:
            database.execute("UPDATE invitations SET expires_at = now() - interval '1 second'")
        assert client.post("/console/session/invitation/look", json={"token": token}).json()["state"] == "expired"
        assert_error(
            client.post("/console/session/invitation", json={"token": token}), 410, "invitation_invalid", "token"
        )


@pytest.mark.parametrize("wrong", ["password", "name", "none", "disabled"])
def test_a_wrong_name_or_password_is_one_answer(admin: ApiClient, name: str, wrong: str) -> None:
    with browser(admin) as client:
        if wrong != "none":
            signed_in(client, "invitation", token=invite(admin, name), password=PASSWORD)
        if wrong == "disabled":
            admin.http.patch(f"/admin/v1/users/{name}", json={"disabled": True})
    body = {
        "name": name if wrong != "name" else f"{name}-other",
        "password": PASSWORD if wrong != "password" else OTHER_PASSWORD,
    }
    with browser(admin) as other:
        answer = other.post("/console/session/password", json=body)
        assert_error(answer, 401, "invalid_credentials", "password")
        assert "set-cookie" not in answer.headers
        assert PASSWORD not in answer.text


def test_another_site_cannot_sign_in(admin: ApiClient, name: str) -> None:
    token = invite(admin, name)
    elsewhere = {"Origin": "https://evil.example", "Sec-Fetch-Site": "cross-site"}
    with browser(admin) as client:
        for path, body in (
            ("session/password", {"name": name, "password": PASSWORD}),
            ("session/invitation", {"token": token}),
            ("session/invitation/look", {"token": token}),
        ):
            assert_error(client.post(f"/console/{path}", json=body, headers=elsewhere), 403, "csrf_failed")


def test_a_user_changes_the_password_and_other_browsers_are_signed_out(admin: ApiClient, name: str) -> None:
    with browser(admin) as first, browser(admin, "Safari") as second:
        signed_in(first, "invitation", token=invite(admin, name), password=PASSWORD)
        signed_in(second, "password", name=name, password=PASSWORD, keep=True)
        wrong = second.put("/console/sign-in/password", json={"current": "not it at all", "password": OTHER_PASSWORD})
        assert_error(wrong, 401, "invalid_credentials", "current")
        missing = second.put("/console/sign-in/password", json={"password": OTHER_PASSWORD})
        assert_error(missing, 401, "invalid_credentials", "current")
        changed = second.put("/console/sign-in/password", json={"current": PASSWORD, "password": OTHER_PASSWORD})
        assert changed.status_code == 200, changed.text
        assert [one["device"] for one in changed.json()["sessions"]] == ["Safari"]
        assert_error(first.get("/v1/jobs"), 401, "invalid_api_key")
        assert second.get("/v1/jobs").status_code == 200
    with browser(admin) as third:
        body = {"name": name, "password": PASSWORD}
        assert_error(third.post("/console/session/password", json=body), 401, "invalid_credentials", "password")
        signed_in(third, "password", name=name, password=OTHER_PASSWORD)


def test_sessions_are_listed_and_ended(admin: ApiClient, name: str) -> None:
    key = admin.http.post("/admin/v1/keys", json={"user": name, "name": "laptop"}).json()["key"]
    with browser(admin, "A") as first, browser(admin, "B") as second, browser(admin, "C") as third:
        signed_in(first, "invitation", token=invite(admin, name), password=PASSWORD)
        signed_in(second, "password", name=name, password=PASSWORD)
        third.post("/console/session", headers={"Authorization": f"Bearer {key}"}, json={"keep": True})
        found = {one["device"]: one for one in first.get("/console/sign-in").json()["sessions"]}
        assert {
            device: (one["method"], one["key"], one["persistent"], one["current"]) for device, one in found.items()
        } == {
            "A": ("invitation", None, True, True),
            "B": ("password", None, False, False),
            "C": ("key", "laptop", True, False),
        }
        assert first.delete(f"/console/sign-in/sessions/{found['B']['id']}").status_code == 200
        assert_error(second.get("/v1/jobs"), 401, "invalid_api_key")
        again = first.delete(f"/console/sign-in/sessions/{found['B']['id']}")
        assert_error(again, 404, "unknown_url")
        assert [one["device"] for one in first.delete("/console/sign-in/sessions").json()["sessions"]] == ["A"]
        assert_error(third.get("/v1/jobs"), 401, "invalid_api_key")
        assert admin.http.delete(f"/admin/v1/users/{name}/password").json()["password"] is False
        assert_error(first.get("/v1/jobs"), 401, "invalid_api_key")


def test_sessions_of_others_cannot_be_seen_or_ended(admin: ApiClient, name: str) -> None:
    other = f"{name}-b"
    admin.http.post("/admin/v1/users", json={"name": other})
    with browser(admin, "A") as first, browser(admin, "B") as second:
        signed_in(first, "invitation", token=invite(admin, name))
        signed_in(second, "invitation", token=invite(admin, other))
        theirs = methods(admin, other)["sessions"][0]["id"]
        assert_error(first.delete(f"/console/sign-in/sessions/{theirs}"), 404, "unknown_url")
        assert second.get("/v1/jobs").status_code == 200
        assert [one["device"] for one in first.get("/console/sign-in").json()["sessions"]] == ["A"]
        assert_error(first.get(f"/admin/v1/users/{other}/sign-in"), 403, "forbidden")
        assert_error(first.post(f"/admin/v1/users/{other}/invitations"), 403, "forbidden")


def test_secrets_are_stored_as_hashes_only(admin: ApiClient, name: str) -> None:
    token = invite(admin, name)
    with browser(admin) as client:
        signed_in(client, "invitation", token=token, password=PASSWORD)
        cookie = client.cookies["dreamery_session"]
    with psycopg.connect(admin.platform.database_url) as database:
        row = database.execute("SELECT password_hash FROM users WHERE name = %s", (name,)).fetchone()
        assert row is not None
        assert row[0].startswith("$argon2id$")
        for table in ("users", "invitations", "console_sessions", "api_keys", "audit_log"):
            everything = str(database.execute(f"SELECT * FROM {table}").fetchall())
            assert not [secret for secret in (PASSWORD, token, cookie) if secret in everything], table


def test_jobs_of_a_session_without_a_key_belong_to_the_user(admin: ApiClient, name: str) -> None:
    with browser(admin) as client:
        signed_in(client, "invitation", token=invite(admin, name))
        made = client.post("/v1/images/generations", json={"prompt": "a boat", "n": 1})
        assert made.status_code == 200, made.text
        assert len(client.get("/v1/jobs").json()["data"]) == 1
        admin.http.patch(f"/admin/v1/users/{name}", json={"limits": {"jobs_per_day": 1}})
        assert_error(client.post("/v1/images/generations", json={"prompt": "b"}), 429, "budget_exceeded")
        admin.http.patch(f"/admin/v1/users/{name}", json={"role": "viewer"})
        assert_error(client.post("/v1/images/generations", json={"prompt": "b"}), 403, "forbidden")


@pytest.mark.parametrize(
    "rights",
    [
        {"scopes": ["generate", "read"]},
        {"models": ["jimeng-4.0"]},
        {"providers": ["ark"]},
        {"limits": {"jobs_per_day": 1}},
    ],
)
def test_a_key_cannot_become_a_password(admin: ApiClient, name: str, rights: dict[str, Any]) -> None:
    restricted = admin.http.post("/admin/v1/keys", json={"user": name, **rights}).json()["key"]
    whole = admin.http.post("/admin/v1/keys", json={"user": name}).json()["key"]
    with browser(admin) as client:
        client.post("/console/session", headers={"Authorization": f"Bearer {restricted}"})
        client.headers["X-CSRF-Token"] = client.get("/console/session").json()["csrf_token"]
        for headers in ({}, {"Authorization": f"Bearer {restricted}"}, {"Authorization": f"Bearer {whole}"}):
            answer = client.put("/console/sign-in/password", json={"password": PASSWORD}, headers=headers)
            assert_error(answer, 403, "forbidden")
            assert_error(client.get("/console/sign-in", headers=headers), 403, "forbidden")
            assert_error(client.delete("/console/sign-in/sessions", headers=headers), 403, "forbidden")
    assert methods(admin, name)["password"] is False


def test_many_failures_of_one_address_are_slowed_down(admin: ApiClient, name: str) -> None:
    with browser(admin) as client, browser(admin) as other:
        body = {"name": name, "password": OTHER_PASSWORD}
        statuses = [client.post("/console/session/password", json=body).status_code for _ in range(22)]
        assert statuses == [401] * 20 + [429] * 2
        assert_error(other.post("/console/session/password", json=body), 401, "invalid_credentials", "password")
