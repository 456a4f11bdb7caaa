"""Limits of users and API keys: rejections, warnings, and concurrent requests."""

import contextlib
import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import UUID

import httpx
import pytest
from starlette.testclient import TestClient

from api.app import create_app
from tests.support.api_client import assert_error, forbids_retry, new_key
from tests.support.engine import Engine
from tests.support.servers.http_servers import running_app
from worker.core.ids import new_id, public_id
from worker.core.quotas import OwnLimits, effective_limits
from worker.core.settings import get_settings
from worker.db.engine import transaction
from worker.db.jobs import claims, state_machine
from worker.db.users import api_keys, quotas, users

IMAGES = "/v1/images/generations"
Add = Callable[..., "Person"]


class Person:
    """A user with a key. `model` = of its requests; None = the default one."""

    model: str | None = None

    def __init__(self, client: TestClient, user_id: UUID, key_id: UUID, key: str) -> None:
        self.client, self.user_id, self.key_id, self.key = client, user_id, key_id, key

    def ask(self, *, key: str | None = None, headers: dict[str, str] | None = None, **fields: Any) -> httpx.Response:
        body = {"model": self.model, "prompt": "a boat", "n": 1, "async": True, **fields}
        return self.client.post(
            IMAGES, json=body, headers={"Authorization": f"Bearer {key or self.key}"} | (headers or {})
        )

    def limit(self, table: str = "users", *, soft: dict[str, Any] | None = None, **hard: Any) -> None:
        row_id = self.user_id if table == "users" else self.key_id
        with transaction() as tx:
            quotas.set_limits(tx, table, row_id, hard=hard, soft=soft or {})

    def another_key(self) -> str:
        with transaction() as tx:
            return api_keys.create_key(tx, api_keys.NewKey(user_id=self.user_id, name="other"))[1]

    def usage(self, **query: Any) -> dict[str, Any]:
        answer = self.client.get("/v1/usage", params=query, headers={"Authorization": f"Bearer {self.key}"})
        assert answer.status_code == 200, answer.text
        return answer.json()


@pytest.fixture(params=["jimeng-4.0", "seedream-5.0-flash"])
def each_provider(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the jobs of the test run on the demo account of one provider after the other."""
    monkeypatch.setattr(Person, "model", request.param)


@pytest.fixture
def client(engine: Engine) -> Iterator[TestClient]:
    with TestClient(create_app(), raise_server_exceptions=False) as client:
        yield client


@pytest.fixture
def add(client) -> Add:
    def make(name: str = "alice", **limits: Any) -> Person:
        with transaction() as tx:
            row = users.add_user(tx, name=name, role="member")
            assert row is not None
            key_id, key = api_keys.create_key(tx, api_keys.NewKey(user_id=row.id, name="first"))
        person = Person(client, row.id, key_id, key)
        person.limit(**limits)
        return person

    return make


@contextlib.contextmanager
def priced(engine: Engine, credits_each: int | None) -> Iterator[None]:
    """Give every accepted job this expected cost."""
    value = "NULL" if credits_each is None else str(credits_each)
    engine.sql(
        f"""CREATE FUNCTION priced() RETURNS trigger LANGUAGE plpgsql AS $$
                BEGIN NEW.price := {value}; RETURN NEW; END $$;
            CREATE TRIGGER priced BEFORE INSERT ON jobs FOR EACH ROW EXECUTE FUNCTION priced()"""
    )
    try:
        yield
    finally:
        engine.sql("DROP TRIGGER priced ON jobs; DROP FUNCTION priced()")


def count(engine: Engine) -> int:
    return len(engine.sql("SELECT 1 FROM jobs"))


# --- what applies to whom ---


def test_own_limits_override_platform_limits(engine: Engine) -> None:
    engine.configure(JOBS_PER_DAY="50", REQUESTS_PER_MINUTE="0", BUDGET_WARN_PERCENT="80")

    def found(user: OwnLimits, key: OwnLimits) -> dict[str, tuple[int | None, int | None]]:
        return {one.full_name: (one.soft, one.hard) for one in effective_limits(user, key, get_settings())}

    nothing = OwnLimits()
    assert found(nothing, nothing) == {"user.jobs_per_day": (40, 50)}
    own = OwnLimits(hard={"jobs_per_day": 7, "credits_per_month": "unlimited"}, soft={"jobs_per_month": 9})
    assert found(own, nothing) == {"user.jobs_per_day": (6, 7), "user.jobs_per_month": (9, None)}
    assert found(OwnLimits(hard={"jobs_per_day": "unlimited"}), nothing) == {}
    keyed = OwnLimits(hard={"jobs_per_day": 5}, soft={"jobs_per_day": "unlimited"})
    assert found(nothing, keyed) == {"user.jobs_per_day": (40, 50), "key.jobs_per_day": (None, 5)}


# --- hard limits ---


@pytest.mark.usefixtures("each_provider")
def test_reached_limit_returns_429_with_reset_time(engine: Engine, add: Add) -> None:
    alice = add(jobs_per_day=2)
    assert [alice.ask().status_code for _ in range(2)] == [202, 202]
    response = alice.ask()
    message = assert_error(response, 429, "budget_exceeded")
    assert "The limit 'jobs per day' of your user" in message
    assert "2 of 2 used" in message
    reset = response.headers["x-budget-reset"]
    moment = f"{reset[:10]} {reset[11:16]} UTC"
    assert f"It resets at {moment}." in message
    assert not re.search(r"[a-z]_[a-z]", message), "no names of machines"
    assert reset.endswith("T00:00:00Z")
    assert response.json()["error"]["type"] == "insufficient_quota"
    assert response.headers["x-budget-limit"] == "user.jobs_per_day"
    assert forbids_retry(response)
    assert count(engine) == 2
    chinese = alice.ask(headers={"Accept-Language": "zh-CN"}).json()["error"]["message"]
    assert "您的用户的限额“每日任务数”不足：已用 2，上限 2；该请求还需要 1。" in chinese
    assert f"限额将于 {moment} 重置。" in chinese


def test_earlier_periods_do_not_count(engine: Engine, add: Add) -> None:
    alice = add(jobs_per_day=1, jobs_per_month=3)
    assert alice.ask().status_code == 202
    assert_error(alice.ask(), 429, "budget_exceeded")
    engine.sql("UPDATE jobs SET created_at = date_trunc('day', now(), 'UTC') - interval '1 second'")
    assert alice.ask().status_code == 202
    engine.sql("UPDATE jobs SET created_at = date_trunc('month', now(), 'UTC') - interval '1 second'")
    standing = {one["name"]: one["used"] for one in alice.usage()["limits"]}
    assert (standing["jobs_per_day"], standing["jobs_per_month"]) == (0, 0)


def test_days_begin_in_the_platform_time_zone(engine: Engine, add: Add) -> None:
    alice = add(jobs_per_day=1)
    engine.configure(BUDGET_TIME_ZONE="Asia/Shanghai")
    assert alice.ask().status_code == 202
    response = alice.ask()
    assert response.headers["x-budget-reset"].endswith("T16:00:00Z")  # midnight there
    engine.sql("UPDATE jobs SET created_at = date_trunc('day', now(), 'Asia/Shanghai') - interval '1 second'")
    assert alice.ask().status_code == 202
    assert alice.usage()["time_zone"] == "Asia/Shanghai"


# Together they differ from UTC, and from each other, at every hour of the day: UTC+14 and UTC-12.
@pytest.mark.parametrize("zone", ["Etc/GMT-14", "Etc/GMT+12"])
@pytest.mark.parametrize("period", ["day", "month"])
def test_periods_begin_at_midnight_of_the_zone_at_every_hour(engine: Engine, add: Add, zone: str, period: str) -> None:
    alice = add(**{f"jobs_per_{period}": 1})
    engine.configure(BUDGET_TIME_ZONE=zone)
    assert alice.ask().status_code == 202
    engine.sql("UPDATE jobs SET created_at = date_trunc(:period, now(), :zone)", zone=zone, period=period)
    assert_error(alice.ask(), 429, "budget_exceeded")
    before = "UPDATE jobs SET created_at = date_trunc(:period, now(), :zone) - interval '1 second'"
    engine.sql(before, zone=zone, period=period)
    assert alice.ask().status_code == 202


def test_request_is_accepted_as_a_whole_or_not_at_all(engine: Engine, add: Add) -> None:
    alice = add(jobs_per_day=3)
    assert alice.ask(n=12, size="2048x2048").status_code == 202
    assert count(engine) == 2  # of up to eight pictures
    assert_error(alice.ask(n=12, size="2048x2048"), 429, "budget_exceeded")
    assert count(engine) == 2
    assert alice.ask().status_code == 202


@pytest.mark.usefixtures("each_provider")
def test_open_jobs_limit(engine: Engine, add: Add) -> None:
    alice = add(open_jobs=2)
    first = alice.ask().json()["id"]
    assert alice.ask().status_code == 202
    response = alice.ask()
    assert "The limit 'open jobs' of your user is reached: 2 of 2" in assert_error(response, 429, "queue_full")
    assert not forbids_retry(response), "a slot may be free soon"
    assert response.headers["x-budget-limit"] == "user.open_jobs"
    assert forbids_retry(alice.ask(n=24, size="2048x2048")), "three jobs never fit into two places"
    headers = {"Authorization": f"Bearer {alice.key}"}
    assert alice.client.post(f"/v1/jobs/{first}/cancel", headers=headers).status_code == 200
    assert alice.ask().status_code == 202


def test_own_open_jobs_limit_replaces_platform_limit(engine: Engine, add: Add) -> None:
    engine.configure(OPEN_JOBS_PER_CALLER="1")
    alice, bob = add(), add("bob", open_jobs=2)
    assert [alice.ask().status_code for _ in range(2)] == [202, 429]
    assert [bob.ask().status_code for _ in range(3)] == [202, 202, 429]


@pytest.mark.usefixtures("each_provider")
def test_key_limits_apply_besides_user_limits(engine: Engine, add: Add) -> None:
    alice = add(jobs_per_day=3)
    alice.limit("api_keys", jobs_per_day=1)
    assert alice.ask().status_code == 202
    response = alice.ask()
    assert "of this API key" in assert_error(response, 429, "budget_exceeded")
    other = alice.another_key()
    assert [alice.ask(key=other).status_code for _ in range(3)] == [202, 202, 429]


def test_rotating_a_key_keeps_its_usage(engine: Engine, add: Add) -> None:
    alice = add()
    alice.limit("api_keys", jobs_per_day=2)
    assert alice.ask().status_code == 202
    fresh = ""
    for _ in range(2):
        with transaction() as tx:
            rotated = api_keys.rotate_key(tx, alice.key_id, grace_seconds=0)
            assert rotated is not None
            alice.key_id, fresh = rotated
    assert [alice.ask(key=fresh).status_code for _ in range(2)] == [202, 429]


def test_credit_limit_counts_charged_and_expected_credits(engine: Engine, add: Add) -> None:
    alice = add(credits_per_day=10)

    def costs(**values: int | None) -> None:
        sets = ", ".join(f"{name} = :{name}" for name in values)
        engine.sql(f"UPDATE jobs SET {sets} WHERE id = (SELECT max(id::text)::uuid FROM jobs)", **values)

    def used() -> int:
        return next(one["used"] for one in alice.usage()["limits"] if one["name"] == "credits_per_day")

    with priced(engine, None):
        assert alice.ask().status_code == 202
        costs(price=9)
        assert used() == 9
        assert alice.ask().status_code == 202, "one credit is left, and the price of the next is not known"
        costs(price=4, charged=1)
        assert used() == 10
        assert_error(alice.ask(), 429, "budget_exceeded")
        costs(charged=0)
        assert used() == 9
        # A job that was cancelled before its submit costs nothing, whatever price was expected.
        engine.sql("UPDATE jobs SET state = 'cancelled', finished_at = now() WHERE price = 9")
        assert used() == 0


def test_new_jobs_must_fit_into_remaining_credits(engine: Engine, add: Add) -> None:
    """The price is known only with the rows, so a rejection rolls them back."""
    alice = add(credits_per_month=10)
    with priced(engine, 4):
        assert [alice.ask().status_code for _ in range(3)] == [202, 202, 429]
        assert "8 of 10 used; this request needs 4 more" in assert_error(alice.ask(), 429, "budget_exceeded")
        assert count(engine) == 2


def test_deleted_and_conversation_jobs_count(engine: Engine, add: Add) -> None:
    alice = add(jobs_per_day=2)
    [account] = engine.sql("SELECT id FROM accounts WHERE provider = 'dreamina'")
    talk = engine.add_job(account.id, kind="chat", owner=f"user:{alice.user_id}", user_id=alice.user_id)
    with transaction() as tx:
        assert claims.claim_next(tx, account_id=account.id, kinds=("chat",))
    for n in range(2):  # upstream started these jobs itself, so no quota refuses them
        with transaction() as tx:
            child = {"kind": "image", "submit_key": new_id(), "upstream_id": str(n), "params": {}}
            assert state_machine.adopt_child(tx, parent_id=talk, **child)
    assert count(engine) == 3
    assert_error(alice.ask(), 429, "budget_exceeded")
    engine.sql("UPDATE jobs SET deleted_at = now()")
    assert_error(alice.ask(), 429, "budget_exceeded")
    assert next(one for one in alice.usage()["limits"] if one["name"] == "jobs_per_day")["used"] == 3


@pytest.mark.usefixtures("each_provider")
def test_joined_repeat_does_not_count_again(engine: Engine, add: Add) -> None:
    alice = add(jobs_per_day=2)
    again = {"Idempotency-Key": "one"}
    first, second = alice.ask(headers=again), alice.ask(headers=again)
    assert first.json()["id"] == second.json()["id"]
    assert second.headers["idempotency-replayed"] == "true"
    assert alice.ask().status_code == 202
    assert_error(alice.ask(headers={"Idempotency-Key": "two"}), 429, "budget_exceeded")
    # Also when the limit is reached meanwhile; the key of the rejected request can be reused.
    assert alice.ask(headers=again).json()["id"] == first.json()["id"]
    alice.limit(jobs_per_day=3)
    assert alice.ask(headers={"Idempotency-Key": "two"}).status_code == 202


def test_session_id_callers_have_platform_limits(engine: Engine, client) -> None:
    engine.configure(JOBS_PER_DAY="1")
    headers = {"Authorization": f"Bearer {new_key()}"}
    body = {"prompt": "a boat", "n": 1, "async": True}
    first = client.post(IMAGES, json=body, headers=headers)
    assert first.status_code == 202
    assert "user.jobs_per_day" in first.headers["x-budget-warning"]
    assert_error(client.post(IMAGES, json=body, headers=headers), 429, "budget_exceeded")
    [standing] = [
        one for one in client.get("/v1/usage", headers=headers).json()["limits"] if one["name"] == "jobs_per_day"
    ]
    assert (standing["used"], standing["remaining"], standing["state"]) == (1, 0, "reached")
    assert engine.sql("SELECT 1 FROM budget_notices") == []


# --- exact under a crowd ---


@pytest.mark.parametrize("limits", [{"open_jobs": 10}, {"jobs_per_day": 10}, {"credits_per_day": 10}])
def test_limit_holds_under_concurrent_requests(engine: Engine, add: Add, limits: dict[str, int]) -> None:
    alice = add(**limits)

    def ask(number: int) -> int:
        body = {"prompt": f"boat {number}", "n": 1, "async": True}
        return http.post(url + IMAGES, json=body, headers={"Authorization": f"Bearer {alice.key}"}).status_code

    with (
        priced(engine, 1),
        running_app(create_app(), lifespan="on") as url,
        httpx.Client(trust_env=False, timeout=60) as http,
        ThreadPoolExecutor(50) as crowd,
    ):
        answers = list(crowd.map(ask, range(100)))
    assert (answers.count(202), answers.count(429)) == (10, 90)
    assert count(engine) == 10


# --- soft limits ---


@pytest.mark.usefixtures("each_provider")
def test_soft_limit_warns_on_every_answer_and_is_recorded_once(engine: Engine, add: Add) -> None:
    alice = add(jobs_per_day=4, soft={"jobs_per_day": 2, "open_jobs": 3})
    engine.configure(BUDGET_WARN_PERCENT="0")
    whose = public_id("user", alice.user_id)
    warnings = [alice.ask().headers.get("x-budget-warning") for _ in range(4)]
    assert warnings[0] is None
    assert str(warnings[1]).startswith("user.jobs_per_day; used=2; soft=2; hard=4; reset=")
    assert "user.open_jobs; used=3; soft=3" in str(warnings[2])
    assert "used=4; soft=2; hard=4" in str(warnings[3])
    acts = engine.sql("SELECT actor, action, details FROM audit_log WHERE target = :user", user=whose)
    assert {(act.actor, act.action) for act in acts} == {("platform", "budget.warn")}
    assert sorted(act.details["limit"] for act in acts) == ["jobs_per_day", "open_jobs"]
    assert len(engine.sql("SELECT 1 FROM budget_notices")) == 2
    states = {one["name"]: one["state"] for one in alice.usage()["limits"]}
    assert (states["jobs_per_day"], states["open_jobs"]) == ("reached", "warning")


def test_hard_limit_without_soft_value_warns_near_its_end(engine: Engine, add: Add) -> None:
    alice = add(jobs_per_day=5)
    assert [bool(alice.ask().headers.get("x-budget-warning")) for _ in range(5)] == [False, False, False, True, True]


# --- requests per minute ---


def test_requests_per_minute_of_user_and_key(engine: Engine, add: Add) -> None:
    alice = add(requests_per_minute=4)
    alice.limit("api_keys", requests_per_minute=2)
    answers = [alice.ask() for _ in range(3)]
    assert [answer.status_code for answer in answers] == [202, 202, 429]
    assert_error(answers[2], 429, "rate_limit_exceeded")
    assert answers[0].headers["x-ratelimit-limit-requests"] == "2", "the tighter limit is reported"
    # The rejected request did not use the user's limit.
    other = alice.another_key()
    assert [alice.ask(key=other).status_code for _ in range(3)] == [202, 202, 429]
    rates = [one for one in alice.usage()["limits"] if one["name"] == "requests_per_minute"]
    assert [(one["scope"], one["hard"], one["remaining"], one["state"]) for one in rates] == [
        ("user", 4, 0, "reached"),
        ("key", 2, 0, "reached"),
    ]


def test_user_without_rate_limit(engine: Engine, add: Add) -> None:
    engine.configure(REQUESTS_PER_MINUTE="1")
    alice, bob = add(requests_per_minute="unlimited"), add("bob")
    assert [alice.ask().status_code for _ in range(3)] == [202, 202, 202]
    assert [bob.ask().status_code for _ in range(2)] == [202, 429]
