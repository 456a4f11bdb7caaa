"""Changes and check-ups of an account, the same for administrators and for users with their own."""

from datetime import time
from functools import partial
from typing import Any
from uuid import UUID

from fastapi import Request
from starlette.concurrency import run_in_threadpool

from api.accounts.schemas import DAYS, AccountChange, WorkingHours
from api.accounts.serialization import account_object, account_check_object
from api.accounts.session_checks import wait_for_results, ensure_capacity, enqueue_checks
from api.auth.dependencies import Caller, audit_actor
from api.auth.session_tokens import check_token_usable, encrypt_session_token, session_token_hash
from worker.core.errors import DreameryError
from worker.core.ids import new_id, parse_public_id, public_id
from worker.core.security.encryption import lookup_hash, encrypt_secret
from worker.core.security.session_tokens import SessionToken, check_proxy, parse_proxy, parse_token, shown_proxy
from worker.core.settings import get_settings
from worker.db.accounts import accounts, management, session_checks
from worker.db.engine import Transaction, transaction
from worker.db.users import audit_log


def find_account(tx: Transaction, account_id: str, *, user_id: UUID | None, lock: bool = False) -> Any:
    """The account; with `user_id` only an own one of that user's. Raises account_not_found (404)."""
    found = parse_public_id("account", account_id)
    row = management.see_account(tx, found, lock=lock) if found else None
    if row is None or (user_id is not None and row.user_id != user_id):
        raise DreameryError("account_not_found", f"No account {account_id[:60]!r}.")
    return row


def change_account(
    request: Request, account_id: str, change: AccountChange, caller: Caller, *, user_id: UUID | None
) -> dict[str, Any]:
    """Change what is given, all or nothing; the account as it is then."""
    changes = change.model_dump(exclude_unset=True)
    with transaction() as tx:
        row = find_account(tx, account_id, user_id=user_id, lock=True)
        if row.state == "retired":
            raise DreameryError("account_retired")
        if change.session is not None:
            row = _replace_session(tx, row, change.session)
        if "proxy" in changes:
            _set_proxy(tx, row, change.proxy)
        # Only what has a setting, or no limit, behind it may be taken away by null.
        columns = {name: value for name, value in changes.items() if value is not None or name in management.NULLABLE}
        if columns.get("groups") and not row.pool:
            raise DreameryError("invalid_value", "Groups are for accounts of the platform.", param="groups")
        if "working_hours" in changes:
            columns |= _working_hours_columns(tx, change.working_hours)
        management.change_account(tx, row.id, columns)
        if change.rested:
            management.end_rest(tx, row.id)
        if change.paused is not None:
            (management.pause if change.paused else management.resume)(tx, row.id)
        told = {**changes, **({"session": "replaced"} if change.session is not None else {})}
        told |= {"proxy": shown_proxy(change.proxy) if change.proxy else None} if "proxy" in changes else {}
        audit_log.note_act(tx, audit_actor(request, caller), "account.change", public_id("account", row.id), **told)
        return account_object(management.see_account(tx, row.id))


def _replace_session(tx: Transaction, row: Any, text: str) -> Any:
    """The account's row with its new session, its secrets sealed for it."""
    token = _parse_session(text)
    if row.has_proxy and token.proxy is None:
        message = (
            f"This account has a proxy ({row.proxy_place or 'set before'}), sealed with the old session. "
            "Send it again as PROXY_URL@SESSION, or direct://@SESSION to go without."
        )
        raise DreameryError("invalid_value", message, param="session")
    if not management.replace_session(tx, row.id, encrypt_session_token(session_token_hash(token), token)):
        raise DreameryError("account_known", param="session")
    return management.see_account(tx, row.id)


def _parse_session(text: str) -> SessionToken:
    try:
        token = parse_token(text.strip(), 1, get_settings().default_region)
        check_token_usable(token, 1)
    except DreameryError as error:
        raise DreameryError("invalid_value", error.message, param="session") from None
    return token


def _set_proxy(tx: Transaction, row: Any, text: str | None) -> None:
    if not text:
        management.set_proxy(tx, row.id, proxy=None, proxy_hash="", place=None)
        return
    allowed = frozenset(get_settings().fetch_allow.lower().replace(" ", "").split(","))
    try:
        proxy = parse_proxy(text.strip(), 1)
        check_proxy(SessionToken(session="", region=row.region, proxy=proxy), 1, allowed)
    except DreameryError as error:
        raise DreameryError("invalid_value", error.message.replace("Token 1", "The proxy", 1), param="proxy") from None
    context = accounts.proxy_context(accounts.secret_context(row.lookup_hash))
    sealed = encrypt_secret(proxy, context=context)
    management.set_proxy(tx, row.id, proxy=sealed, proxy_hash=lookup_hash(f"proxy:{proxy}"), place=shown_proxy(proxy))


def _working_hours_columns(tx: Transaction, hours: WorkingHours | None) -> dict[str, Any]:
    if hours is None:
        return dict.fromkeys(management.HOURS)
    if not management.knows_zone(tx, hours.zone):
        message = f"{hours.zone!r} is no time zone that the database knows; write it as in `Asia/Shanghai` or `UTC`."
        raise DreameryError("invalid_value", message, param="working_hours")
    return {
        "hours_days": [DAYS.index(day) + 1 for day in hours.days],
        "hours_from": time.fromisoformat(hours.start),
        "hours_to": time.fromisoformat(hours.end.replace("24:00", "00:00")),
        "hours_zone": hours.zone,
    }


def retire_account(request: Request, account_id: str, caller: Caller, *, user_id: UUID | None) -> dict[str, Any]:
    """It takes no job any more; what it has in flight is finished."""
    with transaction() as tx:
        row = find_account(tx, account_id, user_id=user_id, lock=True)
        management.retire(tx, row.id)
        act = "account.retire"
        audit_log.note_act(tx, audit_actor(request, caller), act, public_id("account", row.id), label=row.label)
        return account_object(management.see_account(tx, row.id))


async def check_account(request: Request, account_id: str, caller: Caller, *, user_id: UUID | None) -> dict[str, Any]:
    """Have a worker look at the account now. Raises check_timeout (504) when none answers in time."""
    check = new_id()
    result = (await wait_for_results(request, [check], partial(_start_check, request, account_id, caller, user_id, check))).get(check)
    if result is None:
        raise DreameryError("check_timeout")
    row = await run_in_threadpool(partial(_read_account, account_id, user_id))
    return {**account_object(row), "check": account_check_object(row, result)}


def _start_check(request: Request, account_id: str, caller: Caller, user_id: UUID | None, check: UUID) -> list[UUID]:
    with transaction() as tx:
        row = find_account(tx, account_id, user_id=user_id)
        if row.state == "retired":
            raise DreameryError("account_retired")
        ensure_capacity(tx, caller.owner, 1)
        session_checks.ask_about(tx, owner=caller.owner, accounts_by_check={check: row.id})
        # If nobody answers while somebody waits, it is done with the next ones that are due.
        management.check_soon(tx, row.id)
        audit_log.note_act(tx, audit_actor(request, caller), "account.check", public_id("account", row.id))
        tx.on_commit(partial(enqueue_checks, [check]))
    return [check]


def _read_account(account_id: str, user_id: UUID | None) -> Any:
    with transaction() as tx:
        return find_account(tx, account_id, user_id=user_id)
