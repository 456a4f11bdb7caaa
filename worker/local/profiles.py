"""The sizes of a platform on one machine: `small` for little memory, `standard` otherwise.

A profile changes defaults only; a setting that is set explicitly wins. Imports little, as the supervisor stays small.
"""

import os
from dataclasses import dataclass, field
from pathlib import Path

_MB = 1024 * 1024
# The platform itself takes about 250 MB; below this, the caches and pools of `standard` leave too little for the jobs.
SMALL_BELOW_BYTES = 1024 * _MB
_LARGE_FROM_BYTES = 4096 * _MB


@dataclass(frozen=True, slots=True)
class Profile:
    """`settings` = the defaults that it changes; the rest are options of the embedded Postgres, in MB or as counts."""

    name: str
    settings: dict[str, str] = field(default_factory=dict)
    work_mem: int = 4
    maintenance_work_mem: int = 64
    max_connections: int = 200
    max_wal_size: int = 1024


PROFILES = {
    "small": Profile(
        name="small",
        settings={"worker_concurrency": "8", "conversation_concurrency": "4", "db_pool_size": "4"},
        work_mem=2,
        maintenance_work_mem=16,
        max_connections=100,
        max_wal_size=128,
    ),
    "standard": Profile(name="standard"),
}


def choose_profile(available: int) -> str:
    """Return the profile for this much memory in bytes."""
    return "small" if available < SMALL_BELOW_BYTES else "standard"


def default_shared_buffers(available: int, profile: str) -> int:
    """Return the `shared_buffers` of the embedded Postgres in MB for this much memory in bytes."""
    if profile == "small":
        return 32
    return 128 if available >= _LARGE_FROM_BYTES else 64


def available_memory(root: Path = Path("/")) -> int:
    """Return the memory in bytes that new processes can use now, at most the limit of our control groups.

    `root` = folder that contains `proc` and `sys`; without them (macOS) the total memory counts.
    """
    limits = _control_group_limits(root)
    try:
        meminfo = (root / "proc/meminfo").read_text("ascii")
    except OSError:
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        return min([total, *limits])
    fields = {line.partition(":")[0]: line.split()[1] for line in meminfo.splitlines() if line}
    return min([int(fields.get("MemAvailable") or fields["MemTotal"]) * 1024, *limits])


def _control_group_limits(root: Path) -> list[int]:
    """Return the limits of the groups of this process and of their parents, versions 1 and 2."""
    try:
        lines = (root / "proc/self/cgroup").read_text("utf-8").splitlines()
    except OSError:
        return []
    found = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            tops, name = [root / "sys/fs/cgroup", root / "sys/fs/cgroup/unified"], "memory.max"
        elif "memory" in controllers.split(","):
            tops, name = [root / "sys/fs/cgroup/memory"], "memory.limit_in_bytes"
        else:
            continue
        group = Path(path)
        # Within a container the path can name a folder of the host; the group itself is then mounted at the top.
        found += [top / str(part).lstrip("/") / name for top in tops for part in (group, *group.parents)]
    return [limit for file in found if (limit := _read_limit(file)) is not None]


def _read_limit(file: Path) -> int | None:
    try:
        text = file.read_text("ascii").strip()
    except (OSError, ValueError):
        return None
    # Version 1 writes a huge number for "no limit", version 2 writes `max`.
    return int(text) if text.isdigit() and int(text) < 1 << 60 else None
