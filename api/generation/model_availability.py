"""The models that upstream lists for a caller's accounts, read from the database and cached for a few seconds."""

import threading
import time

from starlette.concurrency import run_in_threadpool

from api.auth.dependencies import Caller
from worker.core.catalog.upstream_models import UpstreamModels
from worker.core.observability.logging import get_logger
from worker.db.accounts import model_listings
from worker.db.engine import DATABASE_ERRORS, transaction

log = get_logger("api")

_CACHE_SECONDS = 5.0
_MAX_CACHED = 256

# The catalog alone: no list of an account is known.
NO_OFFER = UpstreamModels()

_lock = threading.Lock()
_cache: dict[str, tuple[float, UpstreamModels]] = {}


async def read_offer(caller: Caller) -> UpstreamModels:
    """Return the merged lists of the caller's session ids, or of the accounts that the user's jobs may run on."""
    key = f"{caller.owner} {caller.account_choice}"
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
    """Return the merged lists; empty while the database is unavailable, so that the catalog alone is shown."""
    try:
        return await read_offer(caller)
    except DATABASE_ERRORS as error:
        log.warning("offers_not_read", reason=type(error).__name__)
        return UpstreamModels()


def forget() -> None:
    """Clear the cache."""
    with _lock:
        _cache.clear()


def _read(caller: Caller) -> UpstreamModels:
    hashes = [digest for digest, _ in caller.tokens]
    with transaction() as tx:
        return UpstreamModels(model_listings.listings(tx, hashes, user_id=caller.user_id, choice=caller.account_choice))
