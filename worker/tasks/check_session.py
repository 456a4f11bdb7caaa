"""Answer one question about a session id: does it live, what is left, take the day's credits; or about an account: a
check-up now.

Makes no account row. What it learns about an account that has one is noted there.
"""

import time
from collections.abc import Callable
from functools import partial
from typing import Any
from uuid import UUID

from worker.core.errors import DreameryError, Fault, Reaction
from worker.core.observability.logging import get_logger
from worker.core.watchdog import watchdog
from worker.db.accounts import health, session_checks
from worker.db.accounts.accounts import AccountRow
from worker.db.credits import balances, daily_credits
from worker.db.engine import Row, retry_when_database_away, transaction
from worker.messaging import pubsub
from worker.providers.base import Credits
from worker.providers.registry import get_provider
from worker.tasks.stages.account_check import check_up
from worker.tasks.stages.account_session import EXPIRED, asked

log = get_logger("check")

Result = dict[str, Any]


def check(*, check_id: UUID) -> str:
    """Put the question to upstream, if it is still open."""
    row, account, known = _claim(check_id)
    if row is None or account is None:
        return "nothing to check"
    if row.what == "checkup":
        return _check_up(check_id, account, known)
    asked_at = time.monotonic()
    try:
        result = _ANSWERS[row.what](account)
    except DreameryError as error:
        log.info("check_refused", check_id=str(check_id), code=error.code, detail=error.detail)
        result = {"error": _told(error)}
    _note(check_id, known, result, seconds=time.monotonic() - asked_at)
    return f"answered {row.what} {check_id}"


def _check_up(check_id: UUID, account: AccountRow, known: UUID | None) -> str:
    # Unknown: its session was replaced since, and with it comes another check-up.
    result = check_up(account, models=True) if known else {"error": _told(DreameryError("account_not_found"))}
    _answer(check_id, result)
    return f"checked {account.label}"


@retry_when_database_away
def _answer(check_id: UUID, result: Result) -> None:
    with transaction() as tx:
        if session_checks.answer(tx, check_id, result):
            tx.on_commit(partial(pubsub.announce, check_id, "succeeded", 1))


@retry_when_database_away
def _claim(check_id: UUID) -> tuple[Row[Any] | None, AccountRow | None, UUID | None]:
    with transaction() as tx:
        row = session_checks.claim(tx, check_id)
        if row is None:
            return None, None, None
        return row, *session_checks.account_of(tx, row)


def _alive(account: AccountRow) -> Result:
    """The credits call is the check: it needs the session and costs nothing (protocol section 4.2)."""
    try:
        return {"live": True, "points": _points(_credits(account))}
    except DreameryError as error:
        if error.code == EXPIRED:
            return {"live": False}
        # Punished, limited, without rights: upstream knows whose session it is.
        about_it = error.kind.fault is Fault.ACCOUNT and error.kind.reaction is Reaction.OTHER_ACCOUNT
        if about_it and error.code != "proxy_unreachable":
            return {"live": True}
        raise


def _left(account: AccountRow) -> Result:
    return {"points": _points(_credits(account))}


def _received(account: AccountRow) -> Result:
    """Take the day's credits; a refusal of that leaves what there is to be told."""
    refusal = None
    gained = 0
    try:
        gained = asked(account, lambda ready: get_provider().receive_credits(ready))
    except DreameryError as error:
        if error.code in {EXPIRED, "proxy_unreachable", "upstream_unreachable"}:
            raise
        refusal = error
    watchdog.renew()
    result: Result = {"points": _points(_credits(account)), "received": gained}
    return result | ({"error": _told(refusal)} if refusal else {})


_ANSWERS: dict[str, Callable[[AccountRow], Result]] = {"check": _alive, "points": _left, "receive": _received}


def _credits(account: AccountRow) -> Credits:
    return asked(account, lambda ready: get_provider().credits(ready))


def _points(left: Credits) -> dict[str, int]:
    """The names that other gateways' users read."""
    return {
        "giftCredit": left.gift,
        "purchaseCredit": left.purchase,
        "vipCredit": left.vip,
        "totalCredit": left.total,
    }


def _told(error: DreameryError) -> dict[str, str]:
    return {"code": error.code, "message": error.message}


@retry_when_database_away
def _note(check_id: UUID, known: UUID | None, result: Result, *, seconds: float) -> None:
    with transaction() as tx:
        if session_checks.answer(tx, check_id, result):
            tx.on_commit(partial(pubsub.announce, check_id, "succeeded", 1))
        points = result.get("points")
        if known is not None and points:
            balances.note_credits(tx, known, points["totalCredit"], seconds_ago=seconds)
            health.session_works(tx, known)
        if known is not None and "received" in result:
            refusal = result.get("error", {}).get("code")
            gained = None if refusal else result["received"]
            daily_credits.note_answer(tx, known, gained=gained, error_code=refusal, asked=True)
