"""The command of each process role, as arguments of `python -m`, for `dreamery up`, `dreamery run` and containers."""

from pathlib import Path

from worker.local.platform_settings import PlatformOptions

ROOT = Path(__file__).resolve().parents[2]  # contains the packages and `alembic.ini`
QUEUES = "fast,bulk,outbox"
# A conversation occupies its thread for minutes. A process that runs both has more threads than conversations may use.
TALK_QUEUES = "talk"
ALL_QUEUES = f"{QUEUES},{TALK_QUEUES}"
FLOWER_PORT = 5555

_PROGRAM = "worker.messaging.celery_command"
_APP = ("-A", "worker.celery_tasks:app")
_BEAT = (_PROGRAM, "-A", "worker.messaging.celery_beat:app", "beat")
_QUIET = ("--loglevel", "WARNING")
# Seconds between the events that show Flower that a worker is online.
_EVENT_INTERVAL = "10"


def api(host: str, port: int, *, patience_seconds: int) -> tuple[str, ...]:
    """Return the command of the API. `patience_seconds` = how long it waits for open requests when it stops."""
    return ("api.http.server", "--host", host, "--port", str(port), "--drain-seconds", str(patience_seconds))


def worker(name: str, queues: str, threads: int) -> tuple[str, ...]:
    """Return the command of a worker for these queues. Its full name is `name@host`."""
    return (
        _PROGRAM, *_APP, "worker", "-P", "threads", "-c", str(threads), "-Q", queues,
        "-n", f"{name}@%h", "--without-gossip", "--without-mingle", "-E", "--heartbeat-interval", _EVENT_INTERVAL,
        *_QUIET,
    )  # fmt: skip


def scheduler() -> tuple[str, ...]:
    """Return the command of the scheduler (Celery beat). It keeps no file."""
    return (*_BEAT, "-S", "worker.messaging.celery_beat:PacedScheduler", "--pidfile=", *_QUIET)


def sandbox(port: int, fd: int, options: PlatformOptions, data_dir: Path) -> tuple[str, ...]:
    """Return the command of the sandbox, whose listening socket is `fd`. That of a throwaway platform keeps no file."""
    credit_args = () if options.sandbox_credits is None else ("--credits", str(options.sandbox_credits))
    state_args = () if options.throwaway else ("--state", str(data_dir / "sandbox" / "state.sqlite"))
    return (
        "worker.sandbox", "--host", "127.0.0.1", "--port", str(port), "--fd", str(fd),
        "--seconds", str(options.sandbox_seconds), "--spread", str(options.sandbox_spread),
        *credit_args, *state_args, *options.sandbox_args,
    )  # fmt: skip


def flower(host: str, port: int, *, url_prefix: str = "", fd: int | None = None) -> tuple[str, ...]:
    """Return the command of Flower, with the results of tasks. FLOWER_BASIC_AUTH (`user:password`) is its login.

    `fd` = the listening socket, if the supervisor has opened it.
    """
    listen = () if fd is None else ("--listen-fd", str(fd))
    prefix = (f"--url_prefix={url_prefix}",) if url_prefix else ()
    return (
        _PROGRAM, *listen, *_APP, "flower", f"--address={host}", f"--port={port}", *prefix,
        "--tasks_columns=name,result,state,received,runtime,worker,uuid", "--max_tasks=20000",
    )  # fmt: skip
