"""Import session ids as accounts. Each entry is handled separately: an unusable entry does not affect the others."""

import re
from dataclasses import dataclass, field
from functools import partial
from typing import Any
from uuid import UUID

from fastapi import Request
from starlette.concurrency import run_in_threadpool

from api.accounts.polling_limits import check_polling_limits
from api.accounts.provider_fields import columns_of, provider_named, region_named
from api.accounts.schemas import AccountCreate
from api.accounts.serialization import account_check_object, account_object
from api.accounts.session_checks import enqueue_checks, has_capacity, wait_for_results
from api.auth import known_keys
from api.auth.caller import Caller
from api.auth.dependencies import audit_actor
from api.auth.session_tokens import check_token_usable, encrypt_session_token, session_token_hash
from worker.core.catalog.provider_data import ProviderData, first_provider
from worker.core.errors import DreameryError
from worker.core.ids import new_id, public_id
from worker.core.security.session_tokens import MAX_TOKENS, SessionToken, mask_token, parse_token
from worker.db.accounts import management, session_checks
from worker.db.engine import Transaction, transaction
from worker.db.users import audit_log

_LINES = re.compile(r"\r\n|\n|\r")
# So many letters of an entry without a readable session id are returned: enough to find it.
_FIRST_LETTERS = 6


@dataclass(frozen=True, slots=True)
class AccountOwner:
    """The owner of the new accounts: a user, or the platform (None), for all users or for `groups`."""

    user_id: UUID | None
    groups: list[str] = field(default_factory=list)


@dataclass(slots=True)
class _Entry:
    line: int  # its place in the text
    number: int  # of the entry, without empty lines and comments
    text: str
    token: SessionToken | None = None
    error: DreameryError | None = None
    account_id: UUID | None = None
    outcome: str = ""
    check: UUID = field(default_factory=new_id)  # id of its first check


async def import_accounts(
    request: Request, body: AccountCreate, caller: Caller, account_owner: AccountOwner
) -> dict[str, Any]:
    """Register every usable session id, check each new account, and return the outcome of every entry.

    With one of the polling limits, a restored account gets all three of `body`; with none it keeps its own.

    Raises `invalid_value`, or the error of the only entry, when no entry became an account; own_account_limit, when the
    user would have too many.
    """
    check_polling_limits(caller, _polling_of(body))
    provider = provider_named(body.provider)
    region, warnings = region_named(provider, body.region)
    fields = body.model_dump(include={"model_ids", "limit_group"}, exclude_unset=True)
    columns = columns_of(provider, fields, account_owner.user_id) | _polling_of(body)
    entries = _parse_entries(body.tokens, region, provider)
    check_ids = [entry.check for entry in entries]
    removed: list[UUID] = []
    register = partial(_register_all, request, entries, body, columns, caller, account_owner, removed)
    results = await wait_for_results(request, check_ids, register, owner=caller.owner)
    if removed:
        await run_in_threadpool(partial(_return_sandbox_accounts, removed))
    known_keys.forget()
    if not any(entry.account_id for entry in entries):
        raise _no_account_error(entries)
    return {**await run_in_threadpool(partial(_result_object, entries, results)), "warnings": warnings}


def _polling_of(body: AccountCreate) -> dict[str, Any]:
    """Return all three polling limits, or nothing if the request has none."""
    limits = {name: getattr(body, name) for name in management.POLLING}
    return limits if any(value is not None for value in limits.values()) else {}


def _parse_entries(text: str, region: str, provider: ProviderData) -> list[_Entry]:
    parts = _split_entries(text)
    if not parts:
        raise DreameryError("invalid_value", "`tokens` contains no session id.", param="tokens")
    if len(parts) > MAX_TOKENS:
        message = f"At most {MAX_TOKENS} session ids are accepted per request. Send the rest in another request."
        raise DreameryError("invalid_value", message, param="tokens")
    return [_parse_entry(part, line, number, region, provider) for number, (line, part) in enumerate(parts, start=1)]


def _split_entries(text: str) -> list[tuple[int, str]]:
    """Return the entries with their places. Each line and each comma begin one; comments and empty ones count."""
    places: list[str] = []
    for line in _LINES.split(text):
        places += [line] if line.strip().startswith("#") else line.split(",")
    numbered = ((place, part.strip()) for place, part in enumerate(places, start=1))
    return [(place, part) for place, part in numbered if part and not part.startswith("#")]


def _parse_entry(part: str, line: int, number: int, region: str, provider: ProviderData) -> _Entry:
    entry = _Entry(line, number, part)
    try:
        # Session ids may name their region, and the sandbox's ones their provider.
        entry.token = parse_token(part, line, region, None if provider.name == first_provider() else provider.name)
        check_token_usable(entry.token, line)
    except DreameryError as error:
        entry.error = error if provider.has_sessions else DreameryError("invalid_value", error.message, param="tokens")
    return entry


def _no_account_error(entries: list[_Entry]) -> DreameryError:
    errors = [entry.error for entry in entries if entry.error is not None]
    if len(errors) == 1:
        return errors[0]
    messages = " ".join(dict.fromkeys(error.message for error in errors[:5]))
    return DreameryError(
        "invalid_value", f"None of the {len(entries)} entries could be added. {messages}", param="tokens"
    )


def _register_all(  # noqa: PLR0917 - bound as one function
    request: Request,
    entries: list[_Entry],
    body: AccountCreate,
    columns: dict[str, Any],
    caller: Caller,
    account_owner: AccountOwner,
    removed: list[UUID],
) -> list[UUID]:
    """Register all usable entries in one transaction and return the ids of the checks that were started.

    `removed` receives the sandbox accounts that left the pool.
    """
    usable = [
        (session_token_hash(entry.token), entry) for entry in entries if entry.token is not None and entry.error is None
    ]
    several = len(entries) > 1
    accounts_by_check: dict[UUID, UUID] = {}
    with transaction() as tx:
        most = management.lock_own_accounts(tx, account_owner.user_id) if account_owner.user_id else None
        # A fixed order prevents a deadlock between two imports of the same session ids.
        for digest, entry in sorted(usable, key=lambda pair: (pair[0], pair[1].line)):
            if entry.token is None:
                continue
            account_id, entry.outcome = management.register_account(
                tx,
                encrypt_session_token(digest, entry.token),
                user_id=account_owner.user_id,
                groups=account_owner.groups,
            )
            if entry.outcome == "duplicate" and not _may_see(management.get_account_details(tx, account_id), caller):
                entry.error = DreameryError("account_known")
                continue
            entry.account_id = account_id
            if entry.outcome == "duplicate":
                continue
            changes = dict(columns)
            if body.label:
                changes["label"] = f"{body.label} {entry.number}" if several else body.label
            management.change_account(tx, account_id, changes)
            accounts_by_check[entry.check] = account_id
            details = _audit_details(entry.token, entry.outcome, body, account_owner)
            audit_log.record_action(
                tx, audit_actor(request, caller), "account.add", public_id("account", account_id), **details
            )
        if account_owner.user_id is not None and most is not None:
            _refuse_too_many(tx, account_owner.user_id, most, added=len(accounts_by_check))
        # After the loop, because the order of the entries is arbitrary.
        joined = [entry.account_id for _, entry in usable if entry.account_id is not None]
        removed += management.remove_sandbox_accounts(tx, joined)
        if not (accounts_by_check and body.check and has_capacity(tx, caller.owner, len(accounts_by_check))):
            return []  # a check of each account is due anyway
        session_checks.create_account_checks(tx, owner=caller.owner, accounts_by_check=accounts_by_check)
        tx.on_commit(partial(enqueue_checks, list(accounts_by_check)))
    return list(accounts_by_check)


def _audit_details(
    token: SessionToken, outcome: str, body: AccountCreate, account_owner: AccountOwner
) -> dict[str, Any]:
    return {
        "provider": token.provider,
        "region": token.region,
        "outcome": outcome,
        "groups": account_owner.groups,
        **_polling_of(body),
        "user": public_id("user", account_owner.user_id) if account_owner.user_id else None,
    }


def _return_sandbox_accounts(removed: list[UUID]) -> None:
    """Let a new platform keep working when the first account that was added is not recognised by its upstream."""
    with transaction() as tx:
        management.return_sandbox_accounts(tx, removed)


def _refuse_too_many(tx: Transaction, user_id: UUID, most: int, *, added: int) -> None:
    """Raise own_account_limit, which undoes the whole request, when the user has more accounts than it may have."""
    number = management.count_own_accounts(tx, user_id)
    if added and number > most:
        message = (
            f"This user has {number - added} own accounts and may have {most}; this request would add {added}. Nothing "
            "was added. Send fewer, remove some (DELETE /v1/accounts/ID), or ask an administrator to raise the limit "
            "`own_accounts`."
        )
        raise DreameryError("own_account_limit", message, param="tokens")


def _may_see(row: Any, caller: Caller) -> bool:
    return caller.has_scope("admin") or (row is not None and row.user_id is not None and row.user_id == caller.user_id)


def _first_letters(text: str) -> str:
    """Return the beginning of an unreadable entry; of a short one, which may be a password, only a part."""
    return f"{text[: min(_FIRST_LETTERS, len(text) // 3)]}\u2026"


def _result_object(entries: list[_Entry], results: dict[UUID, dict[str, Any]]) -> dict[str, Any]:
    with transaction() as tx:
        rows = management.get_accounts_details(
            tx, [entry.account_id for entry in entries if entry.account_id is not None]
        )
    imported, refused = [], []
    for entry in entries:
        row = rows.get(entry.account_id) if entry.account_id is not None else None
        if row is not None:
            checked = entry.outcome != "duplicate"
            check = account_check_object(row, results.get(entry.check)) if checked else None
            imported.append({**account_object(row), "line": entry.line, "outcome": entry.outcome, "check": check})
        elif entry.error is not None:
            token = mask_token(entry.token) if entry.token is not None else _first_letters(entry.text)
            error = {"code": entry.error.code, "message": entry.error.message}
            refused.append({"line": entry.line, "token": token, "error": error})
    return {"object": "list", "data": imported, "refused": refused, "has_more": False}
