"""The platform loads with nothing but the packages of the runtime lock, not only in a developer's environment."""

import json
import re
import subprocess
import sys
from importlib.metadata import packages_distributions
from pathlib import Path

from tests.support.platform import clean_env

ROOT = Path(__file__).resolve().parents[2]

# Everything that the processes import at start, and what libraries import by name later.
LOAD = """
import json, sys

class Absent:
    names = frozenset(json.loads(sys.argv[1]))
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in self.names:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Absent())
import api.app, api.cli.main, api.cli.demo, api.cli.operator.doctor, worker.celery_tasks, worker.sandbox.server, worker.local.schema_upgrade
import celery.bin.celery, celery.worker.worker, celery.beat, celery.concurrency.thread, flower.command
import kombu.transport.redis, psycopg_binary, sqlalchemy.dialects.postgresql.psycopg
import uvicorn.loops.uvloop, uvicorn.protocols.http.httptools_impl
"""


def test_runtime_lock_contains_every_imported_package(tmp_path: Path) -> None:
    locked = set(re.findall(r"^([a-z0-9-]+)==", (ROOT / "requirements.lock").read_text(), re.MULTILINE)) | {"dreamery"}
    absent = [
        module
        for module, wheels in packages_distributions().items()
        if not {re.sub(r"[-_.]+", "-", wheel).lower() for wheel in wheels} & locked
    ]
    assert "pytest" in absent
    env = clean_env(DREAMERY_REDIS_URL="redis://127.0.0.1:1/0", DREAMERY_DATABASE_URL="postgresql://127.0.0.1:1/x")
    done = subprocess.run(
        [sys.executable, "-c", LOAD, json.dumps(absent)],
        cwd=tmp_path,
        env=env,
        capture_output=True,
        text=True,
        check=False,
    )
    remedy = "add it to `dependencies` in pyproject.toml and run `make lock`"
    assert done.returncode == 0, f"{done.stderr}\n{remedy}"
