"""`dreamery batches`: many requests at once, from a file or from prompts; the total price comes first."""

import contextlib
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from api.cli.api_client import FOLLOW_INTERVAL, Client, ClientError, Json
from api.cli.display.output import JsonOption, KeyOption, UrlOption, platform_client, print_list, print_object
from api.cli.display.short_ids import batch_id
from api.cli.display.values import local_time

batches_app = typer.Typer(no_args_is_help=True, help="Many requests at once: add, list, pause, cancel, download.")

_COLUMNS = ("id", "status", "created", "lines", "completed", "failed", "credits")
_ENDED = frozenset({"completed", "failed", "expired", "cancelled"})
_SHOWN_ERRORS = 20
_BatchId = Annotated[str, typer.Argument(help="Batch id, short or full, see `dreamery batches list`.")]


@batches_app.command(
    "add", epilog="Example: dreamery batches add requests.jsonl --yes, or: --prompt 'a {red|blue} boat' --ratio 1:1"
)
def batches_add(
    file: Annotated[Path | None, typer.Argument(help="JSONL or CSV file.", exists=True, dir_okay=False)] = None,
    prompt: Annotated[
        list[str] | None, typer.Option(help="Prompt instead of a file; {a|b} stands for two. Repeatable.")
    ] = None,
    model: Annotated[list[str] | None, typer.Option(help="Model of the prompts. Repeatable.")] = None,
    ratio: Annotated[list[str] | None, typer.Option(help="Ratio of the prompts. Repeatable.")] = None,
    number: Annotated[int | None, typer.Option("-n", min=1, help="Results of each prompt.")] = None,
    window: Annotated[str, typer.Option(help="Time in which it must be begun: 6h, 24h, 7d.")] = "24h",
    max_cost: Annotated[str | None, typer.Option(help="Refuse it if it may cost more: 0.5 or '0.5 USD'.")] = None,
    max_credits: Annotated[int | None, typer.Option(min=0, help="Refuse it if it may cost more credits.")] = None,
    not_before: Annotated[str | None, typer.Option(help="Begin no earlier: 2026-12-24T18:00:00+01:00.")] = None,
    url: UrlOption = "",
    key: KeyOption = "",
    *,
    idle: Annotated[bool, typer.Option("--idle", help="Run only while accounts are idle.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask before it is accepted.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show the price.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Show the total price of a file or of prompts, and accept all of them after a confirmation."""
    if (file is None) == (not prompt):
        raise typer.BadParameter("Give either a file or --prompt.")
    client = platform_client(url, key)
    matrix = {"prompts": prompt, "models": model, "ratios": ratio, "n": number}
    body = _source(client, file, {name: value for name, value in matrix.items() if value})
    body |= {"completion_window": window, "priority": "idle" if idle else "normal"}
    limits = {"max_cost": max_cost, "max_credits": max_credits, "not_before": not_before}
    body |= {name: value for name, value in limits.items() if value is not None}
    with _removed_unless_used(client, body) as keep:
        price = client.post("/v1/batches", {**body, "dry_run": True})
        if dry_run and as_json:
            print_object(price, as_json=True)
            return
        if not as_json:
            _print_price(price)
        _require_valid(price.get("errors"))
        if dry_run or not (yes or as_json or typer.confirm("Accept the batch?")):
            return
        keep()
        made = client.post("/v1/batches", body)
    made = _follow(client, made, until=lambda batch: batch["status"] != "validating")
    _require_valid(made.get("errors"))
    print_object(made if as_json else _row(made), as_json=as_json)


def _source(client: Client, file: Path | None, matrix: Json) -> Json:
    """Return the part of the request that says what to make. A file is uploaded."""
    if file is None:
        return {**matrix, "variants": True}
    if matrix:
        raise typer.BadParameter("--model, --ratio and -n belong to --prompt; a file has them in its lines.")
    return {"input_file_id": client.upload("/v1/files", file, purpose="batch")["id"]}


@contextlib.contextmanager
def _removed_unless_used(client: Client, body: Json) -> Iterator[Callable[[], None]]:
    """Delete the uploaded file at the end, unless the yielded function was called: no batch needs it."""
    unused = contextlib.ExitStack()
    with unused:
        if file_id := body.get("input_file_id"):
            unused.callback(_delete_file, client, file_id)

        def keep() -> None:
            unused.pop_all()

        yield keep


def _delete_file(client: Client, file_id: str) -> None:
    with contextlib.suppress(ClientError):  # what matters to the user is why there is no batch
        client.delete(f"/v1/files/{file_id}")


def _follow(client: Client, batch: Json, *, until: Callable[[Json], bool]) -> Json:
    """Read a batch again and again until a condition holds, and return it."""
    pause = threading.Event()
    while not until(batch):
        pause.wait(FOLLOW_INTERVAL)
        batch = client.get(f"/v1/batches/{batch['id']}")
    return batch


def _print_price(estimate: Json) -> None:
    price = estimate.get("price")
    if price is None:
        return
    rows = [
        {**one, "price": one["credits"] if one["currency"] is None else f"{one['cost']} {one['currency']}"}
        for one in price["models"]
    ]
    print_list(rows, ("model", "requests", "jobs", "price"), as_json=False)
    money = [f"{one['amount']} {one['currency']}" for one in price["money"]]
    total = " + ".join([*([f"{price['credits']} credits"] if price["credits"] or not money else []), *money])
    unknown = "" if price["known"] else " and prices that are not known"
    typer.echo(f"Total: {price['requests']} requests, {price['jobs']} jobs, {total}{unknown}.")


def _require_valid(errors: Json | None) -> None:
    """Print the errors of a refused batch and raise ClientError."""
    if not errors:
        return
    for one in errors["data"][:_SHOWN_ERRORS]:
        where = f"line {one['line']}" if one["line"] is not None else "batch"
        typer.echo(f"{where}: {one['message']}", err=True)
    count = errors["total"]
    text = f"The batch has {count} error{'s' if count != 1 else ''}, and nothing of it was accepted."
    raise ClientError(text, code="invalid_value")


def _row(batch: Json) -> Json:
    """Return the columns of a batch."""
    counts: Json = batch["request_counts"]
    status = "paused" if batch["paused"] else batch["status"]
    price = batch.get("price") or {}
    return {
        "id": batch["id"],
        "status": status,
        "created": local_time(batch["created_at"])[:-3],
        "lines": counts["total"],
        "completed": counts["completed"],
        "failed": counts["failed"],
        "credits": price.get("credits"),
    }


@batches_app.command("list", epilog="Example: dreamery batches list --json")
def batches_list(
    limit: Annotated[int, typer.Option(min=1, max=100, help="Number of batches, newest first.")] = 20,
    url: UrlOption = "",
    key: KeyOption = "",
    *,
    as_json: JsonOption = False,
) -> None:
    """List the newest batches of the key."""
    found = platform_client(url, key).get("/v1/batches", limit=limit)["data"]
    print_list(found if as_json else [_row(one) for one in found], _COLUMNS, as_json=as_json)


@batches_app.command("show", epilog="Example: dreamery batches show batch_0198...")
def batches_show(batch: _BatchId, url: UrlOption = "", key: KeyOption = "", *, as_json: JsonOption = False) -> None:
    """Show the state, the counts and the cost of a batch."""
    client = platform_client(url, key)
    print_object(client.get(f"/v1/batches/{batch_id(client, batch)}"), as_json=as_json)


def _act(batch: str, action: str, url: str, key: str, *, as_json: bool) -> None:
    client = platform_client(url, key)
    changed = client.post(f"/v1/batches/{batch_id(client, batch)}/{action}", {})
    print_object(changed if as_json else _row(changed), as_json=as_json)


@batches_app.command("pause", epilog="Example: dreamery batches pause batch_0198...")
def batches_pause(batch: _BatchId, url: UrlOption = "", key: KeyOption = "", *, as_json: JsonOption = False) -> None:
    """Begin no more lines of a batch until it is resumed."""
    _act(batch, "pause", url, key, as_json=as_json)


@batches_app.command("resume", epilog="Example: dreamery batches resume batch_0198...")
def batches_resume(batch: _BatchId, url: UrlOption = "", key: KeyOption = "", *, as_json: JsonOption = False) -> None:
    """Continue a paused batch."""
    _act(batch, "resume", url, key, as_json=as_json)


@batches_app.command("cancel", epilog="Example: dreamery batches cancel batch_0198...")
def batches_cancel(batch: _BatchId, url: UrlOption = "", key: KeyOption = "", *, as_json: JsonOption = False) -> None:
    """Cancel the lines of a batch that have no result yet."""
    _act(batch, "cancel", url, key, as_json=as_json)


@batches_app.command("wait", epilog="Example: dreamery batches wait batch_0198... && echo done")
def batches_wait(batch: _BatchId, url: UrlOption = "", key: KeyOption = "", *, as_json: JsonOption = False) -> None:
    """Wait until a batch has ended. Exit code 1 if it failed, expired or was cancelled."""
    client = platform_client(url, key)
    found = client.get(f"/v1/batches/{batch_id(client, batch)}")
    found = _follow(client, found, until=lambda batch: batch["status"] in _ENDED)
    print_object(found if as_json else _row(found), as_json=as_json)
    if found["status"] != "completed":
        raise ClientError(f"The batch is {found['status']}.", code="batch_ended")


@batches_app.command("download", epilog="Example: dreamery batches download batch_0198... --out results.zip")
def batches_download(
    batch: _BatchId,
    out: Annotated[Path, typer.Option(help="File to write: .zip = pictures and videos, .jsonl = the answers.")],
    url: UrlOption = "",
    key: KeyOption = "",
    *,
    errors: Annotated[bool, typer.Option("--errors", help="The lines without a result, as JSONL.")] = False,
) -> None:
    """Download the results of a batch as a zip with a contact sheet, or as JSONL."""
    client = platform_client(url, key)
    found = client.get(f"/v1/batches/{batch_id(client, batch)}")
    path = f"/v1/batches/{found['id']}/archive"
    if errors or out.suffix.lower() == ".jsonl":
        file_id: Any = found["error_file_id" if errors else "output_file_id"]
        if file_id is None:
            raise ClientError("The batch has no such file (yet).", code="file_not_found")
        path = f"/v1/files/{file_id}/content"
    partial_file = out.with_name(f"{out.name}.part")
    with partial_file.open("wb") as file:
        client.copy(path, file)
    partial_file.replace(out)
    typer.echo(str(out))
