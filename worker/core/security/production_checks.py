"""What DREAMERY_ENV=production refuses, and warns of. Asked by the API when it starts, and by `dreamery doctor`."""

import os
from collections.abc import Sequence

from worker.core.settings import Settings

MIN_KEY_CHARS = 32
_LEAST_DISTINCT = 12
_MAKE_ONE = "Make one: python -c 'import secrets; print(secrets.token_urlsafe(32))'"
# Parts of keys that stand in documents, templates and tests of this and of other projects.
_WELL_KNOWN = ("changeme", "change-me", "change_me", "example", "replace", "secret-key", "password", "0123456789",
               "abcdefgh", "for tests", "of the tests", "your-", "your_", "dummy", "insecure")  # fmt: skip
# Any of these puts a login before Flower.
_FLOWER_LOGINS = ("FLOWER_BASIC_AUTH", "FLOWER_AUTH", "FLOWER_AUTH_PROVIDER")


def refusals(settings: Settings) -> list[str]:
    """What is wrong with the secrets, each with what to do; in development only that there is no master key."""
    masters = [part.strip() for part in settings.master_key.get_secret_value().split(",") if part.strip()]
    if not masters:
        return [f"DREAMERY_MASTER_KEY is not set. {_MAKE_ONE}"]
    if settings.env != "production":
        return []
    admin = settings.admin_key.get_secret_value()
    # The older master keys are on their way out: a weak one must not be in the way of its own replacement.
    found = [_weakness("DREAMERY_MASTER_KEY", masters[0]), _weakness("DREAMERY_ADMIN_KEY", admin)]
    if admin and admin in masters:
        found.append(f"DREAMERY_ADMIN_KEY and DREAMERY_MASTER_KEY must differ in production. {_MAKE_ONE}")
    return [text for text in found if text]


def _weakness(name: str, key: str) -> str:
    if len(key) < MIN_KEY_CHARS:
        return f"{name} must have at least {MIN_KEY_CHARS} characters in production. {_MAKE_ONE}"
    bare = key.removeprefix("sk-dreamery-").lower()
    if len(set(bare)) < _LEAST_DISTINCT or any(part in bare for part in _WELL_KNOWN):
        return f"{name} can be guessed: it repeats itself or holds a well-known word. {_MAKE_ONE}"
    return ""


def warnings(settings: Settings) -> list[str]:
    """What production allows but somebody should know."""
    if settings.env != "production":
        return []
    found = []
    if settings.public_url.startswith("http://"):
        found.append("DREAMERY_PUBLIC_URL is http: keys and pictures travel readable. Put a TLS proxy in front.")
    if settings.session_tokens:
        found.append("DREAMERY_SESSION_TOKENS is on: whoever has any upstream session id may use this platform.")
    if settings.sandbox_url:
        found.append("DREAMERY_SANDBOX_URL is set: sandbox accounts that an administrator added make test pictures.")
    return found


def require_flower_login(settings: Settings, arguments: Sequence[str]) -> None:
    """End a `celery flower` that would ask nobody for a password. Raises SystemExit."""
    if settings.env != "production" or "flower" not in arguments:
        return
    told = any(argument.startswith(("--basic-auth", "--basic_auth", "--auth")) for argument in arguments)
    # Flower's own settings, which are none of ours.
    if not told and not any(os.environ.get(name) for name in _FLOWER_LOGINS):  # noqa: TID251
        raise SystemExit("Flower shows every task: set FLOWER_BASIC_AUTH=admin:PASSWORD in production.")
