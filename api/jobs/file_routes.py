"""Stored results. The link itself grants access, because browsers send no API key for images.

The id of a file cannot be guessed; with LINK_TTL_SECONDS links are signed and expire.
"""

import re
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import APIRouter, Header, Query, Request, Response
from fastapi.responses import StreamingResponse
from starlette.concurrency import run_in_threadpool

from api.http.errors import error_response, error_responses
from api.http.security_headers import FILE_POLICY
from api.jobs.results.thumbnails import ThumbnailSize, send_thumbnail
from worker import storage
from worker.core.errors import DreameryError
from worker.core.ids import parse_public_id
from worker.core.security.signed_links import seconds_until_expiry
from worker.db.engine import Row, transaction
from worker.db.jobs import queries

router = APIRouter(prefix="/v1/files", tags=["files"])

_CACHE_PERMANENTLY = "public, max-age=31536000, immutable"
_RANGE = re.compile(r"bytes=([0-9]{0,18})-([0-9]{0,18})", re.IGNORECASE)


def _find_file(file_id: str) -> "Row[tuple[object, ...]]":
    parsed_id = parse_public_id("file", file_id)
    row = None
    if parsed_id is not None:
        with transaction() as tx:
            row = queries.file_row(tx, parsed_id)
    if row is None:
        raise DreameryError("file_not_found")
    if row.removed_at is not None:
        raise DreameryError("file_expired")
    return row


def _parse_range(header: str | None, size: int) -> tuple[int, int] | None:
    """Parse a single range (RFC 9110 14.2) into start and exclusive end; None = the whole file."""
    match = _RANGE.fullmatch(header.strip()) if header else None
    first, last = match.groups() if match else ("", "")
    if first:
        is_invalid = bool(last) and int(last) < int(first)
        return None if is_invalid else (int(first), min(int(last) + 1 if last else size, size))
    return (max(size - int(last), 0), size) if last else None


_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {"content": {"image/*": {}, "video/mp4": {}}, "description": "The bytes."},
    206: {"content": {"image/*": {}, "video/mp4": {}}, "description": "The requested range."},
    304: {"description": "The cached copy of the caller is up to date."},
    **error_responses(403, 404, 410, 416),
}


@router.head(
    "/{file_id}/content", summary="Get the headers of a stored file", response_class=Response, responses=_RESPONSES
)
@router.get("/{file_id}/content", summary="Get a stored file", response_class=Response, responses=_RESPONSES)
async def get_file(
    request: Request,
    file_id: str,
    *,
    range_header: Annotated[str | None, Header(alias="range")] = None,
    if_none_match: Annotated[str | None, Header()] = None,
    if_range: Annotated[str | None, Header()] = None,
    expires: Annotated[str | None, Query(max_length=20, description="part of an expiring link")] = None,
    signature: Annotated[str | None, Query(max_length=100, description="part of an expiring link")] = None,
) -> Response:
    """The bytes of the file; supports range requests. Files never change and may be cached while the link is valid."""
    left = seconds_until_expiry(file_id, expires, signature)
    cache = _CACHE_PERMANENTLY if left is None else f"private, max-age={left}"
    row = await run_in_threadpool(_find_file, file_id)
    conditions = FileConditions(range=range_header, if_none_match=if_none_match, if_range=if_range)
    return await send_file(request, row, name=_download_name(row), conditions=conditions, cache=cache)


def _download_name(row: Any) -> str:
    """The name under which browsers save the file. The last characters of the job id are random."""
    suffix = "" if row.variant == "original" else f"-{row.variant}"
    extension = row.mime.partition("/")[2].replace("jpeg", "jpg")
    return f"dreamery-{row.job_id.hex[-8:]}-{row.n + 1}{suffix}.{extension}"


@router.get(
    "/{file_id}/thumbnail",
    summary="Get a thumbnail of a stored image",
    response_class=Response,
    responses={
        200: {"content": {"image/webp": {}}, "description": "The bytes."},
        304: {"description": "The cached copy of the caller is up to date."},
        **error_responses(403, 404, 410),
    },
)
async def get_thumbnail(
    file_id: str,
    *,
    size: Annotated[ThumbnailSize, Query(description="128 or 512 pixels a side")] = "medium",
    if_none_match: Annotated[str | None, Header()] = None,
    expires: Annotated[str | None, Query(max_length=20, description="part of an expiring link")] = None,
    signature: Annotated[str | None, Query(max_length=100, description="part of an expiring link")] = None,
) -> Response:
    """A WebP of at most 512 or 128 pixels a side, made when it is first asked for.

    For a video, use the `thumbnail_url` of its job. If links expire, the parameters of the file's link are valid for
    its thumbnail too.
    """
    left = seconds_until_expiry(file_id, expires, signature)
    row = await run_in_threadpool(_find_file, file_id)
    if not row.mime.startswith("image/"):
        raise DreameryError(
            "file_not_found", "Only images have a thumbnail here; for a video, use the `thumbnail_url` of its job."
        )
    cache = _CACHE_PERMANENTLY if left is None else f"private, max-age={left}"
    return await send_thumbnail(row, size, if_none_match=if_none_match, cache=cache)


@dataclass(frozen=True, slots=True)
class FileConditions:
    """Range and conditional headers of a request (RFC 9110 13 and 14)."""

    range: str | None
    if_none_match: str | None
    if_range: str | None


async def send_file(
    request: Request, row: Any, *, name: str, conditions: FileConditions, cache: str, download: bool = False
) -> Response:
    """Respond with a stored file, the requested range or only the headers; 304 if the caller's copy is current.

    With `download`, browsers save it instead of showing it.
    """
    headers = {
        "ETag": f'"{row.sha256}"',
        "Accept-Ranges": "bytes",
        "Cache-Control": cache,
        "Content-Security-Policy": FILE_POLICY,
        "Content-Disposition": f'{"attachment" if download else "inline"}; filename="{name}"',
        # Also for pages that load the file without CORS headers in the request.
        "Access-Control-Allow-Origin": "*",
    }
    if conditions.if_none_match and (
        headers["ETag"] in conditions.if_none_match or conditions.if_none_match.strip() == "*"
    ):
        return Response(status_code=304, headers=headers)
    # Ranges are defined for GET only, and ignored if the caller's partial copy is of another version.
    use_range = request.method == "GET" and conditions.if_range in {None, headers["ETag"]}
    span = _parse_range(conditions.range, row.bytes) if use_range else None
    if span is not None and span[0] >= span[1]:
        message = f"The file has {row.bytes} bytes; the range {conditions.range!r} contains none of them."
        range_headers = {"Content-Range": f"bytes */{row.bytes}", "Accept-Ranges": "bytes"}
        return error_response(DreameryError("range_not_satisfiable", message), headers=range_headers)
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
