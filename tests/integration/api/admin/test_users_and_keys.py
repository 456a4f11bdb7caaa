"""`/admin/v1` and its commands on a running platform: users, keys and what they may do, the audit log."""

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
    return f"person {next(_count)} {time.time_ns()}"


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


# --- who may administer ---

ROUTES = [
    ("GET", "/admin/v1/users"),
    ("POST", "/admin/v1/users"),
    ("GET", "/admin/v1/users/admin"),
    ("PATCH", "/admin/v1/users/admin"),
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
    ("GET", "/admin/v1/accounts/account_x/credits"),
    ("GET", "/admin/v1/prices"),
    ("PATCH", "/admin/v1/keys/key_x"),
    ("GET", "/admin/v1/audit/export"),
    ("GET", "/admin/v1/usage"),
    ("GET", "/admin/v1/jobs"),
    ("GET", "/admin/v1/jobs/job_x"),
    ("POST", "/admin/v1/jobs/job_x/cancel"),
    ("POST", "/admin/v1/jobs/job_x/retry"),
    ("GET", "/admin/v1/drain"),
    ("PATCH", "/admin/v1/drain"),
    ("GET", "/admin/v1/system"),
    ("GET", "/admin/v1/workers"),
    ("PATCH", "/admin/v1/workers/worker_x/drain"),
]


def test_every_admin_route_is_in_the_walk(admin):
    paths = httpx.get(f"{admin.platform.url}/openapi.json", trust_env=False).json()["paths"]
    known = {(method.upper(), path) for path, item in paths.items() if path.startswith("/admin/") for method in item}
    walked = {
        (
            method,
            path.replace("/admin/v1/users/admin", "/admin/v1/users/{user}")
            .replace("key_x", "{key_id}")
            .replace("account_x", "{account_id}")
            .replace("job_x", "{job_id}")
            .replace("worker_x", "{name}"),
        )
        for method, path in ROUTES
    }
    assert known == walked


@pytest.mark.parametrize(("method", "path"), ROUTES)
def test_only_admins_pass(admin, add_key, method, path):
    def ask(key: str | None) -> httpx.Response:
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        return httpx.request(
            method, admin.platform.url + path, headers=headers, json={"name": new_name()}, trust_env=False
        )

    assert_error(ask(None), 401, "missing_api_key")
    assert_error(ask("sk-dreamery-wrong"), 401, "invalid_api_key")
    assert_error(ask(new_key()), 403, "forbidden")
    assert_error(ask(add_key(role="member")["key"]), 403, "forbidden")
    assert_error(ask(add_key(role="viewer")["key"]), 403, "forbidden")
    assert_error(ask(add_key(role="admin", scopes=["generate", "read"])["key"]), 403, "forbidden")


# --- users ---


def test_a_user_lives(admin, add_user):
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


def test_users_come_in_pages(admin, add_user):
    wanted = [add_user()["id"] for _ in range(3)]
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
    assert [one for one in found if one in wanted] == wanted
    assert_error(admin.http.get("/admin/v1/users", params={"after": "x"}), 400, "invalid_value", "after")


@pytest.fixture
def only_admin(admin) -> Iterator[ApiClient]:
    """The bootstrap admin, and no other; it is one again afterwards."""
    with psycopg.connect(admin.platform.database_url, autocommit=True) as connection:
        connection.execute("UPDATE users SET role = 'member' WHERE name <> 'admin' AND role = 'admin'")
        yield admin
        connection.execute("UPDATE users SET role = 'admin', disabled = false WHERE name = 'admin'")


def test_the_last_admin_stays(only_admin, add_user):
    patch = only_admin.http.patch
    assert_error(patch("/admin/v1/users/admin", json={"role": "member"}), 409, "last_admin")
    assert_error(patch("/admin/v1/users/admin", json={"disabled": True}), 409, "last_admin")
    # With a second one either may go, but not both, also when both are asked for at the same moment.
    names = ["admin", add_user(role="admin")["id"]]
    with ThreadPoolExecutor(2) as pool:
        answers = list(pool.map(lambda name: patch(f"/admin/v1/users/{name}", json={"role": "member"}), names))
    # 403: the first to go was the caller itself.
    assert sorted(answer.status_code for answer in answers) in ([200, 403], [200, 409])


# --- keys ---


def test_a_key_is_shown_once_and_stored_as_a_hash(admin, add_key):
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


def test_the_last_use_of_a_key_is_known(admin, add_key):
    made = add_key()
    assert made["last_used_at"] is None
    assert works(admin, made["key"])
    assert admin.http.get(f"/admin/v1/keys/{made['id']}").json()["last_used_at"] >= made["created_at"]


def test_a_revoked_key_stops_at_once(admin, add_key):
    made = add_key()
    assert works(admin, made["key"])
    assert admin.http.delete(f"/admin/v1/keys/{made['id']}").json()["status"] == "revoked"
    assert not works(admin, made["key"])
    again = admin.http.delete(f"/admin/v1/keys/{made['id']}")
    assert (again.status_code, again.json()["status"]) == (200, "revoked")
    assert_error(admin.http.post(f"/admin/v1/keys/{made['id']}/rotate"), 404, "key_not_found")


def test_a_rotated_key_works_on_for_its_grace(admin, add_key):
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


def test_an_expired_key(admin, add_key):
    assert not works(admin, add_key(expires_at="2020-01-01T00:00:00Z")["key"])
    assert works(admin, add_key(expires_at="2100-01-01T00:00:00Z")["key"])
    wish = {"user": "admin", "expires_at": "2100-01-01T00:00:00"}
    assert_error(admin.http.post("/admin/v1/keys", json=wish), 400, "invalid_value", "expires_at")


def test_a_disabled_users_keys_rest(admin, add_user, add_key):
    user = add_user()
    key = add_key(user=user["id"])["key"]
    admin.http.patch(f"/admin/v1/users/{user['id']}", json={"disabled": True})
    assert not works(admin, key)
    admin.http.patch(f"/admin/v1/users/{user['id']}", json={"disabled": False})
    assert works(admin, key)


def test_what_a_key_may_do(admin, add_key):
    def draw(key: str, **fields: Any) -> httpx.Response:
        with admin.as_caller(key) as caller:
            return caller.http.post(IMAGES, json={"prompt": "a", "n": 1, "async": True, **fields})

    assert_error(draw(add_key(role="viewer")["key"]), 403, "forbidden")
    assert_error(draw(add_key(scopes=["read"])["key"]), 403, "forbidden")
    assert draw(add_key(scopes=["generate"])["key"]).status_code == 202
    # An alias stands for its model, on both sides.
    narrow = add_key(models=["jimeng-image-4.0"])
    assert narrow["models"] == ["jimeng-4.0"]
    assert draw(narrow["key"], model="jimeng-4.0").status_code == 202
    assert "jimeng-4.0" in assert_error(draw(narrow["key"], model="jimeng-3.0"), 403, "model_not_allowed", "model")
    assert_error(
        admin.http.post("/admin/v1/keys", json={"user": "admin", "models": ["x"]}), 404, "model_not_found", "model"
    )


def test_keys_of_one_user(admin, add_user, add_key):
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


def test_accounts_come_and_go(admin):
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
        gone = [admin.http.delete(f"/admin/v1/accounts/{one['id']}").json() for one in made]
    assert {one["state"] for one in gone} == {"retired"}
    listed = admin.http.get("/admin/v1/accounts", params={"limit": 1000}).json()["data"]
    assert not {one["id"] for one in made} & {one["id"] for one in listed}


def test_an_account_that_rests_may_be_called_back(admin):
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


# --- shares of the accounts (who is served when: test_turns.py) ---


def test_weight_and_priority_are_set_and_written_down(admin, add_user):
    user = add_user(weight=2.5)
    assert (user["weight"], user["priority"]) == (2.5, 0)
    path = f"/admin/v1/users/{user['id']}"
    changed = admin.http.patch(path, json={"priority": 2}).json()
    assert (changed["weight"], changed["priority"], changed["role"]) == (2.5, 2, user["role"])
    assert admin.http.patch(path, json={"weight": 0.5}).json()["weight"] == 0.5
    acts = admin.http.get("/admin/v1/audit", params={"action": "user.change"}).json()["data"]
    told_of = [act["details"] for act in acts if act["target"] == user["id"]]
    assert [{key: one[key] for key in one if key != "name"} for one in told_of] == [{"weight": 0.5}, {"priority": 2}]


@pytest.mark.parametrize(
    ("field", "value"),
    [("weight", 0), ("weight", -1), ("weight", 1e9), ("weight", "NaN"), ("priority", 6), ("priority", 1.5)],
)
def test_a_share_that_cannot_be_is_refused(admin, add_user, field, value):
    user = add_user()
    answer = admin.http.patch(f"/admin/v1/users/{user['id']}", json={field: value})
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == field


# --- the audit log ---


def test_every_act_is_written_down(admin, add_user, add_key):
    user = add_user()
    key = add_key(user=user["name"])
    admin.http.patch(f"/admin/v1/users/{user['id']}", json={"disabled": True})
    rotated = admin.http.post(f"/admin/v1/keys/{key['id']}/rotate").json()
    admin.http.delete(f"/admin/v1/keys/{rotated['id']}")
    answer = admin.http.get("/admin/v1/audit", params={"limit": 1000}).json()
    AuditList.model_validate(answer)
    about = {user["id"], key["id"], rotated["id"]}
    acts = [(act["action"], act["target"]) for act in answer["data"] if act["target"] in about]
    assert acts == [
        ("key.revoke", rotated["id"]),
        ("key.rotate", key["id"]),
        ("user.change", user["id"]),
        ("key.make", key["id"]),
        ("user.add", user["id"]),
    ]
    written = {(act["actor"], act["address"]) for act in answer["data"] if act["target"] in about}
    assert written == {("admin", "127.0.0.1")}
    only = admin.http.get("/admin/v1/audit", params={"action": "key", "limit": 1000}).json()["data"]
    assert {act["action"].partition(".")[0] for act in only} == {"key"}
    assert admin.http.get("/admin/v1/audit", params={"since": time.time() + 60}).json()["data"] == []


def test_a_refused_act_leaves_no_line(only_admin):
    admin = only_admin
    before = admin.http.get("/admin/v1/audit", params={"limit": 1}).json()["data"]
    assert_error(admin.http.patch("/admin/v1/users/admin", json={"role": "member"}), 409, "last_admin")
    assert admin.http.get("/admin/v1/audit", params={"limit": 1}).json()["data"] == before


def test_the_log_cannot_be_changed(admin, add_user):
    add_user()
    with psycopg.connect(admin.platform.database_url) as connection:
        for words in ("UPDATE audit_log SET actor = 'nobody'", "DELETE FROM audit_log"):
            with pytest.raises(psycopg.errors.RaiseException, match="append-only"):
                connection.execute(words)
            connection.rollback()


# --- commands ---


def command(client: ApiClient, *words: str, given: str | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "api.cli.main", *words],
        cwd=ROOT,
        env=clean_env(DREAMERY_URL=client.platform.url, DREAMERY_ADMIN_KEY=client.platform.admin_key),
        input=given,
        capture_output=True,
        text=True,
        check=False,
    )


def inside(client: ApiClient, *words: str, given: str | None = None) -> Result:
    """The command without a process of its own, which takes as long as ten commands."""
    env = {"DREAMERY_URL": client.platform.url, "DREAMERY_ADMIN_KEY": client.platform.admin_key}
    return CliRunner().invoke(cli, words, input=given, env=env, catch_exceptions=False)


def told(client: ApiClient, *words: str, given: str | None = None) -> Any:
    done = inside(client, *words, "--json", given=given)
    assert done.exit_code == 0, done.stderr
    return json.loads(done.stdout)


def test_the_commands(admin):
    name = new_name()
    user = told(admin, "users", "add", name, "--role", "member")
    assert user["name"] == name
    made = told(admin, "keys", "add", name, "--name", "ci", "--scope", "generate", "--model", "jimeng-4.0")
    assert {"id", "key"} <= set(made)
    assert works(admin, made["key"])
    assert [key["id"] for key in told(admin, "keys", "list", "--user", name)["data"]] == [made["id"]]
    fresh = told(admin, "keys", "rotate", made["id"])
    assert works(admin, fresh["key"])
    assert not works(admin, made["key"])
    assert told(admin, "keys", "disable", fresh["id"])["status"] == "revoked"
    assert told(admin, "users", "disable", name)["disabled"] is True
    assert told(admin, "users", "show", name)["disabled"] is True
    assert told(admin, "users", "enable", name)["disabled"] is False
    assert told(admin, "users", "role", name, "viewer")["role"] == "viewer"
    shared = told(admin, "users", "share", name, "--weight", "3", "--priority", "-1")
    assert (shared["weight"], shared["priority"]) == (3, -1)
    assert inside(admin, "users", "share", name).exit_code == 2
    assert user["id"] in {one["id"] for one in told(admin, "users", "list")["data"]}
    session = f"cli{time.time_ns()}:sandbox"
    account = told(admin, "accounts", "add", session, "--label", "cli")
    assert told(admin, "accounts", "disable", account["id"])["state"] == "paused"
    assert told(admin, "accounts", "enable", account["id"])["state"] == "ok"
    assert account["id"] in {one["id"] for one in told(admin, "accounts", "list")["data"]}
    change = ("--max-jobs-per-day", "9", "--hours", "22:00-06:00", "--days", "sat,sun", "--zone", "Asia/Tokyo")
    changed = told(admin, "accounts", "set", account["id"], *change, "--group", "staff", "--max-images", "3")
    assert (changed["max_jobs_per_day"], changed["groups"], changed["max_images"]) == (9, ["staff"], 3)
    hours = {"days": ["sat", "sun"], "start": "22:00", "end": "06:00", "zone": "Asia/Tokyo"}
    assert changed["working_hours"] == hours
    wide = told(
        admin, "accounts", "set", account["id"], "--hours", "none", "--max-jobs-per-day", "none", "--group", "all"
    )
    assert (wide["max_jobs_per_day"], wide["groups"], wide["working_hours"]) == (None, [], None)
    assert told(admin, "accounts", "check", account["id"])["check"]["live"] is True
    fresh_session = f"fresh{time.time_ns()}:sandbox"
    assert told(admin, "accounts", "login", account["id"], "-", given=fresh_session)["check"]["live"] is True
    assert told(admin, "users", "groups", name, "staff", "board")["groups"] == ["staff", "board"]
    assert told(admin, "accounts", "remove", account["id"])["state"] == "retired"
    assert session not in json.dumps(told(admin, "audit", "list"))
    assert "user.add" in {act["action"] for act in told(admin, "audit", "list")["data"]}
    table = command(admin, "keys", "list").stdout
    assert made["id"] in table
    assert made["key"] not in table


def test_many_accounts_from_standard_input(admin):
    number = time.time_ns()
    lines = ["# from the studio", f"stdin-one-{number}:sandbox", "not usable", f"dead-stdin-{number}:sandbox"]
    done = command(admin, "accounts", "add", "-", "--label", "many", given="\n".join(lines))
    assert done.returncode == 1, "one was refused"
    for word in ("added", "refused", "Token 2 is not usable", "many 1", "many 3"):
        assert word in done.stdout
    assert str(number) not in done.stdout + done.stderr
    found = told(admin, "accounts", "list")["data"]
    made = {one["label"]: one for one in found if one["label"].startswith("many ")}
    assert set(made) == {"many 1", "many 3"}
    assert made["many 1"]["credits"] > 0
    assert made["many 3"]["state_code"] == "upstream_session_expired"
    for one in made.values():
        assert one["id"] in done.stdout
        told(admin, "accounts", "remove", one["id"])


def test_a_command_that_fails_says_why(admin):
    done = command(admin, "keys", "add", "nobody at all")
    assert done.returncode == 1
    assert "No user 'nobody at all'" in done.stderr
