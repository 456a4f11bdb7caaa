"""What accounts' credits are doing, with few calls: upstream's history tells what jobs did cost and what is left, and
the daily free credits are taken where that is wanted.

Gentle: one account after the other; an account is asked for its history every ten minutes at most, and only while jobs
of it are not settled or a job waits for its credits.
"""

import time
from datetime import UTC, datetime
from functools import partial
from uuid import UUID

from worker.core.errors import DreameryError
from worker.core.observability.logging import get_logger
from worker.core.settings import get_settings
from worker.core.watchdog import watchdog
from worker.db.accounts import health
from worker.db.accounts.accounts import AccountRow
from worker.db.credits import balances, daily_credits, settlement
from worker.db.credits.settlement import Entry
from worker.db.engine import retry_when_database_away, transaction
from worker.messaging import celery_app
from worker.providers.base import CreditHistory, CreditRecord, NotSentError
from worker.providers.registry import get_provider
from worker.tasks.stages.account_session import asked

log = get_logger("ledger")

# A run is left unfinished rather than overlap with the next one, a minute later.
RUN_SECONDS = 40.0
_MOST_ACCOUNTS = 20
_MOST_RECEIVES = 20
# Pages of history per account and run; what is further back is settled at its price.
_MOST_PAGES = 4
_BROKE = "insufficient_quota"
_BATCH = 2000
_RECEIVES_DAYS = 400


def ledger() -> str:
    """One run over the accounts that are due, as far as time allows."""
    until = time.monotonic() + RUN_SECONDS
    asked_accounts = settled = 0
    while asked_accounts < _MOST_ACCOUNTS and time.monotonic() < until:
        watchdog.renew()
        with transaction() as tx:
            row = settlement.claim_account(tx)
        if row is None:
            break
        asked_accounts += 1
        settled += _settle(row)
    received = _receive_daily(until)
    with transaction() as tx:
        balances.thin_readings(tx, limit=_BATCH)
        daily_credits.forget(tx, days=_RECEIVES_DAYS)
    return f"asked {asked_accounts} accounts, settled {settled} jobs, took {received} daily gifts"


def _settle(row: AccountRow) -> int:
    """Read the account's history as far back as it is needed, and its balance; how many jobs were settled."""
    with transaction() as tx:
        since = settlement.oldest_unsettled(tx, row.id)
    asked_at = time.monotonic()
    try:
        records, total, reaches = _history(row, since)
        if total is None:
            watchdog.renew()
            asked_at = time.monotonic()
            total = asked(row, lambda account: get_provider().credits(account)).total
    except DreameryError as error:
        log.info("history_not_read", account=row.label, code=error.code, detail=error.detail)
        return 0
    if total == 0:
        total = _refilled(row)
    settled = _note(row, entries_of(records), reaches, total=total, seconds_ago=time.monotonic() - asked_at)
    if settled == 0 and since is not None:
        with transaction() as tx:
            settlement.ask_later(tx, row.id)
    return settled


def _history(row: AccountRow, since: datetime | None) -> tuple[list[CreditRecord], int | None, datetime | None]:
    """The lines since then, the balance if it was told, and how far back all is there (None = there may be holes)."""
    records: list[CreditRecord] = []
    total: int | None = None
    cursor, complete = "0", True
    for _ in range(_MOST_PAGES):
        watchdog.renew()
        page: CreditHistory = asked(row, lambda account, at=cursor: get_provider().credit_history(account, cursor=at))  # type: ignore[misc]
        total = page.total if total is None else total
        records += page.records
        complete = complete and page.complete
        if since is None or not page.more or not page.cursor or page.cursor == cursor:
            break
        if page.records and page.records[-1].at < since.timestamp():
            break
        cursor = page.cursor
    at_the_end = bool(records) and not page.more
    oldest = 0.0 if at_the_end else min((record.at for record in records), default=0.0)
    return records, total, datetime.fromtimestamp(oldest, UTC) if records and complete else None


def entries_of(records: list[CreditRecord]) -> list[Entry]:
    """What each submit did cost: its lines added up, for what comes back has the other sign."""
    by_key: dict[UUID, list[CreditRecord]] = {}
    for record in records:
        try:
            by_key.setdefault(UUID(record.submit_key), []).append(record)
        except ValueError:
            continue
    return [
        Entry(
            submit_key=key,
            credits=abs(sum(line.amount for line in lines)),
            returned=len({line.amount > 0 for line in lines}) > 1,
            at=datetime.fromtimestamp(min(line.at for line in lines), UTC),
        )
        for key, lines in by_key.items()
    ]


@retry_when_database_away
def _note(
    row: AccountRow, entries: list[Entry], reaches: datetime | None, *, total: int | None, seconds_ago: float
) -> int:
    with transaction() as tx:
        told, free = settlement.settle(tx, row.id, entries, reaches=reaches)
        if total is not None:
            balances.note_credits(tx, row.id, total, seconds_ago=seconds_ago)
            if total > 0 and health.end_rest(tx, row.id, code=_BROKE):
                log.info("credits_are_back", account=row.label, credits=total)
            tx.on_commit(partial(celery_app.nudge_submit, account_id=row.id))
    return told + free


def _refilled(row: AccountRow) -> int | None:
    """The account has none: its daily ones, where that is allowed; the balance afterwards, None = not known."""
    with transaction() as tx:
        if not daily_credits.claim_empty(tx, row.id, everybody=get_settings().daily_receive != "off"):
            return 0
    return _received(row)


def _received(row: AccountRow) -> int | None:
    """Take the day's credits, whose claim is committed; the balance afterwards, None = not known."""
    watchdog.renew()
    try:
        gained = asked(row, lambda account: get_provider().receive_credits(account))
    except DreameryError as error:
        log.info("gift_refused", account=row.label, code=error.code, detail=error.detail)
        with transaction() as tx:
            if isinstance(error, NotSentError):
                daily_credits.give_up_claim(tx, row.id)
            else:
                daily_credits.note_answer(tx, row.id, gained=None, error_code=error.code)
        return None
    with transaction() as tx:
        daily_credits.note_answer(tx, row.id, gained=gained)
    watchdog.renew()
    try:
        return asked(row, lambda account: get_provider().credits(account)).total
    except DreameryError as error:
        log.info("credits_not_read", account=row.label, code=error.code, detail=error.detail)
        return None


def _receive_daily(until: float) -> int:
    """Take the day's credits of accounts where that is wanted every day; of how many it was asked."""
    everybody = get_settings().daily_receive == "daily"
    tried: list[UUID] = []
    while len(tried) < _MOST_RECEIVES and time.monotonic() < until:
        with transaction() as tx:
            row = daily_credits.claim_daily(tx, everybody=everybody, tried=tried)
        if row is None:
            break
        tried.append(row.id)
        asked_at = time.monotonic()
        total = _received(row)
        if total is not None:
            _note(row, [], None, total=total, seconds_ago=time.monotonic() - asked_at)
    return len(tried)
