"""What upstream offers a caller's accounts now, read from the database and believed for a few seconds."""

import threading
import time

from starlette.concurrency import run_in_threadpool

from api.auth.dependencies import Caller
from worker.core.catalog.upstream_models import Offer
from worker.core.observability.logging import get_logger
from worker.db.accounts import model_listings
from worker.db.engine import DATABASE_ERRORS, transaction

log = get_logger("api")

_BELIEVED_SECONDS = 5.0
_MOST_KEPT = 256

_lock = threading.Lock()
_known: dict[str, tuple[float, Offer]] = {}


async def offer_of(caller: Caller) -> Offer:
    """The joined lists of the caller's session ids, or of the accounts that the user's jobs may run on."""
    key = f"{caller.owner} {caller.account_choice}"
    until, offer = _known.get(key, (0.0, None))
    if offer is not None and time.monotonic() < until:
        return offer
    offer = await run_in_threadpool(_read, caller)
    with _lock:
        if len(_known) >= _MOST_KEPT:
            _known.clear()
        _known[key] = (time.monotonic() + _BELIEVED_SECONDS, offer)
    return offer


async def offer_for_list(caller: Caller) -> Offer:
    """The same for showing models: without the database the catalog alone is shown."""
    try:
        return await offer_of(caller)
    except DATABASE_ERRORS as error:
        log.warning("offers_not_read", reason=type(error).__name__)
        return Offer()


def forget() -> None:
    """Read anew what is asked for next."""
    with _lock:
        _known.clear()


def _read(caller: Caller) -> Offer:
    hashes = [digest for digest, _ in caller.tokens]
    with transaction() as tx:
        return Offer(model_listings.listings(tx, hashes, user_id=caller.user_id, choice=caller.account_choice))
