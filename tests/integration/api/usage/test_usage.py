"""Usage reports of the caller and of all users, as JSON and CSV."""

import csv
import io
from collections.abc import Iterator
from typing import Any
from uuid import UUID

import psycopg
import pytest
from sqlalchemy import text
from starlette.testclient import TestClient

from api.app import create_app
from api.usage.schemas import UsageReport
from tests.support.api_client import assert_error
from tests.support.engine import Engine
from worker.core.ids import new_id, public_id
from worker.db.engine import transaction
from worker.db.users import api_keys, quotas, result_counts, usage, users

ENDED = {"succeeded", "failed", "cancelled"}


class UsageData:
    """Two users with keys, an account, and jobs as rows."""

    def __init__(self, engine: Engine, client: TestClient) -> None:
        self.engine, self.client = engine, client
        [self.account] = engine.sql("SELECT id FROM accounts WHERE provider = 'dreamina'")
        self.users: dict[str, UUID] = {}
        self.keys: dict[str, tuple[UUID, str]] = {}
        for name in ("alice", "=bob"):
            with transaction() as tx:
                self.users[name] = users.add_user(tx, name=name, role="member").id
            self.add_key(name, name)

    def add_key(self, label: str, user: str, **fields: Any) -> UUID:
        with transaction() as tx:
            self.keys[label] = api_keys.create_key(tx, api_keys.NewKey(user_id=self.users[user], name=label, **fields))
        return self.keys[label][0]

    def job(self, user: str, state: str = "succeeded", *, key: str = "", days_ago: int = 0, **fields: Any) -> UUID:
        job_id = self.engine.add_job(
            owner=f"user:{self.users[user]}",
            user_id=self.users[user],
            api_key_id=self.keys[key or user][0],
            kind=fields.pop("kind", "image"),
            **({"model": fields.pop("model")} if "model" in fields else {}),
        )
        files, seconds = fields.pop("files", 0), fields.pop("seconds", None)
        values = {"state": state, "attempt": 1, "account_id": self.account.id, **fields}
        values |= {"submit_key": new_id()} if state == "running" else {}
        values |= {"error_code": "generation_failed"} if state == "failed" else {}
        sets = ", ".join(f"{name} = :{name}" for name in values)
        self.engine.sql(
            f"""UPDATE jobs SET {sets}, finished_at = {"now()" if state in ENDED else "NULL"},
                    holds_slot = {state == "running"}, created_at = now() - make_interval(days => :ago)
                WHERE id = :id""",
            **values,
            ago=days_ago,
            id=job_id,
        )
        for n in range(files):
            self.engine.sql(
                """INSERT INTO files (id, job_id, n, key, mime, bytes, sha256, seconds, removed_at)
                   VALUES (:id, :job, :n, 'k', 'image/png', 1, 'x', :seconds, now())""",
                id=new_id(), job=job_id, n=n, seconds=seconds,
            )  # fmt: skip
        return job_id

    def get(self, path: str, label: str | None = None, *, accept: str = "*/*", **query: Any) -> Any:
        key = self.keys[label][1] if label else self.engine.env["DREAMERY_ADMIN_KEY"]
        headers = {"Authorization": f"Bearer {key}", "Accept": accept}
        return self.client.get(path, params={k: v for k, v in query.items() if v is not None}, headers=headers)

    def report(self, path: str, label: str | None = None, **query: Any) -> dict[str, Any]:
        answer = self.get(path, label, **query)
        assert answer.status_code == 200, answer.text
        UsageReport.model_validate(answer.json(), strict=True)
        return answer.json()


@pytest.fixture
def data(engine: Engine) -> Iterator[UsageData]:
    with TestClient(create_app(), raise_server_exceptions=False) as client:
        yield UsageData(engine, client)


def days(data: UsageData, *ago: int) -> list[str]:
    [row] = data.engine.sql("SELECT CAST(now() AT TIME ZONE 'UTC' AS date) AS day")
    return [str(row.day.fromordinal(row.day.toordinal() - one)) for one in ago]


def numbers(entry: dict[str, Any]) -> dict[str, Any]:
    return {name: entry[name] for name in usage.METRICS if entry[name]}


def test_report_counts_jobs_files_and_credits(data: UsageData) -> None:
    data.job("alice", files=4, price=5, charged=4)
    data.job("alice", files=1, price=5, deleted_at="now()")
    data.job("alice", kind="video", files=1, seconds=5.0, charged=20)
    data.job("alice", "failed", price=5, charged=0)
    data.job("alice", "cancelled", price=5, attempt=0, account_id=None)
    data.job("alice", "running", price=7)
    data.job("=bob", files=4, price=100)
    [today] = days(data, 0)
    body = data.report("/v1/usage", "alice", **{"from": today, "group_by": ""})
    assert numbers(body["total"]) == {
        "accepted": 6, "succeeded": 3, "failed": 1, "cancelled": 1, "open": 1,
        "pictures": 5, "video_seconds": 5.0, "credits": 4 + 5 + 20 + 7,
    }  # fmt: skip
    assert (body["from"], body["to"], body["group_by"]) == (today, today, [])
    assert body["data"] == [body["total"]]


def test_report_groups_and_day_ranges(data: UsageData) -> None:
    today, before, long_ago = days(data, 0, 1, 40)
    data.add_key("spare", "alice")
    with transaction() as tx:
        rotated = api_keys.rotate_key(tx, data.keys["spare"][0], grace_seconds=60)
    assert rotated is not None
    root = data.keys["spare"][0]
    data.keys["fresh"] = rotated
    data.job("alice")
    data.job("alice", days_ago=1, model="jimeng-3.0")
    data.job("alice", key="spare")
    data.job("alice", key="fresh")
    data.job("alice", days_ago=40)
    days_range = {"from": before, "to": today}

    def rows(group_by: str, **query: str) -> list[dict[str, Any]]:
        return data.report("/v1/usage", "alice", group_by=group_by, **{**days_range, **query})["data"]

    assert [(one["day"], one["accepted"]) for one in rows("day")] == [(before, 1), (today, 3)]
    by_key = {one["key_id"]: one["accepted"] for one in rows("key")}
    assert by_key == {public_id("key", data.keys["alice"][0]): 2, public_id("key", root): 2}
    assert [(one["kind"], one["model"], one["accepted"]) for one in rows("kind,model")] == [
        ("image", "jimeng-3.0", 1),
        ("image", "jimeng-4.0", 3),
    ]
    assert [one["accepted"] for one in rows("", model="jimeng-image-3.0")] == [1], "an alias stands for its model"
    assert [one["accepted"] for one in rows("", **{"from": long_ago})] == [5]
    assert rows("day", **{"from": days(data, 39)[0], "to": days(data, 2)[0]}) == []


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ({"group_by": "user"}, "group_by"),
        ({"group_by": "day;drop"}, "group_by"),
        ({"from": "2026-02-30"}, "from"),
        ({"from": "2026-02-02", "to": "2026-02-01"}, "from"),
        ({"from": "2020-01-01", "to": "2026-01-01"}, "from"),
        ({"format": "xml"}, "format"),
    ],
)
def test_invalid_usage_query_returns_400(data: UsageData, query: dict[str, str], param: str) -> None:
    assert_error(data.get("/v1/usage", "alice", **query), 400, "invalid_value", param)


def test_csv_report(data: UsageData) -> None:
    data.job("alice", files=2)
    data.job("=bob")
    for more in ({"format": "csv"}, {"accept": "text/csv"}):
        answer = data.get("/admin/v1/usage", group_by="user,model", **more)
        assert answer.headers["content-type"] == "text/csv; charset=utf-8"
        assert "attachment" in answer.headers["content-disposition"]
        rows = list(csv.DictReader(io.StringIO(answer.text)))
        assert {(row["user"], row["model"], row["pictures"]) for row in rows} == {
            ("alice", "jimeng-4.0", "2"),
            ("'=bob", "jimeng-4.0", "0"),
        }
    assert data.get("/v1/usage", "alice", format="json", accept="text/csv").json()["object"] == "usage"


def test_admin_report_of_all_users(data: UsageData) -> None:
    data.job("alice")
    data.job("=bob", charged=3)
    data.job("=bob", "failed")
    data.engine.add_job(owner="tokens:other")
    by_user = {one["user"]: one for one in data.report("/admin/v1/usage")["data"]}
    assert {name: one["accepted"] for name, one in by_user.items()} == {"alice": 1, "=bob": 2, None: 1}
    assert by_user["alice"]["user_id"] == public_id("user", data.users["alice"])
    account = public_id("account", data.account.id)
    on_account = data.report("/admin/v1/usage", account=account, group_by="account,day")
    assert [(one["account_id"], one["account"], one["accepted"]) for one in on_account["data"]] == [
        (account, "sandbox demo", 3)
    ]
    bob = data.report("/admin/v1/usage", user="=bob", group_by="")
    assert numbers(bob["total"]) == {"accepted": 2, "succeeded": 1, "failed": 1, "credits": 3}
    assert [one["name"] for one in bob["limits"]] == ["requests_per_minute"]
    key = public_id("key", data.keys["alice"][0])
    assert data.report("/admin/v1/usage", key=key)["total"]["accepted"] == 1
    assert_error(data.get("/admin/v1/usage", key=key, user="=bob"), 404, "key_not_found")
    assert_error(data.get("/admin/v1/usage", user="nobody"), 404, "user_not_found")
    assert_error(data.get("/admin/v1/usage", account="x"), 404, "account_not_found")
    assert_error(data.get("/admin/v1/usage", "alice"), 403, "forbidden")


def test_key_without_read_scope_sees_only_its_own_jobs(data: UsageData) -> None:
    data.add_key("narrow", "alice", scopes=["generate"])
    data.add_key("admin only", "alice", scopes=["admin"])
    data.job("alice")
    data.job("alice", key="narrow")
    assert data.report("/v1/usage", "narrow")["total"]["accepted"] == 1
    assert data.report("/v1/usage", "alice")["total"]["accepted"] == 2
    assert_error(data.get("/v1/usage", "admin only"), 403, "forbidden")


def test_counts_on_the_job_row_change_no_figure(data: UsageData) -> None:
    """Before, while and after the clean-up counts the results of older jobs."""
    data.job("alice", files=4, price=5)
    data.job("alice", files=1, days_ago=1)
    data.job("alice", kind="video", files=1, seconds=5.0)
    data.job("=bob", kind="video", files=2, seconds=4.5, days_ago=1)
    data.job("=bob", kind="chat")
    data.job("=bob", "failed", files=1)
    data.engine.sql(
        """INSERT INTO files (id, job_id, n, variant, key, mime, bytes, sha256)
           SELECT gen_random_uuid(), id, 0, 'thumbnail', 'k', 'image/webp', 1, 'x' FROM jobs WHERE kind = 'video'"""
    )
    [first] = days(data, 1)
    query = {"from": first, "group_by": "day,user,kind"}
    expected = data.report("/admin/v1/usage", **query)
    assert (expected["total"]["pictures"], expected["total"]["video_seconds"]) == (5, 14.0)
    for count in (2, 2, 2):
        with transaction() as tx:
            result_counts.count_missing(tx, limit=count)
        assert data.report("/admin/v1/usage", **query) == expected
    with transaction() as tx:
        assert result_counts.all_are_counted(tx)


@pytest.mark.parametrize("owner", ["user:x", None])
def test_report_uses_an_index_only_scan(data: UsageData, owner: str | None) -> None:
    """With any grouping the report reads jobs only from the index."""
    statement = usage._statement(usage.UsageFilter(owner=owner), ["day", "user", "model", "kind", "account"])
    values = {"first": "2026-01-01", "last": "2026-01-31", "zone": "UTC", "limit": 9, "owner": owner}
    account = data.engine.add_account()
    for _ in range(300):
        data.engine.add_job(account)
    with psycopg.connect(data.engine.env["DREAMERY_DATABASE_URL"], autocommit=True) as connection:
        # In an empty table, or one without pages whose rows need no look, any index is as good for the planner.
        connection.execute("VACUUM ANALYZE jobs")
    with transaction() as tx:
        tx.run(text("SET LOCAL enable_seqscan = off"))
        tx.run(text("SET LOCAL enable_bitmapscan = off"))
        plan = "\n".join(row[0] for row in tx.all(text(f"EXPLAIN {statement}"), values))
    assert "Index Only Scan using ix_jobs_usage_money on jobs" in plan


def test_budgets_use_an_index_only_scan(data: UsageData) -> None:
    account = data.engine.add_account()
    for _ in range(300):
        data.engine.add_job(account)
    with psycopg.connect(data.engine.env["DREAMERY_DATABASE_URL"], autocommit=True) as connection:
        connection.execute("VACUUM ANALYZE jobs")
    values = {"zone": "UTC", "key_root": None, "owner": "user:x", "monthly": True}
    with transaction() as tx:
        tx.run(text("SET LOCAL enable_seqscan = off"))
        tx.run(text("SET LOCAL enable_bitmapscan = off"))
        plan = "\n".join(row[0] for row in tx.all(text(f"EXPLAIN {quotas._USED.text}"), values))
    assert "Index Only Scan using ix_jobs_usage_money on jobs" in plan
