"""`dreamery users`, `keys` and `audit`: each command is one call of the admin API."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from api.cli.api_client import Json
from api.cli.output import JsonOption, KeyOption, UrlOption, platform_client, print_list, print_object, quoted

users_app = typer.Typer(no_args_is_help=True, help="Users of the platform.")
keys_app = typer.Typer(no_args_is_help=True, help="API keys of the users.")
log_app = typer.Typer(no_args_is_help=True, help="What administrators did.")

_USER_COLUMNS = ("id", "name", "role", "groups", "weight", "priority", "retention_days", "disabled")
_KEY_COLUMNS = ("id", "user", "name", "prefix", "status", "scopes", "models")
_Set = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="NAME=VALUE", help="A limit that refuses: a number, unlimited, or default; repeat."),
]
_Warn = Annotated[
    list[str] | None, typer.Option("--warn", metavar="NAME=VALUE", help="A limit that only warns; repeat.")
]
_LIMITS_HELP = (
    "NAME is requests_per_minute, open_jobs, jobs_per_day, jobs_per_month, credits_per_day or credits_per_month."
)
_User = Annotated[str, typer.Argument(help="Name or id of the user.")]
_KeyId = Annotated[str, typer.Argument(help="Id of the key, as `dreamery keys list` shows it.")]


_Weight = Annotated[float | None, typer.Option(help="Share when several wait, 0.1 to 100; 1 is usual.")]
_Priority = Annotated[int | None, typer.Option(help="-5 to 5: each step goes before 20 turns of the others.")]


@users_app.command("add", epilog="Example: dreamery users add alice --role member --weight 2")
def users_add(  # noqa: PLR0917 - each is an option of the command
    name: Annotated[str, typer.Argument(help="A name nobody has yet.")],
    role: Annotated[str, typer.Option(help="admin, member or viewer.")] = "member",
    weight: _Weight = None,
    priority: _Priority = None,
    url: UrlOption = "",
    key: KeyOption = "",
    *,
    as_json: JsonOption = False,
) -> None:
    """Add a user."""
    wish = {"name": name, "role": role, **_given(weight=weight, priority=priority)}
    print_object(platform_client(url, key).post("/admin/v1/users", wish), as_json=as_json)


@users_app.command("list", epilog="Example: dreamery users list --json")
def users_list(url: UrlOption = "", key: KeyOption = "", *, as_json: JsonOption = False) -> None:
    """List all users."""
    print_list(list(platform_client(url, key).every("/admin/v1/users")), _USER_COLUMNS, as_json=as_json)


@users_app.command("show", epilog="Example: dreamery users show alice")
def users_show(user: _User, url: UrlOption = "", key: KeyOption = "", *, as_json: JsonOption = False) -> None:
    """Show one user."""
    print_object(platform_client(url, key).get(f"/admin/v1/users/{quoted(user)}"), as_json=as_json)


@users_app.command("disable", epilog="Example: dreamery users disable alice")
def users_disable(user: _User, url: UrlOption = "", key: KeyOption = "", *, as_json: JsonOption = False) -> None:
    """Switch a user off: all their keys stop working at once."""
    found = platform_client(url, key).patch(f"/admin/v1/users/{quoted(user)}", {"disabled": True})
    print_object(found, as_json=as_json)


@users_app.command("enable", epilog="Example: dreamery users enable alice")
def users_enable(user: _User, url: UrlOption = "", key: KeyOption = "", *, as_json: JsonOption = False) -> None:
    """Switch a user on again."""
    found = platform_client(url, key).patch(f"/admin/v1/users/{quoted(user)}", {"disabled": False})
    print_object(found, as_json=as_json)


@users_app.command("role", epilog="Example: dreamery users role alice viewer")
def users_role(
    user: _User,
    role: Annotated[str, typer.Argument(help="admin, member or viewer.")],
    url: UrlOption = "",
    key: KeyOption = "",
    *,
    as_json: JsonOption = False,
) -> None:
    """Give a user another role."""
    found = platform_client(url, key).patch(f"/admin/v1/users/{quoted(user)}", {"role": role})
    print_object(found, as_json=as_json)


@users_app.command("groups", epilog="Example: dreamery users groups alice studio teachers")
def users_groups(
    user: _User,
    groups: Annotated[
        list[str] | None, typer.Argument(help="All groups of the user from now on; none = no group.")
    ] = None,
    url: UrlOption = "",
    key: KeyOption = "",
    *,
    as_json: JsonOption = False,
) -> None:
    """Put a user into groups: it may use the accounts that are kept for them."""
    found = platform_client(url, key).patch(f"/admin/v1/users/{quoted(user)}", {"groups": groups or []})
    print_object(found, as_json=as_json)


@users_app.command("retention", epilog="Example: dreamery users retention alice 30")
def users_retention(
    user: _User,
    days: Annotated[str, typer.Argument(help="Days results are kept, 0 = for ever, default = the platform's setting.")],
    url: UrlOption = "",
    key: KeyOption = "",
    *,
    as_json: JsonOption = False,
) -> None:
    """Say how long a user's results are kept."""
    if days != "default" and not days.isdecimal():
        raise typer.BadParameter(f"{days!r} is no number of days; say a number or `default`.")
    change = {"retention_days": None if days == "default" else int(days)}
    print_object(platform_client(url, key).patch(f"/admin/v1/users/{quoted(user)}", change), as_json=as_json)


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
    """Say how much of the accounts a user gets, and how soon, while others wait too."""
    wish = _given(weight=weight, priority=priority)
    if not wish:
        raise typer.BadParameter("give --weight, --priority or both")
    print_object(platform_client(url, key).patch(f"/admin/v1/users/{quoted(user)}", wish), as_json=as_json)


def _limits(given: list[str] | None, option: str) -> Json:
    """`jobs_per_day=100` and so on as a body holds them; `default` takes a limit away."""
    wanted: Json = {}
    for one in given or []:
        name, equals, value = one.partition("=")
        if not equals or not (value.isdigit() or value in {"unlimited", "default"}):
            raise typer.BadParameter(
                f"Say NAME=NUMBER, NAME=unlimited or NAME=default, not {one!r}.", param_hint=option
            )
        wanted[name.strip().replace("-", "_")] = {"default": None}.get(value, int(value) if value.isdigit() else value)
    return wanted


def _limit_change(hard: list[str] | None, soft: list[str] | None) -> Json:
    found = {"limits": _limits(hard, "--set"), "soft_limits": _limits(soft, "--warn")}
    return {name: wanted for name, wanted in found.items() if wanted}


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
    """Show or set the limits of a user, which count all keys together."""
    client, path, change = platform_client(url, key), f"/admin/v1/users/{quoted(user)}", _limit_change(hard, soft)
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
    """Show or set the limits of one key, which come on top of those of its user."""
    client, path, change = platform_client(url, key), f"/admin/v1/keys/{quoted(key_id)}", _limit_change(hard, soft)
    print_object(client.patch(path, change) if change else client.get(path), as_json=as_json)


@keys_app.command("add", epilog="Example: dreamery keys add alice --name laptop --model jimeng-4.0")
def keys_add(  # noqa: PLR0917 - each is an option of the command
    user: _User,
    name: Annotated[str, typer.Option(help="What it is for.")] = "default",
    scope: Annotated[list[str] | None, typer.Option(help="generate, read or admin; repeat. Default: all.")] = None,
    model: Annotated[list[str] | None, typer.Option(help="A model it may use; repeat. Default: all.")] = None,
    expires: Annotated[str | None, typer.Option(help="When it ends: 2027-01-31T00:00:00Z.")] = None,
    url: UrlOption = "",
    key: KeyOption = "",
    *,
    as_json: JsonOption = False,
) -> None:
    """Make a key. It is shown this once."""
    wish = {"user": user, "name": name, "scopes": scope or None, "models": model or None, "expires_at": expires}
    found = platform_client(url, key).post("/admin/v1/keys", {k: v for k, v in wish.items() if v is not None})
    print_object(found, as_json=as_json)


@keys_app.command("list", epilog="Example: dreamery keys list --user alice")
def keys_list(
    user: Annotated[str | None, typer.Option(help="Only this user's.")] = None,
    url: UrlOption = "",
    key: KeyOption = "",
    *,
    as_json: JsonOption = False,
) -> None:
    """List keys; the keys themselves are never shown."""
    print_list(list(platform_client(url, key).every("/admin/v1/keys", user=user)), _KEY_COLUMNS, as_json=as_json)


@keys_app.command("show", epilog="Example: dreamery keys show key_0198...")
def keys_show(key_id: _KeyId, url: UrlOption = "", key: KeyOption = "", *, as_json: JsonOption = False) -> None:
    """Show what a key may do and when it was used last."""
    print_object(platform_client(url, key).get(f"/admin/v1/keys/{quoted(key_id)}"), as_json=as_json)


@keys_app.command("rotate", epilog="Example: dreamery keys rotate key_0198... --grace 86400")
def keys_rotate(
    key_id: _KeyId,
    grace: Annotated[int, typer.Option(min=0, help="Seconds the old key works on.")] = 0,
    url: UrlOption = "",
    key: KeyOption = "",
    *,
    as_json: JsonOption = False,
) -> None:
    """Replace a key by a new one with the same rights."""
    path = f"/admin/v1/keys/{quoted(key_id)}/rotate"
    print_object(platform_client(url, key).post(path, {"grace_seconds": grace}), as_json=as_json)


@keys_app.command("disable", epilog="Example: dreamery keys disable key_0198...")
def keys_disable(key_id: _KeyId, url: UrlOption = "", key: KeyOption = "", *, as_json: JsonOption = False) -> None:
    """Revoke a key at once and for good."""
    print_object(platform_client(url, key).delete(f"/admin/v1/keys/{quoted(key_id)}"), as_json=as_json)


@log_app.command("list", epilog="Example: dreamery audit list --action key --json > audit.json")
def log_list(
    action: Annotated[str | None, typer.Option(help="Such as key.revoke, or key for all acts on keys.")] = None,
    url: UrlOption = "",
    key: KeyOption = "",
    *,
    as_json: JsonOption = False,
) -> None:
    """The audit log, newest first; with --json the whole of it, as an export."""
    client = platform_client(url, key)
    found = list(client.every("/admin/v1/audit", action=action)) if as_json else []
    found = found or client.get("/admin/v1/audit", action=action)["data"]
    print_list(found, ("at", "actor", "address", "action", "target", "details"), as_json=as_json)


@log_app.command("export", epilog="Example: dreamery audit export --csv --out audit.csv")
def log_export(
    action: Annotated[str | None, typer.Option(help="Such as key.revoke, or key for all acts on keys.")] = None,
    out: Annotated[Path | None, typer.Option(help="File to write; default: standard output.")] = None,
    url: UrlOption = "",
    key: KeyOption = "",
    *,
    as_csv: Annotated[bool, typer.Option("--csv", help="CSV instead of a JSON object per line.")] = False,
    as_json: JsonOption = False,
) -> None:
    """The whole audit log, oldest first, as JSON lines (also with --json) or CSV."""
    if as_csv and as_json:
        raise typer.BadParameter("Choose one of --csv and --json.")
    client, form = platform_client(url, key), "csv" if as_csv else "jsonl"
    if out is None:
        client.copy("/admin/v1/audit/export", sys.stdout.buffer, action=action, format=form)
        return
    draft = out.with_name(f"{out.name}.part")
    with draft.open("wb") as file:
        client.copy("/admin/v1/audit/export", file, action=action, format=form)
    draft.replace(out)


def _given(**values: float | None) -> dict[str, float]:
    return {name: value for name, value in values.items() if value is not None}
