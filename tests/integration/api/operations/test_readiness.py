"""`/readyz`, `dreamery health` and the token of `/metrics`: what is wrong is said, and what is well answers 200."""

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
def well(engine):
    """A platform as the checks see it: a tick has run, the scheduler has sent one, a worker hears."""
    heartbeat._pulse.seen.clear()
    heartbeat.record_activity("tick")
    heartbeat.record_activity("scheduler")
    heartbeat.record_heartbeat()
    heartbeat.publish_status(f"worker@{HERE}", queues=["fast", "bulk"], threads=4)
    return engine


@pytest.fixture
def http(well):
    return TestClient(create_app())


def change(engine, **told) -> None:
    ((field, raw),) = engine.redis.hgetall(heartbeat._WORKERS).items()
    engine.redis.hset(heartbeat._WORKERS, field, json.dumps({**json.loads(raw), **told}))


def wrong(http, **query) -> str:
    return assert_error(http.get("/readyz", params=query), 503, "overloaded")


def test_all_is_well(http):
    answer = http.get("/readyz")
    assert answer.status_code == 200, answer.text
    assert answer.json() == {
        "status": "ready",
        "draining": False,
        "checks": dict.fromkeys(["database", "schema", "redis", "tick", "worker"], True),
    }  # fmt: skip


def test_no_tick_ran_lately(http, engine):
    engine.redis.hset(heartbeat._SEEN, "tick", 0)
    assert "last tick ran" in wrong(http)
    engine.redis.hdel(heartbeat._SEEN, "tick")
    assert "no tick has run yet" in wrong(http)
    assert http.get("/readyz", params={"exclude": "tick"}).status_code == 200


@pytest.mark.parametrize("told", [{"heard": 0}, {"told": 0, "heard": 0}, {"queues": ["talk"]}])
def test_no_worker_takes_messages(http, engine, told):
    change(engine, **told)
    assert "no worker takes messages" in wrong(http)
    assert "worker" not in http.get("/readyz", params={"exclude": ["tick", "worker"]}).json()["checks"]


def test_a_worker_with_all_threads_at_work_is_no_deaf_one(http, engine):
    change(engine, heard=0, busy=4)
    assert http.get("/readyz").status_code == 200


def test_an_old_schema_is_not_ready_and_a_later_one_is(http, engine):
    try:
        engine.sql("UPDATE alembic_version SET version_num = '0014_prices'")
        assert f"the schema is at 0014_prices, not {newest_revision()}: run dreamery migrate" in wrong(http)
        # Old processes go on while the new version has migrated already.
        engine.sql("UPDATE alembic_version SET version_num = '9999_of_the_future'")
        assert http.get("/readyz").status_code == 200
    finally:
        engine.sql("UPDATE alembic_version SET version_num = :newest", newest=newest_revision())


def test_servers_that_do_not_answer(http, engine):
    engine.configure(REDIS_URL="redis://127.0.0.1:1/0")
    assert wrong(http) == "Not ready: Redis does not answer."
    engine.configure(DATABASE_URL="postgresql://nobody@127.0.0.1:1/none")
    assert "the database does not answer" in wrong(http)


def test_a_check_that_does_not_exist(http):
    assert_error(http.get("/readyz", params={"exclude": "moon"}), 400, "invalid_value", "exclude.0")


def test_metrics_ask_for_their_token(http, engine):
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


def test_a_worker_that_hears_is_well(well):
    code, said = health("worker")
    assert (code, f"worker@{HERE} processed a message" in said) == (0, True)
    assert health("worker", "--name", "worker")[0] == 0
    (told,) = json.loads(health("worker", "--json")[1])["data"]
    assert (told["name"], told["hears"], told["threads"]) == (f"worker@{HERE}", True, 4)


def test_a_deaf_worker_is_ill(well):
    change(well, heard=0)
    code, said = health("worker")
    assert code == 1
    assert f"worker@{HERE} has processed no message for" in said
    assert health("worker", "--json")[0] == 1


def test_a_worker_elsewhere_does_not_count(well):
    change(well, host="elsewhere")
    assert health("worker") == (1, "no worker on this machine has sent a heartbeat\n")
    assert health("worker", "--name", "talker")[0] == 1


def test_the_scheduler(well):
    assert health("scheduler")[0] == 0
    well.redis.hset(heartbeat._SEEN, "scheduler", 0)
    code, said = health("scheduler")
    assert (code, "the last tick was sent" in said) == (1, True)
    well.redis.hdel(heartbeat._SEEN, "scheduler")
    assert health("scheduler") == (1, "the scheduler has not sent a tick yet\n")


def test_nobody_is_ill_because_redis_is_away(well):
    well.configure(REDIS_URL="redis://127.0.0.1:1/0")
    for name in ("worker", "scheduler"):
        code, said = health(name)
        assert (code, "unknown: Redis does not answer" in said) == (0, True)


def test_an_api_that_does_not_answer(engine):
    engine.configure(API_PORT="1")
    code, said = health("api")
    assert (code, "no answer on 127.0.0.1:1" in said) == (1, True)
