"""Change, check and retire one account: shared by the admin routes and the routes for a user's own accounts."""

from datetime import time
from functools import partial
from typing import Any
from uuid import UUID

from fastapi import Request
from starlette.concurrency import run_in_threadpool

from api.accounts.polling_limits import check_polling_limits
from api.accounts.provider_fields import columns_of
from api.accounts.schemas import DAYS, AccountChange, WorkingHours
from api.accounts.serialization import account_check_object, account_object
from api.accounts.session_checks import enqueue_checks, ensure_capacity, wait_for_results
from api.auth.caller import Caller
from api.auth.dependencies import audit_actor
from api.auth.session_tokens import check_token_usable, encrypt_session_token, session_token_hash
from worker.core.catalog.provider_data import all_providers
from worker.core.errors import DreameryError
from worker.core.ids import new_id, parse_public_id, public_id
from worker.core.security.encryption import encrypt_secret, lookup_hash
from worker.core.security.session_tokens import (
    SessionToken,
    check_proxy,
    parse_proxy,
    parse_token,
    proxy_without_credentials,
)
from worker.core.settings import get_settings
from worker.db.accounts import accounts, management, session_checks
from worker.db.engine import Transaction, transaction
from worker.db.users import audit_log


def find_account(tx: Transaction, account_id: str, *, user_id: UUID | None, lock: bool = False) -> Any:
    """Return the account row. With `user_id` only an account of that user. Raises account_not_found (404)."""
    parsed_id = parse_public_id("account", account_id)
    row = management.get_account_details(tx, parsed_id, lock=lock) if parsed_id else None
    if row is None or (user_id is not None and row.user_id != user_id):
        raise DreameryError("account_not_found", f"No account {account_id[:60]!r}.")
    return row


def change_account(
    request: Request, account_id: str, change: AccountChange, caller: Caller, *, user_id: UUID | None
) -> dict[str, Any]:
    """Apply the fields that are set, in one transaction, and return the changed account."""
    changes = change.model_dump(exclude_unset=True)
    with transaction() as tx:
        row = find_account(tx, account_id, user_id=user_id, lock=True)
        if row.state == "retired":
            raise DreameryError("account_retired")
        check_polling_limits(caller, changes, row)
        if change.session is not None:
            row = _replace_session(tx, row, change.session)
        if "proxy" in changes:
            _set_proxy(tx, row, change.proxy)
        # Null resets only columns that fall back to a setting or to "no limit".
        columns = {name: value for name, value in changes.items() if value is not None or name in management.NULLABLE}
        if columns.get("groups") and not row.pool:
            raise DreameryError("invalid_value", "Only accounts of the platform can have groups.", param="groups")
        columns |= columns_of(all_providers()[row.provider], changes, row.user_id)
        if "working_hours" in changes:
            columns |= _working_hours_columns(tx, change.working_hours)
        management.change_account(tx, row.id, columns)
        if renamed := _renamed_models(row.model_ids, columns):
            management.reopen_models(tx, row.id, renamed)
        if change.reopen_models is not None:
            models = change.reopen_models
            management.reopen_models(tx, row.id, None if "*" in models else models)
        if change.rested:
            management.end_cooldown(tx, row.id)
        if change.paused is not None:
            (management.pause if change.paused else management.resume)(tx, row.id)
        details = {**changes, **({"session": "replaced"} if change.session is not None else {})}
        details |= (
            {"proxy": proxy_without_credentials(change.proxy) if change.proxy else None} if "proxy" in changes else {}
        )
        audit_log.record_action(
            tx, audit_actor(request, caller), "account.change", public_id("account", row.id), **details
        )
        return account_object(management.get_account_details(tx, row.id))


def _replace_session(tx: Transaction, row: Any, text: str) -> Any:
    """Store the new session, encrypted for this account, and return the changed row."""
    token = _parse_session(text, row)
    if row.has_proxy and token.proxy is None:
        message = (
            f"This account has a proxy ({row.proxy_place or 'set before'}), encrypted with the old session. "
            "Send it again as PROXY_URL@SESSION, or direct://@SESSION for no proxy."
        )
        raise DreameryError("invalid_value", message, param="session")
    if not management.replace_session(tx, row.id, encrypt_session_token(session_token_hash(token), token)):
        raise DreameryError("account_known", param="session")
    return management.get_account_details(tx, row.id)


def _parse_session(text: str, row: Any) -> SessionToken:
    """Parse a new credential of the account. A key without a region has that of the account."""
    sessions = all_providers()[row.provider].has_sessions
    try:
        token = parse_token(text.strip(), 1, get_settings().default_region if sessions else row.region, row.provider)
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
    encrypted = encrypt_secret(proxy, context=context)
    management.set_proxy(
        tx, row.id, proxy=encrypted, proxy_hash=lookup_hash(f"proxy:{proxy}"), place=proxy_without_credentials(proxy)
    )


def _working_hours_columns(tx: Transaction, hours: WorkingHours | None) -> dict[str, Any]:
    if hours is None:
        return dict.fromkeys(management.HOURS)
    if not management.is_known_time_zone(tx, hours.zone):
        message = f"{hours.zone!r} is not a known time zone. Use an IANA name such as `Asia/Shanghai` or `UTC`."
        raise DreameryError("invalid_value", message, param="working_hours")
    return {
        "hours_days": [DAYS.index(day) + 1 for day in hours.days],
        "hours_from": time.fromisoformat(hours.start),
        "hours_to": time.fromisoformat(hours.end.replace("24:00", "00:00")),
        "hours_zone": hours.zone,
    }


def retire_account(request: Request, account_id: str, caller: Caller, *, user_id: UUID | None) -> dict[str, Any]:
    """Retire the account and return it. It accepts no new jobs; running jobs finish."""
    with transaction() as tx:
        row = find_account(tx, account_id, user_id=user_id, lock=True)
        management.retire(tx, row.id)
        action = "account.retire"
        audit_log.record_action(tx, audit_actor(request, caller), action, public_id("account", row.id), label=row.label)
        return account_object(management.get_account_details(tx, row.id))


async def check_account(request: Request, account_id: str, caller: Caller, *, user_id: UUID | None) -> dict[str, Any]:
    """Let a worker check the account now, and return it with the result. Raises check_timeout (504)."""
    row, result = await _ask_upstream(request, account_id, caller, user_id, "checkup")
    return {**account_object(row), "check": account_check_object(row, result)}


async def receive_credits(request: Request, account_id: str, caller: Caller, *, user_id: UUID | None) -> dict[str, Any]:
    """Let a worker claim the daily credits, and return the account with the result. Raises check_timeout (504)."""
    row, result = await _ask_upstream(request, account_id, caller, user_id, "receive")
    return {**account_object(row), "receive": {"gained": result.get("received"), "error": result.get("error")}}


async def _ask_upstream(
    request: Request, account_id: str, caller: Caller, user_id: UUID | None, what: str
) -> tuple[Any, dict[str, Any]]:
    """Return the account row and what upstream answered. Raises check_timeout (504)."""
    check = new_id()
    start = partial(_start_check, request, account_id, caller, user_id, check, what)
    results = await wait_for_results(request, [check], start, owner=caller.owner)
    result = results.get(check)
    if result is None:
        raise DreameryError("check_timeout")
    return await run_in_threadpool(partial(_read_account, account_id, user_id)), result


def _start_check(  # noqa: PLR0917 - bound as one function
    request: Request, account_id: str, caller: Caller, user_id: UUID | None, check: UUID, what: str
) -> list[UUID]:
    with transaction() as tx:
        row = find_account(tx, account_id, user_id=user_id)
        if row.state == "retired":
            raise DreameryError("account_retired")
        ensure_capacity(tx, caller.owner, 1)
        session_checks.create_account_checks(tx, owner=caller.owner, accounts_by_check={check: row.id}, what=what)
        if what == "checkup":
            # If no worker answers in time, the next background check includes this account.
            management.schedule_check(tx, row.id)
        action = _ACTIONS[what]
        audit_log.record_action(tx, audit_actor(request, caller), action, public_id("account", row.id))
        tx.on_commit(partial(enqueue_checks, [check]))
    return [check]


_ACTIONS = {"checkup": "account.check", "receive": "account.receive"}


def _read_account(account_id: str, user_id: UUID | None) -> Any:
    with transaction() as tx:
        return find_account(tx, account_id, user_id=user_id)


def _renamed_models(before: dict[str, str], columns: dict[str, Any]) -> list[str]:
    """Return the models that have another id upstream now: what is known about the old id says nothing about it."""
    after = columns.get("model_ids", before)
    return sorted(model for model in {*before, *after} if before.get(model) != after.get(model))
