"""Seen from outside, on one platform: a trace from request to file, ids in logs, deaf workers, Flower."""

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

PICTURES = "/v1/images/generations"
CALLER = {"Authorization": "Bearer demo:sandbox"}
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"


@dataclass
class Site:
    """A platform, who gets its traces and webhooks, and what its supervisor said."""

    platform: Platform
    collector: Collector
    receiver: WebhookReceiver
    notices: list[str]

    def make(self, *, webhook: str = "", **headers: str) -> dict[str, Any]:
        body = {"prompt": "a lighthouse", "n": 1, "webhook": webhook or self.receiver.url}
        answer = httpx.post(
            self.platform.url + PICTURES, json=body, headers=CALLER | headers, timeout=90, trust_env=False
        )
        assert answer.status_code == 200, answer.text
        return {"job": answer.headers["x-job-id"], "request": answer.headers["x-request-id"]}

    def logged(self, name: str) -> list[dict[str, Any]]:
        lines = (self.platform.logs_dir / f"{name}.log").read_text().splitlines()
        return [json.loads(line) for line in lines if line.startswith("{")]

    def health(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        env = clean_env(
            DREAMERY_REDIS_URL=self.platform.redis_url,
            DREAMERY_WORKER_HEARTBEAT_TIMEOUT_SECONDS="4",
            DREAMERY_API_PORT=str(self.platform.port),
        )
        command = [sys.executable, "-P", "-m", "api.cli.main", "health", *arguments]
        return subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False, timeout=60)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
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
        with start_platform(folder, flower=True, extra_env=env, on_notice=notices.append) as platform:
            yield Site(platform, collector, receiver, notices)


def test_one_trace_leads_from_the_request_to_the_file_and_the_webhook(site: Site) -> None:
    made = site.make(traceparent=f"00-{TRACE}-00f067aa0ba902b7-01")
    wanted = {
        f"POST {PICTURES}", "submit", "upstream generate", "poll", "upstream get_history_by_ids", "settle", "save",
        "download", "store file", "notify", "post webhook",
    }  # fmt: skip
    eventually(
        lambda: wanted <= {span.name for _, span in site.collector.trace(TRACE)}, within=30,
        what=f"a whole trace, not only {[span.name for _, span in site.collector.trace(TRACE)]}",
    )  # fmt: skip
    spans = site.collector.trace(TRACE)
    by_name = {span.name: span for _, span in spans}
    parents = {span.span_id: span.name for _, span in spans}
    request = by_name[f"POST {PICTURES}"]
    assert request.parent_span_id.hex() == "00f067aa0ba902b7"
    for step in ("submit", "poll", "settle", "save", "notify"):
        assert parents[by_name[step].parent_span_id] == request.name
    for inner, outer in {
        "upstream generate": "submit", "download": "save", "store file": "save", "post webhook": "notify"
    }.items():  # fmt: skip
        assert parents[by_name[inner].parent_span_id] == outer
    assert {service for service, _ in spans} == {"dreamery-api", "dreamery-worker"}
    assert attributes(by_name["submit"])["job.id"] == made["job"]
    assert attributes(request)["request.id"] == made["request"]
    told = " ".join(str(span) for _, span in site.collector.spans)
    assert "lighthouse" not in told
    assert "sessionid" not in told


def test_log_lines_name_request_job_and_trace(site: Site) -> None:
    made = site.make(webhook="http://127.0.0.1:1/nobody", **{"x-request-id": "my-request-7"})

    def asking() -> list[dict[str, Any]]:
        return [line for line in site.logged("api") if line.get("request_id") == "my-request-7"]

    eventually(asking, what="the request is logged, which is after its answer")
    (asked,) = asking()
    assert (asked["event"], asked["job_id"]) == ("request", made["job"])
    assert re.fullmatch(r"[0-9a-f]{32}", asked["trace_id"])
    # A step of the job, in another process, names the request too.

    def not_taken() -> list[dict[str, Any]]:
        return [line for line in site.logged("worker-1") if line["event"] == "webhook_not_taken"]

    eventually(not_taken, within=30, what="the webhook fails")
    line = not_taken()[0]
    assert (line["request_id"], line["job_id"]) == ("my-request-7", made["job"])
    assert line["trace_id"] == asked["trace_id"]


def is_ready(site: Site) -> bool:
    return httpx.get(f"{site.platform.url}/readyz", trust_env=False, timeout=10).status_code == 200


def test_a_worker_that_stands_still_is_noticed_and_replaced(site: Site) -> None:
    eventually(lambda: is_ready(site), within=60)
    worker = site.platform.children["worker-1"]
    restarts = worker.restarts
    well = site.health("worker", "--name", "worker-1")
    assert well.returncode == 0, well.stderr
    worker.send(signal.SIGSTOP)
    eventually(lambda: site.health("worker", "--name", "worker-1").returncode == 1, within=60, what="the check fails")
    eventually(lambda: worker.restarts > restarts, within=60, what="the supervisor replaces it")
    assert any("worker-1 takes no messages" in notice for notice in site.notices)
    eventually(lambda: is_ready(site), within=60, what="ready again")
    site.make()


def test_a_worker_that_lost_its_subscription_is_noticed_or_mends_itself(site: Site) -> None:
    """Alive, with threads that run, yet its connection takes no messages: known from Redis' CLIENT KILL."""
    eventually(lambda: is_ready(site), within=60)
    with redis.Redis.from_url(site.platform.redis_url) as client:
        client.execute_command("CLIENT", "KILL", "TYPE", "pubsub")
    site.make()
    eventually(lambda: is_ready(site), within=60, what="ready again")
    assert site.health("worker").returncode == 0


STEPS = ("dreamery.submit", "dreamery.poll", "dreamery.save")


def seen_by_flower(site: Site, *, since: float = 0) -> dict[str, str]:
    """The steps that ended well and were received after that moment, each with its result."""
    tasks = httpx.get(
        f"{site.platform.flower_url}/api/tasks", auth=("admin", site.platform.admin_key), params={"limit": 200},
        trust_env=False, timeout=30,
    ).json().values()  # fmt: skip
    return {
        task["name"]: task["result"] for task in tasks if task["state"] == "SUCCESS" and (task["received"] or 0) > since
    }


def wait_for_flower(site: Site, *, since: float = 0) -> None:
    def hears() -> bool:
        site.make()  # what happens while it is deaf it never hears of
        return set(STEPS) <= set(seen_by_flower(site, since=since))

    eventually(hears, within=60, what="Flower shows the steps")


def test_flower_hears_again_after_it_lost_its_subscription(site: Site) -> None:
    eventually(lambda: is_ready(site), within=60)
    with redis.Redis.from_url(site.platform.redis_url) as client:
        client.execute_command("CLIENT", "KILL", "TYPE", "pubsub")
    wait_for_flower(site, since=time.time())


def test_flower_asks_for_a_login_and_shows_what_each_step_did(site: Site) -> None:
    url, login = site.platform.flower_url, ("admin", site.platform.admin_key)
    with httpx.Client(trust_env=False, timeout=30) as client:
        assert client.get(f"{url}/tasks").status_code == 401
        assert client.get(f"{url}/api/tasks", auth=("admin", "wrong")).status_code == 401
        page = client.get(f"{url}/tasks", auth=login)
        assert page.status_code == 200
        assert "Result" in page.text
    wait_for_flower(site)
    found = seen_by_flower(site)
    assert "dreamery.tick" not in found
    assert "dreamery.heartbeat" not in found
    assert re.match(r"'saved 1 of ", found["dreamery.save"])
    assert all("\n" not in line and len(line) < 200 for line in found.values())
