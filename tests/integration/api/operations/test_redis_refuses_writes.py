"""A Redis that answers and refuses writes counts as away: readiness, metrics and doctor say why, requests are accepted."""

import shutil
import socketserver
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from fastapi.testclient import TestClient

from api.app import create_app
from api.cli.operator.doctor import _check_redis
from tests.support.api_client import assert_error
from tests.support.engine import Engine
from tests.support.platform import eventually
from tests.support.servers.redis_servers import ENCODED, RedisServer, running_server
from worker.local import embedded_servers
from worker.messaging import heartbeat

IMAGE = {"prompt": "a lighthouse", "size": "2048x2048", "n": 1, "async": True}


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    """A server of its own, because the shared one must accept writes for the other tests."""
    with running_server(embedded_servers._valkey_program(), tmp_path / "redis") as found:
        yield found


def fill(server: RedisServer, _folder: Path) -> None:
    server.client.config_set("maxmemory", 1)


def demote(server: RedisServer, _folder: Path) -> None:
    server.client.execute_command("REPLICAOF", "127.0.0.1", "1")


def lose_replicas(server: RedisServer, _folder: Path) -> None:
    server.client.config_set("min-replicas-to-write", 1)


def take_rights(server: RedisServer, _folder: Path) -> None:
    server.client.execute_command("ACL", "SETUSER", "default", "-@write")


def fill_disk(server: RedisServer, folder: Path) -> None:
    server.client.config_set("save", "3600 1")
    shutil.rmtree(folder / "redis")  # a snapshot cannot be written here
    server.client.bgsave()
    eventually(
        lambda: server.client.info("persistence")["rdb_last_bgsave_status"] == "err", what="the snapshot has failed"
    )


REFUSALS = [
    (fill, "its memory is full"),
    (demote, "it is a read-only replica"),
    (lose_replicas, "it has fewer replicas"),
    (take_rights, "its user lacks rights"),
    (fill_disk, "it cannot save its data to disk"),
]


@pytest.mark.parametrize(("refuse", "reason"), REFUSALS)
def test_refused_writes_are_reported(
    engine: Engine, server: RedisServer, refuse: Callable[[RedisServer, Path], None], reason: str, tmp_path: Path
) -> None:
    engine.configure(REDIS_URL=f"redis://:{ENCODED}@127.0.0.1:{server.port}/0")
    heartbeat.record_heartbeat()
    heartbeat.publish_status("worker@here", queues=["fast"], threads=1)
    with TestClient(create_app(), client=("127.0.0.1", 50000)) as http:
        assert 'dreamery_up{source="redis"} 1.0' in http.get("/metrics").text
        refuse(server, tmp_path)
        message = assert_error(http.get("/readyz?exclude=tick&exclude=worker"), 503, "overloaded")
        assert reason in message
        # It still answers what it is asked. A server that changes its role may close connections first.
        eventually(lambda: is_reported(http.get("/metrics").text), what="the metrics tell the refusal")
        [finding] = _check_redis()
        assert not finding.ok
        assert (reason if refuse is not take_rights else "may not run LPUSH fast") in finding.detail
        accepted = http.post("/v1/images/generations", json=IMAGE, headers={"Authorization": "Bearer demo:sandbox"})
        _assert_stored(engine, accepted)


def is_reported(metrics: str) -> bool:
    return 'dreamery_up{source="redis"} 0.0' in metrics and 'dreamery_workers{hears="true",queues="fast"} 1' in metrics


def _assert_stored(engine: Engine, accepted: httpx.Response) -> None:
    assert accepted.status_code == 202, accepted.text
    [row] = engine.sql("SELECT state FROM jobs")
    assert row.state == "queued"


class _Loading(socketserver.StreamRequestHandler):
    """Answers every command as a server that loads its data."""

    def handle(self) -> None:
        while line := self.rfile.readline():
            if line.startswith(b"*"):
                for _ in range(2 * int(line[1:])):
                    self.rfile.readline()
                self.wfile.write(b"-LOADING Redis is loading the dataset in memory\r\n")


def test_loading_server_is_reported(engine: Engine) -> None:
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), _Loading) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        engine.configure(REDIS_URL=f"redis://127.0.0.1:{server.server_address[1]}/0")
        with TestClient(create_app()) as http:
            message = assert_error(http.get("/readyz?exclude=tick&exclude=worker"), 503, "overloaded")
        server.shutdown()
    assert "Redis is loading its data" in message
