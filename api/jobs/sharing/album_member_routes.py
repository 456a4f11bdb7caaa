"""Members of albums: the users with whom an album is shared."""

from fastapi import APIRouter, Request, Response

from api.auth.dependencies import FullReadDep, audit_actor
from api.http.errors import error_responses
from api.http.responses import json_response
from api.jobs.sharing.access import ChangeDep, album_not_found, lock_for_change, parse_album_id
from api.jobs.sharing.album_schemas import AlbumMember, AlbumMemberAdd, AlbumMemberList, member_object
from worker.core.errors import DreameryError
from worker.core.ids import parse_public_id
from worker.db.albums import albums
from worker.db.albums.albums import CONTRIBUTOR, MOST_MEMBERS, OWNER, VIEWER
from worker.db.engine import transaction
from worker.db.users import audit_log, users

router = APIRouter(prefix="/v1/albums/{album_id}/members", tags=["albums"])


@router.get(
    "",
    summary="List the members of an album",
    responses={200: {"model": AlbumMemberList, "description": "All members."}, **error_responses(401, 403, 404)},
)
def list_members(album_id: str, caller: FullReadDep) -> Response:
    """The users who see the album beside its owner, in the order in which they were added."""
    parsed = parse_album_id(album_id)
    with transaction() as tx:
        if albums.find_album(tx, parsed, caller.user_id) is None:
            raise album_not_found(album_id)
        rows = albums.list_members(tx, parsed)
    return json_response({"object": "list", "data": [member_object(row) for row in rows], "has_more": False})


@router.post(
    "",
    summary="Share an album with a user",
    responses={200: {"model": AlbumMember, "description": "The member."}, **error_responses(400, 401, 403, 404)},
)
def set_member(request: Request, album_id: str, body: AlbumMemberAdd, caller: ChangeDep) -> Response:
    """Adds a member, or changes its role: a viewer sees the album, a contributor also adds own files."""
    with transaction() as tx:
        parsed, _ = lock_for_change(tx, caller, album_id, roles=(OWNER,))
        user = users.find_user(tx, name=body.user)
        if user is None or user.disabled:
            raise DreameryError("user_not_found", f"No user {body.user!r}.", param="user")
        if user.id == caller.user_id:
            raise DreameryError("invalid_value", "The album is yours; it needs no sharing with yourself.", param="user")
        if not albums.set_member(tx, parsed, user.id, body.role):
            message = f"An album has at most {MOST_MEMBERS} members. Remove one first."
            raise DreameryError("album_limit", message, param="user")
        actor = audit_actor(request, caller)
        audit_log.record_action(tx, actor, "album.share", album_id, user=user.name, role=body.role)
        row = next(row for row in albums.list_members(tx, parsed) if row.user_id == user.id)
    return json_response(member_object(row))


@router.delete(
    "/{user_id}",
    summary="Remove a member of an album",
    responses={200: {"model": AlbumMemberList, "description": "The other members."}, **error_responses(401, 403, 404)},
)
def remove_member(request: Request, album_id: str, user_id: str, caller: FullReadDep) -> Response:
    """Ends the access of a user at once; the files that this user added leave the album too.

    The owner may remove everybody, a member only itself.
    """
    member_id = parse_public_id("user", user_id)
    if member_id != caller.user_id or caller.role != "viewer":  # users who may only read can leave
        caller.require_scope("generate")
    with transaction() as tx:
        parsed, role = lock_for_change(tx, caller, album_id, roles=(OWNER, CONTRIBUTOR, VIEWER))
        if role != OWNER and member_id != caller.user_id:
            raise DreameryError("forbidden", "Only the owner of an album removes other members.")
        if member_id is None or not albums.remove_member(tx, parsed, member_id):
            raise DreameryError("user_not_found", f"This album has no member {user_id[:60]!r}.")
        audit_log.record_action(tx, audit_actor(request, caller), "album.unshare", album_id, user=user_id)
        rows = albums.list_members(tx, parsed) if role == OWNER else []
    return json_response({"object": "list", "data": [member_object(row) for row in rows], "has_more": False})
