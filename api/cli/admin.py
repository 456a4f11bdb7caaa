"""`dreamery users`, `keys` and `audit`: each command calls the admin API."""

import re
import sys
from pathlib import Path
from typing import Annotated

import typer

from api.cli.api_client import Client, Json
from api.cli.display.output import (
    JsonOption,
    KeyOption,
    UrlOption,
    is_number,
    platform_client,
    print_list,
    print_object,
    print_with_secret,
    quote_segment,
)
from api.cli.display.short_ids import key_id as full_key_id
from api.cli.display.short_ids import user_id
from worker.core.catalog.provider_data import shipped_model

users_app = typer.Typer(no_args_is_help=True, help="Manage users.")
keys_app = typer.Typer(no_args_is_help=True, help="Manage API keys.")
audit_app = typer.Typer(no_args_is_help=True, help="Read and export the audit log.")

_USER_COLUMNS = ("id", "name", "role", "groups", "weight", "priority", "retention_days", "disabled")
_KEY_COLUMNS = ("id", "user", "name", "prefix", "status", "scopes", "models")
_Set = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="NAME=VALUE", help="Hard limit: a number, unlimited or default. Repeatable."),
]
_Warn = Annotated[
    list[str] | None, typer.Option("--warn", metavar="NAME=VALUE", help="Soft limit, which only warns. Repeatable.")
]
_LIMITS_HELP = (
    "NAME is requests_per_minute, open_jobs, concurrent_jobs, jobs_per_day, jobs_per_month, credits_per_day, "
    "credits_per_month, usd_per_day, usd_per_month, cny_per_day, cny_per_month, max_cost; of users also own_accounts."
)
_User = Annotated[str, typer.Argument(help="Name or id of the user.")]
_KeyId = Annotated[str, typer.Argument(help="Key id, short or full, see `dreamery keys list`.")]


def _roles() -> list[str]:
    return ["admin", "member", "viewer"]


def _find_user(url: str, key: str, user: str, action: str = "") -> tuple[Client, str]:
    """Return the client and the path of a user."""
    client = platform_client(url, key)
    return client, f"/admin/v1/users/{quote_segment(user_id(client, user))}{action}"


def _find_key(url: str, key: str, api_key: str, action: str = "") -> tuple[Client, str]:
    """Return the client and the path of an API key."""
    client = platform_client(url, key)
    return client, f"/admin/v1/keys/{quote_segment(full_key_id(client, api_key))}{action}"


_Weight = Annotated[
    float | None, typer.Option(help="Share of the accounts while other users wait: 0.1 to 100, default 1.")
]
_Priority = Annotated[
    int | None, typer.Option(help="-5 to 5: each level moves jobs 20 positions ahead in the fair queue.")
]


@users_app.command("add", epilog="Example: dreamery users add alice --role member --weight 2")
def users_add(
    name: Annotated[str, typer.Argument(help="Unique name of the user.")],
    role: Annotated[str, typer.Option(help="admin, member or viewer.", autocompletion=_roles)] = "member",
    weight: _Weight = None,
    priority: _Priority = None,
    url: UrlOption = "",
    key: KeyOption = "",
    *,
    as_json: JsonOption = False,
) -> None:
    """Add a user."""
    body = {"name": name, "role": role, **_without_none(weight=weight, priority=priority)}
    print_object(platform_client(url, key).post("/admin/v1/users", body), as_json=as_json)


@users_app.command("list", epilog="Example: dreamery users list --json")
def users_list(url: UrlOption = "", key: KeyOption = "", *, as_json: JsonOption = False) -> None:
    """List all users."""
    print_list(list(platform_client(url, key).list_all("/admin/v1/users")), _USER_COLUMNS, as_json=as_json)


@users_app.command("show", epilog="Example: dreamery users show alice")
def users_show(user: _User, url: UrlOption = "", key: KeyOption = "", *, as_json: JsonOption = False) -> None:
    """Show one user."""
    client, path = _find_user(url, key, user)
    print_object(client.get(path), as_json=as_json)


@users_app.command("disable", epilog="Example: dreamery users disable alice")
def users_disable(user: _User, url: UrlOption = "", key: KeyOption = "", *, as_json: JsonOption = False) -> None:
    """Disable a user. All keys of the user stop working immediately."""
    client, path = _find_user(url, key, user)
    user_object = client.patch(path, {"disabled": True})
    print_object(user_object, as_json=as_json)


@users_app.command("enable", epilog="Example: dreamery users enable alice")
def users_enable(user: _User, url: UrlOption = "", key: KeyOption = "", *, as_json: JsonOption = False) -> None:
    """Enable a disabled user."""
    client, path = _find_user(url, key, user)
    user_object = client.patch(path, {"disabled": False})
    print_object(user_object, as_json=as_json)


@users_app.command("invite", epilog="Example: dreamery users invite alice --hours 24")
def users_invite(
    user: _User,
    hours: Annotated[float, typer.Option(help="The link works for this time, once; at most 720.")] = 72,
    url: UrlOption = "",
    key: KeyOption = "",
    *,
    as_json: JsonOption = False,
) -> None:
    """Create a link that signs a user in to the console once. It is shown only here; a new one replaces it."""
    client, path = _find_user(url, key, user, "/invitations")
    invitation = client.post(path, {"hours": hours})
    print_with_secret(invitation, "url", "Link", as_json=as_json)


@users_app.command("sign-in", epilog="Example: dreamery users sign-in alice")
def users_sign_in(user: _User, url: UrlOption = "", key: KeyOption = "", *, as_json: JsonOption = False) -> None:
    """Show whether a user has a password or an open invitation, and in which browsers it is signed in."""
    client, path = _find_user(url, key, user, "/sign-in")
    print_object(client.get(path), as_json=as_json)


@users_app.command("sign-out", epilog="Example: dreamery users sign-out alice")
def users_sign_out(user: _User, url: UrlOption = "", key: KeyOption = "", *, as_json: JsonOption = False) -> None:
    """Sign a user out of all browsers."""
    client, path = _find_user(url, key, user, "/sessions")
    print_object(client.delete(path), as_json=as_json)


@users_app.command("role", epilog="Example: dreamery users role alice viewer")
def users_role(
    user: _User,
    role: Annotated[str, typer.Argument(help="admin, member or viewer.", autocompletion=_roles)],
    url: UrlOption = "",
    key: KeyOption = "",
    *,
    as_json: JsonOption = False,
) -> None:
    """Change the role of a user."""
    client, path = _find_user(url, key, user)
    user_object = client.patch(path, {"role": role})
    print_object(user_object, as_json=as_json)


@users_app.command("groups", epilog="Example: dreamery users groups alice studio teachers")
def users_groups(
    user: _User,
    groups: Annotated[
        list[str] | None, typer.Argument(help="New groups of the user, replacing the current ones; omit to remove all.")
    ] = None,
    url: UrlOption = "",
    key: KeyOption = "",
    *,
    as_json: JsonOption = False,
) -> None:
    """Set the groups of a user. The user can use the accounts of these groups."""
    client, path = _find_user(url, key, user)
    user_object = client.patch(path, {"groups": groups or []})
    print_object(user_object, as_json=as_json)


@users_app.command("retention", epilog="Example: dreamery users retention alice 30")
def users_retention(
    user: _User,
    days: Annotated[
        str, typer.Argument(help="Days to keep results; 0 = permanently, default = the platform's setting.")
    ],
    url: UrlOption = "",
    key: KeyOption = "",
    *,
    as_json: JsonOption = False,
) -> None:
    """Set how long the results of a user are kept."""
    if days != "default" and not days.isdecimal():
        raise typer.BadParameter(f"{days!r} is not a number of days. Give a number or `default`.")
    change = {"retention_days": None if days == "default" else int(days)}
    client, path = _find_user(url, key, user)
    print_object(client.patch(path, change), as_json=as_json)


@users_app.command("share", epilog="Example: dreamery users share alice --weight 3 --priority 1")
def users_share(
    user: _User,
    weight: _Weight = None,
    priority: _Priority = None,
    url: UrlOption = "",
    key: KeyOption = "",
    *,
    as_json: JsonOption = False,
) -> None:
    """Set the weight and priority of a user in the fair queue."""
    body = _without_none(weight=weight, priority=priority)
    if not body:
        raise typer.BadParameter("give --weight, --priority or both")
    client, path = _find_user(url, key, user)
    print_object(client.patch(path, body), as_json=as_json)


# An amount of money, as in `usd_per_day=2.50`.
_AMOUNT = re.compile(r"[0-9]{1,7}\.[0-9]{1,3}")


def _limits(options: list[str] | None, option: str) -> Json:
    """Parse options such as `jobs_per_day=100` into a request body; `default` removes a limit."""
    limits: Json = {}
    for text in options or []:
        name, equals, value = text.partition("=")
        is_amount = _AMOUNT.fullmatch(value) is not None
        if not equals or not (is_number(value) or is_amount or value in {"unlimited", "default"}):
            raise typer.BadParameter(
                f"Give NAME=NUMBER, NAME=unlimited or NAME=default, not {text!r}.", param_hint=option
            )
        number = int(value) if is_number(value) else float(value) if is_amount else value
        limits[name.strip().replace("-", "_")] = {"default": None}.get(value, number)
    return limits


def _limit_change(hard: list[str] | None, soft: list[str] | None) -> Json:
    changes = {"limits": _limits(hard, "--set"), "soft_limits": _limits(soft, "--warn")}
    return {name: limits for name, limits in changes.items() if limits}


@users_app.command(
    "limits",
    epilog=f"{_LIMITS_HELP} Example: dreamery users limits alice --set jobs_per_day=100 --warn jobs_per_day=80",
)
def users_limits(
    user: _User,
    hard: _Set = None,
    soft: _Warn = None,
    url: UrlOption = "",
    key: KeyOption = "",
    *,
    as_json: JsonOption = False,
) -> None:
    """Show or set the limits of a user, which apply to all keys of the user together."""
    change = _limit_change(hard, soft)
    client, path = _find_user(url, key, user)
    print_object(client.patch(path, change) if change else client.get(path), as_json=as_json)


@keys_app.command(
    "limits",
    epilog=f"{_LIMITS_HELP} Example: dreamery keys limits key_0198... --set credits_per_month=500",
)
def keys_limits(
    key_id: _KeyId,
    hard: _Set = None,
    soft: _Warn = None,
    url: UrlOption = "",
    key: KeyOption = "",
    *,
    as_json: JsonOption = False,
) -> None:
    """Show or set the limits of one key, which apply in addition to the user's limits."""
    change = _limit_change(hard, soft)
    client, path = _find_key(url, key, key_id)
    print_object(client.patch(path, change) if change else client.get(path), as_json=as_json)


@keys_app.command("add", epilog=f"Example: dreamery keys add alice --name laptop --model {shipped_model('image')}")
def keys_add(
    user: _User,
    name: Annotated[str, typer.Option(help="Name of the key.")] = "default",
    scope: Annotated[list[str] | None, typer.Option(help="generate, read or admin. Repeatable. Default: all.")] = None,
    model: Annotated[list[str] | None, typer.Option(help="Model the key can use. Repeatable. Default: all.")] = None,
    provider: Annotated[
        list[str] | None, typer.Option(help="Provider whose accounts it can use. Repeatable. Default: all.")
    ] = None,
    account: Annotated[
        list[str] | None, typer.Option(help="Account it can use, by label or id. Repeatable. Default: all.")
    ] = None,
    group: Annotated[
        list[str] | None, typer.Option(help="Group whose accounts it can use. Repeatable. Default: all.")
    ] = None,
    expires: Annotated[str | None, typer.Option(help="Expiry time, such as 2027-01-31T00:00:00Z.")] = None,
    url: UrlOption = "",
    key: KeyOption = "",
    *,
    as_json: JsonOption = False,
) -> None:
    """Create a key. The key is shown only once."""
    body = {"user": user, "name": name, "scopes": scope or None, "models": model or None, "expires_at": expires}
    body |= {"providers": provider or None, "accounts": account or None, "account_groups": group or None}
    made = platform_client(url, key).post("/admin/v1/keys", {k: v for k, v in body.items() if v is not None})
    print_with_secret(made, "key", "Key", as_json=as_json)


@keys_app.command("accounts", epilog="Example: dreamery keys accounts key_0198... --group studio")
def keys_accounts(
    key_id: _KeyId,
    account: Annotated[list[str] | None, typer.Option(help="Account, by label or id. Repeatable.")] = None,
    group: Annotated[list[str] | None, typer.Option(help="Group of accounts. Repeatable.")] = None,
    provider: Annotated[list[str] | None, typer.Option(help="Provider. Repeatable.")] = None,
    url: UrlOption = "",
    key: KeyOption = "",
    *,
    as_json: JsonOption = False,
) -> None:
    """Set whose accounts the jobs of a key can use. Without an option: all."""
    selection = {"accounts": account or None, "account_groups": group or None, "providers": provider or None}
    client, path = _find_key(url, key, key_id)
    print_object(client.patch(path, selection), as_json=as_json)


@keys_app.command("list", epilog="Example: dreamery keys list --user alice")
def keys_list(
    user: Annotated[str | None, typer.Option(help="Only keys of this user.")] = None,
    url: UrlOption = "",
    key: KeyOption = "",
    *,
    as_json: JsonOption = False,
) -> None:
    """List keys, without the keys themselves."""
    print_list(list(platform_client(url, key).list_all("/admin/v1/keys", user=user)), _KEY_COLUMNS, as_json=as_json)


@keys_app.command("show", epilog="Example: dreamery keys show key_0198...")
def keys_show(key_id: _KeyId, url: UrlOption = "", key: KeyOption = "", *, as_json: JsonOption = False) -> None:
    """Show the scopes, limits and last use of a key."""
    client, path = _find_key(url, key, key_id)
    print_object(client.get(path), as_json=as_json)


@keys_app.command("rotate", epilog="Example: dreamery keys rotate key_0198... --grace 86400")
def keys_rotate(
    key_id: _KeyId,
    grace: Annotated[int, typer.Option(min=0, help="Seconds the old key stays valid.")] = 0,
    url: UrlOption = "",
    key: KeyOption = "",
    *,
    as_json: JsonOption = False,
) -> None:
    """Rotate a key: create a new one with the same rights."""
    client, path = _find_key(url, key, key_id, "/rotate")
    print_with_secret(client.post(path, {"grace_seconds": grace}), "key", "Key", as_json=as_json)


@keys_app.command("disable", epilog="Example: dreamery keys disable key_0198...")
def keys_disable(key_id: _KeyId, url: UrlOption = "", key: KeyOption = "", *, as_json: JsonOption = False) -> None:
    """Revoke a key immediately and permanently."""
    client, path = _find_key(url, key, key_id)
    print_object(client.delete(path), as_json=as_json)


@audit_app.command("list", epilog="Example: dreamery audit list --action key --json > audit.json")
def audit_list(
    action: Annotated[str | None, typer.Option(help="Action, such as key.revoke, or key for all key actions.")] = None,
    url: UrlOption = "",
    key: KeyOption = "",
    *,
    as_json: JsonOption = False,
) -> None:
    """Show the newest entries of the audit log; with --json the whole log."""
    client = platform_client(url, key)
    entries = list(client.list_all("/admin/v1/audit", action=action)) if as_json else []
    entries = entries or client.get("/admin/v1/audit", action=action)["data"]
    print_list(entries, ("at", "actor", "address", "action", "target", "details"), as_json=as_json)


@audit_app.command("export", epilog="Example: dreamery audit export --csv --out audit.csv")
def audit_export(
    action: Annotated[str | None, typer.Option(help="Action, such as key.revoke, or key for all key actions.")] = None,
    out: Annotated[Path | None, typer.Option(help="File to write; default: standard output.")] = None,
    url: UrlOption = "",
    key: KeyOption = "",
    *,
    as_csv: Annotated[bool, typer.Option("--csv", help="CSV instead of a JSON object per line.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Export the whole audit log, oldest first, as JSON lines (default) or CSV."""
    if as_csv and as_json:
        raise typer.BadParameter("Choose one of --csv and --json.")
    client, form = platform_client(url, key), "csv" if as_csv else "jsonl"
    if out is None:
        client.copy("/admin/v1/audit/export", sys.stdout.buffer, action=action, format=form)
        return
    partial_file = out.with_name(f"{out.name}.part")
    with partial_file.open("wb") as file:
        client.copy("/admin/v1/audit/export", file, action=action, format=form)
    partial_file.replace(out)


def _without_none(**values: float | None) -> dict[str, float]:
    return {name: value for name, value in values.items() if value is not None}
