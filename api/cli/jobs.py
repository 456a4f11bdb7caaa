"""`dreamery jobs`: the jobs of the key, and for administrators everybody's."""

import time
from typing import Annotated, Any

import typer

from api.cli.api_client import Client, ClientError, Json
from api.cli.output import JsonOption, KeyOption, UrlOption, platform_client, print_list, print_object, quoted

jobs_app = typer.Typer(no_args_is_help=True, help="Look at jobs, cancel them, run them again.")

_COLUMNS = ("id", "status", "model", "progress", "prompt")
_JobId = Annotated[str, typer.Argument(help="Id of the job, as `dreamery jobs list` shows it.")]
_UNITS = {"m": 60, "h": 3600, "d": 86_400}


def _seconds(text: str) -> float:
    """`90m`, `24h`, `7d` ago, or unix seconds, as unix seconds."""
    number, unit = text[:-1], text[-1:]
    try:
        return time.time() - float(number) * _UNITS[unit] if unit in _UNITS else float(text)
    except ValueError:
        raise typer.BadParameter("Say 90m, 24h, 7d or unix seconds.") from None


@jobs_app.command("list", epilog="Example: dreamery jobs list --all --user alice --status failed --since 24h --json")
def jobs_list(  # noqa: PLR0917 - each is an option of the command
    status: Annotated[str | None, typer.Option(help="queued, in_progress, completed, failed or cancelled.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=100, help="How many, newest first.")] = 20,
    model: Annotated[str | None, typer.Option(help="Only of this model.")] = None,
    since: Annotated[str | None, typer.Option(help="Only newer ones: 90m, 24h, 7d, or unix seconds.")] = None,
    user: Annotated[str | None, typer.Option(help="Only this user's (admins; implies --all).")] = None,
    account: Annotated[str | None, typer.Option(help="Only on this account (admins; implies --all).")] = None,
    url: UrlOption = "",
    key: KeyOption = "",
    *,
    everybody: Annotated[bool, typer.Option("--all", help="Everybody's, for admins.")] = False,
    as_json: JsonOption = False,
) -> None:
    """List the newest jobs that the key may see; with --all those of all users."""
    client = platform_client(url, key)
    moment = _seconds(since) if since else None
    if everybody or user or account:
        query = {"user": user, "account": account, "since": moment}
        found = client.get("/admin/v1/jobs", status=status, model=model, limit=limit, **query)["data"]
        columns: tuple[str, ...] = (*_COLUMNS[:2], "user", "account", *_COLUMNS[2:])
    else:
        found = client.get("/v1/jobs", status=status, model=model, limit=limit, created_after=moment)["data"]
        columns = _COLUMNS
    print_list(found if as_json else [_line(job) for job in found], columns, as_json=as_json, cut="prompt")


def _line(job: Json) -> Json:
    """What a line of the list shows: a failed job's status is its error code."""
    return {
        **job,
        "status": (job.get("error") or {}).get("code") or job["status"],
        "progress": f"{job.get('progress') or 0:.0f} %",
        "prompt": (job.get("input") or {}).get("prompt") or "",
    }


def _own_or_any(client: Client, path: str, body: Json) -> Json:
    """The call for a job of the key's own; when there is none such, the administrator's call."""

    def call(root: str) -> Json:
        return client.post(root + path, body)

    try:
        return call("/v1/jobs/")
    except ClientError as error:
        if error.code != "job_not_found":
            raise
        try:
            return call("/admin/v1/jobs/")
        except ClientError as second:
            raise (error if second.code == "forbidden" else second) from second


def _show(job: Json, *, as_json: bool) -> None:
    """The job; for people without what only programs need."""
    if as_json:
        print_object(job, as_json=True)
        return
    shown: dict[str, Any] = {name: value for name, value in _line(job).items() if name not in _PROGRAMS_ONLY}
    if job.get("error"):
        shown["error"] = job["error"]["message"]
    if isinstance(job.get("output"), list):
        shown["output"] = [item.get("url") for item in job["output"]]
    print_object({name: value for name, value in shown.items() if value not in (None, "", {}, [])}, as_json=False)
    for entry in (job.get("timeline") or {}).get("data", []):
        stamp = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(entry["at"]))
        print(f"{stamp}  {entry['state']:<11} {entry['account'] or '':<20} {entry['text']['en']}")


_PROGRAMS_ONLY = {"type", "eta", "queue", "input", "urls", "timeline", "queued_at", "expires_at"}


@jobs_app.command("show", epilog="Example: dreamery jobs show job_0198...")
def jobs_show(job: _JobId, url: UrlOption = "", key: KeyOption = "", *, as_json: JsonOption = False) -> None:
    """Show a job; admins see anybody's, with its user, its account and its timeline."""
    client = platform_client(url, key)
    try:
        # With all that happened to it, for whoever may see that.
        found = client.get(f"/admin/v1/jobs/{quoted(job)}")
    except ClientError as error:
        if error.code != "forbidden":
            raise
        found = client.get(f"/v1/jobs/{quoted(job)}")
    _show(found, as_json=as_json)


@jobs_app.command("cancel", epilog="Example: dreamery jobs cancel job_0198...")
def jobs_cancel(job: _JobId, url: UrlOption = "", key: KeyOption = "", *, as_json: JsonOption = False) -> None:
    """Cancel a job: a queued one at once, a running one as soon as upstream is asked next; admins anybody's."""
    _show(_own_or_any(platform_client(url, key), f"{quoted(job)}/cancel", {}), as_json=as_json)


@jobs_app.command("retry", epilog="Example: dreamery jobs retry job_0198... --seed new")
def jobs_retry(
    job: _JobId,
    seed: Annotated[str, typer.Option(help="same, new, or a number.")] = "same",
    url: UrlOption = "",
    key: KeyOption = "",
    *,
    as_json: JsonOption = False,
) -> None:
    """Run a job that has ended again, as a new job; admins anybody's. It is paid like any other."""
    wish: Json = {"seed": int(seed) if seed.isdigit() else seed}
    _show(_own_or_any(platform_client(url, key), f"{quoted(job)}/retry", wish), as_json=as_json)
