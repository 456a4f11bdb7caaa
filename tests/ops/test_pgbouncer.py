"""PgBouncer in front of Postgres, as Debian installs it and in transaction mode: everything works through it."""

import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import psycopg
import pytest
from sqlalchemy import text

from tests.support.api_client import ApiClient, new_key
from tests.support.platform import ROOT, CheckedPlatform, clean_env, eventually, free_port, migrate, start_platform
from tests.support.servers.frozen_link import frozen_link
from tests.support.servers.pgbouncer import running_pgbouncer
from worker.core.settings import get_settings
from worker.db.engine import get_engine, reason_for_callers, transaction
from worker.local.embedded_servers import EmbeddedPostgres

pytestmark = pytest.mark.timeout(300)
TRANSACTION = {"pool_mode": "transaction"}
KINDS = {
    "as installed": {},
    "transaction mode": TRANSACTION | {"default_pool_size": "5"},
    "transaction mode, options ignored": TRANSACTION
    | {"ignore_startup_parameters": "options", "server_round_robin": "1"},
}
# Session mode needs a session for each connection of ours, and its pool has 20.
CLIENTS = {"as installed": 2, "transaction mode": 20}


@pytest.fixture(scope="module")
def programs(program: Callable[[str], Path]) -> Path:
    return program("pgbouncer")


@pytest.fixture
def database(postgres: EmbeddedPostgres) -> Iterator[str]:
    """Name of an empty database."""
    name = "pooled"
    postgres.ensure_database(name)
    yield name
    with psycopg.connect(postgres.url("postgres"), autocommit=True) as connection:
        connection.execute(f'DROP DATABASE "{name}" WITH (FORCE)')


def url_through(port: int, postgres: EmbeddedPostgres, database: str, query: str = "") -> str:
    return postgres.url(database).replace(f":{postgres.port}/", f":{port}/") + query


@pytest.fixture
def use(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    """A function that makes this process use a database."""

    def use(url: str) -> None:
        get_engine.forget()
        get_settings.cache_clear()
        monkeypatch.setenv("DREAMERY_DATABASE_URL", url)

    yield use
    get_engine().dispose()
    get_engine.forget()
    get_settings.cache_clear()


def start_api(platform: CheckedPlatform, folder: Path) -> tuple[subprocess.Popen[bytes], str]:
    """Start another API process of the platform; return it and its URL."""
    env = platform._environment() | {"DREAMERY_API_PORT": str(port := free_port())}
    command = [sys.executable, "-P", "-m", "api.cli.main", "run", "api"]
    with (folder / "second-api.log").open("wb") as log:
        return subprocess.Popen(command, cwd=ROOT, env=env, stdout=log, stderr=log), f"http://127.0.0.1:{port}"


@pytest.mark.parametrize("kind", CLIENTS)
def test_every_process_works(
    programs: Path, postgres: EmbeddedPostgres, database: str, tmp_path: Path, kind: str
) -> None:
    """Migration, two API processes, two workers with the scheduler, backup and doctor."""
    with running_pgbouncer(programs, tmp_path, postgres, **KINDS[kind]) as port:
        url = url_through(port, postgres, database)
        migrate(url)
        fast = {"DREAMERY_ACCOUNT_SUBMITS_PER_MINUTE": "100000"}
        with start_platform(tmp_path / "platform", workers=2, database_url=url, extra_env=fast) as platform:
            api, second_url = start_api(platform, tmp_path)
            try:
                with ApiClient(platform, new_key("pooled")) as client:
                    jobs = [client.start_job("a boat")["id"] for _ in range(10)]
                    second = httpx.Client(base_url=second_url, headers=client.http.headers, timeout=30, trust_env=False)
                    eventually(lambda: responds(second), what="the second API responds")
                    with ThreadPoolExecutor(CLIENTS[kind]) as threads:
                        paths = ["/v1/jobs", f"/v1/jobs/{jobs[0]}", "/v1/usage"] * 10
                        answers = threads.map(lambda path: (client.http.get(path), second.get(path)), paths)
                        failed = {answer.text for both in answers for answer in both if answer.status_code != 200}
                        assert not failed
                    assert {client.wait_for_end(job)["status"] for job in jobs} == {"completed"}
                    listed = second.get("/v1/jobs", params={"limit": 100}).json()["data"]
                    assert {job["id"] for job in listed} == set(jobs)
                    second.close()
            finally:
                api.kill()
                api.wait()
            env = clean_env(DREAMERY_DATABASE_URL=url, DREAMERY_DATA_DIR=str(platform.data_dir))
            env |= {"DREAMERY_MASTER_KEY": platform.master_key, "DREAMERY_REDIS_URL": platform.redis_url}
            mode = KINDS[kind].get("pool_mode", "session")
            assert f"in {mode} mode" in dreamery("doctor", env=env).stdout
            (backup := tmp_path / "backups").mkdir()
            done = dreamery("backup", str(backup), env=env)
            assert done.returncode == 0, done.stdout + done.stderr
            [file] = backup.iterdir()
            refused = dreamery("restore", str(file), "--force", env=env)
            assert refused.returncode == 1
            assert "naming Postgres itself" in refused.stderr.replace("\n", " ")
            logs = "".join(log.read_text("utf-8") for log in platform.logs_dir.glob("*.log"))
        assert "database_lost" not in logs
        assert "prepared statement" not in logs


def responds(client: httpx.Client) -> bool:
    try:
        return client.get("/healthz").status_code == 200
    except httpx.TransportError:
        return False


def dreamery(*arguments: str, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-P", "-m", "api.cli.main", *arguments],
        cwd=ROOT, env=env, capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip


def shown(*names: str) -> dict[str, object]:
    with transaction() as tx:
        return {name: tx.run(text("SELECT current_setting(:name)"), {"name": name}).scalar() for name in names}


@pytest.mark.parametrize("kind", list(KINDS)[1:])
def test_limits_and_options_hold_in_each_transaction(
    programs: Path, postgres: EmbeddedPostgres, tmp_path: Path, use: Callable[[str], None], kind: str
) -> None:
    """No session keeps them: two clients of other settings share one."""
    settings = KINDS[kind] | {"default_pool_size": "1"}
    with running_pgbouncer(programs, tmp_path, postgres, **settings) as port:
        use(url_through(port, postgres, "postgres", "?options=-c%20work_mem=9MB%20-c%20my.name=it%27s"))
        other = psycopg.connect(url_through(port, postgres, "postgres"), autocommit=True)
        for _ in range(2):
            names = ("statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout", "work_mem", "my.name")
            assert list(shown(*names).values()) == ["6s", "5s", "15s", "9MB", "it's"]
            assert other.execute("SHOW statement_timeout").fetchone() == ("0",)
        other.close()


def test_no_statement_is_prepared_by_name(
    programs: Path, postgres: EmbeddedPostgres, tmp_path: Path, use: Callable[[str], None]
) -> None:
    with running_pgbouncer(programs, tmp_path, postgres, **TRANSACTION, default_pool_size="3") as port:
        use(url_through(port, postgres, "postgres"))

        def repeat(number: int) -> set[object]:
            found = set()
            for _ in range(20):
                with transaction() as tx:
                    found.add(tx.run(text("SELECT CAST(:n AS int)"), {"n": number}).scalar())
            return found

        with ThreadPoolExecutor(8) as threads:
            assert list(threads.map(repeat, range(8))) == [{number} for number in range(8)]


def test_a_transaction_costs_no_more_messages(
    programs: Path, postgres: EmbeddedPostgres, tmp_path: Path, use: Callable[[str], None]
) -> None:
    def messages(url: str, count: Callable[[], int]) -> int:
        use(url)
        shown("work_mem")
        before = count()
        shown("work_mem", "lock_timeout")
        used = count() - before
        get_engine().dispose()
        return used

    with (
        running_pgbouncer(programs, tmp_path, postgres, **TRANSACTION) as port,
        frozen_link(port) as pooled,
        frozen_link(postgres.port) as direct,
    ):
        through = messages(url_through(pooled.port, postgres, "postgres"), lambda: pooled.messages)
        assert through == messages(url_through(direct.port, postgres, "postgres"), lambda: direct.messages)


def test_statement_mode_is_refused(programs: Path, postgres: EmbeddedPostgres, tmp_path: Path) -> None:
    with running_pgbouncer(programs, tmp_path, postgres, pool_mode="statement") as port:
        env = clean_env(DREAMERY_DATABASE_URL=url_through(port, postgres, "postgres"), DREAMERY_MASTER_KEY="m" * 40)
        env |= {"DREAMERY_REDIS_URL": "redis://127.0.0.1:1/0", "DREAMERY_DATA_DIR": str(tmp_path)}
        refused = dreamery("migrate", env=env)
        assert refused.returncode == 1
        assert "PgBouncer is in statement mode" in refused.stdout + refused.stderr


def test_full_pooler_is_named_as_the_cause(
    programs: Path, postgres: EmbeddedPostgres, tmp_path: Path, use: Callable[[str], None]
) -> None:
    """PgBouncer refuses clients that wait longer than they may; they are well as soon as a connection is free."""
    settings = TRANSACTION | {"default_pool_size": "1", "query_wait_timeout": "1"}
    with running_pgbouncer(programs, tmp_path, postgres, **settings) as port:
        url = url_through(port, postgres, "postgres")
        use(url)
        assert shown("work_mem")
        with psycopg.connect(url) as hog:
            hog.execute("SELECT 1")  # its transaction holds the only connection
            with pytest.raises(Exception, match="query_wait_timeout") as caught:
                shown("work_mem")
            assert "PgBouncer gave no connection in time" in reason_for_callers(caught.value)
        assert shown("work_mem")


def test_migrations_exclude_each_other(
    programs: Path, postgres: EmbeddedPostgres, database: str, tmp_path: Path
) -> None:
    with running_pgbouncer(programs, tmp_path, postgres, **TRANSACTION) as port:
        url = url_through(port, postgres, database)
        failures: list[BaseException] = []

        def run() -> None:
            try:
                migrate(url)
            except BaseException as error:  # noqa: BLE001 - shown by the test
                failures.append(error)

        threads = [threading.Thread(target=run) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(200)
        assert not failures
