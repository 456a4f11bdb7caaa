"""The whole platform on one machine: what runs, in which order, with which environment.

`Platform` is what `dreamery up`, `dreamery demo`, the end-to-end tests and the bench start. How processes are kept is
in `processes.py`, how the embedded servers run in `embedded.py`.
"""

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from pydantic import SecretStr

from worker.core.security import production_checks
from worker.core.settings import Settings, get_settings
from worker.local import process_commands
from worker.local.data_dir import DataDir, open_data_dir
from worker.local.embedded_servers import EmbeddedPostgres, EmbeddedRedis, embedded_postgres, embedded_redis
from worker.local.processes import Child, ChildSpec, Keeper, StartError, free_port, port_is_free
from worker.local.running_instance import RunningPlatform, announce, withdraw
from worker.local.worker_liveness import Ears, answers

__all__ = ["Child", "Platform", "PlatformOptions", "StartError"]

_START_PATIENCE = 120.0
_SERVERS_STOP_PATIENCE = 15.0


def _say_nothing(_line: str) -> None:
    pass


@dataclass(frozen=True, kw_only=True)
class PlatformOptions:
    """What to start. None means: the setting's value, or for ports a free one."""

    data_dir: Path | None = None
    host: str | None = None
    port: int | None = None
    workers: int = 1
    flower: bool = True
    sandbox_seconds: float = 3.0
    sandbox_spread: float = 0.0
    sandbox_credits: int | None = None
    sandbox_args: tuple[str, ...] = ()  # further flags of `python -m worker.sandbox`
    throwaway: bool = False  # no settings of the surroundings, free ports, no fsync: for tests and the demo
    extra_env: Mapping[str, str] = field(default_factory=dict)  # wins over everything else, full names
    restart: bool = True
    verbose: bool = False  # children write to our stderr instead of DATA_DIR/logs
    on_notice: Callable[[str], None] = _say_nothing  # one line for the person at the terminal


class Platform:
    """One running platform. `start`, then `wait` or work, then `stop`; or use it as a context manager."""

    def __init__(self, options: PlatformOptions) -> None:
        # A test or a demo must never meet the real database that the surroundings may point to.
        self._settings = Settings.model_construct() if options.throwaway else get_settings()
        self.options = options
        self.children: dict[str, Child] = {}
        self.host = options.host or self._settings.api_host
        self.port = options.port or (free_port() if options.throwaway else self._settings.api_port)
        self._stop_asked = threading.Event()
        self._hurry = threading.Event()
        self._keeper: Keeper | None = None
        self._ears: Ears | None = None
        self._data: DataDir | None = None
        self._postgres: EmbeddedPostgres | None = None
        self._redis: EmbeddedRedis | None = None
        self._sandbox_port = free_port()
        self._flower_port = 0
        self._admin_key = ""
        self._master_key = ""

    # ---- where things are

    @property
    def data_dir(self) -> Path:
        """The data folder, absolute."""
        return (self.options.data_dir or self._settings.data_dir).expanduser().resolve()

    @property
    def url(self) -> str:
        """The API, as reached from this machine."""
        host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(self.host, self.host)
        return f"http://{host}:{self.port}"

    @property
    def admin_key(self) -> str:
        """API key of the first admin."""
        return self._admin_key

    @property
    def master_key(self) -> str:
        """Keys that encrypt account secrets."""
        return self._master_key

    @property
    def database_url(self) -> str:
        """The embedded or the given database."""
        return self._postgres.url() if self._postgres else self._settings.database_url

    @property
    def redis_url(self) -> str:
        """The embedded or the given Redis."""
        return self._redis.url if self._redis else self._settings.redis_url

    @property
    def sandbox_url(self) -> str:
        """The stand-in upstream."""
        return self._settings.sandbox_url or f"http://127.0.0.1:{self._sandbox_port}"

    @property
    def flower_url(self) -> str:
        """Flower, or nothing when it was not asked for."""
        return f"http://127.0.0.1:{self._flower_port}" if self._flower_port else ""

    @property
    def logs_dir(self) -> Path:
        """Where the children write."""
        return self.data_dir / "logs"

    # ---- life

    def __enter__(self) -> Self:
        if not self.children:
            self.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self.stop()

    def start(self) -> None:
        """Start everything; returns when the API answers. On failure nothing is left running."""
        try:
            self._start()
        except BaseException:
            self.stop()
            raise

    def check(self) -> None:
        """Raise when a child dies again and again, for callers that would otherwise wait for its work for ever."""
        for child in list(self.children.values()):
            if child.keeps_failing:
                raise StartError(f"{child.name} ends again and again.{child.last_words()}")

    def ask_to_stop(self) -> None:
        """Make `wait`, or a `start` under way, return soon. Safe in a signal handler; a second call hurries `stop`."""
        if self._stop_asked.is_set():
            self._hurry.set()
        self._stop_asked.set()

    def wait(self) -> None:
        """Block until somebody asks to stop."""
        self._stop_asked.wait()

    def stop(self) -> None:
        """Stop all children, front door first, servers last. Safe to call twice."""
        self._stop_asked.set()
        if self._ears is not None:
            self._ears.stop()
        if self._keeper is not None:
            servers = [self.children[name] for name in ("redis", "postgres") if name in self.children]
            others = [child for child in self.children.values() if child not in servers]
            order = ("api", "scheduler", "worker", "talker", "flower", "sandbox")
            others.sort(key=lambda child: next((n for n, part in enumerate(order) if child.name.startswith(part)), 9))
            self._keeper.stop(others, patience=self._settings.stop_seconds, hurry=self._hurry)
            self._keeper.stop(servers, patience=_SERVERS_STOP_PATIENCE)
            self._keeper.close()
            self._keeper = None
        if self._data is not None:
            withdraw(self._data.path)
            self._data.close()
            self._data = None

    # ---- start, step by step

    def _start(self) -> None:
        self._data = open_data_dir(self.data_dir)
        self._read_keys(self._data)
        self._check_ports()
        self._keeper = Keeper(self._tell_of_death)
        self._start_servers(self._keeper, self._data)
        self._migrate()
        api = self._run(self._python("api", *process_commands.api(self.host, self.port, patience_seconds=5)))
        for number in range(1, self.options.workers + 1):
            name, threads = f"worker-{number}", self._settings.worker_concurrency
            self._run(self._python(name, *process_commands.worker(name, process_commands.QUEUES, threads)), keep=True)
        talker = process_commands.worker("talker", process_commands.TALK_QUEUES, self._settings.talk_concurrency)
        self._run(self._python("talker", *talker), keep=True)
        self._run(self._python("scheduler", *process_commands.scheduler(self.data_dir / "beat-schedule")), keep=True)
        if self.options.flower:
            self._run(self._python("flower", *process_commands.flower("127.0.0.1", self._flower_port)), keep=True)
        host = "127.0.0.1" if self.host == "0.0.0.0" else self.host
        self._await(api, lambda: answers(host, self.port, "/healthz"))
        if "sandbox" in self.children:
            self._await(self.children["sandbox"], lambda: answers("127.0.0.1", self._sandbox_port, "/_health"))
        self._await(api, lambda: self._is_ready(host))
        self._listen()
        known = RunningPlatform(url=self.url, database_url=self.database_url, redis_url=self.redis_url)
        announce(self._data.path, known)

    def _is_ready(self, host: str) -> bool:
        self.check()  # a worker that cannot start would be waited for in vain
        return answers(host, self.port, "/readyz")

    def _listen(self) -> None:
        workers = [child for name, child in self.children.items() if name == "talker" or name.startswith("worker-")]
        seconds = float(self._environment().get("DREAMERY_DEAF_SECONDS") or self._settings.deaf_seconds)
        self._ears = Ears(workers, redis_url=self.redis_url, seconds=seconds, on_notice=self.options.on_notice)
        self._ears.start()

    def _read_keys(self, data: DataDir) -> None:
        given = self._settings
        if given.env == "production" and (found := production_checks.refusals(given)):
            raise StartError("\n".join(found))  # no key is made here: it must be kept apart from the data
        self._master_key = given.master_key.get_secret_value() or data.key("master")
        self._admin_key = given.admin_key.get_secret_value() or data.key("admin", prefix="sk-dreamery-")

    def _check_ports(self) -> None:
        # An API that was killed a moment ago may still be letting go of its port.
        deadline = time.monotonic() + 2
        while not port_is_free(self.host, self.port):
            if time.monotonic() > deadline:
                raise StartError(
                    f"Port {self.port} on {self.host} is taken by another program. Choose another one: dreamery up "
                    f"--port {self.port + 1} (or set DREAMERY_API_PORT)."
                )
            self._stop_asked.wait(0.1)
        if self.options.flower:
            # Its usual port is for a platform that stays: of two that start at once one would not get it.
            usual = not self.options.throwaway and port_is_free("127.0.0.1", process_commands.FLOWER_PORT)
            self._flower_port = process_commands.FLOWER_PORT if usual else free_port()

    def _start_servers(self, keeper: Keeper, data: DataDir) -> None:
        throwaway = self.options.throwaway
        if not self._settings.sandbox_url:
            self._run(self._python("sandbox", *self._sandbox_command()))
        if not self._settings.redis_url:
            self._redis = embedded_redis(data.path / "redis", port=free_port(), throwaway=throwaway)
            self._run(self._redis.server(self._log("redis")))
        if not self._settings.database_url:
            self._postgres = embedded_postgres(
                data.path / "postgres", port=free_port(), password=data.key("postgres"), throwaway=throwaway
            )
            self._postgres.create(keeper, self.logs_dir / "postgres.log")
            self._await(self._run(self._postgres.server(self._log("postgres"))), self._postgres.is_ready)
            self._postgres.ensure_database()
        if self._redis is not None:
            self._await(self.children["redis"], self._redis.is_ready)

    def _migrate(self) -> None:
        child = self._run(self._python("migrate", "worker.local.schema_upgrade"))
        while child.exit_code is None:
            self._pause(0.02)
        del self.children["migrate"]
        if child.exit_code != 0:
            raise StartError(f"The database schema could not be upgraded:\n{child.log_tail(30)}")

    def _run(self, spec: ChildSpec, *, keep: bool = False) -> Child:
        if self._keeper is None:
            raise StartError("the platform is not started")
        child = self._keeper.start(spec)
        self.children[spec.name] = child
        if keep and self.options.restart:
            self._keeper.keep(child)
        return child

    def _await(self, child: Child, is_ready: Callable[[], bool]) -> None:
        """Wait until a child serves; from then on it is replaced when it dies."""
        deadline = time.monotonic() + _START_PATIENCE
        while not is_ready():
            if child.exit_code is not None:
                raise StartError(
                    f"{child.name} ended while starting (exit code {child.exit_code}).{child.last_words()}"
                )
            if time.monotonic() > deadline:
                raise StartError(f"{child.name} was not ready after {_START_PATIENCE:.0f} s.{child.last_words()}")
            self._pause(0.03)
        if self.options.restart and self._keeper is not None:
            self._keeper.keep(child)

    def _pause(self, seconds: float) -> None:
        if self._stop_asked.wait(seconds):
            raise StartError("Stopped before everything was started.")

    def _tell_of_death(self, child: Child, exit_code: int, delay: float) -> None:
        where = f" See {child.spec.log_path}" if child.spec.log_path else ""
        how = signal.Signals(-exit_code).name if exit_code < 0 else f"exit code {exit_code}"
        self.options.on_notice(f"{child.name} ended ({how}), starting it again in {delay:.1f} s.{where}")

    # ---- what runs

    def _log(self, name: str) -> Path | None:
        return None if self.options.verbose else self.logs_dir / f"{name}.log"

    def _python(self, name: str, *command: str) -> ChildSpec:
        # -P and a working directory of our own: a folder named `api` where the user stands must not be imported.
        # The migration's words are wanted only when it fails, so they always go to a file.
        log_path = self.logs_dir / "migrate.log" if name == "migrate" else self._log(name)
        return ChildSpec(
            name=name,
            command=(sys.executable, "-P", "-m", *command),
            env=self._environment(),
            cwd=self.data_dir,
            log_path=log_path,
        )

    def _environment(self) -> dict[str, str]:
        """Every setting the children need, by name: they read no `.env` of their own and no stray `DREAMERY_*`."""
        env = {name: value for name, value in os.environ.items() if not name.startswith("DREAMERY_")}  # noqa: TID251
        env["PYTHONPATH"] = os.pathsep.join([str(process_commands.ROOT), *filter(None, [env.get("PYTHONPATH")])])
        env["PYTHONUNBUFFERED"] = "1"
        given = {name: _as_text(getattr(self._settings, name)) for name in self._settings.model_fields_set}
        if self._settings.env != "production":
            given = {"session_tokens": "true", **given}
        given |= {
            "database_url": self.database_url,
            "redis_url": self.redis_url,
            "data_dir": str(self.data_dir),
            "master_key": self._master_key,
            "admin_key": self._admin_key,
            "sandbox_url": self.sandbox_url,
            "fetch_allow": ",".join(filter(None, [self._settings.fetch_allow, self.sandbox_url.partition("://")[2]])),
            "api_host": self.host,
            "api_port": str(self.port),
            "flower_url": self._settings.flower_url or self.flower_url,
        }
        env |= {f"DREAMERY_{name.upper()}": value for name, value in given.items()}
        # Through the environment, since `ps` shows command lines to everybody.
        env["FLOWER_BASIC_AUTH"] = f"admin:{self._admin_key}"
        return env | dict(self.options.extra_env)

    def _sandbox_command(self) -> tuple[str, ...]:
        options = self.options
        money = () if options.sandbox_credits is None else ("--credits", str(options.sandbox_credits))
        return (
            "worker.sandbox", "--host", "127.0.0.1", "--port", str(self._sandbox_port),
            "--seconds", str(options.sandbox_seconds), "--spread", str(options.sandbox_spread),
            *money, *options.sandbox_args,
        )  # fmt: skip


def _as_text(value: object) -> str:
    if isinstance(value, SecretStr):
        return value.get_secret_value()
    return str(value).lower() if isinstance(value, bool) else str(value)
