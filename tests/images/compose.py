"""The services of docker-compose.yml as containers of one machine: their commands, settings, secrets, mounts, health checks."""

import contextlib
import os
import re
import shutil
import signal
import subprocess
from pathlib import Path
from typing import Any

import yaml

from tests.images.building import ROOT, Image
from tests.images.containers import Container, wait_until
from tests.images.single_checks import is_up
from tests.support.platform import free_port, running_postgres, running_redis

ROLES = ("sandbox", "api", "worker", "talker", "scheduler", "flower")
# The sandbox, which is no part of the platform, may end by the signal itself.
PLATFORM = ("api", "scheduler", "flower", "talker", "worker")


class Services:
    """The services, with Postgres and Redis beside them. `settings` is what .env says.

    As in Docker, each has a host name of its own: health checks of workers look for those of their host.
    """

    def __init__(self, image: Image, folder: Path) -> None:
        self.image, self.folder = image, folder
        self.port, self._flower, sandbox = free_port(), free_port(), free_port()
        # Ports in the file and those of this machine, because all containers share its network.
        self._ports = {"9100": str(sandbox), "5555": str(self._flower)}
        self.sandbox = f"127.0.0.1:{sandbox}"
        self.settings: dict[str, str] = {}
        self.running: dict[str, Container] = {}
        self.files = folder / "files"
        self.files.mkdir()
        os.chown(self.files, 10001, 10001)
        self._stack = contextlib.ExitStack()
        postgres, _ = self._stack.enter_context(running_postgres(folder))
        redis, _ = self._stack.enter_context(running_redis(folder))
        postgres.ensure_database()
        self._secrets = self._make_secrets({"dreamery_database_url": postgres.url(), "dreamery_redis_url": redis.url})
        self._services: dict[str, Any] = {}
        self._code: Path | None = None
        self.use_code(None)

    def _make_secrets(self, addresses: dict[str, str]) -> Path:
        """Run deploy/make-secrets.sh in a folder of its own; the addresses are those of this machine."""
        script = self.folder / "deploy" / "make-secrets.sh"
        script.parent.mkdir()
        shutil.copy(ROOT / "deploy" / "make-secrets.sh", script)
        subprocess.run(["sh", str(script)], check=True, capture_output=True)
        secrets = self.folder / "secrets"
        for name, value in addresses.items():
            (secrets / name).unlink()
            (secrets / name).write_text(value)
        return secrets

    def use_code(self, code: Path | None) -> None:
        """Later starts use this code and its docker-compose.yml; None = the image's."""
        content: dict[str, Any] = yaml.safe_load(((code or ROOT) / "docker-compose.yml").read_text())
        self._services, self._code = content["services"], code

    def start(self, *roles: str) -> None:
        """Start services."""
        for role in roles:
            service = self._services[role]
            command = [self._ports.get(word, word) for word in service["command"]]
            command += ["--port", str(self._flower)] if role == "flower" else []
            mounts = {"/run/secrets": self._secrets_of(role)}
            mounts |= {"/tmp": self._new_tmp(role)} if "/tmp" in service["volumes"] else {}
            volume = self.files if "files:/data" in service["volumes"] else None
            log, env = self.folder / f"{role}.log", self._environment(service)
            self.running[role] = Container(
                self.image, log=log, volume=volume, env=env, command=command, code=self._code, mounts=mounts, host=role
            )  # fmt: skip

    def start_all(self) -> None:
        """Start every service and wait until the API is ready and each health check passes."""
        self.start(*ROLES)
        self.wait_until_ready()

    def wait_until_ready(self) -> None:
        """Wait until the API is ready and each health check passes."""
        wait_until("the platform", is_up(self.running["api"], self.port))
        for role in self.running:
            wait_until(f"a passing health check of {role}", lambda role=role: self.is_healthy(role))  # type: ignore[misc]

    def _secrets_of(self, role: str) -> Path:
        """A folder with the secrets that the service gets, and no others."""
        folder = self.folder / "secrets-of" / role
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        for name in self._services[role]["secrets"]:
            shutil.copy(self._secrets / name, folder / name)
            (folder / name).chmod(0o444)
        return folder

    def _new_tmp(self, role: str) -> Path:
        """A new volume without a name, as each new container gets for /tmp."""
        folder = self.folder / "tmp" / role
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        folder.chmod(0o1777)
        return folder

    def _environment(self, service: dict[str, Any]) -> dict[str, str]:
        env = dict(self.settings) if service["env_file"] else {}
        for name, value in service["environment"].items():
            env[name] = re.sub(r"\$\{(\w+):-([^}]*)\}", lambda found: self.settings.get(found[1]) or found[2], value)
        return env | ({"DREAMERY_API_PORT": str(self.port)} if "DREAMERY_API_PORT" in env else {})

    def is_healthy(self, role: str) -> bool:
        """Run the service's health check inside its container."""
        container = self.running[role]
        assert not container.has_ended, f"{role} has ended:\n{container.output()[-2000:]}"
        test = self._services[role]["healthcheck"]["test"][1:]
        for usual, ours in self._ports.items():
            test = [word.replace(f"127.0.0.1:{usual}", f"127.0.0.1:{ours}") for word in test]
        try:
            return container.execute(*test).returncode == 0
        except subprocess.TimeoutExpired:
            return False

    def migrate(self) -> str:
        """Run the service `migrate`, which ends with 0, and return its last line."""
        self.start("migrate")
        container = self.running.pop("migrate")
        code = container.wait()
        assert code == 0, container.output()[-2000:]
        return container.output().strip().splitlines()[-1]

    def stop(self, *roles: str) -> None:
        """Send SIGTERM; each of these services ends with 0, before Docker would kill it."""
        for role in roles:
            seconds = float(self._services[role].get("stop_grace_period", "10s").removesuffix("s"))
            code = self.running[role].stop(seconds)
            # The API of earlier versions ended by the signal itself, after its shutdown.
            expected = {0, 128 + signal.SIGTERM} if self.running[role].is_older else {0}
            assert code in expected, f"{role} ended with {code}:\n{self.running[role].output()[-2000:]}"
            del self.running[role]

    def kill(self, role: str) -> None:
        """End a service with SIGKILL."""
        self.running.pop(role).stop(number=signal.SIGKILL)

    def close(self) -> None:
        """End everything."""
        for container in self.running.values():
            container.close()
        self._stack.close()
