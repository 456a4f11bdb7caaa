"""The addresses of a running platform, stored in its data folder for commands on the same machine.

Every command calls this first, so it imports little.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from worker.local.data_dir import is_locked, write_private

_FILE_NAME = "running.json"


@dataclass(frozen=True, slots=True)
class RunningPlatform:
    """Addresses of a platform that runs on this machine."""

    url: str
    database_url: str
    redis_url: str


def write_running_platform(data_dir: Path, platform: RunningPlatform) -> None:
    """Store the addresses for commands such as `dreamery generate` and `dreamery doctor`."""
    write_private(data_dir / _FILE_NAME, json.dumps(asdict(platform)) + "\n")


def remove_running_platform(data_dir: Path) -> None:
    """Remove the addresses when the platform stops."""
    (data_dir / _FILE_NAME).unlink(missing_ok=True)


def find_running_platform(data_dir: Path) -> RunningPlatform | None:
    """Return the platform that runs on a data folder, or None when none runs or it was killed."""
    try:
        addresses = json.loads((data_dir / _FILE_NAME).read_text())
        return RunningPlatform(**addresses) if is_locked(data_dir) else None
    except (OSError, ValueError, TypeError):
        return None
