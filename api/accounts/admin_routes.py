"""Administration of upstream accounts (`/admin/v1/accounts`). Their secrets go in and are never shown again."""

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query, Request, Response
from starlette.concurrency import run_in_threadpool

from api.accounts import changes as accounts_changes
from api.accounts.imports import AccountOwner, import_accounts
from api.accounts.schemas import (
    Account,
    AccountList,
    AdminAccountChange,
    AdminAccountCreate,
    CheckedAccount,
    AccountImportResult,
)
from api.accounts.serialization import account_object
from api.admin.routes import find_user
from api.auth.dependencies import AdminDep
from api.http.errors import error_responses
from api.http.fields import After, Limit, after_id
from api.http.responses import json_response
from worker.core.errors import DreameryError
from worker.db.accounts import management
from worker.db.engine import transaction

router = APIRouter(prefix="/admin/v1/accounts", tags=["admin"], responses=error_responses(400, 401, 403, 404, 409))


@router.post("", summary="Add accounts", status_code=201, responses={201: {"model": AccountImportResult}})
async def add_accounts(request: Request, body: AdminAccountCreate, admin: AdminDep) -> Response:
    """Makes every session id of `tokens`, in any notation, an account of the platform, for all users or those of
    `groups`; with `user` that user's own.

    The answer tells of each whether it was added and what a first check-up found; entries that cannot be used are in
    `refused` and lose no other. One that is an account already is named as `duplicate` and stays as it is. The session
    ids are stored encrypted.
    """
    if body.user and body.groups:
        message = "Groups are for accounts of the platform: leave out `groups` or `user`."
        raise DreameryError("invalid_value", message, param="groups")
    user_id = await run_in_threadpool(_user_id, body.user) if body.user else None
    account_owner = AccountOwner(user_id=user_id, groups=body.groups)
    return json_response(await import_accounts(request, body, admin, account_owner), status=201)


def _user_id(name_or_id: str) -> UUID:
    with transaction() as tx:
        found: UUID = find_user(tx, name_or_id).id
        return found


@router.get("", summary="List the accounts", responses={200: {"model": AccountList}})
def list_accounts(
    _admin: AdminDep,
    *,
    pool_only: Annotated[bool, Query(description="false = those of session-id callers too")] = True,
    user: Annotated[str | None, Query(max_length=120, description="only this user's own (name or id)")] = None,
    after: After = None,
    limit: Limit = 100,
) -> Response:
    """Those of the platform and of its users, oldest first, without retired ones."""
    with transaction() as tx:
        user_id = find_user(tx, user).id if user else None
        rows = management.list_accounts(
            tx, user_id=user_id, kept_only=pool_only, after=after_id("account", after), limit=limit + 1
        )
    data = [account_object(row) for row in rows[:limit]]
    return json_response({"object": "list", "data": data, "has_more": len(rows) > limit})


@router.get("/{account_id}", summary="Get an account", responses={200: {"model": Account}})
def get_account(account_id: str, _admin: AdminDep) -> Response:
    """Its state, limits, credits as last told, and how many jobs it has in flight."""
    with transaction() as tx:
        return json_response(account_object(accounts_changes.find_account(tx, account_id, user_id=None)))


@router.patch("/{account_id}", summary="Change an account", responses={200: {"model": Account}})
def change_account(request: Request, account_id: str, change: AdminAccountChange, admin: AdminDep) -> Response:
    """Label, groups, limits (null = the setting's), working hours, proxy, a new session; pause and go on;
    `"rested": true` ends a rest before its time.
    """
    return json_response(accounts_changes.change_account(request, account_id, change, admin, user_id=None))


@router.delete("/{account_id}", summary="Retire an account", responses={200: {"model": Account}})
def retire_account(request: Request, account_id: str, admin: AdminDep) -> Response:
    """It takes no job any more; what it has in flight is finished. Adding its session id again brings it back."""
    return json_response(accounts_changes.retire_account(request, account_id, admin, user_id=None))


@router.post(
    "/{account_id}/check",
    summary="Check an account now",
    responses={200: {"model": CheckedAccount}, **error_responses(429, 504)},
)
async def check_account(request: Request, account_id: str, admin: AdminDep) -> Response:
    """A worker asks upstream for its credits and models, which costs nothing; the account as it is then.

    An account that needed a login serves again when upstream knows its session.
    """
    return json_response(await accounts_changes.check_account(request, account_id, admin, user_id=None))
