"""Supervision of child processes: start, restart with growing delays, stop, and the end of their parent."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.support.platform import ROOT, clean_env, eventually
from worker.local.processes import (
    LOG_ROTATE_BYTES,
    ON_LINUX,
    Child,
    ChildSpec,
    ProcessSupervisor,
    StartError,
    free_port,
    port_is_free,
)

FOREVER = "import threading; threading.Event().wait()"
STUBBORN = "import signal, threading; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('ready', flush=True); threading.Event().wait()"


def spec(folder: Path, code: str, name: str = "child") -> ChildSpec:
    command = (sys.executable, "-c", code)
    return ChildSpec(name=name, command=command, env=clean_env(), cwd=folder, log_path=folder / f"{name}.log")


@pytest.fixture
def supervisor() -> Iterator[ProcessSupervisor]:
    supervisor = ProcessSupervisor()
    yield supervisor
    supervisor.close()


def has_ended(pid: int) -> bool:
    with contextlib.suppress(psutil.NoSuchProcess):
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    return True


def test_exited_child_is_restarted_and_counted(tmp_path: Path) -> None:
    exits: list[tuple[str, int, float]] = []
    supervisor = ProcessSupervisor(lambda child, code, delay: exits.append((child.name, code, delay)))
    child = supervisor.start(spec(tmp_path, FOREVER))
    supervisor.restart_on_exit(child)
    first = child.pid
    child.kill()
    eventually(lambda: child.restarts == 1)
    assert child.pid != first
    assert child.exit_code is None
    assert exits == [("child", -9, 0.2)]
    supervisor.stop([child], timeout=5)
    supervisor.close()
    assert has_ended(child.pid)
    assert child.restarts == 1, "a stopped child stays stopped"


def test_restart_delays_grow_while_a_child_keeps_failing(tmp_path: Path) -> None:
    delays: list[float] = []
    supervisor = ProcessSupervisor(lambda _child, _code, delay: delays.append(delay))
    child = supervisor.start(spec(tmp_path, "raise SystemExit(3)"))
    supervisor.restart_on_exit(child)
    eventually(lambda: len(delays) >= 4)
    supervisor.close()
    assert delays[:4] == [0.2, 0.4, 0.8, 1.6]


def test_child_without_restarts_stays_stopped(tmp_path: Path, supervisor: ProcessSupervisor) -> None:
    child = supervisor.start(spec(tmp_path, "print('last output'); raise SystemExit(3)"))
    eventually(lambda: child.exit_code == 3)
    threading.Event().wait(0.4)
    assert child.restarts == 0
    assert child.log_tail() == "last output"


def test_stop_kills_children_that_ignore_sigterm(tmp_path: Path, supervisor: ProcessSupervisor) -> None:
    child = supervisor.start(spec(tmp_path, STUBBORN))
    eventually(lambda: child.log_tail() == "ready")
    supervisor.stop([child], timeout=0.3)
    assert child.exit_code == -signal.SIGKILL


def test_busy_child_gets_more_time(tmp_path: Path, supervisor: ProcessSupervisor) -> None:
    child = supervisor.start(spec(tmp_path, STUBBORN))
    eventually(lambda: child.log_tail() == "ready")
    asked: list[int] = []

    def busy(child: Child) -> bool:
        asked.append(child.pid)
        return len(asked) < 20

    supervisor.stop([child], timeout=0.0, busy=busy, busy_timeout=60.0)
    assert len(asked) == 20, "it was asked until it was not busy any more"
    assert child.exit_code == -signal.SIGKILL


def test_kill_now_ends_the_timeout(tmp_path: Path, supervisor: ProcessSupervisor) -> None:
    child = supervisor.start(spec(tmp_path, STUBBORN))
    eventually(lambda: child.log_tail() == "ready")
    kill_now = threading.Event()
    threading.Timer(0.2, kill_now.set).start()
    supervisor.stop([child], timeout=60, kill_now=kill_now)
    assert child.exit_code == -signal.SIGKILL


def test_close_kills_running_children(tmp_path: Path) -> None:
    supervisor = ProcessSupervisor()
    child = supervisor.start(spec(tmp_path, FOREVER))
    supervisor.restart_on_exit(child)
    supervisor.close()
    eventually(lambda: has_ended(child.pid))


def test_missing_program_is_a_start_error(tmp_path: Path, supervisor: ProcessSupervisor) -> None:
    missing = ChildSpec(name="ghost", command=("/no/such/program",), env={}, cwd=tmp_path, log_path=None)
    with pytest.raises(StartError, match="Cannot start ghost"):
        supervisor.start(missing)


def test_child_without_a_process_has_no_pid(tmp_path: Path) -> None:
    with pytest.raises(StartError, match="never started"):
        _ = Child(spec(tmp_path, FOREVER)).pid


def test_large_log_is_rotated_at_start(tmp_path: Path, supervisor: ProcessSupervisor) -> None:
    log = tmp_path / "child.log"
    log.write_bytes(b"x" * (LOG_ROTATE_BYTES + 1))
    child = supervisor.start(spec(tmp_path, "print('new')"))
    eventually(lambda: child.exit_code == 0)
    assert log.read_text() == "new\n"
    assert (tmp_path / "child.log.1").stat().st_size > LOG_ROTATE_BYTES


def test_children_started_from_a_thread_outlive_it(tmp_path: Path, supervisor: ProcessSupervisor) -> None:
    """The kernel sends the parent-death signal when the starting thread ends, so the supervisor has its own thread."""
    children: list[Child] = []
    thread = threading.Thread(target=lambda: children.append(supervisor.start(spec(tmp_path, FOREVER))))
    thread.start()
    thread.join()
    threading.Event().wait(0.3)
    assert children[0].exit_code is None


SUPERVISE_ONE = """
import sys, threading
from pathlib import Path
from tests.unit.worker.local.test_processes import FOREVER, spec
from worker.local import processes
from worker.local.processes import ProcessSupervisor
processes.ON_LINUX = sys.argv[2] == "linux"
print(ProcessSupervisor().start(spec(Path(sys.argv[1]), FOREVER)).pid, flush=True)
threading.Event().wait()
"""


@pytest.mark.parametrize("signal_number", [signal.SIGKILL, signal.SIGTERM])
@pytest.mark.parametrize("system", ["linux", "other"])
def test_children_end_with_their_supervisor(tmp_path: Path, signal_number: signal.Signals, system: str) -> None:
    if system == "linux" and not ON_LINUX:
        pytest.skip("needs the parent-death signal of Linux")
    command = [sys.executable, "-c", SUPERVISE_ONE, str(tmp_path), system]
    with subprocess.Popen(command, cwd=ROOT, env=clean_env(), stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None
        pid = int(owner.stdout.readline())
        assert not has_ended(pid)
        owner.send_signal(signal_number)
        owner.wait()
        eventually(lambda: has_ended(pid))


REAP_ONE = """
import signal, subprocess, sys, threading
from worker.local.reaper import Reaper
reaper = Reaper()
child = subprocess.Popen([sys.executable, "-c", "import threading; threading.Event().wait()"], start_new_session=True)
reaper.watch("child", child.pid, signal.SIGKILL)
print(child.pid, reaper.pid, flush=True)
if sys.argv[1] == "close":
    reaper.close()
    print("closed", flush=True)
threading.Event().wait()
"""


def test_reaper_kills_children_of_a_killed_parent() -> None:
    command = [sys.executable, "-c", REAP_ONE, "die"]
    with subprocess.Popen(command, cwd=ROOT, env=clean_env(), stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None
        child, reaper = map(int, owner.stdout.readline().split())
        owner.kill()
        owner.wait()
        eventually(lambda: has_ended(child) and has_ended(reaper))


def test_closed_reaper_kills_no_children() -> None:
    command = [sys.executable, "-c", REAP_ONE, "close"]
    with subprocess.Popen(command, cwd=ROOT, env=clean_env(), stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None
        child, reaper = map(int, owner.stdout.readline().split())
        assert owner.stdout.readline() == "closed\n"
        assert has_ended(reaper)
        assert not has_ended(child)
        owner.kill()
        os.kill(child, signal.SIGKILL)


STOP_WITH_PARENT = """
import os, sys, threading
from worker.local.processes import stop_when_parent_dies
stop = threading.Event()
stop_when_parent_dies(stop.set)
print(os.getpid(), flush=True)
stop.wait()
"""


@pytest.mark.skipif(not ON_LINUX, reason="other systems poll once a second")
def test_stop_when_parent_dies_ignores_the_end_of_its_thread() -> None:
    starter = f"""
import subprocess, sys, threading
def start():
    global child
    child = subprocess.Popen([sys.executable, "-c", {STOP_WITH_PARENT!r}])
thread = threading.Thread(target=start)
thread.start()
thread.join()
threading.Event().wait()
"""
    with subprocess.Popen([sys.executable, "-c", starter], cwd=ROOT, env=clean_env(), stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        threading.Event().wait(0.3)
        assert not has_ended(pid), "only the thread that started it has ended"
        parent.kill()
        parent.wait()
        eventually(lambda: has_ended(pid))


def test_port_is_free_detects_listeners_and_foreign_addresses() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        assert not port_is_free("127.0.0.1", server.getsockname()[1])
    assert port_is_free("127.0.0.1", free_port())
    with pytest.raises(StartError, match="Use an address of this machine"):
        port_is_free("192.0.2.1", 8000)
