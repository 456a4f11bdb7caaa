"""The whole platform on one machine: its processes, their start order and their environment.

`dreamery up`, `dreamery demo`, the end-to-end tests and the benchmarks start a `Platform`. `processes.py` supervises
the processes, `embedded_servers.py` describes the embedded servers. This module and its imports are all that the
supervisor of `dreamery up` holds in memory, so they import little.
"""

import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Self

from worker.core.concurrency.shutdown import busy_marker
from worker.local import process_commands, profiles
from worker.local.data_dir import TMP_NAME, DataDir, open_data_dir
from worker.local.embedded_servers import EmbeddedPostgres, EmbeddedRedis, embedded_postgres, embedded_redis
from worker.local.on_demand import OnDemandServer, open_port_or_another
from worker.local.platform_settings import PlatformOptions, PlatformSettings, read_platform_settings
from worker.local.processes import Child, ChildSpec, ProcessSupervisor, StartError, free_port, port_is_free
from worker.local.running_instance import RunningPlatform, remove_running_platform, write_running_platform
from worker.local.worker_liveness import WorkerLivenessMonitor, responds_ok

__all__ = ["Child", "Platform", "PlatformOptions", "StartError"]

_START_TIMEOUT = 120.0
_SERVERS_STOP_TIMEOUT = 15.0
_STOP_ORDER = ("api", "scheduler", "worker", "talker", "flower", "sandbox")
# The sandbox shares no code with us: its names for the token of its control routes.
_SANDBOX_HEADER, _SANDBOX_VARIABLE = "X-Sandbox-Control", "SANDBOX_CONTROL_TOKEN"
# Threads that allocate at the same time get arenas of their own, and freed memory stays in them.
_MALLOC = {"MALLOC_ARENA_MAX": "2", "MALLOC_TRIM_THRESHOLD_": "4194304", "MALLOC_MMAP_THRESHOLD_": "1048576"}


class Platform:
    """One running platform. `start`, then `wait` or work, then `stop`; or use it as a context manager."""

    def __init__(self, options: PlatformOptions, settings: PlatformSettings | None = None) -> None:
        self._settings = settings or read_platform_settings(throwaway=options.throwaway, profile=options.profile)
        self.options = options
        self.children: dict[str, Child] = {}
        self.host = options.host or self._settings.api_host
        self.port = options.port or (free_port() if options.throwaway else self._settings.api_port)
        self._stop_requested = threading.Event()
        self._kill_now = threading.Event()
        self._supervisor: ProcessSupervisor | None = None
        self._liveness_monitor: WorkerLivenessMonitor | None = None
        self._data: DataDir | None = None
        self._postgres: EmbeddedPostgres | None = None
        self._redis: EmbeddedRedis | None = None
        self._sandbox_port = free_port()
        self._flower_port = 0
        self._on_demand: dict[str, OnDemandServer] = {}
        self._admin_key = ""
        self._sandbox_token = ""
        self._master_key = ""

    # ---- addresses, keys and folders

    @property
    def data_dir(self) -> Path:
        """Absolute path of the data folder."""
        return Path(self.options.data_dir or self._settings.data_dir).expanduser().resolve()

    @property
    def profile(self) -> str:
        """Name of the profile: `small` or `standard`."""
        return self._settings.profile

    @property
    def available_memory(self) -> int:
        """Memory in bytes that was available when the profile was chosen."""
        return self._settings.available_memory

    @property
    def url(self) -> str:
        """URL of the API on this machine."""
        host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(self.host, self.host)
        return f"http://{host}:{self.port}"

    @property
    def admin_key(self) -> str:
        """API key of the first administrator."""
        return self._admin_key

    @property
    def master_key(self) -> str:
        """Master keys that encrypt account secrets, comma-separated, newest first."""
        return self._master_key

    @property
    def database_url(self) -> str:
        """URL of the embedded or the configured database."""
        return self._postgres.url() if self._postgres else self._settings.database_url

    @property
    def redis_url(self) -> str:
        """URL of the embedded or the configured Redis."""
        return self._redis.url if self._redis else self._settings.redis_url

    @property
    def sandbox_url(self) -> str:
        """URL of the sandbox, the simulated upstream."""
        return self._settings.sandbox_url or f"http://127.0.0.1:{self._sandbox_port}"

    @property
    def sandbox_control_headers(self) -> dict[str, str]:
        """Headers that the control routes of the sandbox require. No other process and no caller knows them."""
        return {_SANDBOX_HEADER: self._sandbox_token}

    @property
    def flower_url(self) -> str:
        """URL of Flower, or an empty string when it never starts."""
        return f"http://127.0.0.1:{self._flower_port}" if self._flower_port else ""

    @property
    def logs_dir(self) -> Path:
        """Folder with the logs of the child processes."""
        return self.data_dir / "logs"

    # ---- lifecycle

    def __enter__(self) -> Self:
        if not self.children:
            self.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self.stop()

    def start(self) -> None:
        """Start everything; returns when the API is ready. On failure all processes are stopped."""
        try:
            self._start()
        except BaseException:
            self.stop()
            raise

    def check(self) -> None:
        """Raise StartError when a child is in a crash loop, so that callers do not wait for it forever."""
        for child in list(self.children.values()):
            if child.is_crash_looping:
                raise StartError(f"{child.name} keeps exiting.{child.log_excerpt()}")

    def request_stop(self) -> None:
        """Make `wait` or a running `start` return. Safe in a signal handler; a second call makes `stop` kill."""
        if self._stop_requested.is_set():
            self._kill_now.set()
        self._stop_requested.set()

    def wait(self) -> None:
        """Block until a stop is requested."""
        self._stop_requested.wait()

    def stop(self) -> None:
        """Stop all children: the API first, the servers last. Safe to call twice."""
        self._stop_requested.set()
        if self._liveness_monitor is not None:
            self._liveness_monitor.stop()
        for server in self._on_demand.values():
            server.close()
        if self._supervisor is not None:
            servers = [self.children[name] for name in ("redis", "postgres") if name in self.children]
            others = [child for child in self.children.values() if child not in servers]
            places = {name: n for n, role in enumerate(_STOP_ORDER) for name in self.children if name.startswith(role)}
            others.sort(key=lambda child: places.get(child.name, 9))
            self._supervisor.stop(
                others,
                timeout=self._settings.shutdown_grace_seconds,
                kill_now=self._kill_now,
                busy=lambda child: busy_marker(self.data_dir, child.pid).exists(),
            )
            self._supervisor.stop(servers, timeout=_SERVERS_STOP_TIMEOUT)
            self._supervisor.close()
            self._supervisor = None
        if self._data is not None:
            remove_running_platform(self._data.path)
            self._data.close()
            self._data = None

    # ---- start

    def _start(self) -> None:
        self._data = open_data_dir(self.data_dir, own_tmp=self.options.own_tmp)
        self._read_keys(self._data)
        self._check_ports()
        self._supervisor = ProcessSupervisor(self._report_exit)
        self._start_servers(self._supervisor, self._data)
        self._start_helpers()
        self._migrate()
        api = self._run(self._python("api", *process_commands.api(self.host, self.port, patience_seconds=5)))
        for spec in self._worker_specs():
            self._run(spec, restart=True)
        host = "127.0.0.1" if self.host == "0.0.0.0" else self.host
        self._wait_until_ready(api, lambda: responds_ok(host, self.port, "/healthz"))
        if "sandbox" in self.children:
            self._wait_until_ready(
                self.children["sandbox"], lambda: responds_ok("127.0.0.1", self._sandbox_port, "/_health")
            )
        self._wait_until_ready(api, lambda: self._is_ready(host))
        self._start_liveness_monitor()
        addresses = RunningPlatform(url=self.url, database_url=self.database_url, redis_url=self.redis_url)
        write_running_platform(self._data.path, addresses)

    def _worker_specs(self) -> list[ChildSpec]:
        """Return the workers. By default each runs everything, and the first one is also the scheduler."""
        threads, talks = self._settings.worker_concurrency, self._settings.conversation_concurrency
        names = [f"worker-{number}" for number in range(1, self.options.workers + 1)]
        if self.options.separate_roles:
            return [
                *(self._python(n, *process_commands.worker(n, process_commands.QUEUES, threads)) for n in names),
                self._python("talker", *process_commands.worker("talker", process_commands.TALK_QUEUES, talks)),
                self._python("scheduler", *process_commands.scheduler()),
            ]
        specs = []
        for name in names:
            spec = self._python(name, *process_commands.worker(name, process_commands.ALL_QUEUES, threads + talks))
            env = {"DREAMERY_WORKER_WITH_SCHEDULER": "true"} if name == names[0] else {}
            specs.append(replace(spec, env={**spec.env, **env}))
        return specs

    def _is_ready(self, host: str) -> bool:
        self.check()  # do not wait for a worker that cannot start
        return responds_ok(host, self.port, "/readyz")

    def _start_liveness_monitor(self) -> None:
        roles = ("scheduler", "talker", "worker-")
        workers = [child for name, child in self.children.items() if name.startswith(roles)]
        name = "DREAMERY_WORKER_HEARTBEAT_TIMEOUT_SECONDS"
        seconds = float(self._environment().get(name) or self._settings.worker_heartbeat_timeout_seconds)
        self._liveness_monitor = WorkerLivenessMonitor(
            workers, status_dir=self._status_dir, seconds=seconds, on_notice=self.options.on_notice
        )
        self._liveness_monitor.start()

    @property
    def _status_dir(self) -> Path:
        return self.data_dir / "workers"

    def _read_keys(self, data: DataDir) -> None:
        settings = self._settings
        if settings.problems:
            # Production keys are not generated: they must not be stored with the data.
            raise StartError("\n".join(settings.problems))
        self._master_key = settings.master_key or data.key("master")
        self._admin_key = settings.admin_key or data.key("admin", prefix="sk-dreamery-")
        self._sandbox_token = data.key("sandbox")
        # Jobs hold links to its results.
        self._sandbox_port = data.kept_port("sandbox") or self._sandbox_port

    def _check_ports(self) -> None:
        # The port of an API that was just killed can still be in use.
        deadline = time.monotonic() + 2
        while not port_is_free(self.host, self.port):
            if time.monotonic() > deadline:
                raise StartError(
                    f"Port {self.port} on {self.host} is used by another program. Choose another one: dreamery up "
                    f"--port {self.port + 1} (or set DREAMERY_API_PORT)."
                )
            self._stop_requested.wait(0.1)

    def _start_helpers(self) -> None:
        """Open the ports of sandbox and Flower, and start the servers now or at their first connection."""
        if (self.options.flower or self._settings.flower_start) != "never":
            # A throwaway platform does not take the usual port from a real one.
            port = free_port() if self.options.throwaway else process_commands.FLOWER_PORT
            self._on_demand["flower"] = open_port_or_another("127.0.0.1", port)
            self._flower_port = self._on_demand["flower"].port
        if not self._settings.sandbox_url:
            server = self._on_demand["sandbox"] = open_port_or_another("127.0.0.1", self._sandbox_port)
            self._sandbox_port = server.port
            if self._data is not None:
                self._data.keep_port("sandbox", server.port)
            command = process_commands.sandbox(server.port, server.fd, self.options, self.data_dir)
            self._start_helper("sandbox", command, self.options.sandbox or self._settings.sandbox_start)
        if self._flower_port:
            fd = self._on_demand["flower"].fd
            command = process_commands.flower("127.0.0.1", self._flower_port, fd=fd)
            self._start_helper("flower", command, self.options.flower or self._settings.flower_start)

    def _start_helper(self, name: str, command: tuple[str, ...], when: str) -> None:
        server = self._on_demand[name]

        def start() -> None:
            spec = self._python(name, *command)
            env = {**spec.env, _SANDBOX_VARIABLE: self._sandbox_token} if name == "sandbox" else spec.env
            self._run(replace(spec, env=env, pass_fds=(server.fd,)), restart=True)

        if when == "at_start":
            start()
        else:
            server.start_at_first_connection(start)

    def _start_servers(self, supervisor: ProcessSupervisor, data: DataDir) -> None:
        throwaway = self.options.throwaway
        if not self._settings.redis_url:
            self._redis = embedded_redis(data.path / "redis", port=free_port(), throwaway=throwaway)
            self._run(self._redis.server(self._log("redis")))
        if not self._settings.database_url:
            self._postgres = embedded_postgres(
                data.path / "postgres", port=free_port(), password=data.key("postgres"), throwaway=throwaway,
                profile=profiles.PROFILES[self.profile], shared_buffers=self._settings.postgres_shared_buffers_mb,
            )  # fmt: skip
            self._postgres.create(supervisor, self.logs_dir / "postgres.log")
            self._wait_until_ready(self._run(self._postgres.server(self._log("postgres"))), self._postgres.is_ready)
        if self._redis is not None:
            self._wait_until_ready(self.children["redis"], self._redis.is_ready)

    def _migrate(self) -> None:
        create = ("--create-database",) if self._postgres else ()
        child = self._run(self._python("migrate", "worker.local.schema_upgrade", *create))
        while child.exit_code is None:
            self._pause(0.02)
        del self.children["migrate"]
        if child.exit_code != 0:
            raise StartError(f"The database schema could not be upgraded:\n{child.log_tail(30)}")

    def _run(self, spec: ChildSpec, *, restart: bool = False) -> Child:
        if self._supervisor is None:
            raise StartError("the platform is not started")
        child = self._supervisor.start(spec)
        self.children[spec.name] = child
        if restart and self.options.restart:
            self._supervisor.restart_on_exit(child)
        return child

    def _wait_until_ready(self, child: Child, is_ready: Callable[[], bool]) -> None:
        """Wait until a child is ready; from then on it is restarted when it exits."""
        deadline = time.monotonic() + _START_TIMEOUT
        while not is_ready():
            if child.exit_code is not None:
                raise StartError(
                    f"{child.name} exited during its start (exit code {child.exit_code}).{child.log_excerpt()}"
                )
            if time.monotonic() > deadline:
                raise StartError(f"{child.name} was not ready after {_START_TIMEOUT:.0f} s.{child.log_excerpt()}")
            self._pause(0.03)
        if self.options.restart and self._supervisor is not None:
            self._supervisor.restart_on_exit(child)

    def _pause(self, seconds: float) -> None:
        if self._stop_requested.wait(seconds):
            raise StartError("Stopped before the start was complete.")

    def _report_exit(self, child: Child, exit_code: int, delay: float) -> None:
        log_hint = f" See {child.spec.log_path}" if child.spec.log_path else ""
        reason = signal.Signals(-exit_code).name if exit_code < 0 else f"exit code {exit_code}"
        self.options.on_notice(f"{child.name} ended ({reason}), restarting it in {delay:.1f} s.{log_hint}")

    # ---- commands and environment

    def _log(self, name: str) -> Path | None:
        return None if self.options.verbose else self.logs_dir / f"{name}.log"

    def _python(self, name: str, *command: str) -> ChildSpec:
        # -P and our own working directory: a folder named `api` in the user's directory must not be imported. The
        # output of the migration matters only when it fails, so it always goes to a file.
        log_path = self.logs_dir / "migrate.log" if name == "migrate" else self._log(name)
        return ChildSpec(
            name=name,
            command=(sys.executable, "-P", "-m", *command),
            env=self._environment(),
            cwd=self.data_dir,
            log_path=log_path,
        )

    def _environment(self) -> dict[str, str]:
        """Return the complete environment of the children, so that they need no `.env` and no other `DREAMERY_*`."""
        env = {name: value for name, value in os.environ.items() if not name.startswith("DREAMERY_")}  # noqa: TID251
        env["PYTHONPATH"] = os.pathsep.join([str(process_commands.ROOT), *filter(None, [env.get("PYTHONPATH")])])
        env["PYTHONUNBUFFERED"] = "1"
        env |= {name: value for name, value in _MALLOC.items() if name not in env}
        env |= {"TMPDIR": str(self.data_dir / TMP_NAME)} if self.options.own_tmp else {}
        values = self._settings.values
        values = values if self._settings.env == "production" else {"session_tokens": "true", **values}
        values |= {
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
            "worker_status_dir": str(self._status_dir),
        }
        env |= {f"DREAMERY_{name.upper()}": value for name, value in values.items()}
        # In the environment, as `ps` shows command lines to all users.
        env["FLOWER_BASIC_AUTH"] = f"admin:{self._settings.flower_password or self._admin_key}"
        return env | dict(self.options.extra_env)
