"""Fixtures for all tiers: one throwaway Postgres and Redis per test run, and new databases with the latest schema."""

import itertools
import socket
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import hypothesis
import psycopg
import pytest

from tests.support.platform import CheckedPlatform, migrate, running_postgres, running_redis, start_platform
from tests.support.servers.http_servers import WebhookReceivers, running_app
from tests.support.servers.s3_server import Bucket, running_s3
from tests.support.shared_platforms import SharedPlatformPlugin
from tests.support.time_limits import time_limit
from worker.core.concurrency import watchdog
from worker.local.embedded_servers import EmbeddedPostgres
from worker.local.supervisor import Platform, PlatformOptions

_TEMPLATE = "migrated_template"
_numbers = itertools.count(1)

# Same examples in each run, so that a failure is caused by the change. Explore with `--hypothesis-profile=default`.
hypothesis.settings.register_profile("gate", derandomize=True, deadline=None)
hypothesis.settings.load_profile("gate")


def pytest_configure(config: pytest.Config) -> None:
    """Group the tests that share a platform, see `tests/support/shared_platforms.py`."""
    config.pluginmanager.register(SharedPlatformPlugin())
    # The watchdog of the product ends a process that hangs; tests that hang have a limit of their own.
    watchdog.os = SimpleNamespace(_exit=lambda _code: None)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give the tests of quick tiers their time limit, see `tests/support/time_limits.py`."""
    for item in items:
        seconds = time_limit(item.nodeid, getattr(item, "fixturenames", ()))
        if seconds is not None and item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(seconds))


@pytest.fixture(autouse=True)
def _no_outside_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only connections to this machine are allowed: a missing fake must not reach a real upstream."""
    connect = socket.socket.connect

    def local_only(self: socket.socket, address: Any) -> None:
        host = address[0] if isinstance(address, tuple) else "unix"
        if host not in {"127.0.0.1", "::1", "localhost", "unix"}:
            pytest.fail(f"a test tried to connect to {host}")
        connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", local_only)


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedPostgres]:
    """The test run's database server."""
    with running_postgres(tmp_path_factory.mktemp("postgres")) as (server, _child):
        yield server


@pytest.fixture(scope="session")
def postgres_url(postgres: EmbeddedPostgres) -> str:
    """URL of the server's maintenance database, for tests that create databases themselves."""
    return postgres.url("postgres")


@pytest.fixture(scope="session")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """URL of the test run's Redis. It is shared: tests use separate keys or flush it."""
    with running_redis(tmp_path_factory.mktemp("redis")) as (server, _child):
        yield server.url


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bucket]:
    """An S3-compatible server with a bucket. It is shared: tests empty it or use their own prefix."""
    with running_s3(tmp_path_factory.mktemp("s3")) as bucket:
        yield bucket


@pytest.fixture(scope="session")
def _migrated_template(postgres: EmbeddedPostgres) -> str:
    postgres.ensure_database(_TEMPLATE)
    migrate(postgres.url(_TEMPLATE))
    return _TEMPLATE


@pytest.fixture(scope="session")
def make_database(postgres: EmbeddedPostgres, _migrated_template: str) -> Iterator[Callable[[], str]]:
    """A function that creates a database with the latest schema and returns its URL, for wider-scoped fixtures."""
    names: list[str] = []

    def make() -> str:
        names.append(f"test_{next(_numbers)}")
        postgres.ensure_database(names[-1], template=_migrated_template)
        return postgres.url(names[-1])

    yield make
    _drop(postgres, names)


def _drop(postgres: EmbeddedPostgres, names: list[str]) -> None:
    with psycopg.connect(postgres.url("postgres"), autocommit=True) as connection:
        for name in names:
            connection.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')


@pytest.fixture
def database_url(postgres: EmbeddedPostgres, _migrated_template: str) -> Iterator[str]:
    """URL of a database with the latest schema for one test. It is dropped afterwards, even with open connections."""
    name = f"test_{next(_numbers)}"
    postgres.ensure_database(name, template=_migrated_template)
    yield postgres.url(name)
    _drop(postgres, [name])


@pytest.fixture(scope="session")
def api_platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    """A platform as `dreamery up` starts it, with a fast sandbox: two slots per account, no pause between submits."""
    env = {"DREAMERY_ACCOUNT_SUBMITS_PER_MINUTE": "100000", "DREAMERY_POLL_MIN_SECONDS": "0.2"}
    env["DREAMERY_REQUEST_MAX_UPLOAD_BYTES"] = "1000000"  # small, so that a test of the limit sends little
    env["DREAMERY_STREAM_HEARTBEAT_SECONDS"] = "2"  # so that a test of a slow stream takes seconds
    with start_platform(tmp_path_factory.mktemp("api"), extra_env=env, sandbox_seconds=0.2) as platform:
        yield platform


@pytest.fixture(scope="session")
def webhook_receivers() -> Iterator[WebhookReceivers]:
    """Webhook receivers that `multi_region_platform` may call."""
    receivers = WebhookReceivers()
    with running_app(receivers) as receivers.url:
        yield receivers


@pytest.fixture(scope="session")
def multi_region_platform(
    tmp_path_factory: pytest.TempPathFactory, webhook_receivers: WebhookReceivers
) -> Iterator[Platform]:
    """A platform whose upstream hosts all point to the sandbox, so every region works; 200 slots per account.

    A test may kill its processes when it leaves the platform healthy. A dead conversation is detected after 4 s.
    """
    env = {"DREAMERY_ACCOUNT_SUBMITS_PER_MINUTE": "100000", "DREAMERY_ACCOUNT_MAX_IMAGES": "200"}
    env |= {"DREAMERY_ACCOUNT_MAX_CHATS": "40", "DREAMERY_CONVERSATION_LEASE_SECONDS": "4"}
    folder = tmp_path_factory.mktemp("wide")
    options = PlatformOptions(
        data_dir=folder / "data", flower="never", throwaway=True, sandbox_seconds=0.2, extra_env=env
    )
    platform = CheckedPlatform(options)
    # The ports are known now; the processes read these settings at start.
    env["DREAMERY_UPSTREAM_ORIGIN"] = platform.sandbox_url
    env["DREAMERY_FETCH_ALLOW"] = ",".join(
        url.removeprefix("http://") for url in (platform.sandbox_url, webhook_receivers.url)
    )
    with platform:
        yield platform
