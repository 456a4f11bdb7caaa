"""Packets between a worker and Redis are dropped: no error says so, and the platform continues by itself."""

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
import redis

from tests.support.platform import eventually, start_platform

NAMESPACE = "dreamery-redis"
# Not the network of `test_firewall.py`, which may run at the same time.
HERE, THERE = "10.213.78.1", "10.213.78.2"
PORT = 6379
PASSWORD = "dropped"
IMAGE = {"prompt": "a lighthouse", "size": "2048x2048", "n": 1, "async": True}


class Host:
    """A host of its own with a Redis, behind a firewall."""

    def __init__(self, ip: Path, iptables: Path) -> None:
        self._ip, self._iptables = str(ip), str(iptables)
        self.url = f"redis://:{PASSWORD}@{THERE}:{PORT}/0"

    def command(self, *words: str) -> list[str]:
        return [self._ip, "netns", "exec", NAMESPACE, *words]

    def _firewall(self, *words: str) -> None:
        subprocess.run(self.command(self._iptables, *words), check=True, capture_output=True)

    def drop_open_connections(self) -> None:
        """Lose the packets of all connections that are open now. New ones work, as after an address has moved."""
        with redis.Redis(THERE, PORT, password=PASSWORD) as client:
            ports = [str(one["addr"]).rpartition(":")[2] for one in client.client_list()]
        for port in ports:
            self._firewall("-I", "INPUT", "-p", "tcp", "--sport", port, "-j", "DROP")

    def drop_everything(self) -> None:
        self._firewall("-I", "INPUT", "-j", "DROP")

    def drop_nothing(self) -> None:
        self._firewall("-F", "INPUT")


@pytest.fixture
def host(program: Callable[[str], Path], tmp_path: Path) -> Iterator[Host]:
    ip, found = str(program("ip")), Host(program("ip"), program("iptables"))
    server = program("redis-server")
    steps = (
        ["netns", "add", NAMESPACE],
        ["link", "add", "dreamery-r0", "type", "veth", "peer", "name", "dreamery-r1", "netns", NAMESPACE],
        ["addr", "add", f"{HERE}/24", "dev", "dreamery-r0"],
        ["link", "set", "dreamery-r0", "up"],
        ["-n", NAMESPACE, "addr", "add", f"{THERE}/24", "dev", "dreamery-r1"],
        ["-n", NAMESPACE, "link", "set", "dreamery-r1", "up"],
    )
    process: subprocess.Popen[bytes] | None = None
    try:
        for step in steps:
            subprocess.run([ip, *step], check=True, capture_output=True)
        flags = ["--bind", THERE, "--port", str(PORT), "--requirepass", PASSWORD, "--save", ""]
        with (tmp_path / "redis.log").open("wb") as log:
            process = subprocess.Popen(found.command(str(server), *flags), cwd=tmp_path, stdout=log, stderr=log)
        with redis.Redis(THERE, PORT, password=PASSWORD) as client:
            eventually(lambda: _answers(client), what="Redis answers")
        yield found
    finally:
        if process is not None:
            process.kill()
            process.wait()
        subprocess.run([ip, "netns", "delete", NAMESPACE], check=False, capture_output=True)
        subprocess.run([ip, "link", "delete", "dreamery-r0"], check=False, capture_output=True)


def _answers(client: redis.Redis) -> bool:
    try:
        return bool(client.ping())
    except redis.RedisError:
        return False


def completes(http: httpx.Client) -> bool:
    """Whether the platform accepts a picture and finishes it."""
    job = http.post("/v1/images/generations", json=IMAGE)
    assert job.status_code == 202, job.text
    path = f"/v1/jobs/{job.json()['id']}"
    eventually(lambda: http.get(path).json()["status"] == "completed", what="the job has ended")
    return True


def is_ready(http: httpx.Client) -> bool:
    return http.get("/readyz").status_code == 200


def test_lost_packets(host: Host, tmp_path: Path) -> None:
    with (
        start_platform(tmp_path, extra_env={"DREAMERY_REDIS_URL": host.url}) as platform,
        # Every answer must come within ten seconds, whatever happens to Redis.
        httpx.Client(base_url=platform.url, headers={"Authorization": "Bearer demo:sandbox"}, timeout=10) as http,
    ):
        assert completes(http)
        pids = {name: child.pid for name, child in platform.children.items()}
        host.drop_everything()
        for _ in range(3):
            answer = http.get("/readyz")
            assert (answer.status_code, "Redis does not respond" in answer.text) == (503, True)
            assert http.post("/v1/images/generations", json=IMAGE).status_code == 202
        host.drop_nothing()
        eventually(lambda: is_ready(http), what="the platform is ready again")
        assert completes(http)
        host.drop_open_connections()
        assert http.post("/v1/images/generations", json=IMAGE).status_code == 202
        eventually(lambda: is_ready(http), what="the platform is ready on new connections")
        assert completes(http)
        assert pids == {name: child.pid for name, child in platform.children.items()}, "something was restarted"
