"""The command of each role of the platform, as `python -m` takes it: one place for `dreamery up`, for `dreamery run`
and so for containers, service managers and Kubernetes.
"""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]  # where the packages and `alembic.ini` are
QUEUES = "fast,bulk,outbox"
# A conversation holds its thread for minutes, so conversations have a process of their own.
TALK_QUEUES = "talk"
FLOWER_PORT = 5555

_CELERY = ("celery", "-A", "worker.celery_tasks:app")
_BEAT = ("celery", "-A", "worker.messaging.celery_beat:app", "beat")
_QUIET = ("--loglevel", "WARNING")


def api(host: str, port: int, *, patience_seconds: int) -> tuple[str, ...]:
    """The API. `patience_seconds` = how long answers under way are waited for when it is asked to stop."""
    return ("api.http.server", "--host", host, "--port", str(port), "--drain-seconds", str(patience_seconds))


def worker(name: str, queues: str, threads: int) -> tuple[str, ...]:
    """A worker on these queues; its full name is `name@host`."""
    return (
        *_CELERY, "worker", "-P", "threads", "-c", str(threads), "-Q", queues,
        "-n", f"{name}@%h", "--without-gossip", "--without-mingle", "-E", *_QUIET,
    )  # fmt: skip


def scheduler(schedule: Path) -> tuple[str, ...]:
    """What sends the tick. It may forget `schedule`, a file of its own, at any time."""
    return (*_BEAT, "-s", str(schedule), "--pidfile=", *_QUIET)


def flower(host: str, port: int, *, url_prefix: str = "") -> tuple[str, ...]:
    """Flower, showing what each step said of itself. Its login comes from FLOWER_BASIC_AUTH (`user:password`)."""
    prefix = (f"--url_prefix={url_prefix}",) if url_prefix else ()
    return (
        *_CELERY, "flower", f"--address={host}", f"--port={port}", *prefix,
        "--tasks_columns=name,result,state,received,runtime,worker,uuid", "--max_tasks=20000",
    )  # fmt: skip
