"""`dreamery jobs`: the jobs of the key, and for administrators the jobs of all users."""

import time
from typing import Annotated, Any

import typer

from api.cli.api_client import Client, ClientError, Json
from api.cli.display.output import (
    JsonOption,
    KeyOption,
    UrlOption,
    is_number,
    platform_client,
    print_list,
    print_object,
    quote_segment,
)
from api.cli.display.short_ids import account_id, job_id
from api.cli.display.values import local_time

jobs_app = typer.Typer(no_args_is_help=True, help="List, show, cancel and retry jobs.")

_COLUMNS = ("id", "status", "model", "created", "progress", "prompt")
_STATUSES = ("queued", "in_progress", "completed", "failed", "cancelled")
_JobId = Annotated[str, typer.Argument(help="Job id, short or full, see `dreamery jobs list`.")]
_UNITS = {"m": 60, "h": 3600, "d": 86_400}


def _seconds(text: str) -> float:
    """Parse `90m`, `24h`, `7d` (ago) or unix seconds into unix seconds."""
    number, unit = text[:-1], text[-1:]
    try:
        return time.time() - float(number) * _UNITS[unit] if unit in _UNITS else float(text)
    except ValueError:
        raise typer.BadParameter("Give 90m, 24h, 7d or unix seconds.") from None


@jobs_app.command("list", epilog="Example: dreamery jobs list --all --user alice --status failed --since 24h --json")
def jobs_list(
    status: Annotated[
        str | None,
        typer.Option(
            help="queued, in_progress, completed, failed or cancelled.", autocompletion=lambda: list(_STATUSES)
        ),
    ] = None,
    limit: Annotated[int, typer.Option(min=1, max=100, help="Number of jobs, newest first.")] = 20,
    model: Annotated[str | None, typer.Option(help="Only jobs of this model.")] = None,
    since: Annotated[str | None, typer.Option(help="Only jobs since 90m, 24h, 7d (ago) or unix seconds.")] = None,
    user: Annotated[str | None, typer.Option(help="Only jobs of this user (admins; implies --all).")] = None,
    account: Annotated[str | None, typer.Option(help="Only jobs on this account (admins; implies --all).")] = None,
    url: UrlOption = "",
    key: KeyOption = "",
    *,
    all_users: Annotated[bool, typer.Option("--all", help="Jobs of all users (admins).")] = False,
    as_json: JsonOption = False,
) -> None:
    """List the newest jobs of the key; with --all the jobs of all users."""
    client = platform_client(url, key)
    since_seconds = _seconds(since) if since else None
    if all_users or user or account:
        account = account_id(client, account) if account else None
        query = {"user": user, "account": account, "since": since_seconds}
        jobs = client.get("/admin/v1/jobs", status=status, model=model, limit=limit, **query)["data"]
        columns: tuple[str, ...] = (*_COLUMNS[:2], "user", "account", *_COLUMNS[2:])
    else:
        jobs = client.get("/v1/jobs", status=status, model=model, limit=limit, created_after=since_seconds)["data"]
        columns = _COLUMNS
    if any(job.get("error") for job in jobs):
        columns = (*columns[:2], "error", *columns[2:])
    print_list(jobs if as_json else [_as_row(job) for job in jobs], columns, as_json=as_json, cut="prompt")


def _as_row(job: Json) -> Json:
    """Return the columns of a job."""
    return {
        **job,
        "error": (job.get("error") or {}).get("code"),
        "created": local_time(job["created_at"])[:-3],
        "progress": f"{job.get('progress') or 0:.0f} %",
        "prompt": _prompt(job.get("input") or {}),
    }


def _prompt(order: Json) -> str:
    """Return the prompt, or the last message of a chat."""
    messages = order.get("messages") or []
    said = [message.get("text") for message in messages if message.get("role") == "user"]
    return str(order.get("prompt") or next((text for text in reversed(said) if text), ""))


def _post_own_or_admin(client: Client, path: str, body: Json) -> Json:
    """Call the API for a job of the key, and if it has no such job, the admin API."""

    def post(root: str) -> Json:
        return client.post(root + path, body)

    try:
        return post("/v1/jobs/")
    except ClientError as error:
        if error.code != "job_not_found":
            raise
        try:
            return post("/admin/v1/jobs/")
        except ClientError as second:
            raise (error if second.code == "forbidden" else second) from second


def _print_job(job: Json, *, as_json: bool) -> None:
    """Print a job. The text output omits fields that only programs need."""
    if as_json:
        print_object(job, as_json=True)
        return
    shown: dict[str, Any] = {name: value for name, value in _as_row(job).items() if name not in _NOT_SHOWN}
    if job.get("error"):
        shown["error"] = job["error"]["message"]
    if isinstance(job.get("output"), list):
        shown["output"] = [item.get("url") for item in job["output"]]
    print_object({name: value for name, value in shown.items() if value not in (None, "", {}, [])}, as_json=False)
    for entry in (job.get("timeline") or {}).get("data", []):
        print(f"{local_time(entry['at'])}  {entry['state']:<11} {entry['account'] or '':<20} {entry['text']['en']}")


# `created` is a column of lists; the others are for programs.
_NOT_SHOWN = {"created", "type", "eta", "queue", "input", "urls", "timeline", "queued_at", "expires_at"}


@jobs_app.command("show", epilog="Example: dreamery jobs show job_0198...")
def jobs_show(job: _JobId, url: UrlOption = "", key: KeyOption = "", *, as_json: JsonOption = False) -> None:
    """Show a job. Admins see the jobs of all users, with user, account and timeline."""
    client = platform_client(url, key)
    job = job_id(client, job)
    try:
        # The admin API adds the user, the account and the timeline.
        details = client.get(f"/admin/v1/jobs/{quote_segment(job)}")
    except ClientError as error:
        if error.code != "forbidden":
            raise
        details = client.get(f"/v1/jobs/{quote_segment(job)}")
    _print_job(details, as_json=as_json)


@jobs_app.command("cancel", epilog="Example: dreamery jobs cancel job_0198...")
def jobs_cancel(job: _JobId, url: UrlOption = "", key: KeyOption = "", *, as_json: JsonOption = False) -> None:
    """Cancel a queued job immediately or a running job at its next poll. Admins can cancel any job."""
    client = platform_client(url, key)
    path = f"{quote_segment(job_id(client, job))}/cancel"
    _print_job(_post_own_or_admin(client, path, {}), as_json=as_json)


@jobs_app.command("retry", epilog="Example: dreamery jobs retry job_0198... --seed new")
def jobs_retry(
    job: _JobId,
    seed: Annotated[str, typer.Option(help="Seed: same, new or a number.")] = "same",
    url: UrlOption = "",
    key: KeyOption = "",
    *,
    as_json: JsonOption = False,
) -> None:
    """Retry a finished job as a new job, which costs credits again. Admins can retry any job."""
    body: Json = {"seed": int(seed) if is_number(seed) else seed}
    client = platform_client(url, key)
    path = f"{quote_segment(job_id(client, job))}/retry"
    _print_job(_post_own_or_admin(client, path, body), as_json=as_json)
