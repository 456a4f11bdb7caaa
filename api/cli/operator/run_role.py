"""`dreamery run ROLE`: run one process of the platform, for containers and service managers."""

import os
import sys
from typing import Annotated, NoReturn

import typer

run_app = typer.Typer(no_args_is_help=True, help="Run one role of the platform in the foreground.")

_GRACE_SECONDS = 20


def _exec(command: tuple[str, ...]) -> NoReturn:
    """Replace this process with the command, so that signals reach it directly."""
    # -P: never import a folder named `api` from the working directory.
    os.execv(sys.executable, [sys.executable, "-P", "-m", *command])  # noqa: S606 - our own commands


@run_app.command("api", epilog="Example: DREAMERY_API_HOST=0.0.0.0 dreamery run api")
def run_api() -> None:
    """Run the API on DREAMERY_API_HOST and DREAMERY_API_PORT."""
    from worker.core.settings import get_settings
    from worker.local import process_commands

    settings = get_settings()
    _exec(process_commands.api(settings.api_host, settings.api_port, patience_seconds=_GRACE_SECONDS))


@run_app.command("worker", epilog="Example: dreamery run worker --queues fast,outbox --name quick")
def run_worker(
    queues: Annotated[str, typer.Option(help="Queues to consume; default: all except conversations.")] = "",
    name: Annotated[str, typer.Option(help="Worker name, unique on this machine.")] = "worker",
    *,
    everything: Annotated[
        bool, typer.Option("--all", help="Also run conversations and the scheduler, so no other role is needed.")
    ] = False,
) -> None:
    """Run a worker for submits, polls, saves and webhooks, with DREAMERY_WORKER_CONCURRENCY threads."""
    from worker.core.settings import get_settings
    from worker.local import process_commands

    settings = get_settings()
    queues = queues or (process_commands.ALL_QUEUES if everything else process_commands.QUEUES)
    threads = settings.worker_concurrency
    if everything:
        threads += settings.conversation_concurrency
        os.environ["DREAMERY_WORKER_WITH_SCHEDULER"] = "true"  # noqa: TID251
    _exec(process_commands.worker(name, queues, threads))


@run_app.command("talker", epilog="Example: dreamery run talker")
def run_talker(name: Annotated[str, typer.Option(help="Worker name, unique on this machine.")] = "talker") -> None:
    """Run a worker for agent conversations, DREAMERY_CONVERSATION_CONCURRENCY at a time."""
    from worker.core.settings import get_settings
    from worker.local import process_commands

    _exec(process_commands.worker(name, process_commands.TALK_QUEUES, get_settings().conversation_concurrency))


@run_app.command("scheduler", epilog="Example: dreamery run scheduler")
def run_scheduler() -> None:
    """Run the scheduler, which sends the tick. One is enough, two are harmless."""
    from worker.core.security import configuration
    from worker.core.settings import get_settings
    from worker.db.platform import startup
    from worker.local import process_commands

    # Here, because the process that it becomes does not load the library of the database.
    configuration.require_usable(get_settings())
    startup.require_root_key()
    _exec(process_commands.scheduler())


@run_app.command("flower", epilog="Example: dreamery run flower --url-prefix flower")
def run_flower(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port to listen on.")] = 5555,
    url_prefix: Annotated[str, typer.Option(help="Path prefix behind a reverse proxy, such as `flower`.")] = "",
) -> None:
    """Run Flower, which shows workers and tasks. User `admin`, password: DREAMERY_FLOWER_PASSWORD."""
    from worker.core.security import configuration
    from worker.core.settings import get_settings
    from worker.local import process_commands
    from worker.local.processes import StartError, port_is_free

    # First: a free port is of no use to a process with wrong settings.
    configuration.require_usable(get_settings(), database=False)
    password = get_settings().flower_password.get_secret_value()
    if not password:
        password = get_settings().admin_key.get_secret_value()
        if not password:
            raise StartError("Flower needs a password: set DREAMERY_FLOWER_PASSWORD.")
        print("Warning: the password of Flower is the admin key. Set DREAMERY_FLOWER_PASSWORD.", file=sys.stderr)
    if not port_is_free(host, port):
        raise StartError(f"Port {port} on {host} is used by another program. Choose another one with --port.")
    # Through the environment, because `ps` shows command lines to all users.
    os.environ["FLOWER_BASIC_AUTH"] = f"admin:{password}"  # noqa: TID251
    _exec(process_commands.flower(host, port, url_prefix=url_prefix))
