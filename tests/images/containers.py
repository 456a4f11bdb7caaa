"""Run a container from an image's files: namespaces, a read-only root, the image's user, no capabilities.

crun and runc refuse machines with mixed control groups, so this uses the kernel's own tools. It shares the network of the
machine, and has no seccomp filter and no memory limit.
"""

import contextlib
import os
import shlex
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from tests.images.building import Image
from worker.local.processes import set_parent_death_signal

_DEVICES = ("null", "zero", "full", "random", "urandom")
_PAUSE = threading.Event()


def wait_until(what: str, condition: Callable[[], object], seconds: float = 600) -> None:
    """Wait until `condition()` is true. Raises TimeoutError."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(f"{what} did not happen within {seconds:.0f} s")
        _PAUSE.wait(0.3)


class Container:
    """One running container. `volume` is mounted at /data; `mounts` are folders by their places inside."""

    def __init__(
        self, image: Image, *, log: Path, volume: Path | None = None, env: dict[str, str] | None = None,
        command: Iterable[str] | None = None, code: Path | None = None, mounts: Mapping[str, Path] | None = None,
        host: str = "dreamery",
    ) -> None:  # fmt: skip
        self.image, self.log, self._host = image, log, host
        self.is_older = code is not None
        base = dict(item.split("=", 1) for item in image.config["Env"])
        self.env = {**base, "HOME": "/app", **(env or {})}
        words = [*(image.config.get("Entrypoint") or []), *(command or image.config["Cmd"])]
        places = {**(mounts or {}), **({"/data": volume} if volume else {})}
        script = self._mounts(places, code) + f"exec {self._as_user(words, chroot=True)}"
        with log.open("ab") as output:
            self._unshare = subprocess.Popen(
                ["unshare", "-m", "-p", "-i", "-u", "-f", "--kill-child", "--propagation", "private", "sh", "-ec", script],
                stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True,
                # A killed run leaves no container behind.
                preexec_fn=lambda: set_parent_death_signal(signal.SIGKILL),  # noqa: PLW1509
            )  # fmt: skip

    def _mounts(self, places: Mapping[str, Path], code: Path | None) -> str:
        root = shlex.quote(str(self.image.rootfs))
        lines = [f"hostname {self._host}", f"mount --bind {root} {root}", f"mount -t proc proc {root}/proc"]
        lines += [f"mount -t tmpfs -o nosuid,mode=755 dev {root}/dev", f"mkdir {root}/dev/shm"]
        lines += [f"touch {root}/dev/{name}; mount --bind /dev/{name} {root}/dev/{name}" for name in _DEVICES]
        lines += [f"ln -s /proc/self/fd {root}/dev/fd; ln -s /proc/self/fd/0 {root}/dev/stdin"]
        lines += [f"mount -t tmpfs -o size=64m,mode=1777 shm {root}/dev/shm"]
        # An older version: its code over ours.
        lines += [f"mount --bind {shlex.quote(str(code))} {root}/app"] if code else []
        for place, folder in places.items():
            lines.append(f"mkdir -p {root}{place}; mount --bind {shlex.quote(str(folder))} {root}{place}")
        lines.append(f"mount -o remount,bind,ro {root}")
        return "\n".join(lines) + "\n"

    def _as_user(self, words: Iterable[str], *, chroot: bool) -> str:
        user, _, group = self.image.config["User"].partition(":")
        enter = ["chroot", str(self.image.rootfs)] if chroot else []
        drop = ["setpriv", f"--reuid={user}", f"--regid={group}", "--clear-groups", "--no-new-privs"]
        # The change of the user clears the signal that `unshare --kill-child` has set.
        drop += ["--inh-caps=-all", "--bounding-set=-all", "--pdeathsig=KILL"]
        env = ["env", "-i", "-C", self.image.config["WorkingDir"], *(f"{k}={v}" for k, v in self.env.items())]
        return shlex.join([*enter, *drop, *env, *words])

    @property
    def init(self) -> int:
        """The process id, on this machine, of the container's process 1; 0 = it has ended or not begun."""
        try:
            children = Path(f"/proc/{self._unshare.pid}/task/{self._unshare.pid}/children").read_text().split()
        except OSError:
            return 0
        return int(children[0]) if children else 0

    @property
    def has_ended(self) -> bool:
        """Whether its process 1 has ended."""
        return self._unshare.poll() is not None

    def processes(self) -> list[int]:
        """The process ids of everything in the container."""
        space = self._namespace(self.init)
        pids = [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdecimal()]
        return [pid for pid in pids if space and self._namespace(pid) == space]

    @staticmethod
    def _namespace(pid: int) -> str:
        try:
            return str(Path(f"/proc/{pid}/ns/pid").readlink()) if pid else ""
        except OSError:
            return ""

    def status(self, pid: int, field: str) -> str:
        """A field of /proc/PID/status, "" when the process has ended."""
        try:
            lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        except OSError:
            return ""
        return next((line.split(":", 1)[1].strip() for line in lines if line.startswith(f"{field}:")), "")

    def memory(self) -> int:
        """Bytes of all processes, with shared pages divided among them (PSS)."""
        total = 0
        for pid in self.processes():
            try:
                rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
            except OSError:
                continue
            total += sum(int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Pss:"))
        return total * 1024

    def execute(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run a command inside, as `docker exec` does."""
        enter = ["nsenter", "-t", str(self.init), "-m", "-p", "-i", "-u", "--root"]
        inside = shlex.split(self._as_user(words, chroot=False))
        return subprocess.run([*enter, *inside], capture_output=True, text=True, check=False, timeout=300)

    def is_healthy(self) -> bool:
        """Run the image's health check."""
        return self.execute(*self.image.config["Healthcheck"]["Test"][1:]).returncode == 0

    def output(self) -> str:
        """What it has printed so far."""
        return self.log.read_text(errors="replace")

    def stop(self, seconds: float = 120, *, number: signal.Signals = signal.SIGTERM) -> int:
        """Send process 1 a signal, as `docker stop` does, and return the exit code."""
        pids = self.processes()
        os.kill(self.init, number)
        code = self._unshare.wait(seconds)
        left = [pid for pid in pids if Path(f"/proc/{pid}/cmdline").exists() and self.status(pid, "State")[:1] != "Z"]
        if left:
            raise AssertionError(f"processes are left behind: {left}")
        return code

    def wait(self, seconds: float = 600) -> int:
        """Wait for its end and return the exit code."""
        return self._unshare.wait(seconds)

    def close(self) -> None:
        """End it at once, with all its processes: the kernel ends them with process 1."""
        if self._unshare.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.init or self._unshare.pid, signal.SIGKILL)
            self._unshare.wait()
