"""Routes for a user's own upstream accounts (`/v1/accounts`): only that user's jobs run on them."""

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends, Request, Response

from api.accounts import changes as account_changes
from api.accounts.credits import Days, credits_object
from api.accounts.imports import AccountOwner, import_accounts
from api.accounts.schemas import (
    Account,
    AccountAfterClaim,
    AccountChange,
    AccountCreate,
    AccountCredits,
    AccountImportResult,
    AccountList,
    AvailableAccounts,
    CheckedAccount,
    ProviderList,
)
from api.accounts.serialization import account_object, providers_object
from api.auth.caller import Caller
from api.auth.dependencies import CallerDep
from api.http.errors import error_responses
from api.http.fields import After, Limit, after_id
from api.http.responses import json_response, page_response
from worker.core.errors import DreameryError
from worker.db.accounts import management
from worker.db.engine import transaction

router = APIRouter(prefix="/v1/accounts", tags=["accounts"], responses=error_responses(400, 401, 403, 404, 409))


def _require_account_read(caller: CallerDep) -> Caller:
    caller.require_scope("read")
    return _require_user(caller)


def _require_account_management(caller: CallerDep) -> Caller:
    caller.require_scope("generate")
    return _require_user(caller)


def _require_user(caller: Caller) -> Caller:
    if caller.user_id is None:
        raise DreameryError("forbidden", "Callers with session ids have no accounts of their own: use an API key.")
    return caller


OwnAccountsReadDep = Annotated[Caller, Depends(_require_account_read)]
OwnAccountsManageDep = Annotated[Caller, Depends(_require_account_management)]


def _user_id_of(caller: Caller) -> UUID:
    if caller.user_id is None:
        raise DreameryError("forbidden")
    return caller.user_id


@router.post("", summary="Add your own accounts", status_code=201, responses={201: {"model": AccountImportResult}})
async def add_own_accounts(request: Request, body: AccountCreate, caller: OwnAccountsManageDep) -> Response:
    """Adds every session id of `tokens`, in any notation, as your own account: only your jobs run on it.

    The response lists the outcome and the first check of each entry; unusable entries are in `refused` and do not
    affect the others. Session ids are stored encrypted and never shown again.
    """
    return json_response(
        await import_accounts(request, body, caller, AccountOwner(user_id=_user_id_of(caller))), status=201
    )


@router.get("", summary="List your own accounts", responses={200: {"model": AccountList}})
def list_own_accounts(caller: OwnAccountsReadDep, after: After = None, limit: Limit = 100) -> Response:
    """Lists your accounts, oldest first, without retired ones."""
    with transaction() as tx:
        rows = management.list_accounts(
            tx, user_id=_user_id_of(caller), registered_only=True, after=after_id("account", after), limit=limit + 1
        )
    return page_response([account_object(row) for row in rows], limit)


@router.get("/providers", summary="List the providers of accounts", responses={200: {"model": ProviderList}})
def list_providers(_caller: OwnAccountsReadDep) -> Response:
    """Lists the upstreams that accounts can belong to, with their regions, credentials and currencies."""
    return json_response(providers_object())


@router.get(
    "/available", summary="Get the kinds of accounts that you can use", responses={200: {"model": AvailableAccounts}}
)
def get_available_accounts(caller: OwnAccountsReadDep) -> Response:
    """Returns how many accounts are your own, whether you may use those of the platform, and whether all of them belong
    to the sandbox.
    """
    with transaction() as tx:
        found = management.available(tx, user_id=_user_id_of(caller))
    return json_response(
        {
            "object": "account.availability",
            "own": found.own,
            "platform": found.platform,
            "sandbox_only": found.sandbox_only,
        }
    )


@router.get("/{account_id}", summary="Get your own account", responses={200: {"model": Account}})
def get_own_account(account_id: str, caller: OwnAccountsReadDep) -> Response:
    """Returns its state with the reason, limits, last known credits and the number of running jobs."""
    with transaction() as tx:
        return json_response(account_object(account_changes.find_account(tx, account_id, user_id=_user_id_of(caller))))


@router.patch("/{account_id}", summary="Change your own account", responses={200: {"model": Account}})
def change_own_account(
    request: Request, account_id: str, change: AccountChange, caller: OwnAccountsManageDep
) -> Response:
    """Changes label, limits and polling (null = the platform's setting), working hours, proxy or session; pauses or
    resumes it. Only an administrator can have an account polled faster than the platform's floor.
    """
    return json_response(
        account_changes.change_account(request, account_id, change, caller, user_id=_user_id_of(caller))
    )


@router.delete("/{account_id}", summary="Remove your own account", responses={200: {"model": Account}})
def retire_own_account(request: Request, account_id: str, caller: OwnAccountsManageDep) -> Response:
    """The account accepts no new jobs; running jobs finish. Adding the session id again restores the account."""
    return json_response(account_changes.retire_account(request, account_id, caller, user_id=_user_id_of(caller)))


@router.post(
    "/{account_id}/check",
    summary="Check your own account now",
    responses={200: {"model": CheckedAccount}, **error_responses(429, 504)},
)
async def check_own_account(request: Request, account_id: str, caller: OwnAccountsManageDep) -> Response:
    """A worker reads the credits and models from upstream, free of charge, and the updated account is returned."""
    return json_response(await account_changes.check_account(request, account_id, caller, user_id=_user_id_of(caller)))


@router.get(
    "/{account_id}/credits", summary="Get the credits of your own account", responses={200: {"model": AccountCredits}}
)
def get_own_credits(account_id: str, caller: OwnAccountsReadDep, days: Days = 30) -> Response:
    """Returns the credit readings, the credits reserved for open jobs, and the credits spent per day."""
    return json_response(credits_object(account_id, days, user_id=_user_id_of(caller)))


@router.post(
    "/{account_id}/receive",
    summary="Claim the daily credits of your own account now",
    responses={200: {"model": AccountAfterClaim}, **error_responses(429, 504)},
)
async def receive_own_credits(request: Request, account_id: str, caller: OwnAccountsManageDep) -> Response:
    """A worker claims the free credits of the day, and the updated account is returned. Repeating is harmless."""
    return json_response(
        await account_changes.receive_credits(request, account_id, caller, user_id=_user_id_of(caller))
    )
