"""`dreamery accounts prove`: the steps that prove an upstream with an account. It asks before it spends."""

import json
import threading
from typing import Annotated, Any

import typer

from api.cli.api_client import Client, Json
from api.cli.display.output import JsonOption, KeyOption, UrlOption, platform_client, quote_segment
from api.cli.display.short_ids import account_id

_PATH = "/admin/v1/accounts"
# The most that one proof may cost unless asked otherwise, in thousandths.
_MOST = {"USD": 1.0, "CNY": 7.0}
_POLL_SECONDS = 2.0
_MARKS = {True: "ok  ", False: "DIFF", None: "info"}


PROVE_EXAMPLE = "Example: dreamery accounts prove studio"


def accounts_prove(
    account: Annotated[str, typer.Argument(help="Label or id of the account.")],
    max_cost: Annotated[float | None, typer.Option(help="The most it may cost; default 1 USD or 7 CNY.")] = None,
    only: Annotated[list[str] | None, typer.Option(help="Only this step. Repeatable.")] = None,
    clip: Annotated[str, typer.Option(help="Link to an MP4 that upstream can open, such as one of this server.")] = "",
    task: Annotated[str, typer.Option(help="Id of a task of an earlier proof, for `--only expiry`.")] = "",
    url: UrlOption = "",
    key: KeyOption = "",
    *,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask before steps that cost money.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Prove with a real account what an upstream's documents only say, cheapest steps first. Prints a report.

    Before the first step that costs money it names the most that they may cost together, and asks.
    """
    client = platform_client(url, key)
    path = f"{_PATH}/{quote_segment(account_id(client, account))}/prove"
    listed = client.post(path, {})
    currency, steps = listed["currency"], _chosen(listed["steps"], only or [])
    most = _MOST.get(currency, 1.0) if max_cost is None else max_cost
    may_spend: bool | None = True if yes else None
    known: Json = {name: text for name, text in (("clip", clip), ("expiry", task)) if text}
    report, spent = list[Json](), 0
    for step in steps:
        if step["cost"] and may_spend is None:
            may_spend = _confirm(steps, currency, most)
        if step["cost"] and not may_spend:
            findings = [{"text": "skipped: it costs money", "ok": None}]
        elif spent + step["cost"] > most * 1000:
            findings = [{"text": f"skipped: it may cost {step['cost'] / 1000:.3f}, more than is left", "ok": None}]
        else:
            spent += step["cost"]
            result = _run(client, path, step["name"], known)
            known |= result["known"]
            findings = result["findings"]
        report.append({**step, "findings": findings})
        if not as_json:
            _print(step, findings)
    _finish(report, spent, currency, as_json=as_json)


def _chosen(steps: list[Json], only: list[str]) -> list[Json]:
    names = [step["name"] for step in steps]
    if unknown := [name for name in only if name not in names]:
        raise typer.BadParameter(f"{unknown[0]!r} is not one of {', '.join(names)}", param_hint="--only")
    return [step for step in steps if not only or step["name"] in only]


def _confirm(steps: list[Json], currency: str | None, most: float) -> bool:
    paid = [step for step in steps if step["cost"]]
    cost = min(sum(step["cost"] for step in paid) / 1000, most)
    names = ", ".join(step["name"] for step in paid)
    text = f"The next steps cost money ({names}): at most {cost:.2f} {currency or 'credits'} together. Go on?"
    return typer.confirm(text, err=True)


def _run(client: Client, path: str, step: str, known: Json) -> Json:
    result = client.post(path, {"step": step, "known": known})
    while not result["done"]:
        threading.Event().wait(_POLL_SECONDS)
        result = client.get(f"{path}/{quote_segment(result['id'])}")
    return dict(result)


def _print(step: Json, findings: list[Json]) -> None:
    cost = f" (at most {step['cost'] / 1000:.3f})" if step["cost"] else ""
    typer.echo(f"{step['name']}: {step['title']}{cost}")
    for finding in findings:
        typer.echo(f"  {_MARKS[finding['ok']]} {finding['text']}")


def _finish(report: list[Json], spent: int, currency: str | None, *, as_json: bool) -> None:
    differing = sum(finding["ok"] is False for step in report for finding in step["findings"])
    if as_json:
        summary: dict[str, Any] = {"steps": report, "most_spent": spent, "currency": currency, "differing": differing}
        print(json.dumps(summary, indent=2))
    else:
        end = "all as expected" if not differing else f"{differing} findings differ from what was expected"
        typer.echo(f"{len(report)} steps, {end}; spent at most {spent / 1000:.3f} {currency or 'credits'}.")
    if differing:
        raise typer.Exit(1)
