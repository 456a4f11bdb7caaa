"""The checks of `dreamery doctor`, with a hint for each failure, and the schema upgrade of `dreamery migrate`."""

import os
import time
from collections.abc import Callable
from typing import Any

from pydantic import SecretStr
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from api.cli.display.error_words import GIVE_A_KEY
from api.cli.display.output import choose_client
from api.cli.operator import public_url_checks, storage_checks
from api.cli.operator.findings import Finding, first_line
from worker.core.catalog.provider_data import all_constants
from worker.core.security import configuration
from worker.core.security.connection_urls import find_url_problems
from worker.core.security.production_checks import find_problems, find_warnings
from worker.core.security.setting_names import find_misspelled
from worker.core.settings import Settings, get_settings
from worker.local.processes import StartError
from worker.local.running_instance import find_running_platform

MAX_CLOCK_DIFFERENCE = 5.0
_NO_DATABASE = "Set DREAMERY_DATABASE_URL, or start a platform on this machine with `dreamery up`."


def adopt_running_platform() -> None:
    """Use the servers of a `dreamery up` that runs on this data folder, for those that are not set.

    Sets environment variables before the settings are read, so that all modules see the same values.
    """
    settings = get_settings()
    running = find_running_platform(settings.data_dir)
    if running is None:
        return
    key_file = settings.data_dir / "keys" / "master.key"
    if not settings.master_key.get_secret_value() and key_file.exists():
        os.environ["DREAMERY_MASTER_KEY"] = key_file.read_text().strip()  # noqa: TID251
    if not settings.database_url:
        os.environ["DREAMERY_DATABASE_URL"] = running.database_url  # noqa: TID251
    if not settings.redis_url:
        os.environ["DREAMERY_REDIS_URL"] = running.redis_url  # noqa: TID251
    get_settings.cache_clear()


def upgrade_schema() -> str:
    """Upgrade the configured database and return its revision. Raises StartError if none is configured."""
    from worker.local.schema_upgrade import upgrade_schema

    configuration.warn_about_names()
    if problems := find_url_problems(get_settings(), required=False):
        raise StartError("\n".join(problems))
    if not get_settings().database_url:
        raise StartError(f"There is no database to upgrade. {_NO_DATABASE}")
    return upgrade_schema()


def wait_for_schema(seconds: float) -> str:
    """Wait until the configured database has a schema this version can use, and return its revision."""
    from worker.local.schema_upgrade import wait_for_schema

    return wait_for_schema(seconds)


def run_checks() -> list[Finding]:
    """Run all checks. A check that raises becomes a failed finding."""
    findings: list[Finding] = []
    for name, check in _CHECKS:
        try:
            findings += check()
        except Exception as error:  # noqa: BLE001 - one failing check must not hide the others
            findings.append(Finding(name, ok=False, detail=first_line(error), hint="See the message."))
    return findings


_EXIT_ADDRESS = Finding(
    "exit address",
    ok=False,
    detail="upstream rejects the sessions of all accounts of the platform",
    hint="Sessions rarely expire all at once: upstream may block the IP address of this machine. Log in with a "
    "browser from here. If that works only elsewhere, use another exit or proxy tokens (`PROXY@SESSION`).",
)


def _check_settings() -> list[Finding]:
    settings = get_settings()
    master = settings.master_key.get_secret_value() or (settings.data_dir / "keys" / "master.key").exists()
    findings = [
        Finding("settings", ok=True, detail=f"{len(settings.model_fields_set)} set, all others at their defaults")
    ]
    accepted = "on" if settings.session_tokens else "off: set DREAMERY_SESSION_TOKENS=on to accept upstream session ids"
    findings.append(Finding("settings", ok=True, detail=f"session tokens are {accepted}"))
    findings += [Finding("production", ok=False, detail=text) for text in find_problems(settings) if master]
    findings += [Finding("production", ok=True, detail=text) for text in find_warnings(settings)]
    findings += [
        Finding("settings", ok=False, detail=text, hint="Correct the name, or remove it.") for text in find_misspelled()
    ]
    if not master:
        hint = (
            "Set DREAMERY_MASTER_KEY to a long random text and keep it safe. `dreamery up` creates one automatically."
        )
        findings.append(Finding("master key", ok=False, detail="none", hint=hint))
    return findings


def _check_database() -> list[Finding]:
    from worker.db.engine import transaction
    from worker.db.jobs.queries import database_check
    from worker.db.platform import startup

    if not get_settings().database_url:
        return [Finding("database", ok=False, detail="not set, and none runs here", hint=_NO_DATABASE)]
    if wrong := _url_findings("database"):
        return wrong
    before = time.time()
    try:
        with transaction() as tx:
            status = database_check(tx)
    except Exception as error:  # noqa: BLE001 - the drivers' exceptions are private to worker.db
        reason = startup.explain(error)
        if "alembic_version" in reason:
            return [Finding("schema", ok=False, detail="the database is empty", hint="Run `dreamery migrate`.")]
        hint = "Check DREAMERY_DATABASE_URL, and that the server runs and accepts connections from this machine."
        return [Finding("database", ok=False, detail=reason, hint=hint)]
    return [
        Finding("database", ok=True, detail=f"Postgres {status['version']}"),
        _schema_finding(str(status["revision"])),
        _clock_finding(status["clock"], (before + time.time()) / 2),
        _accounts_finding(status["accounts"], status["closed_models"]),
        *_server_findings(),
        *_master_key_findings(),
        *([_EXIT_ADDRESS] if status["every_session_expired"] else []),
    ]


def _server_findings() -> list[Finding]:
    from worker.db.platform import server_checks

    return [Finding("database", found.ok, found.detail, found.hint) for found in server_checks.run()]


def _url_findings(what: str) -> list[Finding]:
    """Return what is wrong with the URL of this server: then connecting would only give a less clear message."""
    name = f"DREAMERY_{what.upper()}_URL"
    found = [text for text in find_url_problems(get_settings(), required=False) if text.startswith(name)]
    return [Finding(what, ok=False, detail=text, hint=f"Correct {name}.") for text in found]


def _schema_finding(present: str) -> Finding:
    from worker.local.schema_upgrade import is_newer, newest_revision

    newest = newest_revision()
    if present == newest or is_newer(present):
        later = "" if present == newest else f", from a later version; this version needs {newest}"
        return Finding("schema", ok=True, detail=f"{present}{later}")
    return Finding("schema", ok=False, detail=f"at {present}, newest is {newest}", hint="Run `dreamery migrate`.")


def _master_key_findings() -> list[Finding]:
    """Check that the master keys decrypt all stored secrets, and whether the older keys are still needed."""
    from worker.core.security.encryption import SecretUnreadableError, master_keys
    from worker.db.platform import encrypted_columns, root_key

    if not get_settings().master_key.get_secret_value():
        return []  # already reported by _check_settings
    try:
        newest, *older = [key.id for key in master_keys()]
        root_key.load_root_key()
    except SecretUnreadableError as error:
        hint = "Find the key in your secret store or a backup. Without it the stored session ids are lost."
        return [Finding("master key", ok=False, detail=str(error), hint=hint)]
    counts = encrypted_columns.count_by_key()
    outdated, lost = sum(counts.get(key, 0) for key in older), counts.get(None, 0)
    if outdated:
        hint = "Run `dreamery rotate-master-key`."
        return [Finding("master key", ok=False, detail=f"{outdated} secrets use an older key", hint=hint)]
    if lost:
        hint = (
            "Their key is not in DREAMERY_MASTER_KEY: append it again. Otherwise add the accounts again and rotate the "
            "webhook secrets."
        )
        return [
            Finding(
                "master key", ok=False, detail=f"{lost} secrets cannot be decrypted with any configured key", hint=hint
            )
        ]
    spare = ", the older keys can be removed" if older else ""
    return [Finding("master key", ok=True, detail=f"{newest} decrypts everything{spare}")]


def _clock_finding(database_clock: float, our_clock: float) -> Finding:
    difference = abs(database_clock - our_clock)
    hint = "Synchronize the clocks of this machine and the database (NTP). Upstream also rejects wrong clocks."
    return Finding("clock", difference <= MAX_CLOCK_DIFFERENCE, f"{difference:.1f} s off the database clock", hint)


def _accounts_finding(by_state: dict[str, int], closed: list[str]) -> Finding:
    detail = ", ".join(f"{count} {state}" for state, count in sorted(by_state.items())) or "none yet"
    if closed:
        detail += f"; closed by upstream: {', '.join(closed)}; see `dreamery accounts reopen --help`"
    usable = not by_state or by_state.get("ok", 0) > 0
    hint = "No upstream account is usable: log in again upstream and use the new session ids."
    return Finding("accounts", usable, detail, "" if usable else hint)


def _check_redis() -> list[Finding]:
    from worker.messaging import heartbeat
    from worker.messaging.redis_connection import diagnose_redis

    if not get_settings().redis_url:
        hint = "Set DREAMERY_REDIS_URL, or start a platform on this machine with `dreamery up`."
        return [Finding("redis", ok=False, detail="not set, and none runs here", hint=hint)]
    if wrong := _url_findings("redis"):
        return wrong
    if problem := diagnose_redis():
        hint = "docs/redis.md says what the URL may contain, which rights its user needs, and what to do."
        return [Finding("redis", ok=False, detail=problem, hint=hint)]
    workers = heartbeat.list_workers()
    names = [worker.name if worker.is_responsive else f"{worker.name} (unresponsive)" for worker in workers]
    responsive = any(worker.is_responsive for worker in workers)
    hint = "Start or restart workers: `dreamery up`, or the worker service of docker-compose.yml."
    return [
        _scheduler_finding(heartbeat.seconds_since("scheduler")),
        Finding("redis", ok=True, detail="answers"),
        Finding("workers", ok=responsive, detail=", ".join(names) or "no heartbeat from any worker", hint=hint),
    ]


def _scheduler_finding(seconds: float | None) -> Finding:
    hint = "Start one: `dreamery up` and `dreamery run worker --all` include it, or `dreamery run scheduler`."
    detail = "no tick was sent yet" if seconds is None else f"a tick was sent {seconds:.0f} s ago"
    recent = seconds is not None and seconds <= get_settings().worker_heartbeat_timeout_seconds
    return Finding("scheduler", ok=recent, detail=detail, hint=hint)


def _check_storage() -> list[Finding]:
    return _url_findings("storage") or storage_checks.check_storage()


def _check_commands() -> list[Finding]:
    """Say which platform and which key the other commands use here."""
    client = choose_client("", "")
    return [Finding("commands", ok=True, detail=f"they ask {client.url} with {client.key_source}. {GIVE_A_KEY}")]


_CHECKS: tuple[tuple[str, Callable[[], list[Finding]]], ...] = (
    ("settings", _check_settings),
    ("database", _check_database),
    ("redis", _check_redis),
    ("storage", _check_storage),
    ("public url", public_url_checks.check_public_url),
    ("commands", _check_commands),
    ("disk", lambda: [] if _url_findings("storage") else storage_checks.check_disks()),
)


def list_settings() -> list[dict[str, Any]]:
    """Return all settings with default, current value (secrets only as set or not) and meaning."""
    settings = get_settings()
    return [
        {
            "name": f"DREAMERY_{name.upper()}",
            "default": _format(field.default),
            "value": _current_value(settings, name),
            "meaning": field.description or "",
        }
        for name, field in Settings.model_fields.items()
        if name != "provider_constants"
    ] + [
        {
            "name": f"DREAMERY_{constant.setting.upper()}",
            "default": constant.default,
            "value": settings.provider_constants.get(constant.setting, constant.default),
            "meaning": constant.description,
        }
        for constant in all_constants()
    ]


def _current_value(settings: Settings, name: str) -> str:
    value = _format(getattr(settings, name))
    # The URLs of servers contain passwords.
    return "(set)" if name in {"database_url", "redis_url"} and value else value


def _format(value: object) -> str:
    if isinstance(value, SecretStr):
        return "(set)" if value.get_secret_value() else ""
    return str(value).lower() if isinstance(value, bool) else str(value)


def print_settings(listed: list[dict[str, Any]]) -> None:
    """Print the settings as a table. The current value is shown only if it differs from the default."""
    table = Table("name", "default", "now", "meaning", box=None, pad_edge=False)
    for row in listed:
        now = "" if row["value"] == row["default"] else row["value"]
        table.add_row(row["name"], escape(row["default"]), escape(now), escape(row["meaning"]))
    Console(highlight=False).print(table)


def print_report(findings: list[Finding]) -> None:
    """Print one line per finding, and a hint for each failure."""
    console = Console(highlight=False, soft_wrap=True)
    for finding in findings:
        mark = "[green]ok  [/]" if finding.ok else "[red]FAIL[/]"
        console.print(f"{mark} {finding.check:<11}", end=" ")
        console.print(finding.detail, markup=False)
        if not finding.ok and finding.hint:
            console.print(f"     -> {finding.hint}", markup=False)
