"""Admin routes for upstream accounts (`/admin/v1/accounts`). Secrets are write-only."""

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query, Request, Response
from starlette.concurrency import run_in_threadpool

from api.accounts import changes as account_changes
from api.accounts.imports import AccountOwner, import_accounts
from api.accounts.proof_schemas import ProofRequest, ProofStepResult
from api.accounts.proofs import read_step, run_step
from api.accounts.schemas import (
    Account,
    AccountAfterClaim,
    AccountImportResult,
    AccountList,
    AdminAccountChange,
    AdminAccountCreate,
    CheckedAccount,
)
from api.accounts.serialization import account_object
from api.admin.routes import find_user
from api.auth.dependencies import AdminDep
from api.http.errors import error_responses
from api.http.fields import After, Limit, after_id
from api.http.responses import json_response, page_response
from worker.core.errors import DreameryError
from worker.db.accounts import management
from worker.db.engine import transaction

router = APIRouter(prefix="/admin/v1/accounts", tags=["admin"], responses=error_responses(400, 401, 403, 404, 409))


@router.post("", summary="Add accounts", status_code=201, responses={201: {"model": AccountImportResult}})
async def add_accounts(request: Request, body: AdminAccountCreate, admin: AdminDep) -> Response:
    """Adds every session id of `tokens`, in any notation, as an account of the platform, for all users or for the
    users of `groups`. With `user` it becomes an account of that user.

    The response lists the outcome and the first check of each entry; unusable entries are in `refused` and do not
    affect the others. A session id that is already an account is a `duplicate` and is not changed. Session ids are
    stored encrypted.
    """
    if body.user and body.groups:
        message = "Only accounts of the platform can have groups: omit `groups` or `user`."
        raise DreameryError("invalid_value", message, param="groups")
    user_id = await run_in_threadpool(_user_id, body.user) if body.user else None
    account_owner = AccountOwner(user_id=user_id, groups=body.groups)
    return json_response(await import_accounts(request, body, admin, account_owner), status=201)


def _user_id(name_or_id: str) -> UUID:
    with transaction() as tx:
        user_id: UUID = find_user(tx, name_or_id).id
        return user_id


@router.get("", summary="List the accounts", responses={200: {"model": AccountList}})
def list_accounts(
    _admin: AdminDep,
    *,
    pool_only: Annotated[bool, Query(description="false = include the accounts of session-id callers")] = True,
    user: Annotated[str | None, Query(max_length=120, description="only this user's accounts (name or id)")] = None,
    after: After = None,
    limit: Limit = 100,
) -> Response:
    """Lists the accounts of the platform and of its users, oldest first, without retired ones."""
    with transaction() as tx:
        user_id = find_user(tx, user).id if user else None
        rows = management.list_accounts(
            tx, user_id=user_id, registered_only=pool_only, after=after_id("account", after), limit=limit + 1
        )
    return page_response([account_object(row) for row in rows], limit)


@router.get("/{account_id}", summary="Get an account", responses={200: {"model": Account}})
def get_account(account_id: str, _admin: AdminDep) -> Response:
    """Returns its state, limits, last known credits and the number of running jobs."""
    with transaction() as tx:
        return json_response(account_object(account_changes.find_account(tx, account_id, user_id=None)))


@router.patch("/{account_id}", summary="Change an account", responses={200: {"model": Account}})
def change_account(request: Request, account_id: str, change: AdminAccountChange, admin: AdminDep) -> Response:
    """Changes label, groups, limits and polling (null = the platform's setting), working hours, proxy or session;
    pauses or resumes it; `"rested": true` ends its cooldown early.
    """
    return json_response(account_changes.change_account(request, account_id, change, admin, user_id=None))


@router.delete("/{account_id}", summary="Retire an account", responses={200: {"model": Account}})
def retire_account(request: Request, account_id: str, admin: AdminDep) -> Response:
    """The account accepts no new jobs; running jobs finish. Adding the session id again restores the account."""
    return json_response(account_changes.retire_account(request, account_id, admin, user_id=None))


@router.post(
    "/{account_id}/check",
    summary="Check an account now",
    responses={200: {"model": CheckedAccount}, **error_responses(429, 504)},
)
async def check_account(request: Request, account_id: str, admin: AdminDep) -> Response:
    """A worker reads the credits and models from upstream, free of charge, and the updated account is returned.

    An account that needed a login is usable again when upstream accepts its session.
    """
    return json_response(await account_changes.check_account(request, account_id, admin, user_id=None))


@router.post(
    "/{account_id}/receive",
    summary="Claim the daily credits of an account now",
    responses={200: {"model": AccountAfterClaim}, **error_responses(429, 504)},
)
async def receive_credits(request: Request, account_id: str, admin: AdminDep) -> Response:
    """A worker claims the free credits of the day, and the updated account is returned. Repeating is harmless."""
    return json_response(await account_changes.receive_credits(request, account_id, admin, user_id=None))


@router.post(
    "/{account_id}/prove",
    summary="Prove an upstream with an account, one step",
    responses={200: {"model": ProofStepResult}, **error_responses(429)},
)
async def prove_account(request: Request, account_id: str, body: ProofRequest, admin: AdminDep) -> Response:
    """Makes calls that show whether the upstream does what its documents say. A step may cost money; without a step the
    steps and their costs are listed, and nothing is called. `dreamery accounts prove` goes through all of them.
    """
    return json_response(await run_step(request, account_id, body, admin))


@router.get(
    "/{account_id}/prove/{step_id}",
    summary="Get a step of the proof",
    responses={200: {"model": ProofStepResult}, **error_responses(504)},
)
async def get_proof_step(account_id: str, step_id: str, _admin: AdminDep) -> Response:
    """Returns the result of a step that was started, as soon as there is one."""
    return json_response(await read_step(account_id, step_id))
