"""Checks one account: reads its credits (a free call) and, when requested, its model list; stores what it learns.

Used by `refresh_accounts` (accounts that are due) and `check_session` (on request), on the event loop: a check holds no
thread while it waits. Each result is committed at once. If the worker dies in between, the account stays due for
another check.
"""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from datetime import UTC, datetime
from functools import partial
from typing import Any, TypeVar

from worker.core.concurrency.event_loop import in_thread
from worker.core.errors import DreameryError, Fault
from worker.core.observability.faults import UnexpectedError
from worker.core.observability.logging import get_logger
from worker.core.settings import get_settings
from worker.db.accounts import health, limit_groups, lost_answers, model_listings
from worker.db.accounts.accounts import AccountRow
from worker.db.credits import balances
from worker.db.engine import DATABASE_UNAVAILABLE_ERRORS, Transaction, retry_when_database_unavailable, transaction
from worker.messaging import celery_app
from worker.providers.base import Account
from worker.providers.live_models import LiveModels
from worker.providers.refusals import RefusedError, Scope, Verdict
from worker.providers.registry import get_provider
from worker.tasks.stages import cooldowns, worker_keys
from worker.tasks.stages.account_session import SESSION_EXPIRED, SecretLockedError, call_upstream_async

log = get_logger("account_check")

# A session that upstream rejects again cools down for longer than the first time, because it rarely recovers.
STILL_EXPIRED_SECONDS = 1800.0

# The calls of one check, together: hosts, credits, models.
CHECK_SECONDS = 24.0

Result = dict[str, Any]
Answer = TypeVar("Answer")


async def call_within(row: AccountRow, call: Callable[[Account], Awaitable[Answer]], *, until: float) -> Answer:
    """Like `call_upstream_async`; upstream counts as unreachable from `until` (monotonic) on."""
    try:
        async with asyncio.timeout(max(until - time.monotonic(), 0.0)):
            return await call_upstream_async(row, call)
    except TimeoutError:
        raise DreameryError("upstream_unreachable", detail="no answer in the time of the check") from None


async def check_account(row: AccountRow, *, models: bool) -> Result:
    """Check the account upstream. Return `{live, credits, models}`; a failure adds `error`, and `live` may be None."""
    try:
        return await _check(row, models=models)
    except DATABASE_UNAVAILABLE_ERRORS:
        raise
    except BaseException as error:  # noqa: BLE001 - other accounts are checked
        fault = UnexpectedError(error)
        log.error("check_failed", account=row.label, detail=fault.detail, trace=fault.frames)  # noqa: TRY400
        return await in_thread(_note_refusal, row, fault)


async def _check(row: AccountRow, *, models: bool) -> Result:
    asked_at = time.monotonic()
    until = asked_at + CHECK_SECONDS
    left, facts, offered = None, None, get_provider(row).capabilities.facts
    try:
        if offered is not None:
            facts = await call_within(row, offered.read_facts, until=until)
        else:
            left = await call_within(row, get_provider(row).check_account, until=until)
    except DreameryError as error:
        log.info("checkup_refused", account=row.label, code=error.code, detail=error.detail)
        return await in_thread(_note_refusal, row, error)
    await in_thread(_note_works, row, left, facts, seconds_ago=time.monotonic() - asked_at)
    counts, models_error = None, None
    if models:
        try:
            counts = await _refresh_models(row, until=until)
        except DreameryError as error:
            # Not a problem of the session, which has just worked.
            log.info("models_not_listed", account=row.label, code=error.code, detail=error.detail)
            models_error = error
    await in_thread(_note_check, row, models_error)
    result: Result = {"live": True, "credits": left, "models": counts}
    return result | ({"error": error_dict(models_error)} if models_error else {})


async def _refresh_models(row: AccountRow, *, until: float) -> dict[str, int] | None:
    """Fetch and store the account's model list. Return the number of models of each kind; None = it has no list."""
    offered = get_provider(row).capabilities.live_models
    if offered is None:
        return None
    listed = await call_within(row, offered.list_models, until=until)
    models = _to_stored_form(listed)
    await in_thread(_store_models, row, models)
    return {kind: len(rows) for kind, rows in models.items()}


def _store_models(row: AccountRow, models: dict[str, Any]) -> None:
    with transaction() as tx:
        model_listings.store_models(tx, row.id, models)


def error_dict(error: DreameryError) -> dict[str, str]:
    """Return the error as a check result shows it."""
    return {"code": error.code, "message": error.message}


def _to_stored_form(models: LiveModels) -> dict[str, Any]:
    """Return the form of `worker.core.catalog.upstream_models`. It has no sizes: the catalog defines them."""
    images = [{name: value for name, value in asdict(model).items() if name != "sizes"} for model in models.images]
    return {"images": images, "videos": [asdict(model) for model in models.videos]}


@retry_when_database_unavailable
def _note_works(row: AccountRow, left: int | None, facts: dict[str, Any] | None, *, seconds_ago: float) -> None:
    with transaction() as tx:
        if facts:
            lost_answers.learn(tx, row.id, facts)
        if left is not None:
            balances.record_credits(tx, row.id, left, seconds_ago=seconds_ago)
        if health.record_session_works(tx, row.id):
            tx.on_commit(partial(celery_app.enqueue_submit, account_id=row.id))
            log.info("session_works_again", account=row.label)


@retry_when_database_unavailable
def _note_refusal(row: AccountRow, error: DreameryError) -> Result:
    if isinstance(error, SecretLockedError):
        worker_keys.stop_if_wrong(account=row.label)
    about_account = error.kind.fault is Fault.ACCOUNT and error.code != "proxy_unreachable"
    result: Result = {"live": None, "credits": None, "models": None, "error": error_dict(error)}
    verdict = error.verdict if isinstance(error, RefusedError) else None
    with transaction() as tx:
        if verdict is not None:
            result["live"] = recognised(verdict)
            _stop(tx, row, verdict, error)
        elif error.code == SESSION_EXPIRED:
            result["live"] = False
            if health.record_login_refusal(tx, row.id, seconds=STILL_EXPIRED_SECONDS):
                log.warning("account_needs_login", account=row.label)
        elif about_account:
            # Under risk control, limited or without rights: upstream recognised the session.
            result["live"] = True
            if seconds := cooldowns.cooldown_seconds(error.code, row, datetime.now(UTC)):
                health.cool_down(tx, row.id, seconds=seconds, code=error.code)
        # After an answer of upstream the next check is at the usual time, otherwise soon.
        next_in = _next_check_seconds() if result["live"] is not None else model_listings.RETRY_SECONDS
        if verdict is not None and verdict.checks_after:
            next_in = verdict.checks_after
        model_listings.record_account_check(tx, row.id, code=error.code, next_in=next_in)
    return result


def recognised(verdict: Verdict) -> bool | None:
    """Return whether upstream recognised the credential that it refused; None = the refusal does not tell."""
    if verdict.stops == "needs_login":
        return False
    return None if verdict.scope is Scope.JOB else True


def _stop(tx: Transaction, row: AccountRow, verdict: Verdict, error: DreameryError) -> None:
    """Stop the account, or with all accounts of its customer. Rests of single models do not come from checks."""
    if not verdict.stops:
        return
    locked = limit_groups.lock(tx, row.id, row.limit_group if verdict.scope is Scope.GROUP else None)
    limit_groups.stop(tx, locked, state=verdict.stops, code=error.code, checks_after=verdict.checks_after)
    log.warning("account_stopped", account=row.label, state=verdict.stops, code=error.code, detail=error.detail)


@retry_when_database_unavailable
def _note_check(row: AccountRow, error: DreameryError | None) -> None:
    with transaction() as tx:
        next_in = _next_check_seconds() if error is None else model_listings.RETRY_SECONDS
        model_listings.record_account_check(tx, row.id, code=error.code if error else None, next_in=next_in)


def _next_check_seconds() -> float:
    settings = get_settings()
    # Jitter, so that accounts that were added together do not stay synchronised.
    interval = min(settings.account_check_seconds, settings.models_refresh_seconds)
    return interval * random.uniform(0.8, 1.2)  # noqa: S311
