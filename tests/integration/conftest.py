"""The `engine` fixture: one database, Redis and sandbox per run, emptied before each test."""

import logging
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import kombu.pools
import pytest
import redis
import structlog

from tests.support.engine import Engine, wipe
from tests.support.servers.http_servers import Gate, Receiver, serving
from tests.support.servers.s3_server import Bucket
from worker import safe_fetch
from worker.db.platform import root_key
from worker.sandbox.options import Options
from worker.sandbox.server import create_app

MASTER_KEY = "a master key of the tests that is long enough for production"
ADMIN_KEY = "sk-dreamery-admin-key-of-the-tests-0123456789"


@pytest.fixture(scope="session")
def _engine_database(make_database: Callable[[], str]) -> str:
    return make_database()


@pytest.fixture(scope="session")
def _sandbox() -> Iterator[tuple[Gate, object, str]]:
    app = create_app(Options(seconds=0.0))
    gate = Gate(app)
    with serving(gate) as url:
        yield gate, app.state.world, url


@pytest.fixture(scope="session")
def _broker(redis_url: str) -> Iterator[str]:
    yield redis_url
    kombu.pools.reset()
    safe_fetch._client().close()
    safe_fetch._client.cache_clear()


@pytest.fixture
def engine(
    _engine_database: str,
    _broker: str,
    _sandbox: tuple[Gate, object, str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> Iterator[Engine]:
    """See `tests/support/engine.py`."""
    gate, world, url = _sandbox
    # A developer's `.env` must not reach the tests.
    monkeypatch.chdir(tmp_path)
    gate.clear()
    world.reset()
    wipe(_engine_database)
    with redis.Redis.from_url(_broker) as client:
        client.flushall()
    made = Engine(
        monkeypatch=monkeypatch,
        gate=gate,
        world=world,
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
    root_key.load_root()
    _forget_cached_loggers()
    root, structured = logging.getLogger(), structlog.get_config()
    handlers, level = root.handlers[:], root.level
    yield made
    made.close()
    # An app or a test may have set up logging for the whole process.
    root.handlers[:], root.level = handlers, level
    structlog.configure(**structured)


def _forget_cached_loggers() -> None:
    """A module's logger keeps the level and the processors of its first use, perhaps an app's of an earlier test."""
    for name, module in list(sys.modules.items()):
        if name.startswith(("worker.", "api.")) and hasattr(module, "log"):
            vars(module.log).pop("bind", None)


@pytest.fixture
def bucket(engine: Engine, s3: Bucket) -> Bucket:
    """The engine's storage, empty, in a bucket."""
    s3.empty()
    engine.configure(**s3.settings())
    return s3


@pytest.fixture
def receiver(engine: Engine) -> Iterator[Receiver]:
    """Somebody who takes webhooks, and whom the fetcher may reach."""
    made = Receiver()
    with serving(made) as url:
        made.url = f"{url}/hook"
        engine.configure(FETCH_ALLOW=f"{engine.env['DREAMERY_FETCH_ALLOW']},{url.removeprefix('http://')}")
        yield made
