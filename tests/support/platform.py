"""Runs servers and platforms for tests. The fixtures are in `tests/conftest.py`."""

import contextlib
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import httpx
import psutil

from worker.local.data_dir import DataDir, write_private
from worker.local.embedded_servers import EmbeddedPostgres, EmbeddedRedis, embedded_postgres, embedded_redis
from worker.local.platform_settings import read_platform_settings
from worker.local.processes import Child, ProcessSupervisor, free_port
from worker.local.supervisor import Platform, PlatformOptions

__all__ = [
    "ROOT",
    "CheckedPlatform",
    "allowance_seconds",
    "clean_env",
    "eventually",
    "find_processes",
    "free_port",
    "migrate",
    "running_postgres",
    "running_redis",
    "start_platform",
]  # fmt: skip

ROOT = Path(__file__).resolve().parents[2]


class CheckedPlatform(Platform):
    """A platform that fails the test at the end of its `with` block if the sandbox reported a protocol violation or a
    secret is in its logs or its database.

    A new throwaway platform begins with a copy of a migrated cluster: making one takes nearly a third of the CPU time of a
    start. `tests/e2e/test_up.py` starts platforms that make and migrate their own.
    """

    _leaks: list[str] | None = None  # set when the data was destroyed before the end
    _is_migrated = False

    def __exit__(self, kind: type[BaseException] | None = None, *_error: object) -> None:
        try:
            violations = self.violations() if kind is None else {}
            leaks = self._find_leaks() if kind is None and self._leaks is None else self._leaks
        finally:
            self.stop()
        assert not violations, f"the sandbox reported protocol violations: {violations}"
        assert not leaks, f"secrets were leaked: {leaks}"

    def _start_servers(self, supervisor: ProcessSupervisor, data: DataDir) -> None:
        folder = data.path / "postgres"
        self._is_migrated = False
        if self.options.throwaway and not self._settings.database_url and not folder.exists():
            cluster, password = _migrated_cluster()
            data.key("postgres")  # creates the folder of the keys
            write_private(data.path / "keys" / "postgres.key", password + "\n")
            folder.mkdir(mode=0o700)
            # `cp` keeps the owner: Postgres never runs as root.
            subprocess.run(["cp", "-a", str(cluster), str(folder / "cluster")], check=True)
            self._is_migrated = True
        super()._start_servers(supervisor, data)

    def _migrate(self) -> None:
        if not self._is_migrated:
            super()._migrate()

    def _find_leaks(self) -> list[str]:
        from tests.support.crash.secret_leaks import find_secret_leaks

        return find_secret_leaks(self)

    def destroy_data(self) -> None:
        """Stop everything but the sandbox and delete files and database, like the loss of a machine."""
        self._leaks = self._find_leaks()
        assert self._supervisor is not None
        self._supervisor.stop([child for name, child in self.children.items() if name != "sandbox"], timeout=10)
        for folder in ("files", "postgres"):
            shutil.rmtree(self.data_dir / folder)

    def violations(self) -> dict[str, Any]:
        """Return the protocol violations that the sandbox counted, by code, with details of the first ones."""
        ledger = httpx.get(
            f"{self.sandbox_url}/_ledger?summary=1", headers=self.sandbox_control_headers, trust_env=False, timeout=30
        )
        return dict(ledger.json()["violations"])


def start_platform(tmp_path: Path, *, database_url: str = "", **options: Any) -> CheckedPlatform:
    """Start a platform on free ports with a new data folder, without Flower and fsync.

    Use it as `with start_platform(tmp_path) as platform:`. `options` are those of `PlatformOptions`. With
    `database_url` it uses that database, which must have the latest schema, and starts no Postgres.
    """
    settings: dict[str, Any] = {
        "data_dir": tmp_path / "data",
        "flower": "never",
        "sandbox": "at_start",
        "throwaway": True,
        "sandbox_seconds": 0.5,
    }
    # Tests of all routes send more wrong keys than the limit allows; some speak as a proxy on this machine.
    env = {"DREAMERY_FAILED_LOGINS_PER_MINUTE": "0", "DREAMERY_TRUSTED_PROXIES": "127.0.0.1,::1"}
    options["extra_env"] = {**env, **options.get("extra_env", {})}
    made = PlatformOptions(**{**settings, **options})
    read = read_platform_settings(throwaway=True, profile=made.profile)
    platform = CheckedPlatform(made, replace(read, database_url=database_url))
    platform.start()
    return platform


def allowance_seconds() -> float:
    """Return what is added to "twice the undisturbed time": beside other tests, they take the time and not the attack."""
    return 20.0 if "PYTEST_XDIST_WORKER" in os.environ else 1.0


def eventually(check: Callable[[], object], *, within: float = 60, what: str = "the expected state") -> None:
    """Wait until `check` returns a true value; fail with `what` after `within` seconds."""
    deadline = time.monotonic() + within
    pause = 0.02
    while not check():
        assert time.monotonic() < deadline, f"not within {within} s: {what}"
        # A check takes time from the processes under test, so the pauses grow.
        time.sleep(pause)
        pause = min(pause * 1.3, 0.3)


def clean_env(**values: str) -> dict[str, str]:
    """Return our environment without `DREAMERY_*`, plus `values`: tests must not reach a developer's real servers."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("DREAMERY_")}
    return {**kept, "PYTHONPATH": str(ROOT), **values}


def migrate(database_url: str) -> None:
    """Upgrade a database to the latest schema with the command that operators use."""
    done = subprocess.run(
        [sys.executable, "-m", "alembic", "-c", str(ROOT / "alembic.ini"), "upgrade", "head"],
        cwd=ROOT,
        env=clean_env(DREAMERY_DATABASE_URL=database_url),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def find_processes(folder: Path) -> list[psutil.Process]:
    """Return all live processes that work in this folder or were started with it, whatever their parent is."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            places = [process.cwd(), *process.cmdline(), process.environ().get("DREAMERY_DATA_DIR", "")]
            if process.status() != psutil.STATUS_ZOMBIE and any(str(folder) in place for place in places):
                found.append(process)
    return found


@contextlib.contextmanager
def running_postgres(
    folder: Path, *, throwaway: bool = True, password: str = "test"
) -> Iterator[tuple[EmbeddedPostgres, Child]]:
    """Run an embedded Postgres with its data in `folder` until the block ends."""
    server = embedded_postgres(folder / "postgres", port=free_port(), password=password, throwaway=throwaway)
    supervisor = ProcessSupervisor()
    try:
        server.create(supervisor, folder / "postgres.log")
        child = supervisor.start(server.server(folder / "postgres.log"))
        eventually(server.is_ready, what=f"Postgres ready, see {folder / 'postgres.log'}")
        supervisor.restart_on_exit(child)
        yield server, child
        supervisor.stop([child], timeout=15)
    finally:
        supervisor.close()


@cache
def _migrated_cluster() -> tuple[Path, str]:
    """Make a cluster that has Dreamery's database with the latest schema, once per process, and stop its server.

    Returns its folder, which lives as long as this process, and the password of its server.
    """
    folder, password = Path(_clusters().name), secrets.token_urlsafe(32)
    with running_postgres(folder, password=password) as (server, _child):
        server.ensure_database()
        migrate(server.url())
    return server.cluster, password


@cache
def _clusters() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="dreamery-tests-")  # deleted with its object, at the end of the process


@contextlib.contextmanager
def running_redis(folder: Path) -> Iterator[tuple[EmbeddedRedis, Child]]:
    """Run an embedded Valkey with its data in `folder` until the block ends."""
    server = embedded_redis(folder / "redis", port=free_port(), throwaway=True)
    supervisor = ProcessSupervisor()
    try:
        child = supervisor.start(server.server(folder / "redis.log"))
        eventually(server.is_ready, what=f"Valkey ready, see {folder / 'redis.log'}")
        supervisor.restart_on_exit(child)
        yield server, child
        supervisor.stop([child], timeout=15)
    finally:
        supervisor.close()
