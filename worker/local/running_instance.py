"""Where a running platform of this machine is: it leaves its addresses in its data folder for the commands beside it.

Commands ask this before anything else, so little is imported here.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from worker.local.data_dir import is_held, write_private

_ANNOUNCEMENT = "running.json"


@dataclass(frozen=True, slots=True)
class RunningPlatform:
    """How to reach a platform that runs on this machine."""

    url: str
    database_url: str
    redis_url: str


def announce(data_dir: Path, platform: RunningPlatform) -> None:
    """Leave the addresses where `dreamery generate` and `dreamery doctor` find them."""
    write_private(data_dir / _ANNOUNCEMENT, json.dumps(asdict(platform)) + "\n")


def withdraw(data_dir: Path) -> None:
    """The platform has ended."""
    (data_dir / _ANNOUNCEMENT).unlink(missing_ok=True)


def running_platform(data_dir: Path) -> RunningPlatform | None:
    """The platform that serves a data folder now; None when there is none, or it was killed."""
    try:
        known = json.loads((data_dir / _ANNOUNCEMENT).read_text())
        return RunningPlatform(**known) if is_held(data_dir) else None
    except (OSError, ValueError, TypeError):
        return None
