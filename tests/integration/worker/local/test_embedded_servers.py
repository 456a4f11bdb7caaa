"""The embedded servers: start, stop, crash, private folders, other users."""

import contextlib
import os
import signal
import socket
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import psycopg
import pytest

from tests.support.platform import (
    ROOT,
    clean_env,
    eventually,
    find_processes,
    free_port,
    running_postgres,
    running_redis,
)
from worker.local.embedded_servers import EmbeddedPostgres, embedded_postgres
from worker.local.processes import ProcessSupervisor, StartError

NOBODY = 65534
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")

HOLD_SERVERS = """
import sys, threading
from pathlib import Path
from tests.support.platform import running_postgres, running_redis
folder = Path(sys.argv[1])
with running_postgres(folder) as (postgres, a), running_redis(folder) as (redis, b):
    print(a.pid, b.pid, postgres.url("postgres"), flush=True)
    sys.stdin.read()
"""


def query_value(server: EmbeddedPostgres, query: str) -> object:
    with psycopg.connect(server.url("postgres"), autocommit=True) as connection:
        row = connection.execute(query.encode()).fetchone()
        return row and row[0]


def execute(server: EmbeddedPostgres, *statements: str) -> None:
    with psycopg.connect(server.url("postgres"), autocommit=True) as connection:
        for statement in statements:
            connection.execute(statement.encode())


@contextlib.contextmanager
def start_in_process(folder: Path, python: str = sys.executable, **popen: Any) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [python, "-c", HOLD_SERVERS, str(folder)],
        cwd=popen.pop("cwd", ROOT), env=popen.pop("env", clean_env()), text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, **popen,
    )  # fmt: skip
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def test_data_survives_a_restart(tmp_path: Path) -> None:
    with running_postgres(tmp_path, throwaway=False) as (server, child):
        execute(server, "CREATE TABLE kept (n int)", "INSERT INTO kept VALUES (7)")
        assert query_value(server, "SHOW fsync") == "on"
    assert child.exit_code == 0, "SIGINT makes Postgres shut down cleanly"
    with running_postgres(tmp_path, throwaway=False) as (server, _child):
        assert query_value(server, "SELECT n FROM kept") == 7
    assert find_processes(tmp_path) == []


def test_database_is_created_once(tmp_path: Path) -> None:
    with running_postgres(tmp_path) as (server, _child):
        server.ensure_database()
        server.ensure_database()
        with psycopg.connect(server.url()) as connection:
            assert connection.execute("SELECT current_setting('server_encoding')").fetchone() == ("UTF8",)


def test_killed_postgres_restarts_with_its_data(tmp_path: Path) -> None:
    with running_postgres(tmp_path) as (server, child):
        execute(server, "CREATE TABLE kept (n int)", "INSERT INTO kept VALUES (7)")
        first = child.pid
        for count in (1, 2):
            child.kill()
            eventually(lambda count=count: child.restarts == count and server.is_ready(), what=f"restart {count}")
        assert child.pid != first
        assert query_value(server, "SELECT n FROM kept") == 7


def test_killed_redis_restarts_with_its_data(tmp_path: Path) -> None:
    def send(port: int, *lines: str) -> bytes:
        with socket.create_connection(("127.0.0.1", port)) as connection:
            connection.sendall("".join(f"{line}\r\n" for line in lines).encode())
            connection.settimeout(5)
            answer = b""
            while answer.count(b"\r\n") < len(lines):
                answer += connection.recv(1000)
            return answer

    with running_redis(tmp_path) as (server, child):
        assert b"NOAUTH" in send(server.port, "GET a"), "a password is required"
        assert send(server.port, f"AUTH {server.password}", "SET a 1") == b"+OK\r\n+OK\r\n"
        child.kill()
        eventually(lambda: child.restarts == 1 and server.is_ready())
        assert send(server.port, f"AUTH {server.password}", "INCR a") == b"+OK\r\n:2\r\n"
        config = tmp_path / "redis" / "valkey.conf"
        assert stat.S_IMODE(config.stat().st_mode) == 0o600
        assert server.password not in " ".join(psutil.Process(child.pid).cmdline())


def test_wrong_password_is_refused(tmp_path: Path) -> None:
    with running_postgres(tmp_path) as (server, _child):
        wrong = server.url("postgres").replace(":test@", ":guess@")
        with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
            psycopg.connect(wrong)


def test_servers_end_with_their_killed_owner(tmp_path: Path) -> None:
    with start_in_process(tmp_path) as owner:
        assert owner.stdout is not None
        fields = owner.stdout.readline().split()
        assert len(fields) == 3, fields + owner.stdout.readlines()
        pids = [int(fields[0]), int(fields[1])]
        assert len(find_processes(tmp_path)) >= 3
        owner.send_signal(signal.SIGKILL)
        owner.wait()
        eventually(lambda: find_processes(tmp_path) == [], what=f"the end of {pids} and their children")
    with running_postgres(tmp_path) as (server, _child):
        assert query_value(server, "SELECT 1") == 1, "restarted immediately on the same folder"


def test_incomplete_cluster_is_created_again(tmp_path: Path) -> None:
    incomplete = tmp_path / "postgres" / "cluster.new"
    incomplete.mkdir(parents=True)
    (incomplete / "PG_VERSION").write_text("18\n")
    with running_postgres(tmp_path) as (server, _child):
        assert query_value(server, "SELECT 1") == 1
    assert not incomplete.exists()


def test_pid_file_of_another_process_is_removed(tmp_path: Path) -> None:
    with running_postgres(tmp_path):
        pass
    pid_file = tmp_path / "postgres" / "cluster" / "postmaster.pid"
    pid_file.write_text(f"{os.getpid()}\n/nowhere\n")
    with running_postgres(tmp_path) as (server, _child):
        assert query_value(server, "SELECT 1") == 1


def test_cluster_of_another_major_version_is_refused_unchanged(tmp_path: Path) -> None:
    cluster = tmp_path / "postgres" / "cluster"
    cluster.mkdir(parents=True)
    (cluster / "PG_VERSION").write_text("17\n")
    (cluster / "postmaster.pid").write_text("999999999\n")
    refused = pytest.raises(StartError, match=r"Postgres 17 made the database .* run `dreamery backup`")
    with refused, running_postgres(tmp_path):
        pass
    assert (cluster / "postmaster.pid").exists()


def test_initdb_failure_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("worker.local.embedded_servers._INITDB_FLAGS", ("--no-such-flag",))
    server = embedded_postgres(tmp_path / "postgres", port=free_port(), password="x", throwaway=True)
    supervisor = ProcessSupervisor()
    try:
        with pytest.raises(StartError, match="no-such-flag"):
            server.create(supervisor, tmp_path / "postgres.log")
    finally:
        supervisor.close()


@needs_root
def test_root_runs_postgres_as_nobody_in_a_private_folder() -> None:
    with tempfile.TemporaryDirectory(dir=Path.home()) as home:
        private = Path(home) / "a folder" / "data"
        private.mkdir(mode=0o700, parents=True)
        with running_postgres(private) as (server, child):
            assert psutil.Process(child.pid).uids().effective == NOBODY
            execute(server, "CREATE TABLE kept (n int)", "INSERT INTO kept VALUES (7)", "SELECT pg_reload_conf()")
            child.kill()
            eventually(lambda: child.restarts == 1 and server.is_ready())
            assert query_value(server, "SELECT n FROM kept") == 7


@needs_root
def test_root_copies_programs_from_private_folders(tmp_path: Path) -> None:
    """A clone in /root has its virtual environment there too."""
    with tempfile.TemporaryDirectory(dir=Path.home()) as home:
        site = Path(home) / "site"
        site.mkdir(mode=0o700)
        Path(home).chmod(0o700)
        packages = Path(sys.modules["psycopg"].__file__ or "").parents[1]
        for entry in packages.iterdir():
            if not entry.name.startswith(("embedded_postgres", "__editable__")):
                (site / entry.name).symlink_to(entry)
        for name in ("embedded_postgres", "embedded_postgres.libs"):
            if (packages / name).exists():
                subprocess.run(["cp", "-r", str(packages / name), str(site)], check=True)
        for info in packages.glob("embedded_postgres-*"):
            (site / info.name).symlink_to(info)
        env = clean_env(PYTHONPATH=f"{site}{os.pathsep}{ROOT}")
        with start_in_process(tmp_path, env=env) as owner:
            assert owner.stdout is not None
            fields = owner.stdout.readline().split()
            assert len(fields) == 3, fields + owner.stdout.readlines()
            assert str(home) not in psutil.Process(int(fields[0])).exe()


@needs_root
def test_ordinary_user_runs_servers_as_itself() -> None:
    python = _python_for_all_users()
    if python is None:
        pytest.skip("no Python of this version that other users can run")
    packages = str(Path(psycopg.__file__).parents[1])
    with tempfile.TemporaryDirectory(dir="/tmp") as home:
        os.chown(home, NOBODY, NOBODY)
        env = clean_env(PYTHONPATH=f"{ROOT}{os.pathsep}{packages}", HOME=home, PYTHONDONTWRITEBYTECODE="1")
        user: dict[str, Any] = {"user": NOBODY, "group": NOBODY, "extra_groups": []}
        with start_in_process(Path(home), python, env=env, cwd="/", **user) as owner:
            assert owner.stdout is not None
            fields = owner.stdout.readline().split()
            assert len(fields) == 3, fields + owner.stdout.readlines()
            assert psutil.Process(int(fields[0])).uids().effective == NOBODY
            assert psutil.Process(int(fields[1])).uids().effective == NOBODY


def _python_for_all_users() -> str | None:
    """Return a Python that user `nobody` can run with our packages; ours can be in a private home."""
    name = f"python3.{sys.version_info.minor}"
    code = f"import sys; sys.path.insert(0, {str(Path(psycopg.__file__).parents[1])!r}); import psycopg, psutil, redis"
    for python in (sys.executable, f"/usr/bin/{name}", f"/usr/local/bin/{name}"):
        with contextlib.suppress(OSError):
            command = [python, "-c", code]
            done = subprocess.run(
                command, user=NOBODY, group=NOBODY, extra_groups=[], cwd="/", capture_output=True, check=False
            )
            if done.returncode == 0:
                return python
    return None
