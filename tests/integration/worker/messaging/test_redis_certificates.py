"""A server with a certificate that nobody knows gets nothing from us, whichever client connects, and no role starts."""

import asyncio
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path

import kombu
import pytest
import redis.asyncio
from kombu.exceptions import OperationalError

from tests.integration.worker.test_master_key import refuse
from tests.support.engine import Engine
from tests.support.servers.redis_servers import ENCODED, make_certificates
from worker.messaging.redis_connection import celery_settings, create_async_pool, create_client


class Stranger:
    """Answers on a port with its own certificate, and keeps what it was sent after the handshake."""

    def __init__(self, folder: Path) -> None:
        files = make_certificates(folder)
        self.received = b""
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(files.certificate, files.key)
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.url = f"rediss://:{ENCODED}@127.0.0.1:{self._listening.getsockname()[1]}/0"
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        with suppress(OSError):  # the end of the test
            while True:
                connection, _ = self._listening.accept()
                with suppress(OSError), self._context.wrap_socket(connection, server_side=True) as encrypted:
                    self.received += encrypted.recv(1000)

    def close(self) -> None:
        self._listening.close()


@pytest.fixture
def stranger(tmp_path: Path) -> Iterator[Stranger]:
    with closing(Stranger(tmp_path / "tls")) as found:
        yield found


def ask_with_redis_py(url: str) -> None:
    with closing(create_client(url)) as client:
        client.ping()


def ask_asynchronously(url: str) -> None:
    async def ping() -> None:
        client = redis.asyncio.Redis.from_pool(create_async_pool(url, connections=1, wait_seconds=1))
        try:
            await client.ping()
        finally:
            await client.aclose()

    asyncio.run(ping())


def ask_with_celery(url: str) -> None:
    settings = celery_settings(url)
    options = {"ssl": settings["broker_use_ssl"], "transport_options": settings["broker_transport_options"]}
    with kombu.Connection(settings["broker_url"], **options) as connection:
        connection.ensure_connection(max_retries=1, interval_start=0.01)


@pytest.mark.parametrize("ask", [ask_with_redis_py, ask_asynchronously, ask_with_celery])
def test_no_client_sends_a_password(ask: Callable[[str], None], stranger: Stranger) -> None:
    with pytest.raises((redis.ConnectionError, OperationalError)):
        ask(stranger.url)
    assert stranger.received == b""
    with suppress(redis.RedisError, OperationalError):
        ask(f"{stranger.url}?ssl_cert_reqs=none")
    assert stranger.received  # the stranger would have received it


@pytest.mark.parametrize("role", ["api", "worker", "scheduler"])
def test_no_role_starts(engine: Engine, role: str, stranger: Stranger) -> None:
    output = refuse(engine, role, DREAMERY_REDIS_URL=stranger.url)
    assert "Error: DREAMERY_REDIS_URL is wrong: the certificate of Redis is not accepted" in output
    assert stranger.received == b""
