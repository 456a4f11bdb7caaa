"""Admin routes for users, API keys and the audit log (`/admin/v1`). Each action is audited in its transaction."""

from datetime import UTC, datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import APIRouter, Body, Query, Request, Response

from api.admin.audit_names import names_in, users_of_keys
from api.admin.key_accounts import read_accounts, shown_accounts
from api.admin.schemas import (
    ApiKey,
    ApiKeyChange,
    ApiKeyCreate,
    ApiKeyList,
    AuditList,
    LimitChange,
    NewApiKey,
    OwnKeyChange,
    Rotation,
    User,
    UserChange,
    UserCreate,
    UserList,
)
from api.auth.dependencies import AdminDep, audit_actor
from api.generation.models.agent import AGENT
from api.http.errors import error_responses
from api.http.fields import After, Limit, after_id
from api.http.responses import json_response, page_response, unix_seconds
from worker.core.catalog.models import get_catalog
from worker.core.catalog.provider_data import all_providers
from worker.core.errors import DreameryError
from worker.core.ids import parse_public_id, public_id
from worker.core.quotas import NAMES, OWN_ACCOUNTS, SOFT_NAMES
from worker.db.engine import Transaction, transaction
from worker.db.jobs import retention
from worker.db.scheduling import fair_queue
from worker.db.users import api_keys, audit_log, quotas, users
from worker.db.users.audit_log import Actor
from worker.messaging import pubsub

router = APIRouter(prefix="/admin/v1", tags=["admin"], responses=error_responses(400, 401, 403, 404, 409))


NO_GRACE = Rotation(grace_seconds=0)


def _limits_of(row: Any, *more: str) -> dict[str, Any]:
    return {
        "limits": {name: row.limits.get(name) for name in (*NAMES, *more)},
        "soft_limits": {name: row.soft_limits.get(name) for name in SOFT_NAMES},
    }


def _set_limits(tx: Transaction, table: Literal["users", "api_keys"], row_id: UUID, change: LimitChange) -> None:
    hard, soft = (part.model_dump(exclude_unset=True) if part else {} for part in (change.limits, change.soft_limits))
    if hard or soft:
        quotas.set_limits(tx, table, row_id, hard=hard, soft=soft)


# Beside the names of limits.
_NULL_IS_A_CHANGE = frozenset({"retention_days", "providers", "accounts", "account_groups"})


def _audited_changes(change: LimitChange) -> dict[str, Any]:
    """Return the changes for the audit log. Null is a change only where it means something."""
    fields = change.model_dump(exclude_unset=True, mode="json")
    return {name: value for name, value in fields.items() if value is not None or name in _NULL_IS_A_CHANGE}


def _user_object(row: Any) -> dict[str, Any]:
    return {
        "id": public_id("user", row.id),
        "object": "user",
        "name": row.name,
        "role": row.role,
        "disabled": row.disabled,
        "groups": row.groups,
        "weight": row.weight,
        "priority": row.priority,
        "retention_days": row.retention_days,
        **_limits_of(row, OWN_ACCOUNTS),
        "created_at": unix_seconds(row.created_at),
    }


def _key_status(row: Any) -> str:
    now = datetime.now(UTC)
    if row.revoked_at is not None:
        return "in_grace" if row.revoked_at > now else "revoked"
    return "expired" if row.expires_at is not None and row.expires_at <= now else "active"


def key_object(row: Any) -> dict[str, Any]:
    """Return the metadata of a key, without the key itself."""
    return {
        "id": public_id("key", row.id),
        "object": "api_key",
        "user_id": public_id("user", row.user_id),
        "user": row.user_name,
        "name": row.name,
        "prefix": row.prefix,
        "scopes": row.scopes,
        "models": row.models,
        "providers": row.providers,
        "accounts": shown_accounts(row.accounts),
        "account_groups": row.account_groups,
        "status": _key_status(row),
        "expires_at": unix_seconds(row.expires_at),
        "last_used_at": unix_seconds(row.last_used_at),
        "revoked_at": unix_seconds(row.revoked_at),
        **_limits_of(row),
        "created_at": unix_seconds(row.created_at),
    }


def find_user(tx: Transaction, name_or_id: str) -> Any:
    """Return the user row by id or name. Raises user_not_found."""
    row = users.find_user(tx, user_id=parse_public_id("user", name_or_id), name=name_or_id)
    if row is None:
        raise DreameryError("user_not_found", f"No user {name_or_id[:60]!r}.")
    return row


def find_key(tx: Transaction, key_id: str) -> Any:
    """Return the key row by id. Raises key_not_found."""
    parsed_id = parse_public_id("key", key_id)
    row = api_keys.get_key(tx, parsed_id) if parsed_id else None
    if row is None:
        raise DreameryError("key_not_found", f"No API key {key_id[:60]!r}.")
    return row


def change_found_key(tx: Transaction, key: Any, change: OwnKeyChange, *, pool: bool) -> None:
    """Change the name of a key and whose accounts its jobs may use; `pool` = also accounts of the platform."""
    api_keys.rename_key(tx, key.id, change.name or key.name)
    selection = change.model_dump(include=change.model_fields_set & {"providers", "account_groups"})
    known_providers(change.providers)
    if "accounts" in change.model_fields_set:
        selection["accounts"] = read_accounts(tx, change.accounts, user_id=key.user_id, pool=pool)
    api_keys.set_selection(tx, key.id, selection)


def rotate_found_key(tx: Transaction, key_id: UUID, rotation: Rotation, *, actor: Actor) -> tuple[Any, str]:
    """Replace a key; return the row of the new one and the key itself. Raises key_not_found for one that has ended."""
    name = public_id("key", key_id)
    rotated = api_keys.rotate_key(tx, key_id, grace_seconds=rotation.grace_seconds)
    if rotated is None:
        raise DreameryError("key_not_found", f"API key {name!r} is revoked or expired: create a new one.")
    new_id, key = rotated
    tx.on_commit(pubsub.publish_permissions_change)
    details = {"new": public_id("key", new_id), "grace_seconds": rotation.grace_seconds}
    audit_log.record_action(tx, actor, "key.rotate", name, **details)
    return api_keys.get_key(tx, new_id), key


@router.post("/users", summary="Add a user", status_code=201, responses={201: {"model": User}})
def add_user(request: Request, body: UserCreate, admin: AdminDep) -> Response:
    """Adds a user. Names are unique. Create keys with `POST /admin/v1/keys`."""
    with transaction() as tx:
        row = users.add_user(tx, **body.model_dump(exclude={"limits", "soft_limits"}))
        if row is None:
            raise DreameryError("name_taken", f"A user named {body.name!r} already exists.", param="name")
        _set_limits(tx, "users", row.id, body)
        actor, target = audit_actor(request, admin), public_id("user", row.id)
        audit_log.record_action(
            tx, actor, "user.add", target, **{**_audited_changes(body), "name": row.name, "role": row.role}
        )
        row = find_user(tx, target)
    return json_response(_user_object(row), status=201)


@router.get("/users", summary="List the users", responses={200: {"model": UserList}})
def list_users(_admin: AdminDep, after: After = None, limit: Limit = 100) -> Response:
    """Lists all users, oldest first."""
    with transaction() as tx:
        rows = users.list_users(tx, after=after_id("user", after), limit=limit + 1)
    return page_response([_user_object(row) for row in rows], limit)


@router.get("/users/{user}", summary="Get a user", responses={200: {"model": User}})
def get_user(user: str, _admin: AdminDep) -> Response:
    """Returns a user by id or name."""
    with transaction() as tx:
        return json_response(_user_object(find_user(tx, user)))


@router.patch("/users/{user}", summary="Change a user", responses={200: {"model": User}})
def change_user(request: Request, user: str, change: UserChange, admin: AdminDep) -> Response:
    """Changes role, groups, limits, retention, weight and priority; enables or disables the user.

    The keys of a disabled user stop working immediately. The last admin cannot be disabled or lose the role.
    """
    with transaction() as tx:
        existing = find_user(tx, user)
        # First, because it locks the rows of several users: otherwise two changes could deadlock.
        row = users.change_user(tx, existing.id, role=change.role, disabled=change.disabled, groups=change.groups)
        if row is None:
            raise DreameryError("last_admin")
        fair_queue.set_weight_and_priority(tx, existing.id, weight=change.weight, priority=change.priority)
        if "retention_days" in change.model_fields_set:
            retention.set_user_retention(tx, existing.id, change.retention_days)
        _set_limits(tx, "users", row.id, change)
        actor, target = audit_actor(request, admin), public_id("user", row.id)
        audit_log.record_action(tx, actor, "user.change", target, name=row.name, **_audited_changes(change))
        row = find_user(tx, target)
        tx.on_commit(pubsub.publish_permissions_change)
    return json_response(_user_object(row))


@router.post("/keys", summary="Create an API key", status_code=201, responses={201: {"model": NewApiKey}})
def make_key(request: Request, body: ApiKeyCreate, admin: AdminDep) -> Response:
    """Creates a key. The key is shown only in this response; only a hash is stored."""
    models = require_model_ids(body.models) if body.models is not None else None
    with transaction() as tx:
        owner = find_user(tx, body.user)
        new_key = api_keys.NewKey(
            user_id=owner.id,
            name=body.name,
            scopes=list(body.scopes) if body.scopes is not None else None,
            models=models,
            providers=known_providers(body.providers),
            accounts=read_accounts(tx, body.accounts, user_id=owner.id, pool=True),
            account_groups=body.account_groups,
            expires_at=body.expires_at,
        )
        key_id, key = api_keys.create_key(tx, new_key)
        _set_limits(tx, "api_keys", key_id, body)
        row = api_keys.get_key(tx, key_id)
        actor, details = audit_actor(request, admin), {"user": owner.name, "name": body.name, "scopes": new_key.scopes}
        audit_log.record_action(
            tx, actor, "key.make", public_id("key", key_id), **{**_audited_changes(body), **details}
        )
    return json_response({**key_object(row), "key": key}, status=201)


def require_model_ids(names: list[str]) -> list[str]:
    """Return the ids of all models that have these names, for the models of a key. Raises model_not_found."""
    catalog, found = get_catalog(), dict[str, None]()
    for name in names:
        if name == AGENT:
            found[name] = None
        elif catalog.knows_video(name):
            found |= dict.fromkeys(model.id for model in catalog.video_route(name).models)
        else:
            found |= dict.fromkeys(model.id for model in catalog.image_route(name).models)
    return list(found)


def known_providers(names: list[str] | None) -> list[str] | None:
    """Return the providers of a key. Raises `invalid_value` if there is no such provider."""
    known = all_providers()
    if unknown := next((name for name in names or [] if name not in known), None):
        message = f"`providers` names {unknown[:60]!r}; there are {', '.join(known)}."
        raise DreameryError("invalid_value", message, param="providers")
    return None if names is None else list(dict.fromkeys(names))


@router.get("/keys", summary="List the API keys", responses={200: {"model": ApiKeyList}})
def list_keys(_admin: AdminDep, user: str | None = None, after: After = None, limit: Limit = 100) -> Response:
    """Lists all keys, or the keys of one user (name or id), oldest first."""
    with transaction() as tx:
        user_id = find_user(tx, user).id if user else None
        rows = api_keys.list_keys(tx, user_id=user_id, after=after_id("key", after), limit=limit + 1)
    return page_response([key_object(row) for row in rows], limit)


@router.get("/keys/{key_id}", summary="Get an API key", responses={200: {"model": ApiKey}})
def get_key(key_id: str, _admin: AdminDep) -> Response:
    """Returns the metadata of a key, without the key itself."""
    with transaction() as tx:
        return json_response(key_object(find_key(tx, key_id)))


@router.patch("/keys/{key_id}", summary="Change an API key", responses={200: {"model": ApiKey}})
def change_key(request: Request, key_id: str, change: ApiKeyChange, admin: AdminDep) -> Response:
    """Changes the name, the limits (which apply in addition to the user's), and whose accounts its jobs may use.

    Scopes and models cannot change. Jobs that were accepted before keep their accounts.
    """
    with transaction() as tx:
        existing = find_key(tx, key_id)
        _set_limits(tx, "api_keys", existing.id, change)
        change_found_key(tx, existing, change, pool=True)
        tx.on_commit(pubsub.publish_permissions_change)
        target = public_id("key", existing.id)
        audit_log.record_action(
            tx, audit_actor(request, admin), "key.change", target, user=existing.user_name, **_audited_changes(change)
        )
        row = find_key(tx, key_id)
    return json_response(key_object(row))


@router.post(
    "/keys/{key_id}/rotate", summary="Rotate an API key", status_code=201, responses={201: {"model": NewApiKey}}
)
def rotate_key(
    request: Request, key_id: str, admin: AdminDep, rotation: Annotated[Rotation, Body()] = NO_GRACE
) -> Response:
    """Creates a key with the same rights. The old key stays valid for `grace_seconds`, by default 0."""
    with transaction() as tx:
        row, key = rotate_found_key(tx, find_key(tx, key_id).id, rotation, actor=audit_actor(request, admin))
    return json_response({**key_object(row), "key": key}, status=201)


@router.delete("/keys/{key_id}", summary="Revoke an API key", responses={200: {"model": ApiKey}})
def revoke_key(request: Request, key_id: str, admin: AdminDep) -> Response:
    """Revokes the key immediately. Its jobs continue."""
    with transaction() as tx:
        existing = find_key(tx, key_id)
        api_keys.revoke_key(tx, existing.id)
        tx.on_commit(pubsub.publish_permissions_change)
        audit_log.record_action(
            tx, audit_actor(request, admin), "key.revoke", public_id("key", existing.id), user=existing.user_name
        )
        row = find_key(tx, key_id)
    return json_response(key_object(row))


@router.get("/audit", summary="Read the audit log", responses={200: {"model": AuditList}})
def read_audit(
    _admin: AdminDep,
    action: Annotated[
        str | None, Query(max_length=60, description="for example `key.revoke`, or `key` for all key actions")
    ] = None,
    since: Annotated[float | None, Query(ge=0, description="unix seconds")] = None,
    after: After = None,
    limit: Limit = 100,
) -> Response:
    """Returns the entries, newest first."""
    since_time = datetime.fromtimestamp(min(since, 4e9), UTC) if since is not None else None
    with transaction() as tx:
        rows = audit_log.read_log(tx, action=action, since=since_time, after=after_id("act", after), limit=limit + 1)
        names, users = names_in(tx, rows), users_of_keys(tx, rows)
    entries = [
        {
            "id": public_id("act", row.id),
            "at": row.at.timestamp(),
            "actor": row.actor,
            "address": row.address,
            "action": row.action,
            "target": row.target,
            "details": row.details,
            "names": named,
            "users": owners,
        }
        for row, named, owners in zip(rows, names, users, strict=True)
    ]
    return page_response(entries, limit)
