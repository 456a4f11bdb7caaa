"""`dreamery run ROLE`: become one process of the platform, for containers and service managers."""

import os
import sys
import tempfile
from pathlib import Path
from typing import Annotated, NoReturn

import typer

run_app = typer.Typer(no_args_is_help=True, help="Run one role of the platform in this process.")

_GRACE_SECONDS = 20


def _exec(command: tuple[str, ...]) -> NoReturn:
    """This process goes on as that program: signals of whoever started us reach it."""
    # -P: a folder named `api` where the user stands must not be imported.
    os.execv(sys.executable, [sys.executable, "-P", "-m", *command])  # noqa: S606 - our own commands


@run_app.command("api", epilog="Example: DREAMERY_API_HOST=0.0.0.0 dreamery run api")
def run_api() -> None:
    """The API, on DREAMERY_API_HOST and DREAMERY_API_PORT."""
    from worker.core.settings import get_settings
    from worker.local import process_commands

    settings = get_settings()
    _exec(process_commands.api(settings.api_host, settings.api_port, patience_seconds=_GRACE_SECONDS))


@run_app.command("worker", epilog="Example: dreamery run worker --queues fast,outbox --name quick")
def run_worker(
    queues: Annotated[str, typer.Option(help="Queues to take messages from; default: all but conversations.")] = "",
    name: Annotated[str, typer.Option(help="Its name; one of a kind on this machine.")] = "worker",
) -> None:
    """A worker: submits, polls, saves, webhooks; DREAMERY_WORKER_CONCURRENCY threads."""
    from worker.core.settings import get_settings
    from worker.local import process_commands

    _exec(process_commands.worker(name, queues or process_commands.QUEUES, get_settings().worker_concurrency))


@run_app.command("talker", epilog="Example: dreamery run talker")
def run_talker(name: Annotated[str, typer.Option(help="Its name; one of a kind on this machine.")] = "talker") -> None:
    """A worker for conversations with the agent; DREAMERY_CONVERSATION_CONCURRENCY at once."""
    from worker.core.settings import get_settings
    from worker.local import process_commands

    _exec(process_commands.worker(name, process_commands.TALK_QUEUES, get_settings().conversation_concurrency))


@run_app.command("scheduler", epilog="Example: dreamery run scheduler")
def run_scheduler() -> None:
    """What sends the tick. One is enough; two do no harm."""
    from worker.local import process_commands

    _exec(process_commands.scheduler(Path(tempfile.mkdtemp(prefix="dreamery-")) / "schedule"))


@run_app.command("flower", epilog="Example: dreamery run flower --url-prefix flower")
def run_flower(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port to listen on.")] = 5555,
    url_prefix: Annotated[str, typer.Option(help="Path below which a proxy shows it, as `flower`.")] = "",
) -> None:
    """Flower, which shows workers and steps. User `admin`, password: the admin key."""
    from worker.core.settings import get_settings
    from worker.local import process_commands
    from worker.local.processes import StartError

    password = get_settings().admin_key.get_secret_value()
    if not password:
        raise StartError("Flower needs a password: set DREAMERY_ADMIN_KEY.")
    # Through the environment, since `ps` shows command lines to everybody.
    os.environ["FLOWER_BASIC_AUTH"] = f"admin:{password}"  # noqa: TID251
    _exec(process_commands.flower(host, port, url_prefix=url_prefix))
