"""Answers a question about a session id (is it valid, how many credits are left, claim the daily credits), or checks an
account now.

Creates no account row. If the session id already belongs to an account, the result is stored there.
"""

import time
from collections.abc import Callable
from functools import partial
from typing import Any
from uuid import UUID

from worker.core.concurrency.watchdog import watchdog
from worker.core.errors import DreameryError, Fault, Reaction
from worker.core.job_state import JobState
from worker.core.observability.logging import get_logger
from worker.db.accounts import health, session_checks
from worker.db.accounts.accounts import AccountRow
from worker.db.credits import balances, daily_credits
from worker.db.engine import Row, retry_when_database_unavailable, transaction
from worker.messaging import pubsub
from worker.providers.base import Credits
from worker.providers.registry import get_provider
from worker.tasks.stages.account_check import check_account, error_dict
from worker.tasks.stages.account_session import SESSION_EXPIRED, call_upstream

log = get_logger("check_session")

Result = dict[str, Any]


def check(*, check_id: UUID) -> str:
    """Ask upstream the question, if it is still open. Return a line about the outcome."""
    row, account, known = _claim(check_id)
    if row is None or account is None:
        return "nothing to check"
    if row.what == "checkup":
        return _check_account(check_id, account, known)
    asked_at = time.monotonic()
    try:
        result = _ANSWERS[row.what](account)
    except DreameryError as error:
        log.info("check_refused", check_id=str(check_id), code=error.code, detail=error.detail)
        result = {"error": error_dict(error)}
    _store_result(check_id, known, result, seconds=time.monotonic() - asked_at)
    return f"answered {row.what} {check_id}"


def _check_account(check_id: UUID, account: AccountRow, known: UUID | None) -> str:
    # Not known any more: its session was replaced, which also requests another check.
    result = check_account(account, models=True) if known else {"error": error_dict(DreameryError("account_not_found"))}
    _store_answer(check_id, result)
    return f"checked {account.label}"


@retry_when_database_unavailable
def _store_answer(check_id: UUID, result: Result) -> None:
    with transaction() as tx:
        if session_checks.save_result(tx, check_id, result):
            tx.on_commit(partial(pubsub.publish_job_change, check_id, JobState.SUCCEEDED, 1))


@retry_when_database_unavailable
def _claim(check_id: UUID) -> tuple[Row[Any] | None, AccountRow | None, UUID | None]:
    with transaction() as tx:
        row = session_checks.claim(tx, check_id)
        if row is None:
            return None, None, None
        return row, *session_checks.account_of(tx, row)


def _check_valid(account: AccountRow) -> Result:
    """Check the session with the credits call, which needs a valid session and costs nothing (protocol section 4.2)."""
    try:
        return {"live": True, "points": _points(_fetch_credits(account))}
    except DreameryError as error:
        if error.code == SESSION_EXPIRED:
            return {"live": False}
        # Under risk control, limited or without rights: upstream recognised the session.
        about_account = error.kind.fault is Fault.ACCOUNT and error.kind.reaction is Reaction.OTHER_ACCOUNT
        if about_account and error.code != "proxy_unreachable":
            return {"live": True}
        raise


def _read_points(account: AccountRow) -> Result:
    return {"points": _points(_fetch_credits(account))}


def _claim_daily_credits(account: AccountRow) -> Result:
    """Claim the daily credits and read the balance. After a refusal of the claim the balance is still reported."""
    refusal = None
    gained = 0
    try:
        gained = call_upstream(account, lambda ready: get_provider().receive_credits(ready))
    except DreameryError as error:
        if error.code in {SESSION_EXPIRED, "proxy_unreachable", "upstream_unreachable"}:
            raise
        refusal = error
    watchdog.renew()
    result: Result = {"points": _points(_fetch_credits(account)), "received": gained}
    return result | ({"error": error_dict(refusal)} if refusal else {})


_ANSWERS: dict[str, Callable[[AccountRow], Result]] = {
    "check": _check_valid,
    "points": _read_points,
    "receive": _claim_daily_credits,
}


def _fetch_credits(account: AccountRow) -> Credits:
    return call_upstream(account, lambda ready: get_provider().fetch_credits(ready))


def _points(left: Credits) -> dict[str, int]:
    """Return the credits under the names that users of other gateways know."""
    return {
        "giftCredit": left.gift,
        "purchaseCredit": left.purchase,
        "vipCredit": left.vip,
        "totalCredit": left.total,
    }


@retry_when_database_unavailable
def _store_result(check_id: UUID, known: UUID | None, result: Result, *, seconds: float) -> None:
    with transaction() as tx:
        if session_checks.save_result(tx, check_id, result):
            tx.on_commit(partial(pubsub.publish_job_change, check_id, JobState.SUCCEEDED, 1))
        points = result.get("points")
        if known is not None and points:
            balances.record_credits(tx, known, points["totalCredit"], seconds_ago=seconds)
            health.record_session_works(tx, known)
        if known is not None and "received" in result:
            refusal = result.get("error", {}).get("code")
            gained = None if refusal else result["received"]
            daily_credits.record_result(tx, known, gained=gained, error_code=refusal, manual=True)
