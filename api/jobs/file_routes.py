"""Stored results. The link is the right to read it, and browsers send no key for pictures.

Its id cannot be guessed; with LINK_TTL_SECONDS it is signed and expires.
"""

import re
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Header, Query, Request, Response
from fastapi.responses import StreamingResponse
from starlette.concurrency import run_in_threadpool

from api.http.errors import error_response, error_responses
from api.http.security_headers import FILE_POLICY
from worker import storage
from worker.core.errors import DreameryError
from worker.core.ids import parse_public_id
from worker.core.media.image import NotAPictureError
from worker.core.media.thumbnails import thumbnail
from worker.core.security.signed_links import seconds_left
from worker.db.engine import Row, transaction
from worker.db.jobs import queries

router = APIRouter(prefix="/v1/files", tags=["files"])

_FOR_EVER = "public, max-age=31536000, immutable"
# `small` is for lists: a quarter of the work, and of the bytes much less.
_SIDES = {"small": 128, "medium": 512}
_RANGE = re.compile(r"bytes=([0-9]{0,18})-([0-9]{0,18})", re.IGNORECASE)


def _find(file_id: str) -> "Row[tuple[object, ...]]":
    wanted = parse_public_id("file", file_id)
    row = None
    if wanted is not None:
        with transaction() as tx:
            row = queries.file_row(tx, wanted)
    if row is None:
        raise DreameryError("file_not_found")
    if row.removed_at is not None:
        raise DreameryError("file_expired")
    return row


def _span(header: str | None, size: int) -> tuple[int, int] | None:
    """First byte and the one after the last of a single range (RFC 9110 14.2); None = the whole file."""
    match = _RANGE.fullmatch(header.strip()) if header else None
    first, last = match.groups() if match else ("", "")
    if first:
        backwards = bool(last) and int(last) < int(first)
        return None if backwards else (int(first), min(int(last) + 1 if last else size, size))
    return (max(size - int(last), 0), size) if last else None


_DOCUMENTED: dict[int | str, dict[str, Any]] = {
    200: {"content": {"image/*": {}, "video/mp4": {}}, "description": "The bytes."},
    206: {"content": {"image/*": {}, "video/mp4": {}}, "description": "The range asked for."},
    304: {"description": "What the caller has is still right."},
    **error_responses(403, 404, 410, 416),
}


@router.head("/{file_id}/content", summary="Ask about a stored file", response_class=Response, responses=_DOCUMENTED)
@router.get("/{file_id}/content", summary="Get a stored file", response_class=Response, responses=_DOCUMENTED)
async def get_file(
    request: Request,
    file_id: str,
    *,
    range_header: Annotated[str | None, Header(alias="range")] = None,
    if_none_match: Annotated[str | None, Header()] = None,
    if_range: Annotated[str | None, Header()] = None,
    expires: Annotated[str | None, Query(max_length=20, description="part of a link that expires")] = None,
    signature: Annotated[str | None, Query(max_length=100, description="part of a link that expires")] = None,
) -> Response:
    """The bytes, with range requests. Files never change, so they may be cached for as long as their link is good."""
    left = seconds_left(file_id, expires, signature)
    cache = _FOR_EVER if left is None else f"private, max-age={left}"
    row = await run_in_threadpool(_find, file_id)
    asked = Asked(range=range_header, if_none_match=if_none_match, if_range=if_range)
    return await send_file(request, row, name=_saved_name(row), asked=asked, cache=cache)


def _saved_name(row: Any) -> str:
    """What browsers call it when it is saved. The end of the job's id is its random part."""
    part = "" if row.variant == "original" else f"-{row.variant}"
    ending = row.mime.partition("/")[2].replace("jpeg", "jpg")
    return f"dreamery-{row.job_id.hex[-8:]}-{row.n + 1}{part}.{ending}"


def _small(row: Any, side: int) -> bytes:
    try:
        return thumbnail(storage.read_file(row.key), side=side)
    except storage.MissingFileError:
        raise DreameryError("file_not_found") from None
    except NotAPictureError as error:
        raise DreameryError("file_not_found", f"There is no thumbnail of this file: {error}.") from None


@router.get(
    "/{file_id}/thumbnail",
    summary="Get a small copy of a stored picture",
    response_class=Response,
    responses={
        200: {"content": {"image/webp": {}}, "description": "The bytes."},
        304: {"description": "What the caller has is still right."},
        **error_responses(403, 404, 410),
    },
)
async def get_thumbnail(
    file_id: str,
    *,
    size: Annotated[Literal["small", "medium"], Query(description="128 or 512 pixels a side")] = "medium",
    if_none_match: Annotated[str | None, Header()] = None,
    expires: Annotated[str | None, Query(max_length=20, description="part of a link that expires")] = None,
    signature: Annotated[str | None, Query(max_length=100, description="part of a link that expires")] = None,
) -> Response:
    """A WebP of at most 512 pixels a side, or 128, made when asked for. Of a video take the `thumbnail_url` of its job.

    Where links expire, the parameters of the file's link open its small copy too.
    """
    left = seconds_left(file_id, expires, signature)
    row = await run_in_threadpool(_find, file_id)
    if not row.mime.startswith("image/"):
        raise DreameryError("file_not_found", "Only pictures have one here; a video's job names its `thumbnail_url`.")
    headers = {
        "ETag": f'"{row.sha256}-{_SIDES[size]}"',
        "Cache-Control": _FOR_EVER if left is None else f"private, max-age={left}",
        "Access-Control-Allow-Origin": "*",
    }
    if if_none_match == headers["ETag"]:
        return Response(status_code=304, headers=headers)
    content = await run_in_threadpool(_small, row, _SIDES[size])
    return Response(content, media_type="image/webp", headers=headers)


@dataclass(frozen=True, slots=True)
class Asked:
    """What a request says of the bytes it wants (RFC 9110 13 and 14)."""

    range: str | None
    if_none_match: str | None
    if_range: str | None


async def send_file(request: Request, row: Any, *, name: str, asked: Asked, cache: str) -> Response:
    """A stored file, whole or the range asked for, or only its headers; 304 when the caller has it."""
    headers = {
        "ETag": f'"{row.sha256}"',
        "Accept-Ranges": "bytes",
        "Cache-Control": cache,
        "Content-Security-Policy": FILE_POLICY,
        "Content-Disposition": f'inline; filename="{name}"',
        # Also for pages that load the picture without saying where they are.
        "Access-Control-Allow-Origin": "*",
    }
    if asked.if_none_match and (headers["ETag"] in asked.if_none_match or asked.if_none_match.strip() == "*"):
        return Response(status_code=304, headers=headers)
    # A range is defined for GET only, and void when the caller's part is of other bytes.
    wants_part = request.method == "GET" and asked.if_range in {None, headers["ETag"]}
    span = _span(asked.range, row.bytes) if wants_part else None
    if span is not None and span[0] >= span[1]:
        message = f"The file has {row.bytes} bytes; the range {asked.range!r} holds none of them."
        outside = {"Content-Range": f"bytes */{row.bytes}", "Accept-Ranges": "bytes"}
        return error_response(DreameryError("range_not_satisfiable", message), headers=outside)
    start, end = span or (0, row.bytes)
    headers["Content-Length"] = str(end - start)
    if span is not None:
        headers["Content-Range"] = f"bytes {start}-{end - 1}/{row.bytes}"
    status = 206 if span is not None else 200
    if request.method == "HEAD":
        return Response(status_code=status, headers=headers, media_type=row.mime)
    try:
        chunks = await storage.stream_file(row.key, start=start, end=end)
    except storage.MissingFileError:
        raise DreameryError("file_not_found") from None
    return StreamingResponse(chunks, status_code=status, headers=headers, media_type=row.mime)
