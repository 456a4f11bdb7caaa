"""Albums: lists of results that their user may show to other users of the platform."""

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request, Response

from api.auth.caller import Caller
from api.auth.dependencies import FullReadDep, audit_actor
from api.http.errors import error_responses
from api.http.fields import After, after_id
from api.http.responses import base_url, json_response, page_response
from api.jobs.sharing.access import ChangeDep, album_not_found, lock_for_change, parse_album_id, parse_ids, user_of
from api.jobs.sharing.album_schemas import Album, AlbumChange, AlbumCreate, AlbumList, DeletedAlbum, album_object
from worker.core.errors import DreameryError
from worker.core.ids import public_id
from worker.db.albums import albums
from worker.db.albums.albums import OWNER, NewAlbum
from worker.db.engine import Transaction, transaction
from worker.db.users import audit_log

router = APIRouter(prefix="/v1/albums", tags=["albums"])

AlbumLimit = Annotated[int, Query(ge=1, le=100)]


def read_album(tx: Transaction, caller: Caller, album_id: str, base: str) -> dict[str, object]:
    """Return an album as the caller sees it. Raises album_not_found."""
    row = albums.find_album(tx, parse_album_id(album_id), caller.user_id)
    if row is None or caller.user_id is None:
        raise album_not_found(album_id)
    return album_object(row, caller.user_id, base)


@router.get(
    "",
    summary="List albums",
    responses={200: {"model": AlbumList, "description": "Albums, newest first."}, **error_responses(400, 401, 403)},
)
def list_albums(
    request: Request,
    caller: FullReadDep,
    role: Annotated[Literal["owner", "member"] | None, Query(description="your own, or those of others")] = None,
    limit: AlbumLimit = 50,
    after: After = None,
) -> Response:
    """Your own albums, and those that other users share with you."""
    last = after_id("album", after)
    data: list[dict[str, Any]] = []
    if caller.user_id is not None:
        with transaction() as tx:
            rows = albums.list_albums(tx, caller.user_id, role=role, after=last, limit=limit + 1)
        data = [album_object(row, caller.user_id, base_url(request)) for row in rows]
    return page_response(data, limit)


@router.post(
    "",
    summary="Create an album",
    status_code=201,
    responses={201: {"model": Album, "description": "The album."}, **error_responses(400, 401, 403)},
)
def create_album(request: Request, body: AlbumCreate, caller: ChangeDep) -> Response:
    """Creates an empty album that only you see. At most 500 albums."""
    user_id = user_of(caller)
    with transaction() as tx:
        album_id = albums.add_album(tx, NewAlbum(user_id=user_id, name=body.name, show_prompts=body.show_prompts))
        if album_id is None:
            raise DreameryError("album_limit")
        target = public_id("album", album_id)
        audit_log.record_action(tx, audit_actor(request, caller), "album.create", target, name=body.name)
        album = read_album(tx, caller, target, base_url(request))
    return json_response(album, status=201)


@router.get(
    "/{album_id}",
    summary="Get an album",
    responses={200: {"model": Album, "description": "The album."}, **error_responses(401, 403, 404)},
)
def get_album(request: Request, album_id: str, caller: FullReadDep) -> Response:
    """Returns an album that you own or that is shared with you."""
    with transaction() as tx:
        return json_response(read_album(tx, caller, album_id, base_url(request)))


@router.patch(
    "/{album_id}",
    summary="Change an album",
    responses={200: {"model": Album, "description": "The changed album."}, **error_responses(400, 401, 403, 404)},
)
def change_album(request: Request, album_id: str, body: AlbumChange, caller: ChangeDep) -> Response:
    """Changes the name, the cover, and whether members see prompts. Only its owner may do that."""
    cover = None if body.cover is None else parse_ids("item", [body.cover], "cover")[0]
    with transaction() as tx:
        parsed, _ = lock_for_change(tx, caller, album_id, roles=(OWNER,))
        albums.change_album(tx, parsed, name=body.name, show_prompts=body.show_prompts)
        if "cover" in body.model_fields_set and not albums.set_cover(tx, parsed, cover):
            raise DreameryError("invalid_value", f"This album has no file {body.cover!r}.", param="cover")
        changes = body.model_dump(exclude_unset=True)
        audit_log.record_action(tx, audit_actor(request, caller), "album.change", album_id, **changes)
        return json_response(read_album(tx, caller, album_id, base_url(request)))


@router.delete(
    "/{album_id}",
    summary="Delete an album",
    responses={200: {"model": DeletedAlbum, "description": "It is deleted."}, **error_responses(401, 403, 404)},
)
def delete_album(request: Request, album_id: str, caller: ChangeDep) -> Response:
    """Deletes the album and its share links; nobody sees it any more. The files stay with their jobs."""
    with transaction() as tx:
        parsed, _ = lock_for_change(tx, caller, album_id, roles=(OWNER,))
        row = albums.find_album(tx, parsed, caller.user_id)
        albums.delete_album(tx, parsed)
        name = row.name if row is not None else ""
        audit_log.record_action(tx, audit_actor(request, caller), "album.delete", album_id, name=name)
    return json_response({"id": album_id, "object": "album", "deleted": True})
