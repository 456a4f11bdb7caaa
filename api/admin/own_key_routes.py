"""A user's own API keys (`/v1/keys`): nobody makes, replaces or ends one that may do more than the one they use."""

from datetime import UTC, datetime
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Body, Depends, Request, Response

from api.admin.routes import NO_GRACE, key_object, model_id, page_of
from api.admin.schemas import NewOwnKey, OwnKey, OwnKeyList, OwnKeyWish, Rotation
from api.auth.dependencies import Caller, CallerDep, actor_of
from api.http.errors import error_responses
from api.http.fields import After, Limit, after_id
from api.http.responses import json_response
from worker.core.errors import DreameryError
from worker.core.ids import parse_public_id, public_id
from worker.db.engine import Transaction, transaction
from worker.db.users import api_keys, audit_log

router = APIRouter(prefix="/v1/keys", tags=["keys"], responses=error_responses(400, 401, 403, 404))


def _user(caller: Caller) -> UUID:
    if caller.user_id is None:
        raise DreameryError("forbidden", "Session ids have no API keys of their own: use an API key.")
    return caller.user_id


def _reader(caller: CallerDep) -> Caller:
    caller.need("read")
    _user(caller)
    return caller


def _changer(caller: CallerDep) -> Caller:
    caller.need("generate")
    return _reader(caller)


ReaderDep = Annotated[Caller, Depends(_reader)]
ChangerDep = Annotated[Caller, Depends(_changer)]


def _own(row: Any, caller: Caller) -> dict[str, Any]:
    return {**key_object(row), "current": row.id == caller.api_key_id}


def _present(tx: Transaction, caller: Caller) -> Any:
    """The key that the caller calls with."""
    row = api_keys.get_key(tx, caller.api_key_id) if caller.api_key_id is not None else None
    if row is None:
        raise DreameryError("invalid_api_key")
    return row


def _target(tx: Transaction, key_id: str, caller: Caller) -> Any:
    """A key of the caller's user that may do no more than the caller. Raises key_not_found, forbidden."""
    found = parse_public_id("key", key_id)
    row = api_keys.get_key(tx, found) if found else None
    if row is None or row.user_id != _user(caller):
        raise DreameryError("key_not_found", f"No API key {key_id[:60]!r} of yours.")
    if row.id == caller.api_key_id:
        return row
    _need_no_limits(caller)
    if not _within(row, _present(tx, caller)):
        message = "That key may do more than the one you call with. Use that key itself, or ask an administrator."
        raise DreameryError("forbidden", message)
    return row


def _need_no_limits(caller: Caller) -> None:
    """Or a key with a budget could make others, each with the same budget again."""
    if caller.key_limits.hard:
        message = "This key has limits of its own, so it cannot make or change other keys. Ask an administrator."
        raise DreameryError("forbidden", message)


def _within(row: Any, other: Any) -> bool:
    """Whether a key may do no more, and no longer, than another of the same user."""
    return (
        _fits(row.scopes, other.scopes)
        and _fits(row.models, other.models)
        and (other.expires_at is None or (row.expires_at is not None and row.expires_at <= other.expires_at))
    )


def _fits(narrow: list[str] | None, wide: list[str] | None) -> bool:
    return wide is None or (narrow is not None and set(narrow) <= set(wide))


def _wanted(wish: OwnKeyWish, caller: Caller, present: Any) -> api_keys.NewKey:
    """What the new key is allowed; what is absent is as the caller's own. Raises forbidden, model_not_allowed."""
    _need_no_limits(caller)
    for scope in wish.scopes or []:
        caller.need(scope)
    models = sorted(caller.models) if caller.models is not None else None
    if wish.models is not None:
        models = [model_id(name) for name in wish.models]
        for model in models:
            caller.need_model(model)
    expires_at = wish.expires_at or present.expires_at
    if present.expires_at is not None and expires_at > present.expires_at:
        last = present.expires_at.astimezone(UTC).isoformat(timespec="seconds")
        message = f"It cannot outlive the key you call with, which expires at {last}."
        raise DreameryError("invalid_value", message, param="expires_at")
    if expires_at is not None and expires_at <= datetime.now(UTC):
        raise DreameryError("invalid_value", "`expires_at` is in the past.", param="expires_at")
    scopes = list(wish.scopes) if wish.scopes is not None else present.scopes
    return api_keys.NewKey(user_id=_user(caller), name=wish.name, scopes=scopes, models=models, expires_at=expires_at)


@router.get("", summary="List your API keys", responses={200: {"model": OwnKeyList}})
def list_own_keys(caller: ReaderDep, after: After = None, limit: Limit = 100) -> Response:
    """All keys of your user, oldest first; `current` is the one you call with."""
    with transaction() as tx:
        rows = api_keys.list_keys(tx, user_id=_user(caller), after=after_id("key", after), limit=limit + 1)
    return page_of([_own(row, caller) for row in rows], limit)


@router.post("", summary="Make an API key of yours", status_code=201, responses={201: {"model": NewOwnKey}})
def make_own_key(request: Request, wish: OwnKeyWish, caller: ChangerDep) -> Response:
    """It may do no more than the key you call with, use no other models and last no longer.

    The answer is the only time the key is shown; only a hash is stored.
    """
    with transaction() as tx:
        wanted = _wanted(wish, caller, _present(tx, caller))
        key_id, key = api_keys.make_key(tx, wanted)
        row = api_keys.get_key(tx, key_id)
        told = {"user": caller.name, "name": wish.name, "scopes": wanted.scopes}
        audit_log.note_act(tx, actor_of(request, caller), "key.make", public_id("key", key_id), **told)
    return json_response({**_own(row, caller), "key": key}, status=201)


@router.post(
    "/{key_id}/rotate",
    summary="Replace an API key of yours",
    status_code=201,
    responses={201: {"model": NewOwnKey}},
)
def rotate_own_key(
    request: Request, key_id: str, caller: ChangerDep, rotation: Annotated[Rotation, Body()] = NO_GRACE
) -> Response:
    """A new key with the same rights; the old one works on for `grace_seconds`, by default not at all."""
    grace = rotation.grace_seconds
    with transaction() as tx:
        known = _target(tx, key_id, caller)
        made = api_keys.rotate_key(tx, known.id, grace_seconds=grace)
        if made is None:
            raise DreameryError("key_not_found", f"API key {key_id[:60]!r} is revoked or expired: make a new one.")
        new_id, key = made
        row = api_keys.get_key(tx, new_id)
        target, new = public_id("key", known.id), public_id("key", new_id)
        audit_log.note_act(tx, actor_of(request, caller), "key.rotate", target, new=new, grace_seconds=grace)
    return json_response({**_own(row, caller), "key": key}, status=201)


@router.delete("/{key_id}", summary="Revoke an API key of yours", responses={200: {"model": OwnKey}})
def revoke_own_key(request: Request, key_id: str, caller: ChangerDep) -> Response:
    """It stops working at once, also when it is the one you call with; its jobs go on."""
    with transaction() as tx:
        known = _target(tx, key_id, caller)
        api_keys.revoke_key(tx, known.id)
        audit_log.note_act(
            tx, actor_of(request, caller), "key.revoke", public_id("key", known.id), user=known.user_name
        )
        row = api_keys.get_key(tx, known.id)
    return json_response(_own(row, caller))
