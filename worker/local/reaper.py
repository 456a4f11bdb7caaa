"""Kills a supervisor's children when the supervisor dies, on systems without a parent-death signal (macOS).

A helper process (`python -m worker.local.reaper`) holds the read end of a pipe; only the supervisor has the write end.
The pipe closes when the supervisor ends for any reason; the helper then signals all registered processes.
"""

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path


class Reaper:
    """The supervisor's side: starts the helper and registers processes with it."""

    def __init__(self) -> None:
        root = str(Path(__file__).resolve().parents[2])
        self._helper = subprocess.Popen(
            [sys.executable, "-P", "-m", "worker.local.reaper"],
            stdin=subprocess.PIPE,
            env={"PYTHONPATH": root, "PATH": os.defpath},
            start_new_session=True,
        )

    @property
    def pid(self) -> int:
        """The helper's process id."""
        return self._helper.pid

    def watch(self, name: str, pid: int, death_signal: signal.Signals) -> None:
        """Register the current process of a child; replaces an earlier one with the same name."""
        self._send(f"{name} {pid} {int(death_signal)}")

    def close(self) -> None:
        """End the helper without signalling any process."""
        self._send("done 0 0")
        if self._helper.stdin is not None:
            self._helper.stdin.close()
        self._helper.wait()

    def _send(self, line: str) -> None:
        if self._helper.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                self._helper.stdin.write(f"{line}\n".encode())
                self._helper.stdin.flush()


def main() -> None:
    """Read registrations until the pipe closes, then signal all registered processes."""
    watched: dict[str, tuple[int, int]] = {}
    for line in sys.stdin:
        name, pid, number = line.split()
        if name == "done":
            return
        watched[name] = (int(pid), int(number))
    for pid, number in watched.values():
        with contextlib.suppress(ProcessLookupError, PermissionError):
            # Each child leads its own process group.
            os.killpg(pid, number)


if __name__ == "__main__":
    # The supervisor handles Ctrl-C and SIGTERM sent to the whole terminal.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    main()
