"""The profile that fits the memory of a machine or container."""

from pathlib import Path

import pytest

from worker.local.profiles import available_memory, choose_profile, default_shared_buffers

MB = 1024 * 1024


def machine(root: Path, *, available: int, cgroup: str = "0::/", **limits: str) -> Path:
    """A root folder with this much available memory, and `path__to__file="text"` below sys/fs/cgroup."""
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/meminfo").write_text(f"MemTotal: 99999999 kB\nMemAvailable: {available // 1024} kB\n")
    (root / "proc/self/cgroup").write_text(f"{cgroup}\n")
    for name, value in limits.items():
        file = root / "sys/fs/cgroup" / name.replace("__", "/").replace("_", ".", 1 if "max" in name else 0)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"{value}\n")
    return root


@pytest.mark.parametrize(
    ("megabytes", "profile"),
    [(300, "small"), (512, "small"), (1023, "small"), (1024, "standard"), (16_000, "standard")],
)
def test_profile_by_memory(megabytes: int, profile: str) -> None:
    assert choose_profile(megabytes * MB) == profile


def test_shared_buffers_by_memory() -> None:
    assert default_shared_buffers(400 * MB, "small") == 32
    assert default_shared_buffers(16_000 * MB, "small") == 32
    assert default_shared_buffers(1500 * MB, "standard") == 64
    assert default_shared_buffers(16_000 * MB, "standard") == 128


def test_free_memory_counts_without_a_limit(tmp_path: Path) -> None:
    assert available_memory(machine(tmp_path, available=700 * MB, memory_max="max")) == 700 * MB


def test_limit_of_a_parent_group_counts(tmp_path: Path) -> None:
    root = machine(
        tmp_path,
        available=9000 * MB,
        cgroup="0::/user/app",
        user__app__memory_max="max",
        user__memory_max=str(512 * MB),
    )
    assert available_memory(root) == 512 * MB


def test_limit_of_a_container_is_at_the_top(tmp_path: Path) -> None:
    root = machine(tmp_path, available=9000 * MB, cgroup="0::/docker/0123", memory_max=str(600 * MB))
    assert available_memory(root) == 600 * MB


def test_limit_of_version_1(tmp_path: Path) -> None:
    limits = {"memory__app__memory.limit_in_bytes": str(500 * MB), "memory__memory.limit_in_bytes": str(2**63 - 4096)}
    root = machine(tmp_path, available=9000 * MB, cgroup="4:cpu,memory:/app")
    for name, value in limits.items():
        file = root / "sys/fs/cgroup" / name.replace("__", "/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(value)
    assert available_memory(root) == 500 * MB


def test_machine_without_proc_uses_its_total_memory(tmp_path: Path) -> None:
    assert available_memory(tmp_path) > 64 * MB
