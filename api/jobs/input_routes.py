"""Inputs of jobs: a list for their owner, and the bytes by a signed link, which upstreams open too."""

from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import APIRouter, Header, Query, Request, Response
from pydantic import BaseModel, Field
from starlette.concurrency import run_in_threadpool

from api.auth.dependencies import ReadDep
from api.http.errors import error_responses
from api.http.preferences import set_job_id_header
from api.http.responses import base_url, json_response
from api.jobs.file_routes import FileConditions, send_file
from api.jobs.routes import job_not_found, parse_job_id
from worker.core.errors import DreameryError
from worker.core.security.signed_links import create_input_link, read_input_link
from worker.db.engine import Row, transaction
from worker.db.jobs import inputs, queries

router = APIRouter()


class JobInput(BaseModel):
    """One input of a job. The properties of a link are null until it is fetched."""

    n: int = Field(description="position in the request, from 0")
    role: Literal["reference", "first_frame", "end_frame"]
    media: Literal["image", "video", "audio"]
    name: str = Field(description="its name in the prompt; empty without one")
    url: str | None = Field(
        description="signed link to the stored file, valid for two days and accepted as an input of other calls; "
        "null = not stored yet, or not any more"
    )
    source_url: str | None = Field(description="the link in the request; null = sent as a file")
    mime: str | None
    width: int | None
    height: int | None
    bytes: int | None
    seconds: float | None


class JobInputs(BaseModel):
    """The inputs of a job, in the order of the request."""

    object: Literal["list"]
    data: list[JobInput]


def _input_object(row: "Row[Any]", job_id: UUID, base: str) -> dict[str, Any]:
    return {
        **{name: getattr(row, name) for name in ("n", "role", "media", "name", "mime", "width", "height", "bytes")},
        "url": create_input_link(base, job_id, row.n) if row.key is not None else None,
        "source_url": row.url,
        "seconds": None if row.milliseconds is None else round(row.milliseconds / 1000, 3),
    }


@router.get(
    "/v1/jobs/{job_id}/inputs",
    tags=["jobs"],
    summary="List the inputs of a job",
    responses={200: {"model": JobInputs, "description": "The inputs, in order."}, **error_responses(401, 404)},
)
async def list_inputs(request: Request, job_id: str, caller: ReadDep) -> Response:
    """The images, videos and audio that the job was given, with links to the files as long as they are stored."""
    parsed, base = parse_job_id(job_id), base_url(request)

    def read() -> list[dict[str, Any]]:
        with transaction() as tx:
            if queries.job_view(tx, parsed, caller.viewer(tx)) is None:
                raise job_not_found(job_id)
            return [_input_object(row, parsed, base) for row in inputs.original_inputs(tx, parsed)]

    rows = await run_in_threadpool(read)
    set_job_id_header(request, job_id)
    return json_response({"object": "list", "data": rows})


def _find(name: str, expires: str, signature: str) -> "Row[tuple[object, ...]]":
    job_id, n = read_input_link(name, expires, signature)
    with transaction() as tx:
        row = next((row for row in inputs.original_inputs(tx, job_id) if row.n == n), None)
    if row is None or row.key is None:
        raise DreameryError("file_not_found")
    return row


@router.head("/v1/inputs/{name}", include_in_schema=False)
@router.get("/v1/inputs/{name}", include_in_schema=False)
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
