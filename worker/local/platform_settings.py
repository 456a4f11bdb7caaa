"""The options of a platform, and the settings that its supervisor needs, as plain text and numbers.

`dreamery up` reads and validates all settings, then replaces itself with a supervisor that holds only these: the
library that validates settings takes more memory than the supervisor.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from worker.local import profiles


def _ignore_notice(_line: str) -> None:
    pass


@dataclass(frozen=True, kw_only=True)
class PlatformOptions:
    """Options of a platform. None = the value of the setting; for ports: a free one if throwaway."""

    data_dir: Path | None = None
    host: str | None = None
    port: int | None = None
    workers: int = 1
    profile: str | None = None  # `small` or `standard`
    flower: str | None = None  # `on_demand`, `at_start` or `never`
    sandbox: str | None = None  # `on_demand` or `at_start`
    separate_roles: bool = False  # scheduler and conversations in processes of their own, as on several hosts
    sandbox_seconds: float = 3.0
    sandbox_spread: float = 0.0
    sandbox_credits: int | None = None
    sandbox_args: tuple[str, ...] = ()  # more arguments of `python -m worker.sandbox`
    throwaway: bool = False  # ignores the settings of the environment, free ports, no fsync: for tests and the demo
    extra_env: Mapping[str, str] = field(default_factory=dict)  # overrides everything else; full names
    restart: bool = True
    verbose: bool = False  # children write to our stderr instead of DATA_DIR/logs
    own_tmp: bool = False  # temporary files in DATA_DIR/tmp: the system's folder is read-only, or in memory
    on_notice: Callable[[str], None] = _ignore_notice  # receives one line for the terminal


# Settings that are not passed to the children as they are.
_OWN = frozenset({"profile", "flower_start", "sandbox_start", "postgres_shared_buffers_mb"})


@dataclass(frozen=True, kw_only=True)
class PlatformSettings:
    """`values` = the explicitly set settings and those of the profile, as text, by name."""

    env: str
    database_url: str
    redis_url: str
    data_dir: str
    master_key: str
    admin_key: str
    sandbox_url: str
    fetch_allow: str
    flower_url: str
    flower_password: str
    api_host: str
    api_port: int
    shutdown_grace_seconds: float
    worker_heartbeat_timeout_seconds: float
    worker_concurrency: int
    conversation_concurrency: int
    profile: str
    available_memory: int  # bytes, when the profile was chosen
    flower_start: str
    sandbox_start: str
    postgres_shared_buffers_mb: int
    values: dict[str, str] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)  # why a production platform must not start


def read_platform_settings(*, throwaway: bool, profile: str | None = None) -> PlatformSettings:
    """Read the settings. `throwaway` ignores the environment, `profile` overrides the setting."""
    from pydantic import SecretStr

    from worker.core.security import production_checks
    from worker.core.security.connection_urls import find_url_problems
    from worker.core.settings import Settings, get_settings

    # A test or a demo must not use the real database that the environment may name.
    settings = Settings.model_construct() if throwaway else get_settings()
    memory = profiles.available_memory()
    name = profile or settings.profile
    chosen = profiles.PROFILES[profiles.choose_profile(memory) if name == "auto" else name]

    def as_text(value: object) -> str:
        if isinstance(value, SecretStr):
            return value.get_secret_value()
        if isinstance(value, dict):
            return json.dumps(value)
        return str(value).lower() if isinstance(value, bool) else str(value)

    given = {name: as_text(getattr(settings, name)) for name in settings.model_fields_set if name not in _OWN}
    values = {**chosen.settings, **given}
    plain: dict[str, Any] = {
        name: getattr(settings, name)
        for name in PlatformSettings.__dataclass_fields__
        if name in Settings.model_fields and name != "profile"
    }
    for name, value in plain.items():
        plain[name] = as_text(value) if isinstance(value, SecretStr | Path) else value
    for name in ("worker_concurrency", "conversation_concurrency"):
        plain[name] = int(values.get(name, plain[name]))
    plain["postgres_shared_buffers_mb"] = plain["postgres_shared_buffers_mb"] or profiles.default_shared_buffers(
        memory, chosen.name
    )
    return PlatformSettings(
        **plain,
        profile=chosen.name,
        available_memory=memory,
        values=values,
        problems=[
            *find_url_problems(settings, required=False),
            *(production_checks.find_problems(settings) if settings.env == "production" else []),
        ],
    )
