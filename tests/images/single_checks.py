"""What the single container promises, checked from the outside."""

import json
import re
import signal
import subprocess
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.images.building import Image
from tests.images.containers import Container, wait_until
from tests.images.previous_version import unpack_previous_code
from tests.support.platform import free_port

DEMO = "demo:sandbox"


def call(port: int, path: str, body: dict[str, Any] | None = None, key: str = DEMO) -> Any:
    """Return the JSON of a call to the platform on this port. The error of a refused call has the answer as its note."""
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", data=json.dumps(body).encode() if body else None)
    request.add_header("Authorization", f"Bearer {key}")
    request.add_header("Content-Type", "application/json")
    try:
        with urllib.request.urlopen(request, timeout=300) as answer:
            return json.load(answer)
    except urllib.error.HTTPError as error:
        error.add_note(error.read().decode(errors="replace"))
        raise


def make_picture(port: int, prompt: str, key: str = DEMO) -> bytes:
    """Make a picture with the sandbox and return the bytes of our copy."""
    answer = call(port, "/v1/images/generations", {"prompt": prompt, "size": "2048x2048", "n": 1}, key)
    with urllib.request.urlopen(answer["data"][0]["url"], timeout=60) as picture:
        content: bytes = picture.read()
    assert content.startswith((b"\x89PNG", b"\xff\xd8", b"RIFF")), content[:20]
    return content


def is_up(container: Container, port: int) -> Callable[[], bool]:
    """Return whether the platform is ready; ends the wait when the container has ended."""

    def check() -> bool:
        if not container.init:
            raise AssertionError(f"the container has ended:\n{container.output()[-2000:]}")
        try:
            return call(port, "/readyz")["status"] in {"ok", "ready"}
        except (OSError, urllib.error.HTTPError):
            return False

    return check


class SingleChecks:
    """The checks, in their order: each builds on the volume that the one before has left."""

    def __init__(self, image: Image, folder: Path) -> None:
        self.image, self.folder, self.port = image, folder, free_port()
        self.volume = folder / "data"
        self.volume.mkdir()
        self._give_to_user(self.volume)
        self.container: Container | None = None
        self.memory: dict[str, int] = {}
        self._starts = 0

    def _give_to_user(self, path: Path) -> None:
        user, _, group = self.image.config["User"].partition(":")
        subprocess.run(["chown", "-R", f"{user}:{group}", str(path)], check=True)
        path.chmod(0o700)

    def start(self, volume: Path | None = None, **options: Any) -> Container:
        """Start the container with the image's own command; PORT as hosts such as Render set it."""
        self._starts += 1
        log = self.folder / f"single-{self._starts}.log"
        env = {"PORT": str(self.port), **options.pop("env", {})}
        container = Container(self.image, log=log, volume=volume or self.volume, env=env, **options)
        self.container = container
        wait_until("the start", lambda: container.init or container.log.stat().st_size)
        wait_until("the platform", is_up(container, self.port))
        wait_until("the addresses", lambda: "Dreamery is up" in container.output())
        return container

    def first_start(self) -> str:
        """It starts on a read-only root without a folder for temporary files, and prints its key."""
        container = self.start()
        assert self.key() in container.output()
        users = {container.status(pid, "Uid").split()[0] for pid in container.processes() if pid}
        assert users == {self.image.config["User"].partition(":")[0]}, users
        assert container.execute("touch", "/app/x").returncode != 0
        assert container.execute("touch", "/tmp/x").returncode != 0
        assert {container.status(pid, "CapBnd") for pid in container.processes()} == {"0" * 16}
        self.memory["idle"] = container.memory()
        return f"all {len(container.processes())} processes run as user 10001 without capabilities"

    def key(self) -> str:
        """The generated admin key."""
        return (self.volume / "keys" / "admin.key").read_text().strip()

    def health_and_picture(self) -> str:
        """The image's health check passes, and the sandbox makes a picture."""
        assert self.container
        assert self.container.is_healthy()
        size = len(make_picture(self.port, "a paper boat"))
        listed = self.container.execute("dreamery", "users", "list", "--json")
        assert listed.returncode == 0, listed.stderr
        return f"a picture of {size:,} bytes; `docker exec ... dreamery users list` works"

    def busy_memory(self) -> str:
        """Twenty pictures at a time."""
        container = self.container
        assert container
        body = {"prompt": "many boats", "size": "2048x2048", "n": 1, "async": True}
        jobs = [call(self.port, "/v1/images/generations", {**body, "seed": seed}) for seed in range(1, 21)]
        most = 0

        def all_done() -> bool:
            nonlocal most
            most = max(most, container.memory())
            states = [call(self.port, f"/v1/jobs/{job['id']}")["status"] for job in jobs]
            assert "failed" not in states
            return set(states) == {"completed"}

        wait_until("twenty pictures", all_done, seconds=400)
        self.memory["busy"] = most
        return ", ".join(f"{name} {value / 1e6:.0f} MB" for name, value in self.memory.items()) + " (PSS)"

    def zombies(self) -> str:
        """Processes that lost their parent are reaped by process 1."""
        container = self.container
        assert container
        container.execute("sh", "-c", "(sleep 0.2 & ) ; exit 0")
        children = [pid for pid in container.processes() if "-n\0worker-1@" in Path(f"/proc/{pid}/cmdline").read_text()]
        subprocess.run(["kill", "-9", str(children[0])], check=True)
        wait_until("the restart of the worker", lambda: "worker-1 ended (SIGKILL)" in container.output())
        wait_until("the end of zombies", lambda: all(
            container.status(pid, "State")[:1] != "Z" for pid in container.processes()))  # fmt: skip
        wait_until("the platform", is_up(container, self.port))
        return "a killed worker is restarted, and no zombie is left"

    def stop_and_restart(self) -> str:
        """SIGTERM ends everything with code 0; a killed container starts again; the key is not printed twice."""
        assert self.container
        assert self.container.stop() == 0, self.container.output()[-1500:]
        assert self.container.output().rstrip().endswith("Stopped.")
        second = self.start()
        assert self.key() not in second.output()
        assert len(call(self.port, "/v1/jobs")["data"]) == 20, "the first page of 21 jobs"
        second.stop(number=signal.SIGKILL)
        third = self.start()
        make_picture(self.port, "after a kill")
        assert third.stop() == 0
        return "stopped, started, killed, started, stopped; 21 jobs are still there"

    def upgrade(self) -> str:
        """The code before the newest migration makes a job; this image upgrades its schema and shows the job."""
        code, revision = unpack_previous_code(self.image, self.folder)
        volume = self.folder / "older"
        volume.mkdir()
        self._give_to_user(volume)
        command = ["dreamery", "up", "--port", str(self.port), "--no-flower"]
        # It knows no folder for temporary files of its own.
        older = self.start(volume, code=code, command=command, env={"TMPDIR": "/data"})
        make_picture(self.port, "made by the previous version")
        before = call(self.port, "/v1/jobs")["data"]
        assert older.stop() == 0
        newer = self.start(volume)
        assert [job["id"] for job in call(self.port, "/v1/jobs")["data"]] == [job["id"] for job in before]
        make_picture(self.port, "made after the upgrade")
        assert newer.stop() == 0
        return f"from {revision}: its job is still there"

    def other_postgres(self) -> str:
        """A cluster of another major version of Postgres is refused with a sentence."""
        marker = self.volume / "postgres" / "cluster" / "PG_VERSION"
        original = marker.read_text()
        marker.write_text("17\n")
        env = {"PORT": str(self.port)}
        container = Container(self.image, log=self.folder / "refused.log", volume=self.volume, env=env)
        self.container = container
        code = container.wait()
        marker.write_text(original)
        found = re.search(r"Error: (Postgres 17 made the database .*)", container.output())
        assert code == 1, container.output()
        assert found, container.output()
        return found[1][:60] + " ..."

    def close(self) -> None:
        """End the container."""
        if self.container:
            self.container.close()
