"""Floor, ceiling and eagerness of the polling of an account: who may set which values, and how it is polled then."""

from typing import Any
from uuid import UUID

import pytest
from starlette.testclient import TestClient

from api.accounts.schemas import Account, AccountImportResult, AccountList
from api.operations.schemas import System
from tests.support.api_client import assert_error
from tests.support.engine import Engine
from worker.core.ids import parse_public_id
from worker.tasks.poll import poll

ADMIN = "/admin/v1/accounts"
OWN = "/v1/accounts"
POLLING = ("poll_min_seconds", "poll_max_seconds", "poll_eagerness")
BY_SETTINGS = (None, None, None)


def add(http: TestClient, name: str, path: str = ADMIN, **fields: Any) -> dict[str, Any]:
    headers = fields.pop("headers", None)
    answer = http.post(path, json={"tokens": f"{name}:sandbox", "check": False, **fields}, headers=headers)
    assert answer.status_code == 201, answer.text
    AccountImportResult.model_validate(answer.json(), strict=True)
    return dict(answer.json()["data"][0])


def polling_of(account: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(account[name] for name in POLLING)


def row_id(account: dict[str, Any]) -> UUID:
    found = parse_public_id("account", account["id"])
    assert found is not None
    return found


def audited(http: TestClient, account: dict[str, Any], action: str) -> list[dict[str, Any]]:
    """Return the details of these actions on the account."""
    entries = http.get("/admin/v1/audit", params={"limit": 1000}).json()["data"]
    return [one["details"] for one in entries if (one["target"], one["action"]) == (account["id"], action)]


def test_limits_are_set_shown_and_reset(http: TestClient) -> None:
    one = add(http, "plain-polled-00001")
    assert polling_of(one) == BY_SETTINGS
    path = f"{ADMIN}/{one['id']}"
    limits = {"poll_min_seconds": 0.05, "poll_max_seconds": 600, "poll_eagerness": 0.01}
    changed = http.patch(path, json=limits).json()
    Account.model_validate(changed, strict=True)
    [listed] = http.get(ADMIN).json()["data"]
    for shown in (changed, http.get(path).json(), listed):
        assert polling_of(shown) == (0.05, 600, 0.01)
    kept = http.patch(path, json={"max_images": 3}).json()
    assert polling_of(kept) == (0.05, 600, 0.01)
    assert limits in audited(http, one, "account.change")
    partly = http.patch(path, json={"poll_max_seconds": None}).json()
    assert polling_of(partly) == (0.05, None, 0.01)
    assert polling_of(http.patch(path, json=dict.fromkeys(POLLING)).json()) == BY_SETTINGS


def test_console_reads_the_settings_of_the_platform(engine: Engine, http: TestClient) -> None:
    engine.configure(POLL_MIN_SECONDS="0.3", POLL_MAX_SECONDS="45", POLL_EAGERNESS="2")
    system = http.get("/admin/v1/system").json()
    System.model_validate(system, strict=True)
    assert polling_of(system["defaults"]) == (0.3, 45, 2)


def test_new_accounts_get_the_limits_of_the_request(http: TestClient) -> None:
    limits = {"poll_min_seconds": 2, "poll_eagerness": 0.5}
    one = add(http, "plain-created-0001", **limits)
    assert polling_of(one) == (2, None, 0.5)
    again = add(http, "plain-created-0001", poll_min_seconds=3)
    assert (again["outcome"], polling_of(again)) == ("duplicate", (2, None, 0.5))
    [recorded] = audited(http, one, "account.add")
    assert limits.items() <= recorded.items()
    http.delete(f"{ADMIN}/{one['id']}")
    assert polling_of(add(http, "plain-created-0001")) == (2, None, 0.5), "it comes back as it was"
    http.delete(f"{ADMIN}/{one['id']}")
    assert polling_of(add(http, "plain-created-0001", poll_max_seconds=9)) == (None, 9, None)


@pytest.mark.parametrize(
    ("limits", "param"),
    [
        ({"poll_min_seconds": 0.04}, "poll_min_seconds"),
        ({"poll_min_seconds": 60.5}, "poll_min_seconds"),
        ({"poll_min_seconds": "often"}, "poll_min_seconds"),
        ({"poll_max_seconds": 600.5}, "poll_max_seconds"),
        ({"poll_max_seconds": 0}, "poll_max_seconds"),
        ({"poll_eagerness": 0.009}, "poll_eagerness"),
        ({"poll_eagerness": 101}, "poll_eagerness"),
        ({"poll_min_seconds": 5, "poll_max_seconds": 4}, "poll_min_seconds"),
        ({"poll_max_seconds": 0.1}, "poll_max_seconds"),  # below the floor of the settings
        ({"poll_min_seconds": 41}, "poll_min_seconds"),  # above their ceiling
    ],
)
def test_invalid_limits_name_the_field(engine: Engine, http: TestClient, limits: dict[str, Any], param: str) -> None:
    engine.configure(POLL_MIN_SECONDS="0.2", POLL_MAX_SECONDS="40")
    one = add(http, "plain-invalid-0001")
    assert_error(http.patch(f"{ADMIN}/{one['id']}", json=limits), 400, "invalid_value", param)
    body = {"tokens": "plain-invalid-0002:sandbox", **limits}
    assert_error(http.post(ADMIN, json=body), 400, "invalid_value", param)
    [left] = http.get(ADMIN).json()["data"]
    assert polling_of(left) == BY_SETTINGS


def test_limits_are_compared_with_those_that_the_account_has(engine: Engine, http: TestClient) -> None:
    engine.configure(POLL_MAX_SECONDS="40")
    one = add(http, "plain-compared-001", poll_min_seconds=50, poll_max_seconds=500)
    path = f"{ADMIN}/{one['id']}"
    message = assert_error(http.patch(path, json={"poll_max_seconds": 49}), 400, "invalid_value", "poll_max_seconds")
    assert message == "`poll_min_seconds` (50) must not exceed `poll_max_seconds` (49)."
    message = assert_error(http.patch(path, json={"poll_max_seconds": None}), 400, "invalid_value", "poll_max_seconds")
    assert "(50) must not exceed 40, the platform's longest" in message
    chinese = http.patch(path, json={"poll_max_seconds": None}, headers={"Accept-Language": "zh-CN"})
    assert "平台的最长轮询间隔" in chinese.json()["error"]["message"]
    # The setting changes later: what the account has stays, and its other fields can change.
    engine.sql("UPDATE accounts SET poll_max_seconds = NULL")
    same = {"poll_min_seconds": 50, "poll_max_seconds": None, "poll_eagerness": 3, "label": "renamed"}
    changed = http.patch(path, json=same).json()
    assert (changed["label"], polling_of(changed)) == ("renamed", (50, None, 3))


def test_members_cannot_go_below_the_floor_of_the_platform(
    engine: Engine, http: TestClient, anna: dict[str, str]
) -> None:
    engine.configure(POLL_MIN_SECONDS="0.5")
    mine = add(http, "plain-annas-000001", OWN, headers=anna, poll_min_seconds=2, poll_max_seconds=20)
    assert polling_of(mine) == (2, 20, None)
    path = f"{OWN}/{mine['id']}"
    rarer = {"poll_min_seconds": 0.5, "poll_max_seconds": 5, "poll_eagerness": 0.5}
    assert polling_of(http.patch(path, json=rarer, headers=anna).json()) == (0.5, 5, 0.5)
    message = assert_error(
        http.patch(path, json={"poll_min_seconds": 0.4}, headers=anna), 400, "invalid_value", "poll_min_seconds"
    )
    assert "must be at least 0.5, the platform's shortest polling interval" in message
    assert "Only an administrator" in message
    body = {"tokens": "plain-annas-000002:sandbox", "poll_min_seconds": 0.1}
    assert_error(http.post(OWN, json=body, headers=anna), 400, "invalid_value", "poll_min_seconds")
    # An administrator may, and the member can still change the rest, but not the ceiling to below the floor.
    fast = {"poll_min_seconds": 0.1, "poll_max_seconds": 0.2}
    assert polling_of(http.patch(f"{ADMIN}/{mine['id']}", json=fast).json()) == (0.1, 0.2, 0.5)
    own = http.get(path, headers=anna).json()
    assert polling_of(http.patch(path, json={**fast, "poll_eagerness": 1}, headers=anna).json()) == (0.1, 0.2, 1)
    assert polling_of(own) == (0.1, 0.2, 0.5)
    assert_error(
        http.patch(path, json={"poll_max_seconds": 0.3}, headers=anna), 400, "invalid_value", "poll_max_seconds"
    )
    listed = http.get(OWN, headers=anna).json()
    AccountList.model_validate(listed, strict=True)
    assert [polling_of(one) for one in listed["data"]] == [(0.1, 0.2, 1)]
    pooled = add(http, "plain-pool-0000001")
    assert_error(
        http.patch(f"{OWN}/{pooled['id']}", json={"poll_max_seconds": 30}, headers=anna), 404, "account_not_found"
    )


def test_new_owner_does_not_inherit_the_limits(http: TestClient, anna: dict[str, str]) -> None:
    one = add(http, "plain-inherits-001", poll_min_seconds=0.05, poll_max_seconds=0.1, poll_eagerness=100)
    http.delete(f"{ADMIN}/{one['id']}")
    mine = add(http, "plain-inherits-001", OWN, headers=anna)
    assert (mine["id"], mine["outcome"], polling_of(mine)) == (one["id"], "returned", BY_SETTINGS)


def test_accounts_are_polled_by_their_own_limits(engine: Engine, http: TestClient) -> None:
    engine.configure(POLL_MAX_SECONDS="12", ACCOUNT_SUBMITS_PER_MINUTE="600")
    often, usual, rare = (add(http, f"plain-{name}-0000001") for name in ("often", "usual", "rare"))
    http.patch(f"{ADMIN}/{often['id']}", json={"poll_max_seconds": 5})
    http.patch(f"{ADMIN}/{rare['id']}", json={"poll_min_seconds": 14, "poll_max_seconds": 18})
    for account in (often, usual, rare):
        engine.add_running_job(row_id(account))
    # After an hour, only the ceiling ends the wait: without learned durations it grows with the age of the job.
    engine.sql("UPDATE jobs SET submitted_at = now() - interval '1 hour'")
    waits = {}
    for account in (often, usual, rare):
        engine.make_due()
        assert poll(account_id=row_id(account)).startswith("polled 1 jobs")
        [row] = engine.sql(
            "SELECT extract(epoch FROM poll_due_at - clock_timestamp())::float8 AS wait FROM accounts WHERE id = :id",
            id=row_id(account),
        )
        waits[account["id"]] = row.wait
    assert waits[often["id"]] <= 5
    assert 5 < waits[usual["id"]] <= 12
    assert 12 < waits[rare["id"]] <= 18
