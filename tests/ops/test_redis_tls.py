"""TLS to Redis with a real server: one reading of the URL, certificates verified, and no password for strangers."""

import asyncio
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import httpx
import kombu
import pytest
import redis.asyncio
from kombu.exceptions import OperationalError

from tests.support.platform import ROOT, clean_env, eventually, free_port, start_platform
from tests.support.servers.redis_servers import (
    ENCODED,
    Certificates,
    RedisServer,
    make_certificates,
    running_server,
)
from worker.core.settings import get_settings
from worker.messaging.rate_limits import RequestLimits
from worker.messaging.redis_connection import celery_settings, create_async_pool, create_client

ROLES = ("api", "worker", "talker", "scheduler", "flower")
IMAGE = {"prompt": "a lighthouse", "size": "2048x2048", "n": 1}


@pytest.fixture
def certificates(tmp_path: Path) -> Certificates:
    return make_certificates(tmp_path / "tls")


@pytest.fixture
def server(program: Callable[[str], Path], tmp_path: Path, certificates: Certificates) -> Iterator[RedisServer]:
    with running_server(program("redis-server"), tmp_path / "redis", tls=certificates) as found:
        yield found


def url_of(server: RedisServer, **options: object) -> str:
    query = "&".join(f"{name}={value}" for name, value in options.items())
    return f"rediss://:{ENCODED}@127.0.0.1:{server.port}/0{'?' if query else ''}{query}"


def refusal(role: str, url: str, database_url: str, tmp_path: Path) -> str:
    """Run a role that must not start, and return the line that says why."""
    env = clean_env(
        DREAMERY_DATABASE_URL=database_url,
        DREAMERY_REDIS_URL=url,
        DREAMERY_DATA_DIR=str(tmp_path / "data"),
        DREAMERY_MASTER_KEY="a master key of the tests that is long enough",
        DREAMERY_ADMIN_KEY="sk-dreamery-admin-key-of-the-tests-0123456789",
        DREAMERY_API_PORT=str(free_port()),
    )
    command = [sys.executable, "-P", "-m", "api.cli.main", "run", role]
    if role == "flower":
        command += ["--port", str(free_port())]
    done = subprocess.run(
        command, env=env, cwd=ROOT / "tests", capture_output=True, text=True, timeout=100, check=False
    )
    output = done.stdout + done.stderr
    assert done.returncode == 1, output
    assert "Traceback" not in output
    assert ENCODED not in output
    [line] = [line for line in output.splitlines() if line.startswith("Error: ")]
    return line


@pytest.mark.parametrize("role", ROLES)
def test_no_role_starts_when_the_authority_is_unknown(
    role: str, server: RedisServer, database_url: str, tmp_path: Path
) -> None:
    before = server.client.info("commandstats")
    line = refusal(role, url_of(server), database_url, tmp_path)
    assert line.startswith("Error: DREAMERY_REDIS_URL is wrong: the certificate of Redis is not accepted")
    assert "ssl_ca_certs" in line
    # Nothing but our own question was asked, so no password was sent.
    after = server.client.info("commandstats")
    assert set(after) - set(before) <= {"cmdstat_info"}
    assert after.get("cmdstat_auth") == before.get("cmdstat_auth")
    assert after.get("cmdstat_hello") == before.get("cmdstat_hello")


def test_other_mistakes_are_named(
    server: RedisServer,
    program: Callable[[str], Path],
    certificates: Certificates,
    database_url: str,
    tmp_path: Path,
) -> None:
    ca = certificates.ca

    def line(role: str, url: str) -> str:
        return refusal(role, url, database_url, tmp_path)

    by_name = url_of(server, ssl_ca_certs=ca).replace("127.0.0.1", "localhost")
    assert "use the name that the certificate contains" in line("worker", by_name)
    assert "write rediss://" in line("worker", url_of(server).replace("rediss:", "redis:"))
    with running_server(program("redis-server"), tmp_path / "plain") as plain:
        assert "write redis:// instead" in line("api", url_of(plain, ssl_ca_certs=ca))
    server.client.config_set("tls-auth-clients", "yes")
    assert "ssl_certfile and ssl_keyfile" in line("scheduler", url_of(server, ssl_ca_certs=ca))


def connect_with_celery(url: str) -> None:
    settings = celery_settings(url)
    with kombu.Connection(
        settings["broker_url"], ssl=settings["broker_use_ssl"], transport_options=settings["broker_transport_options"]
    ) as connection:
        connection.ensure_connection(max_retries=1, interval_start=0.01)
        connection.default_channel.client.ping()


def connect_with_redis_py(url: str) -> None:
    with closing(create_client(url)) as client:
        client.ping()


def connect_asynchronously(url: str) -> None:
    async def ping() -> None:
        client = redis.asyncio.Redis.from_pool(create_async_pool(url, connections=1, wait_seconds=1))
        try:
            await client.ping()
        finally:
            await client.aclose()

    asyncio.run(ping())


def connect_with_limits(url: str) -> None:
    async def count() -> None:
        limits = RequestLimits()
        try:
            if await limits.count([("someone", 5)]) is None:
                raise redis.ConnectionError("no count")
        finally:
            await limits.close()

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DREAMERY_REDIS_URL", url)
        get_settings.cache_clear()
        asyncio.run(count())
    get_settings.cache_clear()


CLIENTS = (connect_with_redis_py, connect_asynchronously, connect_with_celery, connect_with_limits)


@pytest.mark.parametrize("connect", CLIENTS)
def test_every_client_obeys_the_same_options(
    connect: Callable[[str], None], server: RedisServer, certificates: Certificates
) -> None:
    ca, files = certificates.ca, {"ssl_certfile": certificates.certificate, "ssl_keyfile": certificates.key}
    by_name = url_of(server, ssl_ca_certs=ca).replace("127.0.0.1", "localhost")
    for wrong in (url_of(server), by_name):
        with pytest.raises((redis.ConnectionError, OperationalError)):
            connect(wrong)
    connect(url_of(server, ssl_ca_certs=ca))
    connect(url_of(server, ssl_cert_reqs="none"))
    connect(f"{by_name}&ssl_check_hostname=false")
    server.client.config_set("tls-auth-clients", "yes")
    with pytest.raises((redis.ConnectionError, OperationalError)):
        connect(url_of(server, ssl_ca_certs=ca))
    connect(url_of(server, ssl_ca_certs=ca, **files))
    server.client.config_set("tls-auth-clients", "optional")


def test_a_platform_works_over_tls(server: RedisServer, certificates: Certificates, tmp_path: Path) -> None:
    env = {"DREAMERY_REDIS_URL": url_of(server, ssl_ca_certs=certificates.ca)}
    with (
        start_platform(tmp_path, extra_env=env, flower="at_start") as platform,
        httpx.Client(base_url=platform.url, headers={"Authorization": "Bearer demo:sandbox"}, timeout=60) as http,
    ):
        answer = http.post("/v1/images/generations", json=IMAGE)
        assert answer.status_code == 200, answer.text
        assert "cmdstat_brpop" in server.client.info("commandstats")
        login = ("admin", platform.admin_key)
        eventually(
            lambda: "fast" in httpx.get(f"{platform.flower_url}/broker", auth=login, timeout=20).text,
            what="Flower lists the queues",
        )
