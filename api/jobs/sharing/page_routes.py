"""The pages that share links open, and their files. They need no key and set no cookie: the link is the right.

Each request reads the share again, so that a revoked or expired one ends with all of its files at once.
"""

from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Header, Query, Request, Response
from starlette.concurrency import run_in_threadpool

from api.http.clients.address import network_of
from api.http.errors import select_language
from api.http.responses import base_url
from api.jobs.file_routes import FileConditions, send_file
from api.jobs.results.thumbnails import ThumbnailSize, send_thumbnail
from api.jobs.sharing.album_file_routes import CACHE, download_name, preview_of
from api.jobs.sharing.page import FILES_PER_PAGE, render_page, render_problem
from worker.core.errors import DreameryError
from worker.core.ids import parse_public_id
from worker.core.security.share_links import read_share_token
from worker.core.settings import get_settings
from worker.db.albums import shares
from worker.db.engine import Row, Transaction, transaction
from worker.messaging.rate_limits import RequestLimits

router = APIRouter(prefix="/s", include_in_schema=False)

# Per network address. A page with all of its images is about 120 requests.
_REQUESTS_PER_MINUTE = 1200
_UNKNOWN_LINKS_PER_MINUTE = 30
_ROBOTS = {"X-Robots-Tag": "noindex, nofollow, noimageindex"}


async def _count(request: Request, kind: str, per_minute: int) -> None:
    """Count a request of this network. Raises rate_limit_exceeded."""
    limits: RequestLimits | None = getattr(request.app.state, "limits", None)
    if limits is None:
        return
    status = await limits.count([(f"{kind}:{network_of(request)}", per_minute)])
    if status is not None and not status.allowed:
        raise DreameryError("rate_limit_exceeded", "Too many requests. Try again in a minute.", retry_after=60)


async def _share_id(request: Request, token: str) -> UUID:
    """Return the share of a link. Raises unknown_url for a link that was not made here."""
    await _count(request, "share", _REQUESTS_PER_MINUTE)
    share_id = read_share_token(token)
    if share_id is None:
        await _count(request, "unknown-share", _UNKNOWN_LINKS_PER_MINUTE)
    if share_id is None or not get_settings().share_max_days:
        raise DreameryError("share_not_found", "This share link does not exist. Check that it is complete.")
    return share_id


def _open(tx: Transaction, share_id: UUID) -> "Row[Any]":
    """Return the share. Raises share_ended if it was revoked, has expired, or its user or album is gone."""
    row = shares.find_share(tx, share_id)
    if row is None or row.expired:
        raise DreameryError("share_ended")
    return row


def _read_page(share_id: UUID, page: int) -> "tuple[Row[Any], list[Row[Any]], bool]":
    with transaction() as tx:
        share = _open(tx, share_id)
        offset = (page - 1) * FILES_PER_PAGE
        items = shares.list_items(tx, share, offset=offset, limit=FILES_PER_PAGE + 1)
    if not items:
        # All of its files were deleted or are past their retention, or there is no such page.
        raise DreameryError("share_ended")
    return share, items[:FILES_PER_PAGE], len(items) > FILES_PER_PAGE


@router.head("/{token}")
@router.get("/{token}")
async def get_page(
    request: Request,
    token: str,
    page: Annotated[int, Query(ge=1, le=1000)] = 1,
    accept_language: Annotated[str, Header(max_length=1000)] = "",
) -> Response:
    """The page of a share in the visitor's language; a page that says so if the link does not work any more."""
    chinese = select_language(accept_language).chinese
    try:
        share_id = await _share_id(request, token)
        share, items, has_more = await run_in_threadpool(_read_page, share_id, page)
    except DreameryError as error:
        return render_problem(error, chinese=chinese)
    link = f"{base_url(request)}/s/{token}"
    return render_page(share, items, link=link, page=page, has_more=has_more, chinese=chinese)


def _read_item(share_id: UUID, name: str) -> "Row[Any]":
    item_id = parse_public_id("item", f"item_{name}")
    with transaction() as tx:
        share = _open(tx, share_id)
        row = shares.find_item(tx, share, item_id) if item_id is not None else None
    if row is None:
        raise DreameryError("file_not_found")
    return row


@router.head("/{token}/{name}")
@router.get("/{token}/{name}")
async def get_file(
    request: Request,
    token: str,
    name: str,
    *,
    download: Annotated[bool, Query()] = False,
    range_header: Annotated[str | None, Header(alias="range")] = None,
    if_none_match: Annotated[str | None, Header()] = None,
    if_range: Annotated[str | None, Header()] = None,
) -> Response:
    """The bytes of a shared file; supports range requests."""
    row = await run_in_threadpool(_read_item, await _share_id(request, token), name)
    conditions = FileConditions(range=range_header, if_none_match=if_none_match, if_range=if_range)
    answer = await send_file(
        request, row, name=download_name(row), conditions=conditions, cache=CACHE, download=download
    )
    answer.headers.update(_ROBOTS)
    return answer


@router.get("/{token}/{name}/thumbnail")
async def get_thumbnail(
    request: Request,
    token: str,
    name: str,
    *,
    size: ThumbnailSize = "medium",
    if_none_match: Annotated[str | None, Header()] = None,
) -> Response:
    """A small image of a shared file, or of the first frame of a video."""
    row = await run_in_threadpool(_read_item, await _share_id(request, token), name)
    answer = await send_thumbnail(preview_of(row), size, if_none_match=if_none_match, cache=CACHE)
    answer.headers.update(_ROBOTS)
    return answer
