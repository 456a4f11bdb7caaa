"""Admin routes for jobs, limits and the audit export, and their commands, on a running platform."""

import csv
import io
import json
import os
import pty
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from api.admin.schemas import AdminJobDetails, AdminJobList
from api.cli.api_client import ClientError
from api.cli.main import app
from api.jobs.timeline.schemas import Waiting
from tests.support.api_client import ApiClient, assert_error, new_key
from tests.support.platform import ROOT, clean_env
from worker.core.settings import get_settings

_count = iter(range(10**6))
Add = Callable[..., tuple[str, ApiClient]]


@pytest.fixture
def admin(api_platform) -> Iterator[ApiClient]:
    with ApiClient(api_platform, api_platform.admin_key) as client:
        yield client


@pytest.fixture
def add(admin) -> Iterator[Add]:
    """Add a user with a key; returns the name and a client."""
    faces = []

    def make(**limits: Any) -> tuple[str, ApiClient]:
        name = f"member {next(_count)} {time.time_ns()}"
        body = {"name": name, **({"limits": limits} if limits else {})}
        assert admin.http.post("/admin/v1/users", json=body).status_code == 201
        key = admin.http.post("/admin/v1/keys", json={"user": name, "name": "member key"}).json()["key"]
        faces.append(admin.as_caller(key))
        return name, faces[-1]

    yield make
    for client in faces:
        client.http.close()


def audit_entries(admin: ApiClient, job_id: str) -> list[tuple[str, str]]:
    found = admin.http.get("/admin/v1/audit", params={"action": "job", "limit": 1000}).json()["data"]
    return [(entry["action"], entry["actor"]) for entry in found if entry["target"] == job_id]


def list_job_ids(admin: ApiClient, **query: Any) -> list[str]:
    answer = admin.http.get("/admin/v1/jobs", params=query)
    assert answer.status_code == 200, answer.text
    AdminJobList.model_validate(answer.json())
    return [job["id"] for job in answer.json()["data"]]


def last_text(answer: Any) -> str:
    return answer.json()["data"][-1]["text"]["en"]


def test_timeline_says_who_cancelled(admin, add: Add) -> None:
    _, one = add()
    mine, theirs = (one.start_job("a boat [[queue:60]]")["id"] for _ in range(2))
    one.cancel(mine)
    admin.http.post(f"/admin/v1/jobs/{theirs}/cancel")
    for job in (mine, theirs):
        one.wait_for_end(job)
    assert last_text(one.http.get(f"/v1/jobs/{mine}/timeline")) == "Cancelled by you."
    owners = one.http.get(f"/v1/jobs/{theirs}/timeline")
    assert last_text(owners) == "Cancelled by an administrator."
    assert "name" not in owners.text, "only administrators see each other's names"
    answers = [admin.http.get(f"/admin/v1/jobs/{job}").json()["timeline"]["data"][-1] for job in (mine, theirs)]
    assert [answer["text"]["en"] for answer in answers] == ["Cancelled by its owner.", "Cancelled by you."]
    name = f"second {time.time_ns()}"
    admin.http.post("/admin/v1/users", json={"name": name, "role": "admin"})
    key = admin.http.post("/admin/v1/keys", json={"user": name, "scopes": ["admin", "read"]}).json()["key"]
    with admin.as_caller(key) as second:
        shown = second.http.get(f"/admin/v1/jobs/{theirs}").json()["timeline"]["data"][-1]["text"]
    assert shown["en"] == "Cancelled by admin, an administrator."


def test_jobs_of_all_users_are_listed_and_filtered(admin, add: Add) -> None:
    (alice, one), (bob, other) = add(), add()
    mine = one.wait_for_end(one.start_job("a boat")["id"])["id"]
    broken = one.wait_for_end(one.start_job("a boat [[fail:2038]]", model="jimeng-3.0")["id"])["id"]
    theirs = other.wait_for_end(other.start_job("a boat")["id"])["id"]
    with ApiClient(admin.platform) as tokens:
        theirs_too = tokens.start_job()["id"]
        assert {mine, broken, theirs, theirs_too} <= set(list_job_ids(admin, limit=100))
    assert list_job_ids(admin, user=alice) == [broken, mine]
    assert list_job_ids(admin, user=bob) == [theirs]
    assert list_job_ids(admin, user=alice, status="failed") == [broken]
    assert list_job_ids(admin, user=alice, model="jimeng-image-3.0") == [broken]
    assert list_job_ids(admin, user=alice, q="FAIL:20") == [broken]
    assert list_job_ids(admin, user=alice, since=time.time() + 60) == []
    assert list_job_ids(admin, user=alice, limit=1) == [broken]
    assert list_job_ids(admin, user=alice, limit=1, after=broken) == [mine]
    shown = AdminJobDetails.model_validate(admin.http.get(f"/admin/v1/jobs/{mine}").json())
    assert (shown.user, shown.key, shown.status) == (alice, "member key", "completed")
    assert [entry.state for entry in shown.timeline.data][-1] == "succeeded"
    assert {entry.account for entry in shown.timeline.data} - {None} == {shown.account}, "admins see labels"
    assert mine in list_job_ids(admin, user=alice, account=shown.account_id)
    assert list_job_ids(admin, user=alice, account=f"account_{'0' * 32}") == []
    assert_error(admin.http.get("/admin/v1/jobs", params={"user": "nobody"}), 404, "user_not_found")
    assert_error(admin.http.get("/admin/v1/jobs", params={"account": "x"}), 404, "account_not_found")
    assert_error(admin.http.get("/admin/v1/jobs", params={"status": "odd"}), 400, "invalid_value", "status")
    assert_error(admin.http.get("/admin/v1/jobs/job_x"), 404, "job_not_found")


def test_admin_cancels_and_retries_a_job(admin, add: Add) -> None:
    alice, one = add(jobs_per_day=1)
    job = one.start_job("a boat [[seconds:20]]")["id"]
    reasons = admin.http.get(f"/admin/v1/jobs/{job}/waiting")
    assert Waiting.model_validate(reasons.json()).id == job, reasons.text
    own = one.http.get(f"/v1/jobs/{job}/waiting").json()
    assert all(reason["labels"] is None for reason in own["data"])
    cancelled = admin.http.post(f"/admin/v1/jobs/{job}/cancel").json()
    assert (cancelled["id"], cancelled["user"]) == (job, alice)
    assert one.wait_for_status(job, "cancelled")
    assert audit_entries(admin, job) == [("job.cancel", "admin")]
    assert_error(one.http.post(f"/v1/jobs/{job}/retry"), 429, "budget_exceeded")
    answer = admin.http.post(f"/admin/v1/jobs/{job}/retry", json={"seed": 5})
    assert answer.status_code == 202, answer.text
    new = answer.json()["id"]
    # The new job belongs to the user and counts towards the user's limits.
    assert one.job(new)["metadata"]["retry_of"] == job
    assert audit_entries(admin, job) == [("job.retry", "admin"), ("job.cancel", "admin")]
    limits = {limit["name"]: limit for limit in one.http.get("/v1/usage").json()["limits"]}
    assert limits["jobs_per_day"]["used"] == 2
    one.cancel(new)
    assert_error(admin.http.post("/admin/v1/jobs/job_x/cancel"), 404, "job_not_found")
    assert_error(admin.http.get("/admin/v1/jobs/job_x/waiting"), 404, "job_not_found")
    assert_error(admin.http.get(f"/v1/jobs/{job}/waiting"), 404, "job_not_found")


def test_admin_cannot_retry_a_job_of_a_session_id_caller(admin) -> None:
    with ApiClient(admin.platform) as tokens:
        job = tokens.wait_for_end(tokens.start_job()["id"])["id"]
    assert_error(admin.http.post(f"/admin/v1/jobs/{job}/retry"), 400, "unsupported_operation")
    assert audit_entries(admin, job) == []


# --- limits over HTTP ---


def test_limits_are_set_shown_and_audited(admin, add: Add) -> None:
    alice, one = add(jobs_per_day=5)
    path = f"/admin/v1/users/{alice}"
    assert admin.http.get(path).json()["limits"]["jobs_per_day"] == 5
    change = {"limits": {"credits_per_month": 100, "jobs_per_day": None}, "soft_limits": {"open_jobs": 3}}
    changed = admin.http.patch(path, json=change).json()
    assert {k: v for k, v in changed["limits"].items() if v is not None} == {"credits_per_month": 100}
    assert changed["soft_limits"]["open_jobs"] == 3
    admin.http.patch(path, json={"limits": {"open_jobs": "unlimited"}})
    assert admin.http.get(path).json()["limits"]["credits_per_month"] == 100, "omitted limits keep their value"
    [key] = admin.http.get("/admin/v1/keys", params={"user": alice}).json()["data"]
    changed = admin.http.patch(f"/admin/v1/keys/{key['id']}", json={"name": "ci", "limits": {"jobs_per_day": 1}}).json()
    assert (changed["name"], changed["limits"]["jobs_per_day"]) == ("ci", 1)
    limit_names = {(limit["scope"], limit["name"]) for limit in one.http.get("/v1/usage").json()["limits"]}
    assert {("user", "credits_per_month"), ("user", "open_jobs"), ("key", "jobs_per_day")} <= limit_names
    log = admin.http.get("/admin/v1/audit", params={"limit": 20}).json()["data"]
    details = {entry["target"]: entry["details"] for entry in log if entry["action"] in {"user.change", "key.change"}}
    assert details[key["id"]]["limits"] == {"jobs_per_day": 1}
    for body in ({"limits": {"jobs_per_dya": 1}}, {"limits": {"jobs_per_day": -1}}, {"limits": {"jobs_per_day": "x"}}):
        answer = admin.http.patch(path, json=body)
        assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_value")
    assert_error(admin.http.patch("/admin/v1/keys/key_x", json={}), 404, "key_not_found")


# --- audit export ---


def test_audit_log_export(admin, add: Add) -> None:
    alice, _ = add()
    answer = admin.http.get("/admin/v1/audit/export", params={"action": "user"})
    assert answer.headers["content-type"].startswith("application/jsonl")
    entries = [json.loads(line) for line in answer.text.splitlines()]
    assert [entry["id"] for entry in entries] == sorted(entry["id"] for entry in entries), "oldest first"
    [mine] = [entry for entry in entries if entry["details"].get("name") == alice]
    assert (mine["action"], mine["actor"], mine["address"]) == ("user.add", "admin", "127.0.0.1")
    answer = admin.http.get("/admin/v1/audit/export", params={"format": "csv", "since": time.time() - 3600})
    rows = list(csv.DictReader(io.StringIO(answer.text)))
    assert alice in {json.loads(row["details"]).get("name") for row in rows}
    assert admin.http.get("/admin/v1/audit/export", params={"since": time.time() + 60}).text == ""
    [newest, *_] = admin.http.get("/admin/v1/audit", params={"action": "audit"}).json()["data"]
    assert newest["action"] == "audit.export"


# --- commands ---


def invoke(client: ApiClient, *words: str, key: str | None = None) -> Result:
    """Run the command in this process, because starting Python takes too long."""
    env = {"DREAMERY_URL": client.platform.url, "DREAMERY_ADMIN_KEY": key or client.platform.admin_key, "COLUMNS": "60"}
    return CliRunner(env=env).invoke(app, list(words))


def run(client: ApiClient, *words: str, key: str | None = None) -> str:
    done = invoke(client, *words, key=key)
    assert done.exit_code == 0, done.output
    return done.output


@pytest.fixture(autouse=True)
def _own_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """Isolate the settings of this process, which the commands read, from those of the platform."""
    monkeypatch.chdir(tmp_path)
    get_settings.cache_clear()
    yield
    get_settings.cache_clear()


def test_admin_commands(admin, add: Add, tmp_path) -> None:
    alice, one = add()
    job = one.wait_for_end(one.start_job("a boat")["id"])["id"]
    assert [found["id"] for found in json.loads(run(admin, "jobs", "list", "--user", alice, "--json"))["data"]] == [job]
    assert job[-8:] in run(admin, "jobs", "list", "--all", "--since", "1h")
    assert job[-8:] in run(admin, "jobs", "list", "--status", "completed", key=one.key)
    for key in (None, one.key):
        shown = run(admin, "jobs", "show", job, key=key)
        assert "completed" in shown
        new = json.loads(run(admin, "jobs", "retry", job, "--seed", "new", "--json", key=key))["id"]
        assert json.loads(run(admin, "jobs", "cancel", new, "--json", key=key))["id"] == new
    run(admin, "users", "limits", alice, "--set", "jobs_per_day=50", "--warn", "jobs-per-day=40")
    limits = json.loads(run(admin, "users", "limits", alice, "--json"))
    assert (limits["limits"]["jobs_per_day"], limits["soft_limits"]["jobs_per_day"]) == (50, 40)
    [made] = admin.http.get("/admin/v1/keys", params={"user": alice}).json()["data"]
    assert "open_jobs: 5" in run(admin, "keys", "limits", made["id"], "--set", "open_jobs=5")
    assert "jobs_per_day" in run(admin, "usage", key=one.key)
    report = json.loads(run(admin, "usage", "--user", alice, "--group-by", "model", "--json"))
    assert report["total"]["accepted"] == 3
    assert run(admin, "usage", "--all", "--csv").startswith("user_id,user,accepted")
    target = tmp_path / "audit.csv"
    run(admin, "audit", "export", "--csv", "--out", str(target))
    assert alice in target.read_text(encoding="utf-8")
    assert alice in run(admin, "audit", "export", "--action", "user")


def test_tables_fit_a_narrow_terminal(admin, add: Add) -> None:
    """A row that does not fit is printed with one field per line; piped output keeps one row per line."""
    alice, _ = add()
    [key] = admin.http.get("/admin/v1/keys", params={"user": alice}).json()["data"]
    words = [sys.executable, "-m", "api.cli.main", "keys", "list", "--user", alice]
    env = clean_env(
        DREAMERY_URL=admin.platform.url, DREAMERY_ADMIN_KEY=admin.platform.admin_key, COLUMNS="60", TERM="xterm"
    )
    parent, child = pty.openpty()
    subprocess.run(words, cwd=ROOT, env=env, stdout=child, check=True)
    os.close(child)
    shown = os.read(parent, 65536).decode()
    os.close(parent)
    lines = [line.rstrip() for line in shown.splitlines()]
    assert f"id      {key['id'][-8:]}" in lines
    assert f"user    {alice}" in lines
    assert max(map(len, lines)) <= 60
    assert len(run(admin, "keys", "list", "--user", alice).splitlines()) == 2


def test_command_without_admin_rights_fails(admin, add: Add) -> None:
    _, one = add()
    done = invoke(admin, "jobs", "cancel", one.start_job()["id"], key=new_key())
    assert isinstance(done.exception, ClientError)
    assert "No job" in str(done.exception)
