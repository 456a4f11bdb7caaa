"""Generates `docs/configuration.md` from the settings class (`dreamery doctor --settings --markdown`)."""

from pydantic import SecretStr

from worker.core.catalog.provider_data import all_constants
from worker.core.settings import FORMER_NAMES, Settings

# Setting name -> heading before it, in the order of the class.
_HEADINGS = {
    "env": "Platform",
    "default_region": "Upstream and its addresses",
    "sync_wait_seconds": "Requests",
    "account_max_images": "Limits of accounts and callers",
    "poll_min_seconds": "Polling and the tick",
    "storage_url": "Storage and time",
    "log_format": "Logs",
    "image_deadline_seconds": "Deadlines, leases and tries",
    "models_refresh_seconds": "Habits of upstream",
    "api_port": "Processes and sizes",
}
_INTRODUCTION = """# Configuration

Each process reads its settings once at start, from the environment or a file `.env` in the working folder. An invalid
value stops the process and names the setting. Booleans are `on`/`off`, `true`/`false`, `1`/`0`. `dreamery doctor
--settings` shows all settings with their current values (secrets only as set or not).

Generated from `worker/core/settings.py` by `dreamery doctor --settings --markdown`; a test keeps them in sync.
"""
_CONSTANTS = """
## Constants of providers

Texts of the wire that an upstream changes now and then. `[wire]` of the [catalog file](models.md) wins over them.

| name | default | meaning |
|---|---|---|
"""
_FORMER_NAMES = """
## Former names

These names of earlier versions are still accepted. If both are set, the present name wins.

| former name | present name |
|---|---|
"""


def settings_reference() -> str:
    """Return the whole page as Markdown."""
    lines = [_INTRODUCTION]
    for name, field in Settings.model_fields.items():
        if name == "provider_constants":
            continue
        if name in _HEADINGS:
            lines.append(f"\n## {_HEADINGS[name]}\n\n| name | default | meaning |\n|---|---|---|\n")
        meaning = (field.description or "").replace("|", "\\|")
        lines.append(f"| `DREAMERY_{name.upper()}` | {_default(field.default)} | {meaning} |\n")
    lines.append(_CONSTANTS)
    lines += [
        f"| `DREAMERY_{constant.setting.upper()}` | `{constant.default}` | {constant.description} |\n"
        for constant in all_constants()
    ]
    renamed = FORMER_NAMES | {one.former: one.setting for one in all_constants() if one.former}
    former = [f"| `DREAMERY_{old.upper()}` | `DREAMERY_{new.upper()}` |\n" for old, new in renamed.items()]
    return "".join([*lines, _FORMER_NAMES, *former])


def _default(value: object) -> str:
    if isinstance(value, SecretStr):
        value = value.get_secret_value()
    if isinstance(value, bool):
        return "on" if value else "off"
    return f"`{value}`" if value not in {"", None} else ""
