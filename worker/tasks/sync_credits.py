"""Synchronises the accounts' credits with upstream: reads the actual cost of jobs and the balance from the history, and
claims the daily free credits where that is enabled.

Low traffic: one account after the other. The history of an account is read at most every ten minutes, and only while it
has unsettled jobs or a job waits for its credits.
"""

import time
from datetime import UTC, datetime
from functools import partial
from uuid import UUID

from worker.core.concurrency.watchdog import watchdog
from worker.core.errors import DreameryError
from worker.core.observability.logging import get_logger
from worker.core.settings import get_settings
from worker.db.accounts import health
from worker.db.accounts.accounts import AccountRow
from worker.db.credits import balances, daily_credits, settlement
from worker.db.credits.settlement import HistoryEntry
from worker.db.engine import retry_when_database_unavailable, transaction
from worker.messaging import celery_app
from worker.providers.base import Account, CreditHistory, CreditRecord, NotSentError
from worker.providers.registry import get_provider
from worker.tasks.stages.account_session import call_upstream

log = get_logger("sync_credits")

# A run stops early rather than overlap with the next one, which starts a minute later.
RUN_SECONDS = 40.0
_MAX_ACCOUNTS = 20
_MAX_DAILY_CLAIMS = 20
# Pages of history per account and run; older jobs are settled at their list price.
_MAX_PAGES = 4
_INSUFFICIENT = "insufficient_quota"
_BATCH = 2000
_DAILY_CLAIMS_KEPT_DAYS = 400


def sync_credits() -> str:
    """Synchronise the accounts that are due, as far as time allows. Return a summary."""
    until = time.monotonic() + RUN_SECONDS
    account_count = settled = 0
    while account_count < _MAX_ACCOUNTS and time.monotonic() < until:
        watchdog.renew()
        with transaction() as tx:
            row = settlement.claim_account(tx)
        if row is None:
            break
        account_count += 1
        settled += _settle(row)
    claimed = _claim_daily_credits(until)
    with transaction() as tx:
        balances.delete_old_readings(tx, limit=_BATCH)
        daily_credits.delete_old(tx, days=_DAILY_CLAIMS_KEPT_DAYS)
    return f"checked {account_count} accounts, settled {settled} jobs, claimed daily credits of {claimed} accounts"


def _settle(row: AccountRow) -> int:
    """Read the account's history as far back as needed, and its balance. Return how many jobs were settled."""
    with transaction() as tx:
        since = settlement.oldest_unsettled(tx, row.id)
    asked_at = time.monotonic()
    try:
        records, total, reaches = _fetch_history(row, since)
        if total is None:
            watchdog.renew()
            asked_at = time.monotonic()
            total = call_upstream(row, lambda account: get_provider().fetch_credits(account)).total
    except DreameryError as error:
        log.info("history_not_read", account=row.label, code=error.code, detail=error.detail)
        return 0
    if total == 0:
        total = _refill_credits(row)
    settled = _settle_entries(row, sum_entries(records), reaches, total=total, seconds_ago=time.monotonic() - asked_at)
    if settled == 0 and since is not None:
        with transaction() as tx:
            settlement.postpone(tx, row.id)
    return settled


def _fetch_history(row: AccountRow, since: datetime | None) -> tuple[list[CreditRecord], int | None, datetime | None]:
    """Return the lines since then, the balance if present, and since when they are complete (None = maybe gaps)."""
    records: list[CreditRecord] = []
    total: int | None = None
    cursor, complete = "0", True
    for _ in range(_MAX_PAGES):
        watchdog.renew()
        page = call_upstream(row, partial(_fetch_page, cursor=cursor))
        total = page.total if total is None else total
        records += page.records
        complete = complete and page.complete
        if since is None or not page.more or not page.cursor or page.cursor == cursor:
            break
        if page.records and page.records[-1].at < since.timestamp():
            break
        cursor = page.cursor
    reached_end = bool(records) and not page.more
    oldest = 0.0 if reached_end else min((record.at for record in records), default=0.0)
    return records, total, datetime.fromtimestamp(oldest, UTC) if records and complete else None


def _fetch_page(account: Account, *, cursor: str) -> CreditHistory:
    return get_provider().fetch_credit_history(account, cursor=cursor)


def sum_entries(records: list[CreditRecord]) -> list[HistoryEntry]:
    """Return the cost of each submit: the sum of its lines, because refunds have the opposite sign."""
    by_key: dict[UUID, list[CreditRecord]] = {}
    for record in records:
        try:
            by_key.setdefault(UUID(record.submit_key), []).append(record)
        except ValueError:
            continue
    return [
        HistoryEntry(
            submit_key=key,
            credits=abs(sum(line.amount for line in lines)),
            returned=len({line.amount > 0 for line in lines}) > 1,
            at=datetime.fromtimestamp(min(line.at for line in lines), UTC),
        )
        for key, lines in by_key.items()
    ]


@retry_when_database_unavailable
def _settle_entries(
    row: AccountRow, entries: list[HistoryEntry], reaches: datetime | None, *, total: int | None, seconds_ago: float
) -> int:
    with transaction() as tx:
        charged, free = settlement.settle(tx, row.id, entries, complete_since=reaches)
        if total is not None:
            balances.record_credits(tx, row.id, total, seconds_ago=seconds_ago)
            if total > 0 and health.end_cooldown(tx, row.id, code=_INSUFFICIENT):
                log.info("credits_are_back", account=row.label, credits=total)
            tx.on_commit(partial(celery_app.enqueue_submit, account_id=row.id))
    return charged + free


def _refill_credits(row: AccountRow) -> int | None:
    """Claim the daily credits of an empty account, if allowed. Return the new balance; None = unknown."""
    with transaction() as tx:
        if not daily_credits.claim_when_empty(tx, row.id, enabled_by_default=get_settings().daily_receive != "off"):
            return 0
    return _receive_credits(row)


def _receive_credits(row: AccountRow) -> int | None:
    """Receive the daily credits; their claim is committed. Return the new balance; None = unknown."""
    watchdog.renew()
    try:
        gained = call_upstream(row, lambda account: get_provider().receive_credits(account))
    except DreameryError as error:
        log.info("gift_refused", account=row.label, code=error.code, detail=error.detail)
        with transaction() as tx:
            if isinstance(error, NotSentError):
                daily_credits.release_claim(tx, row.id)
            else:
                daily_credits.record_result(tx, row.id, gained=None, error_code=error.code)
        return None
    with transaction() as tx:
        daily_credits.record_result(tx, row.id, gained=gained)
    watchdog.renew()
    try:
        return call_upstream(row, lambda account: get_provider().fetch_credits(account)).total
    except DreameryError as error:
        log.info("credits_not_read", account=row.label, code=error.code, detail=error.detail)
        return None


def _claim_daily_credits(until: float) -> int:
    """Claim the daily credits of all accounts that have this enabled. Return the number of accounts tried."""
    everybody = get_settings().daily_receive == "daily"
    tried: list[UUID] = []
    while len(tried) < _MAX_DAILY_CLAIMS and time.monotonic() < until:
        with transaction() as tx:
            row = daily_credits.claim_daily(tx, enabled_by_default=everybody, tried=tried)
        if row is None:
            break
        tried.append(row.id)
        asked_at = time.monotonic()
        total = _receive_credits(row)
        if total is not None:
            _settle_entries(row, [], None, total=total, seconds_ago=time.monotonic() - asked_at)
    return len(tried)
