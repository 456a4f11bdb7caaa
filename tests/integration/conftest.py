"""The `engine` fixture: one database, Redis and sandbox per test run, emptied before each test."""

import logging
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import kombu.pools
import pytest
import redis
import structlog

from tests.support.engine import Engine, delete_all_rows
from tests.support.servers.http_servers import RequestInterceptor, WebhookReceiver, running_app
from tests.support.servers.s3_server import Bucket
from worker.db.platform import root_key
from worker.sandbox.options import Options
from worker.sandbox.server import create_app

MASTER_KEY = "a master key of the tests that is long enough for production"
ADMIN_KEY = "sk-dreamery-admin-key-of-the-tests-0123456789"


@pytest.fixture(scope="session")
def _engine_database(make_database: Callable[[], str]) -> str:
    return make_database()


@pytest.fixture(scope="session")
def _sandbox() -> Iterator[tuple[RequestInterceptor, object, str]]:
    app = create_app(Options(seconds=0.0))
    interceptor = RequestInterceptor(app)
    with running_app(interceptor) as url:
        yield interceptor, app.state.sandbox, url


@pytest.fixture(scope="session")
def _broker(redis_url: str) -> Iterator[str]:
    yield redis_url
    kombu.pools.reset()


@pytest.fixture
def engine(
    _engine_database: str,
    _broker: str,
    _sandbox: tuple[RequestInterceptor, object, str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> Iterator[Engine]:
    """The job engine under test, see `tests/support/engine.py`."""
    interceptor, sandbox, url = _sandbox
    # A developer's `.env` must not reach the tests.
    monkeypatch.chdir(tmp_path)
    interceptor.clear()
    sandbox.reset()
    delete_all_rows(_engine_database)
    with redis.Redis.from_url(_broker) as client:
        client.flushall()
    engine = Engine(
        monkeypatch=monkeypatch,
        interceptor=interceptor,
        sandbox=sandbox,
        url=url,
        env={
            "DATABASE_URL": _engine_database,
            "REDIS_URL": _broker,
            "DATA_DIR": str(tmp_path / "data"),
            "MASTER_KEY": MASTER_KEY,
            "ADMIN_KEY": ADMIN_KEY,
            "SANDBOX_URL": url,
            "UPSTREAM_ORIGIN": url,
            "FETCH_ALLOW": url.removeprefix("http://"),
            "SESSION_TOKENS": "true",
            "ACCOUNT_SUBMITS_PER_MINUTE": "60000",
            "POLL_MIN_SECONDS": "0.5",
            "DEFAULT_REGION": "sandbox",
        },
    )
    root_key.load_root_key()
    _forget_cached_loggers()
    root, structured = logging.getLogger(), structlog.get_config()
    handlers, level = root.handlers[:], root.level
    yield engine
    engine.close()
    # An app or a test may have configured logging for the whole process.
    root.handlers[:], root.level = handlers, level
    structlog.configure(**structured)


def _forget_cached_loggers() -> None:
    """Module loggers cache level and processors at first use, which may be those of an app in an earlier test."""
    for name, module in list(sys.modules.items()):
        if name.startswith(("worker.", "api.")) and hasattr(module, "log"):
            vars(module.log).pop("bind", None)


@pytest.fixture
def bucket(engine: Engine, s3: Bucket) -> Bucket:
    """An empty S3 bucket as the engine's storage."""
    s3.empty()
    engine.configure(**s3.settings())
    return s3


@pytest.fixture
def receiver(engine: Engine) -> Iterator[WebhookReceiver]:
    """A webhook receiver that the fetcher is allowed to reach."""
    receiver = WebhookReceiver()
    with running_app(receiver) as url:
        receiver.url = f"{url}/hook"
        engine.configure(FETCH_ALLOW=f"{engine.env['DREAMERY_FETCH_ALLOW']},{url.removeprefix('http://')}")
        yield receiver
