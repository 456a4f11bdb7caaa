"""`dreamery alerts`: what fires, the rules and the channels; each command calls the admin API."""

import sys
from typing import Annotated

import typer

from api.cli.display.output import (
    JsonOption,
    KeyOption,
    UrlOption,
    platform_client,
    print_list,
    print_object,
    print_with_secret,
    quote_segment,
)
from api.cli.display.short_ids import channel_id

alerts_app = typer.Typer(no_args_is_help=True, help="Alerts: what fires, rules, channels, a test.")

_BASE = "/admin/v1/alerts"
_COLUMNS = ("id", "status", "rule", "text", "started_at", "resolved_at")
_RULE_COLUMNS = ("name", "enabled", "fires", "threshold", "unit", "repeat_hours", "firing")
_CHANNEL_COLUMNS = ("id", "kind", "name", "language", "disabled", "last")
_MAIL_PORTS = {"starttls": 587, "tls": 465, "none": 25}

NameOption = Annotated[str, typer.Option(help="Name of the channel.")]
LanguageOption = Annotated[str, typer.Option(help="Language of the messages: en or zh.")]
RulesOption = Annotated[
    list[str] | None, typer.Option("--rule", help="Only messages of this rule; repeat it for more. Default: all rules.")
]
ChannelArgument = Annotated[str, typer.Argument(help="Id or name of the channel, see `dreamery alerts channels`.")]


@alerts_app.command("list", epilog="Example: dreamery alerts list --firing")
def alerts_list(
    url: UrlOption = "",
    key: KeyOption = "",
    *,
    firing: Annotated[bool, typer.Option("--firing", help="Only what fires now.")] = False,
    as_json: JsonOption = False,
) -> None:
    """List the last 50 alerts, the newest first."""
    rows = platform_client(url, key).get(_BASE, status="firing" if firing else None)["data"]
    print_list(rows, _COLUMNS, as_json=as_json)


@alerts_app.command("rules", epilog="Example: dreamery alerts rules")
def alerts_rules(url: UrlOption = "", key: KeyOption = "", *, as_json: JsonOption = False) -> None:
    """List the rules with their thresholds."""
    print_list(platform_client(url, key).get(f"{_BASE}/rules")["data"], _RULE_COLUMNS, as_json=as_json)


@alerts_app.command("set", epilog="Example: dreamery alerts set account_credits_low --threshold 50 --repeat-hours 6")
def alerts_set(
    rule: Annotated[str, typer.Argument(help="Name of the rule, see `dreamery alerts rules`.")],
    threshold: Annotated[float | None, typer.Option(min=0, help="New threshold, in the unit of the rule.")] = None,
    repeat_hours: Annotated[
        float | None, typer.Option(min=0.25, max=720, help="Hours between messages about the same subject.")
    ] = None,
    url: UrlOption = "",
    key: KeyOption = "",
    *,
    enabled: Annotated[bool | None, typer.Option("--on/--off", help="Turn the rule on or off.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Change a rule."""
    given = {"threshold": threshold, "repeat_hours": repeat_hours, "enabled": enabled}
    body = {name: value for name, value in given.items() if value is not None}
    changed = platform_client(url, key).patch(f"{_BASE}/rules/{quote_segment(rule)}", body)
    print_object(changed if as_json else {name: changed[name] for name in _RULE_COLUMNS}, as_json=as_json)


@alerts_app.command("channels", epilog="Example: dreamery alerts channels")
def alerts_channels(url: UrlOption = "", key: KeyOption = "", *, as_json: JsonOption = False) -> None:
    """List the channels with the outcome of their last messages."""
    rows = platform_client(url, key).get(f"{_BASE}/channels")["data"]
    shown = [{**row, "last": (row["last_message"] or {}).get("status", "")} for row in rows]
    print_list(rows if as_json else shown, _CHANNEL_COLUMNS, as_json=as_json)


@alerts_app.command("add-webhook", epilog="Example: dreamery alerts add-webhook https://example.com/hooks/alerts")
def alerts_add_webhook(
    target: Annotated[str, typer.Argument(help="https URL that accepts POST requests.")],
    *,
    name: NameOption = "webhook",
    language: LanguageOption = "en",
    rules: RulesOption = None,
    url: UrlOption = "",
    key: KeyOption = "",
    as_json: JsonOption = False,
) -> None:
    """Add a webhook, and print the secret that signs its messages."""
    body = {"kind": "webhook", "url": target, "name": name, "language": language, "rules": rules}
    made = platform_client(url, key).post(f"{_BASE}/channels", body)
    shown = made if as_json else {one: made[one] for one in ("id", "name", "url", "language", "secret")}
    print_with_secret(shown, "secret", "Secret", as_json=as_json)


@alerts_app.command(
    "add-mail",
    epilog="Example: dreamery alerts add-mail smtp.example.com --sender dreamery@example.com --to ops@example.com "
    "--username dreamery < password.txt",
)
def alerts_add_mail(
    host: Annotated[str, typer.Argument(help="Name or IP address of the mail server.")],
    *,
    sender: Annotated[str, typer.Option(help="Address that sends.")],
    recipients: Annotated[list[str], typer.Option("--to", help="Address that receives; repeat it for more, up to 10.")],
    username: Annotated[
        str, typer.Option(help="Name for the login; the password is read from the input. Without it: no login.")
    ] = "",
    port: Annotated[
        int | None, typer.Option(min=1, max=65_535, help="Port; default 587, 465 with tls, 25 with none.")
    ] = None,
    security: Annotated[
        str, typer.Option(help="starttls, tls, or none for a server without login.", metavar="starttls|tls|none")
    ] = "starttls",
    name: NameOption = "mail",
    language: LanguageOption = "en",
    rules: RulesOption = None,
    url: UrlOption = "",
    key: KeyOption = "",
    as_json: JsonOption = False,
) -> None:
    """Add a channel that sends mail. `dreamery alerts test` sends a first one."""
    mail = {
        "host": host,
        "port": port or _MAIL_PORTS.get(security, 587),
        "security": security,
        "username": username,
        "sender": sender,
        "recipients": recipients,
    }
    body = {"kind": "email", "mail": mail, "name": name, "language": language, "rules": rules}
    client = platform_client(url, key)
    if username:
        body["password"] = _read_password()
    made = client.post(f"{_BASE}/channels", body)
    if as_json:
        print_object(made, as_json=True)
        return
    shown = {one: made[one] for one in ("id", "name", "language")}
    print_object(shown | {"server": f"{host}:{mail['port']}", "to": ", ".join(recipients)}, as_json=False)


def _read_password() -> str:
    """Ask for the password, or read the first line of the input. As an option, it would be in the list of processes."""
    if sys.stdin.isatty():
        return str(typer.prompt("Password of the mail server", hide_input=True))
    return sys.stdin.readline().rstrip("\r\n")


@alerts_app.command("remove", epilog="Example: dreamery alerts remove whe_0198...")
def alerts_remove(
    channel: ChannelArgument, url: UrlOption = "", key: KeyOption = "", *, as_json: JsonOption = False
) -> None:
    """Remove a channel with its pending messages."""
    client = platform_client(url, key)
    removed = client.delete(f"{_BASE}/channels/{quote_segment(channel_id(client, channel))}")
    print_object(removed, as_json=as_json)


@alerts_app.command("test", epilog="Example: dreamery alerts test whe_0198...")
def alerts_test(
    channel: ChannelArgument, url: UrlOption = "", key: KeyOption = "", *, as_json: JsonOption = False
) -> None:
    """Send a test to a channel; `dreamery alerts channels` shows the outcome."""
    client = platform_client(url, key)
    sent = client.post(f"{_BASE}/channels/{quote_segment(channel_id(client, channel))}/test", {})
    print_object(sent if as_json else {"id": sent["id"], "name": sent["name"], "last": "pending"}, as_json=as_json)
