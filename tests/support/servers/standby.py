"""A standby of the database server of a test: a copy that follows it, reads, and can be promoted."""

import contextlib
import os
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import psycopg

from tests.support.platform import eventually, free_port
from worker.local.embedded_servers import EmbeddedPostgres
from worker.local.processes import ProcessSupervisor


@contextlib.contextmanager
def running_standby(primary: EmbeddedPostgres, folder: Path) -> Iterator[EmbeddedPostgres]:
    """Run a standby until the block ends. The primary confirms a commit when the standby has it."""
    folder.mkdir(mode=0o755)
    user = primary.os_user
    if user is not None:
        os.chown(folder, user.uid, user.gid)
    standby = replace(primary, folder=folder, port=free_port())
    # It runs in the folder, because its user may not be able to reach it by its path.
    subprocess.run(
        [str(primary.programs / "pg_basebackup"), "-h", "127.0.0.1", "-p", str(primary.port), "-U", "postgres",
         "-D", "cluster", "-R", "-X", "stream", "--checkpoint=fast", "--no-sync"],
        cwd=folder, check=True, env={"PGPASSWORD": primary.password, "PATH": os.defpath},
        user=None if user is None else user.uid, group=None if user is None else user.gid, timeout=60,
    )  # fmt: skip
    supervisor = ProcessSupervisor()
    try:
        child = supervisor.start(standby.server(folder.parent / "standby.log"))
        eventually(lambda: reads(standby), what="the standby reads")
        with psycopg.connect(primary.url("postgres"), autocommit=True) as connection:
            connection.execute("ALTER SYSTEM SET synchronous_standby_names = '*'")
            connection.execute("SELECT pg_reload_conf()")
        yield standby
        supervisor.stop([child], timeout=15)
    finally:
        supervisor.close()


def reads(server: EmbeddedPostgres) -> bool:
    """Return whether the server answers a statement."""
    try:
        with psycopg.connect(server.url("postgres"), connect_timeout=5) as connection:
            return connection.execute("SELECT 1").fetchone() is not None
    except psycopg.OperationalError:
        return False


def promote(standby: EmbeddedPostgres) -> None:
    """Make the standby the primary."""
    with psycopg.connect(standby.url("postgres"), autocommit=True) as connection:
        connection.execute("SELECT pg_promote(wait => true)")
