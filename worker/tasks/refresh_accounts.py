"""Checks accounts in the background: their model lists, their credits, and whether their sessions work.

Low traffic: one account after the other, each a few times a day, and only accounts in the pool or in recent use.
"""

import time

from worker.core.concurrency.watchdog import watchdog
from worker.core.observability.logging import get_logger
from worker.core.settings import get_settings
from worker.db.accounts import model_listings
from worker.db.engine import transaction
from worker.tasks.stages.account_check import check_account

log = get_logger("refresh_accounts")

# A run stops early rather than overlap with the next one, which starts a minute later.
RUN_SECONDS = 40.0
_MAX_LISTS = 20
_MAX_CHECKS = 10
# Longer than the interval between two runs, so that no cooldown ends without a check.
_COOLDOWN_ENDS_WITHIN = 70.0
# Checks have a jitter of 20 %: a list is fetched again if it would be too old at the next check.
_MAX_AGE_SHARE = 0.75


def refresh_accounts() -> str:
    """Check the accounts that are due, as far as time allows. Return a summary."""
    until = time.monotonic() + RUN_SECONDS
    checked, working = _check_expired(until)
    listed = 0
    while listed < _MAX_LISTS and time.monotonic() < until:
        watchdog.renew()
        with transaction() as tx:
            due = model_listings.claim_account_check(
                tx, models_max_age=_MAX_AGE_SHARE * get_settings().models_refresh_seconds
            )
        if due is None:
            break
        listed += 1
        check_account(due[0], models=due[1])
    return f"checked {listed} accounts, tested {checked} expired sessions, {working} work again"


def _check_expired(until: float) -> tuple[int, int]:
    """Check expired sessions before the next job uses them. Return how many were checked and how many work."""
    with transaction() as tx:
        rows = model_listings.expired_sessions_to_recheck(tx, within=_COOLDOWN_ENDS_WITHIN, limit=_MAX_CHECKS)
    checked = working = 0
    for row in rows:
        if time.monotonic() > until:
            break
        watchdog.renew()
        checked += 1
        working += check_account(row, models=False)["live"] is True
    if checked > working:
        _warn_if_all_expired()
    return checked, working


def _warn_if_all_expired() -> None:
    with transaction() as tx:
        number = model_listings.every_session_expired(tx)
    if number:
        log.warning("every_session_expired", accounts=number, suspect="the exit address of this machine")
