"""Inputs of jobs, for upstreams that open them by a signed link. Not for callers: their own links lead to results."""

from typing import Annotated

from fastapi import APIRouter, Header, Query, Request, Response
from starlette.concurrency import run_in_threadpool

from api.jobs.file_routes import FileConditions, send_file
from worker.core.errors import DreameryError
from worker.core.security.signed_links import read_input_link
from worker.db.engine import Row, transaction
from worker.db.jobs import inputs

router = APIRouter(prefix="/v1/inputs", include_in_schema=False)


def _find(name: str, expires: str, signature: str) -> "Row[tuple[object, ...]]":
    job_id, n = read_input_link(name, expires, signature)
    with transaction() as tx:
        row = next((row for row in inputs.original_inputs(tx, job_id) if row.n == n), None)
    if row is None or row.key is None:
        raise DreameryError("file_not_found")
    return row


@router.head("/{name}")
@router.get("/{name}")
async def get_input(
    request: Request,
    name: str,
    *,
    expires: Annotated[str, Query(max_length=20)] = "",
    signature: Annotated[str, Query(max_length=100)] = "",
    range_header: Annotated[str | None, Header(alias="range")] = None,
) -> Response:
    """The bytes of the input; the signature in the link grants access."""
    row = await run_in_threadpool(_find, name, expires, signature)
    conditions = FileConditions(range=range_header, if_none_match=None, if_range=None)
    return await send_file(request, row, name="input", conditions=conditions, cache="private, no-store")
