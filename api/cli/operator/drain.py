"""`dreamery drain` and `dreamery workers`: prepare a restart, a move or an upgrade."""

import threading
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from api.cli.api_client import Client, Json
from api.cli.display.output import (
    JsonOption,
    KeyOption,
    UrlOption,
    platform_client,
    print_list,
    print_object,
    quote_segment,
)

_POLL_SECONDS = 1.0


def drain(
    worker: Annotated[str | None, typer.Option(help="Drain only this worker, see `dreamery workers`.")] = None,
    reason: Annotated[str, typer.Option(help="Reason shown to callers whose jobs are refused.")] = "",
    url: UrlOption = "",
    key: KeyOption = "",
    *,
    off: Annotated[bool, typer.Option("--off", help="Accept jobs again.")] = False,
    wait: Annotated[bool, typer.Option("--wait", help="Return when no open jobs are left.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Accept no new jobs and finish the open ones. With --worker, drain only that worker."""
    client = platform_client(url, key)
    path = f"/admin/v1/workers/{quote_segment(worker)}/drain" if worker else "/admin/v1/drain"
    body: Json = {"draining": not off} if worker else {"draining": not off, "reason": reason}
    state = client.patch(path, body)
    if wait and not off:
        state = _wait(client, worker)
    print_object(state, as_json=as_json)


def _wait(client: Client, worker: str | None) -> Json:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    pause = threading.Event()
    with Progress(*columns, console=Console(stderr=True)) as bars:
        state, left = _read_progress(client, worker)
        bar = bars.add_task("tasks" if worker else "jobs", total=left)
        most = left
        while left:
            pause.wait(_POLL_SECONDS)
            state, left = _read_progress(client, worker)
            most = max(most, left)
            bars.update(bar, total=most, completed=most - left)
    return state


def _read_progress(client: Client, worker: str | None) -> tuple[Json, int]:
    """Return the drain state and the number of open jobs or tasks. A worker that no longer answers has stopped."""
    if worker is None:
        state = client.get("/admin/v1/drain")
        return state, sum(state["open_jobs"].values())
    matching = [item for item in client.get("/admin/v1/workers")["data"] if item["name"] == worker]
    if not matching:
        return {"object": "worker", "name": worker, "steps": []}, 0
    return matching[0], len(matching[0]["steps"])


def workers(url: UrlOption = "", key: KeyOption = "", *, as_json: JsonOption = False) -> None:
    """List the running worker processes and their current tasks."""
    rows = platform_client(url, key).get("/admin/v1/workers")["data"]
    print_list(rows, ("name", "draining", "queues", "steps"), as_json=as_json)
