"""The stop flag of this process. Tasks finish the work in progress and start no new work once it is set."""

import time
from pathlib import Path


class StopFlag:
    """Set by a signal handler, and checked by tasks between two pieces of work."""

    def __init__(self) -> None:
        self._since: float | None = None

    def request(self) -> None:
        """Request a stop. Only the first call has an effect. Takes no lock, so it is safe in a signal handler."""
        if self._since is None:
            self._since = time.monotonic()

    def reset(self) -> None:
        """Clear the flag, for a process that continues."""
        self._since = None

    @property
    def requested(self) -> bool:
        """Whether a stop was requested."""
        return self._since is not None

    def requested_for(self, seconds: float) -> bool:
        """Return whether a stop was requested at least `seconds` ago."""
        return self._since is not None and time.monotonic() - self._since >= seconds


stopping = StopFlag()

# A process with calls that are paid anyway (`long_calls`) gets this much more time: nearly all take less.
BUSY_SECONDS = 180.0


def busy_marker(data_dir: Path, pid: int) -> Path:
    """Return the file that says that this process is not to be killed yet."""
    return data_dir / "run" / f"long-calls-{pid}"
