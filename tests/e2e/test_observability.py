"""Observability of one platform: traces from request to file, ids in logs, unresponsive workers, Flower."""

import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import redis

from tests.support.platform import ROOT, clean_env, eventually, start_platform
from tests.support.servers.http_servers import WebhookReceiver, running_app
from tests.support.servers.trace_receiver import Collector, attributes
from worker.local.supervisor import Platform

IMAGES = "/v1/images/generations"
CALLER = {"Authorization": "Bearer demo:sandbox"}
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"


@dataclass
class ObservedPlatform:
    """A platform with its trace collector, webhook receiver and supervisor notices."""

    platform: Platform
    collector: Collector
    receiver: WebhookReceiver
    notices: list[str]

    def generate_image(self, *, webhook: str = "", **headers: str) -> dict[str, Any]:
        body = {"prompt": "a lighthouse", "n": 1, "webhook": webhook or self.receiver.url}
        response = httpx.post(
            self.platform.url + IMAGES, json=body, headers=CALLER | headers, timeout=90, trust_env=False
        )
        assert response.status_code == 200, response.text
        return {"job": response.headers["x-job-id"], "request": response.headers["x-request-id"]}

    def log_records(self, name: str) -> list[dict[str, Any]]:
        lines = (self.platform.logs_dir / f"{name}.log").read_text().splitlines()
        return [json.loads(line) for line in lines if line.startswith("{")]

    def run_health_command(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        env = clean_env(
            DREAMERY_REDIS_URL=self.platform.redis_url,
            DREAMERY_WORKER_HEARTBEAT_TIMEOUT_SECONDS="4",
            DREAMERY_API_PORT=str(self.platform.port),
        )
        command = [sys.executable, "-P", "-m", "api.cli.main", "health", *arguments]
        return subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False, timeout=60)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ObservedPlatform]:
    collector, receiver, notices = Collector(), WebhookReceiver(), []
    with running_app(collector) as otlp, running_app(receiver) as hooks:
        receiver.url = f"{hooks}/hook"
        env = {
            "DREAMERY_OTEL_ENDPOINT": otlp,
            "DREAMERY_LOG_FORMAT": "json",
            "DREAMERY_WORKER_HEARTBEAT_TIMEOUT_SECONDS": "4",
            "DREAMERY_FETCH_ALLOW": "127.0.0.1",
            "OTEL_BSP_SCHEDULE_DELAY": "200",
        }
        folder: Path = tmp_path_factory.mktemp("operations")
        with start_platform(folder, flower="at_start", extra_env=env, on_notice=notices.append) as platform:
            yield ObservedPlatform(platform, collector, receiver, notices)


def test_one_trace_covers_request_file_and_webhook(site: ObservedPlatform) -> None:
    created = site.generate_image(traceparent=f"00-{TRACE}-00f067aa0ba902b7-01")
    expected = {
        f"POST {IMAGES}", "submit", "upstream generate", "poll", "upstream get_history_by_ids", "settle", "save",
        "download", "store file", "notify", "post webhook",
    }  # fmt: skip
    eventually(
        lambda: expected <= {span.name for _, span in site.collector.trace(TRACE)}, within=30,
        what=f"a complete trace, not only {[span.name for _, span in site.collector.trace(TRACE)]}",
    )  # fmt: skip
    spans = site.collector.trace(TRACE)
    by_name = {span.name: span for _, span in spans}
    parents = {span.span_id: span.name for _, span in spans}
    request = by_name[f"POST {IMAGES}"]
    assert request.parent_span_id.hex() == "00f067aa0ba902b7"
    for task in ("submit", "poll", "settle", "save", "notify"):
        assert parents[by_name[task].parent_span_id] == request.name
    for inner, outer in {
        "upstream generate": "submit", "download": "save", "store file": "save", "post webhook": "notify"
    }.items():  # fmt: skip
        assert parents[by_name[inner].parent_span_id] == outer
    assert {service for service, _ in spans} == {"dreamery-api", "dreamery-worker"}
    assert attributes(by_name["submit"])["job.id"] == created["job"]
    assert attributes(request)["request.id"] == created["request"]
    all_spans = " ".join(str(span) for _, span in site.collector.spans)
    assert "lighthouse" not in all_spans
    assert "sessionid" not in all_spans


def test_log_records_contain_request_job_and_trace_ids(site: ObservedPlatform) -> None:
    created = site.generate_image(webhook="http://127.0.0.1:1/nobody", **{"x-request-id": "my-request-7"})

    def request_records() -> list[dict[str, Any]]:
        return [line for line in site.log_records("api") if line.get("request_id") == "my-request-7"]

    eventually(request_records, what="the request is logged, after its response")
    (record,) = request_records()
    assert (record["event"], record["job_id"]) == ("request", created["job"])
    assert re.fullmatch(r"[0-9a-f]{32}", record["trace_id"])
    # A task of the job in another process also logs the request id.

    def failed_deliveries() -> list[dict[str, Any]]:
        return [line for line in site.log_records("worker-1") if line["event"] == "webhook_not_taken"]

    eventually(failed_deliveries, within=30, what="the webhook fails")
    line = failed_deliveries()[0]
    assert (line["request_id"], line["job_id"]) == ("my-request-7", created["job"])
    assert line["trace_id"] == record["trace_id"]


def is_ready(site: ObservedPlatform) -> bool:
    return httpx.get(f"{site.platform.url}/readyz", trust_env=False, timeout=10).status_code == 200


def test_suspended_worker_is_detected_and_replaced(site: ObservedPlatform) -> None:
    eventually(lambda: is_ready(site), within=60)
    worker = site.platform.children["worker-1"]
    restarts = worker.restarts
    result = site.run_health_command("worker", "--name", "worker-1")
    assert result.returncode == 0, result.stderr
    worker.send(signal.SIGSTOP)
    eventually(
        lambda: site.run_health_command("worker", "--name", "worker-1").returncode == 1,
        within=60,
        what="the check fails",
    )
    eventually(lambda: worker.restarts > restarts, within=60, what="the supervisor replaces it")
    assert any("worker-1 does not respond" in notice for notice in site.notices)
    eventually(lambda: is_ready(site), within=60, what="ready again")
    site.generate_image()


def test_worker_recovers_from_lost_redis_subscription(site: ObservedPlatform) -> None:
    """After CLIENT KILL in Redis a worker may stay alive without receiving messages."""
    eventually(lambda: is_ready(site), within=60)
    with redis.Redis.from_url(site.platform.redis_url) as client:
        client.execute_command("CLIENT", "KILL", "TYPE", "pubsub")
    site.generate_image()
    eventually(lambda: is_ready(site), within=60, what="ready again")
    assert site.run_health_command("worker").returncode == 0


# Polls and copies continue in the worker without a message.
TASKS = ("dreamery.submit",)


def flower_results(site: ObservedPlatform, *, since: float = 0) -> dict[str, list[str]]:
    """The results of successful tasks that were received after `since`, by task."""
    tasks = httpx.get(
        f"{site.platform.flower_url}/api/tasks", auth=("admin", site.platform.admin_key), params={"limit": 200},
        trust_env=False, timeout=30,
    ).json().values()  # fmt: skip
    results: dict[str, list[str]] = {}
    for task in tasks:
        if task["state"] == "SUCCESS" and (task["received"] or 0) > since:
            results.setdefault(task["name"], []).append(task["result"])
    return results


def wait_for_flower(site: ObservedPlatform, *, since: float = 0) -> None:
    def shows_tasks() -> bool:
        site.generate_image()  # Flower never shows tasks that ran while it was disconnected
        return set(TASKS) <= set(flower_results(site, since=since))

    eventually(shows_tasks, within=60, what="Flower shows the tasks")


def test_flower_recovers_from_lost_redis_subscription(site: ObservedPlatform) -> None:
    eventually(lambda: is_ready(site), within=60)
    with redis.Redis.from_url(site.platform.redis_url) as client:
        client.execute_command("CLIENT", "KILL", "TYPE", "pubsub")
    wait_for_flower(site, since=time.time())


def test_flower_requires_login_and_shows_task_results(site: ObservedPlatform) -> None:
    url, login = site.platform.flower_url, ("admin", site.platform.admin_key)
    with httpx.Client(trust_env=False, timeout=30) as client:
        assert client.get(f"{url}/tasks").status_code == 401
        assert client.get(f"{url}/api/tasks", auth=("admin", "wrong")).status_code == 401
        page = client.get(f"{url}/tasks", auth=login)
        assert page.status_code == 200
        assert "Result" in page.text
    wait_for_flower(site)
    results = flower_results(site)
    assert "dreamery.tick" not in results
    assert "dreamery.heartbeat" not in results
    lines = [line for task in results.values() for line in task]
    assert any(re.match(r"'submitted ", line) for line in results["dreamery.submit"])
    assert all("\n" not in line and len(line) < 200 for line in lines)
