"""The models that a caller's accounts offer, read from the database and cached for a few seconds."""

import threading
import time

from starlette.concurrency import run_in_threadpool

from api.auth.caller import Caller
from worker.core.catalog.provider_data import all_providers
from worker.core.catalog.upstream_models import AccountGroup, UpstreamModels
from worker.core.observability.logging import get_logger
from worker.db.accounts import model_listings
from worker.db.engine import DATABASE_ERRORS, transaction

log = get_logger("api")

_CACHE_SECONDS = 5.0
_MAX_CACHED = 256

# The catalog alone: no account and no list of one is known.
NO_OFFER = UpstreamModels()

_lock = threading.Lock()
_cache: dict[str, tuple[float, UpstreamModels]] = {}


async def read_offer(caller: Caller) -> UpstreamModels:
    """Return what the caller's session ids, or the accounts that the user's jobs may run on, offer."""
    key = f"{caller.owner} {caller.chosen_accounts}"
    until, offer = _cache.get(key, (0.0, None))
    if offer is not None:
        if time.monotonic() < until:
            return offer
        # One request reads the new lists; the others use the old ones meanwhile.
        _cache[key] = (time.monotonic() + _CACHE_SECONDS, offer)
    offer = await run_in_threadpool(_read, caller)
    with _lock:
        if len(_cache) >= _MAX_CACHED:
            _cache.clear()
        _cache[key] = (time.monotonic() + _CACHE_SECONDS, offer)
    return offer


async def read_offer_or_empty(caller: Caller) -> UpstreamModels:
    """Return the offer; without lists while the database is unavailable, so that the catalog alone is shown."""
    try:
        return await read_offer(caller)
    except DATABASE_ERRORS as error:
        log.warning("offers_not_read", reason=type(error).__name__)
        return UpstreamModels(accounts=token_groups(caller), only=caller.providers)


def token_groups(caller: Caller) -> list[AccountGroup]:
    """Return the accounts of a caller's session ids and keys."""
    return [
        AccountGroup(token.provider, token.region, all_providers()[token.provider].currency_of(token.region))
        for _, token in caller.tokens
    ]


def forget() -> None:
    """Clear the cache."""
    with _lock:
        _cache.clear()


def _read(caller: Caller) -> UpstreamModels:
    hashes = [digest for digest, _ in caller.tokens]
    with transaction() as tx:
        lists = model_listings.listings(tx, hashes, user_id=caller.user_id, choice=caller.account_choice)
        groups = token_groups(caller)
        if not hashes:
            found = model_listings.grouped_accounts(tx, user_id=caller.user_id, choice=caller.account_choice)
            groups = [one.group for one in found]
            allowed = model_listings.selected_accounts(tx, caller.accounts, caller.account_groups)
            if allowed is not None:
                lists = [one for one in lists if one.account_id in allowed]
                groups = [one.group for one in found if not allowed.isdisjoint(one.all_ids)]
    if caller.providers is not None:
        lists = [one for one in lists if one.provider in caller.providers]
        groups = [one for one in groups if one.provider in caller.providers]
    return UpstreamModels(lists, groups, only=caller.providers)
