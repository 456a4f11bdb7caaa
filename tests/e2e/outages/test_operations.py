"""Operations: results in a bucket, rolling restarts, maintenance, and a backup and restore drill."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.api_client import ApiClient, account_name, assert_error, new_key, read_events
from tests.support.crash.platform_snapshot import PlatformSnapshot
from tests.support.platform import ROOT, CheckedPlatform, clean_env, eventually, start_platform
from tests.support.sandbox_client import read_ledger
from tests.support.servers.s3_server import Bucket
from worker.messaging import heartbeat

pytestmark = pytest.mark.timeout(600)
POLL_SECONDS = 0.5


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory, s3: Bucket) -> Iterator[CheckedPlatform]:
    """Two workers, storage in a bucket. Tests restart its processes, so no other file shares it."""
    env = {f"DREAMERY_{name}": value for name, value in s3.settings("operations").items()}
    env |= {"DREAMERY_ACCOUNT_SUBMITS_PER_MINUTE": "100000", "DREAMERY_ACCOUNT_MAX_IMAGES": "40"}
    env |= {"DREAMERY_POLL_MIN_SECONDS": str(POLL_SECONDS), "DREAMERY_POLL_MAX_SECONDS": str(POLL_SECONDS)}
    folder = tmp_path_factory.mktemp("operations")
    with start_platform(folder, workers=2, extra_env=env, sandbox_seconds=1.0) as started:
        yield started


@pytest.fixture
def client(platform: CheckedPlatform) -> Iterator[ApiClient]:
    with ApiClient(platform, new_key("operations")) as made:
        yield made


@pytest.fixture(scope="module")
def admin(platform: CheckedPlatform) -> Iterator[ApiClient]:
    with ApiClient(platform, platform.admin_key) as made:
        yield made


def restart_worker(platform: CheckedPlatform, admin: ApiClient, name: str) -> None:
    """Send SIGTERM and wait until a new process has replaced it and responds."""
    child = platform.children[name]
    before, pid = child.restarts, child.pid
    child.terminate()
    eventually(lambda: child.restarts > before and child.pid != pid, what=f"{name} exits and is replaced")
    eventually(lambda: name in workers(admin), what=f"the new {name} responds")


def workers(admin: ApiClient) -> set[str]:
    """Names of the responding workers, without the host name."""
    return {worker["name"].partition("@")[0] for worker in admin.http.get("/admin/v1/workers").json()["data"]}


def is_api_healthy(platform: CheckedPlatform) -> bool:
    try:
        return httpx.get(f"{platform.url}/healthz", trust_env=False).status_code == 200
    except httpx.TransportError:
        return False


def dreamery(*arguments: str, data: Path, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-P", "-m", "api.cli.main", *arguments],
        cwd=ROOT, env=clean_env(DREAMERY_DATA_DIR=str(data), **env), capture_output=True, text=True, check=False,
        timeout=180,
    )  # fmt: skip


# --- storage ---


def test_image_is_stored_in_bucket_and_served(client: ApiClient, s3: Bucket) -> None:
    job = client.wait_for_end(client.start_job()["id"])
    [item] = job["output"]
    [(key, size)] = s3.keys(f"operations/jobs/{job['id'].removeprefix('job_')}").items()
    with s3.client() as s3_client:
        stored = s3_client.get_object(Bucket="pictures", Key=key)["Body"].read()
    served = httpx.get(item["url"], trust_env=False)
    assert served.content == stored
    assert (len(stored), item["bytes"], served.headers["content-type"]) == (size, size, item["mime"])
    part = httpx.get(item["url"], headers={"Range": "bytes=10-19"}, trust_env=False)
    assert (part.status_code, part.content) == (206, stored[10:20])


# --- rolling restarts ---


def test_rolling_worker_restart_under_load_loses_nothing(
    platform: CheckedPlatform, client: ApiClient, admin: ApiClient
) -> None:
    numbers = list(range(9000, 9060))
    eventually(lambda: workers(admin) >= {"worker-1", "worker-2"}, what="both workers respond")
    long_job = client.start_job("a boat that is polled all the time [[seconds:100]]")["id"]
    jobs = [client.start_job(f"a boat [[job:{number}]][[seconds:6]]")["id"] for number in numbers[:30]]
    eventually(lambda: len(client.submits()) >= 20, what="jobs are with upstream")
    for start, worker in ((30, "worker-1"), (45, "worker-2")):
        jobs += [client.start_job(f"a boat [[job:{n}]][[seconds:3]]")["id"] for n in numbers[start : start + 15]]
        restart_worker(platform, admin, worker)
    assert {client.wait_for_end(job)["status"] for job in jobs} == {"completed"}
    client.cancel(long_job)
    snapshot = PlatformSnapshot(platform, numbers)
    snapshot.assert_charged_once()
    assert {job["attempt"] for job in snapshot.jobs} == {1}, "every started submit was finished, none was repeated"
    ledger = read_ledger(platform, summary=True)
    polls = ledger["polls"][account_name(client.key)]
    # For information only: a busy machine starts processes slowly.
    print(f"between two polls: {polls['mean_gap_seconds']:.2f} s on average, {polls['max_gap_seconds']:.2f} s at most")
    assert polls["count"] > 10


def test_api_stop_sends_retryable_error_and_retry_joins_job(platform: CheckedPlatform, client: ApiClient) -> None:
    prompt = "a slow boat [[seconds:8]]"
    streamed = client.start_job("a boat to follow [[seconds:8]]")["id"]
    events: list[str] = []
    finished: list[bool] = []

    def follow() -> None:
        with client.http.stream("GET", f"/v1/jobs/{streamed}/events") as answer:
            events.extend(
                name
                for name, _id, _data in read_events(
                    line for line in answer.iter_lines() if not line.startswith("retry")
                )
            )
        finished.append(True)  # a broken stream raises instead

    with ThreadPoolExecutor() as pool:
        following = pool.submit(follow)
        waiting = pool.submit(client.generate_images, prompt, n=1)
        chats = [
            pool.submit(
                client.http.post, "/v1/chat/completions",
                json={"model": model, "stream": True, "messages": [{"role": "user", "content": f"draw {prompt}"}]},
            )
            for model in ("jimeng-4.0", "agent")
        ]  # fmt: skip
        eventually(lambda: len(client.submits()) >= 3, what="all are submitted")
        api = platform.children["api"]
        before = api.pid
        api.send(signal.SIGTERM)
        answer = waiting.result()
        following.result()
        chat_streams = [chat.result().text for chat in chats]
    message = assert_error(answer, 503, "restarting")
    job_id = answer.headers["x-job-id"]
    assert job_id in message
    assert (answer.headers["retry-after"], answer.headers["x-should-retry"]) == ("1", "true")
    assert finished
    assert events
    assert set(events) <= {"snapshot", "progress"}
    for text in chat_streams:
        assert text.rstrip().endswith("data: [DONE]")
        assert '"code":"restarting"' in text
    eventually(lambda: api.pid != before and is_api_healthy(platform), what="another API process")
    again = client.generate_images(prompt, n=1)
    assert (again.status_code, again.headers["x-job-id"]) == (200, job_id), "the same request joins its job"
    assert client.wait_for_end(streamed)["status"] == "completed"
    assert [line["prompt"] for line in client.submits()].count(prompt) == 1


# --- maintenance ---


def test_draining_platform_finishes_open_jobs(platform: CheckedPlatform, client: ApiClient, admin: ApiClient) -> None:
    data = platform.data_dir
    open_job = client.start_job("a boat that is open [[seconds:3]]")["id"]
    result = dreamery("drain", "--reason", "a new disk", "--json", data=data)
    assert json.loads(result.stdout)["draining"], result.stderr
    message = assert_error(client.generate_images(n=1), 503, "draining")
    assert "a new disk" in message
    assert client.generate_images(n=1).headers["retry-after"] == "30"
    assert httpx.get(f"{platform.url}/readyz", trust_env=False).json()["draining"]
    result = dreamery("drain", "--wait", "--json", data=data)
    assert sum(json.loads(result.stdout)["open_jobs"].values()) == 0, result.stderr
    assert client.job(open_job)["status"] == "completed"
    assert not json.loads(dreamery("drain", "--off", "--json", data=data).stdout)["draining"]
    assert client.generate_images(n=1).status_code == 200
    entries = admin.http.get("/admin/v1/audit", params={"action": "platform.drain"}).json()["data"]
    assert len(entries) >= 3


def test_drained_worker_is_idle_while_the_other_works(
    platform: CheckedPlatform, client: ApiClient, admin: ApiClient
) -> None:
    listed = admin.http.get("/admin/v1/workers").json()["data"]
    name = next(worker["name"] for worker in listed if worker["name"].startswith("worker-1"))
    assert all(worker["queues"] for worker in listed)
    url = f"/admin/v1/workers/{name}/drain"
    drained = admin.http.patch(url, json={"draining": True}).json()
    assert (drained["draining"], drained["queues"]) == (True, [])
    since = time.monotonic()
    assert client.generate_images(n=1).status_code == 200
    # It still processes its heartbeats, otherwise it would be restarted as unresponsive.
    eventually(
        lambda: seconds_since_heartbeat(platform, name) < time.monotonic() - since,
        what="a heartbeat while it is drained",
    )
    back = admin.http.patch(url, json={"draining": False}).json()
    assert (back["draining"], back["queues"]) == (False, ["bulk", "fast", "outbox", "talk"])
    assert_error(admin.http.patch("/admin/v1/workers/nobody/drain", json={"draining": True}), 404, "worker_not_found")


def seconds_since_heartbeat(platform: CheckedPlatform, name: str) -> float:
    """Seconds since the worker of that process consumed its last heartbeat message."""
    pid = platform.children[name.partition("@")[0]].pid
    return next(worker.heard_seconds for worker in heartbeat.list_workers(platform.redis_url) if worker.pid == pid)


# --- backup and restore drill ---


def test_backup_loss_and_restore_elsewhere(tmp_path: Path, s3: Bucket) -> None:
    """Back up while a job runs, destroy all data, and restore elsewhere with the same links, keys and jobs."""
    (tmp_path / "passphrase").write_text("correct horse battery staple")
    passphrase = ("--passphrase-file", str(tmp_path / "passphrase"))
    file = tmp_path / "backup.zip"
    slow = "a long job [[seconds:15]]"
    with start_platform(tmp_path / "one", sandbox_seconds=0.3) as old:
        with ApiClient(old, old.admin_key) as admin:
            admin.http.post("/admin/v1/users", json={"name": "alice"})
            key = admin.http.post("/admin/v1/keys", json={"user": "alice"}).json()["key"]
            session = new_key("drill")
            with admin.as_caller(key) as alice, admin.as_caller(session) as guest:
                done = [alice.wait_for_end(alice.start_job(f"number {n}", n=2)["id"]) for n in range(3)]
                before = {link: httpx.get(link, trust_env=False).content for link in links(done)}
                running = guest.start_job(slow)["id"]
                eventually(lambda: guest.job(running)["started_at"], what="the job runs")
                result = dreamery("backup", str(file), "--with-files", "--with-keys", *passphrase, data=old.data_dir)
                assert result.returncode == 0, result.stderr
        old_url = old.url
        old.destroy_data()
        new_data = tmp_path / "two" / "data"
        result = dreamery("restore", str(file), *passphrase, "--json", data=new_data)
        assert result.returncode == 0, result.stdout + result.stderr
        report = json.loads(result.stdout)
        assert (report["missing"], report["missing_keys"]) == ([], [])
        assert report["jobs"] == {"interrupted": 0, "running": 1}
        upstream = {
            "DREAMERY_SANDBOX_URL": old.sandbox_url,
            "DREAMERY_FETCH_ALLOW": old.sandbox_url.partition("://")[2],
        }
        with start_platform(tmp_path / "two", extra_env=upstream) as new:
            assert new.admin_key == old.admin_key
            after = {link: httpx.get(link.replace(old_url, new.url), trust_env=False).content for link in before}
            assert after == before
            with ApiClient(new, key) as alice, ApiClient(new, session) as guest:
                assert {job["id"] for job in alice.http.get("/v1/jobs").json()["data"]} == {job["id"] for job in done}
                assert guest.wait_for_end(running)["status"] == "completed"
                assert [line["prompt"] for line in guest_submits(old, session)].count(slow) == 1
                assert guest.generate_images("after the restore", n=1).status_code == 200, (
                    "the account's session can be decrypted"
                )


def links(jobs: list[dict[str, Any]]) -> list[str]:
    return [item["url"] for job in jobs for item in job["output"]]


def guest_submits(platform: CheckedPlatform, session: str) -> list[dict[str, Any]]:
    ledger = read_ledger(platform)
    return [line for line in ledger["submits"] if line["account"] == account_name(session)]
