"""Checks of DREAMERY_ENV=production, run at the start of the API and by `dreamery doctor`."""

import os
from collections.abc import Sequence

from worker.core.settings import Settings

MIN_KEY_CHARS = 32
_MIN_DISTINCT_CHARS = 12
_CREATE_ONE = "Create one: python -c 'import secrets; print(secrets.token_urlsafe(32))'"
# Parts of keys from documents, templates and tests of this and other projects.
_WELL_KNOWN = ("changeme", "change-me", "change_me", "example", "replace", "secret-key", "password", "0123456789",
               "abcdefgh", "for tests", "of the tests", "your-", "your_", "dummy", "insecure")  # fmt: skip
# Any of these settings makes Flower require a login.
_FLOWER_LOGINS = ("FLOWER_BASIC_AUTH", "FLOWER_AUTH", "FLOWER_AUTH_PROVIDER")


def find_problems(settings: Settings) -> list[str]:
    """Return the problems of the secrets, each with its fix. In development only a missing master key is a problem."""
    masters = [part.strip() for part in settings.master_key.get_secret_value().split(",") if part.strip()]
    if not masters:
        return [f"DREAMERY_MASTER_KEY is not set. {_CREATE_ONE}"]
    if settings.env != "production":
        return []
    admin = settings.admin_key.get_secret_value()
    # Older master keys are not checked: a weak one must not block its own replacement.
    found = [_weakness("DREAMERY_MASTER_KEY", masters[0]), _weakness("DREAMERY_ADMIN_KEY", admin)]
    if admin and admin in masters:
        found.append(f"DREAMERY_ADMIN_KEY and DREAMERY_MASTER_KEY must differ in production. {_CREATE_ONE}")
    return [text for text in found if text]


def _weakness(name: str, key: str) -> str:
    if len(key) < MIN_KEY_CHARS:
        return f"{name} must have at least {MIN_KEY_CHARS} characters in production. {_CREATE_ONE}"
    bare = key.removeprefix("sk-dreamery-").lower()
    if len(set(bare)) < _MIN_DISTINCT_CHARS or any(part in bare for part in _WELL_KNOWN):
        return f"{name} is easy to guess: it is repetitive or contains a well-known word. {_CREATE_ONE}"
    return ""


def find_warnings(settings: Settings) -> list[str]:
    """Return settings that production allows but that are risky."""
    if settings.env != "production":
        return []
    found = []
    if settings.public_url.startswith("http://"):
        found.append("DREAMERY_PUBLIC_URL is http: keys and images are sent unencrypted. Put a TLS proxy in front.")
    if settings.session_tokens:
        found.append("DREAMERY_SESSION_TOKENS is on: anyone with an upstream session id can use this platform.")
    if settings.sandbox_url:
        found.append("DREAMERY_SANDBOX_URL is set: sandbox accounts generate test images instead of real ones.")
    return found


def require_flower_login(settings: Settings, arguments: Sequence[str]) -> None:
    """Stop a `celery flower` that would not require a login. Raises SystemExit."""
    if settings.env != "production" or "flower" not in arguments:
        return
    has_login = any(argument.startswith(("--basic-auth", "--basic_auth", "--auth")) for argument in arguments)
    # These are settings of Flower, not of Dreamery.
    if not has_login and not any(os.environ.get(name) for name in _FLOWER_LOGINS):  # noqa: TID251
        raise SystemExit("Flower shows all tasks. Set FLOWER_BASIC_AUTH=admin:PASSWORD in production.")
