"""`dreamery accounts`: each command calls the admin API, or with --own the API for your own accounts."""

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from api.cli.api_client import Client, Json
from api.cli.display.added_accounts import print_added
from api.cli.display.output import (
    JsonOption,
    KeyOption,
    UrlOption,
    platform_client,
    print_list,
    print_object,
    quote_segment,
)
from api.cli.display.short_ids import account_id

accounts_app = typer.Typer(no_args_is_help=True, help="Manage upstream accounts.")

_COLUMNS = (
    *("id", "label", "provider", "region", "state", "state_code", "user", "groups"),
    *("credits", "credits_left", "in_flight", "polling", "resting models"),
)
# The API accepts this many session ids per request.
_BATCH_SIZE = 100
AccountId = Annotated[str, typer.Argument(help="Label or id, see `dreamery accounts list`.")]
_Own = Annotated[bool, typer.Option("--own", help="Manage your own accounts with your own key, without admin rights.")]
_DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")


def _path(account: str = "", action: str = "", *, own: bool) -> str:
    base = "/v1/accounts" if own else "/admin/v1/accounts"
    return base + (f"/{quote_segment(account)}" if account else "") + action


def _find(url: str, key: str, account: str, action: str = "", *, own: bool) -> tuple[Client, str]:
    """Return the client and the path of an account."""
    client = platform_client(url, key)
    return client, _path(account_id(client, account, own=own), action, own=own)


def _read_entries(text: str) -> list[str]:
    """Return the session ids of an argument, of standard input (-) or of a file (@NAME).

    Comments and empty lines are "", so that the results name the lines as they were given.
    """
    if text == "-":
        text = sys.stdin.read()
    elif text.startswith("@"):
        text = Path(text[1:]).read_text(encoding="utf-8")
    entries = []
    for line in text.splitlines():
        entries += [""] if line.strip().startswith("#") else [entry.strip() for entry in line.split(",")]
    return entries if any(entries) else []


_ModelIds = Annotated[
    list[str] | None, typer.Option("--model-id", help="MODEL=ID: the id or endpoint (ep-...) upstream. Repeatable.")
]


_MaxImages = Annotated[str | None, typer.Option(help="Concurrent image jobs; `none` = the platform's setting.")]
_MaxVideos = Annotated[str | None, typer.Option(help="Concurrent video jobs; `none` = the platform's setting.")]
_PerMinute = Annotated[str | None, typer.Option(help="Submits per minute; `none` = the platform's setting.")]
_PollMin = Annotated[str | None, typer.Option(help="Shortest polling interval; `none` = the platform's setting.")]
_PollMax = Annotated[str | None, typer.Option(help="Longest polling interval; `none` = the platform's setting.")]
_Eagerness = Annotated[
    str | None, typer.Option(help="4 = polling intervals half as long; `none` = the platform's setting.")
]


def _model_ids(pairs: list[str]) -> dict[str, str] | None:
    """Return the map of `MODEL=ID` texts; `none` = an empty one."""
    if pairs == ["none"]:
        return None
    parts = [pair.partition("=") for pair in pairs]
    if not all(name.strip() and upstream_id.strip() for name, _, upstream_id in parts):
        raise typer.BadParameter("write MODEL=ID", param_hint="--model-id")
    return {name.strip(): upstream_id.strip() for name, _, upstream_id in parts}


@accounts_app.command("add", epilog="Example: dreamery accounts add - --label studio --group teachers < sessions.txt")
def accounts_add(
    tokens: Annotated[
        str,
        typer.Argument(
            help="Session ids in any notation, or keys, comma-separated. - reads standard input, @FILE a file (lines)."
        ),
    ],
    provider: Annotated[str, typer.Option(help="Upstream of keys; omit for session ids.")] = "",
    region: Annotated[str, typer.Option(help="Region of entries that name none.")] = "",
    model_id: _ModelIds = None,
    limit_group: Annotated[str, typer.Option(help="Name for the keys of one customer, which share limits.")] = "",
    label: Annotated[str, typer.Option(help="Name of the account.")] = "",
    group: Annotated[list[str] | None, typer.Option(help="Only users of this group can use it. Repeatable.")] = None,
    user: Annotated[str | None, typer.Option(help="Name or id of the user who owns it.")] = None,
    poll_min_seconds: Annotated[float | None, typer.Option(help="Shortest polling interval.")] = None,
    poll_max_seconds: Annotated[float | None, typer.Option(help="Longest polling interval.")] = None,
    poll_eagerness: Annotated[float | None, typer.Option(help="4 = polling intervals half as long.")] = None,
    url: UrlOption = "",
    key: KeyOption = "",
    *,
    check: Annotated[bool, typer.Option(help="Wait for the first check.")] = True,
    own: _Own = False,
    as_json: JsonOption = False,
) -> None:
    """Add accounts and check them. Other users of the machine can see command lines, so prefer - (standard input)."""
    client, entries = platform_client(url, key), _read_entries(tokens)
    fields = {
        "poll_min_seconds": poll_min_seconds,
        "poll_max_seconds": poll_max_seconds,
        "poll_eagerness": poll_eagerness,
        "provider": provider or None,
        "region": region or None,
        "limit_group": limit_group or None,
        "model_ids": _model_ids(model_id) if model_id else None,
    }
    added: list[Json] = []
    warnings: list[str] = []
    refused: list[Json] = []
    for start in range(0, max(len(entries), 1), _BATCH_SIZE):
        batch = entries[start : start + _BATCH_SIZE]
        if entries and not any(batch):
            continue
        # The empty lines in front keep the places of the entries.
        body: Json = {"tokens": "\n" * start + "\n".join(batch), "label": label, "check": check}
        body |= {"groups": group or [], **({"user": user} if user else {})} if not own else {}
        body |= {name: value for name, value in fields.items() if value is not None}
        response = client.post(_path(own=own), body)
        added += response["data"]
        refused += response["refused"]
        warnings += response["warnings"]
    for warning in dict.fromkeys(warnings):
        typer.echo(f"warning: {warning}", err=True)
    _print_import(added, refused, own=own, as_json=as_json)


def _print_import(added: list[Json], refused: list[Json], *, own: bool, as_json: bool) -> None:
    if not as_json:
        print_added(added, refused, own=own)
    elif len(added) == 1 and not refused:
        print_object(added[0], as_json=True)
    else:
        print_list([*added, *refused], (), as_json=True)
    if refused:
        raise typer.Exit(1)


@accounts_app.command("list", epilog="Example: dreamery accounts list --all --json")
def accounts_list(
    user: Annotated[str | None, typer.Option(help="Only accounts of this user.")] = None,
    url: UrlOption = "",
    key: KeyOption = "",
    *,
    all_users: Annotated[bool, typer.Option("--all", help="Include accounts of session-id callers.")] = False,
    own: _Own = False,
    as_json: JsonOption = False,
) -> None:
    """List accounts with state, owner, credits, running jobs and their own polling limits."""
    params = {} if own else {"pool_only": str(not all_users).lower(), "user": user}
    found = list(platform_client(url, key).list_all(_path(own=own), **params))
    print_list(found if as_json else [*map(_with_summaries, found)], _COLUMNS, as_json=as_json)


def _with_summaries(account: Json) -> Json:
    """Return the account with its polling limits and its resting models in one field each, which the table shows."""
    names = {"min": "poll_min_seconds", "max": "poll_max_seconds", "eagerness": "poll_eagerness"}
    rests = ", ".join(f"{rest['model']} ({rest['code']})" for rest in account["model_rests"])
    return {**account, "polling": {short: account.get(name) for short, name in names.items()}, "resting models": rests}


@accounts_app.command("show", epilog="Example: dreamery accounts show account_0198...")
def accounts_show(
    account: AccountId, url: UrlOption = "", key: KeyOption = "", *, own: _Own = False, as_json: JsonOption = False
) -> None:
    """Show one account."""
    client, path = _find(url, key, account, own=own)
    print_object(client.get(path), as_json=as_json)


@accounts_app.command("check", epilog="Example: dreamery accounts check account_0198...")
def accounts_check(
    account: AccountId, url: UrlOption = "", key: KeyOption = "", *, own: _Own = False, as_json: JsonOption = False
) -> None:
    """Check an account now: is the session valid, how many credits are left, which models are available."""
    client, path = _find(url, key, account, "/check", own=own)
    print_object(client.post(path, {}), as_json=as_json)


@accounts_app.command("disable", epilog="Example: dreamery accounts disable account_0198...")
def accounts_disable(
    account: AccountId, url: UrlOption = "", key: KeyOption = "", *, own: _Own = False, as_json: JsonOption = False
) -> None:
    """Pause an account. It accepts no new jobs."""
    client, path = _find(url, key, account, own=own)
    print_object(client.patch(path, {"paused": True}), as_json=as_json)


@accounts_app.command("enable", epilog="Example: dreamery accounts enable account_0198...")
def accounts_enable(
    account: AccountId, url: UrlOption = "", key: KeyOption = "", *, own: _Own = False, as_json: JsonOption = False
) -> None:
    """Resume a paused or blocked account and end its cooldown. An account that needs a login is only checked."""
    change = {"paused": False, "rested": True}
    client, path = _find(url, key, account, own=own)
    print_object(client.patch(path, change), as_json=as_json)


@accounts_app.command("reopen", epilog="Example: dreamery accounts reopen account_0198...")
def accounts_reopen(
    account: AccountId,
    model: Annotated[list[str] | None, typer.Option(help="Only this model. Repeatable.")] = None,
    url: UrlOption = "",
    key: KeyOption = "",
    *,
    own: _Own = False,
    as_json: JsonOption = False,
) -> None:
    """Use models again that upstream had refused on this account, such as one that was not activated. Default: all."""
    change = {"reopen_models": model or ["*"]}
    client, path = _find(url, key, account, own=own)
    print_object(client.patch(path, change), as_json=as_json)


@accounts_app.command(
    "set", epilog="Example: dreamery accounts set account_0198... --hours 09:00-18:30 --zone Asia/Shanghai"
)
def accounts_set(
    account: AccountId,
    label: Annotated[str | None, typer.Option(help="Name of the account.")] = None,
    group: Annotated[
        list[str] | None, typer.Option(help="Only users of this group can use it; `all` = all users. Repeatable.")
    ] = None,
    max_images: _MaxImages = None,
    max_videos: _MaxVideos = None,
    submits_per_minute: _PerMinute = None,
    max_jobs_per_day: Annotated[str | None, typer.Option(help="Jobs per day; `none` = no limit.")] = None,
    poll_min_seconds: _PollMin = None,
    poll_max_seconds: _PollMax = None,
    poll_eagerness: _Eagerness = None,
    hours: Annotated[str | None, typer.Option(help="Working hours such as 22:00-06:00; `none` = always.")] = None,
    days: Annotated[str, typer.Option(help="Days on which the working hours start, such as mon,tue,wed.")] = ",".join(
        _DAYS
    ),
    zone: Annotated[str, typer.Option(help="Time zone of the working hours, such as Asia/Shanghai.")] = "UTC",
    proxy: Annotated[str | None, typer.Option(help="Proxy URL; - reads standard input; `none` = no proxy.")] = None,
    model_id: _ModelIds = None,
    limit_group: Annotated[str | None, typer.Option(help="Name for the keys of one customer; `none` = alone.")] = None,
    prices: Annotated[
        str | None, typer.Option(help="Prices of this customer as JSON, as in docs/accounts.md; `none` = list prices.")
    ] = None,
    url: UrlOption = "",
    key: KeyOption = "",
    *,
    own: _Own = False,
    as_json: JsonOption = False,
) -> None:
    """Change label, groups, limits, polling, working hours, proxy, or what belongs to a key. Omitted values stay."""
    numbers = {
        "max_images": max_images,
        "max_videos": max_videos,
        "submits_per_minute": submits_per_minute,
        "max_jobs_per_day": max_jobs_per_day,
        "poll_min_seconds": poll_min_seconds,
        "poll_max_seconds": poll_max_seconds,
        "poll_eagerness": poll_eagerness,
    }
    change: Json = {name: _number(value, name) for name, value in numbers.items() if value is not None}
    if label is not None:
        change["label"] = label
    if group:
        change["groups"] = [] if group == ["all"] else group
    if hours is not None:
        change["working_hours"] = _hours(hours, days, zone)
    change |= _texts(proxy=proxy, limit_group=limit_group)
    if model_id:
        change["model_ids"] = _model_ids(model_id)
    if prices is not None:
        change["prices"] = _json(prices)
    if not change:
        raise typer.BadParameter("give at least one option to change")
    client, path = _find(url, key, account, own=own)
    print_object(client.patch(path, change), as_json=as_json)


def _number(text: str, name: str) -> float | None:
    try:
        return None if text == "none" else float(text) if "." in text else int(text)
    except ValueError:
        raise typer.BadParameter("must be a number or `none`", param_hint=f"--{name.replace('_', '-')}") from None


def _texts(**options: str | None) -> Json:
    """Return the options that were given; `none` = null, - = standard input."""
    given = {
        name: sys.stdin.read().strip() if text == "-" else text for name, text in options.items() if text is not None
    }
    return {name: None if text == "none" else text for name, text in given.items()}


def _json(text: str) -> Any:
    try:
        return None if text == "none" else json.loads(text)
    except ValueError:
        raise typer.BadParameter("must be JSON or `none`", param_hint="--prices") from None


def _hours(text: str, days: str, zone: str) -> dict[str, Any] | None:
    if text == "none":
        return None
    start, _, end = text.partition("-")
    return {"days": days.replace(" ", "").split(","), "start": start.strip(), "end": end.strip(), "zone": zone}


@accounts_app.command("login", epilog="Example: dreamery accounts login account_0198... - < session.txt")
def accounts_login(
    account: AccountId,
    session: Annotated[str, typer.Argument(help="New session id in any notation, or key; - reads standard input.")],
    url: UrlOption = "",
    key: KeyOption = "",
    *,
    own: _Own = False,
    as_json: JsonOption = False,
) -> None:
    """Replace the session id or key with a new one of the same upstream account, and check it. The history is kept."""
    client, path = _find(url, key, account, own=own)
    client.patch(path, {"session": sys.stdin.read().strip() if session == "-" else session})
    print_object(client.post(f"{path}/check", {}), as_json=as_json)


@accounts_app.command("remove", epilog="Example: dreamery accounts remove account_0198...")
def accounts_remove(
    account: AccountId, url: UrlOption = "", key: KeyOption = "", *, own: _Own = False, as_json: JsonOption = False
) -> None:
    """Retire an account. Running jobs finish."""
    client, path = _find(url, key, account, own=own)
    print_object(client.delete(path), as_json=as_json)
