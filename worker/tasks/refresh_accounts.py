"""Background check-ups: what upstream offers accounts now, what they have left, whether their sessions work.

Gentle: one account after the other, each a few times a day, only those that somebody keeps or that worked of late.
"""

import time

from worker.core.observability.logging import get_logger
from worker.core.settings import get_settings
from worker.core.watchdog import watchdog
from worker.db.accounts import model_listings
from worker.db.engine import transaction
from worker.tasks.stages.account_check import check_up

log = get_logger("refresh")

# A run is left unfinished rather than overlap with the next one, a minute later.
RUN_SECONDS = 40.0
_MOST_LISTS = 20
_MOST_CHECKS = 10
# Longer than the time between two runs, so that no rest ends unchecked.
_REST_ENDS_WITHIN = 70.0
# Check-ups come a fifth early or late: a list is asked for again when it will be too old at the next one.
_BELIEVED_SHARE = 0.75


def refresh() -> str:
    """Ask the accounts that are due, as far as time allows."""
    until = time.monotonic() + RUN_SECONDS
    checked, alive = _check_expired(until)
    listed = 0
    while listed < _MOST_LISTS and time.monotonic() < until:
        watchdog.renew()
        with transaction() as tx:
            due = model_listings.claim_checkup(
                tx, models_believed=_BELIEVED_SHARE * get_settings().models_refresh_seconds
            )
        if due is None:
            break
        listed += 1
        check_up(due[0], models=due[1])
    return f"asked {listed} accounts for what they have, {checked} for their session, {alive} work again"


def _check_expired(until: float) -> tuple[int, int]:
    """Look at sessions that upstream did not know before a job meets them again: how many, and how many work."""
    with transaction() as tx:
        rows = model_listings.expiry_to_check(tx, within=_REST_ENDS_WITHIN, limit=_MOST_CHECKS)
    checked = alive = 0
    for row in rows:
        if time.monotonic() > until:
            break
        watchdog.renew()
        checked += 1
        alive += check_up(row, models=False)["live"] is True
    if checked > alive:
        _warn_of_the_address()
    return checked, alive


def _warn_of_the_address() -> None:
    with transaction() as tx:
        number = model_listings.every_session_expired(tx)
    if number:
        log.warning("every_session_expired", accounts=number, suspect="the exit address of this machine")
