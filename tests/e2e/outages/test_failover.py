"""Two Postgres servers in one URL: when the standby becomes the primary, everything continues on it by itself."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.api_client import ApiClient, new_key
from tests.support.crash.platform_snapshot import PlatformSnapshot
from tests.support.platform import (
    ROOT,
    CheckedPlatform,
    clean_env,
    eventually,
    migrate,
    running_postgres,
    start_platform,
)
from tests.support.servers.standby import promote, running_standby
from worker.local.embedded_servers import EmbeddedPostgres
from worker.local.processes import Child

pytestmark = pytest.mark.timeout(300)


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[tuple[EmbeddedPostgres, Child, EmbeddedPostgres]]:
    """A primary with its process, and its standby."""
    with running_postgres(tmp_path) as (primary, child):
        primary.ensure_database()
        migrate(primary.url())
        with running_standby(primary, tmp_path / "standby") as standby:
            yield primary, child, standby


def url_of_both(first: EmbeddedPostgres, second: EmbeddedPostgres) -> str:
    return first.url().replace(f"127.0.0.1:{first.port}", f"127.0.0.1:{first.port},127.0.0.1:{second.port}")


def dreamery(platform: CheckedPlatform, *arguments: str) -> subprocess.CompletedProcess[str]:
    env = {
        "DREAMERY_DATABASE_URL": platform.database_url,
        "DREAMERY_REDIS_URL": platform.redis_url,
        "DREAMERY_MASTER_KEY": platform.master_key,
        "DREAMERY_DATA_DIR": str(platform.data_dir),
    }
    return subprocess.run(
        [sys.executable, "-P", "-m", "api.cli.main", *arguments],
        cwd=ROOT, env=clean_env(**env), capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip


def test_everything_continues_on_the_promoted_server(
    pair: tuple[EmbeddedPostgres, Child, EmbeddedPostgres], tmp_path: Path
) -> None:
    primary, child, standby = pair
    numbers = list(range(700, 708))
    # The standby comes first, so that every connection has to find the server that can be written to.
    url, fast = url_of_both(standby, primary), {"DREAMERY_ACCOUNT_SUBMITS_PER_MINUTE": "100000"}
    with start_platform(tmp_path / "platform", workers=2, database_url=url, extra_env=fast) as platform:
        pids = {name: process.pid for name, process in platform.children.items()}
        with ApiClient(platform, new_key("failover")) as client:
            jobs = [client.start_job(f"a boat [[job:{number}]][[seconds:3]]")["id"] for number in numbers[:4]]
            child.restarts_on_exit = False
            child.kill()
            eventually(lambda: client.http.get("/readyz").status_code == 503, what="the primary is missed")
            refused = client.generate_images(n=1)
            assert refused.status_code == 503
            assert refused.headers["retry-after"]
            promote(standby)
            eventually(lambda: client.http.get("/readyz").status_code == 200, within=30, what="the standby took over")
            jobs += [client.start_job(f"a boat [[job:{number}]]")["id"] for number in numbers[4:]]
            assert {client.wait_for_end(job)["status"] for job in jobs} == {"completed"}
        assert {name: process.pid for name, process in platform.children.items()} == pids, "nothing was restarted"
        snapshot = PlatformSnapshot(platform, numbers)
        assert len(snapshot.jobs) == len(numbers)
        snapshot.assert_charged_once()
        assert dreamery(platform, "migrate").returncode == 0
        findings = json.loads(dreamery(platform, "doctor", "--json").stdout)["data"]
        assert not [one for one in findings if one["check"] in {"database", "schema"} and not one["ok"]], findings
        backup = dreamery(platform, "backup", str(tmp_path / "backup.tar"))
        assert backup.returncode == 0, backup.stdout + backup.stderr
