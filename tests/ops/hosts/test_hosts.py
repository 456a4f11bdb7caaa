"""Several hosts, each with its own network: one is cut off, slow, or back. Nothing is lost, nothing is paid twice.

`make test-hosts` prints the figures of docs/deployment.md, section "Several hosts".
"""

import itertools
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from tests.ops.hosts.load_on_hosts import Course, make_orders, run_load
from tests.ops.hosts.platform_of_hosts import LEASE_SECONDS, PlatformOfHosts, running_platform_of_hosts
from tests.support.crash.load_clients import ClientRequest
from tests.support.crash.platform_snapshot import PlatformSnapshot
from tests.support.platform import eventually
from tests.support.servers.s3_server import PREFIX

pytestmark = pytest.mark.timeout(240)
REQUESTS, LOAD_SECONDS, BEGIN = 26, 16.0, 4.0
WITHIN = 100.0
ROUND_TRIP = 0.3
# Beyond this, a client would not call it an interruption but an outage.
BALANCED_SILENCE = 15.0
_numbers = itertools.count(1000, 1000)


@pytest.fixture(scope="module")
def platform(program: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[PlatformOfHosts]:
    folder = tmp_path_factory.mktemp("hosts")
    with running_platform_of_hosts(program("ip"), program("nginx"), folder) as platform:
        yield platform


def pause(seconds: float) -> None:
    """The disturbance lasts."""
    time.sleep(seconds)


def go_through(
    platform: PlatformOfHosts, disturb: Callable[[Callable[[], bool]], None], *, title: str, script: str = ""
) -> tuple[Course, PlatformSnapshot]:
    """Run the load with this disturbance, check both sides, and print the figures."""
    platform.wait_until_well()
    orders = make_orders(next(_numbers), count=REQUESTS, seconds=LOAD_SECONDS, script=script)
    course = run_load(platform, orders, disturb, after=BEGIN, within=WITHIN)
    platform.wait_until_well()
    snapshot = PlatformSnapshot(platform, [order.number for order in orders])
    print(f"\n{title}: {course}; {describe_jobs(snapshot)}")
    check(platform, course, snapshot, orders)
    return course, snapshot


def describe_jobs(snapshot: PlatformSnapshot) -> str:
    """How long the longest job took, and how many were ordered again because upstream did not know them."""
    times = [job["finished_at"] - job["created_at"] for job in snapshot.jobs if job["finished_at"]]
    again = sum(event["from_state"] == "submitting" and event["to_state"] == "queued" for event in snapshot.events)
    longest = max((time.total_seconds() for time in times), default=0.0)
    return f"longest job {longest:.1f} s, {again} orders that did not arrive"


def check(platform: PlatformOfHosts, course: Course, snapshot: PlatformSnapshot, orders: list[ClientRequest]) -> None:
    """Nothing is lost, nothing is paid twice, the books of both sides are equal, all results are in the bucket."""
    assert not course.failures, "\n".join(course.failures)
    wrong = [outcome for outcome in course.outcomes if outcome.status != "completed"]
    assert not wrong, wrong
    assert len(course.outcomes) == len(snapshot.jobs) == len(orders)
    assert {job["state"] for job in snapshot.jobs} == {"succeeded"}
    snapshot.assert_charged_once()
    snapshot.assert_history_valid()
    keys = {str(job["submit_key"]) for job in snapshot.jobs}
    charged = sum(charge["amount"] for charge in snapshot.ledger["charges"] if charge["submit_id"] in keys)
    assert sum(job["charged"] for job in snapshot.jobs) == charged > 0
    stored = platform.bucket.keys(PREFIX)
    assert {row["job_id"] for row in snapshot.files} == {job["id"] for job in snapshot.jobs}
    missing = [row["key"] for row in snapshot.files if f"{PREFIX}/{row['key']}" not in stored]
    assert not missing, missing


def test_api_host_is_cut_off(platform: PlatformOfHosts) -> None:
    """Half of the open requests wait for it. They get 502 within half a minute, and their repeats join their jobs."""

    def disturb(all_ended: Callable[[], bool]) -> None:
        with platform.network.cut_off("api-1"):
            eventually(all_ended, within=90, what="everything ends without the host")

    course, _ = go_through(platform, disturb, title="API host cut off")
    assert course.silence < BALANCED_SILENCE
    assert course.longest_answer < 60


def test_api_asks_whether_a_silent_client_is_there(platform: PlatformOfHosts) -> None:
    """Otherwise a request whose client has vanished would be kept for its whole wait."""
    address = platform.host("api-2").address
    with httpx.Client(base_url=platform.api_url("api-2"), trust_env=False) as client:
        assert client.get("/healthz").status_code == 200
        command = platform.host("api-2").command("ss", "-Htno", "state", "established", "src", f"{address}:8000")
        lines = subprocess.run(command, capture_output=True, text=True, check=True, timeout=20).stdout.splitlines()
    ours = [line for line in lines if platform.network.address in line]
    assert ours
    assert all("timer:(keepalive" in line for line in ours), ours


def test_worker_host_is_cut_off(platform: PlatformOfHosts) -> None:
    """It is in the middle of submits, which take two seconds here. The others take its jobs over when the leases have passed,
    and when it is back it changes nothing.
    """

    def disturb(all_ended: Callable[[], bool]) -> None:
        with platform.network.cut_off("worker-1"):
            began = time.monotonic()
            eventually(all_ended, within=90, what="everything ends without the host")
            pause(max(0.0, LEASE_SECONDS + 1 - (time.monotonic() - began)))

    course, before = go_through(platform, disturb, title="worker host cut off", script="[[latency:2]]")
    assert course.finished_before_the_end == len(course.outcomes)
    pause(5)
    after = PlatformSnapshot(platform, [before.number_of(job) for job in before.jobs])
    after.assert_charged_once()
    assert [(job["id"], job["state"], job["event_seq"]) for job in after.jobs] == [
        (job["id"], job["state"], job["event_seq"]) for job in before.jobs
    ]


def test_hosts_are_slow(platform: PlatformOfHosts) -> None:
    """Each of their statements takes a third of a second and more, and some packets are sent twice."""

    def disturb(all_ended: Callable[[], bool]) -> None:
        with (
            platform.network.slow("worker-2", round_trip=ROUND_TRIP, loss=0.02),
            platform.network.slow("api-2", round_trip=ROUND_TRIP, loss=0.02),
        ):
            began = time.monotonic()
            assert httpx.get(f"{platform.api_url('api-2')}/healthz", trust_env=False, timeout=20).status_code == 200
            assert time.monotonic() - began >= 2 * ROUND_TRIP, "the link delays nothing"
            pause(LOAD_SECONDS - BEGIN)

    course, _ = go_through(platform, disturb, title="an API host and a worker host slow")
    assert course.silence < BALANCED_SILENCE


@pytest.mark.parametrize(
    "names", [("database",), ("redis",), ("bucket", "upstream")], ids=["database", "redis", "bucket and upstream"]
)
def test_servers_are_cut_off(platform: PlatformOfHosts, names: tuple[str, ...]) -> None:
    """Without the database callers get 503 soon and repeat; without the others jobs wait, and lists are shown."""
    seen: list[httpx.Response] = []

    def disturb(all_ended: Callable[[], bool]) -> None:
        with platform.network.cut_off(*names):
            pause(8)
            with platform.balancer.client(Authorization="Bearer hosts1:sandbox") as client:
                seen.append(client.get("/v1/jobs?limit=1", timeout=20))
            pause(12)

    course, _ = go_through(platform, disturb, title=f"{' and '.join(names)} cut off for 20 s")
    (answer,) = seen
    assert (answer.status_code == 503) == ("database" in names)
    if "database" in names:
        assert answer.json()["error"]["code"] == "overloaded"
        assert answer.headers["retry-after"]
    assert course.silence < 20 + BALANCED_SILENCE


def test_api_process_ends(platform: PlatformOfHosts) -> None:
    """Its port refuses connections: nginx asks the other host at once."""

    def disturb(all_ended: Callable[[], bool]) -> None:
        child = platform.children["api-2"]
        for _ in range(2):
            child.kill()
            pause(5)

    course, _ = go_through(platform, disturb, title="API process killed twice")
    assert course.silence < BALANCED_SILENCE
