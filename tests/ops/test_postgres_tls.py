"""TLS to the Postgres of Debian: `sslmode=verify-full` holds for every process and command, and strangers get no password."""

import os
import pwd
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest

from tests.support.api_client import ApiClient, new_key
from tests.support.platform import ROOT, clean_env, eventually, free_port, start_platform
from tests.support.servers.redis_servers import Certificates, make_certificates

pytestmark = pytest.mark.timeout(180)
PASSWORD = "a password of the tests"
ENCODED = "a%20password%20of%20the%20tests"
MASTER_KEY = "a master key of the tests that is long enough"


@contextmanager
def running_postgres_with_tls(postgres: Path, folder: Path, certificates: Certificates) -> Iterator[int]:
    """Run a server that accepts only encrypted connections, until the block ends. Gives its port."""
    port = free_port()
    folder.mkdir()
    (folder / "password").write_text(PASSWORD)
    for source, name in ((certificates.certificate, "server.crt"), (certificates.key, "server.key")):
        (folder / name).write_bytes(source.read_bytes())
        (folder / name).chmod(0o600)
    user = None
    if os.geteuid() == 0:
        user = pwd.getpwnam("nobody")  # it refuses to run as root
        for path in (folder, *folder.iterdir()):
            os.chown(path, user.pw_uid, user.pw_gid)
    as_user = {"cwd": folder, "user": user and user.pw_uid, "group": user and user.pw_gid}
    flags = ["-U", "postgres", "--auth=scram-sha-256", "--pwfile=password", "--no-sync", "--locale=C", "-E", "UTF8"]
    initdb = [str(postgres.with_name("initdb")), "-D", "data", *flags]
    subprocess.run(initdb, check=True, capture_output=True, timeout=60, **as_user)  # type: ignore[call-overload]
    access = "hostssl all all 127.0.0.1/32 scram-sha-256\n"
    (folder / "data" / "pg_hba.conf").write_text(access)
    options = {
        "port": port, "listen_addresses": "127.0.0.1", "unix_socket_directories": "", "ssl": "on", "fsync": "off",
        "ssl_cert_file": "../server.crt", "ssl_key_file": "../server.key",
    }  # fmt: skip
    command = [
        str(postgres),
        "-D",
        "data",
        *(part for item in options.items() for part in ("-c", "=".join(map(str, item)))),
    ]
    with (folder.parent / "postgres.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, **as_user)  # type: ignore[call-overload]
        try:
            eventually(lambda: answers(port), what=f"Postgres answers, see {log.name}")
            yield port
        finally:
            process.kill()
            process.wait()


def answers(port: int) -> bool:
    try:
        with psycopg.connect(f"postgresql://postgres:{ENCODED}@127.0.0.1:{port}/postgres?sslmode=require"):
            return True
    except psycopg.OperationalError:
        return False


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return make_certificates(tmp_path_factory.mktemp("tls") / "ours")


@pytest.fixture(scope="module")
def port(
    program: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory, certificates: Certificates
) -> Iterator[int]:
    folder = tmp_path_factory.mktemp("server")
    for path in (folder, *folder.parents[:3]):
        path.chmod(path.stat().st_mode | 0o011)  # the server's user enters its folder by its path
    with running_postgres_with_tls(program("postgres"), folder / "cluster", certificates) as port:
        yield port


def dreamery(*arguments: str, url: str, folder: Path, **env: str) -> subprocess.CompletedProcess[str]:
    values = {
        "DREAMERY_DATABASE_URL": url,
        "DREAMERY_DATA_DIR": str(folder / "data"),
        "DREAMERY_MASTER_KEY": MASTER_KEY,
    }
    return subprocess.run(
        [sys.executable, "-P", "-m", "api.cli.main", *arguments],
        cwd=ROOT, env=clean_env(**values, **env), capture_output=True, text=True, check=False, timeout=100,
    )  # fmt: skip


def test_every_process_and_command_verifies_the_server(port: int, certificates: Certificates, tmp_path: Path) -> None:
    url = f"postgresql://postgres:{ENCODED}@127.0.0.1:{port}/postgres?sslmode=verify-full&sslrootcert={certificates.ca}"
    migrated = dreamery("migrate", url=url, folder=tmp_path)
    assert migrated.returncode == 0, migrated.stdout + migrated.stderr
    with start_platform(tmp_path / "platform", database_url=url) as platform:
        with ApiClient(platform, new_key("tls")) as client:
            assert client.wait_for_end(client.start_job()["id"])["status"] == "completed"
        with psycopg.connect(url) as connection:
            row = connection.execute(
                """SELECT count(*) FILTER (WHERE ssl), count(*) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid)
                   WHERE application_name = 'dreamery'"""
            ).fetchone()
        assert row is not None
        assert row[0] == row[1] > 1
    backup = dreamery("backup", str(tmp_path / "backup.tar"), url=url, folder=tmp_path)
    assert backup.returncode == 0, backup.stdout + backup.stderr
    report = dreamery("doctor", url=url, folder=tmp_path).stdout
    assert "the connection is encrypted, its certificate is checked" in report.replace("\n", " ")


# Query and host of a URL that cannot work, and the reason that is given.
WRONG = {
    "another authority": (
        "sslmode=verify-full&sslrootcert={other}",
        "127.0.0.1",
        "not of the authority in sslrootcert",
    ),
    "another host name": ("sslmode=verify-full&sslrootcert={ca}", "localhost", "is for another host name"),
    "no file": ("sslmode=verify-full&sslrootcert={other}.no", "127.0.0.1", "sslrootcert is missing or unreadable"),
    "an unknown mode": ("sslmode=verify&sslrootcert={ca}", "127.0.0.1", "its sslmode does not exist"),
    "no encryption": ("sslmode=disable", "127.0.0.1", "user, host or encryption"),
    "a misspelled name": ("sslmode=verify-full&sslrootcrt={ca}", "127.0.0.1", "after the ? does not exist"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_wrong_trust_is_refused_in_one_sentence(
    port: int, certificates: Certificates, tmp_path: Path, redis_url: str, wrong: str
) -> None:
    query, host, reason = WRONG[wrong]
    other = make_certificates(tmp_path / "theirs").ca
    query = query.format(ca=certificates.ca, other=other)
    url = f"postgresql://postgres:{ENCODED}@{host}:{port}/postgres?{query}"
    # They read the URL in one way; a role takes seconds to start.
    for command in [("migrate",)] if wrong != "another authority" else [("run", "worker"), ("migrate",)]:
        refused = dreamery(*command, url=url, folder=tmp_path, DREAMERY_REDIS_URL=redis_url)
        output = refused.stdout + refused.stderr
        assert refused.returncode == 1, output
        [line] = [line for line in output.splitlines() if line.startswith("Error: ")]
        assert "DREAMERY_DATABASE_URL is wrong" in line
        assert reason in line
        assert "Traceback" not in output
        assert PASSWORD not in output
        assert ENCODED not in output
