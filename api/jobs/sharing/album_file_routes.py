"""The files of an album: list, add, take out, order; and their bytes, by links made for one user."""

from types import SimpleNamespace
from typing import Annotated, Any

from fastapi import APIRouter, Header, Query, Request, Response
from starlette.concurrency import run_in_threadpool

from api.auth.dependencies import FullReadDep
from api.http.errors import error_responses
from api.http.fields import After, after_id
from api.http.responses import base_url, json_response, page_response
from api.jobs.file_routes import FileConditions, send_file
from api.jobs.results.thumbnails import ThumbnailSize, send_thumbnail
from api.jobs.sharing.access import ChangeDep, album_not_found, lock_for_change, parse_album_id, parse_ids, user_of
from api.jobs.sharing.album_routes import AlbumLimit, read_album
from api.jobs.sharing.album_schemas import (
    Album,
    AlbumFileList,
    AlbumFilesAdd,
    AlbumFilesAdded,
    AlbumFilesRemove,
    AlbumOrder,
    file_object,
)
from worker.core.errors import DreameryError
from worker.core.ids import public_id
from worker.core.security.share_links import read_album_file_link
from worker.db.albums import album_files, albums
from worker.db.albums.album_files import MOST_FILES
from worker.db.albums.albums import CONTRIBUTOR, OWNER
from worker.db.engine import Row, transaction

router = APIRouter(tags=["albums"])

_PATH = "/v1/albums/{album_id}/files"
# A browser asks again each time, so that access ends at once; an unchanged file is not sent again.
CACHE = "private, no-cache"


@router.get(
    _PATH,
    summary="List the files of an album",
    responses={
        200: {"model": AlbumFileList, "description": "The files, in the order of the album."},
        **error_responses(400, 401, 403, 404),
    },
)
def list_files(
    request: Request, album_id: str, caller: FullReadDep, limit: AlbumLimit = 50, after: After = None
) -> Response:
    """Files that were deleted or are past their retention are in no album any more."""
    parsed, last = parse_album_id(album_id), after_id("item", after)
    with transaction() as tx:
        album = albums.find_album(tx, parsed, caller.user_id)
        if album is None or caller.user_id is None:
            raise album_not_found(album_id)
        rows = album_files.list_files(tx, parsed, after=last, limit=limit + 1)
    if rows is None:
        raise DreameryError("invalid_value", f"This album has no file {after!r} any more. Start again.", param="after")
    base, show = base_url(request), album.show_prompts
    return page_response([file_object(row, caller.user_id, base, show_prompts=show) for row in rows], limit)


@router.post(
    _PATH,
    summary="Add files to an album",
    responses={
        200: {"model": AlbumFilesAdded, "description": "The album with the files."},
        **error_responses(400, 401, 403, 404),
    },
)
def add_files(request: Request, album_id: str, body: AlbumFilesAdd, caller: ChangeDep) -> Response:
    """Appends results of your own, at most 500 at a time and 2,000 in an album. All of them, or none.

    Files that the album already has stay where they are.
    """
    file_ids = parse_ids("file", body.files, "files")
    with transaction() as tx:
        parsed, _ = lock_for_change(tx, caller, album_id, roles=(OWNER, CONTRIBUTOR))
        visible = album_files.find_files(tx, file_ids, caller.viewer(tx))
        if missing := [file_id for file_id in file_ids if file_id not in visible]:
            raise DreameryError(
                "file_not_found", f"No file {public_id('file', missing[0])!r} of your own.", param="files"
            )
        added = album_files.add_files(tx, parsed, file_ids, added_by=user_of(caller))
        if added is None:
            message = f"An album has at most {MOST_FILES} files. Take some out, or make another album."
            raise DreameryError("album_limit", message, param="files")
        albums.touch(tx, parsed)
        album = read_album(tx, caller, album_id, base_url(request))
    return json_response({"object": "album.files_added", "added": added, "album": album})


@router.delete(
    _PATH,
    summary="Take files out of an album",
    responses={200: {"model": Album, "description": "The album without them."}, **error_responses(400, 401, 403, 404)},
)
def remove_files(request: Request, album_id: str, body: AlbumFilesRemove, caller: ChangeDep) -> Response:
    """Takes files out of the album; they stay with their jobs. A contributor takes out only what it added itself."""
    item_ids = parse_ids("item", body.files, "files")
    with transaction() as tx:
        parsed, role = lock_for_change(tx, caller, album_id, roles=(OWNER, CONTRIBUTOR))
        only = None if role == OWNER else caller.user_id
        removed = album_files.remove_files(tx, parsed, item_ids, added_by=only)
        if missing := [item for item in item_ids if item not in removed]:
            owner = "" if role == OWNER else " that you added"
            message = f"This album has no file {public_id('item', missing[0])!r}{owner}."
            raise DreameryError("file_not_found", message, param="files")
        albums.touch(tx, parsed)
        return json_response(read_album(tx, caller, album_id, base_url(request)))


@router.post(
    "/v1/albums/{album_id}/order",
    summary="Move files within an album",
    responses={200: {"model": Album, "description": "The album."}, **error_responses(400, 401, 403, 404)},
)
def move_files(request: Request, album_id: str, body: AlbumOrder, caller: ChangeDep) -> Response:
    """Puts files before another one, or at the end, in the order of the request. Only its owner may do that."""
    item_ids = parse_ids("item", body.files, "files")
    before = parse_ids("item", [body.before], "before")[0] if body.before is not None else None
    with transaction() as tx:
        parsed, _ = lock_for_change(tx, caller, album_id, roles=(OWNER,))
        if not album_files.move_files(tx, parsed, item_ids, before=before):
            message = "`files` and `before` must be different files of this album."
            raise DreameryError("invalid_value", message, param="files")
        albums.touch(tx, parsed)
        return json_response(read_album(tx, caller, album_id, base_url(request)))


# --- bytes ---


def _find(name: str, expires: str, signature: str) -> "Row[Any]":
    item_id, user_id = read_album_file_link(name, expires, signature)
    with transaction() as tx:
        row = album_files.find_item(tx, item_id, user_id)
    if row is None:
        raise DreameryError("file_not_found")
    return row


def preview_of(row: "Row[Any]") -> Any:
    """Return what `send_thumbnail` needs: the image itself, or the first frame of a video. Raises file_not_found."""
    if row.mime.startswith("image/"):
        return row
    if row.poster_key is None:
        raise DreameryError("file_not_found", "This video has no thumbnail.")
    return SimpleNamespace(key=row.poster_key, sha256=row.poster_sha256, owner=row.owner)


Expires = Annotated[str, Query(max_length=20)]
Signature = Annotated[str, Query(max_length=100)]


@router.head("/v1/album-files/{name}", include_in_schema=False)
@router.get("/v1/album-files/{name}", include_in_schema=False)
async def get_file(
    request: Request,
    name: str,
    *,
    expires: Expires = "",
    signature: Signature = "",
    range_header: Annotated[str | None, Header(alias="range")] = None,
    if_none_match: Annotated[str | None, Header()] = None,
    if_range: Annotated[str | None, Header()] = None,
) -> Response:
    """The bytes of a file of an album, for the user of the link as long as this user sees the album."""
    row = await run_in_threadpool(_find, name, expires, signature)
    conditions = FileConditions(range=range_header, if_none_match=if_none_match, if_range=if_range)
    return await send_file(request, row, name=download_name(row), conditions=conditions, cache=CACHE)


def download_name(row: "Row[Any]") -> str:
    """The name under which browsers save the file; it says nothing about its job."""
    return f"dreamery-{row.id.hex[-8:]}.{row.mime.partition('/')[2].replace('jpeg', 'jpg')}"


@router.get("/v1/album-files/{name}/thumbnail", include_in_schema=False)
async def get_thumbnail(
    name: str,
    *,
    expires: Expires = "",
    signature: Signature = "",
    size: ThumbnailSize = "medium",
    if_none_match: Annotated[str | None, Header()] = None,
) -> Response:
    """A small image of the file, with the same rights."""
    row = await run_in_threadpool(_find, name, expires, signature)
    return await send_thumbnail(preview_of(row), size, if_none_match=if_none_match, cache=CACHE)
