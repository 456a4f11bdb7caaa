"""Synchronises the accounts' credits with upstream: reads the actual cost of jobs and the balance from the history, and
claims the daily free credits where that is enabled. Costs in money that nobody has reported for a week are booked.

Low traffic: few accounts of an owner at once. The history of an account is read at most every ten minutes, and only
while it has unsettled jobs or a job waits for its credits.
"""

import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from uuid import UUID

from worker.core.concurrency.event_loop import in_thread, run
from worker.core.concurrency.work_in_shares import work_in_shares
from worker.core.errors import DreameryError
from worker.core.observability.faults import UnexpectedError
from worker.core.observability.logging import get_logger
from worker.core.settings import get_settings
from worker.db.accounts import health
from worker.db.accounts.accounts import AccountRow
from worker.db.column_values import clamp
from worker.db.credits import balances, daily_credits, money, settlement
from worker.db.credits.settlement import HistoryEntry
from worker.db.engine import DATABASE_UNAVAILABLE_ERRORS, retry_when_database_unavailable, transaction
from worker.messaging import celery_app
from worker.providers.base import Account, NotSentError
from worker.providers.credits import CreditHistory, CreditRecord, Credits
from worker.providers.registry import PROVIDERS, get_provider, required
from worker.tasks.stages.account_check import call_within
from worker.tasks.stages.account_session import SecretLockedError

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
    return run(sync())


async def sync() -> str:
    """Like `sync_credits`, on the event loop."""
    until = time.monotonic() + RUN_SECONDS
    settled = await work_in_shares(_claim_account, _settle, until=until, most=_MAX_ACCOUNTS)
    claimed = await _claim_daily_credits(until)
    await in_thread(_delete_old)
    booked = await in_thread(_book_unknown)
    return (
        f"checked {len(settled)} accounts, settled {sum(settled)} jobs, claimed daily credits of {claimed} accounts, "
        f"booked {booked} unknown costs"
    )


@retry_when_database_unavailable
def _claim_account(busy: Sequence[str], taken: Mapping[str, int]) -> tuple[AccountRow, str] | None:
    with transaction() as tx:
        return settlement.claim_account(tx, providers=_providers_with_ledger(), busy=busy, taken=taken)


def _providers_with_ledger() -> list[str]:
    return [name for name, create in PROVIDERS.items() if create().capabilities.ledger is not None]


def _delete_old() -> None:
    with transaction() as tx:
        balances.delete_old_readings(tx, limit=_BATCH)
        daily_credits.delete_old(tx, days=_DAILY_CLAIMS_KEPT_DAYS)


@retry_when_database_unavailable
def _book_unknown() -> int:
    with transaction() as tx:
        booked = money.book_unknown(tx, limit=_BATCH)
    if booked:
        log.warning("unknown_costs_booked", jobs=booked)
    return booked


async def _settle(row: AccountRow) -> int:
    try:
        return await _settle_account(row)
    except DATABASE_UNAVAILABLE_ERRORS:
        raise
    except BaseException as error:  # noqa: BLE001 - other accounts are synchronised
        fault = UnexpectedError(error)
        log.error("sync_failed", account=row.label, detail=fault.detail, trace=fault.frames)  # noqa: TRY400
        await in_thread(_postpone, row)
        return 0


async def _settle_account(row: AccountRow) -> int:
    """Read the account's history as far back as needed, and its balance. Return how many jobs were settled."""
    since = await in_thread(_oldest_unsettled, row)
    asked_at = time.monotonic()
    until = asked_at + RUN_SECONDS
    try:
        records, total, reaches = await _fetch_history(row, since, until)
        if total is None:
            asked_at = time.monotonic()
            total = await _fetch_total(row, until)
    except DreameryError as error:
        log.info("history_not_read", account=row.label, code=error.code, detail=error.detail)
        return 0
    if total == 0:
        total = await _refill_credits(row)
    seconds_ago = time.monotonic() - asked_at
    settled = await in_thread(_settle_entries, row, sum_entries(records), reaches, total=total, seconds_ago=seconds_ago)
    if settled == 0 and since is not None:
        await in_thread(_postpone, row)
    return settled


def _oldest_unsettled(row: AccountRow) -> datetime | None:
    with transaction() as tx:
        return settlement.oldest_unsettled(tx, row.id)


def _postpone(row: AccountRow) -> None:
    with transaction() as tx:
        settlement.postpone(tx, row.id)


async def _fetch_total(row: AccountRow, until: float) -> int:
    return (await call_within(row, _read_balance, until=until)).total


async def _fetch_history(
    row: AccountRow, since: datetime | None, until: float
) -> tuple[list[CreditRecord], int | None, datetime | None]:
    """Return the lines since then, the balance if present, and since when they are complete (None = maybe gaps)."""
    records: list[CreditRecord] = []
    total: int | None = None
    cursor, complete = "0", True
    for _ in range(_MAX_PAGES):
        page = await call_within(row, partial(_fetch_page, cursor=cursor), until=until)
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


async def _fetch_page(account: Account, *, cursor: str) -> CreditHistory:
    return await required(get_provider(account).capabilities.ledger).fetch_credit_history(account, cursor=cursor)


async def _read_balance(account: Account) -> Credits:
    return await required(get_provider(account).capabilities.balance).fetch_credits(account)


async def _receive(account: Account) -> int:
    return await required(get_provider(account).capabilities.daily_credits).receive_credits(account)


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
            credits=clamp(abs(sum(line.amount for line in lines))),
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


async def _refill_credits(row: AccountRow) -> int | None:
    """Claim the daily credits of an empty account, if allowed. Return the new balance; None = unknown."""
    return await _receive_credits(row) if await in_thread(_claim_when_empty, row) else 0


def _claim_when_empty(row: AccountRow) -> bool:
    with transaction() as tx:
        enabled = get_settings().daily_receive != "off"
        return daily_credits.claim_when_empty(tx, row.id, enabled_by_default=enabled)


async def _receive_credits(row: AccountRow) -> int | None:
    """Receive the daily credits; their claim is committed. Return the new balance; None = unknown."""
    until = time.monotonic() + RUN_SECONDS
    try:
        gained = await call_within(row, _receive, until=until)
    except DreameryError as error:
        log.info("daily_credits_refused", account=row.label, code=error.code, detail=error.detail)
        await in_thread(_note_refused_claim, row, error)
        return None
    await in_thread(_note_claim, row, gained)
    try:
        return await _fetch_total(row, until)
    except DreameryError as error:
        log.info("credits_not_read", account=row.label, code=error.code, detail=error.detail)
        return None


@retry_when_database_unavailable
def _note_refused_claim(row: AccountRow, error: DreameryError) -> None:
    with transaction() as tx:
        # Neither upstream nor the account refused: a worker with the key, or a later run, tries again today.
        if isinstance(error, NotSentError | SecretLockedError):
            daily_credits.release_claim(tx, row.id)
        else:
            daily_credits.record_result(tx, row.id, gained=None, error_code=error.code)


@retry_when_database_unavailable
def _note_claim(row: AccountRow, gained: int) -> None:
    with transaction() as tx:
        daily_credits.record_result(tx, row.id, gained=gained)


async def _claim_daily_credits(until: float) -> int:
    """Claim the daily credits of all accounts that have this enabled. Return the number of accounts tried."""
    tried: list[UUID] = []
    offering = [name for name, create in PROVIDERS.items() if create().capabilities.daily_credits is not None]

    @retry_when_database_unavailable
    def claim(busy: Sequence[str], taken: Mapping[str, int]) -> tuple[AccountRow, str] | None:
        everybody = get_settings().daily_receive == "daily"
        with transaction() as tx:
            found = daily_credits.claim_daily(
                tx, providers=offering, enabled_by_default=everybody, tried=tried, busy=busy, taken=taken
            )
        if found is not None:
            tried.append(found[0].id)
        return found

    return len(await work_in_shares(claim, _receive_and_store, until=until, most=_MAX_DAILY_CLAIMS))


async def _receive_and_store(row: AccountRow) -> None:
    asked_at = time.monotonic()
    total = await _receive_credits(row)
    if total is not None:
        await in_thread(_settle_entries, row, [], None, total=total, seconds_ago=time.monotonic() - asked_at)
