"""CPU time and memory of a process tree, read from /proc, by role."""

import os
from dataclasses import dataclass, field
from pathlib import Path

_TICK = os.sysconf("SC_CLK_TCK")
# The first word found in the command line names the role; the root of the tree is the supervisor.
_ROLES = (
    ("postgres", "postgres"), ("valkey", "redis"), ("redis-server", "redis"), ("flower", "flower"), ("celery_beat", "scheduler"),
    ("sandbox", "sandbox"), ("talker", "talker"), ("api.http.server", "api"), ("worker", "worker"),
)  # fmt: skip


@dataclass
class Usage:
    """CPU milliseconds so far and PSS in MB by role."""

    cpu_ms: dict[str, float] = field(default_factory=dict)
    pss_mb: dict[str, float] = field(default_factory=dict)

    @property
    def total_cpu_ms(self) -> float:
        """CPU of all roles."""
        return sum(self.cpu_ms.values())

    @property
    def total_pss_mb(self) -> float:
        """Memory of all roles."""
        return sum(self.pss_mb.values())


def find_tree(root: int) -> list[int]:
    """Return the pids of a process and all its descendants."""
    parents: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            fields = _stat(int(entry.name))
            if fields:
                parents.setdefault(int(fields[1]), []).append(int(entry.name))
    tree = [root]
    for pid in tree:
        tree += parents.get(pid, [])
    return tree


def read_usage(root: int, *, memory: bool) -> Usage:
    """Read the tree. Time of ended processes counts for the parent that waited for them. `memory` costs some CPU."""
    usage = Usage()
    for pid in find_tree(root):
        fields = _stat(pid)
        if not fields:
            continue
        role = "supervisor" if pid == root else role_of(pid)
        ms = 1000 * sum(int(value) for value in fields[11:15]) / _TICK
        usage.cpu_ms[role] = usage.cpu_ms.get(role, 0.0) + ms
        if memory:
            usage.pss_mb[role] = usage.pss_mb.get(role, 0.0) + _pss_mb(pid)
    return usage


def _stat(pid: int) -> list[str]:
    """Return the fields of /proc/PID/stat after the name, or nothing if the process has ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


def role_of(pid: int) -> str:
    """Return the role of a process by its command line."""
    try:
        command = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return "other"
    return next((role for word, role in _ROLES if word in command), "other")


def _pss_mb(pid: int) -> float:
    try:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) / 1000
    except OSError:
        pass
    return 0.0
