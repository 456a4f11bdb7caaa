"""`dreamery usage`: usage report and current use of limits."""

import json
import sys
from typing import Annotated

import typer

from api.cli.api_client import Json
from api.cli.display.output import JsonOption, KeyOption, UrlOption, platform_client, print_list
from api.cli.display.short_ids import account_id, key_id
from api.cli.display.values import local_time

USAGE_EXAMPLE = "Example: dreamery usage --user alice --from 2026-11-01 --group-by day,model --csv > usage.csv"
_NUMBERS = (
    "accepted",
    "succeeded",
    "failed",
    "cancelled",
    "open",
    "pictures",
    "video_seconds",
    "credits",
    "usd",
    "cny",
)
_LIMIT_COLUMNS = ("scope", "name", "used", "soft", "hard", "state", "resets")


def show_usage(
    group_by: Annotated[
        str, typer.Option(help="day, key, kind or model; for admins also user or account. Comma-separated.")
    ] = "",
    first: Annotated[
        str | None, typer.Option("--from", help="First day, YYYY-MM-DD; default: first day of the month.")
    ] = None,
    last: Annotated[str | None, typer.Option("--to", help="Last day; default: today.")] = None,
    user: Annotated[str | None, typer.Option(help="Only this user (admins; implies --all).")] = None,
    of_key: Annotated[str | None, typer.Option("--of-key", help="Only this key id (admins; implies --all).")] = None,
    account: Annotated[str | None, typer.Option(help="Only jobs on this account (admins; implies --all).")] = None,
    model: Annotated[str | None, typer.Option(help="Only this model.")] = None,
    url: UrlOption = "",
    key: KeyOption = "",
    *,
    all_users: Annotated[bool, typer.Option("--all", help="Usage of all users (admins).")] = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Show jobs, images, seconds of video, credits and money of your user, and the current use of limits."""
    client = platform_client(url, key)
    as_admin = all_users or bool(user or of_key or account)
    path = "/admin/v1/usage" if as_admin else "/v1/usage"
    query: dict[str, str | None] = {"from": first, "to": last, "group_by": group_by or None, "model": model}
    if as_admin:
        of_key = key_id(client, of_key) if of_key else None
        account = account_id(client, account) if account else None
        query |= {"user": user, "key": of_key, "account": account}
    if as_csv:
        client.copy(path, sys.stdout.buffer, format="csv", **query)
        return
    report = client.get(path, **query)
    if as_json:
        print(json.dumps(report, indent=2))
        return
    print(f"{report['from']} to {report['to']} ({report['time_zone']})")
    groups = tuple(report["group_by"])
    total = {**dict.fromkeys(groups, ""), **({groups[0]: "total"} if groups else {}), **report["total"]}
    lines = report["data"] if not groups else [*report["data"], total]
    # Columns with only zeros are omitted.
    numbers = [name for name in _NUMBERS if report["total"][name] or name == "accepted"]
    print_list(lines, (*groups, *numbers), as_json=False)
    if report["limits"]:
        print("\nLimits")
        print_list([_limit_row(limit) for limit in report["limits"]], _LIMIT_COLUMNS, as_json=False)


def _limit_row(limit: Json) -> Json:
    resets_at = limit["resets_at"]
    return {**limit, "resets": local_time(resets_at)[:-3] if resets_at else None}
