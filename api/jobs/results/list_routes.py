"""List the pictures and videos of a caller one by one, for galleries."""

import re
from typing import Annotated, Any, Literal, NoReturn
from uuid import UUID

from fastapi import APIRouter, Depends, Query, Request, Response
from starlette.concurrency import run_in_threadpool

from api.auth.dependencies import ReadDep
from api.http.errors import error_responses
from api.http.fields import Text
from api.http.responses import base_url, json_response, page_object
from api.jobs.results.schemas import ResultList
from api.jobs.results.serialization import result_object
from api.jobs.routes import parse_time, resolve_model_ids
from api.jobs.serialization import job_object
from worker.core.errors import DreameryError
from worker.core.ids import parse_public_id
from worker.db.engine import transaction
from worker.db.jobs import queries
from worker.db.jobs.queries import JobFilter, JobView
from worker.db.jobs.results import listing
from worker.db.jobs.results.listing import Position, ResultFilter, ResultPage

router = APIRouter(prefix="/v1/results", tags=["files"])

SHAPES = ("landscape", "portrait", "square")
_RATIO = re.compile(r"([1-9][0-9]{0,3}):([1-9][0-9]{0,3})")
_POSITION = re.compile(r"([0-9a-f]{32})\.([0-9]{1,10})")
_MAX_NUMBER = 2**31 - 1


def _read_filters(
    *,
    kind: Annotated[Literal["image", "video"] | None, Query()] = None,
    model: Annotated[Text | None, Query(max_length=200, description="a model's id or alias")] = None,
    q: Annotated[Text | None, Query(max_length=200, description="text that the prompt contains")] = None,
    favourite: Annotated[bool | None, Query(description="true = only favourites, false = only others")] = None,
    pinned: Annotated[bool | None, Query(description="true = only pinned results, false = only others")] = None,
    ratio: Annotated[
        str | None,
        Query(max_length=20, description="`landscape`, `portrait`, `square`, or a ratio such as `16:9` (within 3 %)"),
    ] = None,
    created_after: Annotated[str | None, Query(max_length=60, description="unix seconds or ISO 8601")] = None,
    created_before: Annotated[str | None, Query(max_length=60)] = None,
) -> ResultFilter:
    shape, sides = _parse_ratio(ratio)
    jobs = JobFilter(
        kinds=[kind] if kind else None,
        models=resolve_model_ids(model),
        prompt=q or None,
        created_after=parse_time(created_after, "created_after"),
        created_before=parse_time(created_before, "created_before"),
    )
    return ResultFilter(jobs=jobs, favourite=favourite, pinned=pinned, shape=shape, ratio=sides)


@router.get(
    "",
    summary="List your results",
    responses={200: {"model": ResultList, "description": "One page."}, **error_responses(400, 401)},
)
async def list_results(
    request: Request,
    caller: ReadDep,
    filters: Annotated[ResultFilter, Depends(_read_filters)],
    *,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
    after: Annotated[
        str | None, Query(max_length=60, description="`next` of the previous page, or the id of its last result")
    ] = None,
    order: Literal["asc", "desc"] = "desc",
    include: Annotated[Literal["jobs"] | None, Query(description="`jobs`: also return their jobs, in `jobs`")] = None,
) -> Response:
    """Returns pictures and videos of finished jobs, newest first: by their job, then by their number in it.

    Deleted and expired results are absent. If `has_more` is true, send `next` as `after`. A filter that matches little
    can give a short or empty page that has a next one.
    """

    def read() -> tuple[ResultPage, list[JobView]]:
        with transaction() as tx:
            start = _parse_position(after) if after else None
            if isinstance(start, UUID):
                start = listing.position_of(tx, start) or _refuse_position()
            viewer = caller.viewer(tx)
            page = listing.list_results(tx, viewer, filters, after=start, limit=limit, newest_first=order == "desc")
            job_ids = list({row.job_id for row in page.rows})
            return page, queries.group_views(tx, job_ids) if include and job_ids else []

    page, views = await run_in_threadpool(read)
    base = base_url(request)
    body = _page_object(page, base)
    return json_response({**body, "jobs": [job_object(view, base) for view in views]} if include else body)


def _page_object(page: ResultPage, base: str) -> dict[str, Any]:
    data = [result_object(row, base) for row in page.rows]
    return {
        **page_object(data, more=page.next is not None),
        "next": f"{page.next.job_id.hex}.{page.next.n}" if page.next else None,
    }


def _parse_position(after: str) -> Position | UUID:
    """Parse the cursor: a position, or the id of a result."""
    if match := _POSITION.fullmatch(after):
        return Position(UUID(hex=match[1]), min(int(match[2]), _MAX_NUMBER))
    return parse_public_id("file", after) or _refuse_position()


def _refuse_position() -> NoReturn:
    message = "`after` must be `next` of a page, or the id of a result (`file_...`)."
    raise DreameryError("invalid_value", message, param="after")


def _parse_ratio(ratio: str | None) -> tuple[str | None, tuple[int, int] | None]:
    """Return a shape, or width and height."""
    if ratio is None or ratio in SHAPES:
        return ratio, None
    if match := _RATIO.fullmatch(ratio):
        return None, (int(match[1]), int(match[2]))
    message = f"`ratio` must be {', '.join(SHAPES)} or a ratio such as 16:9; got {ratio[:20]!r}."
    raise DreameryError("invalid_value", message, param="ratio")
