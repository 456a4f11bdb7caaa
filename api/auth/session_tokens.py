"""Upstream session ids that a request or an administrator gives: read, checked, and sealed for the database."""

from worker.core.errors import DreameryError
from worker.core.security.encryption import lookup_hash, seal_secret
from worker.core.security.session_tokens import SessionToken, check_proxy, parse_tokens, shown_proxy
from worker.core.settings import get_settings
from worker.db.accounts import accounts
from worker.db.accounts.accounts import PresentedToken


def token_hash(token: SessionToken) -> str:
    """How a session id is found again: with its region (one text may live in two worlds), whatever its proxy."""
    return lookup_hash(f"{token.region}:{token.session}")


def presented(digest: str, token: SessionToken) -> PresentedToken:
    """The token with its secrets sealed, as the database takes it."""
    context = accounts.secret_context(digest)
    return PresentedToken(
        lookup_hash=digest,
        region=token.region,
        label=f"session-{digest[:8]}",
        secret=seal_secret(token.session, context=context),
        proxy=seal_secret(token.proxy, context=accounts.proxy_context(context)) if token.proxy else None,
        proxy_hash=lookup_hash(f"proxy:{token.proxy}") if token.proxy else token.proxy,
        proxy_place=shown_proxy(token.proxy) if token.proxy else None,
    )


def read_tokens(bearer: str) -> tuple[tuple[str, SessionToken], ...]:
    """The session ids of a text with their lookup hashes, each usable here. Raises what is wrong with one."""
    settings = get_settings()
    tokens = parse_tokens(bearer, settings.default_region)
    if settings.env == "production" and any(t.region == "sandbox" for t in tokens):
        raise DreameryError("invalid_api_key", "Region `sandbox` is off in production: anybody could use it.")
    for place, token in enumerate(tokens, start=1):
        check_usable(token, place)
    # One session is one account, whichever way out it takes: of two entries the last is the newest.
    return tuple({token_hash(token): token for token in tokens}.items())


def check_usable(token: SessionToken, place: int) -> None:
    """Raises what keeps this installation from using the token, the `place`-th of those that were given."""
    settings = get_settings()
    if token.region == "sandbox" and not settings.sandbox_url:
        raise DreameryError("invalid_api_key", "Region `sandbox` needs DREAMERY_SANDBOX_URL, which is not set here.")
    check_proxy(token, place, frozenset(settings.fetch_allow.lower().replace(" ", "").split(",")))
