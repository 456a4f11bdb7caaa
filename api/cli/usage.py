"""`dreamery usage`: what was used, and where limits stand."""

import json
import sys
import time
from typing import Annotated

import typer

from api.cli.api_client import Json
from api.cli.output import JsonOption, KeyOption, UrlOption, platform_client, print_list

USAGE_EXAMPLE = "Example: dreamery usage --user alice --from 2026-11-01 --group-by day,model --csv > usage.csv"
_NUMBERS = ("accepted", "succeeded", "failed", "cancelled", "open", "pictures", "video_seconds", "credits")
_LIMIT_COLUMNS = ("scope", "name", "used", "soft", "hard", "state", "resets")


def show_usage(  # noqa: PLR0917 - each is an option of the command
    group_by: Annotated[str, typer.Option(help="day, key, kind, model; for admins also user, account.")] = "",
    first: Annotated[str | None, typer.Option("--from", help="First day, YYYY-MM-DD; default: of the month.")] = None,
    last: Annotated[str | None, typer.Option("--to", help="Last day; default: today.")] = None,
    user: Annotated[str | None, typer.Option(help="Only this user (admins; implies --all).")] = None,
    of_key: Annotated[str | None, typer.Option("--of-key", help="Only this key's id (admins; implies --all).")] = None,
    account: Annotated[str | None, typer.Option(help="Only on this account (admins; implies --all).")] = None,
    model: Annotated[str | None, typer.Option(help="Only this model.")] = None,
    url: UrlOption = "",
    key: KeyOption = "",
    *,
    everybody: Annotated[bool, typer.Option("--all", help="Everybody's, for admins.")] = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Jobs, pictures, seconds of video and credits of the key's user, and where the limits stand."""
    client = platform_client(url, key)
    whole = everybody or bool(user or of_key or account)
    path = "/admin/v1/usage" if whole else "/v1/usage"
    query: dict[str, str | None] = {"from": first, "to": last, "group_by": group_by or None, "model": model}
    query |= {"user": user, "key": of_key, "account": account} if whole else {}
    if as_csv:
        client.copy(path, sys.stdout.buffer, format="csv", **query)
        return
    found = client.get(path, **query)
    if as_json:
        print(json.dumps(found, indent=2))
        return
    print(f"{found['from']} to {found['to']} ({found['time_zone']})")
    groups = tuple(found["group_by"])
    total = {**dict.fromkeys(groups, ""), **({groups[0]: "total"} if groups else {}), **found["total"]}
    lines = found["data"] if not groups else [*found["data"], total]
    # A column of zeros says nothing.
    numbers = [name for name in _NUMBERS if found["total"][name] or name == "accepted"]
    print_list(lines, (*groups, *numbers), as_json=False)
    if found["limits"]:
        print("\nLimits")
        print_list([_limit(one) for one in found["limits"]], _LIMIT_COLUMNS, as_json=False)


def _limit(one: Json) -> Json:
    when = one["resets_at"]
    return {**one, "resets": time.strftime("%Y-%m-%d %H:%M", time.localtime(when)) if when else None}
