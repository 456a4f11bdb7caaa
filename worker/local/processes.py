"""Child processes of one machine: one thread starts, watches and restarts them, and they end with their parent.

Knows nothing about the purpose of the children; `supervisor.py` decides what to run.
"""

import contextlib
import ctypes
import errno
import os
import queue
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import IO, Any

from worker.core.concurrency.shutdown import BUSY_SECONDS
from worker.local.reaper import Reaper

ON_LINUX = sys.platform == "linux"
LOG_ROTATE_BYTES = 20_000_000
_FIRST_BACKOFF = 0.2
_LAST_BACKOFF = 5.0
_HEALTHY_AFTER = 10.0
_WATCH_INTERVAL = 0.05
_CRASH_LOOP_FAILURES = 4
_PR_SET_PDEATHSIG = 1

# Resolved at import: between fork and exec, loading a library could wait for a lock held by another thread.
_prctl: Any = ctypes.CDLL(None, use_errno=True).prctl if ON_LINUX else None


class StartError(Exception):
    """The platform cannot run. The message is for the terminal: the reason and what to do."""


@dataclass(frozen=True, slots=True)
class OsUser:
    """The operating-system user of a child."""

    uid: int
    gid: int


@dataclass(frozen=True, slots=True)
class ChildSpec:
    """How to run one child. `log_path` None = its output goes to our stderr."""

    name: str
    command: tuple[str, ...]
    env: Mapping[str, str]
    cwd: Path
    log_path: Path | None
    os_user: OsUser | None = None
    stdin: IO[bytes] | None = None
    stop_signal: signal.Signals = signal.SIGTERM
    # Sent by the kernel when we are killed. All children can be killed safely, but Postgres is asked to stop.
    death_signal: signal.Signals = signal.SIGKILL
    pass_fds: tuple[int, ...] = ()  # open files that it inherits under the same numbers


def port_is_free(host: str, port: int) -> bool:
    """Return whether a server could listen on this address now. Raises StartError for a foreign address."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        # Servers set it too: connections of an earlier run in TIME_WAIT do not block the port.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            if error.errno in {errno.EADDRINUSE, errno.EACCES}:
                return False
            raise StartError(f"Cannot listen on {host}: {error.strerror}. Use an address of this machine.") from error
    return True


def free_port() -> int:
    """Return an unused port of 127.0.0.1.

    The port is below the ranges for outgoing connections of Linux and macOS: otherwise such a connection could take it
    between the crash and the restart of a server.
    """
    while True:
        port = random.randint(15_000, 32_000)  # noqa: S311 - not a secret
        if port_is_free("127.0.0.1", port):
            return port


def set_parent_death_signal(death_signal: signal.Signals) -> None:
    """Make the kernel signal this process when the thread that started it ends. Does nothing except on Linux."""
    if _prctl is not None:
        _prctl(_PR_SET_PDEATHSIG, int(death_signal), 0, 0, 0)


def stop_when_parent_dies(stop: Callable[[], None]) -> None:
    """Call `stop` in the main thread soon after the parent process has ended. Call it from the main thread."""
    parent = os.getppid()

    def on_signal(_number: int, _frame: FrameType | None) -> None:
        if os.getppid() != parent:  # the kernel also signals when only the starting thread of the parent ended
            stop()

    def watch() -> None:
        pause = threading.Event()
        while os.getppid() == parent:
            pause.wait(1)
        signal.raise_signal(signal.SIGUSR1)

    signal.signal(signal.SIGUSR1, on_signal)
    if ON_LINUX:
        set_parent_death_signal(signal.SIGUSR1)
    else:
        threading.Thread(target=watch, name="parent-watch", daemon=True).start()


def _death_signal_setup(parent: int, death_signal: signal.Signals) -> Callable[[], None]:
    def bind() -> None:
        # Runs after setuid, which would have cleared it.
        set_parent_death_signal(death_signal)
        if os.getppid() != parent:
            os._exit(1)  # the parent died before the line above

    return bind


def _open_log(path: Path) -> IO[bytes]:
    path.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(FileNotFoundError):
        if path.stat().st_size > LOG_ROTATE_BYTES:
            path.replace(path.with_name(path.name + ".1"))
    return path.open("ab")


class Child:
    """One process and its replacements after restarts. Created by `ProcessSupervisor.start`."""

    def __init__(self, spec: ChildSpec) -> None:
        self.spec = spec
        self.restarts = 0
        self.restarts_on_exit = False
        self._process: subprocess.Popen[bytes] | None = None
        self._started_at = 0.0
        self._failures = 0
        self._restart_at: float | None = None

    @property
    def name(self) -> str:
        """Name of the child in logs and in `Platform.children`."""
        return self.spec.name

    @property
    def pid(self) -> int:
        """Process id of the running or the last process."""
        if self._process is None:
            raise StartError(f"{self.name} was never started")
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        """Exit code of the current process; None while it runs. Negative = number of the signal that killed it."""
        return None if self._process is None else self._process.poll()

    @property
    def is_crash_looping(self) -> bool:
        """Whether it exited soon after each of its last few starts; more restarts are unlikely to help."""
        return self._failures >= _CRASH_LOOP_FAILURES

    def kill(self) -> None:
        """Kill the current process like a crash. The supervisor restarts it."""
        self.send(signal.SIGKILL)

    def terminate(self) -> None:
        """Ask the current process to stop. The supervisor restarts it unless restarts are off."""
        self.send(self.spec.stop_signal)

    def send(self, signal_number: signal.Signals) -> None:
        """Send a signal. Does nothing when the process has ended."""
        if self._process is not None:
            self._process.send_signal(signal_number)

    def kill_group(self) -> None:
        """Kill the process and its process group."""
        if self._process is not None and self._process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)

    def wait(self) -> None:
        """Wait for the end of the current process."""
        if self._process is not None:
            self._process.wait()

    def log_tail(self, lines: int = 15) -> str:
        """Return the last lines of its log, for error messages."""
        if self.spec.log_path is None or not self.spec.log_path.exists():
            return ""
        with self.spec.log_path.open("rb") as log:
            log.seek(max(0, self.spec.log_path.stat().st_size - 8_000))
            text = log.read().decode(errors="replace")
        return "\n".join(text.rstrip().splitlines()[-lines:])

    def log_excerpt(self) -> str:
        """Return a sentence with the end of its log, or the path of the log."""
        if self.spec.log_path is None:
            return " Its output is above."
        tail = self.log_tail()
        return f" Its last output ({self.spec.log_path}):\n{tail}" if tail else f" Log: {self.spec.log_path}"

    def spawn(self) -> None:
        """Start the process. Only the supervisor's thread calls this: the kernel binds the child to that thread."""
        spec = self.spec
        if spec.stdin is not None:
            spec.stdin.seek(0)
        with contextlib.ExitStack() as stack:
            output = 2 if spec.log_path is None else stack.enter_context(_open_log(spec.log_path)).fileno()
            self._process = subprocess.Popen(  # noqa: S603 - our own commands
                spec.command,
                stdin=subprocess.DEVNULL if spec.stdin is None else spec.stdin.fileno(),
                stdout=output,
                stderr=output,
                cwd=spec.cwd,
                env=dict(spec.env),
                # A separate session: Ctrl-C reaches only us, and we stop the children in order.
                start_new_session=True,
                pass_fds=spec.pass_fds,
                user=spec.os_user.uid if spec.os_user else None,
                group=spec.os_user.gid if spec.os_user else None,
                extra_groups=[] if spec.os_user else None,
                # Only two system calls between fork and exec, and no lock that another thread could hold.
                preexec_fn=_death_signal_setup(os.getpid(), spec.death_signal) if ON_LINUX else None,  # noqa: PLW1509
            )
        self._started_at = time.monotonic()
        self._restart_at = None

    def schedule_restart(self) -> float | None:
        """Plan the restart of an exited process. Returns the delay in seconds once per exit, otherwise None."""
        if not self.restarts_on_exit or self.exit_code is None or self._restart_at is not None:
            return None
        now = time.monotonic()
        self._failures = 0 if now - self._started_at >= _HEALTHY_AFTER else self._failures
        delay = min(_FIRST_BACKOFF * 2.0**self._failures, _LAST_BACKOFF)
        self._failures += 1
        self._restart_at = now + delay
        return delay

    def is_restart_due(self) -> bool:
        """Return whether the delay of a planned restart is over."""
        return self.restarts_on_exit and self._restart_at is not None and time.monotonic() >= self._restart_at


class ProcessSupervisor:
    """Starts child processes, restarts those that exit, and stops them.

    Linux sends the parent-death signal when the *thread* that started a child ends. So one thread, which lives until
    `close`, starts all children. Any thread may call the methods.
    """

    def __init__(self, on_exit: Callable[[Child, int, float], None] | None = None) -> None:
        self._on_exit = on_exit
        self._children: list[Child] = []
        self._lock = threading.Lock()
        self._requests: queue.SimpleQueue[tuple[Child, Future[None]] | None] = queue.SimpleQueue()
        self._reaper = None if ON_LINUX else Reaper()
        self._thread = threading.Thread(target=self._run, name="dreamery-supervisor", daemon=True)
        self._thread.start()

    def start(self, spec: ChildSpec) -> Child:
        """Start a child and return it. It is restarted only after `restart_on_exit`. Raises StartError."""
        child = Child(spec)
        done: Future[None] = Future()
        self._requests.put((child, done))
        try:
            done.result()
        except OSError as error:
            raise StartError(f"Cannot start {spec.name} ({spec.command[0]}): {error}") from error
        return child

    def restart_on_exit(self, child: Child) -> None:
        """Restart this child whenever it exits from now on."""
        child.restarts_on_exit = True

    def stop(
        self,
        children: Iterable[Child],
        *,
        timeout: float,
        kill_now: threading.Event | None = None,
        busy: Callable[[Child], bool] = lambda _: False,
        busy_timeout: float = BUSY_SECONDS,
    ) -> None:
        """Ask the children to stop and wait; kill the rest after `timeout` seconds or when `kill_now` is set.

        A child that is `busy` gets `busy_timeout` seconds more.
        """
        stopping = list(children)
        with self._lock:
            for child in stopping:
                child.restarts_on_exit = False
        for child in stopping:
            child.terminate()
        deadline = time.monotonic() + timeout
        pause = threading.Event()
        while any(child.exit_code is None for child in stopping) and (
            time.monotonic() < deadline
            or (time.monotonic() < deadline + busy_timeout and any(map(busy, self._alive(stopping))))
        ):
            if kill_now is not None and kill_now.is_set():
                break
            pause.wait(0.02)
        for child in stopping:
            child.kill_group()
        for child in stopping:
            child.wait()
        with self._lock:
            self._children = [child for child in self._children if child not in stopping]

    @staticmethod
    def _alive(children: list[Child]) -> list[Child]:
        return [child for child in children if child.exit_code is None]

    def close(self) -> None:
        """End the supervisor's thread. Children that still run are killed."""
        self._requests.put(None)
        self._thread.join()
        if self._reaper is not None:
            self._reaper.close()

    def _run(self) -> None:
        while True:
            try:
                request = self._requests.get(timeout=_WATCH_INTERVAL)
            except queue.Empty:
                self._restart_dead_children()
                continue
            if request is None:
                # Children are left only when `stop` was interrupted.
                for child in self._children:
                    child.restarts_on_exit = False
                    child.kill_group()
                    child.wait()
                return
            child, done = request
            try:
                with self._lock:
                    self._spawn(child)
                    self._children.append(child)
            except BaseException as error:  # noqa: BLE001 - passed to the calling thread
                done.set_exception(error)
            else:
                done.set_result(None)

    def _spawn(self, child: Child) -> None:
        child.spawn()
        if self._reaper is not None:
            self._reaper.watch(child.name, child.pid, child.spec.death_signal)

    def _restart_dead_children(self) -> None:
        with self._lock:
            for child in self._children:
                exit_code = child.exit_code
                delay = child.schedule_restart()
                if delay is not None and exit_code is not None and self._on_exit is not None:
                    self._on_exit(child, exit_code, delay)
                if child.is_restart_due():
                    try:
                        self._spawn(child)
                    except OSError:
                        child.restarts_on_exit = False  # the program does not exist any more
                    else:
                        child.restarts += 1  # last, so that the new process is visible with the new count
