"""Times and priority of single requests, the limit under which requests wait, and the accounts and groups of keys."""

import time
from typing import Any
from uuid import UUID

import pytest
from starlette.testclient import TestClient

from tests.integration.api.generation.batches.conftest import IMAGES, states
from tests.support.api_client import assert_error
from tests.support.engine import Engine
from worker.core.ids import parse_public_id
from worker.tasks.dispatch import tick


def start(http: TestClient, **headers: str) -> Any:
    return http.post(IMAGES, json={"prompt": "a boat", "n": 1, "async": True}, headers=headers)


def test_request_for_later_is_held_and_says_so(engine: Engine, http: TestClient) -> None:
    later = int(time.time()) + 3600
    job = start(http, **{"X-Not-Before": str(later), "X-Expires-At": str(later + 60)}).json()
    assert job["status"] == "queued"
    assert job["schedule"] == {"held": True, "not_before": later, "expires_at": later + 60, "priority": "normal"}
    assert job["eta"] is None
    tick()
    assert states(engine) == ["held"]
    assert http.post(f"/v1/jobs/{job['id']}/cancel").json()["status"] == "cancelled"


def test_times_are_a_part_of_the_request(engine: Engine, http: TestClient) -> None:
    first = start(http, **{"X-Priority": "idle"}).json()
    assert start(http).json()["id"] != first["id"]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("X-Not-Before", "tomorrow"),
        ("X-Not-Before", "2026-12-01T00:00:00"),
        ("X-Not-Before", "1796111566000"),
        ("X-Expires-At", "1000"),
        ("X-Priority", "urgent"),
    ],
)
def test_bad_times_are_refused(http: TestClient, name: str, value: str) -> None:
    assert_error(start(http, **{name: value}), 400, "invalid_value", param=name.lower())


def test_requests_of_a_limited_key_wait_instead_of_being_refused(engine: Engine, http: TestClient, add_key) -> None:
    headers = add_key(limits={"concurrent_jobs": 2})
    jobs = [start(http, **headers).json()["id"] for _ in range(4)]
    assert states(engine) == ["queued", "queued", "held", "held"]
    first = [parsed for job in jobs[:2] if (parsed := parse_public_id("job", job))]
    assert engine.run_until_final(*first) == ["succeeded", "succeeded"]
    tick()
    assert sorted(states(engine)) == ["queued", "queued", "succeeded", "succeeded"]


def test_admin_sees_and_changes_the_limit(http: TestClient, add_key) -> None:
    add_key()
    [key] = http.get("/admin/v1/keys", params={"user": "anna"}).json()["data"]
    changed = http.patch(f"/admin/v1/keys/{key['id']}", json={"limits": {"concurrent_jobs": 3}}).json()
    assert changed["limits"]["concurrent_jobs"] == 3
    refused = http.patch(f"/admin/v1/keys/{key['id']}", json={"limits": {"concurrent_jobs": 0}})
    assert_error(refused, 400, "invalid_value", param="limits.concurrent_jobs")


def accounts(http: TestClient) -> list[dict[str, Any]]:
    """The demo accounts of the first provider."""
    found = http.get("/admin/v1/accounts").json()["data"]
    return [account for account in found if account["provider"] == "dreamina"]


def named(engine: Engine) -> list[list[UUID]]:
    return [list(row.account_ids) for row in engine.sql("SELECT account_ids FROM jobs ORDER BY id")]


def test_jobs_of_a_key_run_on_its_accounts_only(engine: Engine, http: TestClient, add_key) -> None:
    account = accounts(http)[0]
    headers = add_key(accounts=[account["label"]])
    assert start(http, **headers).status_code == 202
    assert named(engine) == [[parse_public_id("account", account["id"])]]
    made = http.post("/v1/keys", json={"name": "child"}, headers=headers).json()
    assert made["accounts"] == [account["id"]]
    # A key makes no key with more accounts.
    assert_error(http.post("/v1/keys", json={"account_groups": ["g"]}, headers=headers), 403, "forbidden")


def test_key_selects_groups_and_can_be_changed_later(engine: Engine, http: TestClient, add_key) -> None:
    account = accounts(http)[0]
    assert http.patch(f"/admin/v1/accounts/{account['id']}", json={"groups": ["studio"]}).status_code == 200
    headers = add_key(account_groups=["studio"])
    http.patch("/admin/v1/users/anna", json={"groups": ["studio"]})
    assert start(http, **headers).status_code == 202
    assert named(engine) == [[parse_public_id("account", account["id"])]]
    [key] = http.get("/admin/v1/keys", params={"user": "anna"}).json()["data"]
    http.patch(f"/admin/v1/keys/{key['id']}", json={"account_groups": ["nobody"]})
    assert_error(start(http, **headers), 503, "no_account_available")
    http.patch(f"/admin/v1/keys/{key['id']}", json={"account_groups": None})
    assert start(http, **headers).status_code == 202
    rotated = http.post(f"/admin/v1/keys/{key['id']}/rotate").json()
    assert (rotated["accounts"], rotated["account_groups"]) == (None, None)


def test_unknown_accounts_are_refused(http: TestClient, add_key) -> None:
    add_key()
    answer = http.post("/admin/v1/keys", json={"user": "anna", "accounts": ["nothing"]})
    assert_error(answer, 404, "account_not_found", param="accounts")
