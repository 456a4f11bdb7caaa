"""What is measured: a Dreamery that is started for each row like `dreamery up`, or another server that runs already."""

import json
import os
import secrets
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from tests.bench.engine.scenarios import Limits, Scenario
from worker.local.processes import ChildSpec, ProcessSupervisor, free_port

_START_SECONDS = 120.0
# The benchmark measures the engine, so the limits that protect real accounts are raised.
_SETTINGS = {
    "DREAMERY_REQUESTS_PER_MINUTE": "0",
    "DREAMERY_ACCOUNT_MAX_IMAGES": "1000",
    "DREAMERY_ACCOUNT_MAX_VIDEOS": "1000",
    "DREAMERY_ACCOUNT_SUBMITS_PER_MINUTE": "1000000",
    "DREAMERY_LOG_LEVEL": "warning",
}
_UP = "import sys; from api.cli.main import main; sys.argv[0] = 'dreamery'; sys.exit(main())"


@dataclass(frozen=True)
class Target:
    """A server under load. `keys` may contain `{n}`, the number of an account. No pid, no figures of its processes."""

    name: str
    url: str
    keys: str
    pid: int | None = None
    database_url: str = ""
    redis_url: str = ""


@dataclass(frozen=True)
class Other:
    """A server that runs already (`--against`)."""

    name: str
    url: str
    keys: str
    pid: int | None

    @contextmanager
    def started(self, _scenario: Scenario) -> Iterator[Target]:
        """Wait until it answers."""
        _wait(self.url + "/", any_answer=True)
        yield Target(self.name, self.url, self.keys, self.pid)


@dataclass(frozen=True)
class Dreamery:
    """A source tree of Dreamery. Each row gets a new platform, so that no row learns from another one."""

    name: str
    tree: Path
    supervisor: ProcessSupervisor
    folder: Path
    stand_in: str
    workers: int

    @contextmanager
    def started(self, scenario: Scenario) -> Iterator[Target]:
        """Run the platform until the block ends."""
        data, port, admin = self.folder / secrets.token_hex(4), free_port(), f"sk-dreamery-{secrets.token_hex(16)}"
        env = {name: value for name, value in os.environ.items() if not name.startswith("DREAMERY_")}
        env |= {**_SETTINGS, "DREAMERY_SANDBOX_URL": self.stand_in, "DREAMERY_ADMIN_KEY": admin}
        env |= {"PYTHONPATH": str(self.tree), "PYTHONDONTWRITEBYTECODE": ""}
        options = ("--host", "127.0.0.1", "--port", str(port), "--data-dir", str(data), "--workers", str(self.workers))
        command = (sys.executable, "-P", "-c", _UP, "up", *options)
        log = self.folder / f"{data.name}.log"
        child = self.supervisor.start(ChildSpec("dreamery", command, env, self.folder, log))
        url = f"http://127.0.0.1:{port}"
        try:
            _wait(f"{url}/readyz", log=log)
            running = _wait_for_file(data / "running.json")
            keys = _add_pool(url, admin, scenario, scenario.limits) if scenario.limits else "bench{n}:sandbox"
            yield Target(self.name, url, keys, child.pid, running["database_url"], running["redis_url"])
        finally:
            self.supervisor.stop([child], timeout=40)
            shutil.rmtree(data, ignore_errors=True)


def _wait(url: str, *, any_answer: bool = False, log: Path | None = None) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while True:
        try:
            if httpx.get(url, timeout=5, trust_env=False).status_code == 200 or any_answer:
                return
        except httpx.HTTPError:
            pass
        if time.monotonic() > deadline:
            text = log.read_text()[-2000:] if log and log.exists() else ""
            raise TimeoutError(f"{url} does not answer.\n{text}")
        time.sleep(0.2)


def _wait_for_file(path: Path) -> dict[str, str]:
    deadline = time.monotonic() + 10
    while not path.exists():
        if time.monotonic() > deadline:
            raise TimeoutError(f"no {path}")
        time.sleep(0.05)
    addresses: dict[str, str] = json.loads(path.read_text())
    return addresses


def _add_pool(url: str, admin: str, scenario: Scenario, limits: Limits) -> str:
    """Make a pool of accounts with these limits; return the key that uses it."""
    with httpx.Client(base_url=url, headers={"Authorization": f"Bearer {admin}"}, timeout=60, trust_env=False) as http:
        old = http.get("/admin/v1/accounts").raise_for_status().json()["data"]
        tokens = ",".join(f"pool{number}:sandbox" for number in range(scenario.accounts))
        http.post("/admin/v1/accounts", json={"tokens": tokens}).raise_for_status()
        for account in old:
            http.delete(f"/admin/v1/accounts/{account['id']}").raise_for_status()
        fields = {"max_images": limits.slots, "max_videos": limits.slots, "submits_per_minute": limits.per_minute}
        for account in http.get("/admin/v1/accounts").json()["data"]:
            http.patch(f"/admin/v1/accounts/{account['id']}", json=fields).raise_for_status()
    return admin
