"""The database that a command works on: the one of the settings, or the embedded one of a data folder at rest."""

import contextlib
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from worker.local.data_dir import open_data_dir
from worker.local.embedded_servers import embedded_postgres
from worker.local.processes import Keeper, StartError, free_port

_START_SECONDS = 60.0
_STOP_SECONDS = 30.0


@contextlib.contextmanager
def embedded_database(data_dir: Path, *, create: bool) -> Iterator[str]:
    """Serve the database of a data folder that no platform runs on, until the block ends; its URL.

    `create` = make it when there is none.
    """
    if not create and not (data_dir / "postgres" / "cluster").exists():
        raise StartError(
            f"There is no database in {data_dir}. Name the right folder with --data-dir, or set DREAMERY_DATABASE_URL."
        )
    data = open_data_dir(data_dir)
    keeper = Keeper()
    try:
        server = embedded_postgres(
            data.path / "postgres", port=free_port(), password=data.key("postgres"), throwaway=False
        )
        log_path = data.path / "logs" / "postgres.log"
        log_path.parent.mkdir(exist_ok=True)
        server.create(keeper, log_path)
        child = keeper.start(server.server(log_path))
        deadline, pause = time.monotonic() + _START_SECONDS, threading.Event()
        while not server.is_ready():
            if child.exit_code is not None or time.monotonic() > deadline:
                raise StartError(f"The database could not be started:\n{child.log_tail()}")
            pause.wait(0.05)
        server.ensure_database()
        yield server.url()
        keeper.stop([child], patience=_STOP_SECONDS)
    finally:
        keeper.close()
        data.close()
