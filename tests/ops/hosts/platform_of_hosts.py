"""A platform on ten hosts, as docs/deployment.md describes it, each with its own network and every role as a process."""

import contextlib
import secrets
import signal
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import httpx
import psycopg

from tests.ops.hosts.network import Host, Network, running_network
from tests.ops.nginx_server import Nginx, prepare_nginx, site
from tests.support.platform import ROOT, clean_env, eventually, migrate
from tests.support.servers.s3_server import Bucket, create_bucket, s3_command
from worker.local.embedded_servers import DATABASE, embedded_postgres, embedded_redis
from worker.local.processes import Child, ChildSpec, ProcessSupervisor
from worker.sandbox.options import CONTROL_HEADER, CONTROL_TOKEN_VARIABLE

HOSTS = ["balancer", "api-1", "api-2", "worker-1", "worker-2", "worker-3", "database", "redis", "bucket", "upstream"]
APIS = ("api-1", "api-2")
# Roles of the worker hosts. The second scheduler does no harm, and there is one while the first host is away.
ROLES = {
    "worker-1": ("worker", "talker", "scheduler"),
    "worker-2": ("worker", "scheduler"),
    "worker-3": ("worker",),
}
LEASE_SECONDS = 15
_API_PORT, _S3_PORT, _SANDBOX_PORT, _HTTPS_PORT = 8000, 9000, 9100, 443
_SETTINGS = {
    "SESSION_TOKENS": "true",
    "REQUESTS_PER_MINUTE": "0",
    "ACCOUNT_MAX_IMAGES": "3",
    "ACCOUNT_SUBMITS_PER_MINUTE": "600",
    "MAX_ATTEMPTS": "10",
    # A quarter of the defaults, in the same order: a call ends, then its worker, then the lease.
    "CALL_TIMEOUT_SECONDS": "5",
    "WATCHDOG_SECONDS": "12",
    "LEASE_SECONDS": str(LEASE_SECONDS),
    "UNCLEAR_GRACE_SECONDS": "6",
}


@dataclass
class PlatformOfHosts:
    """The running platform. Its URL is that of the load balancer."""

    network: Network
    supervisor: ProcessSupervisor
    data_dir: Path
    children: dict[str, Child] = field(default_factory=dict)
    database_url: str = ""
    redis_url: str = ""
    sandbox_url: str = ""
    sandbox_control_headers: dict[str, str] = field(default_factory=dict)
    bucket: Bucket = field(default_factory=lambda: Bucket("", "", ""))
    nginx: Nginx | None = None
    keys: dict[str, str] = field(default_factory=dict)

    def host(self, name: str) -> Host:
        """The host of this name."""
        return self.network.hosts[name]

    @property
    def balancer(self) -> Nginx:
        """nginx, in front of both APIs."""
        assert self.nginx is not None
        return self.nginx

    def api_url(self, name: str) -> str:
        """URL of one API, past the load balancer."""
        return f"http://{self.host(name).address}:{_API_PORT}"

    def start(self, nginx: Path) -> None:
        """Start servers and roles; returns when both APIs are ready."""
        self._start_database()
        self._start_redis()
        self._start_bucket()
        self._start_sandbox()
        migrate(self.database_url)
        self.keys = {"MASTER_KEY": secrets.token_urlsafe(32), "ADMIN_KEY": f"sk-dreamery-{secrets.token_urlsafe(32)}"}
        for name in APIS:
            self._start_role(name, "api")
        for name, roles in ROLES.items():
            for role in roles:
                self._start_role(name, role)
        self._start_nginx(nginx)
        self.wait_until_well()

    def wait_until_well(self) -> None:
        """Wait until every API finds database, Redis, storage, a tick and a worker."""
        urls = [self.api_url(name) for name in APIS]
        eventually(lambda: all(map(_is_ready, urls)), within=90, what="both APIs are well")

    def _start_database(self) -> None:
        host = self.host("database")
        server = embedded_postgres(self.data_dir / "postgres", port=5432, password="hosts", throwaway=True)
        server.create(self.supervisor, self.data_dir / "postgres.log")
        with (server.cluster / "pg_hba.conf").open("a") as rules:
            rules.write(f"host all all {self.network.networks} scram-sha-256\n")
        self._run("postgres", host, _listening(server.server(self.data_dir / "postgres.log"), host))
        url = server.url("postgres").replace("127.0.0.1", host.address)
        eventually(lambda: _connects(url), what="Postgres on its host")
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {DATABASE}")
        self.database_url = server.url().replace("127.0.0.1", host.address)

    def _start_redis(self) -> None:
        host = self.host("redis")
        server = embedded_redis(self.data_dir / "redis", port=6379, throwaway=True)
        spec = server.server(self.data_dir / "redis.log")
        configuration = server.folder / "valkey.conf"
        configuration.write_text(configuration.read_text().replace("127.0.0.1", host.address))
        self._run("redis", host, spec)
        self.redis_url = server.url.replace("127.0.0.1", host.address)

    def _start_bucket(self) -> None:
        host = self.host("bucket")
        command, env = s3_command(host.address, _S3_PORT)
        self._run("s3", host, ChildSpec("s3", command, env, ROOT, self.data_dir / "s3.log"))
        self.bucket = create_bucket(f"http://{host.address}:{_S3_PORT}")

    def _start_sandbox(self) -> None:
        host, token = self.host("upstream"), secrets.token_urlsafe(32)
        words = ("worker.sandbox", "--host", host.address, "--port", str(_SANDBOX_PORT), "--seconds", "1.5")
        self._run("sandbox", host, self._python("sandbox", words, {CONTROL_TOKEN_VARIABLE: token}))
        self.sandbox_url = f"http://{host.address}:{_SANDBOX_PORT}"
        self.sandbox_control_headers = {CONTROL_HEADER: token}

    def _start_role(self, name: str, role: str) -> None:
        host = self.host(name)
        settings = _SETTINGS | self.keys | self.bucket.settings() | {
            "DATABASE_URL": self.database_url,
            "REDIS_URL": self.redis_url,
            "SANDBOX_URL": self.sandbox_url,
            "FETCH_ALLOW": self.sandbox_url.removeprefix("http://"),
            "API_HOST": host.address,
            "API_PORT": str(_API_PORT),
            "TRUSTED_PROXIES": self.host("balancer").address,
            "DATA_DIR": str(self.data_dir / name),
        }  # fmt: skip
        env = {f"DREAMERY_{key}": value for key, value in settings.items()}
        full = name if role == "api" else f"{role} of {name}"
        self._run(full, host, self._python(full, ("api.cli.main", "run", role), env))

    def _start_nginx(self, program: Path) -> None:
        host, folder = self.host("balancer"), self.data_dir / "nginx"
        folder.mkdir()
        settings = ROOT / "deploy/proxy/sysctl.conf"
        self._run_once(host, "sysctl", "--load", str(settings))
        addresses = [f"{self.host(name).address}:{_API_PORT}" for name in APIS]
        self.nginx, command = prepare_nginx(program, folder, site(apis=addresses), _HTTPS_PORT, host=host.address)
        spec = ChildSpec("nginx", tuple(command), clean_env(), ROOT, self.data_dir / "nginx.log")
        # Its first process ends the others.
        self._run("nginx", host, replace(spec, death_signal=signal.SIGTERM))
        eventually(self.nginx.answers, what="nginx answers")

    def _python(self, name: str, words: tuple[str, ...], env: dict[str, str]) -> ChildSpec:
        log = self.data_dir / f"{name.replace(' ', '-')}.log"
        return ChildSpec(name, (sys.executable, "-P", "-m", *words), clean_env(**env), self.data_dir, log)

    def _run(self, name: str, host: Host, spec: ChildSpec) -> None:
        self.children[name] = self.supervisor.start(host.spec(replace(spec, name=name)))
        # As systemd would.
        self.supervisor.restart_on_exit(self.children[name])

    def _run_once(self, host: Host, *words: str) -> None:
        child = self.supervisor.start(
            host.spec(ChildSpec(words[0], words, clean_env(), ROOT, self.data_dir / "once.log"))
        )
        child.wait()
        assert child.exit_code == 0, child.log_tail()


def _listening(spec: ChildSpec, host: Host) -> ChildSpec:
    return replace(spec, command=tuple(host.address if word == "127.0.0.1" else word for word in spec.command))


def _connects(url: str) -> bool:
    try:
        psycopg.connect(url, connect_timeout=3).close()
    except psycopg.Error:
        return False
    return True


def _is_ready(url: str) -> bool:
    try:
        return httpx.get(f"{url}/readyz", trust_env=False, timeout=10).status_code == 200
    except httpx.TransportError:
        return False


@contextlib.contextmanager
def running_platform_of_hosts(ip: Path, nginx: Path, folder: Path) -> Iterator[PlatformOfHosts]:
    """Run the platform until the block ends."""
    supervisor = ProcessSupervisor()
    try:
        with running_network(ip, supervisor, HOSTS) as network:
            platform = PlatformOfHosts(network, supervisor, folder)
            try:
                platform.start(nginx)
                yield platform
            finally:
                # Nothing of it is kept: no role has to finish its work. nginx and Postgres end their processes themselves.
                for name, child in platform.children.items():
                    child.restarts_on_exit = False
                    if name not in {"nginx", "postgres"}:
                        child.kill_group()
                supervisor.stop(list(platform.children.values()), timeout=10)
    finally:
        supervisor.close()
