"""Shared by all commands: the platform and key to use, and how results are printed."""

import json
import sys
from typing import Annotated

import typer
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from api.cli.api_client import Client, Json
from api.cli.display.error_words import GIVE_A_KEY
from api.cli.display.values import describe, is_quantity

_MIN_CUT_WIDTH = 22
SANDBOX_KEY = "demo:sandbox"
UrlOption = Annotated[
    str,
    typer.Option("--url", envvar="DREAMERY_URL", help="URL of the platform; default: the platform on this machine."),
]
KeyOption = Annotated[
    str,
    typer.Option(
        "--key", envvar="DREAMERY_ADMIN_KEY", help="API key or session id; default: the admin key of this machine."
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for scripts.")]


def platform_client(url: str, key: str) -> Client:
    """Return the client of `choose_client`. Says which key it uses if the user gave none."""
    client = choose_client(url, key)
    if client.key_source and client.key == SANDBOX_KEY:
        typer.echo(f"Using {client.key_source}. {GIVE_A_KEY}", err=True)
    elif client.key_source and sys.stderr.isatty():
        typer.echo(f"Using {client.key_source.partition(',')[0]}.", err=True)
    return client


def choose_client(url: str, key: str) -> Client:
    """Return a client for the given URL and key; defaults are the platform on this machine and the sandbox key."""
    if url and key:
        return Client(url=url, key=key)
    # Slow imports, not needed when URL and key are given.
    from worker.core.settings import get_settings
    from worker.local.running_instance import find_running_platform

    settings = get_settings()
    running = find_running_platform(settings.data_dir)
    key_file = settings.data_dir / "keys" / "admin.key"
    source = ""
    if not key:
        key = settings.admin_key.get_secret_value()
        source = "the admin key of the settings (.env or a secret file)"
    if not key and running and url.rstrip("/") in {"", running.url.rstrip("/")} and key_file.exists():
        key = key_file.read_text().strip()
        source = f"the key in {key_file}, which the platform does not have if it was started with another one"
    if not key:
        source = "the key of the sandbox, because no other was given and none was found on this machine"
    local = f"http://{settings.api_host}:{settings.api_port}"
    return Client(url=url or (running.url if running else local), key=key or SANDBOX_KEY, key_source=source)


def print_object(item: Json, *, as_json: bool) -> None:
    """Print one object as JSON or with one line per field."""
    if as_json:
        print(json.dumps(item, indent=2))
        return
    table = Table(show_header=False, box=None, pad_edge=False)
    for name, value in item.items():
        if name != "object":
            table.add_row(name, Text(describe(value, name)))
    Console(soft_wrap=True).print(table)


def print_list(items: list[Json], columns: tuple[str, ...], *, as_json: bool, cut: str = "") -> None:
    """Print objects as JSON or as a table; if the terminal is too narrow, with one line per field.

    Ids are shortened to their last digits, which all commands accept. Only the column `cut` is shortened to the
    remaining width.
    """
    if as_json:
        print(json.dumps({"data": items}, indent=2))
        return
    if not items:
        print("None.")
        return
    rows = [[describe(item.get(column), column, short_ids=True) for column in columns] for item in items]
    screen = Console()
    widths = [max(cell_len(row[n]) for row in [list(columns), *rows]) + 2 for n in range(len(columns))]
    if cut:
        cut_index = columns.index(cut)
        max_width = max(screen.width - sum(widths) + widths[cut_index], _MIN_CUT_WIDTH)
        for row in rows:
            text = Text(row[cut_index])
            text.truncate(max_width - 2, overflow="ellipsis")
            row[cut_index] = text.plain
        widths[cut_index] = min(widths[cut_index], max_width)
    if sum(widths) > screen.width + 2 and screen.is_terminal:
        _print_records(screen, rows, columns)
        return
    table = Table(box=None, pad_edge=False)
    for column in columns:
        table.add_column(column, justify="right" if _holds_numbers(items, column) else "left")
    for row in rows:
        table.add_row(*map(Text, row))
    # Rich ignores the width if the height is not given and the terminal size is unknown.
    Console(width=max(sum(widths), screen.width), height=screen.height).print(table)


def _holds_numbers(items: list[Json], column: str) -> bool:
    """Return whether a column has only numbers, apart from empty cells. Times are no numbers for a reader."""
    values = [item[column] for item in items if item.get(column) is not None]
    return bool(values) and all(is_quantity(value, column) for value in values)


def _print_records(screen: Console, rows: list[list[str]], columns: tuple[str, ...]) -> None:
    """Print each object with one line per field."""
    longest = max(map(len, columns))
    for number, row in enumerate(rows):
        if number:
            screen.print()
        for name, value in zip(columns, row, strict=True):
            # The terminal wraps the line, so a copied id stays complete.
            screen.print(Text(f"{name.ljust(longest)}  {value}"), soft_wrap=True)


def print_with_secret(item: Json, field: str, title: str, *, as_json: bool) -> None:
    """Print an object whose field is shown only this once: in the text output last, and said so."""
    if as_json:
        print_object(item, as_json=True)
        return
    shown = {name: value for name, value in item.items() if name != field and describe(value) != "-"}
    print_object(shown, as_json=False)
    print(f"\n{title}, shown only this once:\n{item[field]}")


def is_number(text: str) -> bool:
    """Return whether the text is a number that JSON and the API can carry."""
    return text.isascii() and text.isdigit() and len(text) <= 18


def quote_segment(text: str) -> str:
    """Return the text percent-encoded as one segment of a URL path."""
    from urllib.parse import quote

    return quote(text, safe="")
