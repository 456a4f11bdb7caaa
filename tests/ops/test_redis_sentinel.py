"""Redis Sentinel with real servers: jobs go on when the primary is killed, or demoted by hand; nothing is paid twice."""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest

from tests.ops.test_redis_tls import refusal
from tests.support.platform import CheckedPlatform, eventually, start_platform
from tests.support.servers.redis_servers import (
    ENCODED,
    Certificates,
    RedisServer,
    make_certificates,
    running_sentinel,
    running_server,
)

IMAGE = {"prompt": "a lighthouse", "size": "2048x2048", "n": 1, "async": True}
HEADERS = {"Authorization": "Bearer demo:sandbox"}


class Watched:
    """A primary, its replica, and three Sentinels that watch them."""

    def __init__(self, primary: RedisServer, replica: RedisServer, sentinels: list[RedisServer], query: str) -> None:
        self.primary, self.replica, self.sentinels = primary, replica, sentinels
        hosts = ",".join(f"127.0.0.1:{sentinel.port}" for sentinel in sentinels)
        self.url = f"sentinel://:{ENCODED}@{hosts}/0?master_name=main&sentinel_password=sentinel{query}"

    def primary_port(self) -> int:
        """Return the port of the server that is the primary according to a Sentinel."""
        return int(self.sentinels[0].client.sentinel_get_master_addr_by_name("main")[1])

    def is_complete(self) -> bool:
        """Whether the Sentinels know each other and the replica, so that they could fail over."""
        states = [sentinel.client.sentinel_masters()["main"] for sentinel in self.sentinels]
        in_sync = self.replica.client.info("replication")["master_link_status"] == "up"
        return in_sync and all(
            state["num-other-sentinels"] == 2 and state["num-slaves"] == 1 and state["flags"] == "master"
            for state in states
        )


@pytest.fixture(params=["plain", "tls"])
def watched(request: pytest.FixtureRequest, program: Callable[[str], Path], tmp_path: Path) -> Iterator[Watched]:
    tls: Certificates | None = make_certificates(tmp_path / "tls") if request.param == "tls" else None
    server, sentinel = program("redis-server"), program("redis-sentinel")
    with ExitStack() as stack:
        primary = stack.enter_context(running_server(server, tmp_path / "primary", tls=tls))
        of_replica = f"replicaof 127.0.0.1 {primary.port}\n"
        replica = stack.enter_context(running_server(server, tmp_path / "replica", of_replica, tls=tls))
        sentinels = [
            stack.enter_context(running_sentinel(sentinel, tmp_path / f"sentinel-{n}", primary, tls=tls))
            for n in range(3)
        ]
        found = Watched(primary, replica, sentinels, f"&ssl_ca_certs={tls.ca}" if tls else "")
        eventually(found.is_complete, what="the Sentinels are ready to fail over")
        yield found


def submit(http: httpx.Client, number: int) -> str:
    answer = http.post("/v1/images/generations", json={**IMAGE, "prompt": f"a lighthouse, {number}"})
    assert answer.status_code == 202, answer.text
    return str(answer.json()["id"])


def finished(http: httpx.Client, jobs: list[str]) -> bool:
    statuses = [http.get(f"/v1/jobs/{job}").json()["status"] for job in jobs]
    assert not {"failed", "cancelled"} & set(statuses)
    return set(statuses) == {"completed"}


def test_jobs_go_on_after_a_failover(watched: Watched, tmp_path: Path) -> None:
    env = {"DREAMERY_REDIS_URL": watched.url, "DREAMERY_ACCOUNT_SUBMITS_PER_MINUTE": "100000"}
    with (
        start_platform(tmp_path, extra_env=env, sandbox_seconds=1.0, flower="at_start") as platform,
        httpx.Client(base_url=platform.url, headers=HEADERS, timeout=60) as http,
    ):
        jobs = [submit(http, number) for number in range(6)]
        watched.primary.kill()
        jobs += [submit(http, number) for number in range(6, 12)]
        eventually(lambda: watched.primary_port() == watched.replica.port, what="the replica is the primary")
        jobs += [submit(http, number) for number in range(12, 16)]
        eventually(lambda: finished(http, jobs), within=120, what="all jobs have ended")
        eventually(lambda: http.get("/readyz").status_code == 200, what="the platform is ready again")
        assert payments(platform) == {f"a lighthouse, {number}": 1 for number in range(len(jobs))}
        assert watched.replica.client.hlen("dreamery:workers") == 1
        login = ("admin", platform.admin_key)
        eventually(
            lambda: "fast" in httpx.get(f"{platform.flower_url}/broker", auth=login, timeout=20).text,
            what="Flower reads the queues of the new primary",
        )


def payments(platform: CheckedPlatform) -> Counter[str]:
    """Return how often upstream charged for each prompt."""
    headers = platform.sandbox_control_headers
    ledger = httpx.get(f"{platform.sandbox_url}/_ledger", headers=headers, timeout=30).json()
    prompts = {line["submit_id"]: line["prompt"] for line in ledger["submits"]}
    return Counter(prompts[charge["submit_id"]] for charge in ledger["charges"])


def test_primary_that_was_demoted_by_hand(watched: Watched, tmp_path: Path) -> None:
    """The old primary lives on as a replica and refuses writes: nobody may keep talking to it."""
    with (
        start_platform(tmp_path, extra_env={"DREAMERY_REDIS_URL": watched.url}) as platform,
        httpx.Client(base_url=platform.url, headers=HEADERS, timeout=60) as http,
    ):
        jobs = [submit(http, 1)]
        watched.sentinels[0].client.execute_command("SENTINEL FAILOVER main")
        eventually(lambda: watched.primary_port() == watched.replica.port, what="the replica is the primary")
        jobs.append(submit(http, 2))
        eventually(lambda: finished(http, jobs), within=120, what="both jobs have ended")
        eventually(lambda: http.get("/readyz").status_code == 200, what="the platform is ready again")


@pytest.mark.parametrize("watched", ["plain"], indirect=True)
def test_mistakes_are_named_at_the_start(watched: Watched, database_url: str, tmp_path: Path) -> None:
    def line(role: str, old: str, new: str) -> str:
        return refusal(role, watched.url.replace(old, new), database_url, tmp_path)

    assert "know no primary of that master_name" in line("worker", "=main", "=other")
    assert "a Sentinel refuses sentinel_username or sentinel_password" in line("api", "=sentinel", "=wrong")
    assert "Redis refuses its user or password" in line("scheduler", ENCODED, "wrong")
    hosts = watched.url.partition("@")[2].partition("/")[0]
    of_a_server = watched.url.replace(hosts, f"127.0.0.1:{watched.primary.port}").replace("=sentinel", f"={ENCODED}")
    assert "names a server that is no Sentinel" in refusal("worker", of_a_server, database_url, tmp_path)
    plain = f"redis://:sentinel@127.0.0.1:{watched.sentinels[0].port}/0"
    assert "write sentinel://" in refusal("worker", plain, database_url, tmp_path)
