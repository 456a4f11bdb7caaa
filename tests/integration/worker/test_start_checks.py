"""A role that cannot work with its servers says so in one sentence and ends; one whose servers are away waits."""

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import psycopg
import pytest

from tests.integration.worker.test_master_key import refuse, run_role
from tests.support.engine import Engine
from tests.support.platform import eventually, free_port
from worker.local import embedded_servers
from worker.local.embedded_servers import EmbeddedPostgres

ROLES = [("api",), ("worker",), ("talker",), ("scheduler",)]
WRONG_PASSWORD = "a-wrong-password"


def with_password(url: str, password: str) -> str:
    return re.sub(r"(://[^:/]*:)[^@]*@", rf"\g<1>{password}@", url)


def error_of(output: str) -> str:
    """The one line that is not a log line."""
    [line] = [line for line in output.splitlines() if line.startswith("Error: ")]
    assert WRONG_PASSWORD not in output
    return line


BAD_DATABASE, BAD_REDIS = ("DATABASE", "db.internal/dreamery", "it has no scheme"), ("REDIS", "", "it is not set")


# Flower needs no database.
@pytest.mark.parametrize(
    ("role", "name", "url", "reason"),
    [*((role, *bad) for role in ROLES for bad in (BAD_DATABASE, BAD_REDIS)), (("flower",), *BAD_REDIS)],
)
def test_url_that_cannot_work(engine: Engine, role: tuple[str, ...], name: str, url: str, reason: str) -> None:
    output = refuse(engine, *role, **{f"DREAMERY_{name}_URL": url})
    assert error_of(output).startswith(f"Error: DREAMERY_{name}_URL cannot be used: {reason}")


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("name", ["DATABASE", "REDIS"])
def test_wrong_password(engine: Engine, role: tuple[str, ...], name: str) -> None:
    setting = f"DREAMERY_{name}_URL"
    output = refuse(engine, *role, **{setting: with_password(engine.env[setting], WRONG_PASSWORD)})
    assert error_of(output).startswith(f"Error: {setting} is wrong: ")
    assert "its user or password" in output


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        (r"/\w+$", "/no_such_database", "Postgres has no such database"),
        (r"://\w+:", "://no_such_user:", "Postgres refuses its user or password"),
        (r"/\w+$", "/postgres", "has no tables of Dreamery: run `dreamery migrate`"),
    ],
)
def test_wrong_database_or_user(engine: Engine, old: str, new: str, reason: str) -> None:
    url = re.sub(old, new, engine.env["DREAMERY_DATABASE_URL"])
    assert reason in error_of(refuse(engine, "worker", DREAMERY_DATABASE_URL=url))


def test_number_of_a_database_that_redis_does_not_have(engine: Engine) -> None:
    url = engine.env["DREAMERY_REDIS_URL"].removesuffix("/0") + "/9999"
    assert "Redis has no database of that number" in error_of(refuse(engine, "worker", DREAMERY_REDIS_URL=url))


@pytest.fixture(params=["cluster", "sentinel"])
def special_redis(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[str, str]]:
    """A server in this mode, and its URL."""
    port = free_port()
    config = tmp_path / "special.conf"
    config.write_text(f"port {port}\n" + ("cluster-enabled yes\n" if request.param == "cluster" else ""))
    flags = ["--sentinel"] if request.param == "sentinel" else []
    command = [str(embedded_servers._valkey_program()), str(config), *flags]
    process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        eventually(lambda: not _is_free(port), what="the server listens")
        yield request.param, f"redis://127.0.0.1:{port}/0"
    finally:
        process.kill()
        process.wait()


def _is_free(port: int) -> bool:
    from worker.local.processes import port_is_free

    return port_is_free("127.0.0.1", port)


def test_cluster_and_sentinel_behind_an_ordinary_url(engine: Engine, special_redis: tuple[str, str]) -> None:
    mode, url = special_redis
    assert f"names a server in {mode} mode" in error_of(refuse(engine, "worker", DREAMERY_REDIS_URL=url))


def test_worker_waits_for_a_database_that_is_away(engine: Engine, postgres: EmbeddedPostgres) -> None:
    """A port that nobody listens on is no wrong setting: a server that restarts looks the same."""
    url = engine.env["DREAMERY_DATABASE_URL"]
    gone = url.replace(f":{urlsplit(url).port}/", f":{free_port()}/")
    worker = run_role(engine, "worker", DREAMERY_DATABASE_URL=gone)
    try:
        assert worker.stdout is not None
        assert any("waiting_for_database" in line for line in worker.stdout)
        assert worker.poll() is None
        assert engine.redis.hlen("dreamery:workers") == 0
    finally:
        worker.kill()
        worker.wait()
        worker.stdout and worker.stdout.close()


def test_reason_is_not_taken_for_a_refusal_when_connections_are_used_up(postgres: EmbeddedPostgres) -> None:
    from worker.db.platform.startup import refusal_reason

    assert refusal_reason(psycopg.OperationalError("FATAL:  sorry, too many clients already")) is None
