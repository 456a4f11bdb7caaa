"""`make bench ARGS=--small`: one person on a host with 512 MB and half a core.

`dreamery up --profile small` runs in a control group with these limits, its sandbox included. One caller makes 20
pictures, half through the API with a key and half through a session of the console, and then a video. Without the right
to make control groups, the platform runs on one core without limits, and its measured memory is compared instead.
"""

import argparse
import json
import os
import secrets
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import httpx
from rich.console import Console
from rich.table import Table

from tests.bench.control_groups import Limited, limited_group
from tests.bench.engine.processes import read_usage
from worker.local.processes import ChildSpec, ProcessSupervisor, free_port

MEMORY_BYTES = 512 * 1024 * 1024
CORES = 0.5
PICTURES = 20
IDLE_SECONDS = 20.0
_START_SECONDS = 300.0
_JOB_SECONDS = 600.0
_SAMPLE_SECONDS = 2.0


@dataclass
class Figures:
    """Seconds and MB. `peak_pss_mb` by process at the moment of the highest total."""

    limits: str
    start_seconds: float = 0.0
    idle_pss_mb: float = 0.0
    idle_cpu_percent: float = 0.0  # of one core
    api_picture_p50: float = 0.0
    api_picture_max: float = 0.0
    console_picture_p50: float = 0.0
    console_picture_max: float = 0.0
    video: float = 0.0
    peak_pss_mb: float = 0.0
    peak_by_process: dict[str, float] = field(default_factory=dict)
    peak_group_mb: float = 0.0
    problems: list[str] = field(default_factory=list)


class Sampler(threading.Thread):
    """Reads the memory of a process tree regularly. It runs outside the limits."""

    def __init__(self, root: int) -> None:
        super().__init__(daemon=True)
        self._root = root
        self._stopped = threading.Event()
        self.peak: dict[str, float] = {}

    def run(self) -> None:
        """Sample until stopped."""
        while not self._stopped.wait(_SAMPLE_SECONDS):
            usage = read_usage(self._root, memory=True)
            if usage.total_pss_mb > sum(self.peak.values()):
                self.peak = usage.pss_mb

    def stop(self) -> None:
        """End the thread."""
        self._stopped.set()
        self.join()


def run(args: argparse.Namespace) -> int:
    """Run the scenario and print its figures; returns 0 if there were no problems."""
    name = f"dreamery-small-{os.getpid()}"
    with (
        limited_group(name, memory_bytes=MEMORY_BYTES, cores=CORES) as group,
        tempfile.TemporaryDirectory(prefix="dreamery-bench-", ignore_cleanup_errors=True) as folder,
    ):
        Path(folder).chmod(0o755)
        figures = _measure(Path(folder), group)
    if args.json:
        print(json.dumps(asdict(figures), indent=2))
    else:
        table = Table("one person on a small host", "", title=figures.limits)
        for label, value in asdict(figures).items():
            table.add_row(label.replace("_", " "), str(value))
        Console(width=120).print(table)
    return 1 if figures.problems else 0


def _measure(folder: Path, group: Limited | None) -> Figures:
    limits = (
        f"{MEMORY_BYTES // 2**20} MB and {CORES} cores by a control group of version {group.version}" if group else ""
    )
    figures = Figures(limits or "one core, memory only measured: no right to make control groups")
    began = time.monotonic()
    with _platform(folder, group) as (pid, url, admin_key):
        figures.start_seconds = round(time.monotonic() - began, 1)
        _measure_idle(figures, pid)
        sampler = Sampler(pid)
        sampler.start()
        try:
            _make_everything(figures, url, admin_key)
        except (httpx.HTTPError, RuntimeError) as error:
            figures.problems.append(f"{type(error).__name__}: {error}")
        sampler.stop()
    figures.peak_by_process = {name: round(value, 1) for name, value in sampler.peak.items()}
    figures.peak_pss_mb = round(sum(sampler.peak.values()), 1)
    if figures.peak_pss_mb > MEMORY_BYTES / 1e6:
        figures.problems.append("more memory than the host has")
    if group:
        figures.peak_group_mb = round(group.peak_bytes() / 1e6, 1)
        if group.killed():
            figures.problems.append(f"the kernel killed {group.killed()} processes for lack of memory")
    return figures


@contextmanager
def _platform(folder: Path, group: Limited | None) -> Iterator[tuple[int, str, str]]:
    """Run `dreamery up`; yields its process id, its URL and the admin key."""
    port, admin_key = free_port(), f"sk-dreamery-{secrets.token_hex(16)}"
    env = {name: value for name, value in os.environ.items() if not name.startswith("DREAMERY_")}
    env |= {"DREAMERY_ADMIN_KEY": admin_key, "PYTHONPATH": str(Path(__file__).resolve().parents[2])}
    up = ("-m", "api.cli.main", "up", "--port", str(port), "--data-dir", str(folder / "data"), "--profile", "small")
    command: tuple[str, ...] = (sys.executable, "-P", *up)
    command = group.command(command) if group else ("taskset", "-c", "0", *command)
    supervisor = ProcessSupervisor()
    log = folder / "up.log"
    child = supervisor.start(ChildSpec(name="up", command=command, env=env, cwd=folder, log_path=log))
    try:
        deadline = time.monotonic() + _START_SECONDS
        while not (folder / "data" / "running.json").exists():
            if child.exit_code is not None or time.monotonic() > deadline:
                raise RuntimeError(f"dreamery up did not start:\n{child.log_tail(30)}")
            time.sleep(0.1)
        yield child.pid, f"http://127.0.0.1:{port}", admin_key
    finally:
        supervisor.stop([child], timeout=60)
        supervisor.close()


def _measure_idle(figures: Figures, pid: int) -> None:
    before = read_usage(pid, memory=False).total_cpu_ms
    time.sleep(IDLE_SECONDS)
    usage = read_usage(pid, memory=True)
    figures.idle_cpu_percent = round((usage.total_cpu_ms - before) / 10 / IDLE_SECONDS, 2)
    figures.idle_pss_mb = round(usage.total_pss_mb, 1)


def _make_everything(figures: Figures, url: str, admin_key: str) -> None:
    with httpx.Client(base_url=url, timeout=_JOB_SECONDS, trust_env=False) as http:
        api = {"Authorization": "Bearer demo:sandbox"}
        times = [_picture(http, number, api) for number in range(PICTURES // 2)]
        figures.api_picture_p50, figures.api_picture_max = _summary(times)
        admin = {"Authorization": f"Bearer {admin_key}", "Origin": url}
        session = http.post("/console/session", headers=admin).raise_for_status().json()
        console = {"X-CSRF-Token": session["csrf_token"], "Origin": url}
        http.get("/console").raise_for_status()
        times = [_picture(http, number, console) for number in range(PICTURES // 2, PICTURES)]
        figures.console_picture_p50, figures.console_picture_max = _summary(times)
        http.get("/v1/jobs", headers=console).raise_for_status()
        began = time.monotonic()
        body = {"prompt": "waves roll ashore", "duration": 5}
        _download(http, http.post("/v1/videos/generations", json=body, headers=console).raise_for_status().json())
        figures.video = round(time.monotonic() - began, 2)


def _picture(http: httpx.Client, number: int, headers: dict[str, str]) -> float:
    """Make one picture of 2048x2048 and download it; returns the seconds."""
    began = time.monotonic()
    body = {"prompt": f"a paper boat, number {number}", "size": "2048x2048", "n": 1}
    _download(http, http.post("/v1/images/generations", json=body, headers=headers).raise_for_status().json())
    return time.monotonic() - began


def _download(http: httpx.Client, answer: dict[str, Any]) -> None:
    for item in answer["data"]:
        content = http.get(item["url"]).raise_for_status().content
        if len(content) < 1000:
            raise RuntimeError(f"{item['url']} has {len(content)} bytes")


def _summary(times: list[float]) -> tuple[float, float]:
    return round(statistics.median(times), 2), round(max(times), 2)
