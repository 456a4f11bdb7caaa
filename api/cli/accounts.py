"""`dreamery accounts`: each command is one call of the admin API, or with --own of the API for one's own accounts."""

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from api.cli.api_client import Json
from api.cli.output import JsonOption, KeyOption, UrlOption, platform_client, print_list, print_object, quoted

accounts_app = typer.Typer(no_args_is_help=True, help="Upstream accounts that serve the API keys.")

_COLUMNS = ("id", "label", "region", "state", "state_code", "user", "groups", "credits", "credits_left", "in_flight")
_IMPORTED = ("line", "id", "label", "outcome", "state", "live", "region", "credits", "models", "error")
# So many session ids does the API take at once.
_AT_ONCE = 100
AccountId = Annotated[str, typer.Argument(help="Id of the account, as `dreamery accounts list` shows it.")]
_Own = Annotated[bool, typer.Option("--own", help="Your own accounts, with your own key; not as administrator.")]
_DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")


def _path(account: str = "", act: str = "", *, own: bool) -> str:
    base = "/v1/accounts" if own else "/admin/v1/accounts"
    return base + (f"/{quoted(account)}" if account else "") + act


def _given(text: str) -> list[str]:
    """The session ids of an argument, of standard input (-) or of a file (@NAME), without remarks."""
    if text == "-":
        text = sys.stdin.read()
    elif text.startswith("@"):
        text = Path(text[1:]).read_text(encoding="utf-8")
    entries = [entry.strip() for entry in text.replace(",", "\n").splitlines()]
    return [entry for entry in entries if entry and not entry.startswith("#")]


@accounts_app.command("add", epilog="Example: dreamery accounts add - --label studio --group teachers < sessions.txt")
def accounts_add(  # noqa: PLR0917 - each is an option of the command
    tokens: Annotated[
        str,
        typer.Argument(
            help="Session ids in any notation: a comma list, - for standard input, @FILE; one per line there."
        ),
    ],
    label: Annotated[str, typer.Option(help="What to call it.")] = "",
    group: Annotated[list[str] | None, typer.Option(help="Only users of this group may use it; repeat.")] = None,
    user: Annotated[str | None, typer.Option(help="Name or id of the user whose own it becomes.")] = None,
    url: UrlOption = "",
    key: KeyOption = "",
    *,
    check: Annotated[bool, typer.Option(help="Wait for a first check-up.")] = True,
    own: _Own = False,
    as_json: JsonOption = False,
) -> None:
    """Add accounts and check them. On the command line others may see a session id: - reads from standard input."""
    client, entries = platform_client(url, key), _given(tokens)
    kept: list[Json] = []
    refused: list[Json] = []
    for start in range(0, max(len(entries), 1), _AT_ONCE):
        wish: Json = {"tokens": "\n".join(entries[start : start + _AT_ONCE]), "label": label, "check": check}
        wish |= {"groups": group or [], **({"user": user} if user else {})} if not own else {}
        answer = client.post(_path(own=own), wish)
        for entry in (*answer["data"], *answer["refused"]):
            entry["line"] += start
        kept += answer["data"]
        refused += answer["refused"]
    if len(kept) == 1 and not refused:
        print_object(kept[0], as_json=as_json)
        return
    if as_json:
        print_list([*kept, *refused], (), as_json=True)
    else:
        rows = [{**one, **(one["check"] or {}), "state": one["state"]} for one in kept]
        rows += [{**one, "outcome": "refused"} for one in refused]
        print_list(sorted(map(_in_words, rows), key=_line), _IMPORTED, as_json=False)
    if refused:
        raise typer.Exit(1)


def _line(row: Json) -> int:
    return int(row["line"])


def _in_words(row: Json) -> Json:
    error, models = row.get("error"), row.get("models")
    told = ", ".join(f"{count} {kind}" for kind, count in models.items()) if models else None
    return {**row, "error": error["message"] if error else None, "models": told}


@accounts_app.command("list", epilog="Example: dreamery accounts list --all --json")
def accounts_list(
    user: Annotated[str | None, typer.Option(help="Only this user's own.")] = None,
    url: UrlOption = "",
    key: KeyOption = "",
    *,
    everybody: Annotated[bool, typer.Option("--all", help="Those of session-id callers too.")] = False,
    own: _Own = False,
    as_json: JsonOption = False,
) -> None:
    """List accounts: state and why, whose they are, credits as last told, jobs in flight."""
    asked = {} if own else {"pool_only": str(not everybody).lower(), "user": user}
    print_list(list(platform_client(url, key).every(_path(own=own), **asked)), _COLUMNS, as_json=as_json)


@accounts_app.command("show", epilog="Example: dreamery accounts show account_0198...")
def accounts_show(
    account: AccountId, url: UrlOption = "", key: KeyOption = "", *, own: _Own = False, as_json: JsonOption = False
) -> None:
    """Show one account."""
    print_object(platform_client(url, key).get(_path(account, own=own)), as_json=as_json)


@accounts_app.command("check", epilog="Example: dreamery accounts check account_0198...")
def accounts_check(
    account: AccountId, url: UrlOption = "", key: KeyOption = "", *, own: _Own = False, as_json: JsonOption = False
) -> None:
    """Ask upstream about an account now: does its session work, what is left, which models."""
    print_object(platform_client(url, key).post(_path(account, "/check", own=own), {}), as_json=as_json)


@accounts_app.command("disable", epilog="Example: dreamery accounts disable account_0198...")
def accounts_disable(
    account: AccountId, url: UrlOption = "", key: KeyOption = "", *, own: _Own = False, as_json: JsonOption = False
) -> None:
    """Pause an account: it takes no new job."""
    print_object(platform_client(url, key).patch(_path(account, own=own), {"paused": True}), as_json=as_json)


@accounts_app.command("enable", epilog="Example: dreamery accounts enable account_0198...")
def accounts_enable(
    account: AccountId, url: UrlOption = "", key: KeyOption = "", *, own: _Own = False, as_json: JsonOption = False
) -> None:
    """Let a paused, resting or blocked account work again. One that needs a login is only checked."""
    change = {"paused": False, "rested": True}
    print_object(platform_client(url, key).patch(_path(account, own=own), change), as_json=as_json)


@accounts_app.command(
    "set", epilog="Example: dreamery accounts set account_0198... --hours 09:00-18:30 --zone Asia/Shanghai"
)
def accounts_set(  # noqa: PLR0917 - each is an option of the command
    account: AccountId,
    label: Annotated[str | None, typer.Option(help="What to call it.")] = None,
    group: Annotated[
        list[str] | None, typer.Option(help="Only users of this group; repeat. `all` = all users.")
    ] = None,
    max_images: Annotated[str | None, typer.Option(help="Pictures at once; `none` = the platform's setting.")] = None,
    max_videos: Annotated[str | None, typer.Option(help="Videos at once; `none` = the platform's setting.")] = None,
    submits_per_minute: Annotated[str | None, typer.Option(help="Pace; `none` = the platform's setting.")] = None,
    max_jobs_per_day: Annotated[str | None, typer.Option(help="Cap of a day; `none` = no cap.")] = None,
    hours: Annotated[str | None, typer.Option(help="Working hours such as 22:00-06:00; `none` = always.")] = None,
    days: Annotated[str, typer.Option(help="Days on which they begin, such as mon,tue,wed.")] = ",".join(_DAYS),
    zone: Annotated[str, typer.Option(help="Time zone of the hours, such as Asia/Shanghai.")] = "UTC",
    proxy: Annotated[str | None, typer.Option(help="Way out, - reads it from standard input; `none` = direct.")] = None,
    url: UrlOption = "",
    key: KeyOption = "",
    *,
    own: _Own = False,
    as_json: JsonOption = False,
) -> None:
    """Change label, groups, limits, working hours or proxy; what is not named stays."""
    numbers = {
        "max_images": max_images,
        "max_videos": max_videos,
        "submits_per_minute": submits_per_minute,
        "max_jobs_per_day": max_jobs_per_day,
    }
    change: Json = {name: _number(value, name) for name, value in numbers.items() if value is not None}
    if label is not None:
        change["label"] = label
    if group:
        change["groups"] = [] if group == ["all"] else group
    if hours is not None:
        change["working_hours"] = _hours(hours, days, zone)
    if proxy is not None:
        given = sys.stdin.read().strip() if proxy == "-" else proxy
        change["proxy"] = None if given == "none" else given
    if not change:
        raise typer.BadParameter("name at least one thing to change")
    print_object(platform_client(url, key).patch(_path(account, own=own), change), as_json=as_json)


def _number(text: str, name: str) -> float | None:
    try:
        return None if text == "none" else float(text) if "." in text else int(text)
    except ValueError:
        raise typer.BadParameter("a number or `none`", param_hint=f"--{name.replace('_', '-')}") from None


def _hours(text: str, days: str, zone: str) -> dict[str, Any] | None:
    if text == "none":
        return None
    start, _, end = text.partition("-")
    return {"days": days.replace(" ", "").split(","), "start": start.strip(), "end": end.strip(), "zone": zone}


@accounts_app.command("login", epilog="Example: dreamery accounts login account_0198... - < session.txt")
def accounts_login(
    account: AccountId,
    session: Annotated[str, typer.Argument(help="The new session id, in any notation; - reads standard input.")],
    url: UrlOption = "",
    key: KeyOption = "",
    *,
    own: _Own = False,
    as_json: JsonOption = False,
) -> None:
    """Give an account a new session id of the same upstream account, and check it; its history stays."""
    client = platform_client(url, key)
    client.patch(_path(account, own=own), {"session": sys.stdin.read().strip() if session == "-" else session})
    print_object(client.post(_path(account, "/check", own=own), {}), as_json=as_json)


@accounts_app.command("remove", epilog="Example: dreamery accounts remove account_0198...")
def accounts_remove(
    account: AccountId, url: UrlOption = "", key: KeyOption = "", *, own: _Own = False, as_json: JsonOption = False
) -> None:
    """Retire an account; what it has in flight is finished."""
    print_object(platform_client(url, key).delete(_path(account, own=own)), as_json=as_json)
