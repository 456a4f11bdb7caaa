"""`dreamery health ...`: health checks of one process for container runtimes; exit code 0 = healthy."""

import http.client
import json
import socket
import sys
from typing import Annotated, NoReturn
from urllib.parse import urlsplit

import typer

from api.cli.display.output import JsonOption

health_app = typer.Typer(
    no_args_is_help=True, help="Health checks of the processes on this machine, for container runtimes."
)


def _healthy(line: str) -> NoReturn:
    print(line)
    raise typer.Exit(0)


def _unhealthy(line: str) -> NoReturn:
    print(line, file=sys.stderr)
    raise typer.Exit(1)


@health_app.command("api", epilog="Example: dreamery health api")
def health_api() -> None:
    """Check that the API on this machine answers."""
    from worker.core.settings import get_settings
    from worker.local.running_instance import find_running_platform

    settings = get_settings()
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(settings.api_host, settings.api_host)
    port = settings.api_port
    if running := find_running_platform(settings.data_dir):
        # `dreamery up` may use another port than the one of the settings: an option, or PORT in a container.
        address = urlsplit(running.url)
        host, port = address.hostname or host, address.port or port
    connection = http.client.HTTPConnection(host, port, timeout=3)
    try:
        connection.request("GET", "/healthz")
        status = connection.getresponse().status
    except (OSError, http.client.HTTPException) as error:
        _unhealthy(f"no answer on {host}:{port}: {type(error).__name__}")
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
    """Check that the worker on this machine processes messages. A running worker that is unresponsive fails."""
    from api.cli.operator.doctor import adopt_running_platform
    from worker.messaging import heartbeat
    from worker.messaging.pubsub import REDIS_ERRORS

    adopt_running_platform()
    try:
        workers = heartbeat.list_workers()
    except REDIS_ERRORS as error:
        # Restarting the worker would not help.
        _healthy(f"unknown: Redis does not answer ({type(error).__name__})")
    local = [w for w in workers if w.host == socket.gethostname() and name in {"", w.name.partition("@")[0]}]
    # A stopped worker may still have a recent heartbeat, so only the newest of each name counts.
    newest = {w.name: w for w in sorted(local, key=lambda w: -w.started_seconds)}.values()
    if as_json:
        print(json.dumps({"data": [heartbeat.as_json(w) for w in newest]}, indent=2))
        raise typer.Exit(0 if newest and all(w.is_responsive for w in newest) else 1)
    if not newest:
        _unhealthy(f"no worker {name + ' ' if name else ''}on this machine has sent a heartbeat")
    unresponsive = [w for w in newest if not w.is_responsive]
    if unresponsive:
        _unhealthy("\n".join(f"{w.name} has processed no message for {w.heard_seconds:.0f} s" for w in unresponsive))
    _healthy("\n".join(f"{w.name} processed a message {w.heard_seconds:.0f} s ago" for w in newest))


@health_app.command("scheduler", epilog="Example: dreamery health scheduler")
def health_scheduler() -> None:
    """Check that the scheduler has sent a tick recently."""
    from api.cli.operator.doctor import adopt_running_platform
    from worker.core.settings import get_settings
    from worker.messaging import heartbeat
    from worker.messaging.pubsub import REDIS_ERRORS

    adopt_running_platform()
    try:
        seconds = heartbeat.seconds_since("scheduler")
    except REDIS_ERRORS as error:
        _healthy(f"unknown: Redis does not answer ({type(error).__name__})")
    if seconds is None or seconds > get_settings().worker_heartbeat_timeout_seconds:
        _unhealthy(
            "the scheduler has not sent a tick yet"
            if seconds is None
            else f"the last tick was sent {seconds:.0f} s ago"
        )
    _healthy(f"a tick was sent {seconds:.0f} s ago")
