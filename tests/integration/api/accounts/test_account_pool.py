"""Accounts: imports, states, checks, changes, and access rights."""

import json
import threading
from collections.abc import Callable
from typing import Any
from uuid import UUID

import pytest
from starlette.testclient import TestClient

from api.accounts.schemas import Account, AccountImportResult, AccountList, CheckedAccount
from tests.support.api_client import assert_error
from tests.support.engine import Engine
from tests.support.platform import eventually
from tests.support.servers.proxies import PASSWORD, USER, running_proxy
from worker.core.ids import parse_public_id
from worker.db.accounts import model_listings, session_checks
from worker.db.engine import transaction
from worker.tasks.check_session import check
from worker.tasks.dispatch import sweep
from worker.tasks.refresh_accounts import refresh_accounts

ADMIN = "/admin/v1/accounts"
OWN = "/v1/accounts"


def add(http: TestClient, tokens: str, path: str = ADMIN, **fields: Any) -> dict[str, Any]:
    headers = fields.pop("headers", None)
    answer = http.post(path, json={"tokens": tokens, "check": False, **fields}, headers=headers)
    assert answer.status_code == 201, answer.text
    AccountImportResult.model_validate(answer.json(), strict=True)
    return dict(answer.json())


def account_row_id(account: dict[str, Any]) -> UUID:
    found = parse_public_id("account", account["id"])
    assert found is not None
    return found


def read_account(http: TestClient, account: dict[str, Any]) -> dict[str, Any]:
    answer = http.get(f"{ADMIN}/{account['id']}")
    Account.model_validate(answer.json(), strict=True)
    return dict(answer.json())


# --- import ---


@pytest.mark.usefixtures("worker")
def test_import_reports_the_outcome_of_each_entry(engine: Engine, http: TestClient) -> None:
    known = engine.add_account(session="known-before-00001", region="us", pool=True)
    lines = [
        "# the studio's",
        "us-plain-import-0001, plain-import-000002:cn",
        "  x-jp-import-000003:auto  ",
        "",
        "dead-import-000004:sandbox",
        "not a session id",
        "us-known-before-00001",
        "us-plain-import-0001",
        "nowhere-import-001:mars",
    ]
    found = add(http, "\r\n".join(lines), label="studio", check=True)
    outcomes = [(one["line"], one["outcome"], one["label"]) for one in found["data"]]
    assert outcomes == [
        (2, "added", "studio 1"), (3, "added", "studio 2"), (4, "added", "studio 3"), (6, "added", "studio 4"),
        (8, "duplicate", engine.account_row(known).label), (9, "duplicate", "studio 1"),
    ]  # fmt: skip
    us, cn, jp, dead, _, again = found["data"]
    assert again["id"] == us["id"]
    for one in (us, cn, jp):
        check_account = one["check"]
        assert (check_account["done"], check_account["live"], check_account["error"]) == (True, True, None)
        assert check_account["credits"] == one["credits"] > 0
        assert check_account["models"] == one["models"]
        assert check_account["models"]["images"] > 0
        assert (one["state"], one["pool"], one["check_code"]) == ("ok", True, None)
        assert one["checked_at"] <= one["next_check_at"]
    assert [us["check"]["region"], cn["check"]["region"], jp["check"]["region"]] == ["us", "cn", "JP"]
    assert dead["check"]["live"] is False
    assert dead["check"]["error"]["code"] == "upstream_session_expired"
    assert (dead["state"], dead["state_code"]) == ("needs_login", "upstream_session_expired"), "it never worked"
    assert found["data"][4]["check"] is None
    assert [(one["line"], one["token"], one["error"]["code"]) for one in found["refused"]] == [
        (7, "not a\u2026", "invalid_api_key"), (10, "nowher\u2026", "invalid_api_key"),
    ]  # fmt: skip
    assert "Token 7" in found["refused"][0]["error"]["message"]
    assert len(engine.sql("SELECT 1 FROM accounts")) == 5
    stored = str(engine.sql("SELECT a::text FROM accounts a UNION ALL SELECT l::text FROM audit_log l"))
    for secret in ("plain-import-0001", "plain-import-000002", "x-jp-import-000003", "dead-import-000004"):
        assert secret not in json.dumps(found) + stored


@pytest.mark.parametrize(
    ("tokens", "places"),
    [
        ("# one, two\nplaces-a-000001:sandbox", [2]),
        ("\n\nplaces-b-000001:sandbox\n\nplaces-b-000002:sandbox\n", [3, 5]),
        ("places-c-000001:sandbox,,places-c-000002:sandbox", [1, 3]),
        ("places-d-000001:sandbox\rplaces-d-000002:sandbox", [1, 2]),
        ("  # x\r\n\r\n places-e-000001:sandbox", [3]),
    ],
)
def test_entries_are_named_by_their_place_in_the_text(http: TestClient, tokens: str, places: list[int]) -> None:
    found = add(http, tokens)
    assert [one["line"] for one in found["data"]] == places
    assert found["refused"] == []


def test_import_without_usable_entries_is_an_error(http: TestClient) -> None:
    assert_error(http.post(ADMIN, json={"tokens": "a b"}), 401, "invalid_api_key")
    assert "Token 2" in assert_error(http.post(ADMIN, json={"tokens": "a b\nc d"}), 400, "invalid_value", "tokens")
    assert_error(http.post(ADMIN, json={"tokens": " \n# none\n"}), 400, "invalid_value", "tokens")
    assert_error(
        http.post(ADMIN, json={"tokens": "\n".join(f"s{n}" for n in range(101))}), 400, "invalid_value", "tokens"
    )
    both = {"tokens": "plain-both-0000001", "groups": ["a"], "user": "admin"}
    assert_error(http.post(ADMIN, json=both), 400, "invalid_value", "groups")
    assert http.get(ADMIN).json()["data"] == []


def test_check_without_worker_runs_in_the_background(engine: Engine, http: TestClient) -> None:
    [one] = add(http, "plain-later-000001:sandbox")["data"]
    assert one["check"]["done"] is False
    # Redis lost the message of a requested check, or the worker died with it.
    request = threading.Thread(target=http.post, args=(f"{ADMIN}/{one['id']}/check",), kwargs={"json": {}})
    request.start()
    eventually(lambda: engine.sql("SELECT 1 FROM account_checks"), what="the check is stored")
    checks = engine.sql("SELECT id FROM account_checks")
    engine.redis.flushall()
    with transaction() as tx:
        assert session_checks.claim(tx, checks[0].id) is not None
    assert "checked 1 accounts" in refresh_accounts()
    assert read_account(http, one)["checked_at"] is not None
    # If a worker dies during a background check, the check is due again.
    engine.sql("UPDATE accounts SET refresh_due_at = now(), checked_at = NULL")
    with transaction() as tx:
        assert model_listings.claim_account_check(tx, models_max_age=0) is not None
        assert model_listings.claim_account_check(tx, models_max_age=0) is None
    [due] = engine.sql("SELECT refresh_due_at - now() AS left FROM accounts")
    assert 0 < due.left.total_seconds() <= model_listings.RETRY_SECONDS
    # The waiting request gets the result in the end.
    with transaction() as tx:
        session_checks.save_result(tx, checks[0].id, {"live": True})
    request.join(30)
    assert not request.is_alive()


def test_known_or_retired_session_is_restored_with_its_history(engine: Engine, http: TestClient) -> None:
    account = engine.add_account(session="plain-returns-0001")
    job = engine.add_succeeded_job(account)
    [one] = add(http, "plain-returns-0001:sandbox")["data"]
    assert (account_row_id(one), one["outcome"], one["pool"]) == (account, "returned", True)
    retired = http.delete(f"{ADMIN}/{one['id']}").json()
    assert (retired["state"], retired["pool"]) == ("retired", False)
    assert_error(http.patch(f"{ADMIN}/{one['id']}", json={"paused": False}), 409, "account_retired")
    assert_error(http.post(f"{ADMIN}/{one['id']}/check"), 409, "account_retired")
    [back] = add(http, "plain-returns-0001:sandbox", groups=["staff"])["data"]
    assert (back["id"], back["outcome"], back["state"], back["groups"]) == (one["id"], "returned", "ok", ["staff"])
    assert engine.job_row(job).account_id == account


def test_sandbox_account_leaves_the_pool_when_a_real_account_joins(
    engine: Engine, http: TestClient, member: Callable[..., dict[str, str]]
) -> None:
    demo = engine.add_account(pool=True)
    add(http, "plain-own-00000001:cn", OWN, headers=member("anna"))
    add(http, "plain-more-0000001:sandbox")
    assert engine.account_row(demo).pool, "neither an account of a user nor another sandbox account joins as real"
    add(http, "plain-real-0000001:cn,plain-with-0000001:sandbox")
    assert not engine.account_row(demo).pool
    pooled = engine.sql("SELECT region FROM accounts WHERE pool ORDER BY region")
    assert [row.region for row in pooled] == ["cn", "sandbox"], "one added in the same request stays"


# --- own accounts ---


def test_own_accounts_are_invisible_to_other_users(
    engine: Engine, http: TestClient, member: Callable[..., dict[str, str]]
) -> None:
    anna, ben, viewer = member("anna"), member("ben"), member("cleo", role="viewer")
    [mine] = add(http, "plain-annas-000001:sandbox", OWN, headers=anna, label="mine")["data"]
    [pooled] = add(http, "plain-pool-0000001:sandbox")["data"]
    assert (mine["user"], mine["pool"], mine["groups"]) == ("anna", False, [])
    path = f"{OWN}/{mine['id']}"
    assert http.get(path, headers=anna).json()["label"] == "mine"
    assert http.patch(path, json={"max_images": 3}, headers=anna).json()["max_images"] == 3
    for other in (ben, viewer):
        assert_error(http.get(path, headers=other), 404, "account_not_found")
        assert http.get(OWN, headers=other).json()["data"] == []
    for call in (
        lambda path: http.patch(path, json={"paused": True}, headers=ben),
        lambda path: http.delete(path, headers=ben),
        lambda path: http.post(f"{path}/check", headers=ben),
    ):
        assert_error(call(path), 404, "account_not_found")
        assert_error(call(f"{OWN}/{pooled['id']}"), 404, "account_not_found")
    assert_error(http.post(OWN, json={"tokens": "plain-x:sandbox"}, headers=viewer), 403, "forbidden")
    tokens = {"Authorization": "Bearer plain-annas-000001:sandbox"}
    assert_error(http.get(OWN, headers=tokens), 403, "forbidden")
    listed = http.get(OWN, headers=anna).json()
    AccountList.model_validate(listed, strict=True)
    assert [one["id"] for one in listed["data"]] == [mine["id"]]
    assert {one["id"] for one in http.get(ADMIN).json()["data"]} == {mine["id"], pooled["id"]}
    assert [one["id"] for one in http.get(ADMIN, params={"user": "anna"}).json()["data"]] == [mine["id"]]
    # Another user's session cannot be added, and nothing about it is revealed.
    for taken in ("plain-annas-000001:sandbox", "plain-pool-0000001:sandbox"):
        assert_error(http.post(OWN, json={"tokens": taken}, headers=ben), 409, "account_known")
    both = add(http, "plain-annas-000001:sandbox,plain-bens-0000001:sandbox", OWN, headers=ben)
    assert [one["outcome"] for one in both["data"]] == ["added"]
    assert [one["error"]["code"] for one in both["refused"]] == ["account_known"]
    # Only platform accounts have groups: neither members nor admins can set them on a user's own account.
    assert http.patch(path, json={"groups": ["x"]}, headers=anna).json()["groups"] == []
    assert_error(http.patch(f"{ADMIN}/{mine['id']}", json={"groups": ["x"]}), 400, "invalid_value", "groups")
    assert http.delete(path, headers=anna).json()["state"] == "retired"
    entries = [(entry["actor"], entry["action"]) for entry in http.get("/admin/v1/audit").json()["data"]]
    assert ("anna", "account.retire") in entries
    assert ("ben", "account.add") in entries


def test_timeline_shows_labels_only_of_own_accounts(
    engine: Engine, http: TestClient, member: Callable[..., dict[str, str]]
) -> None:
    anna = member("anna")
    add(http, "plain-annas-000002:sandbox", OWN, headers=anna, label="mine")
    add(http, "plain-pool-0000002:sandbox", label="secret name")
    shown = []
    for choice in ("own", "pool"):
        body = {"prompt": "a boat", "n": 1, "async": True}
        made = http.post("/v1/images/generations", json=body, headers={**anna, "X-Accounts": choice}).json()["id"]
        job = parse_public_id("job", made)
        assert job is not None
        engine.submit(job)
        timeline = http.get(f"/v1/jobs/{made}/timeline", headers=anna)
        assert "secret name" not in timeline.text
        shown.append([entry["account"] for entry in timeline.json()["data"] if entry["state"] == "submitting"])
    assert shown == [["mine"], ["pool"]]


# --- states ---


def end_cooldowns_soon(engine: Engine) -> None:
    """Let the cooldown of every account end in 30 seconds."""
    engine.sql("UPDATE accounts SET rest_until = now() + interval '30 seconds' WHERE rest_until IS NOT NULL")


def test_repeatedly_refused_session_needs_a_login(engine: Engine, http: TestClient) -> None:
    [one] = add(http, "dead-for-good-0001:sandbox")["data"]
    engine.sql("UPDATE accounts SET login_refusals = 0")  # it worked once
    presented = engine.add_account(session="dead-presented-001")
    engine.sql("UPDATE accounts SET last_submit_at = now() WHERE id = :id", id=presented)
    refresh_accounts()
    for expected in ("resting", "needs_login"):
        end_cooldowns_soon(engine)
        engine.sql(
            """UPDATE accounts SET rest_code = 'upstream_session_expired', rest_until = now() + interval '30 seconds'
               WHERE id = :id""",
            id=presented,
        )
        assert "0 work again" in refresh_accounts()
        assert read_account(http, one)["state"] == expected
    state = read_account(http, one)
    assert (state["state_code"], state["state_since"] is not None) == ("upstream_session_expired", True)
    assert engine.account_row(presented).state == "ok", "a session-id caller gets the refusals itself"
    waiting = engine.add_job()
    sweep()
    assert engine.job_row(waiting).error_code == "accounts_need_login"
    # No jobs, but an occasional check. Resuming it does not make the session valid.
    assert "checked 0 accounts" in refresh_accounts()
    path = f"{ADMIN}/{one['id']}"
    assert http.patch(path, json={"paused": False, "rested": True}).json()["state"] == "needs_login"
    assert "checked 1 accounts" in refresh_accounts()
    assert read_account(http, one)["state"] == "needs_login"


@pytest.mark.usefixtures("worker")
def test_new_credential_that_upstream_does_not_know_needs_a_login_at_once(engine: Engine, http: TestClient) -> None:
    [one] = add(http, "plain-typed-000001:sandbox", check=True)["data"]
    assert (one["state"], engine.account_row(account_row_id(one)).login_refusals) == ("ok", 0)
    path = f"{ADMIN}/{one['id']}"
    assert http.patch(path, json={"session": "dead-mistyped-0001:sandbox"}).json()["state"] == "ok"
    checked = http.post(f"{path}/check").json()
    assert (checked["state"], checked["check"]["live"]) == ("needs_login", False)
    assert http.patch(path, json={"session": "plain-right-00001:sandbox"}).json()["state"] == "ok"
    assert http.post(f"{path}/check").json()["state"] == "ok"
    http.delete(path)
    [back] = add(http, "plain-right-00001:sandbox", check=True)["data"]
    assert (back["outcome"], back["state"]) == ("returned", "ok")


def test_successful_check_ends_needs_login(engine: Engine, http: TestClient) -> None:
    [one] = add(http, "plain-comes-back-1:sandbox")["data"]
    engine.sql(
        """UPDATE accounts SET state = 'needs_login', state_code = 'upstream_session_expired', login_refusals = 3,
               rest_code = 'upstream_session_expired', rest_until = now() + interval '1 hour', refresh_due_at = now()"""
    )
    engine.take_messages()
    refresh_accounts()
    back = read_account(http, one)
    assert (back["state"], back["state_code"], back["rest_code"]) == ("ok", None, None)
    assert [message.ids for message in engine.take_messages("dreamery.submit")] == [
        {"account_id": account_row_id(one).hex}
    ]


@pytest.mark.usefixtures("worker")
def test_new_session_keeps_the_account(engine: Engine, http: TestClient) -> None:
    [one], [other] = (add(http, f"{name}-login-00001:sandbox")["data"] for name in ("dead", "plain"))
    path, account = f"{ADMIN}/{one['id']}", account_row_id(one)
    engine.sql(
        "UPDATE accounts SET state = 'needs_login', state_code = 'upstream_session_expired', max_images = 7 WHERE id = :id",
        id=account,
    )
    assert_error(http.patch(path, json={"session": "plain-login-00001:sandbox"}), 409, "account_known", "session")
    assert_error(http.patch(path, json={"session": "a b"}), 400, "invalid_value", "session")
    changed = http.patch(path, json={"session": "plain-fresh-000001:sandbox"}).json()
    assert (changed["id"], changed["state"], changed["max_images"]) == (one["id"], "ok", 7)
    checked = http.post(f"{path}/check").json()
    CheckedAccount.model_validate(checked, strict=True)
    assert (checked["check"]["live"], checked["state"], checked["check_code"]) == (True, "ok", None)
    assert checked["credits"] == checked["check"]["credits"] > 0
    job = engine.add_succeeded_job(account)
    assert engine.job_row(job).account_id == account
    assert read_account(http, other)["state"] == "ok"
    log = json.dumps(http.get("/admin/v1/audit").json())
    assert "plain-fresh" not in log
    assert '"session": "replaced"' in log


def test_repeated_risk_control_blocks_the_account(engine: Engine, http: TestClient) -> None:
    [one] = add(http, "shark-of-the-pool1:sandbox")["data"]
    for _ in range(2):  # simultaneous refusals count once
        engine.submit(engine.add_job())
    first = read_account(http, one)
    assert (first["state"], first["state_code"]) == ("resting", "upstream_risk_control")
    engine.end_cooldowns()
    engine.submit(engine.add_job())
    blocked = read_account(http, one)
    assert (blocked["state"], blocked["state_code"]) == ("blocked", "upstream_risk_control")
    waiting = engine.add_job()
    sweep()
    assert engine.job_row(waiting).error_code == "accounts_blocked"
    # The free check also works for a blocked account, so it proves nothing. The owner has to resume it.
    engine.sql("UPDATE accounts SET refresh_due_at = now()")
    assert "checked 0 accounts" in refresh_accounts()
    path = f"{ADMIN}/{one['id']}"
    assert http.patch(path, json={"paused": False}).json()["state"] == "ok"
    engine.end_cooldowns()
    engine.submit(engine.add_job())
    assert read_account(http, one)["state"] == "resting", "the count restarted"


def test_accepted_job_resets_the_refusal_counts(engine: Engine) -> None:
    account = engine.add_account(pool=True)
    engine.sql("UPDATE accounts SET risk_refusals = 1, login_refusals = 2")
    engine.add_succeeded_job(account)
    row = engine.account_row(account)
    assert (row.risk_refusals, row.login_refusals) == (0, 0)


def test_failed_jobs_do_not_change_the_account_state(engine: Engine) -> None:
    account = engine.add_account(pool=True)
    for code in ("2005", "1000", "2038", "1000"):
        job = engine.add_job(prompt=f"a boat [[fail:{code}]]")
        assert engine.run_until_final(job) == ["failed"]
    row = engine.account_row(account)
    assert (row.state, row.rest_until, row.risk_refusals, row.login_refusals) == ("ok", None, 0, 0)


# --- checks ---


def test_checks_respect_working_hours_and_states(engine: Engine, http: TestClient) -> None:
    made = add(http, ",".join(f"plain-check-{n}-00001:sandbox" for n in range(4)))["data"]
    closed, paused, resting, ready = (account_row_id(one) for one in made)
    hour = "(now() AT TIME ZONE 'UTC' + interval '{} hours')::time"
    engine.sql(
        f"""UPDATE accounts SET hours_zone = 'UTC', hours_days = '{{1,2,3,4,5,6,7}}', hours_from = {hour.format(1)},
            hours_to = {hour.format(2)} WHERE id = :id""",
        id=closed,
    )
    engine.sql("UPDATE accounts SET state = 'paused' WHERE id = :id", id=paused)
    engine.sql("UPDATE accounts SET rest_until = now() + interval '1 hour' WHERE id = :id", id=resting)
    calls = len(engine.interceptor.calls)
    assert "checked 1 accounts" in refresh_accounts()
    assert engine.account_row(ready).checked_at is not None
    assert len(engine.interceptor.calls) - calls == 3, "credits and two lists"
    engine.sql("UPDATE accounts SET refresh_due_at = now()")
    calls = len(engine.interceptor.calls)
    assert "checked 1 accounts" in refresh_accounts()
    assert len(engine.interceptor.calls) - calls == 1, "model lists are cached for hours"
    left = engine.sql("SELECT extract(epoch FROM refresh_due_at - now()) AS s FROM accounts WHERE id = :i", i=ready)
    assert 0.79 * 21600 < left[0].s < 1.21 * 21600


# --- changes ---


def test_change_limits_and_working_hours(http: TestClient) -> None:
    [one] = add(http, "plain-changes-0001:sandbox")["data"]
    path = f"{ADMIN}/{one['id']}"
    hours = {"days": ["fri", "mon"], "start": "22:00", "end": "06:30", "zone": "Asia/Shanghai"}
    changed = http.patch(path, json={"max_jobs_per_day": 40, "working_hours": hours, "groups": ["staff"]}).json()
    assert (changed["max_jobs_per_day"], changed["groups"]) == (40, ["staff"])
    assert changed["working_hours"] == {**hours, "days": ["mon", "fri"]}
    assert changed["open_now"] is (changed["opens_at"] is None)
    until_midnight = http.patch(path, json={"working_hours": {**hours, "end": "24:00"}}).json()
    assert until_midnight["working_hours"]["end"] == "00:00"
    cleared = http.patch(path, json={"max_jobs_per_day": None, "working_hours": None, "groups": []}).json()
    assert (cleared["max_jobs_per_day"], cleared["working_hours"], cleared["groups"]) == (None, None, [])
    for wrong in ({"zone": "Mars/Olympus"}, {"start": "24:00"}, {"start": "9:00"}, {"days": []}, {"days": ["someday"]}):
        answer = http.patch(path, json={"working_hours": {**hours, **wrong}})
        assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_value"), wrong
    answer = http.patch(path, json={"groups": ["No Spaces"]})
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_value")


@pytest.mark.usefixtures("worker")
def test_proxy_of_an_account(engine: Engine, http: TestClient) -> None:
    [one] = add(http, "plain-proxied-0001:sandbox")["data"]
    path = f"{ADMIN}/{one['id']}"
    with running_proxy("http") as proxy:
        message = assert_error(http.patch(path, json={"proxy": proxy.url}), 400, "invalid_value", "proxy")
        assert "DREAMERY_FETCH_ALLOW" in message
        assert_error(http.patch(path, json={"proxy": "socks4://a:1"}), 400, "invalid_value", "proxy")
        engine.configure(FETCH_ALLOW=f"{engine.env['DREAMERY_FETCH_ALLOW']},127.0.0.1:{proxy.port}")
        changed = http.patch(path, json={"proxy": proxy.url})
        place = f"http://127.0.0.1:{proxy.port}"
        assert (changed.json()["proxy"], changed.json()["has_proxy"]) == (place, True)
        assert http.post(f"{path}/check").json()["check"]["live"] is True
        assert proxy.targets, "its calls use the proxy"
        # The proxy password is encrypted for this session, so a new session needs the proxy again.
        assert_error(http.patch(path, json={"session": "plain-proxied-0002:sandbox"}), 400, "invalid_value", "session")
        again = http.patch(path, json={"session": f"{proxy.url}@plain-proxied-0002:sandbox"})
        assert again.json()["proxy"] == place
        assert http.post(f"{path}/check").json()["check"]["live"] is True
        direct = http.patch(path, json={"proxy": None}).json()
        assert (direct["proxy"], direct["has_proxy"]) == (None, False)
        before = len(proxy.targets)
        assert http.post(f"{path}/check").json()["check"]["live"] is True
        assert len(proxy.targets) == before
        log = http.get("/admin/v1/audit").text
        stored = str(engine.sql("SELECT a::text FROM accounts a"))
        for secret in (USER, PASSWORD):
            assert secret not in changed.text + again.text + log + stored


def test_check_started_before_a_session_change_fails(engine: Engine, http: TestClient) -> None:
    [one] = add(http, "plain-moves-000001:sandbox")["data"]
    with transaction() as tx:
        session_checks.create_account_checks(
            tx, owner="test", accounts_by_check={(check_id := UUID(int=7)): account_row_id(one)}
        )
    http.patch(f"{ADMIN}/{one['id']}", json={"session": "plain-moves-000002:sandbox"})
    check(check_id=check_id)
    [row] = engine.sql("SELECT state, result FROM account_checks")
    assert (row.state, row.result["error"]["code"]) == ("succeeded", "account_not_found")
