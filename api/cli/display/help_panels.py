"""The order of the commands in the help, in groups of what people want to do."""

from collections.abc import Iterator
from typing import Any

import typer
from typer.core import TyperGroup
from typer.models import CommandInfo, TyperInfo

START, MAKE, MANAGE, OPERATE = "Start", "Make", "Manage", "Operate"
_PANELS = {
    START: ("up", "demo", "doctor"),
    MAKE: ("generate", "models", "jobs", "batches", "mcp", "usage", "prices"),
    MANAGE: ("users", "keys", "accounts", "audit"),
    OPERATE: (
        *("alerts", "drain", "workers", "backup", "restore", "migrate", "rotate-master-key", "take-storage", "run"),
        "health",
    ),
}


class CommandsInPanels(TyperGroup):
    """A group whose help lists the commands in panels."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Return the names in the order of the panels."""
        order = [name for name, _ in _commands()]
        return sorted(super().list_commands(ctx), key=order.index)


def put_into_panels(app: typer.Typer) -> None:
    """Set the panel of each registered command and group. Raises KeyError for one that has none."""
    panels = dict(_commands())
    registered: list[CommandInfo | TyperInfo] = [*app.registered_commands, *app.registered_groups]
    for command in registered:
        name = command.name or (command.callback.__name__ if command.callback else "")
        command.rich_help_panel = panels[name.replace("_", "-")]


def _commands() -> Iterator[tuple[str, str]]:
    for panel, names in _PANELS.items():
        for name in names:
            yield name, panel
