"""Answers a question about a session id (is it valid, how many credits are left, claim the daily credits), or checks an
account now.

Creates no account row. If the session id already belongs to an account, the result is stored there. Checks wait on the
event loop, few at once per owner: an owner whose proxies stall delays only the own checks.
"""

import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict
from functools import partial
from typing import Any
from uuid import UUID

from worker.core.concurrency.event_loop import in_thread, run
from worker.core.concurrency.lanes import acting_for
from worker.core.concurrency.shutdown import stopping
from worker.core.errors import DreameryError, Fault, Reaction
from worker.core.job_state import JobState
from worker.core.observability.faults import UnexpectedError
from worker.core.observability.logging import get_logger
from worker.db.accounts import health, lost_answers, session_checks
from worker.db.accounts.accounts import AccountRow
from worker.db.credits import balances, daily_credits
from worker.db.engine import DATABASE_UNAVAILABLE_ERRORS, Row, retry_when_database_unavailable, transaction
from worker.messaging import pubsub
from worker.providers.base import Account
from worker.providers.credits import Credits
from worker.providers.refusals import RefusedError
from worker.providers.registry import get_provider, required
from worker.tasks.stages.account_check import CHECK_SECONDS, call_within, check_account, error_dict, recognised
from worker.tasks.stages.account_session import SESSION_EXPIRED, call_upstream_async, decrypt_account

log = get_logger("check_session")

Result = dict[str, Any]
_Claimed = tuple[Row[Any], AccountRow, UUID | None]


def check(*, check_id: UUID) -> str:
    """Ask upstream the question, if it is still open. Return a line about the outcome."""
    return run(_check_open(check_id))


async def _check_open(check_id: UUID) -> str:
    claimed = await in_thread(_claim, check_id, alone=True)
    return "nothing to check" if claimed is None else await _answer(*claimed)


async def check_lane(check_id: UUID) -> str:
    """Answer the check, then the other open checks of its owner. Does nothing if enough of them are in progress."""
    claimed = await in_thread(_claim, check_id)
    if claimed is None:
        return "nothing to check"
    line, more = await _answer(*claimed), 0
    while not stopping.requested and (claimed := await in_thread(_claim, check_id)) is not None:
        await _answer(*claimed)
        more += 1
    return f"{line}, and {more} more" if more else line


async def _answer(row: Row[Any], account: AccountRow, known: UUID | None) -> str:
    try:
        with acting_for(row.owner, account.id):
            return await _ask(row, account, known)
    except DATABASE_UNAVAILABLE_ERRORS:
        raise
    except BaseException as error:  # noqa: BLE001 - a caller waits for the answer
        fault = UnexpectedError(error)
        log.error("check_failed", check_id=str(row.id), detail=fault.detail, trace=fault.frames)  # noqa: TRY400
        await in_thread(_store_answer, row.id, {"error": error_dict(fault)})
        return f"failed {row.what} {row.id}: {fault.detail}"


async def _ask(row: Row[Any], account: AccountRow, known: UUID | None) -> str:
    if row.what == "checkup":
        return await _check_account(row.id, account, known)
    if row.what == "prove":
        return await _prove(row, account, known)
    asked_at = time.monotonic()
    try:
        result = await _ANSWERS[row.what](account, asked_at + CHECK_SECONDS)
    except DreameryError as error:
        log.info("check_refused", check_id=str(row.id), code=error.code, detail=error.detail)
        result = {"error": error_dict(error)}
    await in_thread(_store_result, row.id, known, result, seconds=time.monotonic() - asked_at)
    return f"answered {row.what} {row.id}"


async def _check_account(check_id: UUID, account: AccountRow, known: UUID | None) -> str:
    # Not known any more: its session was replaced, which also requests another check.
    if known:
        result = await check_account(account, models=True)
    else:
        result = {"error": error_dict(DreameryError("account_not_found"))}
    await in_thread(_store_answer, check_id, result)
    return f"checked {account.label}"


async def _prove(row: Row[Any], account: AccountRow, known: UUID | None) -> str:
    """Run one step of the proof of an upstream with this account, or return all steps. It may take minutes."""
    facts: Mapping[str, Any] = {}
    try:
        result, facts = await _run_step(row.params["step"], row.params["known"], account, known)
    except DreameryError as error:
        log.info("proof_failed", check_id=str(row.id), code=error.code, detail=error.detail)
        result = {"error": error_dict(error)}
    await in_thread(_store_answer, row.id, result)
    if facts and known is not None:
        await in_thread(_learn, known, facts)
    return f"proved {row.params['step']} {account.label}"


async def _run_step(
    step: str | None, before: Mapping[str, Any], account: AccountRow, known: UUID | None
) -> tuple[Result, Mapping[str, Any]]:
    """Return the result of a step, and facts about the account. `before` = what the steps before it returned."""
    offered = get_provider(account).capabilities.proof
    if known is None:
        raise DreameryError("account_not_found")
    if offered is None:
        raise DreameryError("unsupported_operation", "There is nothing to prove for accounts of this upstream.")
    if step is None:
        steps = offered.proof_steps(decrypt_account(account))
        return {"currency": account.currency, "steps": [asdict(one) for one in steps]}, {}
    proved = await call_upstream_async(account, lambda one: offered.prove(one, step, before))
    return {"findings": [asdict(one) for one in proved.findings], "known": dict(proved.known)}, proved.facts


@retry_when_database_unavailable
def _learn(account_id: UUID, facts: Mapping[str, Any]) -> None:
    with transaction() as tx:
        lost_answers.learn(tx, account_id, facts)


@retry_when_database_unavailable
def _store_answer(check_id: UUID, result: Result) -> None:
    with transaction() as tx:
        if session_checks.save_result(tx, check_id, result):
            tx.on_commit(partial(pubsub.publish_job_change, check_id, JobState.SUCCEEDED, 1))


@retry_when_database_unavailable
def _claim(check_id: UUID, *, alone: bool = False) -> _Claimed | None:
    with transaction() as tx:
        row = session_checks.claim(tx, check_id, alone=alone)
        return None if row is None else (row, *session_checks.account_of(tx, row))


async def _check_valid(account: AccountRow, until: float) -> Result:
    """Check the credential with a free call that needs a valid one."""
    try:
        if get_provider(account).capabilities.balance is None:
            await call_within(account, get_provider(account).check_account, until=until)
            return {"live": True}
        return {"live": True, "points": _points(await _fetch_credits(account, until))}
    except RefusedError as error:
        live = recognised(error.verdict)
        if live is None:
            raise
        return {"live": live}
    except DreameryError as error:
        if error.code == SESSION_EXPIRED:
            return {"live": False}
        # Under risk control, limited or without rights: upstream recognised the session.
        about_account = error.kind.fault is Fault.ACCOUNT and error.kind.reaction is Reaction.OTHER_ACCOUNT
        if about_account and error.code != "proxy_unreachable":
            return {"live": True}
        raise


async def _read_points(account: AccountRow, until: float) -> Result:
    _require_credits(account)
    return {"points": _points(await _fetch_credits(account, until))}


async def _claim_daily_credits(account: AccountRow, until: float) -> Result:
    """Claim the daily credits and read the balance. After a refusal of the claim the balance is still reported."""
    _require_credits(account)
    refusal = None
    gained = 0
    try:
        gained = await call_within(account, _receive, until=until)
    except DreameryError as error:
        if error.code in {SESSION_EXPIRED, "proxy_unreachable", "upstream_unreachable"}:
            raise
        refusal = error
    result: Result = {"points": _points(await _fetch_credits(account, until)), "received": gained}
    return result | ({"error": error_dict(refusal)} if refusal else {})


_ANSWERS: dict[str, Callable[[AccountRow, float], Awaitable[Result]]] = {
    "check": _check_valid,
    "points": _read_points,
    "receive": _claim_daily_credits,
}


async def _receive(account: Account) -> int:
    return await required(get_provider(account).capabilities.daily_credits).receive_credits(account)


def _require_credits(account: AccountRow) -> None:
    """Raise `unsupported_operation` if the upstream of the account has no credits."""
    if get_provider(account).capabilities.balance is None:
        raise DreameryError("unsupported_operation", "This upstream tells no balance and gives no credits.")


async def _read_balance(account: Account) -> Credits:
    return await required(get_provider(account).capabilities.balance).fetch_credits(account)


async def _fetch_credits(account: AccountRow, until: float) -> Credits:
    return await call_within(account, _read_balance, until=until)


def _points(left: Credits) -> dict[str, int]:
    """Return the credits under the names that users of other gateways know."""
    return {**left.parts, "totalCredit": left.total}


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
