"""Administration: users, API keys, the audit log (`/admin/v1`). Every act is written down in the same transaction."""

from datetime import UTC, datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import APIRouter, Body, Query, Request, Response

from api.admin.schemas import (
    ApiKey,
    AuditList,
    KeyChange,
    KeyList,
    KeyWish,
    LimitChange,
    NewApiKey,
    Rotation,
    User,
    UserChange,
    UserList,
    UserWish,
)
from api.auth.dependencies import AdminDep, actor_of
from api.generation.request_checks import AGENT
from api.http.errors import error_responses
from api.http.fields import After, Limit, after_id
from api.http.responses import json_response, seconds_of
from worker.core.catalog.models import get_catalog
from worker.core.errors import DreameryError
from worker.core.ids import parse_public_id, public_id
from worker.core.quotas import NAMES, SOFT_NAMES
from worker.db.engine import Transaction, transaction
from worker.db.jobs import retention
from worker.db.scheduling import fair_queue
from worker.db.users import api_keys, audit_log, quotas, users

router = APIRouter(prefix="/admin/v1", tags=["admin"], responses=error_responses(400, 401, 403, 404, 409))


NO_GRACE = Rotation(grace_seconds=0)


def _limits_of(row: Any) -> dict[str, Any]:
    return {
        "limits": {name: row.limits.get(name) for name in NAMES},
        "soft_limits": {name: row.soft_limits.get(name) for name in SOFT_NAMES},
    }


def _set_limits(tx: Transaction, table: Literal["users", "api_keys"], row_id: UUID, change: LimitChange) -> None:
    hard, soft = (part.model_dump(exclude_unset=True) if part else {} for part in (change.limits, change.soft_limits))
    if hard or soft:
        quotas.set_limits(tx, table, row_id, hard=hard, soft=soft)


def _changes(change: LimitChange) -> dict[str, Any]:
    """What a body changes, for the audit log: null takes away a limit or a time that results are kept; elsewhere it
    changes nothing.
    """
    given = change.model_dump(exclude_unset=True, mode="json")
    return {name: value for name, value in given.items() if value is not None or name == "retention_days"}


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
        **_limits_of(row),
        "created_at": seconds_of(row.created_at),
    }


def _key_status(row: Any) -> str:
    now = datetime.now(UTC)
    if row.revoked_at is not None:
        return "in_grace" if row.revoked_at > now else "revoked"
    return "expired" if row.expires_at is not None and row.expires_at <= now else "active"


def key_object(row: Any) -> dict[str, Any]:
    """A key without the key itself."""
    return {
        "id": public_id("key", row.id),
        "object": "api_key",
        "user_id": public_id("user", row.user_id),
        "user": row.user_name,
        "name": row.name,
        "prefix": row.prefix,
        "scopes": row.scopes,
        "models": row.models,
        "status": _key_status(row),
        "expires_at": seconds_of(row.expires_at),
        "last_used_at": seconds_of(row.last_used_at),
        "revoked_at": seconds_of(row.revoked_at),
        **_limits_of(row),
        "created_at": seconds_of(row.created_at),
    }


def page_of(objects: list[dict[str, Any]], limit: int) -> Response:
    """A list of at most `limit`; one object more tells that more follow."""
    return json_response({"object": "list", "data": objects[:limit], "has_more": len(objects) > limit})


def find_user(tx: Transaction, name_or_id: str) -> Any:
    """The user of that id or name. Raises user_not_found."""
    row = users.find_user(tx, user_id=parse_public_id("user", name_or_id), name=name_or_id)
    if row is None:
        raise DreameryError("user_not_found", f"No user {name_or_id[:60]!r}.")
    return row


def find_key(tx: Transaction, key_id: str) -> Any:
    found = parse_public_id("key", key_id)
    row = api_keys.get_key(tx, found) if found else None
    if row is None:
        raise DreameryError("key_not_found", f"No API key {key_id[:60]!r}.")
    return row


@router.post("/users", summary="Add a user", status_code=201, responses={201: {"model": User}})
def add_user(request: Request, wish: UserWish, admin: AdminDep) -> Response:
    """Adds a user. Names are unique; keys are made with `POST /admin/v1/keys`."""
    with transaction() as tx:
        row = users.add_user(tx, **wish.model_dump(exclude={"limits", "soft_limits"}))
        if row is None:
            raise DreameryError("name_taken", f"There is a user {wish.name!r} already.", param="name")
        _set_limits(tx, "users", row.id, wish)
        actor, target = actor_of(request, admin), public_id("user", row.id)
        audit_log.note_act(tx, actor, "user.add", target, **{**_changes(wish), "name": row.name, "role": row.role})
        row = find_user(tx, target)
    return json_response(_user_object(row), status=201)


@router.get("/users", summary="List the users", responses={200: {"model": UserList}})
def list_users(_admin: AdminDep, after: After = None, limit: Limit = 100) -> Response:
    """Oldest first."""
    with transaction() as tx:
        rows = users.list_users(tx, after=after_id("user", after), limit=limit + 1)
    return page_of([_user_object(row) for row in rows], limit)


@router.get("/users/{user}", summary="Get a user", responses={200: {"model": User}})
def get_user(user: str, _admin: AdminDep) -> Response:
    """By id or name."""
    with transaction() as tx:
        return json_response(_user_object(find_user(tx, user)))


@router.patch("/users/{user}", summary="Change a user", responses={200: {"model": User}})
def change_user(request: Request, user: str, change: UserChange, admin: AdminDep) -> Response:
    """Role, groups, limits, how long results are kept; disabled: the keys of a disabled user stop working at once;
    weight and priority when several users wait. The last admin cannot be taken away.
    """
    with transaction() as tx:
        known = find_user(tx, user)
        # First, for it locks rows of several users: two changes at once would else wait for each other.
        row = users.change_user(tx, known.id, role=change.role, disabled=change.disabled, groups=change.groups)
        if row is None:
            raise DreameryError("last_admin")
        fair_queue.set_shares(tx, known.id, weight=change.weight, priority=change.priority)
        if "retention_days" in change.model_fields_set:
            retention.set_user_retention(tx, known.id, change.retention_days)
        _set_limits(tx, "users", row.id, change)
        actor, target = actor_of(request, admin), public_id("user", row.id)
        audit_log.note_act(tx, actor, "user.change", target, name=row.name, **_changes(change))
        row = find_user(tx, target)
    return json_response(_user_object(row))


@router.post("/keys", summary="Make an API key", status_code=201, responses={201: {"model": NewApiKey}})
def make_key(request: Request, wish: KeyWish, admin: AdminDep) -> Response:
    """The answer is the only time the key is shown; only a hash is stored."""
    models = [model_id(name) for name in wish.models] if wish.models is not None else None
    with transaction() as tx:
        owner = find_user(tx, wish.user)
        wanted = api_keys.NewKey(
            user_id=owner.id,
            name=wish.name,
            scopes=list(wish.scopes) if wish.scopes is not None else None,
            models=models,
            expires_at=wish.expires_at,
        )
        key_id, key = api_keys.make_key(tx, wanted)
        _set_limits(tx, "api_keys", key_id, wish)
        row = api_keys.get_key(tx, key_id)
        actor, facts = actor_of(request, admin), {"user": owner.name, "name": wish.name, "scopes": wanted.scopes}
        audit_log.note_act(tx, actor, "key.make", public_id("key", key_id), **{**_changes(wish), **facts})
    return json_response({**key_object(row), "key": key}, status=201)


def model_id(name: str) -> str:
    """The id a name stands for, so that a key limited to a model also takes its aliases."""
    catalog = get_catalog()
    if name == AGENT:
        return name
    return catalog.video_model(name).id if catalog.knows_video(name) else catalog.image_model(name).id


@router.get("/keys", summary="List the API keys", responses={200: {"model": KeyList}})
def list_keys(_admin: AdminDep, user: str | None = None, after: After = None, limit: Limit = 100) -> Response:
    """All keys, or those of one user (name or id), oldest first."""
    with transaction() as tx:
        user_id = find_user(tx, user).id if user else None
        rows = api_keys.list_keys(tx, user_id=user_id, after=after_id("key", after), limit=limit + 1)
    return page_of([key_object(row) for row in rows], limit)


@router.get("/keys/{key_id}", summary="Get an API key", responses={200: {"model": ApiKey}})
def get_key(key_id: str, _admin: AdminDep) -> Response:
    """Everything but the key itself."""
    with transaction() as tx:
        return json_response(key_object(find_key(tx, key_id)))


@router.patch("/keys/{key_id}", summary="Change an API key", responses={200: {"model": ApiKey}})
def change_key(request: Request, key_id: str, change: KeyChange, admin: AdminDep) -> Response:
    """Its name or its limits, which come on top of those of its user. What it may do stays: make another key."""
    with transaction() as tx:
        known = find_key(tx, key_id)
        api_keys.rename_key(tx, known.id, change.name or known.name)
        _set_limits(tx, "api_keys", known.id, change)
        target = public_id("key", known.id)
        audit_log.note_act(tx, actor_of(request, admin), "key.change", target, user=known.user_name, **_changes(change))
        row = find_key(tx, key_id)
    return json_response(key_object(row))


@router.post(
    "/keys/{key_id}/rotate", summary="Replace an API key", status_code=201, responses={201: {"model": NewApiKey}}
)
def rotate_key(
    request: Request, key_id: str, admin: AdminDep, rotation: Annotated[Rotation, Body()] = NO_GRACE
) -> Response:
    """A new key with the same rights; the old one works on for `grace_seconds`, by default not at all."""
    grace = rotation.grace_seconds
    with transaction() as tx:
        known = find_key(tx, key_id)
        made = api_keys.rotate_key(tx, known.id, grace_seconds=grace)
        if made is None:
            raise DreameryError("key_not_found", f"API key {key_id[:60]!r} is revoked or expired: make a new one.")
        new_id, key = made
        row = api_keys.get_key(tx, new_id)
        target = public_id("key", known.id)
        audit_log.note_act(
            tx, actor_of(request, admin), "key.rotate", target, new=public_id("key", new_id), grace_seconds=grace
        )
    return json_response({**key_object(row), "key": key}, status=201)


@router.delete("/keys/{key_id}", summary="Revoke an API key", responses={200: {"model": ApiKey}})
def revoke_key(request: Request, key_id: str, admin: AdminDep) -> Response:
    """It stops working at once; its jobs go on."""
    with transaction() as tx:
        known = find_key(tx, key_id)
        api_keys.revoke_key(tx, known.id)
        audit_log.note_act(tx, actor_of(request, admin), "key.revoke", public_id("key", known.id), user=known.user_name)
        row = find_key(tx, key_id)
    return json_response(key_object(row))


@router.get("/audit", summary="Read the audit log", responses={200: {"model": AuditList}})
def read_audit(
    _admin: AdminDep,
    action: Annotated[str | None, Query(max_length=60, description="such as `key.revoke`, or `key` for all")] = None,
    since: Annotated[float | None, Query(ge=0, description="unix seconds")] = None,
    after: After = None,
    limit: Limit = 100,
) -> Response:
    """Newest first. Page through it for an export."""
    moment = datetime.fromtimestamp(min(since, 4e9), UTC) if since is not None else None
    with transaction() as tx:
        rows = audit_log.read_log(tx, action=action, since=moment, after=after_id("act", after), limit=limit + 1)
    acts = [
        {
            "id": public_id("act", row.id),
            "at": row.at.timestamp(),
            "actor": row.actor,
            "address": row.address,
            "action": row.action,
            "target": row.target,
            "details": row.details,
        }
        for row in rows
    ]
    return page_of(acts, limit)
