"""The web console's own routes: page, sign-in, sign-out, session lifetime and CSRF protection."""

import random
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import httpx
import psycopg
import pytest

from tests.support.api_client import IMAGES, ApiClient, assert_error, new_key

COOKIE = "dreamery_session"


@pytest.fixture(scope="module")
def admin(api_platform) -> Iterator[ApiClient]:
    with ApiClient(api_platform, api_platform.admin_key) as caller:
        yield caller


@pytest.fixture
def create_user(admin) -> Callable[..., dict[str, str]]:
    """Create a user with a key; returns name, user_id, key_id and key."""

    def create(role: str = "member") -> dict[str, str]:
        name = f"user-{random.SystemRandom().randrange(10**12)}"
        user = admin.http.post("/admin/v1/users", json={"name": name, "role": role}).json()
        key = admin.http.post("/admin/v1/keys", json={"user": name}).json()
        return {"name": name, "user_id": user["id"], "key_id": key["id"], "key": key["key"]}

    return create


@contextmanager
def browser(caller: ApiClient, **headers: str) -> Iterator[httpx.Client]:
    """A client with a cookie jar and no API key."""
    with httpx.Client(base_url=caller.platform.url, headers=headers, timeout=60, trust_env=False) as client:
        yield client


def sign_in(client: httpx.Client, key: str, **headers: str) -> httpx.Response:
    return client.post("/console/session", headers={"Authorization": f"Bearer {key}", **headers})


def audit_entries(admin: ApiClient, action: str) -> list[dict]:
    return admin.http.get("/admin/v1/audit", params={"action": action, "limit": 1000}).json()["data"]


class TestSignIn:
    def test_sign_in_with_api_key_creates_a_session(self, admin, create_user):
        user = create_user()
        with browser(admin) as client:
            answer = sign_in(client, user["key"])
            assert answer.status_code == 201
            session = answer.json()
            assert (session["user"], session["role"], session["scopes"]) == (
                user["name"],
                "member",
                ["generate", "read"],
            )
            cookie = answer.headers["set-cookie"]
            assert {"HttpOnly", "Path=/", "SameSite=lax"} <= set(cookie.split("; "))
            assert user["key"] not in cookie
            assert client.get("/console/session").json() == session
            assert client.get("/v1/jobs").json()["data"] == []
            assert_error(client.get("/admin/v1/users"), 403, "forbidden")
            generated = client.post(
                IMAGES, json={"prompt": "a", "n": 1}, headers={"X-CSRF-Token": session["csrf_token"]}
            )
            assert generated.status_code == 200, generated.text
            assert len(client.get("/v1/jobs").json()["data"]) == 1
        (entry,) = [entry for entry in audit_entries(admin, "console.sign_in") if entry["actor"] == user["name"]]
        assert entry["target"] == user["key_id"]

    def test_cookie_has_host_prefix_behind_https(self, admin):
        with browser(admin, **{"X-Forwarded-Proto": "https"}) as client:
            cookie = sign_in(client, admin.key).headers["set-cookie"]
        assert cookie.startswith("__Host-dreamery=")
        assert {"Secure", "HttpOnly", "Path=/"} <= set(cookie.split("; "))

    def test_failed_sign_in_is_rejected_and_audited(self, admin):
        wrong = f"sk-dreamery-{random.SystemRandom().randrange(10**30)}"
        before = len(audit_entries(admin, "console.sign_in_failed"))
        with browser(admin) as client:
            assert_error(sign_in(client, wrong), 401, "invalid_api_key")
            assert "session ids cannot sign in" in assert_error(sign_in(client, new_key()), 401, "invalid_api_key")
            assert "set-cookie" not in sign_in(client, wrong).headers
            assert_error(client.post("/console/session"), 401, "missing_api_key")
        failed = audit_entries(admin, "console.sign_in_failed")
        assert len(failed) == before + 3
        assert wrong not in str(failed)

    def test_failed_sign_ins_are_rate_limited_and_not_all_audited(self, admin):
        before = len(audit_entries(admin, "console.sign_in_failed"))
        with browser(admin, **{"X-Forwarded-For": "203.0.113.7"}) as client:
            answers = [sign_in(client, "sk-dreamery-wrong") for _ in range(22)]
            assert_error(answers[-1], 429, "rate_limit_exceeded")
            # A valid key still works from the same address.
            assert sign_in(client, admin.key).status_code == 201
        assert len(audit_entries(admin, "console.sign_in_failed")) - before <= 21

    def test_only_a_hash_of_the_session_id_is_stored(self, admin, api_platform):
        with browser(admin) as client:
            sign_in(client, admin.key)
            session_id = client.cookies[COOKIE]
        with psycopg.connect(api_platform.database_url) as connection:
            rows = connection.execute("SELECT row_to_json(s)::text FROM console_sessions s").fetchall()
        assert rows
        assert session_id not in str(rows)


class TestSessionEnd:
    def check_session_ends(
        self, admin: ApiClient, key: str, end_session: Callable[[httpx.Client, str], object]
    ) -> None:
        with browser(admin) as client:
            token = sign_in(client, key).json()["csrf_token"]
            session_id = client.cookies[COOKIE]
            assert client.get("/console/session").status_code == 200
            end_session(client, token)
            client.cookies.set(COOKIE, session_id)
            assert_error(client.get("/console/session"), 401, "invalid_api_key")
            assert_error(client.get("/v1/jobs/events"), 401, "invalid_api_key")

    def test_session_ends_on_sign_out(self, admin, create_user):
        user = create_user()

        def sign_out(client: httpx.Client, token: str) -> None:
            answer = client.delete("/console/session", headers={"X-CSRF-Token": token})
            assert answer.json()["deleted"] is True
            assert COOKIE not in client.cookies

        self.check_session_ends(admin, user["key"], sign_out)
        assert any(entry["actor"] == user["name"] for entry in audit_entries(admin, "console.sign_out"))

    def test_session_ends_with_its_key(self, admin, create_user):
        user = create_user()
        self.check_session_ends(admin, user["key"], lambda *_: admin.http.delete(f"/admin/v1/keys/{user['key_id']}"))

    def test_session_ends_when_its_user_is_disabled(self, admin, create_user):
        user = create_user()
        path = f"/admin/v1/users/{user['user_id']}"
        self.check_session_ends(admin, user["key"], lambda *_: admin.http.patch(path, json={"disabled": True}))

    def test_session_expires(self, admin, create_user, api_platform):
        user = create_user()

        def expire(*_: object) -> None:
            with psycopg.connect(api_platform.database_url) as connection:
                connection.execute(
                    """UPDATE console_sessions SET expires_at = now() WHERE api_key_id IN (
                           SELECT k.id FROM api_keys k JOIN users u ON u.id = k.user_id WHERE u.name = %s)""",
                    [user["name"]],
                )

        self.check_session_ends(admin, user["key"], expire)

    def test_use_extends_the_session(self, admin, create_user, api_platform):
        user = create_user()
        own_key = """FROM api_keys k JOIN users u ON u.id = k.user_id WHERE k.id = s.api_key_id AND u.name = %s"""
        with browser(admin) as client, psycopg.connect(api_platform.database_url, autocommit=True) as connection:
            sign_in(client, user["key"])
            connection.execute(
                f"""UPDATE console_sessions s SET expires_at = now() + interval '5 min',
                        last_used_at = now() - interval '1 hour' {own_key}""",
                [user["name"]],
            )
            assert client.get("/v1/jobs").status_code == 200
            extended = connection.execute(
                f"""SELECT s.expires_at - now() > interval '1 hour' FROM console_sessions s WHERE EXISTS (SELECT {own_key})""",
                [user["name"]],
            ).fetchone()
        assert extended == (True,)

    def test_use_extends_no_session_beyond_thirty_days(self, admin, create_user, api_platform):
        user = create_user()
        own = "api_key_id IN (SELECT k.id FROM api_keys k JOIN users u ON u.id = k.user_id WHERE u.name = %s)"
        with browser(admin) as client, psycopg.connect(api_platform.database_url, autocommit=True) as connection:
            sign_in(client, user["key"])
            connection.execute(
                f"""UPDATE console_sessions SET created_at = now() - interval '30 days' + interval '10 min',
                        expires_at = now() + interval '5 min', last_used_at = now() - interval '1 hour' WHERE {own}""",
                [user["name"]],
            )
            assert client.get("/v1/jobs").status_code == 200
            left = connection.execute(
                f"SELECT extract(epoch FROM expires_at - created_at) FROM console_sessions WHERE {own}", [user["name"]]
            ).fetchone()
        assert left is not None
        assert left[0] == 30 * 86400


class TestCsrf:
    """A browser sends the cookie with requests of other sites too, so changes must come from the console page."""

    @pytest.fixture
    def signed_in(self, admin) -> Iterator[tuple[httpx.Client, str]]:
        with browser(admin) as client:
            yield client, sign_in(client, admin.key).json()["csrf_token"]

    @pytest.mark.parametrize("headers", [{}, {"X-CSRF-Token": ""}, {"X-CSRF-Token": "0" * 64}])
    def test_change_requires_the_csrf_token(self, signed_in, headers):
        client, _ = signed_in
        assert_error(client.post(IMAGES, json={"prompt": "a"}, headers=headers), 403, "csrf_failed")
        assert_error(client.put("/v1/jobs/job_x/favourite", headers=headers), 403, "csrf_failed")
        assert_error(client.delete("/console/session", headers=headers), 403, "csrf_failed")

    def test_csrf_token_of_another_session_is_rejected(self, admin, signed_in):
        client, _ = signed_in
        with browser(admin) as other:
            foreign = sign_in(other, admin.key).json()["csrf_token"]
        assert_error(client.post(IMAGES, json={"prompt": "a"}, headers={"X-CSRF-Token": foreign}), 403, "csrf_failed")

    @pytest.mark.parametrize(
        "headers",
        [
            {"Origin": "https://evil.example"},
            {"Origin": "null"},
            {"Sec-Fetch-Site": "cross-site"},
            {"Sec-Fetch-Site": "same-site"},
        ],
    )
    def test_request_from_another_site_is_rejected(self, admin, signed_in, headers):
        client, token = signed_in
        assert_error(
            client.post(IMAGES, json={"prompt": "a"}, headers={"X-CSRF-Token": token, **headers}), 403, "csrf_failed"
        )
        assert_error(client.get("/v1/jobs", headers=headers), 403, "csrf_failed")
        with browser(admin) as other:
            assert_error(sign_in(other, admin.key, **headers), 403, "csrf_failed")
            # A request with an API key does not use the cookie, so any origin may send it.
            key = {"Authorization": f"Bearer {admin.key}"}
            assert other.get("/v1/jobs", headers={**headers, **key}).status_code == 200

    def test_request_from_the_console_page_is_accepted(self, admin, signed_in):
        client, token = signed_in
        headers = {"X-CSRF-Token": token, "Origin": admin.platform.url, "Sec-Fetch-Site": "same-origin"}
        assert_error(client.put("/v1/jobs/job_x/favourite", headers=headers), 404, "job_not_found")


class TestPage:
    def test_root_redirects_browsers_to_the_console(self, admin):
        with browser(admin, Accept="text/html,application/xhtml+xml,*/*;q=0.8") as client:
            redirect = client.get("/")
            assert (redirect.status_code, redirect.headers["location"]) == (307, f"{admin.platform.url}/console")
            assert "<title>" in client.get(redirect.headers["location"]).text
        with browser(admin) as client:
            assert_error(client.get("/"), 404, "unknown_url")

    def test_every_console_url_serves_the_page_and_its_files_exist(self, admin):
        with browser(admin) as client:
            page = client.get("/console")
            policy = page.headers["content-security-policy"]
            assert "default-src 'none'" in policy
            assert "unsafe" not in policy
            assert client.get("/console/jobs/job_x").text == page.text
            paths = re.findall(r'(?:src|href)="(console/static/[^"]+)"', page.text)
            assert len(paths) > 5
            for path in paths:
                asset = client.get(f"/{path}")
                assert asset.status_code == 200, path
                assert "immutable" in asset.headers["cache-control"]
            for path in (
                "/console/static/x/%2e%2e/app.py",
                "/console/static/x/missing.js",
                "/console/static/x/index.html",
            ):
                assert_error(client.get(path), 404, "unknown_url")
            assert client.get("/console/static/old/app.js").headers["cache-control"] == "no-cache"

    def test_page_shows_whether_a_session_exists(self, admin):
        with browser(admin) as client:
            assert 'data-session="no"' in client.get("/console").text
            sign_in(client, admin.key)
            assert 'data-session="yes"' in client.get("/console").text
