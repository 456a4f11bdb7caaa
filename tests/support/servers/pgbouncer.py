"""The real PgBouncer in front of the database server of the tests."""

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

from tests.support.platform import eventually, free_port
from worker.local.embedded_servers import EmbeddedPostgres
from worker.local.processes import port_is_free


@contextlib.contextmanager
def running_pgbouncer(program: Path, folder: Path, server: EmbeddedPostgres, **settings: str) -> Iterator[int]:
    """Run PgBouncer with these settings until the block ends. Gives its port; all others are its defaults."""
    port = free_port()
    users, config = folder / "users.txt", folder / "pgbouncer.ini"
    users.write_text(f'"postgres" "{server.password}"\n')
    lines = {
        "listen_addr": "127.0.0.1", "listen_port": str(port), "unix_socket_dir": "", "auth_type": "scram-sha-256",
        "auth_file": str(users), **settings,
    }  # fmt: skip
    text = "\n".join(f"{name} = {value}" for name, value in lines.items())
    config.write_text(f"[databases]\n* = host=127.0.0.1 port={server.port}\n\n[pgbouncer]\n{text}\n")
    command = [str(program), str(config)]
    if os.geteuid() == 0:
        # It refuses to run as root, and the folders of the tests are private.
        for path in (folder, *folder.parents[:3]):
            path.chmod(path.stat().st_mode | 0o055)
        for path in (users, config):
            path.chmod(0o644)
        command[1:1] = ["-u", "nobody"]
    with (folder / "pgbouncer.log").open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
        try:
            eventually(lambda: not port_is_free("127.0.0.1", port), what=f"PgBouncer listens, see {log.name}")
            yield port
        finally:
            process.kill()
            process.wait()
