"""A firewall drops the packets of open database connections: an API behind it answers soon, and is well again by itself."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from tests.support.api_client import IMAGES, assert_error, new_key
from tests.support.platform import ROOT, CheckedPlatform, eventually, free_port, start_platform
from tests.support.servers.frozen_link import frozen_link

pytestmark = pytest.mark.timeout(240)
NAME, HERE, THERE = "dreamery-firewall", "10.213.77.1", "10.213.77.2"
# Callers get an answer within 10 s; the machine of the tests may be slow.
ANSWER_SECONDS = 20.0
# A command has no limit of its own, only those of its connection.
WAITS_LONG = """
from sqlalchemy import text
from worker.core.settings import get_settings
from worker.db.connecting.engines import command_engine
with command_engine(get_settings().sqlalchemy_url).connect() as connection:
    print("asked", flush=True)
    connection.execute(text("SELECT pg_sleep(600)"))
"""


@dataclass(frozen=True)
class Namespace:
    """A network of its own, whose only way out leads to this machine."""

    ip: Path
    iptables: Path

    def command(self, *command: str) -> list[str]:
        return [str(self.ip), "netns", "exec", NAME, *command]

    def drop(self, *ports: int) -> None:
        """Drop all packets from and to these ports, of old connections and of new ones."""
        for port in ports:
            for chain, side in (("OUTPUT", "--dport"), ("INPUT", "--sport")):
                self._run("-A", chain, "-p", "tcp", side, str(port), "-j", "DROP")

    def allow(self) -> None:
        self._run("-F")

    def _run(self, *rule: str) -> None:
        subprocess.run(self.command(str(self.iptables), *rule), check=True, capture_output=True, timeout=20)


@pytest.fixture
def namespace(program: Callable[[str], Path]) -> Iterator[Namespace]:
    ip, iptables = program("ip"), program("iptables")

    def run(*command: str, check: bool = True) -> None:
        subprocess.run([str(ip), *command], check=check, capture_output=True, timeout=20)

    def delete() -> None:
        # The link too: the kernel removes it some time after its namespace.
        run("link", "delete", "dreamery-out", check=False)
        run("netns", "delete", NAME, check=False)

    delete()
    run("netns", "add", NAME)
    try:
        run("link", "add", "dreamery-out", "type", "veth", "peer", "name", "dreamery-in", "netns", NAME)
        run("address", "add", f"{HERE}/24", "dev", "dreamery-out")
        run("link", "set", "dreamery-out", "up")
        inside = ("netns", "exec", NAME, str(ip))
        run(*inside, "address", "add", f"{THERE}/24", "dev", "dreamery-in")
        run(*inside, "link", "set", "dreamery-in", "up")
        run(*inside, "link", "set", "lo", "up")
        yield Namespace(ip, iptables)
    finally:
        delete()


def environment(platform: CheckedPlatform, database: int, redis: int) -> dict[str, str]:
    """The environment of a process behind the firewall, which reaches both servers through links."""
    return platform._environment() | {
        "DREAMERY_DATABASE_URL": platform.database_url.replace(
            f"127.0.0.1:{httpx.URL(platform.database_url).port}", f"{HERE}:{database}"
        ),
        "DREAMERY_REDIS_URL": platform.redis_url.replace(
            f"127.0.0.1:{httpx.URL(platform.redis_url).port}", f"{HERE}:{redis}"
        ),
        "DREAMERY_API_HOST": THERE,
        "DREAMERY_API_PORT": str(free_port()),
    }


@pytest.fixture
def behind(namespace: Namespace, tmp_path: Path) -> Iterator[tuple[dict[str, str], int]]:
    """Environment of a process behind the firewall, and the port at which it reaches the database."""
    with start_platform(tmp_path / "platform") as platform:
        ports = [httpx.URL(url).port for url in (platform.database_url, platform.redis_url)]
        with frozen_link(ports[0] or 0, HERE) as database, frozen_link(ports[1] or 0, HERE) as redis:
            yield environment(platform, database.port, redis.port), database.port


def test_api(namespace: Namespace, behind: tuple[dict[str, str], int], tmp_path: Path) -> None:
    env, port = behind
    command = namespace.command(sys.executable, "-P", "-m", "api.cli.main", "run", "api")
    log = tmp_path / "api.log"
    with log.open("wb") as output:
        process = subprocess.Popen(command, cwd=ROOT, env=env, stdout=output, stderr=output)
    try:
        headers = {"Authorization": f"Bearer {new_key('firewall')}"}
        url = f"http://{THERE}:{env['DREAMERY_API_PORT']}"
        with httpx.Client(base_url=url, headers=headers, timeout=ANSWER_SECONDS, trust_env=False) as client:
            _check_api(client, namespace, port)
        assert "The database does not respond." in log.read_text("utf-8")
        assert process.poll() is None
    finally:
        process.kill()
        process.wait()


def test_command_that_waits_for_an_answer_only(namespace: Namespace, behind: tuple[dict[str, str], int]) -> None:
    """A migration or a backup sends nothing while it waits, and no limit of ours ends it: the kernel does."""
    env, port = behind
    command = namespace.command(sys.executable, "-P", "-c", WAITS_LONG)
    process = subprocess.Popen(command, cwd=ROOT, env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "asked\n"
        namespace.drop(port)
        _, errors = process.communicate(timeout=90)
        assert process.returncode == 1
        assert "OperationalError" in errors
    finally:
        process.kill()
        process.wait()


def _check_api(client: httpx.Client, namespace: Namespace, port: int) -> None:
    eventually(lambda: is_well(client), what="the API behind the firewall is well")
    order = {"prompt": "a boat", "n": 1, "async": True}
    assert client.post(IMAGES, json=order).status_code == 202
    namespace.drop(port)
    for method, path, body in (("GET", "/v1/jobs", None), ("POST", IMAGES, order), ("GET", "/readyz", None)):
        answer = client.request(method, path, json=body)
        assert "does not respond" in assert_error(answer, 503, "overloaded")
        assert answer.headers["retry-after"]
    assert client.get("/healthz").status_code == 200
    namespace.allow()
    eventually(lambda: is_well(client), within=30, what="it is well again")
    assert client.post(IMAGES, json=order).status_code == 202


def is_well(client: httpx.Client) -> bool:
    try:
        return client.get("/readyz").status_code == 200 and client.get("/v1/jobs").status_code == 200
    except httpx.TransportError:
        return False
