"""Background questions to accounts: what upstream offers them now, and whether a session it did not know works again.

Gentle: one account after the other, each a few times a day, only those that serve the pool or worked of late.
"""

import random
import time
from dataclasses import asdict
from functools import partial
from typing import Any

from worker.bus import queue
from worker.core.errors import DreameryError
from worker.core.log import get_logger
from worker.core.settings import get_settings
from worker.core.watchdog import watchdog
from worker.db import accounts, balances, offers
from worker.db.accounts import AccountRow
from worker.db.engine import transaction
from worker.providers.provider import LiveModels
from worker.providers.registry import get_provider
from worker.steps.sessions import EXPIRED, asked

log = get_logger("refresh")

# A run is left unfinished rather than overlap with the next one, a minute later.
RUN_SECONDS = 40.0
_MOST_LISTS = 20
_MOST_CHECKS = 10
# Longer than the time between two runs, so that no rest ends unchecked.
_REST_ENDS_WITHIN = 70.0
# A session that is still unknown rests for longer than the first time: it hardly ever comes back.
STILL_EXPIRED_SECONDS = 1800.0


def refresh() -> str:
    """Ask the accounts that are due, as far as time allows."""
    until = time.monotonic() + RUN_SECONDS
    checked, alive = _check_expired(until)
    listed = 0
    while listed < _MOST_LISTS and time.monotonic() < until:
        watchdog.renew()
        with transaction() as tx:
            row = offers.claim_refresh(tx)
        if row is None:
            break
        listed += 1
        _list(row)
    return f"asked {listed} accounts for their models, {checked} for their session, {alive} work again"


def _list(row: AccountRow) -> None:
    try:
        models = asked(row, lambda account: get_provider().list_models(account))
    except DreameryError as error:
        log.info("models_not_listed", account=row.label, code=error.code, detail=error.detail)
        return
    with transaction() as tx:
        # Spread, so that accounts added together do not march in step for ever.
        next_in = get_settings().models_refresh_seconds * random.uniform(0.8, 1.2)  # noqa: S311
        offers.store_models(tx, row.id, _plain(models), next_in=next_in)


def _plain(models: LiveModels) -> dict[str, Any]:
    """The form that is stored, see `worker.core.live`. Pixels are the catalog's business."""
    images = [{name: value for name, value in asdict(model).items() if name != "sizes"} for model in models.images]
    return {"images": images, "videos": [asdict(model) for model in models.videos]}


def _check_expired(until: float) -> tuple[int, int]:
    """Look at sessions that upstream did not know before a job meets them again: how many, and how many work."""
    with transaction() as tx:
        rows = offers.expiry_to_check(tx, within=_REST_ENDS_WITHIN, limit=_MOST_CHECKS)
    checked = alive = 0
    for row in rows:
        if time.monotonic() > until:
            break
        watchdog.renew()
        checked += 1
        alive += _is_back(row)
    if checked > alive:
        _warn_of_the_address()
    return checked, alive


def _is_back(row: AccountRow) -> bool:
    asked_at = time.monotonic()
    try:
        left = asked(row, lambda account: get_provider().credits(account))
    except DreameryError as error:
        if error.code == EXPIRED:
            with transaction() as tx:
                accounts.rest(tx, row.id, seconds=STILL_EXPIRED_SECONDS, code=EXPIRED)
        return False
    with transaction() as tx:
        balances.note_credits(tx, row.id, left.total, seconds_ago=time.monotonic() - asked_at)
        if offers.end_rest(tx, row.id, code=EXPIRED):
            tx.on_commit(partial(queue.nudge_submit, account_id=row.id))
    log.info("session_works_again", account=row.label)
    return True


def _warn_of_the_address() -> None:
    with transaction() as tx:
        number = offers.every_session_expired(tx)
    if number:
        log.warning("every_session_expired", accounts=number, suspect="the exit address of this machine")
