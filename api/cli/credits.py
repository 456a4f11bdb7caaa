"""`dreamery prices` and `dreamery accounts credits`: each command is one call of the admin API."""

from typing import Annotated

import typer

from api.cli.accounts import AccountId, accounts_app
from api.cli.output import JsonOption, KeyOption, UrlOption, platform_client, print_list, print_object, quoted

prices_app = typer.Typer(no_args_is_help=True, help="What jobs cost in credits, as far as known.")

_PRICE_COLUMNS = ("place", "kind", "model", "shape", "credits", "source", "jobs")


@prices_app.command("list", epilog="Example: dreamery prices list --model jimeng-4.0")
def prices_list(
    model: Annotated[str | None, typer.Option(help="Only this model's learned prices.")] = None,
    url: UrlOption = "",
    key: KeyOption = "",
    *,
    as_json: JsonOption = False,
) -> None:
    """List learned prices, and the starting values of the catalog."""
    print_list(platform_client(url, key).get("/admin/v1/prices", model=model)["data"], _PRICE_COLUMNS, as_json=as_json)


@accounts_app.command("credits", epilog="Example: dreamery accounts credits account_0198... --days 7")
def accounts_credits(
    account: AccountId,
    days: Annotated[int, typer.Option(min=1, max=400, help="How far back.")] = 7,
    url: UrlOption = "",
    key: KeyOption = "",
    *,
    as_json: JsonOption = False,
) -> None:
    """Show what an account has left, what is held for open jobs, and what was spent on each day."""
    found = platform_client(url, key).get(f"/admin/v1/accounts/{quoted(account)}/credits", days=str(days))
    if as_json:
        print_object(found, as_json=True)
        return
    names = ("id", "credits", "left", "reserved")
    print_object({name: found[name] for name in names}, as_json=False)
    for title, rows, columns in (
        ("Open jobs", found["open_jobs"], ("id", "kind", "model", "price", "taken")),
        ("Spent per day (UTC)", found["spent"], ("day", "jobs", "credits", "settled", "unknown")),
        ("Daily credits", found["receives"], ("day", "how", "gained", "error")),
    ):
        typer.echo(f"\n{title}")
        print_list(rows, columns, as_json=False)
