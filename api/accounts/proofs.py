"""Proves claims about an upstream with a real account, one step per request: each may cost money, and names how much.

A worker makes the calls. A step may take minutes: if it has no result in time, its id is returned to ask again with.
"""

from functools import partial
from typing import Any
from uuid import UUID

from fastapi import Request
from starlette.concurrency import run_in_threadpool

from api.accounts.changes import find_account
from api.accounts.proof_schemas import ProofRequest
from api.accounts.session_checks import enqueue_checks, ensure_capacity, wait_for_results
from api.auth.caller import Caller
from api.auth.dependencies import audit_actor
from worker.core.errors import DreameryError
from worker.core.ids import new_id, public_id
from worker.db.accounts import session_checks
from worker.db.engine import transaction
from worker.db.users import audit_log

# Longer than any step takes: then its worker has died, and whether it cost something is unknown.
_LOST_SECONDS = 1500.0


async def run_step(request: Request, account_id: str, body: ProofRequest, caller: Caller) -> dict[str, Any]:
    """Let a worker run a step, or list the steps. Raises the error with which it failed."""
    check = new_id()
    start = partial(_start, request, account_id, body, caller, check)
    results = await wait_for_results(request, [check], start, owner=f"proof:{check.hex}")
    return _object(check, results.get(check))


async def read_step(account_id: str, check: str) -> dict[str, Any]:
    """Return the result of a step that was started, or that it has none yet. Raises `check_timeout` if it is lost."""
    return await run_in_threadpool(partial(_read, account_id, check))


def _start(request: Request, account_id: str, body: ProofRequest, caller: Caller, check: UUID) -> list[UUID]:
    params = {"step": body.step, "known": body.known}
    with transaction() as tx:
        row = find_account(tx, account_id, user_id=None)
        if row.state == "retired":
            raise DreameryError("account_retired")
        if row.user_id not in {None, caller.user_id}:
            message = "This account belongs to another user. Its owner alone may spend money on it outside of jobs."
            raise DreameryError("forbidden", message)
        # Each step is an owner of its own: it may take long, and the next checks of its caller shall not wait for it.
        owner = f"proof:{check.hex}"
        ensure_capacity(tx, owner, 1)
        by_check = {check: row.id}
        session_checks.create_account_checks(tx, owner=owner, accounts_by_check=by_check, what="prove", params=params)
        if body.step is not None:
            actor = audit_actor(request, caller)
            audit_log.record_action(tx, actor, "account.prove", public_id("account", row.id), step=body.step)
        tx.on_commit(partial(enqueue_checks, [check]))
    return [check]


def _read(account_id: str, check: str) -> dict[str, Any]:
    with transaction() as tx:
        row = find_account(tx, account_id, user_id=None)
        found = session_checks.proof_result(tx, _check_id(check), row.id)
    if found is None:
        raise DreameryError("account_not_found", f"No step {check[:60]!r} of this account.")
    result, age = found
    if result is None and age > _LOST_SECONDS:
        raise DreameryError("check_timeout", "The worker that ran this step is gone. It may have cost what it names.")
    return _object(UUID(check), result)


def _check_id(text: str) -> UUID:
    try:
        return UUID(text)
    except ValueError:
        raise DreameryError("account_not_found", f"No step {text[:60]!r} of this account.") from None


def _object(check: UUID, result: dict[str, Any] | None) -> dict[str, Any]:
    found = result or {}
    if error := found.get("error"):
        raise DreameryError(error["code"], error["message"])
    empty: dict[str, Any] = {"currency": None, "steps": None, "findings": None, "known": {}}
    return {"id": check.hex, "object": "account.proof", "done": result is not None, **empty, **found}
