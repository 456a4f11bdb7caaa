"""Administration of upstream accounts (`/admin/v1/accounts`). Their secrets go in and are never shown again."""

from datetime import UTC, datetime
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response

from api.admin_schemas import Account, AccountChange, AccountList, AccountWish
from api.deps import AdminDep, actor_of, presented, read_tokens
from api.errors import error_responses
from api.render import json_response, seconds_of
from api.routes.admin import After, Limit, after_id
from worker.core.errors import DreameryError
from worker.core.ids import parse_public_id, public_id
from worker.db import accounts, audit, pool
from worker.db.engine import Transaction, transaction

router = APIRouter(prefix="/admin/v1/accounts", tags=["admin"], responses=error_responses(400, 401, 403, 404))


def _account_object(row: Any) -> dict[str, Any]:
    resting = row.state == "ok" and row.rest_until is not None and row.rest_until > datetime.now(UTC)
    return {
        "id": public_id("account", row.id),
        "object": "account",
        "label": row.label,
        "region": row.region,
        "pool": row.pool,
        "state": "resting" if resting else row.state,
        "rest_until": seconds_of(row.rest_until) if resting else None,
        "rest_code": row.rest_code if resting else None,
        "max_images": row.max_images,
        "max_videos": row.max_videos,
        "submits_per_minute": row.submits_per_minute,
        "credits": row.credits,
        "credits_at": seconds_of(row.credits_at),
        "credits_left": None if row.credits_left is None else int(row.credits_left),
        "daily_receive": row.daily_receive,
        "last_submit_at": seconds_of(row.last_submit_at),
        "in_flight": row.in_flight,
        "has_proxy": row.has_proxy,
        "created_at": seconds_of(row.created_at),
    }


def find_account(tx: Transaction, account_id: str) -> Any:
    """The row of an account. Raises `account_not_found`."""
    found = parse_public_id("account", account_id)
    row = pool.see_account(tx, found) if found else None
    if row is None:
        raise DreameryError("account_not_found", f"No account {account_id[:60]!r}.")
    return row


@router.post("", summary="Add accounts", status_code=201, responses={201: {"model": AccountList}})
def add_accounts(request: Request, wish: AccountWish, admin: AdminDep) -> Response:
    """Adds each session id of `tokens`, in any notation, to the pool that serves API keys.

    One that is known already keeps its row and its limits. The session ids are stored encrypted.
    """
    tokens = read_tokens(wish.tokens)
    with transaction() as tx:
        ids = []
        for number, (digest, token) in enumerate(tokens, start=1):
            given = presented(digest, token)
            account_id = accounts.add_account(tx, given, pool=True)
            label = wish.label if len(tokens) == 1 else f"{wish.label} {number}"
            pool.change_account(tx, account_id, {"state": "ok", **({"label": label} if wish.label else {})})
            audit.note_act(
                tx, actor_of(request, admin), "account.add", public_id("account", account_id), region=token.region
            )
            ids.append(account_id)
        rows = [pool.see_account(tx, account_id) for account_id in ids]
    data = [_account_object(row) for row in rows]
    return json_response({"object": "list", "data": data, "has_more": False}, status=201)


@router.get("", summary="List the accounts", responses={200: {"model": AccountList}})
def list_accounts(
    _admin: AdminDep,
    *,
    pool_only: Annotated[bool, Query(description="false = those of session-id callers too")] = True,
    after: After = None,
    limit: Limit = 100,
) -> Response:
    """Oldest first, without retired ones."""
    with transaction() as tx:
        rows = pool.list_accounts(tx, pool_only=pool_only, after=after_id("account", after), limit=limit + 1)
    data = [_account_object(row) for row in rows[:limit]]
    return json_response({"object": "list", "data": data, "has_more": len(rows) > limit})


@router.get("/{account_id}", summary="Get an account", responses={200: {"model": Account}})
def get_account(account_id: str, _admin: AdminDep) -> Response:
    """Its state, limits, credits as last told, and how many jobs it has in flight."""
    with transaction() as tx:
        return json_response(_account_object(find_account(tx, account_id)))


@router.patch("/{account_id}", summary="Change an account", responses={200: {"model": Account}})
def change_account(request: Request, account_id: str, change: AccountChange, admin: AdminDep) -> Response:
    """Label, limits (null = the setting's), pause and go on; `"rested": true` ends a rest before its time."""
    changes = change.model_dump(exclude_unset=True)
    with transaction() as tx:
        row = find_account(tx, account_id)
        # Only what has a setting behind it may be taken away by null.
        wished = {name: value for name, value in changes.items() if value is not None or name in pool.NULLABLE}
        if (paused := wished.pop("paused", None)) is not None:
            wished["state"] = "paused" if paused else "ok"
        if wished.pop("rested", None):
            pool.end_rest(tx, row.id)
        pool.change_account(tx, row.id, wished)
        audit.note_act(tx, actor_of(request, admin), "account.change", public_id("account", row.id), **changes)
        row = find_account(tx, account_id)
    return json_response(_account_object(row))


@router.delete("/{account_id}", summary="Retire an account", responses={200: {"model": Account}})
def retire_account(request: Request, account_id: str, admin: AdminDep) -> Response:
    """It takes no job any more; what it has in flight is finished. Adding its session id again brings it back."""
    with transaction() as tx:
        row = find_account(tx, account_id)
        pool.change_account(tx, row.id, {"state": "retired", "pool": False})
        audit.note_act(tx, actor_of(request, admin), "account.retire", public_id("account", row.id), label=row.label)
        row = find_account(tx, account_id)
    return json_response(_account_object(row))
