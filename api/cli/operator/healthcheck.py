"""`dreamery health ...`: questions of a container runtime or service manager to one process; exit code 0 = well."""

import http.client
import json
import socket
import sys
from typing import Annotated, NoReturn

import typer

from api.cli.output import JsonOption

health_app = typer.Typer(no_args_is_help=True, help="Check one process of this machine, for container health checks.")


def _healthy(line: str) -> NoReturn:
    print(line)
    raise typer.Exit(0)


def _unhealthy(line: str) -> NoReturn:
    print(line, file=sys.stderr)
    raise typer.Exit(1)


@health_app.command("api", epilog="Example: dreamery health api")
def health_api() -> None:
    """Does the API of this machine answer?"""
    from worker.core.settings import get_settings

    settings = get_settings()
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(settings.api_host, settings.api_host)
    connection = http.client.HTTPConnection(host, settings.api_port, timeout=3)
    try:
        connection.request("GET", "/healthz")
        status = connection.getresponse().status
    except (OSError, http.client.HTTPException) as error:
        _unhealthy(f"no answer on {host}:{settings.api_port}: {type(error).__name__}")
    finally:
        connection.close()
    if status != 200:
        _unhealthy(f"HTTP status {status}")
    _healthy("the API answers")


@health_app.command("worker", epilog="Example: dreamery health worker --name talker")
def health_worker(
    name: Annotated[str, typer.Option(help="Only the worker of this name (the part before @).")] = "",
    *,
    as_json: JsonOption = False,
) -> None:
    """Does the worker of this machine take messages? A worker that is alive but deaf fails."""
    from api.cli.operator.doctor import adopt_running_platform
    from worker.messaging import heartbeat
    from worker.messaging.pubsub import BUS_ERRORS

    adopt_running_platform()
    try:
        found = heartbeat.workers()
    except BUS_ERRORS as error:
        # A new worker would hear no more than this one does.
        _healthy(f"cannot tell: Redis does not answer ({type(error).__name__})")
    here = [w for w in found if w.host == socket.gethostname() and name in {"", w.name.partition("@")[0]}]
    # What stopped for good told something not long ago, too: only the newest of each name counts.
    newest = {w.name: w for w in sorted(here, key=lambda w: -w.started_seconds)}.values()
    if as_json:
        print(json.dumps({"data": [heartbeat.as_json(w) for w in newest]}, indent=2))
        raise typer.Exit(0 if newest and all(w.hears for w in newest) else 1)
    if not newest:
        _unhealthy(f"no worker {name + ' ' if name else ''}of this machine has told anything")
    deaf = [w for w in newest if not w.hears]
    if deaf:
        _unhealthy("\n".join(f"{w.name} took no message for {w.heard_seconds:.0f} s" for w in deaf))
    _healthy("\n".join(f"{w.name} took a message {w.heard_seconds:.0f} s ago" for w in newest))


@health_app.command("scheduler", epilog="Example: dreamery health scheduler")
def health_scheduler() -> None:
    """Has the scheduler sent a tick lately?"""
    from api.cli.operator.doctor import adopt_running_platform
    from worker.core.settings import get_settings
    from worker.messaging import heartbeat
    from worker.messaging.pubsub import BUS_ERRORS

    adopt_running_platform()
    try:
        seconds = heartbeat.seen_seconds("scheduler")
    except BUS_ERRORS as error:
        _healthy(f"cannot tell: Redis does not answer ({type(error).__name__})")
    if seconds is None or seconds > get_settings().worker_heartbeat_timeout_seconds:
        _unhealthy("the scheduler has sent nothing yet" if seconds is None else f"the last tick was sent {seconds:.0f} s ago")
    _healthy(f"a tick was sent {seconds:.0f} s ago")
