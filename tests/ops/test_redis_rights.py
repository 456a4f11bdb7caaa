"""A Redis user with the documented rights and no others suffices for everything, and `dreamery doctor` names a missing one."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from tests.support.platform import ROOT, eventually, start_platform
from tests.support.servers.redis_servers import ENCODED, PASSWORD, RedisServer, running_server
from worker.core.settings import get_settings
from worker.messaging.redis_connection import diagnose_redis

IMAGE = {"prompt": "a lighthouse", "size": "2048x2048", "n": 1}
CHAT = {"model": "agent", "messages": [{"role": "user", "content": "draw a boat"}]}


def documented_rights() -> list[str]:
    """The rules of the user in docs/redis.md, without its name and password."""
    text = (ROOT / "docs" / "redis.md").read_text("utf-8")
    [line] = re.findall(r"ACL SETUSER platform reset on >PASSWORD (.+?)\n```", text, re.DOTALL)
    return line.replace("\\\n", " ").split()


@pytest.fixture
def server(program: Callable[[str], Path], tmp_path: Path) -> Iterator[RedisServer]:
    with running_server(program("redis-server"), tmp_path / "redis") as found:
        found.client.execute_command("ACL SETUSER", "dreamery", "reset", "on", f">{PASSWORD}", *documented_rights())
        yield found


def url_of(server: RedisServer) -> str:
    return f"redis://dreamery:{ENCODED}@127.0.0.1:{server.port}/0"


def refusals(server: RedisServer) -> list[tuple[str, str]]:
    """What Redis refused, apart from questions whose refusal is expected."""
    entries = server.client.acl_log()
    return [(str(entry["object"]), str(entry["context"])) for entry in entries]


def test_the_documented_rights_suffice(server: RedisServer, tmp_path: Path) -> None:
    with (
        start_platform(tmp_path, extra_env={"DREAMERY_REDIS_URL": url_of(server)}, flower="at_start") as platform,
        httpx.Client(base_url=platform.url, headers={"Authorization": "Bearer demo:sandbox"}, timeout=90) as http,
    ):
        admin = {"Authorization": f"Bearer {platform.admin_key}"}
        assert http.post("/v1/images/generations", json=IMAGE).status_code == 200
        assert http.post("/v1/chat/completions", json=CHAT).status_code == 200
        assert http.get("/readyz").status_code == 200
        assert http.get("/metrics").status_code == 200
        [worker] = http.get("/admin/v1/workers", headers=admin).json()["data"]
        for draining in (True, False):
            change = {"draining": draining}
            assert (
                http.patch(f"/admin/v1/workers/{worker['name']}/drain", json=change, headers=admin).status_code == 200
            )
        login = ("admin", platform.admin_key)
        eventually(
            lambda: "worker-1@" in httpx.get(f"{platform.flower_url}/workers", auth=login, timeout=20).text,
            what="Flower sees the worker",
        )
        assert "fast" in httpx.get(f"{platform.flower_url}/broker", auth=login, timeout=20).text
        assert refusals(server) == []


@pytest.mark.parametrize(
    ("change", "missing"),
    [
        ("-brpop", "BRPOP fast"),
        ("-evalsha", "EVALSHA -"),
        ("-script|load", "SCRIPT LOAD"),
        ("resetkeys ~fast* ~bulk* ~talk* ~outbox* ~self:* ~_kombu.* ~celeryev* ~*celery.pidbox* ~dreamery:*", "HSET unacked"),
        ("resetchannels &/* &dreamery:*", "PSUBSCRIBE /0.celery.pidbox"),
        ("-multi", "its user lacks rights"),
    ],
)  # fmt: skip
def test_the_doctor_names_what_is_missing(
    server: RedisServer, change: str, missing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DREAMERY_REDIS_URL", url_of(server))
    get_settings.cache_clear()
    try:
        assert diagnose_redis() == ""
        server.client.execute_command("ACL SETUSER", "dreamery", *change.split())
        assert missing in diagnose_redis()
        assert server.client.dbsize() == 0  # nothing that was tried was run
    finally:
        get_settings.cache_clear()
