"""The database is gone without a word, or only reads: callers get an answer soon, and everything continues by itself."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import psycopg
import pytest

from tests.support.api_client import IMAGES, ApiClient, assert_error, new_key
from tests.support.crash.platform_snapshot import PlatformSnapshot
from tests.support.platform import CheckedPlatform, eventually, migrate, running_postgres, start_platform
from tests.support.servers.frozen_link import FrozenLink, frozen_link
from worker.local.embedded_servers import EmbeddedPostgres

pytestmark = pytest.mark.timeout(300)
# Callers get an answer within 10 s; the machine of the tests may be slow.
ANSWER_SECONDS = 20.0
READ_ONLY = "The database is read-only"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedPostgres]:
    """A server of this file, because its settings change."""
    with running_postgres(tmp_path_factory.mktemp("away")) as (server, _child):
        yield server


@pytest.fixture(scope="module")
def link(server: EmbeddedPostgres) -> Iterator[FrozenLink]:
    with frozen_link(server.port) as link:
        yield link


@pytest.fixture(scope="module")
def platform(
    server: EmbeddedPostgres, link: FrozenLink, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[CheckedPlatform]:
    """Two workers that reach the database through the link; the tests reach it directly."""
    server.ensure_database()
    url = server.url()
    migrate(url)
    env = {
        "DREAMERY_DATABASE_URL": url.replace(f":{server.port}/", f":{link.port}/"),
        "DREAMERY_ACCOUNT_SUBMITS_PER_MINUTE": "100000",
    }
    with start_platform(tmp_path_factory.mktemp("platform"), database_url=url, workers=2, extra_env=env) as started:
        yield started


@pytest.fixture
def client(platform: CheckedPlatform) -> Iterator[ApiClient]:
    with ApiClient(platform, new_key("away")) as made:
        yield made


def requests(client: ApiClient, number: int) -> list[tuple[str, str, dict[str, Any] | None]]:
    """One request of each kind: reading, creating, waiting, streaming, an agent's chat, and one with an admin's key."""
    order = {"prompt": f"a boat [[job:{number}]]", "n": 1}
    messages = [{"role": "user", "content": f"a boat [[job:{number}]]"}]
    return [
        ("GET", "/v1/jobs", None),
        ("GET", "/v1/usage", None),
        ("GET", "/readyz", None),
        ("POST", IMAGES, {**order, "async": True}),
        ("POST", IMAGES, order),
        ("POST", IMAGES, {**order, "stream": True}),
        ("POST", "/v1/chat/completions", {"model": "jimeng-4.0", "messages": messages, "stream": True}),
        ("GET", "/admin/v1/users", None),
    ]


def send_all(client: ApiClient, number: int) -> list[httpx.Response]:
    """Send one request of each kind at the same time."""

    def send(one: tuple[str, str, dict[str, Any] | None]) -> httpx.Response:
        method, path, body = one
        key = client.platform.admin_key if path.startswith("/admin") else client.key
        headers = {"Authorization": f"Bearer {key}"}
        return httpx.request(
            method, f"{client.platform.url}{path}", json=body, headers=headers, timeout=ANSWER_SECONDS, trust_env=False
        )

    kinds = requests(client, number)
    with ThreadPoolExecutor(len(kinds)) as threads:
        return list(threads.map(send, kinds))


def assert_away(response: httpx.Response, reason: str) -> None:
    message = assert_error(response, 503, "overloaded")
    assert reason.lower() in message.lower()
    assert response.headers["retry-after"]


def pids(platform: CheckedPlatform) -> dict[str, int]:
    return {name: child.pid for name, child in platform.children.items()}


def is_well(client: ApiClient) -> bool:
    return client.http.get("/readyz").status_code == 200 and client.http.get("/v1/jobs").status_code == 200


def logged(platform: CheckedPlatform, name: str) -> str:
    return (platform.logs_dir / f"{name}.log").read_text("utf-8")


def test_connections_that_die_without_a_word(platform: CheckedPlatform, client: ApiClient, link: FrozenLink) -> None:
    before, numbers = pids(platform), list(range(100, 106))
    jobs = [client.start_job(f"a boat [[job:{number}]][[seconds:3]]")["id"] for number in numbers]
    link.freeze()
    try:
        for first in (200, 300):  # connections break at first; later none can be made
            for response in send_all(client, first):
                assert_away(response, "the database does not respond")
        assert client.http.get("/healthz").status_code == 200
        eventually(lambda: "database_lost" in logged(platform, "worker-1"), what="a worker names the cause")
    finally:
        link.thaw()
    eventually(lambda: is_well(client), within=30, what="the API and the workers are well again")
    assert {client.wait_for_end(job)["status"] for job in jobs} == {"completed"}
    assert client.wait_for_end(client.start_job()["id"])["status"] == "completed"
    assert pids(platform) == before, "nothing was restarted"
    assert "The database does not respond. (" in logged(platform, "api")
    snapshot = PlatformSnapshot(platform, [*numbers, 200, 300])
    assert not snapshot.open_jobs
    snapshot.assert_charged_once()


def test_database_that_only_reads(platform: CheckedPlatform, client: ApiClient) -> None:
    """As after a failover to a standby: reading works on old connections, and writing on none."""
    before, numbers = pids(platform), list(range(400, 404))
    jobs = [client.start_job(f"a boat [[job:{number}]][[seconds:3]]")["id"] for number in numbers]
    with psycopg.connect(platform.database_url, autocommit=True) as connection:
        connection.execute("SET default_transaction_read_only = off")
        try:
            connection.execute("ALTER SYSTEM SET default_transaction_read_only = on")
            connection.execute("SELECT pg_reload_conf()")
            eventually(lambda: client.http.get("/readyz").status_code == 503, what="readiness writes")
            for response in send_all(client, 500):
                assert_away(response, READ_ONLY)
            eventually(lambda: READ_ONLY in logged(platform, "worker-1"), what="a worker names the cause")
        finally:
            connection.execute("ALTER SYSTEM RESET default_transaction_read_only")
            connection.execute("SELECT pg_reload_conf()")
    eventually(lambda: is_well(client), within=30, what="the API and the workers are well again")
    assert {client.wait_for_end(job)["status"] for job in jobs} == {"completed"}
    assert pids(platform) == before, "nothing was restarted"
    snapshot = PlatformSnapshot(platform, [*numbers, 500])
    snapshot.assert_charged_once()
