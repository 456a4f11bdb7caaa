"""Disks that are really full: a small file system for the results, one for the database."""

import contextlib
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.api_client import ApiClient
from tests.support.platform import ROOT, clean_env, eventually, migrate, running_postgres, start_platform


@contextlib.contextmanager
def small_disk(program: Callable[[str], Path], folder: Path, megabytes: int) -> Iterator[Path]:
    """Mount a small file system in memory for the duration of the block."""
    mount = program("mount")
    folder.mkdir()
    done = subprocess.run(
        [mount, "-t", "tmpfs", "-o", f"size={megabytes}m,mode=755", "tmpfs", folder],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        pytest.skip(f"this machine mounts nothing: {done.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run([mount.with_name("umount"), "--lazy", folder], check=True)


def fill(folder: Path) -> Path:
    """Take all space of a disk; return the file to delete."""
    ballast = folder / "ballast"
    with ballast.open("wb", buffering=0) as out, contextlib.suppress(OSError):
        while out.write(bytes(4096)):
            pass
    return ballast


def doctor(**env: str) -> dict[str, list[dict[str, Any]]]:
    """Run `dreamery doctor`; return its findings by check."""
    command = [sys.executable, "-P", "-m", "api.cli.main", "doctor", "--json"]
    done = subprocess.run(
        command, cwd=ROOT, env=clean_env(**env), capture_output=True, text=True, check=False, timeout=90
    )
    found: dict[str, list[dict[str, Any]]] = {}
    for finding in json.loads(done.stdout)["data"]:
        found.setdefault(finding["check"], []).append(finding)
    return found


def test_results_wait_for_room_and_hold_no_slot(program: Callable[[str], Path], tmp_path: Path) -> None:
    with small_disk(program, tmp_path / "results", 8) as disk:
        url = f"file://{disk}/files"
        with (
            start_platform(tmp_path, extra_env={"DREAMERY_STORAGE_URL": url}) as platform,
            ApiClient(platform, "demo:sandbox") as client,
        ):
            before = client.generate_images(response_format="url").json()["data"][0]["url"]
            ballast = fill(disk)
            # An account has two slots: the others start only because a job that waits holds none.
            jobs = [client.start_job()["id"] for _ in range(5)]

            def waits(job: str) -> bool:
                entries = client.http.get(f"/v1/jobs/{job}/timeline").json()["data"]
                return any("The storage is full" in entry["text"]["en"] for entry in entries)

            eventually(lambda: all(waits(job) for job in jobs), within=120, what="all results wait")
            ready = client.http.get("/readyz")
            assert (ready.status_code, ready.json()["status"]) == (200, "degraded")
            assert ready.json()["problems"] == ["the storage is full, finished results wait"]
            assert client.http.get(before).status_code == 200, "what is stored can be read"
            found = doctor(
                DREAMERY_DATA_DIR=str(platform.data_dir),
                DREAMERY_STORAGE_URL=url,
                DREAMERY_DATABASE_URL=platform.database_url,
                DREAMERY_REDIS_URL=platform.redis_url,
            )
            assert "it is full" in found["storage"][0]["detail"]
            [results] = [each for each in found["disk"] if "for results" in each["detail"]]
            assert results["detail"].startswith(f"0.0 GB free for results in {disk}")
            assert not results["ok"]

            ballast.unlink()
            eventually(
                lambda: {client.job(job)["status"] for job in jobs} == {"completed"}, within=150, what="all is saved"
            )
            eventually(
                lambda: client.http.get("/readyz").json()["status"] == "ready", within=120, what="all is well again"
            )
            assert not [path for path in disk.rglob("*") if "#" in path.name], "nothing is left half written"
            assert len(client.submits()) == 6, "nothing was ordered twice"


def test_doctor_sees_the_full_disk_of_a_database(program: Callable[[str], Path], tmp_path: Path) -> None:
    """Not the one of `up`: its disk is looked at, another server's is written to."""
    with small_disk(program, tmp_path / "database", 500) as disk, running_postgres(disk) as (server, _):
        server.ensure_database("dreamery")
        url = server.url("dreamery")
        migrate(url)
        env = {"DREAMERY_DATABASE_URL": url, "DREAMERY_DATA_DIR": str(tmp_path / "data")}
        env["DREAMERY_MASTER_KEY"] = "a long master key of a test, long enough"
        [room] = [each for each in doctor(**env)["disk"] if "database" in each["detail"]]
        assert room["ok"], room
        ballast = fill(disk)
        [room] = [each for each in doctor(**env)["disk"] if "database" in each["detail"]]
        ballast.unlink()
        assert not room["ok"]
        assert room["detail"] == "The disk of the database is full."
