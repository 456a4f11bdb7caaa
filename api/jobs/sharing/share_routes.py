"""Share links: create, list, revoke. `page_routes.py` has the pages that they open."""

from uuid import UUID

from fastapi import APIRouter, Request, Response

from api.auth.caller import Caller
from api.auth.dependencies import FullReadDep, audit_actor
from api.http.errors import error_responses
from api.http.fields import After, after_id
from api.http.responses import base_url, json_response, page_response
from api.jobs.sharing.access import ChangeDep, album_not_found, parse_album_id, parse_ids, user_of
from api.jobs.sharing.album_routes import AlbumLimit
from api.jobs.sharing.share_schemas import RevokedShare, Share, ShareCreate, ShareList, share_object
from worker.core.errors import DreameryError
from worker.core.ids import parse_public_id, public_id
from worker.core.settings import get_settings
from worker.db.albums import album_files, albums, shares
from worker.db.albums.albums import OWNER
from worker.db.albums.shares import NewShare
from worker.db.engine import Transaction, transaction
from worker.db.users import audit_log

router = APIRouter(prefix="/v1/shares", tags=["albums"])


def _shared(tx: Transaction, body: ShareCreate, caller: Caller) -> tuple[UUID | None, list[UUID]]:
    """Return the album or the files to share. Raises an error for what is not the caller's own."""
    if (body.files is None) == (body.album is None):
        message = "Send either `files` or `album`."
        raise DreameryError(
            "missing_required_parameter" if body.files is None else "invalid_value", message, param="files"
        )
    if body.album is not None:
        album_id = parse_album_id(body.album)
        album = albums.find_album(tx, album_id, caller.user_id)
        if album is None:
            raise album_not_found(body.album)
        if album.role != OWNER:
            raise DreameryError("forbidden", "Only the owner of an album shares it by a link.")
        return album_id, []
    file_ids = parse_ids("file", body.files or [], "files")
    visible = album_files.find_files(tx, file_ids, caller.viewer(tx))
    if missing := [file_id for file_id in file_ids if file_id not in visible]:
        raise DreameryError("file_not_found", f"No file {public_id('file', missing[0])!r} of your own.", param="files")
    return None, file_ids


@router.post(
    "",
    summary="Create a share link",
    status_code=201,
    responses={
        201: {"model": Share, "description": "The share with its link."},
        **error_responses(400, 401, 403, 404),
    },
)
def create_share(request: Request, body: ShareCreate, caller: ChangeDep) -> Response:
    """Makes a page that everybody with the link can open without a key, until it expires or you revoke it.

    At most 200 links and 200 files in one; an album has no such limit, and its page follows the album. Administrators
    bound the life of links with `DREAMERY_SHARE_MAX_DAYS`, or turn them off.
    """
    user_id = user_of(caller)
    if not get_settings().share_max_days:
        raise DreameryError("shares_off")
    until = body.end()
    with transaction() as tx:
        album_id, files = _shared(tx, body, caller)
        new = NewShare(
            user_id=user_id,
            expires_at=until,
            title=body.title.strip(),
            album_id=album_id,
            files=files,
            show_prompts=body.show_prompts,
            allow_download=body.allow_download,
        )
        share_id = shares.add_share(tx, new)
        row = shares.find_share(tx, share_id, user_id=user_id) if share_id is not None else None
        if row is None:
            raise DreameryError("share_limit")
        about = {"album": body.album} if body.album is not None else {"files": len(files)}
        target = public_id("share", row.id)
        audit_log.record_action(tx, audit_actor(request, caller), "share.create", target, expires_at=until, **about)
    return json_response(share_object(row, base_url(request)), status=201)


@router.get(
    "",
    summary="List share links",
    responses={200: {"model": ShareList, "description": "Links, newest first."}, **error_responses(400, 401, 403)},
)
def list_shares(request: Request, caller: FullReadDep, limit: AlbumLimit = 50, after: After = None) -> Response:
    """Your links that work, and those that expired within a week."""
    last = after_id("share", after)
    rows = []
    if caller.user_id is not None:
        with transaction() as tx:
            rows = shares.list_shares(tx, caller.user_id, after=last, limit=limit + 1)
    base = base_url(request)
    return page_response([share_object(row, base) for row in rows], limit)


@router.delete(
    "/{share_id}",
    summary="Revoke a share link",
    responses={200: {"model": RevokedShare, "description": "It is revoked."}, **error_responses(401, 403, 404)},
)
def revoke_share(request: Request, share_id: str, caller: ChangeDep) -> Response:
    """Ends the page and all of its files at once. The files stay with their jobs."""
    parsed = parse_public_id("share", share_id)
    with transaction() as tx:
        if parsed is None or caller.user_id is None or not shares.delete_share(tx, parsed, caller.user_id):
            raise DreameryError("share_not_found", f"No share link {share_id[:60]!r}.")
        audit_log.record_action(tx, audit_actor(request, caller), "share.revoke", share_id)
    return json_response({"id": share_id, "object": "share", "deleted": True})
