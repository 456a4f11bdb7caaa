"""Tells which credentials in `Authorization` are keys of accounts: their form says nothing, the database decides.

A platform without such accounts makes no query per request: whether there are any is asked every few seconds, and each
text that is no key at most that often.
"""

import time
from collections.abc import Iterable
from typing import ClassVar

from starlette.concurrency import run_in_threadpool

from api.auth.session_tokens import parse_session_tokens, session_token_hash
from worker.core.catalog.provider_data import all_providers, first_provider
from worker.core.security.session_tokens import SessionToken
from worker.core.settings import get_settings
from worker.db.accounts import accounts
from worker.db.engine import transaction

Tokens = tuple[tuple[str, SessionToken], ...]
_ASK_AGAIN_SECONDS = 3.0
_MOST_MISSES = 20_000


class _KeyAccounts:
    """What this process knows: whether there are accounts with keys, and which texts are none, by hash."""

    exist = False
    asked_at: float | None = None
    misses: ClassVar[dict[str, float]] = {}


def forget() -> None:
    """Ask again with the next request, because accounts were added."""
    _KeyAccounts.asked_at = None
    _KeyAccounts.misses.clear()


async def resolve_tokens(bearer: str) -> Tokens:
    """Parse a credential into session ids and keys with their lookup hashes. Raises the error of an unusable one."""
    tokens = parse_session_tokens(bearer)
    default, now = get_settings().default_region, time.monotonic()
    # A text that names a region is a session id.
    unnamed = {
        digest: token
        for digest, token in tokens
        if token.region == default and token.provider == first_provider() and not _missed(digest, now)
    }
    if not unnamed or not (_KeyAccounts.exist if _is_fresh(now) else await run_in_threadpool(_keys_exist)):
        return tokens
    known = await run_in_threadpool(_find_keys, unnamed.values())
    _note_misses([digest for digest, token in unnamed.items() if token not in known], now)
    return tuple(known.get(token, (digest, token)) for digest, token in tokens)


def _is_fresh(now: float) -> bool:
    return _KeyAccounts.asked_at is not None and now - _KeyAccounts.asked_at <= _ASK_AGAIN_SECONDS


def _missed(digest: str, now: float) -> bool:
    at = _KeyAccounts.misses.get(digest)
    return at is not None and now - at <= _ASK_AGAIN_SECONDS


def _note_misses(digests: Iterable[str], now: float) -> None:
    if len(_KeyAccounts.misses) > _MOST_MISSES:
        _KeyAccounts.misses.clear()
    _KeyAccounts.misses.update(dict.fromkeys(digests, now))


def _keys_exist() -> bool:
    with transaction(plan_once=True) as tx:
        _KeyAccounts.exist = accounts.any_of_other_provider(tx, first_provider())
    _KeyAccounts.asked_at = time.monotonic()
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
    with transaction(plan_once=True) as tx:
        found = accounts.find_tokens(tx, list(options))
    return {options[digest][0]: (digest, options[digest][1]) for digest in found}
