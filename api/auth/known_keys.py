"""Tells which credentials in `Authorization` are keys of accounts: their form says nothing, the database decides.

A platform without such accounts makes no query per request: whether there are any is asked every few seconds.
"""

import time
from collections.abc import Iterable

from starlette.concurrency import run_in_threadpool

from api.auth.session_tokens import parse_session_tokens, session_token_hash
from worker.core.catalog.provider_data import all_providers, first_provider
from worker.core.security.session_tokens import SessionToken
from worker.core.settings import get_settings
from worker.db.accounts import accounts
from worker.db.engine import transaction

Tokens = tuple[tuple[str, SessionToken], ...]
_ASK_AGAIN_SECONDS = 3.0


class _KeyAccounts:
    """Whether there are accounts with keys, as far as this process knows."""

    exist = False
    asked_at: float | None = None


def forget() -> None:
    """Ask again with the next request, because accounts were added."""
    _KeyAccounts.asked_at = None


async def resolve_tokens(bearer: str) -> Tokens:
    """Parse a credential into session ids and keys with their lookup hashes. Raises the error of an unusable one."""
    tokens = parse_session_tokens(bearer)
    default = get_settings().default_region
    # A text that names a region is a session id.
    unnamed = [token for _, token in tokens if token.region == default and token.provider == first_provider()]
    if not unnamed or not await run_in_threadpool(_keys_exist):
        return tokens
    known = await run_in_threadpool(_find_keys, unnamed)
    return tuple(known.get(token, (digest, token)) for digest, token in tokens)


def _keys_exist() -> bool:
    now = time.monotonic()
    if _KeyAccounts.asked_at is None or now - _KeyAccounts.asked_at > _ASK_AGAIN_SECONDS:
        with transaction() as tx:
            _KeyAccounts.exist = accounts.any_of_other_provider(tx, first_provider())
        _KeyAccounts.asked_at = now
    return _KeyAccounts.exist


def _find_keys(tokens: Iterable[SessionToken]) -> dict[SessionToken, tuple[str, SessionToken]]:
    """Return the tokens that are keys of accounts, as such, with their lookup hashes."""
    options = {
        session_token_hash(key): (token, key)
        for token in tokens
        for provider in all_providers().values()
        if not provider.has_sessions
        for region in provider.regions
        for key in [SessionToken(token.session, region, token.proxy, provider.name)]
    }
    with transaction() as tx:
        found = accounts.find_tokens(tx, list(options))
    return {options[digest][0]: (digest, options[digest][1]) for digest in found}
