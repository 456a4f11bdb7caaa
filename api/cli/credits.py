"""`dreamery prices` and `dreamery accounts credits`: each command calls the admin API."""

from typing import Annotated

import typer

from api.cli.accounts import AccountId, accounts_app
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
from worker.core.catalog.provider_data import shipped_model

prices_app = typer.Typer(no_args_is_help=True, help="Show known prices of jobs, in credits and in money.")

_PRICE_COLUMNS = ("place", "kind", "model", "shape", "credits", "price", "unit", "source", "jobs")


@prices_app.command("list", epilog=f"Example: dreamery prices list --model {shipped_model('image')}")
def prices_list(
    model: Annotated[str | None, typer.Option(help="Only learned prices and list prices of this model.")] = None,
    url: UrlOption = "",
    key: KeyOption = "",
    *,
    as_json: JsonOption = False,
) -> None:
    """List learned prices, the starting values of the catalog, and list prices in money."""
    print_list(platform_client(url, key).get("/admin/v1/prices", model=model)["data"], _PRICE_COLUMNS, as_json=as_json)


@accounts_app.command("credits", epilog="Example: dreamery accounts credits account_0198... --days 7")
def accounts_credits(
    account: AccountId,
    days: Annotated[int, typer.Option(min=1, max=400, help="Number of days to show.")] = 7,
    url: UrlOption = "",
    key: KeyOption = "",
    *,
    as_json: JsonOption = False,
) -> None:
    """Show the credits of an account: balance, reservations and spending per day."""
    client = platform_client(url, key)
    path = f"/admin/v1/accounts/{quote_segment(account_id(client, account))}/credits"
    account_credits = client.get(path, days=str(days))
    if as_json:
        print_object(account_credits, as_json=True)
        return
    names = ("id", "currency", "credits", "left", "reserved")
    print_object({name: account_credits[name] for name in names}, as_json=False)
    for title, rows, columns in (
        ("Open jobs", account_credits["open_jobs"], ("id", "kind", "model", "price", "taken")),
        ("Spent per day (UTC)", account_credits["spent"], ("day", "jobs", "credits", "settled", "unknown")),
        ("Daily credits", account_credits["receives"], ("day", "how", "gained", "error")),
    ):
        typer.echo(f"\n{title}")
        print_list(rows, columns, as_json=False)
