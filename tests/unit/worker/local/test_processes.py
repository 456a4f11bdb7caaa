"""Keeping child processes: start, restart with growing pauses, stop, and the ends that the kernel brings."""

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
    Keeper,
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
def keeper() -> Iterator[Keeper]:
    kept = Keeper()
    yield kept
    kept.close()


def gone(pid: int) -> bool:
    with contextlib.suppress(psutil.NoSuchProcess):
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    return True


def test_dead_child_is_replaced_and_counted(tmp_path: Path) -> None:
    told: list[tuple[str, int, float]] = []
    keeper = Keeper(lambda child, code, delay: told.append((child.name, code, delay)))
    child = keeper.start(spec(tmp_path, FOREVER))
    keeper.keep(child)
    first = child.pid
    child.kill9()
    eventually(lambda: child.restarts == 1)
    assert child.pid != first
    assert child.exit_code is None
    assert told == [("child", -9, 0.2)]
    keeper.stop([child], patience=5)
    keeper.close()
    assert gone(child.pid)
    assert child.restarts == 1, "a stopped child stays stopped"


def test_pauses_grow_while_a_child_keeps_failing(tmp_path: Path) -> None:
    delays: list[float] = []
    keeper = Keeper(lambda _child, _code, delay: delays.append(delay))
    child = keeper.start(spec(tmp_path, "raise SystemExit(3)"))
    keeper.keep(child)
    eventually(lambda: len(delays) >= 4)
    keeper.close()
    assert delays[:4] == [0.2, 0.4, 0.8, 1.6]


def test_child_that_is_not_kept_stays_dead(tmp_path: Path, keeper: Keeper) -> None:
    child = keeper.start(spec(tmp_path, "print('last words'); raise SystemExit(3)"))
    eventually(lambda: child.exit_code == 3)
    threading.Event().wait(0.4)
    assert child.restarts == 0
    assert child.log_tail() == "last words"


def test_stop_kills_what_does_not_listen(tmp_path: Path, keeper: Keeper) -> None:
    child = keeper.start(spec(tmp_path, STUBBORN))
    eventually(lambda: child.log_tail() == "ready")
    keeper.stop([child], patience=0.3)
    assert child.exit_code == -signal.SIGKILL


def test_hurry_cuts_the_patience_short(tmp_path: Path, keeper: Keeper) -> None:
    child = keeper.start(spec(tmp_path, STUBBORN))
    eventually(lambda: child.log_tail() == "ready")
    hurry = threading.Event()
    threading.Timer(0.2, hurry.set).start()
    keeper.stop([child], patience=60, hurry=hurry)
    assert child.exit_code == -signal.SIGKILL


def test_close_kills_what_was_not_stopped(tmp_path: Path) -> None:
    keeper = Keeper()
    child = keeper.start(spec(tmp_path, FOREVER))
    keeper.keep(child)
    keeper.close()
    eventually(lambda: gone(child.pid))


def test_missing_program_is_a_start_error(tmp_path: Path, keeper: Keeper) -> None:
    missing = ChildSpec(name="ghost", command=("/no/such/program",), env={}, cwd=tmp_path, log_path=None)
    with pytest.raises(StartError, match="Cannot start ghost"):
        keeper.start(missing)


def test_child_without_a_process_has_no_pid(tmp_path: Path) -> None:
    with pytest.raises(StartError, match="never started"):
        _ = Child(spec(tmp_path, FOREVER)).pid


def test_big_log_is_rotated_at_start(tmp_path: Path, keeper: Keeper) -> None:
    log = tmp_path / "child.log"
    log.write_bytes(b"x" * (LOG_ROTATE_BYTES + 1))
    child = keeper.start(spec(tmp_path, "print('new')"))
    eventually(lambda: child.exit_code == 0)
    assert log.read_text() == "new\n"
    assert (tmp_path / "child.log.1").stat().st_size > LOG_ROTATE_BYTES


def test_children_started_from_a_thread_outlive_it(tmp_path: Path, keeper: Keeper) -> None:
    """The kernel's parent-death signal fires when the starting thread ends, so the keeper has its own."""
    children: list[Child] = []
    thread = threading.Thread(target=lambda: children.append(keeper.start(spec(tmp_path, FOREVER))))
    thread.start()
    thread.join()
    threading.Event().wait(0.3)
    assert children[0].exit_code is None


KEEP_ONE = """
import sys, threading
from pathlib import Path
from tests.unit.worker.local.test_processes import FOREVER, spec
from worker.local import processes
from worker.local.processes import Keeper
processes.ON_LINUX = sys.argv[2] == "linux"
print(Keeper().start(spec(Path(sys.argv[1]), FOREVER)).pid, flush=True)
threading.Event().wait()
"""


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
@pytest.mark.parametrize("system", ["linux", "other"])
def test_children_end_with_their_keeper(tmp_path: Path, how: signal.Signals, system: str) -> None:
    if system == "linux" and not ON_LINUX:
        pytest.skip("the kernel's part")
    command = [sys.executable, "-c", KEEP_ONE, str(tmp_path), system]
    with subprocess.Popen(command, cwd=ROOT, env=clean_env(), stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None
        pid = int(owner.stdout.readline())
        assert not gone(pid)
        owner.send_signal(how)
        owner.wait()
        eventually(lambda: gone(pid))


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


def test_reaper_ends_children_where_the_kernel_does_not() -> None:
    command = [sys.executable, "-c", REAP_ONE, "die"]
    with subprocess.Popen(command, cwd=ROOT, env=clean_env(), stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None
        child, reaper = map(int, owner.stdout.readline().split())
        owner.kill()
        owner.wait()
        eventually(lambda: gone(child) and gone(reaper))


def test_closed_reaper_ends_nothing() -> None:
    command = [sys.executable, "-c", REAP_ONE, "close"]
    with subprocess.Popen(command, cwd=ROOT, env=clean_env(), stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None
        child, reaper = map(int, owner.stdout.readline().split())
        assert owner.stdout.readline() == "closed\n"
        assert gone(reaper)
        assert not gone(child)
        owner.kill()
        os.kill(child, signal.SIGKILL)


END_WITH_PARENT = """
import os, sys, threading
from worker.local.processes import end_with_parent
stop = threading.Event()
end_with_parent(stop.set)
print(os.getpid(), flush=True)
stop.wait()
"""


@pytest.mark.skipif(not ON_LINUX, reason="elsewhere a thread looks once a second")
def test_end_with_parent_follows_the_parent_not_its_thread() -> None:
    starter = f"""
import subprocess, sys, threading
def start():
    global child
    child = subprocess.Popen([sys.executable, "-c", {END_WITH_PARENT!r}])
thread = threading.Thread(target=start)
thread.start()
thread.join()
threading.Event().wait()
"""
    with subprocess.Popen([sys.executable, "-c", starter], cwd=ROOT, env=clean_env(), stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        threading.Event().wait(0.3)
        assert not gone(pid), "only the thread that started it has ended"
        parent.kill()
        parent.wait()
        eventually(lambda: gone(pid))


def test_port_is_free_sees_listeners_and_foreign_addresses() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        assert not port_is_free("127.0.0.1", server.getsockname()[1])
    assert port_is_free("127.0.0.1", free_port())
    with pytest.raises(StartError, match="Use an address of this machine"):
        port_is_free("192.0.2.1", 8000)
