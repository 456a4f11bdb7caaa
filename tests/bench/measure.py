"""Measurements of the benchmark: delays by the sandbox's clock, CPU and memory of our processes from the kernel."""

import asyncio
import statistics
import time
from dataclasses import asdict, dataclass
from typing import Any

import httpx2
import psutil

from worker.local.supervisor import Platform

# Async HTTP clients get slow with hundreds of connections in one pool, so each client has few.
CONNECTIONS_PER_CLIENT = 50
_TIMEOUT_SECONDS = 600.0


@dataclass
class Row:
    """The figures of one scenario. Delays in seconds; CPU and memory without the sandbox and the load generator."""

    scenario: str
    jobs: int
    failed: int
    wall_seconds: float
    jobs_per_second: float
    delay_p50: float | None
    delay_p99: float | None
    latency_p50: float
    upstream_calls_per_job: float
    downloads_per_job: float
    cpu_ms_per_job: float
    rss_mb: float
    by_process: dict[str, tuple[float, float]]  # milliseconds of CPU per job, MB

    def as_dict(self) -> dict[str, Any]:
        """The row as JSON data."""
        return asdict(self)


def _processes_by_child(platform: Platform) -> dict[str, list[psutil.Process]]:
    processes: dict[str, list[psutil.Process]] = {}
    for name, child in platform.children.items():
        root = psutil.Process(child.pid)
        processes[name] = [root, *root.children(recursive=True)]
    return processes


def usage(platform: Platform) -> tuple[dict[str, float], dict[str, float]]:
    """CPU seconds so far and memory in MB of each child process of the platform, including its own children."""
    cpu: dict[str, float] = {}
    rss: dict[str, float] = {}
    for name, processes in _processes_by_child(platform).items():
        for process in processes:
            try:
                times, memory = process.cpu_times(), process.memory_full_info().uss
            except psutil.Error:
                continue
            cpu[name] = cpu.get(name, 0.0) + times.user + times.system
            rss[name] = rss.get(name, 0.0) + memory / 1e6
    return cpu, rss


@dataclass
class Call:
    """One blocking request, measured by the caller."""

    prompt: str
    sent: float
    answered: float
    status: int


async def call_all(platform: Platform, prompts: list[tuple[str, str]], *, concurrency: int) -> list[Call]:
    """Send every (token, prompt) as a blocking request, `concurrency` at a time."""
    remaining = iter(prompts)
    clients = [
        httpx2.AsyncClient(
            timeout=_TIMEOUT_SECONDS,
            limits=httpx2.Limits(max_connections=CONNECTIONS_PER_CLIENT),
            base_url=platform.url,
        )
        for _ in range(-(-concurrency // CONNECTIONS_PER_CLIENT))
    ]
    calls: list[Call] = []

    async def caller(client: httpx2.AsyncClient) -> None:
        for token, prompt in remaining:
            body = {"prompt": prompt, "n": 1, "resolution": "1k"}
            sent = time.time()
            response = await client.post(
                "/v1/images/generations", json=body, headers={"Authorization": f"Bearer {token}"}
            )
            calls.append(Call(prompt=prompt, sent=sent, answered=time.time(), status=response.status_code))

    await asyncio.gather(*(caller(clients[i % len(clients)]) for i in range(concurrency)))
    for client in clients:
        await client.aclose()
    return calls


def run_scenario(platform: Platform, scenario: str, prompts: list[tuple[str, str]], *, concurrency: int) -> Row:
    """Run one scenario on a running platform; returns its figures."""
    httpx2.post(f"{platform.sandbox_url}/_reset")
    before, _ = usage(platform)
    started = time.time()
    calls = asyncio.run(call_all(platform, prompts, concurrency=concurrency))
    wall = time.time() - started
    after, rss = usage(platform)
    ledger = httpx2.get(f"{platform.sandbox_url}/_ledger", timeout=60).json()
    finished = {submit["prompt"]: submit["finish_at"] for submit in ledger["submits"] if submit["accepted"]}
    successful = [call for call in calls if call.status == 200]
    delays = [call.answered - finished[call.prompt] for call in successful]
    ours = [name for name in after if name != "sandbox"]
    spent = {name: 1000 * (after[name] - before.get(name, 0.0)) / len(calls) for name in ours}
    upstream = sum(count for path, count in ledger["calls"].items() if path.startswith(("/mweb", "/commerce", "/lv")))
    return Row(
        scenario=scenario,
        jobs=len(calls),
        failed=len(calls) - len(successful),
        wall_seconds=round(wall, 2),
        jobs_per_second=round(len(calls) / wall, 1),
        delay_p50=_quantile(delays, 0.5),
        delay_p99=_quantile(delays, 0.99),
        latency_p50=round(statistics.median(call.answered - call.sent for call in calls), 3),
        upstream_calls_per_job=round(upstream / len(calls), 2),
        downloads_per_job=round(ledger["calls"].get("/_media", 0) / len(calls), 2),
        cpu_ms_per_job=round(sum(spent.values()), 1),
        rss_mb=round(sum(rss[name] for name in ours), 0),
        by_process={name: (round(spent[name], 2), round(rss[name])) for name in ours},
    )


def _quantile(values: list[float], share: float) -> float | None:
    if not values:
        return None
    ordered = sorted(values)
    return round(ordered[min(int(len(ordered) * share), len(ordered) - 1)], 3)
