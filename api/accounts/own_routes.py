"""A user's own upstream accounts (`/v1/accounts`): only the user's jobs run on them, and only the user sees them."""

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends, Request, Response

from api.accounts import changes as accounts_changes
from api.accounts.imports import AccountOwner, import_accounts
from api.accounts.schemas import Account, AccountChange, AccountList, AccountCreate, CheckedAccount, AccountImportResult
from api.accounts.serialization import account_object
from api.auth.dependencies import Caller, CallerDep
from api.http.errors import error_responses
from api.http.fields import After, Limit, after_id
from api.http.responses import json_response
from worker.core.errors import DreameryError
from worker.db.accounts import management
from worker.db.engine import transaction

router = APIRouter(prefix="/v1/accounts", tags=["accounts"], responses=error_responses(400, 401, 403, 404, 409))


def _reader(caller: CallerDep) -> Caller:
    caller.require_scope("read")
    return _require_user(caller)


def _changer(caller: CallerDep) -> Caller:
    caller.require_scope("generate")
    return _require_user(caller)


def _require_user(caller: Caller) -> Caller:
    if caller.user_id is None:
        raise DreameryError("forbidden", "Session ids have no accounts of their own here: use an API key.")
    return caller


ReadDep = Annotated[Caller, Depends(_reader)]
ChangerDep = Annotated[Caller, Depends(_changer)]


def _user_id_of(caller: Caller) -> UUID:
    if caller.user_id is None:
        raise DreameryError("forbidden")
    return caller.user_id


@router.post("", summary="Add your own accounts", status_code=201, responses={201: {"model": AccountImportResult}})
async def add_own_accounts(request: Request, body: AccountCreate, caller: ChangerDep) -> Response:
    """Makes every session id of `tokens`, in any notation, an account of yours: only your jobs run on it.

    The answer tells of each whether it was added and what a first check-up found; entries that cannot be used are in
    `refused` and lose no other. The session ids are stored encrypted and never shown again.
    """
    return json_response(await import_accounts(request, body, caller, AccountOwner(user_id=_user_id_of(caller))), status=201)


@router.get("", summary="List your own accounts", responses={200: {"model": AccountList}})
def list_own_accounts(caller: ReadDep, after: After = None, limit: Limit = 100) -> Response:
    """Oldest first, without retired ones."""
    with transaction() as tx:
        rows = management.list_accounts(
            tx, user_id=_user_id_of(caller), kept_only=True, after=after_id("account", after), limit=limit + 1
        )
    data = [account_object(row) for row in rows[:limit]]
    return json_response({"object": "list", "data": data, "has_more": len(rows) > limit})


@router.get("/{account_id}", summary="Get an account of yours", responses={200: {"model": Account}})
def get_own_account(account_id: str, caller: ReadDep) -> Response:
    """Its state and why, limits, credits as last told, and how many jobs it has in flight."""
    with transaction() as tx:
        return json_response(account_object(accounts_changes.find_account(tx, account_id, user_id=_user_id_of(caller))))


@router.patch("/{account_id}", summary="Change an account of yours", responses={200: {"model": Account}})
def change_own_account(request: Request, account_id: str, change: AccountChange, caller: ChangerDep) -> Response:
    """Label, limits (null = the setting's), working hours, proxy, a new session; pause and go on."""
    return json_response(accounts_changes.change_account(request, account_id, change, caller, user_id=_user_id_of(caller)))


@router.delete("/{account_id}", summary="Remove an account of yours", responses={200: {"model": Account}})
def retire_own_account(request: Request, account_id: str, caller: ChangerDep) -> Response:
    """It takes no job any more; what it has in flight is finished. Adding its session id again brings it back."""
    return json_response(accounts_changes.retire_account(request, account_id, caller, user_id=_user_id_of(caller)))


@router.post(
    "/{account_id}/check",
    summary="Check an account of yours now",
    responses={200: {"model": CheckedAccount}, **error_responses(429, 504)},
)
async def check_own_account(request: Request, account_id: str, caller: ChangerDep) -> Response:
    """A worker asks upstream for its credits and models, which costs nothing; the account as it is then."""
    return json_response(await accounts_changes.check_account(request, account_id, caller, user_id=_user_id_of(caller)))
