"""What commands share: which platform and key they talk to, and how they print what they were told."""

import json
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from api.cli.api_client import Client, Json

_LEAST_CUT = 22
SANDBOX_KEY = "demo:sandbox"
UrlOption = Annotated[
    str, typer.Option("--url", envvar="DREAMERY_URL", help="Address of the platform; default: the one running here.")
]
KeyOption = Annotated[
    str,
    typer.Option("--key", envvar="DREAMERY_ADMIN_KEY", help="API key or session token; default: this machine's admin."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for scripts.")]


def platform_client(url: str, key: str) -> Client:
    """The platform and key that were named, else those of the platform on this machine, else the sandbox's key."""
    if url and key:
        return Client(url=url, key=key)
    # Slow to read in, and not needed where all is said.
    from worker.core.settings import get_settings
    from worker.local.running_instance import running_platform

    settings = get_settings()
    running = running_platform(settings.data_dir)
    key_file = settings.data_dir / "keys" / "admin.key"
    if not key:
        key = settings.admin_key.get_secret_value()
    if not key and running and url.rstrip("/") in {"", running.url.rstrip("/")} and key_file.exists():
        key = key_file.read_text().strip()
    local = f"http://{settings.api_host}:{settings.api_port}"
    return Client(url=url or (running.url if running else local), key=key or SANDBOX_KEY)


def print_object(found: Json, *, as_json: bool) -> None:
    """One object: for scripts, or a line per field."""
    if as_json:
        print(json.dumps(found, indent=2))
        return
    table = Table(show_header=False, box=None, pad_edge=False)
    for name, value in found.items():
        if name != "object":
            table.add_row(name, Text(_shown(value)))
    Console(soft_wrap=True).print(table)


def print_list(found: list[Json], columns: tuple[str, ...], *, as_json: bool, cut: str = "") -> None:
    """Many objects: for scripts, or a line each. Where the terminal is too narrow for that, a line per field.

    Ids are never cut: they are there to be copied. The column `cut` is, to what the others leave of the line.
    """
    if as_json:
        print(json.dumps({"data": found}, indent=2))
        return
    if not found:
        print("None.")
        return
    rows = [[_shown(item.get(column)) for column in columns] for item in found]
    screen = Console()
    widths = [max(len(row[n]) for row in [list(columns), *rows]) + 2 for n in range(len(columns))]
    if cut:
        place = columns.index(cut)
        room = max(screen.width - sum(widths) + widths[place], _LEAST_CUT)
        for row in rows:
            row[place] = row[place] if len(row[place]) < room else f"{row[place][: room - 3]}…"
        widths[place] = min(widths[place], room)
    if sum(widths) > screen.width + 2 and screen.is_terminal:
        _print_blocks(screen, rows, columns)
        return
    table = Table(*columns, box=None, pad_edge=False)
    for row in rows:
        table.add_row(*map(Text, row))
    # Both sizes, or a terminal that cannot tell its own counts as 80 wide whatever is said here.
    Console(width=max(sum(widths), screen.width), height=screen.height).print(table)


def _print_blocks(screen: Console, rows: list[list[str]], columns: tuple[str, ...]) -> None:
    """An object after the other, its fields below each other."""
    longest = max(map(len, columns))
    for number, row in enumerate(rows):
        if number:
            screen.print()
        for name, value in zip(columns, row, strict=True):
            # Wrapped by the terminal, not by us: a copied id stays whole.
            screen.print(Text(f"{name.ljust(longest)}  {value}"), soft_wrap=True)


def _shown(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, list):
        return ", ".join(map(str, value))
    if isinstance(value, dict):
        return ", ".join(f"{name}: {_shown(one)}" for name, one in value.items() if one is not None) or "-"
    return str(value).replace("\n", " ")


def quoted(text: str) -> str:
    """A name as part of a path."""
    from urllib.parse import quote

    return quote(text, safe="")
