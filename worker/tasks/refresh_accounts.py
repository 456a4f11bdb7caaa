"""Checks accounts in the background: their model lists, their credits, and whether their sessions work.

Low traffic: few accounts of an owner at once, each a few times a day, and only accounts in the pool or in recent use.
"""

import time
from collections.abc import Mapping, Sequence

from worker.core.concurrency.event_loop import in_thread, run
from worker.core.concurrency.work_in_shares import work_in_shares
from worker.core.observability.logging import get_logger
from worker.core.settings import get_settings
from worker.db.accounts import model_listings
from worker.db.accounts.accounts import AccountRow
from worker.db.engine import retry_when_database_unavailable, transaction
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
    return run(refresh())


async def refresh() -> str:
    """Like `refresh_accounts`, on the event loop."""
    until = time.monotonic() + RUN_SECONDS
    checked, working = await _check_expired(until)
    listed = await work_in_shares(_claim_due, _check_due, until=until, most=_MAX_LISTS)
    return f"checked {len(listed)} accounts, tested {checked} expired sessions, {working} work again"


@retry_when_database_unavailable
def _claim_due(busy: Sequence[str], taken: Mapping[str, int]) -> tuple[tuple[AccountRow, bool], str] | None:
    max_age = _MAX_AGE_SHARE * get_settings().models_refresh_seconds
    with transaction() as tx:
        return model_listings.claim_account_check(tx, models_max_age=max_age, busy=busy, taken=taken)


async def _check_due(due: tuple[AccountRow, bool]) -> None:
    row, models_due = due
    await check_account(row, models=models_due)


async def _check_expired(until: float) -> tuple[int, int]:
    """Check expired sessions before the next job uses them. Return how many were checked and how many work."""
    rows = await in_thread(_expired_sessions)

    def take(busy: Sequence[str], _taken: Mapping[str, int]) -> tuple[AccountRow, str] | None:
        found = next((number for number, (_, share) in enumerate(rows) if share not in busy), None)
        return None if found is None else rows.pop(found)

    results = await work_in_shares(take, _still_works, until=until, most=len(rows))
    if not all(results):
        await in_thread(_warn_if_all_expired)
    return len(results), sum(results)


@retry_when_database_unavailable
def _expired_sessions() -> list[tuple[AccountRow, str]]:
    with transaction() as tx:
        return model_listings.expired_sessions_to_recheck(tx, within=_COOLDOWN_ENDS_WITHIN, limit=_MAX_CHECKS)


async def _still_works(row: AccountRow) -> bool:
    return (await check_account(row, models=False))["live"] is True


def _warn_if_all_expired() -> None:
    with transaction() as tx:
        number = model_listings.every_session_expired(tx)
    if number:
        log.warning("every_session_expired", accounts=number, suspect="the exit address of this machine")
