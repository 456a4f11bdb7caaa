"""Limits of memory and CPU for a benchmark's processes, by a control group of version 2 or 1 (root only)."""

import contextlib
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

_TOP = Path("/sys/fs/cgroup")
_PERIOD = 100_000  # microseconds


@dataclass(frozen=True)
class Limited:
    """A group with limits. `folders` = one folder for all limits (version 2), or one each (version 1)."""

    folders: tuple[Path, ...]
    version: int

    def command(self, command: tuple[str, ...]) -> tuple[str, ...]:
        """Return a command that enters the group and then runs `command` as the same process."""
        enter = "".join(f"echo $$ > {folder}/cgroup.procs && " for folder in self.folders)
        return ("/bin/sh", "-c", f'{enter}exec "$@"', "sh", *command)

    def peak_bytes(self) -> int:
        """Return the highest memory of the group so far, with the cached files that could be dropped."""
        name = "memory.peak" if self.version == 2 else "memory.max_usage_in_bytes"
        with contextlib.suppress(OSError):
            return int((self.folders[0] / name).read_text())
        return 0  # older kernels do not record it

    def killed(self) -> int:
        """Return how many processes the kernel killed because of the memory limit."""
        name = "memory.events" if self.version == 2 else "memory.oom_control"
        counts = dict(line.split() for line in (self.folders[0] / name).read_text().splitlines())
        return int(counts["oom_kill"])


@contextmanager
def limited_group(name: str, *, memory_bytes: int, cores: float) -> Iterator[Limited | None]:
    """Make a group below our own one; None if this user or system cannot. It is removed at the end."""
    own = [line.split(":", 2) for line in Path("/proc/self/cgroup").read_text().splitlines()]
    paths = {controller: path for _, names, path in own for controller in names.split(",")}
    group: Limited | None = None
    with contextlib.suppress(OSError):
        group = _version_2(_TOP / paths.get("", "/").lstrip("/") / name, memory_bytes, cores)
    if group is None:
        with contextlib.suppress(OSError, KeyError):
            folders = [_TOP / kind / paths[kind].lstrip("/") / name for kind in ("memory", "cpu")]
            group = _version_1(*folders, memory_bytes, cores)
    try:
        yield group
    finally:
        for folder in group.folders if group else ():
            _remove(folder)


def _version_2(folder: Path, memory_bytes: int, cores: float) -> Limited | None:
    if not {"memory", "cpu"} <= set((folder.parent / "cgroup.subtree_control").read_text().split()):
        return None
    folder.mkdir()
    (folder / "memory.max").write_text(str(memory_bytes))
    with contextlib.suppress(OSError):
        (folder / "memory.swap.max").write_text("0")
    (folder / "cpu.max").write_text(f"{int(cores * _PERIOD)} {_PERIOD}")
    return Limited((folder,), 2)


def _version_1(memory: Path, cpu: Path, memory_bytes: int, cores: float) -> Limited:
    memory.mkdir()
    cpu.mkdir()
    (memory / "memory.limit_in_bytes").write_text(str(memory_bytes))
    (cpu / "cpu.cfs_period_us").write_text(str(_PERIOD))
    (cpu / "cpu.cfs_quota_us").write_text(str(int(cores * _PERIOD)))
    return Limited((memory, cpu), 1)


def _remove(folder: Path) -> None:
    for _ in range(50):
        try:
            folder.rmdir()
        except OSError:
            time.sleep(0.1)  # the last process is still ending
        else:
            return
