"""Routes for a user's own API keys (`/v1/keys`). A key cannot make, change, rotate or revoke a key with more rights."""

from dataclasses import replace
from datetime import UTC, datetime
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Body, Depends, Request, Response

from api.admin.key_accounts import has_no_more_accounts, read_accounts
from api.admin.routes import (
    NO_GRACE,
    change_found_key,
    key_object,
    known_providers,
    require_model_ids,
    rotate_found_key,
)
from api.admin.schemas import NewOwnKey, OwnKey, OwnKeyChange, OwnKeyCreate, OwnKeyList, Rotation
from api.auth.caller import Caller
from api.auth.dependencies import CallerDep, audit_actor
from api.http.errors import error_responses
from api.http.fields import After, Limit, after_id
from api.http.responses import json_response, page_response
from worker.core.errors import DreameryError
from worker.core.ids import parse_public_id, public_id
from worker.db.engine import Transaction, transaction
from worker.db.users import api_keys, audit_log
from worker.messaging import pubsub

router = APIRouter(prefix="/v1/keys", tags=["keys"], responses=error_responses(400, 401, 403, 404))


def _user_id_of(caller: Caller) -> UUID:
    if caller.user_id is None:
        raise DreameryError("forbidden", "Callers with session ids have no API keys of their own: use an API key.")
    return caller.user_id


def _require_key_read(caller: CallerDep) -> Caller:
    caller.require_scope("read")
    _user_id_of(caller)
    return caller


def _require_key_management(caller: CallerDep) -> Caller:
    caller.require_scope("generate")
    return _require_key_read(caller)


OwnKeysReadDep = Annotated[Caller, Depends(_require_key_read)]
OwnKeysManageDep = Annotated[Caller, Depends(_require_key_management)]


def _own_key_object(row: Any, caller: Caller) -> dict[str, Any]:
    return {**key_object(row), "current": row.id == caller.api_key_id}


def _calling_key(tx: Transaction, caller: Caller) -> Any:
    """Return the row of the API key used for this request."""
    row = api_keys.get_key(tx, caller.api_key_id) if caller.api_key_id is not None else None
    if row is None:
        raise DreameryError("invalid_api_key")
    return row


def _find_own_key(tx: Transaction, key_id: str, caller: Caller) -> Any:
    """Return a key of the same user that has no more rights than the caller. Raises key_not_found, forbidden."""
    parsed_id = parse_public_id("key", key_id)
    row = api_keys.get_key(tx, parsed_id) if parsed_id else None
    if row is None or row.user_id != _user_id_of(caller):
        raise DreameryError("key_not_found", f"You have no API key {key_id[:60]!r}.")
    if row.id == caller.api_key_id:
        return row
    _require_no_key_limits(caller)
    if not _is_within_rights_of(row, _calling_key(tx, caller)):
        message = "That key has more rights than the one you are using. Use that key itself, or ask an administrator."
        raise DreameryError("forbidden", message)
    return row


def _require_no_key_limits(caller: Caller) -> None:
    """Raise forbidden if the key has limits: a new key would get the same budget again."""
    if caller.key_limits.hard:
        message = "This key has its own limits, so it cannot create or change other keys. Ask an administrator."
        raise DreameryError("forbidden", message)


def _is_within_rights_of(row: Any, other: Any) -> bool:
    """Whether a key has no more rights, and is not valid longer, than another key of the same user."""
    return (
        _is_subset(row.scopes, other.scopes)
        and _is_subset(row.models, other.models)
        and _is_subset(row.providers, other.providers)
        and has_no_more_accounts(row, other)
        and (other.expires_at is None or (row.expires_at is not None and row.expires_at <= other.expires_at))
    )


def _is_subset(narrow: list[str] | None, wide: list[str] | None) -> bool:
    return wide is None or (narrow is not None and set(narrow) <= set(wide))


def _new_key(tx: Transaction, body: OwnKeyCreate, caller: Caller, calling_key: Any) -> api_keys.NewKey:
    """Return the key to create; omitted fields are taken from `calling_key`. Raises forbidden, model_not_allowed."""
    _require_no_key_limits(caller)
    for scope in body.scopes or []:
        caller.require_scope(scope)
    models = sorted(caller.models) if caller.models is not None else None
    if body.models is not None:
        models = require_model_ids(body.models)
        for model in models:
            caller.require_model(model)
    providers = known_providers(body.providers) or calling_key.providers
    caller.require_providers(providers)
    expires_at = body.expires_at or calling_key.expires_at
    if calling_key.expires_at is not None and expires_at > calling_key.expires_at:
        last = calling_key.expires_at.astimezone(UTC).isoformat(timespec="seconds")
        message = f"It cannot expire later than the key you are using, which expires at {last}."
        raise DreameryError("invalid_value", message, param="expires_at")
    if expires_at is not None and expires_at <= datetime.now(UTC):
        raise DreameryError("invalid_value", "`expires_at` is in the past.", param="expires_at")
    scopes = list(body.scopes) if body.scopes is not None else calling_key.scopes
    new = api_keys.NewKey(
        user_id=_user_id_of(caller),
        name=body.name,
        scopes=scopes,
        models=models,
        providers=providers,
        accounts=calling_key.accounts,
        account_groups=calling_key.account_groups,
        expires_at=expires_at,
    )
    if body.accounts is None and body.account_groups is None:
        return new
    own = read_accounts(tx, body.accounts, user_id=new.user_id, pool=caller.has_scope("admin"))
    new = replace(new, accounts=own, account_groups=body.account_groups)
    if not has_no_more_accounts(new, calling_key):
        raise DreameryError("forbidden", "The key you are using may not use some of these accounts or groups.")
    return new


@router.get("", summary="List your API keys", responses={200: {"model": OwnKeyList}})
def list_own_keys(caller: OwnKeysReadDep, after: After = None, limit: Limit = 100) -> Response:
    """Lists all keys of your user, oldest first; `current` marks the key used for this request."""
    with transaction() as tx:
        rows = api_keys.list_keys(tx, user_id=_user_id_of(caller), after=after_id("key", after), limit=limit + 1)
    return page_response([_own_key_object(row, caller) for row in rows], limit)


@router.post("", summary="Create your own API key", status_code=201, responses={201: {"model": NewOwnKey}})
def make_own_key(request: Request, body: OwnKeyCreate, caller: OwnKeysManageDep) -> Response:
    """The new key has at most the scopes, models and lifetime of the key used for this request.

    The key is shown only in this response; only a hash is stored.
    """
    with transaction() as tx:
        new_key = _new_key(tx, body, caller, _calling_key(tx, caller))
        key_id, key = api_keys.create_key(tx, new_key)
        row = api_keys.get_key(tx, key_id)
        details = {"user": caller.name, "name": body.name, "scopes": new_key.scopes}
        audit_log.record_action(tx, audit_actor(request, caller), "key.make", public_id("key", key_id), **details)
    return json_response({**_own_key_object(row, caller), "key": key}, status=201)


@router.patch("/{key_id}", summary="Change your own API key", responses={200: {"model": OwnKey}})
def change_own_key(request: Request, key_id: str, change: OwnKeyChange, caller: OwnKeysManageDep) -> Response:
    """Changes the name, and whose accounts its jobs may use: no others than those of the key used for this request.

    Scopes and models cannot change. Jobs that were accepted before keep their accounts.
    """
    with transaction() as tx:
        existing = _find_own_key(tx, key_id, caller)
        calling_key = _calling_key(tx, caller)
        change_found_key(tx, existing, change, pool=caller.has_scope("admin"))
        row = api_keys.get_key(tx, existing.id)
        if not _is_within_rights_of(row, calling_key):
            raise DreameryError("forbidden", "The key you are using may not use some of these accounts or groups.")
        tx.on_commit(pubsub.publish_permissions_change)
        details = change.model_dump(mode="json", exclude_unset=True, exclude={"name"} if change.name is None else None)
        target = public_id("key", existing.id)
        audit_log.record_action(tx, audit_actor(request, caller), "key.change", target, user=caller.name, **details)
    return json_response(_own_key_object(row, caller))


@router.post(
    "/{key_id}/rotate",
    summary="Rotate your own API key",
    status_code=201,
    responses={201: {"model": NewOwnKey}},
)
def rotate_own_key(
    request: Request, key_id: str, caller: OwnKeysManageDep, rotation: Annotated[Rotation, Body()] = NO_GRACE
) -> Response:
    """Creates a key with the same rights. The old key stays valid for `grace_seconds`, by default 0."""
    with transaction() as tx:
        existing = _find_own_key(tx, key_id, caller)
        row, key = rotate_found_key(tx, existing.id, rotation, actor=audit_actor(request, caller))
    return json_response({**_own_key_object(row, caller), "key": key}, status=201)


@router.delete("/{key_id}", summary="Revoke your own API key", responses={200: {"model": OwnKey}})
def revoke_own_key(request: Request, key_id: str, caller: OwnKeysManageDep) -> Response:
    """Revokes the key immediately, even the one used for this request. Its jobs continue."""
    with transaction() as tx:
        existing = _find_own_key(tx, key_id, caller)
        api_keys.revoke_key(tx, existing.id)
        tx.on_commit(pubsub.publish_permissions_change)
        audit_log.record_action(
            tx, audit_actor(request, caller), "key.revoke", public_id("key", existing.id), user=existing.user_name
        )
        row = api_keys.get_key(tx, existing.id)
    return json_response(_own_key_object(row, caller))
