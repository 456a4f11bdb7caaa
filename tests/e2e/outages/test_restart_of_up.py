"""`dreamery up` is stopped and started again while jobs of its sandbox run: they complete and are paid once."""

import signal
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.e2e.test_up import RunningUp, running_up
from tests.support.platform import eventually, find_processes
from worker.sandbox.options import CONTROL_HEADER

pytestmark = pytest.mark.timeout(600)
FINAL = {"completed", "failed", "cancelled"}


def call(up: RunningUp, method: str, path: str, *, key: str = "demo:sandbox", **more: Any) -> dict[str, Any]:
    headers = {"Authorization": f"Bearer {key}"}
    answer = httpx.request(
        method, f"http://127.0.0.1:{up.port}{path}", headers=headers, timeout=60, trust_env=False, **more
    )
    return dict(answer.raise_for_status().json())


def submit(up: RunningUp, prompt: str) -> str:
    body = {"prompt": prompt, "n": 1, "async": True}
    return str(call(up, "POST", "/v1/images/generations", json=body)["id"])


def job(up: RunningUp, job_id: str) -> dict[str, Any]:
    return call(up, "GET", f"/v1/jobs/{job_id}")


def stop(up: RunningUp, number: signal.Signals) -> None:
    up.process.send_signal(number)
    up.process.wait(60)
    eventually(lambda: find_processes(up.data) == [], within=30, what="the end of every process")


def charges(up: RunningUp) -> dict[str, int]:
    """How often each order of the sandbox was charged, by prompt."""
    port, token = ((up.data / name).read_text().strip() for name in ("sandbox/port", "keys/sandbox.key"))
    answer = httpx.get(f"http://127.0.0.1:{port}/_ledger", headers={CONTROL_HEADER: token}, trust_env=False)
    ledger = answer.raise_for_status().json()
    prompts = {line["submit_id"]: line["prompt"] for line in ledger["submits"] if line["accepted"]}
    counts = dict.fromkeys(prompts.values(), 0)
    for line in ledger["charges"]:
        counts[prompts[line["submit_id"]]] += 1
    assert ledger["totals"]["duplicate_submit_ids"] == 0
    return counts


def test_jobs_of_the_sandbox_survive_a_stop_and_a_kill(tmp_path: Path) -> None:
    """One job is still running after both restarts, one ends while the platform is stopped."""
    data = tmp_path / "data"
    slow, quick = "a slow boat [[seconds:60]]", "a quick boat [[seconds:8]]"
    with running_up(data, "--no-flower") as up:
        ids = [submit(up, prompt) for prompt in (slow, quick)]
        begun = time.monotonic()
        eventually(lambda: charges(up) == {slow: 1, quick: 1}, within=60, what="both orders are placed")
        assert job(up, ids[0])["status"] not in FINAL
        stop(up, signal.SIGINT)
    time.sleep(max(0.0, begun + 9 - time.monotonic()))
    with running_up(data, "--no-flower") as up:
        eventually(lambda: job(up, ids[1])["status"] in FINAL, within=120, what="the quick one ends")
        assert job(up, ids[1])["status"] == "completed"
        stop(up, signal.SIGKILL)
    with running_up(data, "--no-flower") as up:
        eventually(lambda: job(up, ids[0])["status"] in FINAL, within=180, what="the slow one ends")
        for number, prompt in zip(ids, (slow, quick), strict=True):
            ended = job(up, number)
            assert ended["status"] == "completed", prompt
            [file] = ended["output"]
            picture = httpx.get(file["url"], trust_env=False, timeout=60)
            assert picture.raise_for_status().headers["content-type"].startswith("image/")
        assert charges(up) == {slow: 1, quick: 1}
