"""`dreamery drain` and `dreamery workers`: before a restart, a move, an upgrade."""

import threading
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from api.cli.api_client import Client, Json
from api.cli.output import JsonOption, KeyOption, UrlOption, platform_client, print_list, print_object, quoted

_LOOK_SECONDS = 1.0


def drain(
    worker: Annotated[str | None, typer.Option(help="Only this worker, as `dreamery workers` names it.")] = None,
    reason: Annotated[str, typer.Option(help="Told to callers whose jobs are refused.")] = "",
    url: UrlOption = "",
    key: KeyOption = "",
    *,
    off: Annotated[bool, typer.Option("--off", help="Take jobs again.")] = False,
    wait: Annotated[bool, typer.Option("--wait", help="Return when nothing is open any more.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Take no new jobs and finish the open ones; or let one worker rest while the others go on."""
    client = platform_client(url, key)
    place = f"/admin/v1/workers/{quoted(worker)}/drain" if worker else "/admin/v1/drain"
    wish: Json = {"draining": not off} if worker else {"draining": not off, "reason": reason}
    found = client.patch(place, wish)
    if wait and not off:
        found = _wait(client, worker)
    print_object(found, as_json=as_json)


def _wait(client: Client, worker: str | None) -> Json:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    pause = threading.Event()
    with Progress(*columns, console=Console(stderr=True)) as bars:
        found, left = _look(client, worker)
        bar = bars.add_task("steps" if worker else "jobs", total=left)
        most = left
        while left:
            pause.wait(_LOOK_SECONDS)
            found, left = _look(client, worker)
            most = max(most, left)
            bars.update(bar, total=most, completed=most - left)
    return found


def _look(client: Client, worker: str | None) -> tuple[Json, int]:
    """What is drained, and how much of it is open. A worker that answers no more has ended."""
    if worker is None:
        found = client.get("/admin/v1/drain")
        return found, sum(found["open_jobs"].values())
    known = [one for one in client.get("/admin/v1/workers")["data"] if one["name"] == worker]
    return (known[0], len(known[0]["steps"])) if known else ({"object": "worker", "name": worker, "steps": []}, 0)


def workers(url: UrlOption = "", key: KeyOption = "", *, as_json: JsonOption = False) -> None:
    """List the worker processes that answer, and what they do."""
    found = platform_client(url, key).get("/admin/v1/workers")["data"]
    print_list(found, ("name", "draining", "queues", "steps"), as_json=as_json)
