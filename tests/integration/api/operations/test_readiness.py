"""`/readyz`, `dreamery health` and the token of `/metrics`."""

import json
import socket

import pytest
from fastapi.testclient import TestClient
from typer.testing import CliRunner

from api.app import create_app
from api.cli.main import app as cli
from tests.support.api_client import assert_error
from worker.local.schema_upgrade import newest_revision
from worker.messaging import heartbeat

HERE = socket.gethostname()


@pytest.fixture
def healthy(engine):
    """A platform that passes all checks: a tick has run, the scheduler has sent one, a worker processes messages."""
    heartbeat._status.seen.clear()
    heartbeat.record_activity("tick")
    heartbeat.record_activity("scheduler")
    heartbeat.record_heartbeat()
    heartbeat.publish_status(f"worker@{HERE}", queues=["fast", "bulk"], threads=4)
    return engine


@pytest.fixture
def http(healthy):
    return TestClient(create_app(), client=("127.0.0.1", 50000))


def change_worker(engine, **fields) -> None:
    ((field, raw),) = engine.redis.hgetall(heartbeat._WORKERS).items()
    engine.redis.hset(heartbeat._WORKERS, field, json.dumps({**json.loads(raw), **fields}))


def not_ready_message(http, **query) -> str:
    return assert_error(http.get("/readyz", params=query), 503, "overloaded")


def test_ready_when_all_checks_pass(http):
    answer = http.get("/readyz")
    assert answer.status_code == 200, answer.text
    assert answer.json() == {
        "status": "ready",
        "draining": False,
        "problems": [],
        "checks": dict.fromkeys(["database", "schema", "redis", "tick", "worker", "storage"], True),
    }  # fmt: skip


def test_not_ready_without_a_recent_tick(http, engine):
    engine.redis.hset(heartbeat._SEEN, "tick", 0)
    assert "last tick ran" in not_ready_message(http)
    engine.redis.hdel(heartbeat._SEEN, "tick")
    assert "no tick has run yet" in not_ready_message(http)
    assert http.get("/readyz", params={"exclude": "tick"}).status_code == 200


@pytest.mark.parametrize("fields", [{"heard": 0}, {"told": 0, "heard": 0}, {"queues": ["talk"]}])
def test_not_ready_without_a_responsive_worker(http, engine, fields):
    change_worker(engine, **fields)
    assert "no worker accepts messages" in not_ready_message(http)
    assert "worker" not in http.get("/readyz", params={"exclude": ["tick", "worker"]}).json()["checks"]


def test_fully_busy_worker_is_ready(http, engine):
    change_worker(engine, heard=0, busy=4)
    assert http.get("/readyz").status_code == 200


def test_old_schema_is_not_ready_and_newer_schema_is(http, engine):
    try:
        engine.sql("UPDATE alembic_version SET version_num = '0014_prices'")
        assert f"the schema is at 0014_prices, not at {newest_revision()}: run dreamery migrate" in not_ready_message(
            http
        )
        # Old processes keep running after the new version has migrated the database.
        engine.sql("UPDATE alembic_version SET version_num = '9999_of_the_future'")
        assert http.get("/readyz").status_code == 200
    finally:
        engine.sql("UPDATE alembic_version SET version_num = :newest", newest=newest_revision())


def test_not_ready_without_redis_or_database(http, engine):
    engine.configure(REDIS_URL="redis://127.0.0.1:1/0")
    assert not_ready_message(http) == "Not ready: Redis does not respond."
    engine.configure(DATABASE_URL="postgresql://nobody@127.0.0.1:1/none")
    assert "the database does not respond" in not_ready_message(http)


def test_readiness_writes(http, engine):
    """On a server that only reads, every other check passes."""
    url = engine.env["DREAMERY_DATABASE_URL"]
    read_only = "target_session_attrs=any&options=-c%20default_transaction_read_only=on"
    engine.configure(DATABASE_URL=f"{url}?{read_only}")
    assert not_ready_message(http).startswith("Not ready: the database is read-only: ")
    assert http.get("/readyz", params={"exclude": "database"}).status_code == 200


def test_empty_database_is_not_ready(http, engine, postgres):
    engine.configure(DATABASE_URL=postgres.url("postgres"))
    assert "has no tables: run dreamery migrate" in not_ready_message(http)


def test_unknown_check_returns_400(http):
    assert_error(http.get("/readyz", params={"exclude": "moon"}), 400, "invalid_value", "exclude.0")


def test_metrics_require_the_configured_token(http, engine):
    assert http.get("/metrics").status_code == 200
    engine.configure(METRICS_TOKEN="a-token-for-prometheus")
    for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "a-token-for-prometheus"}):
        message = assert_error(http.get("/metrics", headers=headers), 401, "invalid_api_key")
        assert "a-token" not in message
    answer = http.get("/metrics", headers={"Authorization": "Bearer a-token-for-prometheus"})
    assert answer.status_code == 200
    assert b"dreamery_up" in answer.content


# --- dreamery health ---


def health(*arguments: str) -> tuple[int, str]:
    answer = CliRunner().invoke(cli, ["health", *arguments])
    return answer.exit_code, answer.output


def test_responsive_worker_is_healthy(healthy):
    code, output = health("worker")
    assert (code, f"worker@{HERE} processed a message" in output) == (0, True)
    assert health("worker", "--name", "worker")[0] == 0
    (status,) = json.loads(health("worker", "--json")[1])["data"]
    assert (status["name"], status["hears"], status["threads"]) == (f"worker@{HERE}", True, 4)


def test_unresponsive_worker_is_unhealthy(healthy):
    change_worker(healthy, heard=0)
    code, output = health("worker")
    assert code == 1
    assert f"worker@{HERE} has processed no message for" in output
    assert health("worker", "--json")[0] == 1


def test_worker_on_another_machine_is_ignored(healthy):
    change_worker(healthy, host="elsewhere")
    assert health("worker") == (1, "no worker on this machine has sent a heartbeat\n")
    assert health("worker", "--name", "talker")[0] == 1


def test_scheduler_health(healthy):
    assert health("scheduler")[0] == 0
    healthy.redis.hset(heartbeat._SEEN, "scheduler", 0)
    code, output = health("scheduler")
    assert (code, "the last tick was sent" in output) == (1, True)
    healthy.redis.hdel(heartbeat._SEEN, "scheduler")
    assert health("scheduler") == (1, "the scheduler has not sent a tick yet\n")


def test_redis_outage_does_not_make_a_process_unhealthy(healthy):
    healthy.configure(REDIS_URL="redis://127.0.0.1:1/0")
    for name in ("worker", "scheduler"):
        code, output = health(name)
        assert (code, "unknown: Redis does not answer" in output) == (0, True)


def test_unreachable_api_is_unhealthy(engine):
    engine.configure(API_PORT="1")
    code, output = health("api")
    assert (code, "no answer on 127.0.0.1:1" in output) == (1, True)
