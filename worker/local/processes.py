"""Child processes of one machine: started, watched and restarted by one thread, and gone when their parent is gone.

Knows nothing of what the children do; `supervisor.py` says what to run.
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

from worker.local.reaper import Reaper

ON_LINUX = sys.platform == "linux"
LOG_ROTATE_BYTES = 20_000_000
_FIRST_BACKOFF = 0.2
_LAST_BACKOFF = 5.0
_HEALTHY_AFTER = 10.0
_WATCH_INTERVAL = 0.05
_HOPELESS_FAILURES = 4
_PR_SET_PDEATHSIG = 1

# Resolved here and not between fork and exec, where looking up a library could meet a lock held by another thread.
_prctl: Any = ctypes.CDLL(None, use_errno=True).prctl if ON_LINUX else None


class StartError(Exception):
    """The platform cannot run; the message says why and what to do, for a person at a terminal."""


@dataclass(frozen=True, slots=True)
class Account:
    """The operating-system user a child runs as."""

    uid: int
    gid: int


@dataclass(frozen=True, slots=True)
class ChildSpec:
    """How to run one child. `log_path` None passes its output through to our own stderr."""

    name: str
    command: tuple[str, ...]
    env: Mapping[str, str]
    cwd: Path
    log_path: Path | None
    account: Account | None = None
    stdin: IO[bytes] | None = None
    stop_signal: signal.Signals = signal.SIGTERM
    # What the kernel sends when we are killed. Everything here is safe to kill outright; only Postgres is asked nicely.
    death_signal: signal.Signals = signal.SIGKILL


def port_is_free(host: str, port: int) -> bool:
    """Whether a server could listen there now."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        # As servers do: connections of an earlier run that linger in TIME_WAIT do not count as taken.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            if error.errno in {errno.EADDRINUSE, errno.EACCES}:
                return False
            raise StartError(f"Cannot listen on {host}: {error.strerror}. Use an address of this machine.") from error
    return True


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on.

    Taken from below the ranges that Linux and macOS use for outgoing connections: such a connection could otherwise
    take the port between a server's crash and its restart.
    """
    while True:
        port = random.randint(15_000, 32_000)  # noqa: S311 - not a secret
        if port_is_free("127.0.0.1", port):
            return port


def send_when_parent_dies(death_signal: signal.Signals) -> None:
    """Ask the kernel to signal this process when the thread that started it ends. Linux only; elsewhere a no-op."""
    if _prctl is not None:
        _prctl(_PR_SET_PDEATHSIG, int(death_signal), 0, 0, 0)


def end_with_parent(stop: Callable[[], None]) -> None:
    """Call `stop` in the main thread soon after the process that started us is gone. Call from the main thread."""
    parent = os.getppid()

    def on_signal(_number: int, _frame: FrameType | None) -> None:
        if os.getppid() != parent:  # the kernel signals also when only the parent's starting thread ended
            stop()

    def watch() -> None:
        pause = threading.Event()
        while os.getppid() == parent:
            pause.wait(1)
        signal.raise_signal(signal.SIGUSR1)

    signal.signal(signal.SIGUSR1, on_signal)
    if ON_LINUX:
        send_when_parent_dies(signal.SIGUSR1)
    else:
        threading.Thread(target=watch, name="parent-watch", daemon=True).start()


def _bind_to(parent: int, death_signal: signal.Signals) -> Callable[[], None]:
    def bind() -> None:
        # Runs after setuid, which would have cleared it.
        send_when_parent_dies(death_signal)
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
    """One process and the processes that replaced it after a death. Made by `Keeper.start`."""

    def __init__(self, spec: ChildSpec) -> None:
        self.spec = spec
        self.restarts = 0
        self.kept = False
        self._process: subprocess.Popen[bytes] | None = None
        self._started_at = 0.0
        self._failures = 0
        self._revive_at: float | None = None

    @property
    def name(self) -> str:
        """What this child is called in logs and in `Platform.children`."""
        return self.spec.name

    @property
    def pid(self) -> int:
        """The id of the running, or of the last, process."""
        if self._process is None:
            raise StartError(f"{self.name} was never started")
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        """How the present process ended; None while it runs. Negative = the signal that killed it."""
        return None if self._process is None else self._process.poll()

    @property
    def keeps_failing(self) -> bool:
        """Whether it died soon after each of its last few starts; more restarts are unlikely to help."""
        return self._failures >= _HOPELESS_FAILURES

    def kill9(self) -> None:
        """Kill the present process as a crash would. The keeper starts another one."""
        self.send(signal.SIGKILL)

    def terminate(self) -> None:
        """Ask the present process to stop. The keeper starts another one unless told otherwise."""
        self.send(self.spec.stop_signal)

    def send(self, signal_number: signal.Signals) -> None:
        """Send a signal; nothing happens when the process is gone already."""
        if self._process is not None:
            self._process.send_signal(signal_number)

    def kill_group(self) -> None:
        """Kill the process and whatever it started in its own process group."""
        if self._process is not None and self._process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)

    def wait(self) -> None:
        """Wait for the end of the present process."""
        if self._process is not None:
            self._process.wait()

    def log_tail(self, lines: int = 15) -> str:
        """The last lines of its log, for error messages."""
        if self.spec.log_path is None or not self.spec.log_path.exists():
            return ""
        with self.spec.log_path.open("rb") as log:
            log.seek(max(0, self.spec.log_path.stat().st_size - 8_000))
            text = log.read().decode(errors="replace")
        return "\n".join(text.rstrip().splitlines()[-lines:])

    def last_words(self) -> str:
        """A sentence with the end of its log, or where that is."""
        tail = self.log_tail()
        return f" Its last words ({self.spec.log_path}):\n{tail}" if tail else f" Log: {self.spec.log_path}"

    def spawn(self) -> None:
        """Start the process. Only the keeper's thread calls this: the kernel ties the child to the calling thread."""
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
                # Its own session: Ctrl-C reaches only us, and we stop the children in order.
                start_new_session=True,
                user=spec.account.uid if spec.account else None,
                group=spec.account.gid if spec.account else None,
                extra_groups=[] if spec.account else None,
                # Two system calls between fork and exec; it takes no lock that another thread could hold.
                preexec_fn=_bind_to(os.getpid(), spec.death_signal) if ON_LINUX else None,  # noqa: PLW1509
            )
        self._started_at = time.monotonic()
        self._revive_at = None

    def plan_revival(self) -> float | None:
        """Seconds until the dead process is replaced, told once per death; None when nothing is to be done."""
        if not self.kept or self.exit_code is None or self._revive_at is not None:
            return None
        now = time.monotonic()
        self._failures = 0 if now - self._started_at >= _HEALTHY_AFTER else self._failures
        delay = min(_FIRST_BACKOFF * 2.0**self._failures, _LAST_BACKOFF)
        self._failures += 1
        self._revive_at = now + delay
        return delay

    def due_for_revival(self) -> bool:
        """Whether the pause after a death is over."""
        return self.kept and self._revive_at is not None and time.monotonic() >= self._revive_at


class Keeper:
    """Starts children, restarts those that die, stops them.

    Linux sends the parent-death signal when the *thread* that started a child ends. So all children are started by one
    thread that lives until `close`, and callers may be any thread.
    """

    def __init__(self, on_death: Callable[[Child, int, float], None] | None = None) -> None:
        self._on_death = on_death
        self._children: list[Child] = []
        self._lock = threading.Lock()
        self._requests: queue.SimpleQueue[tuple[Child, Future[None]] | None] = queue.SimpleQueue()
        self._reaper = None if ON_LINUX else Reaper()
        self._thread = threading.Thread(target=self._run, name="dreamery-keeper", daemon=True)
        self._thread.start()

    def start(self, spec: ChildSpec) -> Child:
        """Start a child; returns when its process exists. It is restarted only after `keep`."""
        child = Child(spec)
        done: Future[None] = Future()
        self._requests.put((child, done))
        try:
            done.result()
        except OSError as error:
            raise StartError(f"Cannot start {spec.name} ({spec.command[0]}): {error}") from error
        return child

    def keep(self, child: Child) -> None:
        """From now on replace this child's process whenever it ends."""
        child.kept = True

    def stop(self, children: Iterable[Child], *, patience: float, hurry: threading.Event | None = None) -> None:
        """Ask them all to stop, wait for them together, kill what is left after `patience` seconds or on `hurry`."""
        going = list(children)
        with self._lock:
            for child in going:
                child.kept = False
        for child in going:
            child.terminate()
        deadline = time.monotonic() + patience
        pause = threading.Event()
        while any(child.exit_code is None for child in going) and time.monotonic() < deadline:
            if hurry is not None and hurry.is_set():
                break
            pause.wait(0.02)
        for child in going:
            child.kill_group()
        for child in going:
            child.wait()
        with self._lock:
            self._children = [child for child in self._children if child not in going]

    def close(self) -> None:
        """End the keeper's thread, and with it (by the kernel, on Linux) any child still running."""
        self._requests.put(None)
        self._thread.join()
        if self._reaper is not None:
            self._reaper.close()

    def _run(self) -> None:
        while True:
            try:
                request = self._requests.get(timeout=_WATCH_INTERVAL)
            except queue.Empty:
                self._revive()
                continue
            if request is None:
                # Only what a stop that was itself interrupted has left.
                for child in self._children:
                    child.kept = False
                    child.kill_group()
                    child.wait()
                return
            child, done = request
            try:
                with self._lock:
                    self._spawn(child)
                    self._children.append(child)
            except BaseException as error:  # noqa: BLE001 - carried to the thread that asked
                done.set_exception(error)
            else:
                done.set_result(None)

    def _spawn(self, child: Child) -> None:
        child.spawn()
        if self._reaper is not None:
            self._reaper.watch(child.name, child.pid, child.spec.death_signal)

    def _revive(self) -> None:
        with self._lock:
            for child in self._children:
                exit_code = child.exit_code
                delay = child.plan_revival()
                if delay is not None and exit_code is not None and self._on_death is not None:
                    self._on_death(child, exit_code, delay)
                if child.due_for_revival():
                    try:
                        self._spawn(child)
                    except OSError:
                        child.kept = False  # its program is gone; nothing to try again
                    else:
                        child.restarts += 1  # last, so that whoever sees it also sees the new process
