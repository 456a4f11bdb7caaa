"""`make bench ARGS=--small`: the platform under the limits of a small host, with fewer pictures."""

import subprocess
from pathlib import Path

import pytest

from tests.bench import small
from tests.bench.control_groups import limited_group

MB = 1024 * 1024


def test_small_host_makes_pictures_and_a_video(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(small, "PICTURES", 2)
    monkeypatch.setattr(small, "IDLE_SECONDS", 1.0)
    tmp_path.chmod(0o755)
    with limited_group("dreamery-test-small", memory_bytes=512 * MB, cores=1.0) as group:
        figures = small._measure(tmp_path, group)
    assert figures.problems == []
    assert min(figures.api_picture_max, figures.console_picture_max, figures.video) > 3, "the sandbox takes 3 s"
    assert {"api", "worker", "postgres", "redis", "supervisor", "sandbox"} <= set(figures.peak_by_process)
    assert "flower" not in figures.peak_by_process
    assert 100 < figures.peak_pss_mb < 512


def test_memory_limit_is_enforced_where_groups_can_be_made() -> None:
    """Elsewhere there is no group, and the benchmark says so."""
    with limited_group("dreamery-test-limit", memory_bytes=64 * MB, cores=1.0) as group:
        if group is None:
            return
        hungry = ("python3", "-c", f"print(len(bytearray(200 * {MB})))")
        done = subprocess.run(group.command(hungry), capture_output=True, check=False)
        modest = subprocess.run(group.command(("echo", "fine")), capture_output=True, check=False)
        assert done.returncode == -9
        assert group.killed() == 1
        assert modest.stdout == b"fine\n"
    assert not any(folder.exists() for folder in group.folders)
