"""`/admin/v1` and its commands on a running platform: users, keys, permissions, accounts, the audit log."""

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import psycopg
import pytest
from typer.testing import CliRunner, Result

from api.accounts.schemas import AccountImportResult
from api.admin.schemas import AuditList, NewApiKey, User, UserList
from api.cli.main import app as cli
from tests.support.api_client import IMAGES, ApiClient, assert_error, new_key
from tests.support.platform import ROOT, clean_env

_count = iter(range(10**6))


def new_name() -> str:
    return f"user {next(_count)} {time.time_ns()}"


@pytest.fixture
def admin(api_platform) -> Iterator[ApiClient]:
    with ApiClient(api_platform, api_platform.admin_key) as client:
        yield client


@pytest.fixture
def add_user(admin) -> Callable[..., dict[str, Any]]:
    def add(**fields: Any) -> dict[str, Any]:
        answer = admin.http.post("/admin/v1/users", json={"name": new_name(), **fields})
        assert answer.status_code == 201, answer.text
        return User.model_validate(answer.json()).model_dump()

    return add


@pytest.fixture
def add_key(admin, add_user) -> Callable[..., dict[str, Any]]:
    def add(*, role: str = "member", user: str | None = None, **fields: Any) -> dict[str, Any]:
        user = user or add_user(role=role)["name"]
        answer = admin.http.post("/admin/v1/keys", json={"user": user, **fields})
        assert answer.status_code == 201, answer.text
        NewApiKey.model_validate(answer.json(), strict=True)
        return answer.json()

    return add


def works(client: ApiClient, key: str) -> bool:
    with client.as_caller(key) as caller:
        answer = caller.http.get("/v1/models")
    assert answer.status_code in {200, 401}
    return answer.status_code == 200


# --- permissions ---

ROUTES = [
    ("GET", "/admin/v1/users"),
    ("POST", "/admin/v1/users"),
    ("GET", "/admin/v1/users/admin"),
    ("PATCH", "/admin/v1/users/admin"),
    ("GET", "/admin/v1/users/admin/sign-in"),
    ("POST", "/admin/v1/users/admin/invitations"),
    ("DELETE", "/admin/v1/users/admin/invitations"),
    ("DELETE", "/admin/v1/users/admin/password"),
    ("DELETE", "/admin/v1/users/admin/sessions"),
    ("DELETE", "/admin/v1/users/admin/sessions/session_x"),
    ("GET", "/admin/v1/keys"),
    ("POST", "/admin/v1/keys"),
    ("GET", "/admin/v1/keys/key_x"),
    ("POST", "/admin/v1/keys/key_x/rotate"),
    ("DELETE", "/admin/v1/keys/key_x"),
    ("GET", "/admin/v1/audit"),
    ("GET", "/admin/v1/accounts"),
    ("POST", "/admin/v1/accounts"),
    ("GET", "/admin/v1/accounts/account_x"),
    ("PATCH", "/admin/v1/accounts/account_x"),
    ("DELETE", "/admin/v1/accounts/account_x"),
    ("POST", "/admin/v1/accounts/account_x/check"),
    ("POST", "/admin/v1/accounts/account_x/receive"),
    ("POST", "/admin/v1/accounts/account_x/prove"),
    ("GET", "/admin/v1/accounts/account_x/prove/step_x"),
    ("GET", "/admin/v1/accounts/account_x/credits"),
    ("GET", "/admin/v1/prices"),
    ("PATCH", "/admin/v1/keys/key_x"),
    ("GET", "/admin/v1/audit/export"),
    ("GET", "/admin/v1/usage"),
    ("GET", "/admin/v1/jobs"),
    ("GET", "/admin/v1/jobs/job_x"),
    ("GET", "/admin/v1/jobs/job_x/waiting"),
    ("POST", "/admin/v1/jobs/job_x/cancel"),
    ("POST", "/admin/v1/jobs/job_x/retry"),
    ("PUT", "/admin/v1/announcement"),
    ("DELETE", "/admin/v1/announcement"),
    ("GET", "/admin/v1/drain"),
    ("PATCH", "/admin/v1/drain"),
    ("GET", "/admin/v1/system"),
    ("GET", "/admin/v1/metrics/history"),
    ("GET", "/admin/v1/alerts"),
    ("PATCH", "/admin/v1/alerts/alert_x"),
    ("GET", "/admin/v1/alerts/rules"),
    ("PATCH", "/admin/v1/alerts/rules/rule_x"),
    ("GET", "/admin/v1/alerts/channels"),
    ("POST", "/admin/v1/alerts/channels"),
    ("PATCH", "/admin/v1/alerts/channels/channel_x"),
    ("DELETE", "/admin/v1/alerts/channels/channel_x"),
    ("POST", "/admin/v1/alerts/channels/channel_x/test"),
    ("GET", "/admin/v1/workers"),
    ("PATCH", "/admin/v1/workers/worker_x/drain"),
]


def test_every_admin_route_is_covered(admin):
    paths = httpx.get(f"{admin.platform.url}/openapi.json", trust_env=False, timeout=60).json()["paths"]
    documented = {
        (method.upper(), path) for path, item in paths.items() if path.startswith("/admin/") for method in item
    }
    covered = {
        (
            method,
            path.replace("/admin/v1/users/admin", "/admin/v1/users/{user}")
            .replace("key_x", "{key_id}")
            .replace("account_x", "{account_id}")
            .replace("job_x", "{job_id}")
            .replace("session_x", "{session_id}")
            .replace("step_x", "{step_id}")
            .replace("alert_x", "{alert_id}")
            .replace("rule_x", "{name}")
            .replace("channel_x", "{channel_id}")
            .replace("worker_x", "{name}"),
        )
        for method, path in ROUTES
    }
    assert documented == covered


@pytest.mark.parametrize(("method", "path"), ROUTES)
def test_admin_routes_require_the_admin_scope(admin, add_key, method, path):
    def request(key: str | None) -> httpx.Response:
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        return httpx.request(
            method, admin.platform.url + path, headers=headers, json={"name": new_name()}, trust_env=False
        )

    assert_error(request(None), 401, "missing_api_key")
    assert_error(request("sk-dreamery-wrong"), 401, "invalid_api_key")
    assert_error(request(new_key()), 403, "forbidden")
    assert_error(request(add_key(role="member")["key"]), 403, "forbidden")
    assert_error(request(add_key(role="viewer")["key"]), 403, "forbidden")
    assert_error(request(add_key(role="admin", scopes=["generate", "read"])["key"]), 403, "forbidden")


# --- users ---


def test_user_lifecycle(admin, add_user):
    made = add_user(role="viewer")
    assert made["role"] == "viewer"
    by_name = admin.http.get(f"/admin/v1/users/{made['name']}").json()
    assert by_name == admin.http.get(f"/admin/v1/users/{made['id']}").json() == made
    changed = admin.http.patch(f"/admin/v1/users/{made['id']}", json={"role": "member"}).json()
    assert (changed["role"], changed["disabled"]) == ("member", False)
    assert_error(admin.http.post("/admin/v1/users", json={"name": made["name"]}), 409, "name_taken", "name")
    assert_error(admin.http.get("/admin/v1/users/nobody"), 404, "user_not_found")
    assert_error(admin.http.post("/admin/v1/users", json={"name": "  "}), 400, "invalid_value", "name")
    assert_error(admin.http.post("/admin/v1/users", json={"name": "x", "role": "king"}), 400, "invalid_value", "role")


def test_users_are_paginated(admin, add_user):
    added = [add_user()["id"] for _ in range(3)]
    found: list[str] = []
    after = None
    while True:
        page = admin.http.get("/admin/v1/users", params={"limit": 2, **({"after": after} if after else {})})
        UserList.model_validate(page.json(), strict=True)
        found += [user["id"] for user in page.json()["data"]]
        if not page.json()["has_more"]:
            break
        after = found[-1]
    assert len(found) == len(set(found))
    assert [one for one in found if one in added] == added
    assert_error(admin.http.get("/admin/v1/users", params={"after": "x"}), 400, "invalid_value", "after")


@pytest.fixture
def only_admin(admin) -> Iterator[ApiClient]:
    """Make the bootstrap admin the only admin, and restore it afterwards."""
    with psycopg.connect(admin.platform.database_url, autocommit=True) as connection:
        connection.execute("UPDATE users SET role = 'member' WHERE name <> 'admin' AND role = 'admin'")
        yield admin
        connection.execute("UPDATE users SET role = 'admin', disabled = false WHERE name = 'admin'")


def test_last_admin_cannot_be_removed(only_admin, add_user):
    patch = only_admin.http.patch
    assert_error(patch("/admin/v1/users/admin", json={"role": "member"}), 409, "last_admin")
    assert_error(patch("/admin/v1/users/admin", json={"disabled": True}), 409, "last_admin")
    # With two admins either one can be removed, but not both, even concurrently.
    names = ["admin", add_user(role="admin")["id"]]
    with ThreadPoolExecutor(2) as pool:
        answers = list(pool.map(lambda name: patch(f"/admin/v1/users/{name}", json={"role": "member"}), names))
    # 403 if the caller itself was removed first.
    assert sorted(answer.status_code for answer in answers) in ([200, 403], [200, 409])


# --- keys ---


def test_key_is_shown_once_and_stored_as_a_hash(admin, add_key):
    made = add_key(name="laptop")
    key = made["key"]
    assert key.startswith("sk-dreamery-")
    assert len(key) >= len("sk-dreamery-") + 43  # 256 bits in base64
    assert made["prefix"] == key[: len("sk-dreamery-") + 4]
    shown = admin.http.get(f"/admin/v1/keys/{made['id']}").text + admin.http.get("/admin/v1/keys?limit=1000").text
    assert key not in shown
    assert made["id"] in shown
    with psycopg.connect(admin.platform.database_url) as connection:
        stored = connection.execute("SELECT row_to_json(api_keys)::text FROM api_keys").fetchall()
        log = connection.execute("SELECT row_to_json(audit_log)::text FROM audit_log").fetchall()
    assert key not in str(stored) + str(log)


def test_last_use_of_a_key_is_recorded(admin, add_key):
    made = add_key()
    assert made["last_used_at"] is None
    assert works(admin, made["key"])
    assert admin.http.get(f"/admin/v1/keys/{made['id']}").json()["last_used_at"] >= made["created_at"]


def test_revoked_key_stops_working_immediately(admin, add_key):
    made = add_key()
    assert works(admin, made["key"])
    assert admin.http.delete(f"/admin/v1/keys/{made['id']}").json()["status"] == "revoked"
    assert not works(admin, made["key"])
    again = admin.http.delete(f"/admin/v1/keys/{made['id']}")
    assert (again.status_code, again.json()["status"]) == (200, "revoked")
    assert_error(admin.http.post(f"/admin/v1/keys/{made['id']}/rotate"), 404, "key_not_found")


def test_rotated_key_works_during_its_grace_period(admin, add_key):
    made = add_key(scopes=["read"], models=["jimeng-4.0"])
    fresh = admin.http.post(f"/admin/v1/keys/{made['id']}/rotate", json={"grace_seconds": 3600}).json()
    assert fresh["id"] != made["id"]
    assert (fresh["scopes"], fresh["models"]) == (["read"], ["jimeng-4.0"])
    assert works(admin, made["key"])
    assert works(admin, fresh["key"])
    assert admin.http.get(f"/admin/v1/keys/{made['id']}").json()["status"] == "in_grace"
    last = admin.http.post(f"/admin/v1/keys/{fresh['id']}/rotate").json()
    assert not works(admin, fresh["key"])
    assert works(admin, last["key"])


def test_expired_key_is_rejected(admin, add_key):
    assert not works(admin, add_key(expires_at="2020-01-01T00:00:00Z")["key"])
    assert works(admin, add_key(expires_at="2100-01-01T00:00:00Z")["key"])
    body = {"user": "admin", "expires_at": "2100-01-01T00:00:00"}
    assert_error(admin.http.post("/admin/v1/keys", json=body), 400, "invalid_value", "expires_at")


def test_keys_of_a_disabled_user_are_rejected(admin, add_user, add_key):
    user = add_user()
    key = add_key(user=user["id"])["key"]
    admin.http.patch(f"/admin/v1/users/{user['id']}", json={"disabled": True})
    assert not works(admin, key)
    admin.http.patch(f"/admin/v1/users/{user['id']}", json={"disabled": False})
    assert works(admin, key)


def test_key_scopes_and_models_are_enforced(admin, add_key):
    def draw(key: str, **fields: Any) -> httpx.Response:
        with admin.as_caller(key) as caller:
            return caller.http.post(IMAGES, json={"prompt": "a", "n": 1, "async": True, **fields})

    assert_error(draw(add_key(role="viewer")["key"]), 403, "forbidden")
    assert_error(draw(add_key(scopes=["read"])["key"]), 403, "forbidden")
    assert draw(add_key(scopes=["generate"])["key"]).status_code == 202
    # Aliases resolve to their model, both in the key and in the request.
    narrow = add_key(models=["jimeng-image-4.0"])
    assert narrow["models"] == ["jimeng-4.0"]
    assert draw(narrow["key"], model="jimeng-4.0").status_code == 202
    assert "jimeng-4.0" in assert_error(draw(narrow["key"], model="jimeng-3.0"), 403, "model_not_allowed", "model")
    assert_error(
        admin.http.post("/admin/v1/keys", json={"user": "admin", "models": ["x"]}), 404, "model_not_found", "model"
    )


def test_list_keys_of_one_user(admin, add_user, add_key):
    user = add_user()
    mine = [add_key(user=user["name"], name=f"key {n}")["id"] for n in range(2)]
    add_key()
    found = admin.http.get("/admin/v1/keys", params={"user": user["id"]}).json()["data"]
    assert [key["id"] for key in found] == mine


# --- accounts ---


def new_account(admin: ApiClient, *words: str, **fields: Any) -> list[dict[str, Any]]:
    tokens = ",".join(f"{word}{next(_count)}{time.time_ns()}:sandbox" for word in words)
    answer = admin.http.post("/admin/v1/accounts", json={"tokens": tokens, **fields})
    assert answer.status_code == 201, answer.text
    AccountImportResult.model_validate(answer.json(), strict=True)
    for token in tokens.split(","):
        assert token.partition(":")[0] not in answer.text
    return answer.json()["data"]


def test_account_lifecycle(admin):
    made = new_account(admin, "one", "two", label="studio")
    try:
        assert [one["label"] for one in made] == ["studio 1", "studio 2"]
        assert {one["state"] for one in made} == {"ok"}
        path = f"/admin/v1/accounts/{made[0]['id']}"
        changed = admin.http.patch(path, json={"paused": True, "max_images": 5, "label": "spare"}).json()
        assert (changed["state"], changed["max_images"], changed["label"]) == ("paused", 5, "spare")
        changed = admin.http.patch(path, json={"paused": False, "max_images": None, "label": None}).json()
        assert (changed["state"], changed["max_images"], changed["label"]) == ("ok", None, "spare")
        listed = admin.http.get("/admin/v1/accounts", params={"limit": 1000}).json()["data"]
        assert {one["id"] for one in made} <= {one["id"] for one in listed}
        assert_error(admin.http.patch(path, json={"max_images": 0}), 400, "invalid_value", "max_images")
        assert_error(admin.http.get("/admin/v1/accounts/account_x"), 404, "account_not_found")
        assert_error(admin.http.post("/admin/v1/accounts", json={"tokens": "a b"}), 401, "invalid_api_key")
    finally:
        retired = [admin.http.delete(f"/admin/v1/accounts/{one['id']}").json() for one in made]
    assert {one["state"] for one in retired} == {"retired"}
    listed = admin.http.get("/admin/v1/accounts", params={"limit": 1000}).json()["data"]
    assert not {one["id"] for one in made} & {one["id"] for one in listed}


def test_cooldown_of_an_account_can_be_ended(admin):
    [made] = new_account(admin, "tired")
    row = made["id"].partition("_")[2]
    with psycopg.connect(admin.platform.database_url, autocommit=True) as connection:
        connection.execute(
            "UPDATE accounts SET rest_until = now() + interval '1 hour', rest_code = 'account_limited' WHERE id = %s",
            [row],
        )
    path = f"/admin/v1/accounts/{made['id']}"
    resting = admin.http.get(path).json()
    assert (resting["state"], resting["rest_code"]) == ("resting", "account_limited")
    assert admin.http.patch(path, json={"rested": True}).json()["state"] == "ok"
    admin.http.delete(path)


# --- weight and priority (the fair queue itself: test_fair_queue.py) ---


def test_weight_and_priority_are_set_and_audited(admin, add_user):
    user = add_user(weight=2.5)
    assert (user["weight"], user["priority"]) == (2.5, 0)
    path = f"/admin/v1/users/{user['id']}"
    changed = admin.http.patch(path, json={"priority": 2}).json()
    assert (changed["weight"], changed["priority"], changed["role"]) == (2.5, 2, user["role"])
    assert admin.http.patch(path, json={"weight": 0.5}).json()["weight"] == 0.5
    entries = admin.http.get("/admin/v1/audit", params={"action": "user.change"}).json()["data"]
    details = [entry["details"] for entry in entries if entry["target"] == user["id"]]
    assert [{key: one[key] for key in one if key != "name"} for one in details] == [{"weight": 0.5}, {"priority": 2}]


@pytest.mark.parametrize(
    ("field", "value"),
    [("weight", 0), ("weight", -1), ("weight", 1e9), ("weight", "NaN"), ("priority", 6), ("priority", 1.5)],
)
def test_invalid_weight_or_priority_is_rejected(admin, add_user, field, value):
    user = add_user()
    answer = admin.http.patch(f"/admin/v1/users/{user['id']}", json={field: value})
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == field


# --- the audit log ---


def test_every_admin_action_is_audited(admin, add_user, add_key):
    user = add_user()
    key = add_key(user=user["name"])
    admin.http.patch(f"/admin/v1/users/{user['id']}", json={"disabled": True})
    rotated = admin.http.post(f"/admin/v1/keys/{key['id']}/rotate").json()
    admin.http.delete(f"/admin/v1/keys/{rotated['id']}")
    answer = admin.http.get("/admin/v1/audit", params={"limit": 1000}).json()
    AuditList.model_validate(answer)
    about = {user["id"], key["id"], rotated["id"]}
    actions = [(entry["action"], entry["target"]) for entry in answer["data"] if entry["target"] in about]
    assert actions == [
        ("key.revoke", rotated["id"]),
        ("key.rotate", key["id"]),
        ("user.change", user["id"]),
        ("key.make", key["id"]),
        ("user.add", user["id"]),
    ]
    actors = {(entry["actor"], entry["address"]) for entry in answer["data"] if entry["target"] in about}
    assert actors == {("admin", "127.0.0.1")}
    only = admin.http.get("/admin/v1/audit", params={"action": "key", "limit": 1000}).json()["data"]
    assert {entry["action"].partition(".")[0] for entry in only} == {"key"}
    assert admin.http.get("/admin/v1/audit", params={"since": time.time() + 60}).json()["data"] == []


def test_refused_action_is_not_audited(only_admin):
    admin = only_admin
    before = admin.http.get("/admin/v1/audit", params={"limit": 1}).json()["data"]
    assert_error(admin.http.patch("/admin/v1/users/admin", json={"role": "member"}), 409, "last_admin")
    assert admin.http.get("/admin/v1/audit", params={"limit": 1}).json()["data"] == before


def test_audit_log_is_append_only(admin, add_user):
    add_user()
    with psycopg.connect(admin.platform.database_url) as connection:
        for words in ("UPDATE audit_log SET actor = 'nobody'", "DELETE FROM audit_log"):
            with pytest.raises(psycopg.errors.RaiseException, match="append-only"):
                connection.execute(words)
            connection.rollback()


# --- commands ---


def command(client: ApiClient, *words: str, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "api.cli.main", *words],
        cwd=ROOT,
        env=clean_env(DREAMERY_URL=client.platform.url, DREAMERY_ADMIN_KEY=client.platform.admin_key),
        input=stdin,
        capture_output=True,
        text=True,
        check=False,
    )


def invoke(client: ApiClient, *words: str, stdin: str | None = None) -> Result:
    """Run the command in this process, because starting Python takes as long as ten commands."""
    env = {"DREAMERY_URL": client.platform.url, "DREAMERY_ADMIN_KEY": client.platform.admin_key}
    return CliRunner().invoke(cli, words, input=stdin, env=env, catch_exceptions=False)


def run_json(client: ApiClient, *words: str, stdin: str | None = None) -> Any:
    done = invoke(client, *words, "--json", stdin=stdin)
    assert done.exit_code == 0, done.stderr
    return json.loads(done.stdout)


def test_admin_commands(admin):
    name = new_name()
    user = run_json(admin, "users", "add", name, "--role", "member")
    assert user["name"] == name
    made = run_json(admin, "keys", "add", name, "--name", "ci", "--scope", "generate", "--model", "jimeng-4.0")
    assert {"id", "key"} <= set(made)
    assert works(admin, made["key"])
    assert [key["id"] for key in run_json(admin, "keys", "list", "--user", name)["data"]] == [made["id"]]
    fresh = run_json(admin, "keys", "rotate", made["id"])
    assert works(admin, fresh["key"])
    assert not works(admin, made["key"])
    assert run_json(admin, "keys", "disable", fresh["id"])["status"] == "revoked"
    invitation = run_json(admin, "users", "invite", name, "--hours", "2")
    assert "/console/invitation#" in invitation["url"]
    assert run_json(admin, "users", "sign-in", name)["invitation_expires_at"] == invitation["expires_at"]
    assert run_json(admin, "users", "sign-out", name)["sessions"] == []
    assert run_json(admin, "users", "disable", name)["disabled"] is True
    assert run_json(admin, "users", "show", name)["disabled"] is True
    assert run_json(admin, "users", "enable", name)["disabled"] is False
    assert run_json(admin, "users", "role", name, "viewer")["role"] == "viewer"
    shared = run_json(admin, "users", "share", name, "--weight", "3", "--priority", "-1")
    assert (shared["weight"], shared["priority"]) == (3, -1)
    assert invoke(admin, "users", "share", name).exit_code == 2
    assert user["id"] in {one["id"] for one in run_json(admin, "users", "list")["data"]}
    session = f"cli{time.time_ns()}:sandbox"
    account = run_json(admin, "accounts", "add", session, "--label", "cli")
    assert run_json(admin, "accounts", "disable", account["id"])["state"] == "paused"
    assert run_json(admin, "accounts", "enable", account["id"])["state"] == "ok"
    assert account["id"] in {one["id"] for one in run_json(admin, "accounts", "list")["data"]}
    change = ("--max-jobs-per-day", "9", "--hours", "22:00-06:00", "--days", "sat,sun", "--zone", "Asia/Tokyo")
    changed = run_json(admin, "accounts", "set", account["id"], *change, "--group", "staff", "--max-images", "3")
    assert (changed["max_jobs_per_day"], changed["groups"], changed["max_images"]) == (9, ["staff"], 3)
    hours = {"days": ["sat", "sun"], "start": "22:00", "end": "06:00", "zone": "Asia/Tokyo"}
    assert changed["working_hours"] == hours
    wide = run_json(
        admin, "accounts", "set", account["id"], "--hours", "none", "--max-jobs-per-day", "none", "--group", "all"
    )
    assert (wide["max_jobs_per_day"], wide["groups"], wide["working_hours"]) == (None, [], None)
    assert run_json(admin, "accounts", "check", account["id"])["check"]["live"] is True
    fresh_session = f"fresh{time.time_ns()}:sandbox"
    assert run_json(admin, "accounts", "login", account["id"], "-", stdin=fresh_session)["check"]["live"] is True
    assert run_json(admin, "users", "groups", name, "staff", "board")["groups"] == ["staff", "board"]
    assert run_json(admin, "accounts", "remove", account["id"])["state"] == "retired"
    assert session not in json.dumps(run_json(admin, "audit", "list"))
    assert "user.add" in {entry["action"] for entry in run_json(admin, "audit", "list")["data"]}
    table = command(admin, "keys", "list").stdout
    assert made["id"][-8:] in table
    assert made["key"] not in table


def test_polling_limits_of_accounts(admin):
    session = f"polled{time.time_ns()}:sandbox"
    account = run_json(admin, "accounts", "add", session, "--poll-min-seconds", "2.5", "--poll-eagerness", "4")
    assert (account["poll_min_seconds"], account["poll_max_seconds"], account["poll_eagerness"]) == (2.5, None, 4)
    words = ("accounts", "set", account["id"])
    changed = run_json(admin, *words, "--poll-max-seconds", "7", "--poll-eagerness", "none")
    assert (changed["poll_min_seconds"], changed["poll_max_seconds"], changed["poll_eagerness"]) == (2.5, 7, None)
    [listed] = [one for one in run_json(admin, "accounts", "list")["data"] if one["id"] == account["id"]]
    assert (listed["poll_min_seconds"], listed["poll_max_seconds"]) == (2.5, 7)
    assert "polling" not in listed
    assert "min: 2.5, max: 7.0" in command(admin, "accounts", "list").stdout
    refused = command(admin, *words, "--poll-max-seconds", "2")
    assert (refused.returncode, "must not exceed `poll_max_seconds` (2)" in refused.stderr) == (1, True)
    assert invoke(admin, *words, "--poll-max-seconds", "soon").exit_code == 2
    run_json(admin, "accounts", "remove", account["id"])


def test_accounts_are_imported_from_standard_input(admin):
    number = time.time_ns()
    lines = ["# from the studio", f"stdin-one-{number}:sandbox", "not usable", f"dead-stdin-{number}:sandbox"]
    done = command(admin, "accounts", "add", "-", "--label", "many", stdin="\n".join(lines))
    assert done.returncode == 1, "one entry was refused"
    for word in ("added", "refused", "Token 3 is invalid", "many 1", "many 3"):
        assert word in done.stdout
    assert str(number) not in done.stdout + done.stderr
    found = run_json(admin, "accounts", "list")["data"]
    made = {one["label"]: one for one in found if one["label"].startswith("many ")}
    assert set(made) == {"many 1", "many 3"}
    assert made["many 1"]["credits"] > 0
    assert made["many 3"]["state_code"] == "upstream_session_expired"
    for one in made.values():
        assert one["id"][-8:] in done.stdout
        run_json(admin, "accounts", "remove", one["id"])


def test_failed_command_prints_the_reason(admin):
    done = command(admin, "keys", "add", "nobody at all")
    assert done.returncode == 1
    assert "No user 'nobody at all'" in done.stderr
