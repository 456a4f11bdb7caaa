"""`dreamery alerts`: what fires, the rules and the channels; each command calls the admin API."""

from typing import Annotated

import typer

from api.cli.output import JsonOption, KeyOption, UrlOption, platform_client, print_list, print_object, quote_segment

alerts_app = typer.Typer(no_args_is_help=True, help="Alerts: what fires, rules, channels, a test.")

_BASE = "/admin/v1/alerts"
_COLUMNS = ("id", "status", "rule", "text", "started_at", "resolved_at")
_RULE_COLUMNS = ("name", "enabled", "fires", "threshold", "unit", "repeat_hours", "firing")
_CHANNEL_COLUMNS = ("id", "kind", "name", "language", "disabled", "last")


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
    name: Annotated[str, typer.Option(help="Name of the channel.")] = "webhook",
    language: Annotated[str, typer.Option(help="Language of the messages: en or zh.")] = "en",
    url: UrlOption = "",
    key: KeyOption = "",
    *,
    as_json: JsonOption = False,
) -> None:
    """Add a webhook, and print the secret that signs its messages. Mail channels are added in the console."""
    body = {"kind": "webhook", "url": target, "name": name, "language": language}
    made = platform_client(url, key).post(f"{_BASE}/channels", body)
    names = ("id", "name", "url", "language", "secret")
    print_object(made if as_json else {one: made[one] for one in names}, as_json=as_json)


@alerts_app.command("test", epilog="Example: dreamery alerts test whe_0198...")
def alerts_test(
    channel: Annotated[str, typer.Argument(help="Id of the channel, see `dreamery alerts channels`.")],
    url: UrlOption = "",
    key: KeyOption = "",
    *,
    as_json: JsonOption = False,
) -> None:
    """Send a test to a channel; `dreamery alerts channels` shows the outcome."""
    sent = platform_client(url, key).post(f"{_BASE}/channels/{quote_segment(channel)}/test", {})
    print_object(sent if as_json else {"id": sent["id"], "name": sent["name"], "last": "pending"}, as_json=as_json)
