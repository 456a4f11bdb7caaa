"""The embedded database for a command, when no platform runs on its data folder."""

import contextlib
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from worker.local.data_dir import open_data_dir
from worker.local.embedded_servers import embedded_postgres
from worker.local.processes import ProcessSupervisor, StartError, free_port

_START_SECONDS = 60.0
_STOP_SECONDS = 30.0


@contextlib.contextmanager
def embedded_database(data_dir: Path, *, create: bool) -> Iterator[str]:
    """Run the embedded database of a data folder until the block ends; yields its URL.

    `create` = create the database if it does not exist. Raises StartError, also when a platform runs on the folder.
    """
    if not create and not (data_dir / "postgres" / "cluster").exists():
        raise StartError(
            f"There is no database in {data_dir}. Name the right folder with --data-dir, or set DREAMERY_DATABASE_URL."
        )
    data = open_data_dir(data_dir)
    supervisor = ProcessSupervisor()
    try:
        server = embedded_postgres(
            data.path / "postgres", port=free_port(), password=data.key("postgres"), throwaway=False
        )
        log_path = data.path / "logs" / "postgres.log"
        log_path.parent.mkdir(exist_ok=True)
        server.create(supervisor, log_path)
        child = supervisor.start(server.server(log_path))
        deadline, pause = time.monotonic() + _START_SECONDS, threading.Event()
        while not server.is_ready():
            if child.exit_code is not None or time.monotonic() > deadline:
                raise StartError(f"The database could not be started:\n{child.log_tail()}")
            pause.wait(0.05)
        server.ensure_database()
        yield server.url()
        supervisor.stop([child], timeout=_STOP_SECONDS)
    finally:
        supervisor.close()
        data.close()
