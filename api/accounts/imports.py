"""Session ids become accounts: each entry for itself, so that one that cannot be used loses no other."""

import re
from dataclasses import dataclass, field
from functools import partial
from typing import Any
from uuid import UUID

from fastapi import Request
from starlette.concurrency import run_in_threadpool

from api.accounts.schemas import AccountCreate
from api.accounts.serialization import account_object, account_check_object
from api.accounts.session_checks import wait_for_results, enqueue_checks
from api.auth.dependencies import Caller, audit_actor
from api.auth.session_tokens import check_token_usable, encrypt_session_token, session_token_hash
from worker.core.errors import DreameryError
from worker.core.ids import new_id, public_id
from worker.core.security.session_tokens import MAX_TOKENS, SessionToken, masked, parse_token
from worker.core.settings import get_settings
from worker.db.accounts import management, session_checks
from worker.db.engine import transaction
from worker.db.users import audit_log

_SEPARATORS = re.compile(r"[,\n\r]+")


@dataclass(frozen=True, slots=True)
class AccountOwner:
    """Who is to keep the accounts: a user, or with None the platform for all or for some groups."""

    user_id: UUID | None
    groups: list[str] = field(default_factory=list)


@dataclass(slots=True)
class _Entry:
    line: int
    token: SessionToken | None = None
    error: DreameryError | None = None
    account_id: UUID | None = None
    outcome: str = ""
    check: UUID = field(default_factory=new_id)  # the id of its check-up


async def import_accounts(request: Request, body: AccountCreate, caller: Caller, account_owner: AccountOwner) -> dict[str, Any]:
    """Keep every session id that can be used, and have each new account checked; what became of every entry.

    Raises `invalid_value`, or the one refusal, when no entry is an account now.
    """
    entries = _parse_entries(body.tokens)
    checks_of = [entry.check for entry in entries]
    found = await wait_for_results(request, checks_of, partial(_register_all, request, entries, body, caller, account_owner))
    if not any(entry.account_id for entry in entries):
        raise _no_account_error(entries)
    return await run_in_threadpool(partial(_result_object, entries, found))


def _parse_entries(text: str) -> list[_Entry]:
    parts = [part.strip() for part in _SEPARATORS.split(text)]
    parts = [part for part in parts if part and not part.startswith("#")]
    if not parts:
        raise DreameryError("invalid_value", "`tokens` holds no session id.", param="tokens")
    if len(parts) > MAX_TOKENS:
        message = f"At most {MAX_TOKENS} session ids are taken at once: send the others in a further request."
        raise DreameryError("invalid_value", message, param="tokens")
    return [_parse_entry(part, line) for line, part in enumerate(parts, start=1)]


def _parse_entry(part: str, line: int) -> _Entry:
    entry = _Entry(line)
    try:
        entry.token = parse_token(part, line, get_settings().default_region)
        check_token_usable(entry.token, line)
    except DreameryError as error:
        entry.error = error
    return entry


def _no_account_error(entries: list[_Entry]) -> DreameryError:
    errors = [entry.error for entry in entries if entry.error is not None]
    if len(errors) == 1:
        return errors[0]
    told = " ".join(dict.fromkeys(error.message for error in errors[:5]))
    return DreameryError("invalid_value", f"None of the {len(entries)} entries made an account. {told}", param="tokens")


def _register_all(request: Request, entries: list[_Entry], body: AccountCreate, caller: Caller, account_owner: AccountOwner) -> list[UUID]:
    """All in one transaction; the check-ups that were asked for."""
    good = [(session_token_hash(entry.token), entry) for entry in entries if entry.token is not None and entry.error is None]
    several = len(entries) > 1
    asked: dict[UUID, UUID] = {}
    with transaction() as tx:
        # In one order for everybody, or two imports of the same session ids could wait for each other's rows.
        for digest, entry in sorted(good, key=lambda pair: (pair[0], pair[1].line)):
            if entry.token is None:
                continue
            account_id, entry.outcome = management.keep_account(
                tx, encrypt_session_token(digest, entry.token), user_id=account_owner.user_id, groups=account_owner.groups
            )
            if entry.outcome == "duplicate" and not _may_see(management.see_account(tx, account_id), caller):
                entry.error = DreameryError("account_known")
                continue
            entry.account_id = account_id
            if entry.outcome == "duplicate":
                continue
            if body.label:
                label = f"{body.label} {entry.line}" if several else body.label
                management.change_account(tx, account_id, {"label": label})
            asked[entry.check] = account_id
            told: dict[str, Any] = {"region": entry.token.region, "outcome": entry.outcome, "groups": account_owner.groups}
            told["user"] = public_id("user", account_owner.user_id) if account_owner.user_id else None
            audit_log.note_act(tx, audit_actor(request, caller), "account.add", public_id("account", account_id), **told)
        # After all of them: which comes first is chance.
        management.part_with_toys(tx, [entry.account_id for _, entry in good if entry.account_id is not None])
        if not (asked and body.check):
            return []
        session_checks.ask_about(tx, owner=caller.owner, accounts_by_check=asked)
        tx.on_commit(partial(enqueue_checks, list(asked)))
    return list(asked)


def _may_see(row: Any, caller: Caller) -> bool:
    return caller.has_scope("admin") or (row is not None and row.user_id is not None and row.user_id == caller.user_id)


def _result_object(entries: list[_Entry], found: dict[UUID, dict[str, Any]]) -> dict[str, Any]:
    with transaction() as tx:
        rows = management.see_accounts(tx, [entry.account_id for entry in entries if entry.account_id is not None])
    kept, refused = [], []
    for entry in entries:
        row = rows.get(entry.account_id) if entry.account_id is not None else None
        if row is not None:
            checked = entry.outcome != "duplicate"
            check = account_check_object(row, found.get(entry.check)) if checked else None
            kept.append({**account_object(row), "line": entry.line, "outcome": entry.outcome, "check": check})
        elif entry.error is not None:
            token = masked(entry.token) if entry.token is not None else None
            error = {"code": entry.error.code, "message": entry.error.message}
            refused.append({"line": entry.line, "token": token, "error": error})
    return {"object": "list", "data": kept, "refused": refused, "has_more": False}
