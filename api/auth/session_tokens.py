"""Credentials of upstream accounts from requests and administrators: parse, check and encrypt them for the database.

A credential in `Authorization` is a session id, except that `NAME-...:sandbox` is of the provider NAME, and that a text
which is the key of an account is that key. Nothing is concluded from the form of a text: keys change theirs.
"""

from worker.core.catalog.provider_data import all_providers, first_provider
from worker.core.errors import DreameryError
from worker.core.security.encryption import encrypt_secret, lookup_hash
from worker.core.security.session_tokens import (
    SANDBOX,
    SessionToken,
    check_proxy,
    parse_tokens,
    proxy_without_credentials,
)
from worker.core.settings import get_settings
from worker.db.accounts import accounts
from worker.db.accounts.accounts import PresentedToken


def session_token_hash(token: SessionToken) -> str:
    """Lookup hash of a credential: includes the region (the same id may exist in two regions), but not the proxy."""
    place = token.region if token.provider == first_provider() else f"{token.provider}/{token.region}"
    return lookup_hash(f"{place}:{token.session}")


def encrypt_session_token(digest: str, token: SessionToken) -> PresentedToken:
    """Encrypt the session id and proxy of a token for the database."""
    context, provider = accounts.secret_context(digest), all_providers()[token.provider]
    return PresentedToken(
        lookup_hash=digest,
        provider=token.provider,
        region=token.region,
        currency=provider.currency_of(token.region),
        label=f"{'session' if provider.has_sessions else token.provider}-{digest[:8]}",
        secret=encrypt_secret(token.session, context=context),
        proxy=encrypt_secret(token.proxy, context=accounts.proxy_context(context)) if token.proxy else None,
        proxy_hash=lookup_hash(f"proxy:{token.proxy}") if token.proxy else token.proxy,
        proxy_place=proxy_without_credentials(token.proxy) if token.proxy else None,
    )


def parse_session_tokens(bearer: str) -> tuple[tuple[str, SessionToken], ...]:
    """Parse a credential into session ids with their lookup hashes. Raises the error of the first unusable one."""
    settings = get_settings()
    tokens = parse_tokens(bearer, settings.default_region)
    for position, token in enumerate(tokens, start=1):
        check_token_usable(token, position)
    # One session is one account, whatever its proxy. If it appears twice, the last entry counts.
    return tuple({session_token_hash(token): token for token in tokens}.items())


def check_token_usable(token: SessionToken, position: int) -> None:
    """Raise the error that prevents this installation from using a token; `position` counts the tokens from 1."""
    settings = get_settings()
    if token.region == SANDBOX and settings.env == "production":
        raise DreameryError(
            "invalid_api_key", "Region `sandbox` is disabled in production, because anyone could use it."
        )
    if token.region == SANDBOX and not settings.sandbox_url:
        raise DreameryError("invalid_api_key", "Region `sandbox` needs DREAMERY_SANDBOX_URL, which is not set here.")
    check_proxy(token, position, frozenset(settings.fetch_allow.lower().replace(" ", "").split(",")))
