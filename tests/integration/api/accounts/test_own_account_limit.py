"""A user's own accounts are limited, in every way they can be added, also at the same time."""

import threading
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest
from starlette.testclient import TestClient

from api.app import create_app
from tests.support.api_client import assert_error, new_session
from tests.support.engine import Engine
from tests.support.platform import eventually

OWN, ADMIN = "/v1/accounts", "/admin/v1/accounts"
WAITING = "SELECT count(*) AS n FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%NO KEY UPDATE%'"
AUDITED = "SELECT count(*) AS n FROM audit_log WHERE action = 'account.add'"


@pytest.fixture
def http(engine: Engine) -> Iterator[TestClient]:
    engine.configure(OWN_ACCOUNTS_PER_USER="5")
    with TestClient(create_app(), raise_server_exceptions=False) as client:
        engine.sql("DELETE FROM accounts")  # the demo account of the pool
        client.headers["Authorization"] = f"Bearer {engine.env['DREAMERY_ADMIN_KEY']}"
        yield client


@pytest.fixture
def member(http: TestClient) -> dict[str, str]:
    assert http.post("/admin/v1/users", json={"name": "anna"}).status_code == 201
    return {"Authorization": f"Bearer {http.post('/admin/v1/keys', json={'user': 'anna'}).json()['key']}"}


def tokens(number: int) -> list[str]:
    return [f"us-{new_session()}" for _ in range(number)]


def add(http: TestClient, entries: list[str], path: str = OWN, *, headers: Any = None, **fields: Any) -> Any:
    return http.post(path, json={"tokens": "\n".join(entries), "check": False, **fields}, headers=headers)


def own_accounts(engine: Engine) -> int:
    return int(engine.sql("SELECT count(*) AS n FROM accounts WHERE user_id IS NOT NULL AND state <> 'retired'")[0].n)


def test_request_over_the_limit_adds_nothing_and_names_the_numbers(
    engine: Engine, http: TestClient, member: dict[str, str]
) -> None:
    assert add(http, tokens(3), headers=member).status_code == 201
    audited = engine.sql(AUDITED)
    message = assert_error(add(http, tokens(3), headers=member), 400, "own_account_limit", "tokens")
    for part in ("has 3 own accounts", "may have 5", "would add 3", "`own_accounts`"):
        assert part in message
    assert own_accounts(engine) == 3
    assert engine.sql(AUDITED) == audited, "what was undone is not in the audit log"
    assert add(http, tokens(2), headers=member).status_code == 201


def test_known_and_unusable_entries_do_not_count(engine: Engine, http: TestClient, member: dict[str, str]) -> None:
    known = tokens(5)
    assert add(http, known, headers=member).status_code == 201
    answer = add(http, [*known, "not a session id"], headers=member)
    assert (answer.status_code, [one["outcome"] for one in answer.json()["data"]]) == (201, ["duplicate"] * 5)
    assert http.patch("/admin/v1/users/anna", json={"limits": {"own_accounts": 2}}).status_code == 200
    assert add(http, known, headers=member).status_code == 201, "a lower limit takes nothing away"
    assert_error(add(http, [*known, *tokens(1)], headers=member), 400, "own_account_limit", "tokens")


def test_removed_accounts_make_room_and_need_room_to_come_back(
    engine: Engine, http: TestClient, member: dict[str, str]
) -> None:
    first = tokens(5)
    [account, *_] = add(http, first, headers=member).json()["data"]
    assert http.delete(f"{OWN}/{account['id']}", headers=member).status_code == 200
    assert add(http, tokens(1), headers=member).status_code == 201
    assert_error(add(http, first[:1], headers=member), 400, "own_account_limit", "tokens")
    assert own_accounts(engine) == 5


@pytest.mark.parametrize(("limit", "most"), [(7, 7), (0, 0), ("unlimited", 9)])
def test_user_may_have_a_limit_of_its_own(
    engine: Engine, http: TestClient, member: dict[str, str], limit: Any, most: int
) -> None:
    changed = http.patch("/admin/v1/users/anna", json={"limits": {"own_accounts": limit}})
    assert changed.json()["limits"]["own_accounts"] == limit
    if most:
        assert add(http, tokens(most), headers=member).status_code == 201
    if limit != "unlimited":
        assert_error(add(http, tokens(1), headers=member), 400, "own_account_limit", "tokens")
    assert own_accounts(engine) == most
    assert http.patch("/admin/v1/users/anna", json={"limits": {"own_accounts": None}}).status_code == 200
    assert_error(add(http, tokens(6), headers=member), 400, "own_account_limit", "tokens")


def test_limit_holds_when_an_administrator_adds_for_the_user_but_not_for_the_platform(
    engine: Engine, http: TestClient, member: dict[str, str]
) -> None:
    assert_error(add(http, tokens(6), ADMIN, user="anna"), 400, "own_account_limit", "tokens")
    assert own_accounts(engine) == 0
    assert add(http, tokens(6), ADMIN).status_code == 201
    answer = http.patch("/admin/v1/keys/key_1", json={"limits": {"own_accounts": 1}})
    assert (answer.status_code, "own_accounts" in answer.text) == (400, True), "keys have no such limit"


def test_requests_at_the_same_time_do_not_exceed_the_limit(
    engine: Engine, http: TestClient, member: dict[str, str]
) -> None:
    ready, statuses = threading.Barrier(6), list[int]()

    def run(send: Callable[[], Any]) -> None:
        ready.wait(20)
        statuses.append(send().status_code)

    sends: list[Callable[[], Any]] = [lambda: add(http, tokens(2), headers=member) for _ in range(3)]
    sends += [lambda: add(http, tokens(2), ADMIN, user="anna") for _ in range(3)]
    threads = [threading.Thread(target=run, args=(send,)) for send in sends]
    [thread.start() for thread in threads]
    eventually(lambda: len(statuses) == 6, what="all requests are answered")
    [thread.join(20) for thread in threads]
    assert sorted(statuses) == [201, 201, 400, 400, 400, 400]
    assert own_accounts(engine) == 4


def test_requests_that_wait_for_each_other_hold_no_threads(
    engine: Engine, http: TestClient, member: dict[str, str]
) -> None:
    """More of them than the process has threads: another caller is answered all the same."""
    answers: list[Any] = []
    with psycopg.connect(engine.env["DREAMERY_DATABASE_URL"]) as holder:
        holder.execute("SELECT 1 FROM users WHERE name = 'anna' FOR UPDATE")
        threads = [
            threading.Thread(target=lambda: answers.append(add(http, tokens(1), headers=member))) for _ in range(40)
        ]
        [thread.start() for thread in threads]
        eventually(lambda: engine.sql(WAITING)[0].n, what="the first request waits for the row")
        assert http.get(ADMIN).status_code == 200
        assert engine.sql(WAITING)[0].n == 1, "the others wait outside the database"
        assert answers == []
    [thread.join(60) for thread in threads]
    assert sorted(answer.status_code for answer in answers) == [201] * 5 + [400] * 35
