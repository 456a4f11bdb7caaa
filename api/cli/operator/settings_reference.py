"""`docs/configuration.md`, made from the settings class (`dreamery doctor --settings --markdown`)."""

from pydantic import SecretStr

from worker.core.settings import Settings

# A heading stands before its first setting; the order is that of the class.
_HEADINGS = {
    "env": "Platform",
    "default_region": "Upstream and its addresses",
    "sync_wait_seconds": "Requests",
    "account_max_images": "Limits of accounts and callers",
    "poll_min_seconds": "Polling and the tick",
    "storage_url": "Storage and time",
    "log_format": "Logs",
    "image_deadline_seconds": "Deadlines, leases and tries",
    "upstream_sign_ver": "Wire constants and habits of upstream",
    "api_port": "Processes and sizes",
}
_INTRODUCTION = """# Configuration

Every setting, from the environment or a file `.env` in the working folder, read once at start by each process. A wrong
value stops the process with the setting's name. Booleans are `on`/`off`, `true`/`false`, `1`/`0`. `dreamery doctor
--settings` shows them with their present values (secrets only as set or not).

Made from `worker/core/settings.py` by `dreamery doctor --settings --markdown`; a test holds the two together.
"""


def settings_reference() -> str:
    """The whole page as Markdown."""
    lines = [_INTRODUCTION]
    for name, field in Settings.model_fields.items():
        if name in _HEADINGS:
            lines.append(f"\n## {_HEADINGS[name]}\n\n| name | default | meaning |\n|---|---|---|\n")
        meaning = (field.description or "").replace("|", "\\|")
        lines.append(f"| `DREAMERY_{name.upper()}` | {_default(field.default)} | {meaning} |\n")
    return "".join(lines)


def _default(value: object) -> str:
    if isinstance(value, SecretStr):
        value = value.get_secret_value()
    if isinstance(value, bool):
        return "on" if value else "off"
    return f"`{value}`" if value not in {"", None} else ""
